"""Judge a strategy on items it did not see."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from src.ensemble.align import Aligned
from src.ensemble.rule import Rule, Votes, vote
from src.ensemble.strategy import Search, Strategy
from src.thresholds import best_threshold

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


def make_parts(aligned: Aligned, seed: int) -> Parts:
    """Part the items by fold, or by group inside the only fold."""
    if len(aligned.folds) > 1:
        return Parts(aligned.fold, f"{len(aligned.folds)} folds, each left out once")
    fold = aligned.folds[0]
    fewest = min(len(np.unique(aligned.group[aligned.label == label])) for label in (0, 1))
    for n_parts in range(min(N_PARTS, fewest), 1, -1):
        part = stratified_group_parts(aligned.label, aligned.group, n_parts, seed)
        # A group may hold both classes, so enough groups do not promise both outside each part.
        if all(len(np.unique(aligned.label[part != k])) == 2 for k in range(n_parts)):
            return Parts(part, f"{n_parts} parts of fold {fold} by group, each left out once")
    return Parts(
        None,
        f"fold {fold} alone has {aligned.n_groups} group(s), {fewest} of the rarer class: too few "
        "to cross-fit; train more folds",
    )


def stratified_group_parts(label: IntArray, group: IntArray, n_parts: int, seed: int) -> IntArray:
    """Deal whole groups into parts of like size and class balance.

    The greedy rule of scikit-learn's `StratifiedGroupKFold` (largest groups first, each to where
    the classes stay most even) without its import of two seconds.

    Args:
        label: (n,) 0/1.
        group: (n,) codes.
        n_parts: >= 2.
        seed: order of groups of one size.

    Returns:
        (n,) int64 part, 0..n_parts-1; depends on the rows of a group only as a set.
    """
    _, code = np.unique(group, return_inverse=True)
    sizes = np.stack([np.bincount(code[label == k], minlength=code.max() + 1) for k in (0, 1)], 1)
    shares = sizes / np.maximum(sizes.sum(axis=0), 1)
    tie_break = np.random.default_rng(seed).random(len(sizes))
    load = [[0.0, 0.0] for _ in range(n_parts)]
    part_of = np.empty(len(sizes), dtype=np.int64)
    for g in np.lexsort((tie_break, -shares.max(axis=1))):
        real, fake = shares[g].tolist()
        # Adding s to a load L raises the sum of squared loads by s * (2 L + s); s is the same for
        # all parts, so the part with the least s * L evens the classes out most.
        part = min(range(n_parts), key=lambda k: (real * load[k][0] + fake * load[k][1], k))
        load[part][0] += real
        load[part][1] += fake
        part_of[g] = part
    return part_of[code]


def fit_rule(strategy: Strategy, aligned: Aligned, rows: NDArray[np.bool_], search: Search) -> Rule:
    """Fit a strategy on some items, (n,) bool, with as many trials as were asked for."""
    search = replace(search, trials=search.trials or strategy.trials)
    return strategy.fit(aligned.label[rows], aligned.logits[rows], search)


def rethreshold(rule: Rule, aligned: Aligned, rows: NDArray[np.bool_]) -> Rule:
    """Return a rule with the best threshold on some items, (n,) bool; its weights stay."""
    prob = vote(rule, aligned.logits[rows]).prob
    return replace(rule, threshold=best_threshold(aligned.label[rows], prob)[0])


def split_rule(rule: Rule, aligned: Aligned, rows: NDArray[np.bool_], by: str) -> Rule:
    """Give each kind or domain its own threshold, the best on some items, (n,) bool.

    A value with fewer than `FEWEST` items of a class among them keeps the common threshold.
    """
    label, values = aligned.label[rows], aligned.values(by)[rows]
    prob = vote(rule, aligned.logits[rows]).prob
    cuts = {}
    for value in sorted(set(values)):
        here = values == value
        enough = min(np.bincount(label[here], minlength=2)) >= FEWEST
        cuts[str(value)] = best_threshold(label[here], prob[here])[0] if enough else rule.threshold
    return replace(rule, by=by, cuts=cuts)


def cross_rules(
    strategy: Strategy, aligned: Aligned, part: IntArray, search: Search
) -> dict[int, Rule]:
    """Return part -> the rule fitted without it; `part` (n,) as in `Parts`."""
    return {
        int(k): fit_rule(
            strategy, aligned, part != k, replace(search, study_name=f"{search.study_name}/part{k}")
        )
        for k in np.unique(part)
    }


def cross_vote(rules: dict[int, Rule], aligned: Aligned, part: IntArray) -> Votes:
    """Decide every item, (n,), with the rule that was fitted without its part."""
    votes = Votes(np.empty(aligned.label.size), np.empty(aligned.label.size, dtype=np.int64))
    for k, rule in rules.items():
        held = part == k
        values = aligned.values(rule.by)[held] if rule.by else None
        votes.prob[held], votes.pred[held] = vote(rule, aligned.logits[held], values)
    return votes
