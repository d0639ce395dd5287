"""Climb the ladder of strategies and write down the rule that earned its place."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from src.artifacts.files import sha256_json
from src.artifacts.recipes import Member, Recipe
from src.ensemble.align import Aligned
from src.ensemble.bootstrap import (
    MIN_GROUPS,
    bootstrap_macro_f1,
    bootstrap_threshold,
    interval,
)
from src.ensemble.crossfit import FEWEST, Parts, cross_fit, fit_rule, make_parts
from src.ensemble.rule import VOTING, Rule, vote
from src.ensemble.search import INCUMBENT, STRATEGIES, Search, ladder
from src.ensemble.stages import stages_of
from src.metrics import macro_f1

if TYPE_CHECKING:
    import optuna

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
        voting: what its rule votes by.
        trials: of one of its searches.
    """

    name: str
    in_sample: float
    cross_fitted: float | None = None
    interval: tuple[float, float] | None = None
    over: str | None = None
    gain: float | None = None
    gain_se: float | None = None
    taken: bool = False
    voting: str = ""
    trials: int = 0

    @property
    def optimism(self) -> float | None:
        """Return how much the score on its own rows flatters it."""
        return None if self.cross_fitted is None else self.in_sample - self.cross_fitted


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
    strategy: str
    rule: Rule
    in_sample: float
    pred: IntArray | None  # cross-fitted
    trials: int


def n_trials(aligned: Aligned, names: Sequence[str], search: Search) -> int:
    """Return how many trials `tune` will run in all, for a progress bar."""
    rounds = 1 + make_parts(aligned, search.seed).count
    strategies = [STRATEGIES.get(name) for name in names]
    return rounds * sum(search.trials or s.trials for s in strategies if s.sampler)


def tune(
    aligned: Aligned,
    *,
    voting: str | None = None,
    names: Sequence[str] | None = None,
    search: Search | None = None,
    split_by: Sequence[str] = ("kind",),
) -> Tuned:
    """Fit every strategy, cross-fit it, and choose by the one-standard-error rule.

    A candidate replaces the simpler one that stands only if its cross-fitted gain over it exceeds
    one standard error of that gain. Where no standard error is to be had, the simplest stays.
    Thresholds by kind (or domain) challenge the winner in the same way.

    Args:
        aligned: the members' predictions.
        voting: name in `VOTING`: only strategies of that voting; None takes all.
        names: only these strategies; None takes the defaults.
        search: trials, seed, callback, storage.
        split_by: `kind`, `domain`: what the winner may have thresholds by. Domain only where the
            test items carry theirs.

    Raises:
        UserError: unknown voting or strategy, or one that does not fit.
    """
    search = replace(search or Search(), fingerprint=_fingerprint(aligned, search or Search()))
    parts = make_parts(aligned, search.seed)
    names = ladder(len(aligned.models), voting, names)
    reference = [] if names[0] == INCUMBENT else [INCUMBENT]
    tried = [_try(name, aligned, parts, search) for name in [*reference, *names]]
    candidates = _judge(tried, aligned, search.seed, first=len(reference))
    chosen = next(c.name for c in reversed(candidates) if c.taken)
    by = _values_to_split_by(aligned, chosen, split_by) if parts.count else []
    if by:
        tried += [_try(chosen, aligned, parts, search, value) for value in by]
        candidates = _judge(tried, aligned, search.seed, first=len(reference))
        chosen = next(c.name for c in reversed(candidates) if c.taken)
    notes = _notes(aligned, parts, candidates, chosen, shown_only=bool(reference))
    winner = next(t for t in tried if t.name == chosen)
    recipe = _recipe(aligned, winner, candidates, search, notes)
    return Tuned(recipe, candidates, chosen, notes)


def _fingerprint(aligned: Aligned, search: Search) -> str:
    return sha256_json([aligned.folds_sha256, aligned.oof_sha256, aligned.folds, search.seed])


def _values_to_split_by(aligned: Aligned, chosen: str, wanted: Sequence[str]) -> list[str]:
    """Return `kind` and `domain` as far as two values have enough items of both classes."""
    if VOTING.get(STRATEGIES.get(chosen).voting) is VOTING.get("hard"):
        return []
    found = []
    for by in wanted:
        values = aligned.values(by)
        counts = [np.bincount(aligned.label[values == v], minlength=2) for v in set(values)]
        if sum(min(count) >= 2 * FEWEST for count in counts) >= 2:
            found.append(by)
    return found


