"""Whether the folds of a member score on one scale, and each fold's model brought to one.

They do not where the AUC within folds exceeds the one over all rows by more than the standard error
of that difference. Then each fold's model can be calibrated on the rows that it held out, before
the folds' logits are averaged: a stage that has to earn its place (`tune`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.artifacts.folds import CLUSTERS
from src.bootstrap import strata_of
from src.delong import placements
from src.ensemble.align import Aligned
from src.ensemble.calibration import Curve, fit_platt
from src.ensemble.predictions import votes_of
from src.ensemble.rule import FoldCurves, Rule
from src.metrics import log_odds
from src.stratify import stratified_group_folds

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
LEAST = 0.001  # of AUC; less is not worth a candidate, however sure
MATERIAL = 0.02  # nor a line, ...
CLEAR = 2  # ... nor is less than so many standard errors
N_PARTS = 5  # of a fold, for curves that did not see a row
FEWEST = 20  # groups with a row of each class, in a fold whose model is calibrated


class Spread(NamedTuple):
    """How far apart the folds' scales lie."""

    within: float  # AUC within folds: mean by pairs of a fake and a real; NaN without such a pair
    whole: float  # AUC over all rows
    error: float  # standard error of the difference

    @property
    def is_real(self) -> bool:
        """Tell whether the difference exceeds its standard error: 1 in 12 of alike folds does."""
        return self.within - self.whole > max(self.error, LEAST)

    @property
    def is_clear(self) -> bool:
        """Tell whether a line is due: hardly ever where folds are alike."""
        return self.within - self.whole > max(CLEAR * self.error, MATERIAL)


def spread_of(label: IntArray, score: FloatArray, fold: IntArray, group: IntArray) -> Spread:
    """Compare the AUC within folds, P(fake > real of its own fold), with that over all rows.

    The standard error is that of the difference's first-order term, summed by group: the placements
    of DeLong, DeLong & Clarke-Pearson (Biometrics 1988), for clusters as in Obuchowski (Biometrics
    1997), groups of a fold and of reals, of fakes and of both among themselves. All are (n,).
    """
    within, inside = _within_parts(label, score, fold)
    whole, outside = _within_parts(label, score, np.zeros_like(fold))
    _, first, code = np.unique(group, return_index=True, return_inverse=True)
    by_group = np.bincount(code, weights=inside - outside)
    variance = 0.0
    for alike in strata_of(label, code):
        for k in np.unique(fold[first[alike]]):
            some = by_group[alike[fold[first[alike]] == k]]
            variance += some.size * np.var(some, ddof=1) if some.size > 1 else some[0] ** 2
    return Spread(within, whole, float(np.sqrt(variance)))


def _within_parts(label: IntArray, score: FloatArray, part: IntArray) -> tuple[float, FloatArray]:
    """Return the AUC over pairs of one part, and what each row adds to its error, (n,)."""
    right, partners = np.zeros(label.size), np.zeros(label.size)
    for k in np.unique(part):
        rows = np.flatnonzero(part == k)
        fakes = int(label[rows].sum())
        if 0 < fakes < rows.size:
            partners[rows] = np.where(label[rows] == 1, rows.size - fakes, fakes)
            right[rows] = placements(label[rows], score[rows]) * partners[rows]
    pairs = partners[label == 1].sum()
    if not pairs:
        return float("nan"), np.full(label.size, np.nan)
    area = right[label == 1].sum() / pairs
    return float(area), (right - area * partners) / pairs


def spreads_of(aligned: Aligned) -> dict[str, Spread]:
    """Return the members whose folds lie apart, and how far."""
    found = {}
    for model, logit in zip(aligned.models, aligned.logit.T, strict=True):
        rows = ~np.isnan(logit)
        spread = spread_of(
            aligned.label[rows], logit[rows], aligned.fold[rows], aligned.group[rows]
        )
        if len(aligned.folds_of(model)) > 1 and spread.is_real:
            found[model] = spread
    return found


def holds_other_kinds(aligned: Aligned) -> bool:
    """Tell whether folds differ in what they hold, clusters or a domain each, and not by model."""
    if aligned.scheme.startswith(CLUSTERS):
        return True
    domains = {(int(k), str(d)) for k, d in zip(aligned.fold, aligned.domain, strict=True)}
    return len(domains) == len(aligned.folds) == len({domain for _, domain in domains})


