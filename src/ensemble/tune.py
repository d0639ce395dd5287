"""Climb the ladder of strategies and write down the rule that earned its place."""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from src.artifacts.recipes import Member, Recipe
from src.ensemble.align import Aligned
from src.ensemble.bootstrap import MIN_GROUPS, bootstrap_macro_f1, interval
from src.ensemble.crossfit import Parts, cross_fit, make_parts
from src.ensemble.search import INCUMBENT, STRATEGIES, Search, ladder
from src.ensemble.vote import VOTING, Rule, stages_of, vote
from src.metrics import macro_f1

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Candidate:
    """A strategy and what it is worth.

    Attributes:
        name: of the strategy.
        in_sample: macro-F1 on the rows it was fitted on; flatters.
        cross_fitted: macro-F1 of decisions by rules fitted without the items' part; None where
            there are too few groups to part.
        interval: 95 % group bootstrap of `cross_fitted`; None below `MIN_GROUPS` groups.
        over: the simpler candidate it was held against.
        gain: cross-fitted gain over that one.
        gain_se: its standard error, by the paired bootstrap.
        taken: whether it replaced that one.
    """

    name: str
    in_sample: float
    cross_fitted: float | None = None
    interval: tuple[float, float] | None = None
    over: str | None = None
    gain: float | None = None
    gain_se: float | None = None
    taken: bool = False


@dataclass(frozen=True)
class Tuned:
    """The outcome of tuning.

    Attributes:
        recipe: to write.
        candidates: all that were tried, the incumbent first.
        chosen: name of the one in the recipe.
        notes: what the scores stand on, and what could not be said.
    """

    recipe: Recipe
    candidates: list[Candidate]
    chosen: str
    notes: list[str]


@dataclass(frozen=True)
class _Tried:
    name: str
    rule: Rule
    in_sample: float
    pred: IntArray | None  # cross-fitted


def n_trials(aligned: Aligned, voting: str, trials: int, seed: int) -> int:
    """Return how many trials `tune` will run in all, for a progress bar."""
    names = ladder(voting, len(aligned.models))
    searches = sum(STRATEGIES.get(name).sampler is not None for name in names)
    return searches * trials * (1 + make_parts(aligned, seed).count)


def tune(aligned: Aligned, *, voting: str = "soft", search: Search | None = None) -> Tuned:
    """Fit every strategy of a voting, cross-fit it, and choose by the one-standard-error rule.

    A candidate replaces the simpler one that stands only if its cross-fitted gain over it exceeds
    one standard error of that gain. Where no standard error is to be had, the simplest stays.

    Args:
        aligned: the members' predictions.
        voting: name in `VOTING`; the recipe has this voting.
        search: trials, seed, callback.

    Raises:
        UserError: unknown voting.
    """
    VOTING.get(voting)
    search = search or Search()
    parts = make_parts(aligned, search.seed)
    names = ladder(voting, len(aligned.models))
    reference = [] if INCUMBENT in names else [INCUMBENT]
    tried = [_try(name, aligned, parts, search) for name in [*reference, *names]]
    candidates = _judge(tried, aligned, search.seed, first=len(reference))
    chosen = next(c.name for c in reversed(candidates) if c.taken)
    rule = next(t.rule for t in tried if t.name == chosen)
    notes = [f"cross-fitted over {parts.note}" if parts.count else parts.note]
    if parts.count and aligned.n_groups < MIN_GROUPS:
        notes.append(
            f"no interval: {aligned.n_groups} groups are fewer than {MIN_GROUPS}, so no gain can "
            "be told from luck and the simplest candidate stays"
        )
    if reference and parts.count:
        notes.append(_against_the_mean(candidates, chosen))
    recipe = _recipe(aligned, rule, candidates, chosen, search, notes)
    return Tuned(recipe, candidates, chosen, notes)


def _try(name: str, aligned: Aligned, parts: Parts, search: Search) -> _Tried:
    strategy = STRATEGIES.get(name)
    rule = strategy.fit(aligned.label, aligned.logits, search)
    in_sample = macro_f1(aligned.label, vote(rule, aligned.logits).pred)
    pred = None if parts.part is None else cross_fit(strategy, aligned, parts.part, search)
    return _Tried(name, rule, in_sample, pred)


def _judge(tried: list[_Tried], aligned: Aligned, seed: int, first: int) -> list[Candidate]:
    """Score the candidates and let each challenge the one that stands, from `first` on."""
    preds = [t.pred for t in tried if t.pred is not None]
    if not preds:
        return [Candidate(t.name, t.in_sample, taken=i == first) for i, t in enumerate(tried)]
    scores = [macro_f1(aligned.label, pred) for pred in preds]
    draws = None
    if aligned.n_groups >= MIN_GROUPS:
        draws = bootstrap_macro_f1(aligned.label, preds, aligned.group, seed=seed)
    candidates, standing = [], first
    for i, t in enumerate(tried):
        limits = None if draws is None else interval(draws[:, i])
        if i <= first:
            candidates.append(Candidate(t.name, t.in_sample, scores[i], limits, taken=i == first))
            continue
        gain = scores[i] - scores[standing]
        error = None if draws is None else float(np.std(draws[:, i] - draws[:, standing], ddof=1))
        taken = error is not None and gain > error
        candidates.append(
            Candidate(
                t.name, t.in_sample, scores[i], limits, tried[standing].name, gain, error, taken
            )
        )
        standing = i if taken else standing
    return candidates


def _against_the_mean(candidates: list[Candidate], chosen: str) -> str:
    mean = next(c for c in candidates if c.name == INCUMBENT)
    best = next(c for c in candidates if c.name == chosen)
    better = (mean.cross_fitted or 0) > (best.cross_fitted or 0)
    return f"{INCUMBENT} is shown for comparison" + (" and is better" if better else "")


def _recipe(
    aligned: Aligned,
    rule: Rule,
    candidates: list[Candidate],
    chosen: str,
    search: Search,
    notes: list[str],
) -> Recipe:
    best = next(c for c in candidates if c.name == chosen)
    incumbent = next(c for c in candidates if c.name == INCUMBENT)
    sampler = STRATEGIES.get(chosen).sampler
    return Recipe(
        dataset=aligned.dataset,
        scheme=aligned.scheme,
        folds=aligned.folds,
        folds_sha256=aligned.folds_sha256,
        members=[
            Member(model, float(weight), float(threshold), aligned.oof_sha256[model])
            for model, weight, threshold in zip(
                aligned.models, rule.weights, rule.thresholds, strict=True
            )
        ],
        stages=stages_of(rule),
        scores={
            "in_sample": best.in_sample,
            "cross_fitted": best.cross_fitted,
            "interval": best.interval,
            "incumbent": incumbent.in_sample,  # it learns nothing, so this is honest
            "rows": int(aligned.label.size),
            "groups": aligned.n_groups,
            "selected_on": aligned.selected_on,
            "notes": notes,
            "candidates": [asdict(candidate) for candidate in candidates],
        },
        search={
            "strategy": chosen,
            "sampler": sampler,
            "trials": search.trials if sampler else 0,
            "seed": search.seed,
        },
    )
