"""Strategies fitted, judged on items they did not see, and held against the simpler one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from src.bootstrap import MIN_GROUPS, bootstrap_scores
from src.ensemble.align import Aligned
from src.ensemble.predictions import IntArray, Predictions, fit_threshold, votes_of
from src.ensemble.rule import (
    Deliveries,
    FoldCurves,
    Rule,
    Votes,
    can_vote,
    equal_weights,
    plain_rule,
)
from src.ensemble.search import STRATEGIES, Search, Strategy
from src.ensemble.uncertainty import climb, fold_scores, gain_errors, uncertainty
from src.metrics import MACRO_F1, Metric, score_of
from src.stratify import stratified_group_folds

if TYPE_CHECKING:
    import optuna

N_PARTS = 5  # of the only fold
FEWEST = 20  # items of each class that a threshold of its own wants


@dataclass(frozen=True)
class Parts:
    """How the items are parted for cross-fitting."""

    # (n,) int64; a strategy is fitted on all parts but one and decides that one. None where there
    # are too few groups.
    part: IntArray | None
    note: str  # in words, for the user

    @property
    def count(self) -> int:
        """Return the number of parts, 0 if there are none."""
        return 0 if self.part is None else len(np.unique(self.part))


def make_parts(rows: Predictions, seed: int) -> Parts:
    """Part the items by fold; by group where there is one fold, or one that cannot be left out."""
    folds = np.unique(rows.fold)
    if len(folds) > 1 and _fits_without_each(rows, rows.fold):
        return Parts(rows.fold, f"{len(folds)} folds, each left out once")
    where = f"fold{'s' * (len(folds) > 1)} {' '.join(map(str, folds))}"
    fewest = min(len(np.unique(rows.group[rows.label == label])) for label in (0, 1))
    for n_parts in range(min(N_PARTS, fewest), 1, -1):
        part = stratified_group_folds(rows.label, rows.group, n_parts, seed)
        # A group may hold both classes, so enough groups do not promise both outside each part.
        if _fits_without_each(rows, part):
            note = f"{n_parts} parts of {where} by group, each left out once"
            if len(folds) > 1:
                note += ": without a whole fold, a member or the items of all would be missing"
            return Parts(part, note)
    return Parts(
        None,
        f"{where} alone has {rows.n_groups} group(s), {fewest} of the rarer class: too few "
        "to cross-fit; train more folds",
    )


def _fits_without_each(rows: Predictions, part: IntArray) -> bool:
    """Tell whether without each part every member still has both classes, and so have all together.

    The latter where there are such items at all.
    """
    known = ~np.isnan(rows.logit.reshape(len(rows), -1))
    wanted = [*known.T, rows.complete] if can_weigh(rows) else [*known.T]
    return all(
        len(np.unique(rows.label[some & (part != k)])) == 2
        for k in np.unique(part)
        for some in wanted
    )


def can_weigh(rows: Predictions) -> bool:
    """Tell whether the items that all members predicted are of both classes."""
    return len(np.unique(rows.label[rows.complete])) == 2


def fit_rule(
    strategy: Strategy, rows: Predictions, seen: NDArray[np.bool_], search: Search
) -> Rule:
    """Fit a strategy on the items `seen`, (n,), with as many trials as were asked for.

    What learns weights sees those that all members predicted; its threshold is the best on all.
    """
    search = replace(search, trials=search.trials or strategy.trials)
    label, logit, complete = rows.label[seen], rows.logit[seen], rows.complete[seen]
    if not strategy.weighs or complete.all():
        return strategy.fit(label, logit, search)
    rule = strategy.fit(label[complete], logit[complete], search)
    return rule if rule.voting == "hard" else fit_threshold(label, logit, rule, search.metric)[0]


def split_rule(
    rule: Rule, rows: Predictions, seen: NDArray[np.bool_], by: str, metric: Metric
) -> Rule:
    """Give each kind or domain its own threshold, the best on the items `seen`, (n,).

    A value with fewer than `FEWEST` items of a class among them keeps the common threshold.
    """
    values, cuts = rows.values(by), {}
    for value in sorted(set(values[seen])):
        here = seen & (values == value)
        label = rows.label[here]
        enough = min(np.bincount(label, minlength=2)) >= FEWEST
        fitted = fit_threshold(label, rows.logit[here], rule, metric)[0] if enough else rule
        cuts[str(value)] = fitted.threshold
    return replace(rule, by=by, cuts=cuts)


def cross_rules(
    strategy: Strategy, rows: Predictions, part: IntArray, search: Search
) -> dict[int, Rule]:
    """Return part -> the rule fitted without it; `part` (n,) as in `Parts`."""
    return {
        int(k): fit_rule(
            strategy, rows, part != k, replace(search, study_name=f"{search.study_name}/part{k}")
        )
        for k in np.unique(part)
    }


def cross_vote(
    rules: dict[int, Rule], rows: Predictions, part: IntArray, metric: Metric = MACRO_F1
) -> Votes:
    """Decide every item, (n,), with the rule that was fitted without its part."""
    votes = Votes(np.empty(len(rows)), np.empty(len(rows), dtype=np.int64))
    for k, rule in rules.items():
        held = part == k
        votes.prob[held], votes.pred[held] = answers_of(rule, rows, held, part != k, metric)
    return votes


def answers_of(
    rule: Rule,
    rows: Predictions,
    asked: NDArray[np.bool_],
    seen: NDArray[np.bool_],
    metric: Metric,
) -> Votes:
    """Decide the items `asked`, (n,), by a rule that was fitted on those `seen`, (n,).

    Where none of its members predicted an item (`can_vote`), the plain mean of those that did
    decides, which is neither for the rule nor against it.
    """
    some = rows.take(asked)
    known = can_vote(rule, some.logit)
    if known.all():
        return votes_of(rule, some)
    votes = Votes(np.empty(len(some)), np.empty(len(some), dtype=np.int64))
    for by, which in ((rule, known), (fallback(rows, seen, metric), ~known)):
        if which.any():
            votes.prob[which], votes.pred[which] = votes_of(by, some.take(which))
    return votes


def fallback(rows: Predictions, seen: NDArray[np.bool_], metric: Metric) -> Rule:
    """Return what decides items of which no member of a rule knows: the plain mean of the others.

    At its best threshold on the items `seen`, (n,).
    """
    mean = plain_rule("soft", equal_weights(rows.logit.shape[1]))
    return fit_threshold(rows.label[seen], rows.logit[seen], mean, metric)[0]


@dataclass(frozen=True)
class Tried:
    """A strategy that was fitted."""

    name: str  # of the candidate: the strategy's, or `... by kind`.
    strategy: str  # name in `STRATEGIES`
    rule: Rule  # fitted on all rows
    # part -> the rule fitted without it; none where there are too few groups to part
    rules: dict[int, Rule]
    trials: int  # completed in the search on all rows
    in_sample: float = float("nan")  # the metric of `rule` on all rows
    votes: Votes | None = None  # of `rules`, each on its part; None where there are none
    decided: int = 0  # items that `rule` can decide; see `answers_of`
    pool: str = ""  # of the frames whose logits the rules were fitted on; "" is the members' own
    # member -> curves of its folds' models, likewise; empty: none
    curves: dict[str, FoldCurves] = field(default_factory=dict)
    deliveries: Deliveries | None = None  # what else each item was looked at as, likewise


def try_strategy(name: str, rows: Predictions, parts: Parts, search: Search) -> Tried:
    """Fit a strategy on all rows and cross-fit it over the parts."""
    strategy = STRATEGIES.get(name)
    search = replace(search, study_name=f"{search.study_name}/{name}")
    done: list[int] = []

    def count(study: "optuna.Study", study_name: str) -> None:
        done.append(sum(t.state.name == "COMPLETE" for t in study.get_trials(deepcopy=False)))
        search.on_study(study, study_name)

    whole = replace(search, study_name=f"{search.study_name}/all", on_study=count)
    rule = fit_rule(strategy, rows, np.ones(len(rows), dtype=bool), whole)
    rules = {} if parts.part is None else cross_rules(strategy, rows, parts.part, search)
    return scored(Tried(name, name, rule, rules, trials=sum(done)), rows, parts, search.metric)


def try_split(plain: Tried, rows: Predictions, parts: Parts, by: str, metric: Metric) -> Tried:
    """Give the rules of a candidate thresholds by `kind` or `domain`; nothing is searched again."""
    rule, rules = _changed(
        plain, parts, lambda rule, seen: split_rule(rule, rows, seen, by, metric)
    )
    split = replace(plain, name=f"{plain.name} by {by}", rule=rule, rules=rules)
    return scored(split, rows, parts, metric)


def try_pooling(plain: Tried, aligned: Aligned, parts: Parts, search: Search, pool: str) -> Tried:
    """Fit a candidate's strategy to another pooling of frames, a name in `POOLING`."""
    again = _again(plain, aligned.under(pool), parts, search)
    return replace(again, name=f"{plain.name} of {pool}", pool=pool)


