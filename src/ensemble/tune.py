"""Climb the ladder of strategies and write down the rule that earned its place.

The winner's cross-fitted decisions, scored by kind and by domain.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.artifacts.files import sha256_json
from src.artifacts.recipes import Recipe
from src.bootstrap import MIN_GROUPS, bootstrap_threshold, interval
from src.ensemble.align import Aligned
from src.ensemble.crossfit import (
    FEWEST,
    Candidate,
    Parts,
    Tried,
    judge,
    make_parts,
    try_fold_calibration,
    try_pooling,
    try_split,
    try_strategy,
)
from src.ensemble.crossfitted import PARTS, kept_rules, parted_by
from src.ensemble.extra import is_extra
from src.ensemble.predictions import IntArray, votes_of
from src.ensemble.ragged import ragged_notes, tunable
from src.ensemble.rule import FoldCurves, Rule, Votes, can_vote, stages_of
from src.ensemble.scales import calibrate_folds, holds_other_kinds, scale_notes, spreads_of
from src.ensemble.search import STRATEGIES, Search, incumbent_of, ladder
from src.ensemble.uncertainty import PRIOR_FOLDS
from src.errors import UserError
from src.metrics import MACRO_F1, METRICS, Metric, score_of

BY = ("kind", "domain")


def break_down(
    aligned: Aligned, votes: Votes | None, metric: Metric = MACRO_F1
) -> dict[str, list[dict[str, Any]]]:
    """Score cross-fitted decisions for every kind and domain, as far as there is more than one.

    Returns:
        `kind` and `domain`, each where it has two values or more -> rows sorted by value:
        `value, n, fakes`, the metric by its name, `f1_real, f1_fake, auc`. What says nothing where
        a class is absent is None there.
    """
    if votes is None:
        return {}
    found = {by: np.unique(aligned.values(by).astype(str), return_inverse=True) for by in BY}
    return {
        by: [
            {"value": str(value)}
            | _score(metric, aligned.label[rows], votes.prob[rows], votes.pred[rows])
            for value, rows in zip(values, _split(code), strict=True)
        ]
        for by, (values, code) in found.items()
        if len(values) > 1
    }


def _split(code: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """Return the rows of each code 0, 1, .., by one sort."""
    return np.split(np.argsort(code, kind="stable"), np.cumsum(np.bincount(code))[:-1])


def _score(
    metric: Metric, label: IntArray, prob: NDArray[np.float64], pred: IntArray
) -> dict[str, Any]:
    fakes = int(label.sum())
    shown = {one.name: one for one in (metric, *map(METRICS.get, ("f1_real", "f1_fake", "auc")))}
    return {
        "n": int(label.size),
        "fakes": fakes,
        **{
            name: None
            if one.undefined(label.size - fakes, fakes)
            else score_of(one, label, prob, pred)
            for name, one in shown.items()
        },
    }


@dataclass(frozen=True)
class Tuned:
    """The outcome of tuning."""

    recipe: Recipe  # to write
    candidates: list[Candidate]  # all that were tried, the incumbent first
    chosen: str  # name of the one in the recipe
    notes: list[str]  # what the scores stand on, and what could not be said
    winner: Tried  # the chosen one, with its cross-fitted answers


def n_trials(aligned: Aligned, names: Sequence[str], search: Search) -> int:
    """Return how many trials `tune` will run in all, for a progress bar."""
    rounds = 1 + make_parts(aligned, search.seed).count
    strategies = [STRATEGIES.get(name) for name in tunable(names, aligned)]
    return rounds * sum(search.trials or s.trials for s in strategies if s.sampler)


def tune(
    aligned: Aligned,
    *,
    voting: str | None = None,
    names: Sequence[str] | None = None,
    search: Search | None = None,
    split_by: Sequence[str] = ("kind",),
    by_fold: bool = True,
    parts: Parts | None = None,
) -> Tuned:
    """Fit every strategy, cross-fit it, and choose by the one-standard-error rule.

    A candidate replaces the simpler one that stands only if its cross-fitted gain over it exceeds
    one standard error of that gain. Where no standard error is to be had, the simplest stays.
    Other poolings of frames (where items have several) challenge the winner in the same way, all of
    them the members' own; the best of those that pass is taken. Then folds' models calibrated each
    on its own rows, where they score on different scales; then thresholds by kind (or domain).

    Args:
        aligned: the members' predictions.
        voting, names: which strategies, see `ladder`.
        search: trials, seed, callback, storage.
        split_by: `kind`, `domain`: what the winner may have thresholds by. Domain only where the
            test items carry theirs.
        by_fold: whether folds' models may be calibrated each by itself.
        parts: of the items for cross-fitting; None makes them.

    Raises:
        UserError: unknown voting or strategy, or one that does not fit; a metric that these items
            cannot tell.
    """
    search = search or Search()
    metric = search.metric
    _check_metric(aligned, metric)
    problem = [aligned.folds_sha256, aligned.oof_sha256, aligned.folds, search.seed, metric.name]
    problem += [search.fingerprint] * bool(search.fingerprint)
    search = replace(search, fingerprint=sha256_json(problem))
    parts = parts or make_parts(aligned, search.seed)
    names = tunable(ladder(len(aligned.models), voting, names, metric), aligned)
    incumbent = incumbent_of(metric)
    reference = [] if names[0] == incumbent else [incumbent]
    tried = [try_strategy(name, aligned, parts, search) for name in [*reference, *names]]
    candidates = judge(tried, aligned, search, first=len(reference))
    plain = _winner(tried, candidates)
    pools = _poolings(aligned, plain) if parts.count else []
    rivals = range(len(tried), len(tried) + len(pools))
    if pools:
        tried += [try_pooling(plain, aligned, parts, search, pool) for pool in pools]
        candidates = judge(tried, aligned, search, len(reference), rivals)
        plain = _winner(tried, candidates)
    rows, before = aligned.under(plain.pool), plain
    calibrated, curves = _calibrated_folds(rows, parts, search.seed) if by_fold else (rows, {})
    if curves:
        bases = _on_calibrated_folds(tried, plain, names)
        tried += [try_fold_calibration(t, calibrated, parts, search, curves) for t in bases]
        candidates = judge(tried, aligned, search, len(reference), rivals)
        plain = _winner(tried, candidates)
    scaled = calibrated if plain.curves else rows
    by = _values_to_split_by(aligned, plain.strategy, split_by) if parts.count else []
    if by and metric.decides:
        tried += [try_split(plain, scaled, parts, value, metric) for value in by]
        candidates = judge(tried, aligned, search, len(reference), rivals)
    winner = _winner(tried, candidates)
    chosen = winner.name
    notes = notes_on(aligned, parts, candidates, chosen, metric, shown_only=bool(reference))
    notes += ragged_notes(aligned, winner)
    notes += scale_notes(rows, before.rule, before.name, mended=bool(curves))
    recipe = recipe_of(scaled, winner, candidates, search, parts, notes)
    return Tuned(recipe, candidates, chosen, notes, winner)


def _winner(tried: Sequence[Tried], candidates: Sequence[Candidate]) -> Tried:
    """Return the last candidate that was taken."""
    name = next(c.name for c in reversed(candidates) if c.taken)
    return next(t for t in tried if t.name == name)


def _calibrated_folds(
    rows: Aligned, parts: Parts, seed: int
) -> tuple[Aligned, dict[str, FoldCurves]]:
    """Return items with the folds' models calibrated, of members whose folds lie apart; see there.

    Not where each fold is a domain: then the curve would be of the domain, and the test items are
    of others.
    """
    if not parts.count or rows.n_groups < MIN_GROUPS or holds_other_kinds(rows):
        return rows, {}
    own = [m for m in spreads_of(rows) if not is_extra(rows.dataset, rows.scheme, m)]
    return calibrate_folds(rows, own, seed)


def _on_calibrated_folds(tried: Sequence[Tried], plain: Tried, names: Sequence[str]) -> list[Tried]:
    """Return what is fitted again to calibrated folds: the winner, and the mean, simplest first.

    The mean, too, for it was judged on scores of several scales.
    """
    mean = [t for t in tried if t.name == "mean" != plain.strategy and "mean" in names]
    return sorted([plain, *mean], key=lambda t: STRATEGIES.get(t.strategy).rung)


def _poolings(aligned: Aligned, plain: Tried) -> list[str]:
    """Return the poolings to try for a candidate: those that some member does not have already.

    Of poolings that give the same logits (of a few frames the highest quarter is one) the first.
    """
    found = STRATEGIES.get(plain.strategy)
    if found.sampler and found.voting == "hard":
        return []  # the members' own thresholds are what it searched
    own = set(aligned.pooled.defaults) - {""}
    logits, pools = aligned.pooled.logits, []
    for pool in logits:
        same = (np.array_equal(logits[pool], logits[other], equal_nan=True) for other in pools)
        if {pool} != own and not any(same):
            pools.append(pool)
    return pools


def _values_to_split_by(aligned: Aligned, chosen: str, wanted: Sequence[str]) -> list[str]:
    """Return `kind` and `domain` as far as two values have enough items of both classes."""
    if STRATEGIES.get(chosen).voting == "hard":
        return []
    found = []
    for by in wanted:
        values = aligned.values(by)
        counts = [np.bincount(aligned.label[values == v], minlength=2) for v in set(values)]
        if sum(min(count) >= 2 * FEWEST for count in counts) >= 2:
            found.append(by)
    return found


def _check_metric(aligned: Aligned, metric: Metric) -> None:
    """Raise a UserError where a metric says nothing of these items, or cannot be resolved."""
    fakes = int(aligned.label.sum())
    reals = len(aligned) - fakes
    why = metric.undefined(reals, fakes) or metric.limited(reals, fakes)
    if why:
        raise UserError(
            f"metric {metric.name} on fold(s) {' '.join(map(str, aligned.folds))}: {why}; train "
            "more folds, or tune for another (--metric auc)"
        )


def notes_on(
    aligned: Aligned,
    parts: Parts,
    candidates: list[Candidate],
    chosen: str,
    metric: Metric,
    *,
    shown_only: bool,
) -> list[str]:
    """Return what the scores of candidates stand on; `shown_only`: the first is no candidate."""
    notes = [f"cross-fitted over {parts.note}" if parts.count else parts.note]
    if aligned.unsure:
        notes.append(
            f"nothing shows that {', '.join(aligned.unsure)} predicted on these folds: if not, "
            "these scores are too good"
        )
    if parts.count and aligned.n_groups < MIN_GROUPS:
        notes.append(
            f"no interval: {aligned.n_groups} groups are fewer than {MIN_GROUPS}, so no gain can "
            "be told from luck and the simplest candidate stays"
        )
    best = next(c for c in candidates if c.name == chosen)
    notes += filter(None, [_interval_note(aligned, best, len(candidates) - shown_only)])
    if shown_only and parts.count:
        score = {c.name: metric.sign * (c.cross_fitted or 0) for c in candidates}
        incumbent = incumbent_of(metric)
        better = score[incumbent] > score[chosen]
        words = f"{incumbent} is shown for comparison"
        notes.append(f"{words} and is better" if better else words)
    return notes


def _interval_note(aligned: Aligned, best: Candidate, n_tried: int) -> str:
    """Say what the interval of the chosen candidate holds, and what is taken for granted in it."""
    if best.rows_se is None or best.folds_se is None:
        return ""
    folds, nets = len(aligned.folds), len(aligned.models)
    if best.rows_se == 0:  # the rule of three (Hanley & Lippman-Hand, JAMA 249 (1983) 1743)
        return (
            "all draws of the rows score the same, so the interval has no width; errors in fewer "
            f"than 3 of {aligned.n_groups} groups may have gone unseen"
        )
    if folds == 1:
        more = "; train more folds to see it" if len(aligned.all_folds) > 1 else ""
        note = (
            f"one fold of {nets if nets > 1 else 'one'} net{'s' * (nets > 1)}: how much folds "
            "differ cannot be seen yet; taken for granted in the interval is that they differ as "
            f"much again as the luck of their rows makes them (± {best.folds_se:.4f}){more}"
        )
    else:
        prior = PRIOR_FOLDS / (PRIOR_FOLDS + folds - 1)
        note = (
            f"the interval of {best.name} holds ± {best.rows_se:.4f} by the luck of its rows and "
            f"± {best.folds_se:.4f} by what folds differ beyond that, {prior:.0%} of it taken for "
            f"granted and the rest seen in {folds} folds"
        )
    if best.selection and best.selection >= 5e-5:
        note += f"; having been chosen of {n_tried} flatters it by {best.selection:.4f}, taken off"
    return note


def _threshold_interval(aligned: Aligned, rule: Rule, search: Search) -> tuple[float, float] | None:
    """Return the 95 % interval of the best threshold of a fitted rule; None where it has none."""
    metric = search.metric
    if rule.voting == "hard" or aligned.n_groups < MIN_GROUPS or not metric.decides:
        return None
    rows = aligned.take(can_vote(rule, aligned.logit))
    prob = votes_of(rule, rows).prob
    draws = bootstrap_threshold(metric, rows.label, prob, rows.group, seed=search.seed)
    low, high = interval(draws)
    # Draws lie on a grid of 1/4096, the threshold itself between two probs.
    return min(low, rule.threshold), max(high, rule.threshold)


def recipe_of(
    aligned: Aligned,
    winner: Tried,
    candidates: list[Candidate],
    search: Search,
    parts: Parts,
    notes: list[str],
) -> Recipe:
    """Return a winner's recipe; `candidates`: it and the incumbent among them."""
    best = next(c for c in candidates if c.name == winner.name)
    incumbent = next(c for c in candidates if c.name == incumbent_of(search.metric))
    pools = aligned.pooled.names(winner.pool)
    rule = replace(winner.rule, pools=pools, folds=winner.curves, deliveries=winner.deliveries)
    members = [
        aligned.member(model, float(weight), float(threshold))
        for model, weight, threshold in zip(
            aligned.models, rule.weights, rule.thresholds, strict=True
        )
    ]
    return Recipe(
        dataset=aligned.dataset,
        scheme=aligned.scheme,
        folds=aligned.folds,
        folds_sha256=aligned.folds_sha256,
        members=members,
        stages=stages_of(rule, aligned.models),
        metric=search.metric.name,
        scores={
            "in_sample": best.in_sample,
            "cross_fitted": best.cross_fitted,
            "interval": best.interval,
            "rows_se": best.rows_se,
            "folds_se": best.folds_se,
            "selection": best.selection,
            "optimism": best.optimism,
            "threshold_interval": _threshold_interval(aligned, rule, search),
            "incumbent": incumbent.in_sample,  # it learns nothing, so this is honest
            "rows": int(aligned.label.size),
            "groups": aligned.n_groups,
            "selected_on": aligned.selected_on,
            "breakdown": break_down(aligned, winner.votes, search.metric),
            "notes": notes,
            "candidates": [asdict(c) for c in candidates],
        },
        search={
            "strategy": winner.name,
            "sampler": STRATEGIES.get(winner.strategy).sampler or None,
            "trials": winner.trials,
            "seed": search.seed,
            PARTS: parted_by(parts, aligned),
        },
        crossfit=kept_rules(winner.rules, aligned.models),
    )
