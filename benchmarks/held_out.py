"""Which strategy holds up on rows nobody saw? In-sample, nested and truly held-out macro-F1.

    python -m benchmarks.held_out --input-root DIR

The predictions come from oof_models.py (made on the first call). Every strategy is fitted on the
out-of-fold rows, scored on them, scored nested (cross-fitted over the folds), and scored on the
quarter of the groups that no model and no tuning ever saw.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.oof_models import load_predictions, make_parser
from src.bootstrap import bootstrap_scores, interval
from src.ensemble import crossfit
from src.ensemble.predictions import Predictions
from src.ensemble.rule import vote
from src.ensemble.search import Search, ladder
from src.metrics import score_of

SEARCH = Search(seed=42)


def as_table(found: dict[str, np.ndarray]) -> Predictions:
    """Dress predictions as the table that tuning looks at."""
    blank = np.full(len(found["label"]), "", dtype=object)
    return Predictions(
        item_id=blank, label=found["label"], group=found["group"], fold=found["fold"],
        domain=blank, kind=blank, logit=found["logits"],
    )  # fmt: skip


def judge(
    data: str, seed: int, found: dict[str, np.ndarray], members: slice, only: Sequence[str] | None
) -> list[dict]:
    """Score every strategy, or `only` some, and mark the one that tune.py would choose."""
    found = found | {key: found[key][:, members] for key in ("logits", "held_logits")}
    table = as_table(found)
    parts = crossfit.make_parts(table, SEARCH.seed)
    default = ladder(table.logit.shape[1])
    names = list(only) if only else [*default, "temperature-mean", "isotonic-mean"]
    tried = [crossfit.try_strategy(name, table, parts, SEARCH) for name in names]
    chosen = ""
    if not only:
        judged = crossfit.judge(tried[: len(default)], table, SEARCH, first=0)
        chosen = next(c.name for c in reversed(judged) if c.taken)
    nested = [t.votes for t in tried if t.votes is not None]
    held = [vote(t.rule, found["held_logits"]) for t in tried]
    label, group, metric = found["held_label"], found["held_group"], SEARCH.metric
    inner = bootstrap_scores(metric, table.label, nested, table.group, seed=seed)
    outer = bootstrap_scores(metric, label, held, group, seed=seed + 1000)
    scores = [score_of(metric, label, *votes) for votes in held]
    best = int(np.argmax(scores))
    rows = []
    for i, t in enumerate(tried):
        low, high = interval(inner[:, i] - outer[:, i])
        rows.append(
            {
                "data": data, "members": table.logit.shape[1], "seed": seed, "strategy": t.name,
                "in_sample": t.in_sample, "nested": score_of(metric, table.label, *nested[i]),
                "held_out": scores[i], "low": low, "high": high, "default": t.name == chosen,
                "behind": scores[best] - scores[i],
                "paired_se": float(np.std(outer[:, best] - outer[:, i], ddof=1)),
                "best_se": float(np.std(outer[:, best], ddof=1)),
            }
        )  # fmt: skip
    return rows


def _report(table: pd.DataFrame) -> None:
    mean = table.groupby(["data", "members", "strategy"], sort=False)[
        ["in_sample", "nested", "held_out"]
    ].mean()
    print(mean.to_string(float_format=lambda value: f"{value:.4f}"))
    if table["default"].any():
        _report_default(table[table["default"]])
    gap = table["nested"] - table["held_out"]
    covered = ((table["low"] <= 0) & (table["high"] >= 0)).mean()
    width = (table["high"] - table["low"]).mean()
    figure = (f"{covered:.0%} of {len(table)} cells, "
              f"mean width {width:.4f}, bias {gap.mean():+.4f}")  # fmt: skip
    _target("95 % interval of nested - held-out covers 0", figure, ">= 80 %", covered >= 0.8)
    flattery = table["in_sample"] - table["held_out"]
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


def _target(name: str, figure: str, target: str, good: bool) -> None:
    print(f"{'ok' if good else 'short'} {name}: {figure} (target {target})")


def main() -> None:
    """Run everything and print the table."""
    parser = make_parser(__doc__)
    parser.add_argument("--strategies", nargs="+", help="only these; then no default is judged")
    parser.add_argument("--csv", type=Path, help="write all cells there")
    arguments = parser.parse_args()
    cells = []
    for data in arguments.data:
        for seed in range(arguments.seeds):
            found = load_predictions(data, seed, arguments.input_root, arguments.rows)
            cells += judge(data, seed, found, slice(None), arguments.strategies)
            cells += judge(data, seed, found, slice(0, None, 2), arguments.strategies)
    table = pd.DataFrame(cells)
    if arguments.csv:
        table.to_csv(arguments.csv, index=False)
    _report(table)


if __name__ == "__main__":
    main()
