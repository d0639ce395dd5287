"""Judge a strategy on items it did not see."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from src.ensemble.predictions import Predictions, fit_threshold
from src.ensemble.rule import Rule, Votes, vote
from src.ensemble.strategy import Search, Strategy
from src.stratify import stratified_group_folds

IntArray = NDArray[np.int64]
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
    """Part the items by fold, or by group inside the only fold."""
    folds = np.unique(rows.fold)
    if len(folds) > 1:
        return Parts(rows.fold, f"{len(folds)} folds, each left out once")
    fold = folds[0]
    fewest = min(len(np.unique(rows.group[rows.label == label])) for label in (0, 1))
    for n_parts in range(min(N_PARTS, fewest), 1, -1):
        part = stratified_group_folds(rows.label, rows.group, n_parts, seed)
        # A group may hold both classes, so enough groups do not promise both outside each part.
        if all(len(np.unique(rows.label[part != k])) == 2 for k in range(n_parts)):
            return Parts(part, f"{n_parts} parts of fold {fold} by group, each left out once")
    return Parts(
        None,
        f"fold {fold} alone has {rows.n_groups} group(s), {fewest} of the rarer class: too few "
        "to cross-fit; train more folds",
    )


def fit_rule(
    strategy: Strategy, rows: Predictions, seen: NDArray[np.bool_], search: Search
) -> Rule:
    """Fit a strategy on some items, (n,) bool, with as many trials as were asked for."""
    search = replace(search, trials=search.trials or strategy.trials)
    return strategy.fit(rows.label[seen], rows.logit[seen], search)


def split_rule(rule: Rule, rows: Predictions, seen: NDArray[np.bool_], by: str) -> Rule:
    """Give each kind or domain its own threshold, the best on some items, (n,) bool.

    A value with fewer than `FEWEST` items of a class among them keeps the common threshold.
    """
    values, cuts = rows.values(by), {}
    for value in sorted(set(values[seen])):
        here = seen & (values == value)
        label = rows.label[here]
        enough = min(np.bincount(label, minlength=2)) >= FEWEST
        fitted = fit_threshold(label, rows.logit[here], rule)[0] if enough else rule
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


def cross_vote(rules: dict[int, Rule], rows: Predictions, part: IntArray) -> Votes:
    """Decide every item, (n,), with the rule that was fitted without its part."""
    votes = Votes(np.empty(rows.label.size), np.empty(rows.label.size, dtype=np.int64))
    for k, rule in rules.items():
        held = part == k
        values = rows.values(rule.by)[held] if rule.by else None
        votes.prob[held], votes.pred[held] = vote(rule, rows.logit[held], values)
    return votes