def try_fold_calibration(
    plain: Tried, calibrated: Aligned, parts: Parts, search: Search, curves: dict[str, FoldCurves]
) -> Tried:
    """Fit a candidate's strategy to logits through curves of folds; see `calibrate_folds`."""
    again = _again(plain, calibrated, parts, search)
    return replace(again, name=f"{plain.name} of calibrated folds", pool=plain.pool, curves=curves)


def _again(plain: Tried, rows: Aligned, parts: Parts, search: Search) -> Tried:
    """Fit a candidate's strategy to other logits of its items.

    One that runs trials keeps its weights and finds its thresholds again.
    """
    if not STRATEGIES.get(plain.strategy).sampler:
        return try_strategy(plain.strategy, rows, parts, search)

    def refitted(rule: Rule, seen: NDArray[np.bool_]) -> Rule:
        return fit_threshold(rows.label[seen], rows.logit[seen], rule, search.metric)[0]

    rule, rules = _changed(plain, parts, refitted)
    return scored(replace(plain, rule=rule, rules=rules), rows, parts, search.metric)


def _changed(
    plain: Tried, parts: Parts, change: Callable[[Rule, NDArray[np.bool_]], Rule]
) -> tuple[Rule, dict[int, Rule]]:
    """Change the rules of a candidate, each on the rows that it was fitted on."""
    if parts.part is None:
        raise ValueError("nothing to hold other thresholds against")
    rules = {k: change(rule, parts.part != k) for k, rule in plain.rules.items()}
    return change(plain.rule, np.ones(len(parts.part), dtype=bool)), rules