def calibrate_folds(
    aligned: Aligned, models: Sequence[str], seed: int
) -> tuple[Aligned, dict[str, FoldCurves]]:
    """Calibrate each fold's model of some members on the rows that it held out.

    Returns:
        The same rows, each with the logit of a curve that was fitted on its fold's other parts (by
        group), so that no label has a say in its own prediction; and by member the curves of
        whole folds, which predict. Members with a fold of too few rows are left as they are.
    """
    logit, curves = aligned.logit.copy(), dict[str, FoldCurves]()
    share = float(aligned.label.mean())
    for model in models:
        column = aligned.models.index(model)
        folds = {k: np.flatnonzero(aligned.fold == k) for k in aligned.folds_of(model)}
        if any(_has_few(aligned.label[rows], aligned.group[rows]) for rows in folds.values()):
            continue
        curves[model] = {
            str(fold): _fit(aligned.label[rows], aligned.logit[rows, column], share)
            for fold, rows in folds.items()
        }
        for rows, curve in _curves_of_others(aligned, model, seed):
            logit[rows, column] = curve.logit(aligned.logit[rows, column])
    return replace(aligned, logit=logit), curves


def calibrate_alike(
    aligned: Aligned, models: Sequence[str], seed: int, tables: Mapping[str, Aligned]
) -> dict[str, Aligned]:
    """Return tables of the same rows, delivered otherwise, through the curves of these.

    Each row through the curve that `calibrate_folds` takes its logit in `aligned` through, in which
    its label has no say either.
    """
    logits = {name: table.logit.copy() for name, table in tables.items()}
    for model in models:
        column = aligned.models.index(model)
        for rows, curve in _curves_of_others(aligned, model, seed):
            for logit in logits.values():
                logit[rows, column] = curve.logit(logit[rows, column])
    return {name: replace(table, logit=logits[name]) for name, table in tables.items()}


def _curves_of_others(
    aligned: Aligned, model: str, seed: int
) -> Iterator[tuple[NDArray[np.intp], Curve]]:
    """Yield the rows of each part of each fold, and the curve fitted on the fold's other parts."""
    column, share = aligned.models.index(model), float(aligned.label.mean())
    for fold in aligned.folds_of(model):
        rows = np.flatnonzero(aligned.fold == fold)
        label, score = aligned.label[rows], aligned.logit[rows, column]
        part = stratified_group_folds(label, aligned.group[rows], N_PARTS, seed)
        for k in range(N_PARTS):
            yield rows[part == k], _fit(label[part != k], score[part != k], share)


def _has_few(label: IntArray, group: IntArray) -> bool:
    return min(np.unique(group[label == one]).size for one in (0, 1)) < FEWEST


def _fit(label: IntArray, score: FloatArray, share: float) -> Curve:
    """Fit Platt's curve, as if the rows held a share of fakes that is the same for all folds.

    Else a fold with more fakes would get a higher intercept: of help on its own rows alone. Prior
    correction as in King & Zeng, Political Analysis 2001, eq. 7.
    """
    curve = fit_platt(label, score)
    shift = log_odds(np.array([share, label.mean()]))
    return replace(curve, intercept=curve.intercept + float(shift[0] - shift[1]))


def scale_notes(aligned: Aligned, rule: Rule, name: str, *, mended: bool) -> list[str]:
    """Return a line on the members, and the rule where it joins several, whose folds lie apart.

    `mended`: calibrated folds are among the candidates.
    """
    found = spreads_of(aligned)
    scores = dict(zip(aligned.models, aligned.logit.T, strict=True))
    if int(rule.used().sum()) > 1 and aligned.complete.any():
        rows = aligned.take(aligned.complete)
        prob = votes_of(rule, rows).prob
        spread = spread_of(rows.label, prob, rows.fold, rows.group)
        found[name] = spread
    said = [
        f"{what} {seen.within:.4f} within folds, {seen.whole:.4f} over all"
        + (f" (median logits {_medians(scores[what], aligned.fold)})" if what != name else "")
        for what, seen in found.items()
        if seen.is_clear
    ]
    if not said:
        return []
    bad = [model for model in aligned.models if model in found and found[model].is_clear]
    return [f"AUC of {'; '.join(said)}: {_advice(aligned, bad, mended=mended)}"]


def _medians(score: FloatArray, fold: IntArray) -> str:
    known = [np.median(score[fold == k]) for k in np.unique(fold[~np.isnan(score)])]
    return " ".join(f"{median:+.2f}" for median in known)


def _advice(aligned: Aligned, bad: Sequence[str], *, mended: bool) -> str:
    """Say what folds of different scale mean, and what to do."""
    if holds_other_kinds(aligned):
        kind = CLUSTERS if aligned.scheme.startswith(CLUSTERS) else "domains"
        table = (
            "" if kind == CLUSTERS else ": choose by the table by domain, not by the pooled score"
        )
        return (
            f"the held-out {kind} are scored on different scales, so no one threshold suits them, "
            f"nor need it suit a new kind of picture{table}"
        )
    others = [model for model in aligned.models if model not in bad]
    leave = f", or tune without (--models {' '.join(others)})" if bad and others else ""
    what = "calibration and ranks, which all folds share, do not mend it"
    if mended:
        what = "what calibrating each on its own rows gains stands at `of calibrated folds`"
    return (
        "the folds' models score on different scales, so no one threshold suits them; "
        f"{what}. Models trained briefly differ so: train longer "
        f"(--set optim.epochs=N --as NAME){leave}"
    )
