"""Which strategy holds up on rows nobody saw? In-sample, nested and truly held-out scores.

    python -m benchmarks.held_out --input-root DIR [--metric auc]

The predictions come from oof_models.py (made on the first call). Every strategy is fitted on the
out-of-fold rows, scored on them, scored nested (cross-fitted over the folds), and scored on the
quarter of the groups that no model and no tuning ever saw.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.oof_models import load_predictions, make_parser, table_of
from src.bootstrap import bootstrap_scores, interval
from src.ensemble import crossfit
from src.ensemble.rule import vote
from src.ensemble.search import Search, incumbent_of, ladder
from src.metrics import metric_named, score_of

CALIBRATED = ("temperature-mean", "isotonic-mean")  # shown, whether tried by default or not
GREEDY = "greedy"  # what AutoGluon does, for the metric


def judge(
    data: str,
    seed: int,
    found: dict[str, np.ndarray],
    members: Sequence[int],
    search: Search,
    only: Sequence[str] | None,
) -> list[dict]:
    """Score every strategy, or `only` some, and mark the one that tune.py would choose."""
    metric, table = search.metric, table_of(found, members)
    parts = crossfit.make_parts(table, search.seed)
    default = ladder(len(members), metric=metric)
    names = list(only) if only else list(dict.fromkeys([*default, *CALIBRATED]))
    tried = [crossfit.try_strategy(name, table, parts, search) for name in names]
    chosen = ""
    if not only:
        judged = crossfit.judge(tried[: len(default)], table, search, first=0)
        chosen = next(c.name for c in reversed(judged) if c.taken)
    nested = [t.votes for t in tried if t.votes is not None]
    held_logits = found["held_logits"].mean(axis=0)[:, members]
    held = [vote(t.rule, held_logits) for t in tried]
    label, group = found["held_label"], found["held_group"]
    inner = bootstrap_scores(metric, table.label, nested, table.group, seed=seed)
    outer = bootstrap_scores(
        metric, label, held, group, seed=seed + 1000, replicates=len(inner)
    )  # fmt: skip
    scores = [score_of(metric, label, *votes) for votes in held]
    best = int(np.argmax(metric.sign * np.array(scores)))
    plain = names.index(incumbent_of(metric)) if incumbent_of(metric) in names else best
    rows = []
    for i, t in enumerate(tried):
        low, high = interval(inner[:, i] - outer[:, i])
        rows.append(
            {
                "data": data, "members": len(members), "seed": seed, "strategy": t.name,
                "in_sample": t.in_sample, "nested": score_of(metric, table.label, *nested[i]),
                "held_out": scores[i], "low": low, "high": high, "default": t.name == chosen,
                "behind": metric.sign * (scores[best] - scores[i]),
                "paired_se": float(np.std(outer[:, best] - outer[:, i], ddof=1)),
                "best_se": float(np.std(outer[:, best], ddof=1)),
                "over_mean": metric.sign * (scores[i] - scores[plain]),
                "over_mean_se": float(np.std(outer[:, i] - outer[:, plain], ddof=1)),
            }
        )  # fmt: skip
    return rows


def _report(table: pd.DataFrame, sign: int) -> None:
    mean = table.groupby(["data", "members", "strategy"], sort=False)[
        ["in_sample", "nested", "held_out"]
    ].mean()
    print(mean.to_string(float_format=lambda value: f"{value:.4f}"))
    if table["default"].any():
        _report_default(table[table["default"]])
        _report_rivals(table, sign)
    gap = table["nested"] - table["held_out"]
    covered = ((table["low"] <= 0) & (table["high"] >= 0)).mean()
    width = (table["high"] - table["low"]).mean()
    figure = (f"{covered:.0%} of {len(table)} cells, "
              f"mean width {width:.4f}, bias {gap.mean():+.4f}")  # fmt: skip
    _target("95 % interval of nested - held-out covers 0", figure, ">= 80 %", covered >= 0.8)
    flattery = sign * (table["in_sample"] - table["held_out"])
    print(f"in-sample - held-out: mean {flattery.mean():+.4f}")


def _report_default(chosen: pd.DataFrame) -> None:
    """Hold the default against the best by two standard errors, the strict one first."""
    print("\nwhat tune.py chose, and how far it is behind the best strategy on the held-out rows")
    columns = ["data", "members", "seed", "strategy", "nested", "held_out", "behind", "paired_se",
               "best_se"]  # fmt: skip
    print(chosen[columns].to_string(index=False, float_format=lambda value: f"{value:.4f}"))
    kinds = {
        "paired_se": "1 s.e. of the difference (paired)",
        "best_se": "1 s.e. of the best's score",
    }
    for column, name in kinds.items():
        good = (chosen["behind"] <= chosen[column]).sum()
        _target(f"default behind the best by at most {name}", f"{good} of {len(chosen)} rows",
                "every row", good == len(chosen))  # fmt: skip


def _report_rivals(table: pd.DataFrame, sign: int) -> None:
    """Hold the default against the plain mean in every row, and against greedy on average."""
    chosen = table[table["default"]]
    good = int((chosen["over_mean"] >= -chosen["over_mean_se"]).sum())
    worst = chosen["over_mean"].min()
    figure = (
        f"{good} of {len(chosen)} rows (worst {worst:+.4f}, mean {chosen.over_mean.mean():+.4f})"
    )
    _target("default at least the plain mean, within 1 paired s.e.", figure, "every row",
            good == len(chosen))  # fmt: skip
    greedy = table[table["strategy"] == GREEDY]
    ahead = sign * (chosen["held_out"].to_numpy() - greedy["held_out"].to_numpy())
    error = ahead.std(ddof=1) / np.sqrt(len(ahead))
    _target(f"default ahead of {GREEDY} on average", f"{ahead.mean():+.4f} ± {error:.4f}", "> 0",
            bool(ahead.mean() > 0))  # fmt: skip


def _target(name: str, figure: str, target: str, good: bool) -> None:
    print(f"{'ok' if good else 'short'} {name}: {figure} (target {target})")


def main() -> None:
    """Run everything and print the table."""
    parser = make_parser(__doc__)
    parser.add_argument("--metric", default="macro_f1")
    parser.add_argument("--strategies", nargs="+", help="only these; then no default is judged")
    parser.add_argument("--csv", type=Path, help="write all cells there")
    arguments = parser.parse_args()
    cells = []
    search = Search(metric=metric_named(arguments.metric))
    for data in arguments.data:
        for seed in range(arguments.first, arguments.first + arguments.seeds):
            found = load_predictions(
                data, seed, arguments.input_root, arguments.rows, arguments.tuned
            )  # fmt: skip
            every = range(found["logits"].shape[1])
            for members in (every, every[::2]):
                print(data, seed, f"{len(members)} members", flush=True)
                cells += judge(data, seed, found, members, search, arguments.strategies)
    table = pd.DataFrame(cells)
    if arguments.csv:
        table.to_csv(arguments.csv, index=False)
    _report(table, search.metric.sign)


if __name__ == "__main__":
    main()
