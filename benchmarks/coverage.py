"""Does the printed 95 % interval hold the score on rows that nobody saw, with few folds finished?

    python -m benchmarks.coverage --input-root DIR --first 5 --seeds 10 [--tuned 1632]

What ships with k finished folds, the chosen rule over their k models, is scored on the held-out
rows. `before` is the interval by a bootstrap of rows alone, `after` the one that tune.py prints.
The score on the held-out rows has a noise of its own; as a leaderboard's reader compares the two
scores, it is added to both intervals (`held-out noise`: its standard error, bootstrap by group),
and without it the interval alone is asked (`alone`; `worse`: beyond its worse end). Strategies
that run trials are left out.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.oof_models import FOLDS, load_predictions, make_parser, table_of
from src.bootstrap import bootstrap_scores, interval
from src.ensemble import crossfit
from src.ensemble.rule import vote
from src.ensemble.search import STRATEGIES, Search, ladder
from src.metrics import metric_named, score_of

MEMBERS = [[0], [5], [9], list(range(0, 11, 2)), list(range(11))]
FINISHED = (1, 2, 3, FOLDS)
HELD_DRAWS = 200


def cell(found: dict[str, np.ndarray], members: list[int], finished: int, search: Search) -> dict:
    """Tune with so many finished folds, and hold both intervals against the held-out score."""
    metric = search.metric
    table = table_of(found, members).take(found["fold"] < finished)
    parts = crossfit.make_parts(table, search.seed)
    names = [n for n in ladder(len(members), metric=metric) if not STRATEGIES.get(n).sampler]
    tried = [crossfit.try_strategy(name, table, parts, search) for name in names]
    judged = crossfit.judge(tried, table, search, first=0)
    place = max(i for i, candidate in enumerate(judged) if candidate.taken)
    chosen, best = tried[place], judged[place]
    draws = bootstrap_scores(metric, table.label, [chosen.votes], table.group, seed=search.seed)
    votes = vote(chosen.rule, found["held_logits"][:finished][:, :, members].mean(axis=0))
    label, group = found["held_label"], found["held_group"]
    held = bootstrap_scores(
        metric, label, [votes], group, seed=search.seed + 1000, replicates=HELD_DRAWS
    )
    truth, noise = score_of(metric, label, *votes), 1.96 * float(np.std(held, ddof=1))
    row = {"strategy": best.name, "score": best.cross_fitted, "held_out": truth, "noise": noise}
    for name, (low, high) in {"before": interval(draws[:, 0]), "after": best.interval}.items():
        middle = best.cross_fitted
        wide = middle - np.hypot(middle - low, noise), middle + np.hypot(high - middle, noise)
        row |= {
            f"{name}_alone": low <= truth <= high,
            f"{name}_worse": truth < low if metric.higher else truth > high,
            name: wide[0] <= truth <= wide[1],
            f"{name}_width": high - low,
        }
    return row


def main() -> None:
    """Run all cells and print the coverage by the number of finished folds."""
    parser = make_parser(__doc__)
    parser.add_argument("--metrics", nargs="+", default=["macro_f1", "auc", "log_loss"])
    parser.add_argument("--csv", type=Path, help="write all cells there")
    asked = parser.parse_args()
    cells = []
    for data in asked.data:
        for seed in range(asked.first, asked.first + asked.seeds):
            found = load_predictions(data, seed, asked.input_root, asked.rows, asked.tuned)
            for name in asked.metrics:
                search = Search(metric=metric_named(name), seed=seed)
                print(data, seed, name, flush=True)
                for members in MEMBERS:
                    for finished in FINISHED:
                        row = {"data": data, "seed": seed, "metric": name, "folds": finished}
                        row |= {"members": len(members)} | cell(found, members, finished, search)
                        cells.append(row)
    table = pd.DataFrame(cells)
    if asked.csv:
        table.to_csv(asked.csv, index=False)
    shown = [f"{name}{part}" for part in ("", "_alone", "_worse") for name in ("before", "after")]
    for by in (["metric", "folds"], ["members", "folds"], ["folds"]):
        part = table.groupby(by, sort=False)
        mean = part[shown].mean().assign(cells=part.size(), wider=_wider(part))
        print(mean.to_string(float_format=lambda value: f"{value:.3f}"), end="\n\n")
    worst = table.groupby("folds")["after"].mean().min()
    good = "ok" if worst >= 0.9 else "short"
    print(f"{good} held-out score within the interval, worst number of folds: {worst:.1%} "
          "(target 90 %)")  # fmt: skip


def _wider(part: "pd.core.groupby.DataFrameGroupBy") -> pd.Series:
    """Return how many times as wide as before the interval is, in the mean of the cells."""
    return part[["before_width", "after_width"]].apply(
        lambda rows: (rows["after_width"] / rows["before_width"]).mean()
    )


if __name__ == "__main__":
    main()
