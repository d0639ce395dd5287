"""A recipe chosen under shift: tuned on a mixture of conditions, scored under each of them.

Beside it stands the recipe that the clean rows alone choose. Both are cross-fitted over the same
parts, and all rows of a group, in whatever condition, are of one part.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from src import paths
from src.artifacts.fingerprints import fingerprint_of
from src.ensemble.align import Aligned
from src.ensemble.crossfit import Candidate, Parts, Tried, judge, scored, try_strategy
from src.ensemble.predictions import FloatArray, votes_of
from src.ensemble.rule import Deliveries, Rule, can_vote
from src.ensemble.search import Search, incumbent_of
from src.ensemble.shift.compare import Worth, compare, compare_answers
from src.ensemble.shift.conditions import ROBUSTNESS, AllConditions
from src.ensemble.shift.few import FOUR
from src.ensemble.shift.mixture import Mixture, mix
from src.ensemble.tune import Tuned, notes_on, recipe_of
from src.metrics import Metric

UNDER, ALSO = "under", "also"  # keys of a recipe's search and scores
Tune = Callable[[Aligned, Parts, Search], Tuned]


@dataclass(frozen=True)
class Shifted:
    """What tuning under several conditions came to."""

    tuned: Tuned  # to write; its scores are of the clean rows
    # under each condition: of the clean-chosen, then of the shift-chosen. Where its mean over
    # deliveries is taken, the first is of that, and all others of what it was before
    lines: list[Worth]
    clean: Tuned  # what the clean rows alone choose
    # what was tuned on, and the outcome there; None where other conditions are only looked at
    mixture: Mixture | None = None
    mixed: Tuned | None = None
    # on the clean rows: the shift-chosen as it is, then by the mean over a few deliveries
    looks: Sequence[Candidate] = ()


def look(conditions: AllConditions, tuned: Tuned, search: Search) -> Shifted:
    """Score what the clean rows chose under every condition; nothing is chosen by it."""
    lines = compare(conditions, [tuned.winner], search.metric, search.seed)
    kept = {"lines": [asdict(line) for line in lines], "schemes": _schemes(conditions)}
    recipe = replace(tuned.recipe, scores={**tuned.recipe.scores, ALSO: kept})
    return Shifted(replace(tuned, recipe=recipe), lines, tuned)


def choose(
    conditions: AllConditions,
    under: Sequence[str],
    clean_share: float,
    clean: Tuned,
    tune_on: Tune,
    search: Search,
) -> Shifted:
    """Tune on a mixture, and hold the outcome against what the clean rows chose.

    Args:
        conditions: what there is; all of it is scored.
        under: `robustness` and schemes, whole names: what the mixture holds beside clean rows.
        clean_share: of the mixture's rows.
        clean: what the clean rows chose.
        tune_on: tunes on any rows, parted so, as `clean` was tuned.
        search: metric and seed.

    Raises:
        UserError: see `mix`.
    """
    metric = search.metric
    mixture = mix(conditions, under, clean_share, seed=search.seed)
    said = {
        "conditions": list(under),
        "levels": list(conditions.levels) if ROBUSTNESS in under else [],
        "seed": conditions.seed,
        "clean_share": clean_share,
        "rows": dict(mixture.counts),
        "schemes": _schemes(conditions, under),
    }
    own = replace(search, fingerprint=str(said), study_name=f"{search.study_name}/{UNDER}")
    mixed = tune_on(mixture.rows, mixture.parts, own)
    shifted = _on_clean_rows(mixed.winner, conditions, metric)
    lines = compare(conditions, [clean.winner, shifted], metric, search.seed)
    tried, rows = [shifted], conditions.clean.rows.under(shifted.pool)
    looked = _of_deliveries(shifted, conditions, metric) if ROBUSTNESS in under else None
    if looked is not None:
        tried.append(looked[0])
    looks = judge(tried, rows, search, first=0) if len(tried) > 1 else []
    if looked is not None and looks[-1].taken:
        shifted, rows = looked
        lines = [replace(line, before_deliveries=True) for line in lines]
        votes = [one.votes for one in (clean.winner, shifted) if one.votes is not None]
        lines.insert(0, compare_answers(rows, votes, metric, search.seed))
    tuned = _restated(shifted, rows, mixed, conditions, search)
    kept = {
        "lines": [asdict(line) for line in lines],
        "clean_chosen": clean.chosen,
        "candidates": [asdict(candidate) for candidate in mixed.candidates],
        "deliveries": [asdict(look) for look in looks],
    }
    recipe = replace(
        tuned.recipe,
        scores={**tuned.recipe.scores, UNDER: kept},
        search={**tuned.recipe.search, UNDER: said},
    )
    return Shifted(replace(tuned, recipe=recipe), lines, clean, mixture, mixed, looks)


def _schemes(conditions: AllConditions, under: Sequence[str] | None = None) -> dict[str, str]:
    """Return scheme -> SHA-256 of its fold file."""
    dataset = conditions.clean.rows.dataset
    return {
        name: fingerprint_of(paths.folds_csv(dataset, name))
        for name in conditions.schemes
        if under is None or name in under
    }


def _parts(conditions: AllConditions) -> Parts:
    return Parts(conditions.clean.part, conditions.note)


def _on_clean_rows(tried: Tried, conditions: AllConditions, metric: Metric) -> Tried:
    """Return a candidate that other rows chose, scored on the clean ones."""
    rows = conditions.clean.rows.under(tried.pool)
    return scored(tried, rows, _parts(conditions), metric)


def _restated(
    winner: Tried, rows: Aligned, mixed: Tuned, conditions: AllConditions, search: Search
) -> Tuned:
    """Return the outcome with a recipe whose scores are of clean rows, as those of any recipe."""
    parts, incumbent = _parts(conditions), incumbent_of(search.metric)
    tried = [winner]
    if winner.name != incumbent:
        tried.insert(0, try_strategy(incumbent, conditions.clean.rows, parts, search))
    candidates = judge(tried, rows, search, first=len(tried) - 1)
    shown_only = len(tried) > 1
    notes = notes_on(rows, parts, candidates, winner.name, search.metric, shown_only=shown_only)
    notes.append(
        "chosen on a mixture of conditions (search.under); what being chosen flatters these scores "
        "by is not taken off"
    )
    recipe = recipe_of(rows, winner, candidates, search, parts, notes)
    if winner.deliveries is None:
        limits = mixed.recipe.scores["threshold_interval"]
        recipe = replace(recipe, scores={**recipe.scores, "threshold_interval": limits})
    return Tuned(recipe, candidates, winner.name, notes, winner)


def _of_deliveries(
    plain: Tried, conditions: AllConditions, metric: Metric
) -> tuple[Tried, Aligned] | None:
    """Return a candidate whose members look at every item at `FOUR` levels too, and its rows.

    Weights and calibration are those that the mixture chose. The threshold is where as many rows
    are called fake as before, so that what is gained is gained by the order of the items: nothing
    is stored of how a delivered item looks when it is delivered again, so that a threshold of its
    own could be found on clean rows alone. None where a level is lacking, or where one threshold
    does not decide.
    """
    if plain.rule.voting == "hard" or plain.rule.by or not set(FOUR) <= set(conditions.levels):
        return None
    rows = conditions.clean.rows.under(plain.pool)
    looks = [rows, *(conditions.levels[level].rows.under(plain.pool) for level in FOUR)]
    means = replace(rows, logit=np.mean([look.logit for look in looks], axis=0))
    part = conditions.clean.part

    def moved(rule: Rule, seen: NDArray[np.bool_]) -> Rule:
        if not metric.decides:
            return rule
        known = seen & can_vote(rule, rows.logit)
        before, after = votes_of(rule, rows.take(known)), votes_of(rule, means.take(known))
        return replace(rule, threshold=same_share(after.prob, int(before.pred.sum())))

    everything = np.ones(len(rows), dtype=bool)
    tried = replace(
        plain,
        name=f"{plain.name} of {len(FOUR)} deliveries",
        rule=moved(plain.rule, everything),
        rules={k: moved(rule, part != k) for k, rule in plain.rules.items()},
        deliveries=Deliveries(FOUR, conditions.seed),
    )
    return scored(tried, means, _parts(conditions), metric), means


def same_share(prob: FloatArray, count: int) -> float:
    """Return the threshold at or above which `count` of (n,) probs lie, or as near as ties let."""
    falling = np.sort(prob)[::-1]
    if count == 0:
        return float(np.nextafter(falling[0], 2.0))
    if count == falling.size:
        return float(falling[-1])
    return float((falling[count - 1] + falling[count]) / 2)
