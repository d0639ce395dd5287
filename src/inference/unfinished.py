"""Predictions that do not come to their end.

The rows of a pass that was stopped are kept, so that another call goes on there; and whether a pass
will end in time is measured on its first batches.
"""

import json
import logging
import time
import zipfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.artifacts.atomic import atomic_path
from src.artifacts.recipes import Recipe
from src.compute.clock import Clock, in_words
from src.ensemble.extra import is_extra
from src.inference.stored import ItemsToPredict, Part

LOG = logging.getLogger("rvf")
EVERY_SECONDS = 60.0
COST_SHARE = 50  # a save is not repeated before this many times its own length has passed
KEPT = ("logits", "readable", "cut")  # of each row: float64 (n_views,), and two flags
WARM_UP = 2  # batches not measured: loader processes start, kernels are chosen
MEASURED = 4  # batches before the first verdict
MEASURED_SECONDS = 5.0  # and at least so long, unless the pass is shorter
LONG_SECONDS = 30.0  # after which one measured batch is enough
VOTING_SECONDS = 10.0  # kept back for reading, voting and writing
SAFETY = 1.05


class Partial:
    """The rows of a pass that are done, one file a checkpoint in `.cache/`.

    Args:
        parts, items: the checkpoints of the pass, and what they look at.
        views: of each checkpoint.
        marks: returns for each whatever must agree for rows to count (items, precision, batch
            size) as it is known by now; None as long as it is not, and then no rows count.
        on_batch: told after every batch how many rows are done, of how many; may raise to end the
            pass.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        items: ItemsToPredict,
        views: Sequence[Sequence[str]],
        marks: Callable[[], Sequence[dict[str, str] | None]],
        on_batch: Callable[[int, int], None] = lambda *_: None,
    ) -> None:
        self.parts, self.views, self.marks, self.on_batch = parts, views, marks, on_batch
        self.files = [part.unfinished(items) for part in parts]
        self.done = 0
        self.there = [("", 0)] * len(parts)  # mark and rows of each file at the beginning
        self.saved, self.cost = time.monotonic(), 0.0

    def begun(self) -> list[dict[str, Any]]:
        """Return by what means the rows of each checkpoint were made that are there already."""
        return [_read_mark(file) for file in self.files]

    def begin(
        self, table: NDArray[np.float64], readable: NDArray[np.bool_], cut: NDArray[np.bool_]
    ) -> int:
        """Fill in the first rows that all checkpoints have, and return how many.

        `table`, (n_rows, all views side by side), `readable` and `cut`, (n_rows,), are where the
        rest will be.
        """
        ends = np.cumsum([len(names) for names in self.views])[:-1]
        self.rows = [(logits, readable, cut) for logits in np.split(table, ends, axis=1)]
        found = [_read(file, *rows) for file, rows in zip(self.files, self.rows, strict=True)]
        self.there = [(mark, len(rows[0])) for mark, rows in found]
        same = zip(self.there, self._marks(), strict=True)
        self.done = min((count if held == mark else 0 for (held, count), mark in same), default=0)
        for rows, (_, known) in zip(self.rows, found, strict=True):
            for column, values in zip(rows, known, strict=True):
                column[: self.done] = values[: self.done]
        return self.done

    def after_batch(self, done: int) -> None:
        """Take note of the rows that are done; saves now and then."""
        self.done = done
        if time.monotonic() - self.saved > max(EVERY_SECONDS, COST_SHARE * self.cost):
            self.save()
        self.on_batch(done, len(self.rows[0][0]))

    def save(self) -> None:
        """Write the rows that are done; a file that has more of the same ones is left alone."""
        if not self.done:
            return
        began = time.monotonic()
        each = zip(self.files, self._marks(), self.rows, self.there, strict=True)
        for file, mark, rows, (held, count) in each:
            if mark is None or (held == mark and count > self.done):
                continue
            named = zip(KEPT, rows, strict=True)
            done: dict[str, Any] = {key: column[: self.done] for key, column in named}
            with atomic_path(file) as temporary, temporary.open("wb") as stream:
                np.savez(stream, mark=mark, **done)
        self.saved = time.monotonic()
        self.cost = self.saved - began

    def discard(self) -> None:
        """Take the files away: what they held is written where it belongs."""
        for file in self.files:
            file.unlink(missing_ok=True)

    def _marks(self) -> list[str | None]:
        each = zip(self.marks(), self.parts, self.views, strict=True)
        return [
            None
            if mark is None
            else json.dumps(mark | {"checkpoint": part.checkpoint_sha256, "views": list(names)})
            for mark, part, names in each
        ]


def _read(file: Path, *like: NDArray[Any]) -> tuple[str, list[NDArray[Any]]]:
    """Return the mark and the rows of a file, none where they are not first rows of such arrays."""
    with suppress(Exception):  # absent or damaged, in whatever way: predicted again
        # An array whose header says too few bytes would be read without its checksum.
        with zipfile.ZipFile(file) as archive:
            sound = archive.testzip() is None
        with np.load(file, allow_pickle=False) as content:
            mark, rows = str(content["mark"]), [content[key] for key in KEPT]
        kinds = [(array.dtype, array[: len(rows[0])].shape) for array in like]
        if sound and [(array.dtype, array.shape) for array in rows] == kinds:
            return mark, rows
    return "", [array[:0] for array in like]


def _read_mark(file: Path) -> dict[str, Any]:
    """Return what the rows of a file must agree in; empty where there are none."""
    with suppress(Exception):  # absent or damaged, in whatever way: predicted again
        with np.load(file, allow_pickle=False) as content:
            mark = json.loads(str(content["mark"]))
        return mark if isinstance(mark, dict) else {}
    return {}


class TooSlowError(Exception):
    """A prediction would not end in time: it needs so many seconds from now, and has so many."""

    def __init__(self, needed: float, left: float) -> None:
        super().__init__(f"needs {in_words(needed)}, {in_words(left)} left")
        self.needed, self.left = needed, left
        self.finished: list[Part] = []  # checkpoints whose predictions were written before


class Pace:
    """Measures a pass over the items and raises `TooSlowError` where it would not end in time.

    Told after every batch how many items of all passes are done. Says once what the whole will
    take; the first verdict holds, unless `keep_watching` and the pass becomes slower than it began.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        keep_watching: bool = False,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock, self.keep_watching, self.now = clock, keep_watching, now
        self.batches = 0
        self.first = (0, 0.0)  # items and time when the warm-up was over
        self.said = False

    def __call__(self, done: int, total: int) -> None:
        """Take note of `done` items of `total`."""
        self.batches += 1
        if done >= total:
            return  # too late for any verdict
        if self.batches <= WARM_UP:
            self.first = (done, self.now())
            return
        items, seconds = done - self.first[0], self.now() - self.first[1]
        few = self.batches < WARM_UP + MEASURED or seconds < MEASURED_SECONDS
        if not self.said and few and seconds < LONG_SECONDS:
            return
        needed = SAFETY * (total - done) * seconds / items
        left = self.clock.left() - VOTING_SECONDS
        if needed > left and (self.keep_watching or not self.said):
            raise TooSlowError(needed, max(0.0, left))
        if not self.said:
            self.said = True
            LOG.info(
                "%.1f items/s: the rest takes about %s, of --max-hours %s are left",
                items / seconds, in_words(needed), in_words(max(0.0, left)),
            )  # fmt: skip