def _try(name: str, aligned: Aligned, parts: Parts, search: Search, by: str = "") -> _Tried:
    strategy = STRATEGIES.get(name)
    label = f"{name} by {by}" if by else name
    search = replace(search, study_name=f"{search.study_name}/{label}")
    everything = np.ones(aligned.label.size, dtype=bool)
    done: list[int] = []

    def count(study: "optuna.Study", study_name: str) -> None:
        done.append(sum(t.state.name == "COMPLETE" for t in study.get_trials(deepcopy=False)))
        search.on_study(study, study_name)

    whole = replace(search, study_name=f"{search.study_name}/all", on_study=count)
    rule = fit_rule(strategy, aligned, everything, whole, by)
    values = aligned.values(by) if by else None
    in_sample = macro_f1(aligned.label, vote(rule, aligned.logits, values).pred)
    pred = None
    if parts.part is not None:
        pred = cross_fit(strategy, aligned, parts.part, search, by)
    return _Tried(label, name, rule, in_sample, pred, sum(done))


def _notes(
    aligned: Aligned, parts: Parts, candidates: list[Candidate], chosen: str, *, shown_only: bool
) -> list[str]:
    notes = [f"cross-fitted over {parts.note}" if parts.count else parts.note]
    if parts.count and aligned.n_groups < MIN_GROUPS:
        notes.append(
            f"no interval: {aligned.n_groups} groups are fewer than {MIN_GROUPS}, so no gain can "
            "be told from luck and the simplest candidate stays"
        )
    if shown_only and parts.count:
        notes.append(_against_the_mean(candidates, chosen))
    return notes


def _judge(tried: list[_Tried], aligned: Aligned, seed: int, first: int) -> list[Candidate]:
    """Score the candidates and let each challenge the one that stands, from `first` on."""
    preds = [t.pred for t in tried if t.pred is not None]
    if not preds:
        return [_candidate(t, taken=i == first) for i, t in enumerate(tried)]
    scores = [macro_f1(aligned.label, pred) for pred in preds]
    draws = None
    if aligned.n_groups >= MIN_GROUPS:
        draws = bootstrap_macro_f1(aligned.label, preds, aligned.group, seed=seed)
    candidates, standing = [], first
    for i, t in enumerate(tried):
        limits = None if draws is None else interval(draws[:, i])
        if i <= first:
            candidates.append(
                _candidate(t, cross_fitted=scores[i], interval=limits, taken=i == first)
            )
            continue
        gain = scores[i] - scores[standing]
        error = None if draws is None else float(np.std(draws[:, i] - draws[:, standing], ddof=1))
        taken = error is not None and gain > error
        candidates.append(
            _candidate(
                t, cross_fitted=scores[i], interval=limits, over=tried[standing].name, gain=gain,
                gain_se=error, taken=taken,
            )
        )  # fmt: skip
        standing = i if taken else standing
    return candidates


def _candidate(tried: _Tried, **rest: Any) -> Candidate:  # noqa: ANN401 - fields by name
    return Candidate(
        tried.name, tried.in_sample, voting=tried.rule.voting, trials=tried.trials, **rest
    )


def _against_the_mean(candidates: list[Candidate], chosen: str) -> str:
    mean = next(c for c in candidates if c.name == INCUMBENT)
    best = next(c for c in candidates if c.name == chosen)
    better = (mean.cross_fitted or 0) > (best.cross_fitted or 0)
    return f"{INCUMBENT} is shown for comparison" + (" and is better" if better else "")


def _threshold_interval(aligned: Aligned, rule: Rule, seed: int) -> tuple[float, float] | None:
    """Return the 95 % interval of the best threshold of a fitted rule; None where it has none."""
    if rule.voting == "hard" or aligned.n_groups < MIN_GROUPS:
        return None
    prob = vote(rule, aligned.logits).prob
    draws = bootstrap_threshold(aligned.label, prob, aligned.group, seed=seed)
    low, high = interval(draws)
    # Draws lie on a grid of 1/4096, the threshold itself between two probs.
    return min(low, rule.threshold), max(high, rule.threshold)


def _recipe(
    aligned: Aligned,
    winner: _Tried,
    candidates: list[Candidate],
    search: Search,
    notes: list[str],
) -> Recipe:
    best = next(c for c in candidates if c.name == winner.name)
    incumbent = next(c for c in candidates if c.name == INCUMBENT)
    rule = winner.rule
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
        stages=stages_of(rule, aligned.models),
        scores={
            "in_sample": best.in_sample,
            "cross_fitted": best.cross_fitted,
            "interval": best.interval,
            "optimism": best.optimism,
            "threshold_interval": _threshold_interval(aligned, rule, search.seed),
            "incumbent": incumbent.in_sample,  # it learns nothing, so this is honest
            "rows": int(aligned.label.size),
            "groups": aligned.n_groups,
            "selected_on": aligned.selected_on,
            "notes": notes,
            "candidates": [asdict(c) | {"optimism": c.optimism} for c in candidates],
        },
        search={
            "strategy": winner.name,
            "sampler": STRATEGIES.get(winner.strategy).sampler or None,
            "trials": winner.trials,
            "seed": search.seed,
        },
    )
