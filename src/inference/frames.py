"""Predictions of frames, put together as items."""

import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src import paths
from src.artifacts.oof import WHOLE
from src.compute.request import Compute
from src.config import READING
from src.data.pixels.frames import FrameRows
from src.data.pixels.source import PixelSource
from src.ensemble.pooling import pool_frames
from src.inference.engines import Engine
from src.inference.predict import predict_views
from src.inference.stored import view_rows
from src.models.classifier import Classifier

LOG = logging.getLogger("rvf")


class Seen(NamedTuple):
    """What a model saw in some items."""

    frames: FrameRows  # the rows that were looked at
    logits: NDArray[np.float64]  # float64 (n_rows, n_views), NaN where not `there`
    there: NDArray[np.bool_]  # bool (n_rows,), which rows could be decoded
    n_items: int  # number of items
    # int64 (n_rows,), whose face each row shows; None where only one is looked at
    person: NDArray[np.int64] | None = None

    @property
    def readable(self) -> NDArray[np.bool_]:
        """Return bool (n_items,): the items of which a frame, at least, could be decoded."""
        return any_by_item(self.frames, self.there, self.n_items)

    def pooled(self, pool: str) -> NDArray[np.float64]:
        """Return float64 (n_items,), NaN for an item that is not readable."""
        item = self.frames.place[self.there]
        return pool_frames(self.logits[self.there].mean(1), item, self.n_items, pool)

    def table(self, ids: Sequence[str], fold: paths.FoldName, views: Sequence[str]) -> pd.DataFrame:
        """Return the predictions, a row an item, frame and view; see `view_rows`.

        With several people, `full` becomes `face0` for the largest, `face1`; of a clip, `f03face0`.
        """
        if self.person is None:
            place, frame = self.frames.place, self.frames.frame
            return view_rows(ids, fold, list(views), self.logits, self.there, place, frame)
        tables = []
        for person in np.unique(self.person):
            rows = self.person == person
            place = self.frames.place[rows]
            # An item without this person is not one that could not be read.
            items = np.arange(self.n_items) if person == 0 else np.unique(place)
            names = [f"face{person}{view.removeprefix(WHOLE)}" for view in views]
            tables.append(
                view_rows(
                    [ids[item] for item in items.tolist()], fold, names, self.logits[rows],
                    self.there[rows], np.searchsorted(items, place), self.frames.frame[rows],
                )
            )  # fmt: skip
        return pd.concat(tables, ignore_index=True)


def any_by_item(frames: FrameRows, flags: NDArray[np.bool_], n_items: int) -> NDArray[np.bool_]:
    """Return bool (n_items,): whether a flag, (n_rows,), is set for any row of an item."""
    return np.bincount(frames.place[flags], minlength=n_items) > 0


def predict_items(
    model: Classifier | Engine,
    views: Sequence[str],
    source: PixelSource,
    items: NDArray[np.int64],
    compute: Compute,
    *,
    what: str = "",
) -> Seen:
    """Predict items with one model: every evaluation frame of each; see `predict_views`."""
    frames = source.numbers.eval_rows(items)
    logits, there = predict_views([model], [views], source, frames.rows, compute, what=what)
    return with_everyone(
        Seen(frames, logits[0], there, len(items)), model, views, source, items, compute
    )


def with_everyone(
    seen: Seen,
    model: Classifier | Engine,
    views: Sequence[str],
    source: PixelSource,
    items: NDArray[np.int64],
    compute: Compute,
) -> Seen:
    """Add what a model sees of the other people, where its config says `face.which: all`.

    Args:
        seen: of the largest person of each item.
        model, views, source, items, compute: that it was seen with.
    """
    face = model.spec.face
    if face is None or face.which != "all":
        return seen
    count = np.array(source.cuts.count_people(face, [source.paths[item] for item in items]))
    parts = [(seen.frames, seen.logits, seen.there, np.zeros(len(seen.there), np.int64))]
    for person in range(1, max(count, default=0)):
        chosen = np.flatnonzero((count > person) & seen.readable)
        other = source.of_person(person)
        frames = other.numbers.eval_rows(items[chosen])
        logits, there = predict_views([model], [views], other, frames.rows, compute)
        frames = frames._replace(place=chosen[frames.place])
        parts.append((frames, logits[0], there, np.full(len(there), person)))
    whole, logits, there, people = zip(*parts, strict=True)
    person = np.concatenate(people)
    place = np.concatenate([frames.place for frames in whole])
    order = np.lexsort((person, place))
    rows = FrameRows(*(np.concatenate(column)[order] for column in zip(*whole, strict=True)))
    table, known = np.concatenate(logits)[order], np.concatenate(there)[order]
    return Seen(rows, table, known, seen.n_items, person[order])


def warn_of_reading(engines: Sequence[Engine], source: PixelSource) -> None:
    """Say in one line that models were trained on clips that another reading showed them."""
    old = sum(engine.spec.reading != READING for engine in engines)
    if old and source.numbers.has_clips:
        LOG.warning(
            "%d of %d checkpoints saw clips as an earlier version read them: what is interlaced, "
            "mirrored, HLG, PQ or of wide colours may look different now; train again to be sure",
            old, len(engines),
        )  # fmt: skip


def note_cut(
    source: PixelSource, frames: FrameRows, cut: NDArray[np.bool_], ids: Sequence[str]
) -> dict[str, str]:
    """Return what is wrong with clips read only in part or named otherwise, by item_id."""
    places = np.unique(frames.place[cut])
    return {str(ids[place]): source.describe(int(place)) for place in places}
