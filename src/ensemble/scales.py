"""Whether the folds of a member score on one scale: AUC within folds against that over all rows."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from src.bootstrap import strata_of
from src.ensemble.align import Aligned
from src.ensemble.predictions import votes_of
from src.ensemble.rule import Rule
from src.metrics import auc

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
MATERIAL = 0.02  # of AUC; less is not worth a line
SHUFFLES = 199  # all of which must show less: 1 false alarm in 200 where the folds are alike
FEWEST = 19  # of a million rows, whose chance differences are far below what is material
ROWS = 10_000_000  # in all shuffles


def auc_within(label: IntArray, score: FloatArray, fold: IntArray) -> float:
    """Return the mean AUC of the folds, weighted by their pairs of a fake and a real.

    P(score of a fake > score of a real of its own fold); NaN where no fold holds both classes.
    """
    total = pairs = 0.0
    for k in np.unique(fold):
        rows = fold == k
        fakes = int(label[rows].sum())
        here = fakes * (int(rows.sum()) - fakes)
        if here:
            total, pairs = total + here * auc(label[rows], score[rows]), pairs + here
    return total / pairs if pairs else float("nan")


def apart(
    label: IntArray, score: FloatArray, fold: IntArray, group: IntArray, seed: int
) -> tuple[float, float] | None:
    """Return the AUC within folds and over all rows where the folds' scales lie apart, else None.

    They do where the first is larger by more than `MATERIAL`, and larger than in each of
    `SHUFFLES` that deal the groups to the folds anew (Fisher's permutation test), groups of reals,
    of fakes and of both among themselves. All are (n,).
    """
    order = np.argsort(score, kind="stable")  # each AUC sorts what is sorted already
    label, score, fold, group = label[order], score[order], fold[order], group[order]
    whole = auc(label, score)
    within = auc_within(label, score, fold)
    if not within - whole > MATERIAL:
        return None
    _, first, code = np.unique(group, return_index=True, return_inverse=True)
    dealt, strata = fold[first], strata_of(label, code)
    rng = np.random.default_rng(seed)
    for _ in range(int(np.clip(ROWS // label.size, FEWEST, SHUFFLES))):
        for rows in strata:
            dealt[rows] = rng.permutation(dealt[rows])
        if auc_within(label, score, dealt[code]) >= within:
            return None
    return within, whole


def scale_notes(aligned: Aligned, rule: Rule, name: str, seed: int) -> list[str]:
    """Return a line on the members, and the rule where it joins several, whose folds lie apart."""
    scores = dict(zip(aligned.models, aligned.logit.T, strict=True))
    if int(rule.used().sum()) > 1:
        scores[name] = votes_of(rule, aligned).prob
    rows = aligned.label, aligned.fold, aligned.group
    found = {what: apart(rows[0], score, *rows[1:], seed) for what, score in scores.items()}
    said = [
        f"{what} {seen[0]:.4f} within folds, {seen[1]:.4f} over all"
        + (f" (median logits {_medians(scores[what], aligned.fold)})" if what != name else "")
        for what, seen in found.items()
        if seen is not None
    ]
    if not said:
        return []
    bad = [model for model in aligned.models if found[model] is not None]
    return [f"AUC of {'; '.join(said)}: {_advice(aligned, bad)}"]


def _medians(score: FloatArray, fold: IntArray) -> str:
    return " ".join(f"{np.median(score[fold == k]):+.2f}" for k in np.unique(fold))


def _advice(aligned: Aligned, bad: Sequence[str]) -> str:
    """Say what folds of different scale mean, and what to do."""
    domains = {(int(k), str(d)) for k, d in zip(aligned.fold, aligned.domain, strict=True)}
    if len(domains) == len(aligned.folds) == len({domain for _, domain in domains}):
        return (
            "the held-out domains are scored on different scales, so no one threshold suits them, "
            "nor need it suit a new domain: choose by the table by domain, not by the pooled score"
        )
    others = [model for model in aligned.models if model not in bad]
    leave = f", or tune without (--models {' '.join(others)})" if bad and others else ""
    return (
        "the folds' models score on different scales, so no one threshold suits them; calibration "
        "and ranks, which all folds share, do not mend it. Models trained briefly differ so: train "
        f"longer (--set optim.epochs=N --as NAME){leave}"
    )