def scored(fitted: Tried, rows: Predictions, parts: Parts, metric: Metric) -> Tried:
    """Fill in what the rules are worth."""
    everything = np.ones(len(rows), dtype=bool)
    own = answers_of(fitted.rule, rows, everything, everything, metric)
    votes = None if parts.part is None else cross_vote(fitted.rules, rows, parts.part, metric)
    return replace(
        fitted,
        in_sample=score_of(metric, rows.label, *own),
        votes=votes,
        decided=int(can_vote(fitted.rule, rows.logit).sum()),
    )


@dataclass(frozen=True)
class Candidate:
    """A strategy and what it is worth."""

    name: str  # of the strategy
    in_sample: float  # the metric on the rows it was fitted on; flatters
    # the metric of answers by rules fitted without the items' part; None where there are too few
    # groups to part
    cross_fitted: float | None = None
    # 95 % interval of `cross_fitted` (`uncertainty`), and the standard errors in it: by the luck of
    # its rows, by the spread between folds; None below `MIN_GROUPS` groups
    interval: tuple[float, float] | None = None
    rows_se: float | None = None
    folds_se: float | None = None
    selection: float | None = None  # how much having been chosen flatters it; 0 of the others
    over: str | None = None  # the simpler candidate it was held against
    gain: float | None = None  # cross-fitted gain over that one; more is better for any metric
    gain_se: float | None = None  # its standard error, by the paired bootstrap
    taken: bool = False  # whether it replaced that one
    voting: str = ""  # what its rule votes by
    trials: int = 0  # of one of its searches
    optimism: float | None = None  # how much the score on its own rows flatters it
    # items that its own members predicted; on the others the plain mean decides (`answers_of`)
    decided: int = 0


