"""Of verdicts that are said to be sure, are as few wrong as asked? 20 splits of held-out rows.

    python -m benchmarks.risk --data NAME --recipe NAME [--scheme S]

The recipe's cross-fitted rows are parted by group into halves: a band is found on one, and the
sure verdicts of the other are counted. Beside it the same with rows taken for independent.
"""

import argparse
from dataclasses import replace

import numpy as np

from src.artifacts.recipes import read_recipe
from src.ensemble.predictions import Decided
from src.ensemble.shift.risk import find_band
from src.errors import UserError
from src.paths import recipe_json
from src.reporting.evaluated import honest_rows, how_decided, subject_of_recipe
from src.stratify import stratified_group_folds

SPLITS = 20
WANTED = 0.9  # of those with any sure verdict: the share in which no more than the risk is wrong
RISKS = (0.05, 0.10)


def judge(rows: Decided, risk: float, *, grouped: bool) -> dict[str, np.ndarray]:
    """Return (splits,) what share of the other half is sure, wrong of these, and sure by word.

    Wrong is NaN in a split where nothing is sure.
    """
    found: dict[str, list[float]] = {"sure": [], "wrong": [], "real": [], "fake": []}
    for seed in range(SPLITS):
        half = stratified_group_folds(rows.label, rows.group, 2, seed)
        known, other = rows.take(half == 0), rows.take(half == 1)
        if not grouped:
            known = replace(known, group=np.arange(len(known)))
        try:
            band = find_band(known, risk)
            sure = band.is_sure(other.prob, other.threshold, other.pred)
        except UserError:
            sure = np.zeros(len(other), dtype=bool)
        wrong = other.pred != other.label
        found["sure"].append(float(sure.mean()))
        found["wrong"].append(float(wrong[sure].mean()) if sure.any() else np.nan)
        for word, name in enumerate(("real", "fake")):
            found[name].append(float(sure[other.pred == word].mean()))
    return {name: np.array(values) for name, values in found.items()}


def main() -> None:
    """Print a row a risk and way, then whether the target is met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--recipe", required=True)
    asked = parser.parse_args()
    recipe = read_recipe(recipe_json(asked.data, asked.recipe))
    subject = subject_of_recipe(asked.recipe, recipe)
    rows = honest_rows(subject)
    error = float((rows.pred != rows.label).mean())
    print(f"{asked.data} {asked.recipe}: {len(rows)} {how_decided(subject)} rows of "
          f"{rows.n_groups} groups, {rows.label.mean():.1%} fake, {error:.1%} wrong")  # fmt: skip
    print("| risk | rows count as | sure, of all | of `real` | of `fake` | wrong of sure (most) "
          "| met, of splits with any sure |\n|---|---|---|---|---|---|---|")  # fmt: skip
    for risk in RISKS:
        for grouped in (True, False):
            found = judge(rows, risk, grouped=grouped)
            told = found["wrong"][~np.isnan(found["wrong"])]  # splits in which anything is sure
            met = int((told <= risk).sum())
            cells = [f"{risk:.2f}", "their groups" if grouped else "independent"]
            cells += [f"{found[name].mean():.1%}" for name in ("sure", "real", "fake")]
            cells += [f"{told.mean():.1%} ({told.max():.1%})" if len(told) else "-"]
            state = ("ok" if met >= WANTED * len(told) else "short") if grouped else ""
            verdict = f"{met} of {len(told)} {state}" if len(told) else "nothing sure"
            print("| " + " | ".join([*cells, verdict.strip()]) + " |")


if __name__ == "__main__":
    main()
