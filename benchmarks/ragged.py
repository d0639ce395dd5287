"""Folds that some members have not finished: all there is, or the folds that all share?

    python -m benchmarks.ragged --input-root DIR

Three of the members of oof_models.py (made on the first call) have finished three, two and one of
five folds. Tuned both ways, each recipe is scored on the groups that no model and no tuning saw:
a member says there the mean logit of the fold models that the recipe knows of.
"""

from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.oof_models import load_predictions, make_parser
from src.bootstrap import bootstrap_scores
from src.ensemble.align import Aligned
from src.ensemble.rule import rule_of, vote
from src.ensemble.tune import tune
from src.metrics import MACRO_F1, score_of

FOLDS_OF = ((0, 1, 2), (0, 1), (0,))  # folds that the first, second and third member have finished
# Without Optuna's searches, which take most of the time.
LADDER = ["mean@0.5", "best-member", "mean", "logit-mean", "rank-mean", "mean-plug-in",
          "platt-mean", "log-loss-weights", "stack", "greedy"]  # fmt: skip
TRIOS = (("logistic", "boosting", "mlp"), ("lda", "extra-trees", "neighbours"))
NAMES = ["logistic", "logistic-dct", "lda", "naive-bayes", "quantile-bayes", "boosting",
         "boosting-slow", "extra-trees", "forest", "mlp", "neighbours"]  # fmt: skip


def aligned_of(found: dict[str, np.ndarray], folds_of: dict[str, tuple[int, ...]]) -> Aligned:
    """Return what tuning sees where members have finished these folds."""
    rows = np.isin(found["fold"], sorted({k for have in folds_of.values() for k in have}))
    fold = found["fold"][rows]
    logit = found["logits"][rows][:, [NAMES.index(model) for model in folds_of]].astype(np.float64)
    for column, have in enumerate(folds_of.values()):
        logit[~np.isin(fold, have), column] = np.nan
    blank = np.full(int(rows.sum()), "", dtype=object)
    marks = {model: {str(k): f"{model}{k}" for k in have} for model, have in folds_of.items()}
    return Aligned(
        item_id=blank, label=found["label"][rows], group=found["group"][rows], fold=fold,
        domain=blank, kind=np.full(len(blank), "image", dtype=object), logit=logit,
        dataset="benchmark", scheme="sgkf5", folds_sha256="", all_folds=[0, 1, 2, 3, 4],
        folds=sorted({k for have in folds_of.values() for k in have}), models=list(folds_of),
        oof_sha256=marks, checkpoint_sha256=marks, selected_on=[],
    )  # fmt: skip


def judge(
    data: str, seed: int, found: dict[str, np.ndarray], order: tuple[str, ...]
) -> dict[str, Any]:
    """Tune three members both ways, the first of them with three folds; score unseen rows."""
    ragged: dict[str, tuple[int, ...]] = dict(zip(order, FOLDS_OF, strict=True))
    common: dict[str, tuple[int, ...]] = dict.fromkeys(order, (0,))
    row: dict[str, Any] = {"data": data, "seed": seed, "members": " ".join(order)}
    answers = []
    for way, folds_of in (("all", ragged), ("common", common)):
        tuned = tune(aligned_of(found, folds_of), names=LADDER)
        fold_means = [
            found["held_logits"][list(have), :, NAMES.index(model)].mean(axis=0)
            for model, have in folds_of.items()
        ]
        votes = vote(rule_of(tuned.recipe), np.stack(fold_means, axis=1))
        answers.append(votes)
        row[way] = score_of(MACRO_F1, found["held_label"], *votes)
        row[f"{way}_said"] = tuned.recipe.scores["cross_fitted"]
        row[f"{way}_chosen"] = tuned.chosen
    label, group = found["held_label"], found["held_group"]
    draws = bootstrap_scores(MACRO_F1, label, answers, group, seed=seed, replicates=400)
    row["se"] = float(np.std(draws[:, 0] - draws[:, 1], ddof=1))
    print(
        f"{data} {seed} {row['members']}: all {row['all']:.4f} ({row['all_said']:.4f} said, "
        f"{row['all_chosen']}), common {row['common']:.4f} ({row['common_said']:.4f}, "
        f"{row['common_chosen']})",
        flush=True,
    )
    return row


def main() -> None:
    """Run everything and print the table."""
    arguments = make_parser(__doc__).parse_args()
    where = list(product(arguments.data, range(arguments.seeds)))
    found = {
        key: load_predictions(*key, arguments.input_root, arguments.rows, arguments.tuned)
        for key in where
    }
    orders = [(*trio[k:], *trio[:k]) for k in range(3) for trio in TRIOS]
    cells = [judge(*key, found[key], order) for order in orders for key in where]
    table = pd.DataFrame(cells)
    table["gain"] = table["all"] - table["common"]
    by = table.groupby(["data", "seed"])[["all", "common", "gain"]].mean()
    print(by.to_string(float_format=lambda value: f"{value:.4f}"))
    for way in ("all", "common"):
        miss = table[f"{way}_said"] - table[way]
        print(f"{way}: said - held-out {miss.mean():+.4f}, mean size {miss.abs().mean():.4f}")
    ahead, behind = (table["gain"] > 0).mean(), (table["gain"] < -table["se"]).mean()
    good = bool((by["gain"] > 0).all())
    print(
        f"{'ok' if good else 'short'} every fold that is there, held-out macro-F1: "
        f"{table['all'].mean():.4f} against {table['common'].mean():.4f}; ahead in {ahead:.0%} of "
        f"{len(table)} cells, behind by more than 1 s.e. in {behind:.0%} (target: ahead for every "
        "data set and seed)"
    )


if __name__ == "__main__":
    main()
