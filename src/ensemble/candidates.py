"""Candidates: a strategy fitted, cross-fitted and held against the simpler one that stands."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from src.ensemble.align import Aligned
from src.ensemble.bootstrap import MIN_GROUPS, bootstrap_macro_f1, interval
from src.ensemble.crossfit import (
    Parts,
    cross_rules,
    cross_vote,
    fit_rule,
    split_rule,
)
from src.ensemble.predictions import fit_threshold
from src.ensemble.rule import Rule, Votes, vote
from src.ensemble.search import STRATEGIES, Search
from src.metrics import macro_f1

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True)
class Candidate:
    """A strategy and what it is worth."""

    name: str  # of the strategy
    in_sample: float  # macro-F1 on the rows it was fitted on; flatters
    # macro-F1 of decisions by rules fitted without the items' part; None where there are too few
    # groups to part
    cross_fitted: float | None = None
    # 95 % group bootstrap of `cross_fitted`; None below `MIN_GROUPS` groups
    interval: tuple[float, float] | None = None
    over: str | None = None  # the simpler candidate it was held against
    gain: float | None = None  # cross-fitted gain over that one
    gain_se: float | None = None  # its standard error, by the paired bootstrap
    taken: bool = False  # whether it replaced that one
    voting: str = ""  # what its rule votes by
    trials: int = 0  # of one of its searches

    @property
    def optimism(self) -> float | None:
        """Return how much the score on its own rows flatters it."""
        return None if self.cross_fitted is None else self.in_sample - self.cross_fitted


@dataclass(frozen=True)
class Tried:
    """A strategy that was fitted."""

    name: str  # of the candidate: the strategy's, or `... by kind`.
    strategy: str  # name in `STRATEGIES`
    rule: Rule  # fitted on all rows
    # part -> the rule fitted without it; none where there are too few groups to part
    rules: dict[int, Rule]
    trials: int  # completed in the search on all rows
    in_sample: float = float("nan")  # macro-F1 of `rule` on all rows
    votes: Votes | None = None  # of `rules`, each on its part; None where there are none
    pool: str = ""  # of the frames whose logits the rules were fitted on; "" is the members' own


def try_strategy(name: str, aligned: Aligned, parts: Parts, search: Search) -> Tried:
    """Fit a strategy on all rows and cross-fit it over the parts."""
    strategy = STRATEGIES.get(name)
    search = replace(search, study_name=f"{search.study_name}/{name}")
    everything = np.ones(aligned.label.size, dtype=bool)
    done: list[int] = []

    def count(study: "optuna.Study", study_name: str) -> None:
        done.append(sum(t.state.name == "COMPLETE" for t in study.get_trials(deepcopy=False)))
        search.on_study(study, study_name)

    whole = replace(search, study_name=f"{search.study_name}/all", on_study=count)
    rule = fit_rule(strategy, aligned, everything, whole)
    rules = {} if parts.part is None else cross_rules(strategy, aligned, parts.part, search)
    return _tried(Tried(name, name, rule, rules, trials=sum(done)), aligned, parts)


def try_split(plain: Tried, aligned: Aligned, parts: Parts, by: str) -> Tried:
    """Give the rules of a candidate thresholds by `kind` or `domain`; nothing is searched again."""
    if parts.part is None:
        raise ValueError("nothing to hold thresholds of their own against")
    everything = np.ones(aligned.label.size, dtype=bool)
    rules = {k: split_rule(rule, aligned, parts.part != k, by) for k, rule in plain.rules.items()}
    rule = split_rule(plain.rule, aligned, everything, by)
    split = replace(plain, name=f"{plain.name} by {by}", rule=rule, rules=rules)
    return _tried(split, aligned, parts)


def try_pooling(plain: Tried, aligned: Aligned, parts: Parts, search: Search, pool: str) -> Tried:
    """Fit a candidate's strategy to another pooling of frames.

    A strategy that runs trials keeps its weights and finds its thresholds again.

    Args:
        plain: the candidate.
        aligned: what it was fitted on.
        parts: there are some.
        search: as it was fitted.
        pool: name in `POOLING`.
    """
    aligned, name = aligned.under(pool), f"{plain.name} of {pool}"
    if not STRATEGIES.get(plain.strategy).sampler:
        tried = try_strategy(plain.strategy, aligned, parts, search)
        return replace(tried, name=name, pool=pool)
    if parts.part is None:
        raise ValueError("nothing to hold another pooling against")
    everything = np.ones(aligned.label.size, dtype=bool)

    def refit(rule: Rule, rows: NDArray[np.bool_]) -> Rule:
        return fit_threshold(aligned.label[rows], aligned.logit[rows], rule)[0]

    rules = {k: refit(rule, parts.part != k) for k, rule in plain.rules.items()}
    rule = refit(plain.rule, everything)
    return _tried(replace(plain, name=name, rule=rule, rules=rules, pool=pool), aligned, parts)


def _tried(fitted: Tried, aligned: Aligned, parts: Parts) -> Tried:
    """Fill in what the rules are worth."""
    values = aligned.values(fitted.rule.by) if fitted.rule.by else None
    in_sample = macro_f1(aligned.label, vote(fitted.rule, aligned.logit, values).pred)
    votes = None if parts.part is None else cross_vote(fitted.rules, aligned, parts.part)
    return replace(fitted, in_sample=in_sample, votes=votes)


def judge(
    tried: Sequence[Tried], aligned: Aligned, seed: int, first: int, rivals: range = range(0)
) -> list[Candidate]:
    """Score the candidates and let each challenge the one that stands, from `first` on.

    Args:
        tried: the simplest first; those before `first` are only shown.
        aligned: what they were fitted on.
        seed: of the bootstrap.
        first: place of the one that stands at the beginning.
        rivals: places of candidates that all challenge the same one; of those that pass, the one
            with the best cross-fitted score replaces it, of equal ones the first.

    Returns:
        One each; the last that is `taken` is the one to keep.
    """
    preds = [t.votes.pred for t in tried if t.votes is not None]
    if not preds:
        return [_candidate(t, taken=i == first) for i, t in enumerate(tried)]
    scores = [macro_f1(aligned.label, pred) for pred in preds]
    draws = None
    if aligned.n_groups >= MIN_GROUPS:
        draws = bootstrap_macro_f1(aligned.label, preds, aligned.group, seed=seed)
    standing, candidates = first, []
    for places in _rounds(len(tried), rivals):
        found = [
            _challenge(tried, scores, draws, place, None if place <= first else standing)
            for place in places
        ]
        passed = [k for k, c in zip(places, found, strict=True) if c.taken]
        standing = max(passed, key=scores.__getitem__, default=standing)
        candidates += [replace(c, taken=k == standing) for k, c in zip(places, found, strict=True)]
    return candidates


def _rounds(count: int, rivals: range) -> list[range]:
    """Return the places of all candidates, those that challenge together in one range."""
    alone = [range(k, k + 1) for k in range(count) if k not in rivals]
    return sorted([*alone, *([rivals] if rivals else [])], key=lambda places: places.start)


def _challenge(
    tried: Sequence[Tried],
    scores: Sequence[float],
    draws: NDArray[np.float64] | None,
    place: int,
    standing: int | None,
) -> Candidate:
    """Return a candidate, `taken` where it beats the standing one by more than a standard error.

    Args:
        tried, scores: of all.
        draws: (n_draws, n) scores of bootstrap samples; None where there are too few groups.
        place: of the candidate.
        standing: place of the one that it challenges; None challenges nobody.
    """
    limits = None if draws is None else interval(draws[:, place])
    if standing is None:
        return _candidate(tried[place], cross_fitted=scores[place], interval=limits)
    gain = scores[place] - scores[standing]
    error = None
    if draws is not None:
        error = float(np.std(draws[:, place] - draws[:, standing], ddof=1))
    return _candidate(
        tried[place], cross_fitted=scores[place], interval=limits, over=tried[standing].name,
        gain=gain, gain_se=error, taken=error is not None and gain > error,
    )  # fmt: skip


def _candidate(tried: Tried, **rest: Any) -> Candidate:  # noqa: ANN401 - fields by name
    return Candidate(
        tried.name, tried.in_sample, voting=tried.rule.voting, trials=tried.trials, **rest
    )
