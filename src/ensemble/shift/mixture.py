"""Rows of several conditions in stated shares, to tune on: as if each had its weight.

Nothing that is tuned takes weights of rows, so the shares are made of rows: clean ones repeated,
and of every item some levels drawn, all levels equally often within a class.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.ensemble.align import Aligned
from src.ensemble.crossfit import Parts
from src.ensemble.pooling import Pooled
from src.ensemble.predictions import IntArray, Predictions
from src.ensemble.shift.conditions import (
    CLEAN,
    ROBUSTNESS,
    AllConditions,
    Condition,
)
from src.errors import UserError

HALF = 0.5  # of the rows are clean
OTHER_FOLDS = 1000  # added to the fold numbers of each other scheme: other nets held them out
MOST_ROWS = 60_000  # about; a table of more clean rows than that stands in it once


@dataclass(frozen=True)
class Mixture:
    """Rows to tune on."""

    rows: Aligned  # of all conditions; an item stands in several
    parts: Parts  # those of the clean rows: all rows of a group are in one
    counts: Mapping[str, int]  # rows of `clean`, `robustness` and each other scheme

    def words(self) -> str:
        """Return its shares in words."""
        total = len(self.rows)
        return ", ".join(f"{n / total:.0%} {name} ({n})" for name, n in self.counts.items())


def mix(
    conditions: AllConditions, under: Sequence[str], clean_share: float = HALF, *, seed: int
) -> Mixture:
    """Draw a mixture.

    Args:
        conditions: what there is.
        under: names of what stands beside the clean rows, in equal shares: `robustness`, schemes.
        clean_share: of the rows, 0 <= share < 1.
        seed: of the draws.

    Raises:
        UserError: another share.
    """
    if not 0 <= clean_share < 1:
        raise UserError(f"--clean-share {clean_share}: want 0 or more, and less than 1")
    rng = np.random.default_rng(seed)
    repeats, each = _sizes(len(conditions.clean.rows), conditions, under, clean_share)
    found = {CLEAN: [_repeated(conditions.clean, repeats)]}
    for place, name in enumerate(under, start=1):
        if name == ROBUSTNESS:
            found[name] = _at_levels(conditions, each, rng)
        else:
            rows, part = _filled(conditions.schemes[name], each, rng)
            fold = rows.fold + place * OTHER_FOLDS
            found[name] = [Condition(replace(rows, fold=fold), part)]
    tables = [one for many in found.values() for one in many]
    part = np.concatenate([one.part for one in tables])
    counts = {name: sum(len(one.rows) for one in many) for name, many in found.items()}
    note = f"{conditions.note}, with an item all that stands for it"
    return Mixture(_stack([one.rows for one in tables]), Parts(part, note), counts)


def _sizes(
    n: int, conditions: AllConditions, under: Sequence[str], share: float
) -> tuple[int, int]:
    """Return how often the clean rows stand in a mixture, and the rows of each thing beside them.

    As many as `MOST_ROWS` allows, and no more than show every level of every item once.
    """
    most = len(conditions.levels) if ROBUSTNESS in under else 1
    if share == 0:
        return 0, max(n, min(n * most, MOST_ROWS // len(under)))
    beside = (1 - share) / share / len(under)  # rows of each, for one clean row
    repeats = max(1, min(int(MOST_ROWS * share) // n, int(np.ceil(most / beside))))
    return repeats, max(1, round(n * repeats * beside))


def _repeated(condition: Condition, times: int) -> Condition:
    rows = np.tile(np.arange(len(condition.rows)), times)
    return Condition(condition.rows.take(rows), condition.part[rows])


def _filled(condition: Condition, count: int, rng: np.random.Generator) -> Condition:
    """Return `count` rows: all as often as they go in, and of them a draw for the rest."""
    n = len(condition.rows)
    drawn = rng.choice(n, count % n, replace=False)
    rows = np.concatenate([np.tile(np.arange(n), count // n), np.sort(drawn)])
    return Condition(condition.rows.take(rows), condition.part[rows])


def _at_levels(conditions: AllConditions, count: int, rng: np.random.Generator) -> list[Condition]:
    """Return `count` rows, every item and every level equally often, as far as that goes."""
    item, level = draw_levels(conditions.clean.rows.label, count, len(conditions.levels), rng)
    found = []
    for place, (rows, part) in enumerate(conditions.levels.values()):
        some = np.sort(item[level == place])
        found.append(Condition(rows.take(some), part[some]))
    return found


def draw_levels(
    label: IntArray, count: int, n_levels: int, rng: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Draw pairs of an item and a level, each pair once before any comes twice.

    Args:
        label: (n,) 0/1 of the items.
        count: pairs.
        n_levels: their number.
        rng: what draws.

    Returns:
        (count,) places of items and (count,) places of levels. In every n pairs that follow each
        other all items come once, and of a class each level as often as any other, but for one.
    """
    n = label.size
    rank, spread = np.empty(n, dtype=np.intp), np.empty(n)
    for one in np.unique(label):
        here = rng.permutation(np.flatnonzero(label == one))
        rank[here] = np.arange(here.size)
        spread[here] = (np.arange(here.size) + 0.5) / here.size
    order = np.argsort(spread, kind="stable")  # any beginning of it holds both classes alike
    turns = rng.permutation(n_levels)
    times = -(-count // n)
    item = np.tile(order, times)
    level = np.concatenate([(rank[order] + turns[k % n_levels]) % n_levels for k in range(times)])
    return item[:count], level[:count]


def _stack(tables: Sequence[Aligned]) -> Aligned:
    """Put tables of the same members below each other."""
    first = tables[0]
    columns: dict[str, Any] = {
        name: np.concatenate([getattr(table, name) for table in tables])
        for name in Predictions.__dataclass_fields__
    }
    shared = [p for p in first.pooled.logits if all(p in t.pooled.logits for t in tables)]
    logits = {pool: np.concatenate([t.pooled.logits[pool] for t in tables]) for pool in shared}
    pooled = Pooled(first.pooled.defaults, logits) if shared else Pooled()
    return replace(first, **columns, pooled=pooled)