def fitting_parts(
    recipe: Recipe, missing: Sequence[Part], costs: Sequence[float], room: float
) -> list[Part]:
    """Return the checkpoints that are still predicted with, where not all fit into the time.

    Members of the lowest weight go first (of equal ones, the one that takes longer), each with
    all its missing folds; of the last one that is left, folds go from the last one on. Folds that
    were predicted before cost nothing and stay. Costs and room are in any one unit.
    """
    weights = {member.model: abs(member.weight) for member in recipe.members}
    cost, kept = dict(zip(missing, costs, strict=True)), list(missing)
    whole: dict[str, float] = defaultdict(float)
    for part in missing:
        whole[part.model] += cost[part]
    for model in sorted(whole, key=lambda model: (weights[model], -whole[model]))[:-1]:
        if sum(cost[part] for part in kept) <= room:
            return kept
        kept = [part for part in kept if part.model != model]
    while kept and sum(cost[part] for part in kept) > room:
        kept.pop()
    return kept


def without(recipe: Recipe, parts: Sequence[Part]) -> Recipe:
    """Return the recipe in which members without any checkpoint among `parts` weigh nothing.

    Extra members, which have no checkpoints, stay. The coefficients of a stack are scaled up, for
    they are not brought to sum 1 when it votes.
    """
    models = {part.model for part in parts}
    weights = [
        member.weight
        if member.model in models or is_extra(recipe.dataset, recipe.scheme, member.model)
        else 0.0
        for member in recipe.members
    ]
    rest = sum(map(abs, weights))
    scale = 1.0
    if recipe.is_stack and rest > 0:
        scale = sum(abs(member.weight) for member in recipe.members) / rest
    members = [
        replace(member, weight=weight * scale)
        for member, weight in zip(recipe.members, weights, strict=True)
    ]
    return replace(recipe, members=members)