def judge(
    tried: Sequence[Tried],
    rows: Predictions,
    search: Search,
    first: int,
    rivals: range = range(0),
) -> list[Candidate]:
    """Score the candidates and let each challenge the one that stands, from `first` on.

    Args:
        tried: the simplest first; those before `first` are only shown.
        rows: what they were fitted on.
        search: its metric, and the seed of the bootstrap.
        first: place of the one that stands at the beginning.
        rivals: places of candidates that all challenge the same one; of those that pass, the one
            with the best cross-fitted score replaces it, of equal ones the first.

    Returns:
        One each; the last that is `taken` is the one to keep.
    """
    answers, metric = [t.votes for t in tried if t.votes is not None], search.metric
    if not answers:
        return [_candidate(t, taken=i == first) for i, t in enumerate(tried)]
    scores = np.array([score_of(metric, rows.label, *votes) for votes in answers])
    draws, errors = None, np.full((len(tried), len(tried)), np.inf)  # then nothing passes
    if rows.n_groups >= MIN_GROUPS:
        draws = bootstrap_scores(metric, rows.label, answers, rows.group, seed=search.seed)
        errors = gain_errors(draws)
    rounds = [range(k, k + 1) for k in range(first + 1, len(tried)) if k not in rivals]
    rounds = sorted([*rounds, rivals] if rivals else rounds, key=lambda places: places.start)
    standing = [int(path[0]) for path in climb(metric.sign * scores[None], errors, rounds, first)]
    over = {place: standing[i] for i, places in enumerate(rounds) for place in places}
    found = []
    for place, one in enumerate(tried):
        rest: dict[str, Any] = {"optimism": metric.sign * (one.in_sample - scores[place])}
        if place in over:
            stood = over[place]
            rest |= {
                "over": tried[stood].name,
                "gain": float(metric.sign * (scores[place] - scores[stood])),
                "gain_se": None if draws is None else float(errors[place, stood]),
            }
        score = float(scores[place])
        found.append(_candidate(one, cross_fitted=score, taken=place in standing, **rest))
    if draws is None:
        return found
    chosen, anew = standing[-1], climb(metric.sign * draws, errors, rounds, first)[-1]
    every = [np.full(len(draws), place) for place in range(len(tried))]
    every[chosen] = anew
    return [
        replace(one, **_limits(metric, rows, votes, place, draws, every[place]))
        for place, (one, votes) in enumerate(zip(found, answers, strict=True))
    ]


def _limits(
    metric: Metric,
    rows: Predictions,
    votes: Votes,
    place: int,
    draws: NDArray[np.float64],
    anew: IntArray,
) -> dict[str, Any]:
    """Return how sure the score of a candidate is, as fields of `Candidate`.

    Args:
        metric, rows, votes: what it is a score of.
        place: of the candidate.
        draws: (b, k) bootstrap scores of all candidates.
        anew: (b,) which one each draw would have chosen, for the chosen one; else its own place.
    """
    by_fold = fold_scores(metric, rows, votes)
    found = uncertainty(metric, score_of(metric, rows.label, *votes), draws, anew, place, by_fold)
    return {
        "interval": found.interval,
        "rows_se": found.rows,
        "folds_se": found.folds,
        "selection": found.selection,
    }


def _candidate(tried: Tried, **rest: Any) -> Candidate:  # noqa: ANN401 - fields by name
    return Candidate(
        tried.name, tried.in_sample, voting=tried.rule.voting, trials=tried.trials,
        decided=tried.decided, **rest,
    )  # fmt: skip
