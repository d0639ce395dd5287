"""Which strategy holds up on rows nobody saw? In-sample, nested and truly held-out macro-F1.

    python benchmarks/held_out.py --input-root DIR

The predictions come from oof_models.py (made on the first call). Every strategy is fitted on the
out-of-fold rows, scored on them, scored nested (cross-fitted over the folds), and scored on the
quarter of the groups that no model and no tuning ever saw.
"""

import argparse
import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.oof_models import load_predictions
from src.ensemble.align import Aligned
from src.ensemble.bootstrap import bootstrap_macro_f1, interval
from src.ensemble.crossfit import cross_fit, fit_rule
from src.ensemble.rule import vote
from src.ensemble.search import STRATEGIES, Search, ladder
from src.ensemble.tune import tune
from src.metrics import macro_f1

SEARCH = Search(seed=42)


def as_aligned(found: dict[str, np.ndarray]) -> Aligned:
    """Dress predictions as what `align` gives."""
    n, m = found["logits"].shape
    blank = np.full(n, "", dtype=object)
    return Aligned(
        dataset="benchmark", scheme="sgkf5", folds_sha256="", all_folds=list(range(5)),
        folds=list(range(5)), models=[f"m{i}" for i in range(m)],
        oof_sha256={f"m{i}": {} for i in range(m)}, item_ids=blank, label=found["label"],
        group=found["group"], fold=found["fold"], kind=blank, domain=blank,
        logits=found["logits"], left_out=[], selected_on=[], fake_share=found["label"].mean(),
    )  # fmt: skip


def judge(data: str, seed: int, found: dict[str, np.ndarray], members: slice) -> list[dict]:
    """Score every strategy and the default on one data set and seed."""
    found = found | {key: found[key][:, members] for key in ("logits", "held_logits")}
    aligned = as_aligned(found)
    label, group = found["held_label"], found["held_group"]
    everything = np.ones(len(aligned.label), dtype=bool)
    names = [*ladder(len(aligned.models)), "temperature-mean", "isotonic-mean"]
    rows, nested, held = [], [], []
    for name in names:
        strategy = STRATEGIES.get(name)
        rule = fit_rule(strategy, aligned, everything, SEARCH)
        pred = vote(rule, found["held_logits"]).pred
        crossed = cross_fit(strategy, aligned, aligned.fold, SEARCH)
        nested.append(crossed)
        held.append(pred)
        rows.append(
            {
                "data": data, "members": len(aligned.models), "seed": seed, "strategy": name,
                "in_sample": macro_f1(aligned.label, vote(rule, aligned.logits).pred),
                "nested": macro_f1(aligned.label, crossed), "held_out": macro_f1(label, pred),
            }
        )  # fmt: skip
    inner = bootstrap_macro_f1(aligned.label, nested, aligned.group, seed=seed)
    outer = bootstrap_macro_f1(label, held, group, seed=seed + 1000)
    chosen = tune(aligned, search=dataclasses.replace(SEARCH)).chosen
    best = int(np.argmax([row["held_out"] for row in rows]))
    for i, row in enumerate(rows):
        row["low"], row["high"] = interval(inner[:, i] - outer[:, i])
        row["behind"] = rows[best]["held_out"] - row["held_out"]
        row["behind_se"] = float(np.std(outer[:, best] - outer[:, i], ddof=1))
        row["default"] = row["strategy"] == chosen
    return rows


def _report(table: pd.DataFrame) -> None:
    mean = table.groupby(["data", "members", "strategy"], sort=False)[
        ["in_sample", "nested", "held_out"]
    ].mean()
    print(mean.to_string(float_format=lambda value: f"{value:.4f}"))
    print("\nwhat tune.py chose, and how far it is behind the best strategy on the held-out rows")
    chosen = table[table["default"]]
    columns = ["data", "members", "seed", "strategy", "nested", "held_out", "behind", "behind_se"]
    print(chosen[columns].to_string(index=False, float_format=lambda value: f"{value:.4f}"))
    good = (chosen["behind"] <= chosen["behind_se"]).sum()
    _target("default within 1 s.e. of the best", f"{good} of {len(chosen)} rows", "every row",
            good == len(chosen))  # fmt: skip
    gap = table["nested"] - table["held_out"]
    covered = ((table["low"] <= 0) & (table["high"] >= 0)).mean()
    width = (table["high"] - table["low"]).mean()
    figure = (f"{covered:.0%} of {len(table)} cells, "
              f"mean width {width:.4f}, bias {gap.mean():+.4f}")  # fmt: skip
    _target("95 % interval of nested - held-out covers 0", figure, ">= 80 %", covered >= 0.8)
    flattery = table["in_sample"] - table["held_out"]
    print(f"in-sample - held-out: mean {flattery.mean():+.4f}")


def _target(name: str, figure: str, target: str, good: bool) -> None:
    print(f"{'ok' if good else 'short'} {name}: {figure} (target {target})")


def main() -> None:
    """Run everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--input-root", type=Path)
    parser.add_argument("--data", nargs="+", default=["cifake", "dfdc_faces"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=12_000)
    parser.add_argument("--csv", type=Path, help="write all cells there")
    arguments = parser.parse_args()
    cells = []
    for data in arguments.data:
        for seed in range(arguments.seeds):
            found = load_predictions(data, seed, arguments.input_root, arguments.rows)
            cells += judge(data, seed, found, slice(None))
            cells += judge(data, seed, found, slice(0, None, 2))
    table = pd.DataFrame(cells)
    if arguments.csv:
        table.to_csv(arguments.csv, index=False)
    _report(table)


if __name__ == "__main__":
    main()
