"""The one way from items to logits: validation, out-of-fold, test and any folder go through it."""

from collections.abc import Sequence
from typing import NamedTuple, overload

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from src import paths
from src.artifacts.oof import (
    CLEAN,
    MIRRORED,
    NO_FOLD,
    UNREADABLE,
    VIEW_COLUMNS,
    WHOLE,
    Levels,
    delivered,
    split_delivery,
)
from src.compute import ranks
from src.compute.device import inference_precision
from src.compute.memory import Pieces, advised
from src.compute.request import Compute
from src.data.batches.loader import EvalBatches, make_loader
from src.data.pixels.frames import FrameRows
from src.data.pixels.source import PixelSource
from src.ensemble.pooling import pool_frames
from src.inference.engines import Eager, Engine
from src.inference.unfinished import Partial
from src.models.classifier import Classifier
from src.progress import track
from src.texts import Texts

VIEWS = {"none": (WHOLE,), "flip": (WHOLE, WHOLE + MIRRORED)}
WAYS_OUT = (
    "--auto-batch finds how many fit; --precision bf16 (on older cards fp16) needs half, "
    "--device cpu another memory"
)


class Looked(NamedTuple):
    """What models saw of some rows, images or frames."""

    # of each model (n_rows, n_views), of a source that delivers at several levels all views of the
    # first, then those of the second ...; NaN where not `there`
    logits: list[NDArray[np.float64]]
    there: NDArray[np.bool_]  # (n_rows,), which rows could be decoded
    cut: NDArray[np.bool_]  # (n_rows,), which are of a clip that was read only in part


class Seen(NamedTuple):
    """What a model saw in some items."""

    frames: FrameRows  # the rows that were looked at
    logits: NDArray[np.float64]  # (n_rows, n_views), NaN where not `there`
    there: NDArray[np.bool_]  # (n_rows,), which rows could be decoded
    n_items: int  # number of items
    # int64 (n_rows,), whose face each row shows; None where only one is looked at
    person: NDArray[np.int64] | None = None

    @property
    def readable(self) -> NDArray[np.bool_]:
        """Return bool (n_items,): the items of which a frame, at least, could be decoded."""
        return np.bincount(self.frames.place[self.there], minlength=self.n_items) > 0

    def pooled(self, pool: str) -> NDArray[np.float64]:
        """Return float64 (n_items,), NaN for an item that is not readable."""
        item = self.frames.place[self.there]
        return pool_frames(self.logits[self.there].mean(1), item, self.n_items, pool)

    def table(self, ids: Sequence[str], fold: paths.FoldName, views: Sequence[str]) -> pd.DataFrame:
        """Return the predictions, a row an item, frame and view.

        Of a clip's frames `full+flip` becomes `f03+flip`; with several people `full` becomes
        `face0` for the largest, `face1`, and of a clip `f03face0`. An item that could not be read
        has one row and no logit. The fold `all` is written as `NO_FOLD`. `views` name the columns
        of the logits, with the level before each where pictures are delivered (`views_at`).
        """
        number = NO_FOLD if fold == paths.ALL else fold
        tables = []
        for person in [0] if self.person is None else np.unique(self.person).tolist():
            names, rows = views, np.ones(len(self.there), bool)
            if self.person is not None:
                names = [_renamed(view, f"face{person}") for view in views]
                rows = self.person == person
            tables.append(self._rows(rows & self.there, ids, number, names))
            # An item without this person is not one that could not be read.
            items = np.unique(self.frames.place[rows]) if person else np.arange(self.n_items)
            lost = np.setdiff1d(items, self.frames.place[rows & self.there])
            if len(lost):
                unread = {"item_id": _at(ids, lost), "fold": number, "view": UNREADABLE}
                tables.append(pd.DataFrame(unread | {"logit": np.nan}))
        return pd.concat(tables, ignore_index=True)[VIEW_COLUMNS]

    def _rows(
        self,
        rows: NDArray[np.bool_],
        ids: Sequence[str],
        fold: paths.FoldName,
        names: Sequence[str],
    ) -> pd.DataFrame:
        frames, which = np.unique(self.frames.frame[rows], return_inverse=True)
        views = [
            name if frame < 0 else _renamed(name, f"f{frame:02d}")
            for frame in frames.tolist()
            for name in names
        ]
        view = which[:, None] * len(names) + np.arange(len(names))
        return pd.DataFrame(
            {
                "item_id": _at(ids, np.repeat(self.frames.place[rows], len(names))),
                "fold": fold,
                "view": _at(Texts(views), view.reshape(-1)),
                "logit": self.logits[rows].reshape(-1),
            }
        )


def _at(texts: Sequence[str], places: NDArray[np.int64]) -> pd.Series | NDArray[np.object_]:
    """Return a column of the strings at some places."""
    if isinstance(texts, Texts):
        return texts.take(places).column.to_pandas()
    return np.asarray(texts, dtype=object)[places]


def views_at(levels: Levels | None, views: Sequence[str]) -> list[str]:
    """Return the names of what is predicted of a source's pictures, in the logits' order."""
    names = (CLEAN,) if levels is None else levels.names
    return [delivered(level, view) for level in names for view in views]


def _renamed(view: str, start: str) -> str:
    """Return the view with `start` in place of its `full`."""
    level, rest = split_delivery(view)
    return delivered(level, start + rest.removeprefix(WHOLE))


def predict_items(
    model: Classifier | Engine,
    views: Sequence[str],
    source: PixelSource,
    items: NDArray[np.int64],
    compute: Compute,
    *,
    what: str = "",
) -> Seen:
    """Predict items with one model; see `predict_each`."""
    return predict_each([model], [views], source, items, compute, what=what)[0][0]


def predict_shared(
    model: Classifier | Engine,
    views: Sequence[str],
    source: PixelSource,
    items: NDArray[np.int64],
    compute: Compute,
    *,
    what: str = "",
) -> Seen:
    """Predict items with one model, of several ranks each a part of them; all get all."""
    own = items[ranks.own_share().of(len(items))]
    parts = ranks.gathered(predict_items(model, views, source, own, compute, what=what))
    return parts[0] if len(parts) == 1 else _joined(parts)


def _joined(parts: Sequence[Seen]) -> Seen:
    """Return what was seen in several runs of items, one after the other."""
    starts = np.cumsum([0, *(part.n_items for part in parts)])
    frames = [
        part.frames._replace(place=part.frames.place + start)
        for part, start in zip(parts, starts[:-1], strict=True)
    ]
    people = [part.person for part in parts if part.person is not None]
    return Seen(
        FrameRows(*(np.concatenate(column) for column in zip(*frames, strict=True))),
        np.concatenate([part.logits for part in parts]),
        np.concatenate([part.there for part in parts]),
        int(starts[-1]),
        np.concatenate(people) if people else None,
    )


def predict_each(
    models: Sequence[Classifier | Engine],
    views: Sequence[Sequence[str]],
    source: PixelSource,
    items: NDArray[np.int64],
    compute: Compute,
    *,
    what: str = "",
    partial: Partial | None = None,
) -> tuple[list[Seen], NDArray[np.int64]]:
    """Predict every evaluation frame of items of a source in one pass; see `predict_views`.

    Returns:
        What each model saw, of all people where its config says `face.which: all`; and the places
        of the items that are clips read only in part.
    """
    order = source.reading_order(items)
    frames = source.numbers.eval_rows(items[order])
    looked = predict_views(models, views, source, frames.rows, compute, what=what, partial=partial)
    back = np.argsort(order[frames.place], kind="stable")
    frames = FrameRows(frames.rows[back], order[frames.place][back], frames.frame[back])
    looked = Looked(
        [logits[back] for logits in looked.logits], looked.there[back], looked.cut[back]
    )
    found = [Seen(frames, logits, looked.there, len(items)) for logits in looked.logits]
    each = zip(found, models, views, strict=True)
    seen = [_with_everyone(*one, source, items, compute) for one in each]
    return seen, np.unique(frames.place[looked.cut])


def _with_everyone(
    seen: Seen,
    model: Classifier | Engine,
    views: Sequence[str],
    source: PixelSource,
    items: NDArray[np.int64],
    compute: Compute,
) -> Seen:
    """Add what a model sees of the other people, where its config says `face.which: all`."""
    face = model.spec.face
    if face is None or face.which != "all":
        return seen
    count = np.array(source.cuts.count_people(face, [str(source.paths[item]) for item in items]))
    parts = [(seen.frames, seen.logits, seen.there, np.zeros(len(seen.there), np.int64))]
    for person in range(1, max(count, default=0)):
        chosen = np.flatnonzero((count > person) & seen.readable)
        other = source.of_person(person)
        frames = other.numbers.eval_rows(items[chosen])
        looked = predict_views([model], [views], other, frames.rows, compute)
        frames = frames._replace(place=chosen[frames.place])
        whose = np.full(len(looked.there), person)
        parts.append((frames, looked.logits[0], looked.there, whose))
    whole, logits, there, people = zip(*parts, strict=True)
    person = np.concatenate(people)
    place = np.concatenate([frames.place for frames in whole])
    order = np.lexsort((person, place))
    rows = FrameRows(*(np.concatenate(column)[order] for column in zip(*whole, strict=True)))
    table, known = np.concatenate(logits)[order], np.concatenate(there)[order]
    return Seen(rows, table, known, seen.n_items, person[order])


def predict_views(
    models: Sequence[Classifier | Engine],
    views: Sequence[Sequence[str]],
    source: PixelSource,
    rows: NDArray[np.int64],
    compute: Compute,
    *,
    what: str = "",
    partial: Partial | None = None,
) -> Looked:
    """Predict items with several models in one pass; each item is decoded once.

    Args:
        models: models, in any mode, which `compute.precision` runs eagerly; or engines that say
            themselves how they compute.
        views: for each model, the views it takes of an item, at each level that `source` delivers.
        source: pixels, with every model's canvas.
        rows: rows of `source` (`FrameNumbers.eval_rows`; of images the items' own numbers).
        compute: where and how fast.
        what: shown as progress; empty shows none.
        partial: knows the rows that were predicted before, and is told after every batch.

    Raises:
        UserError: memory ran out; says what to do.
    """
    chip, size = compute.chip, compute.batch_size
    source.find_faces()
    precision = inference_precision(chip, compute.precision)
    engines = [
        Eager(model, chip, precision) if isinstance(model, Classifier) else model
        for model in models
    ]
    distinct = list(dict.fromkeys(engine.spec for engine in engines))
    levels = source.n_levels
    pieces = Pieces(size, shrinks=compute.auto_batch, device=chip)
    looks = [(number, view) for number, names in enumerate(views) for view in names]
    own = [[k for k, (who, _) in enumerate(looks) if who == one] for one in range(len(views))]
    table = np.full((len(rows), levels * len(looks)), np.nan)
    there, cut = np.zeros(len(rows), bool), np.zeros(len(rows), bool)
    done = 0 if partial is None else partial.begin(table, there, cut)
    # All levels go through a net together; a clip is not cut, for each part would decode it.
    least = source.numbers.frames.eval if source.numbers.has_clips else 1
    parts = parts_of(source, rows[done:], size if levels == 1 else max(least, size // levels))
    loader = make_loader(
        EvalBatches(source, distinct), parts, compute.processes(len(rows)), pin=chip.type == "cuda"
    )
    largest = max((spec.image_size for spec in distinct), default=0)
    with torch.inference_mode(), advised(chip, pieces.size, largest, WAYS_OUT):
        for batch in track(loader, what, total=len(parts), unit="batch") if what else loader:
            place = slice(done, done + len(batch["item"]))
            done = place.stop
            there[place], cut[place] = batch["readable"].numpy(), batch["cut"].numpy()
            pixels = {
                spec: batch[f"pixels{k}"].to(chip, non_blocking=True)
                for k, spec in enumerate(distinct)
            }
            logits = [
                pieces(engines[number], view_pixels(pixels[engines[number].spec], view))
                for number, view in looks
            ]
            # One copy a batch: each would wait for all that the card still has to do.
            found = torch.stack(logits).double().cpu().numpy().reshape(len(looks), levels, -1)
            table[place] = np.concatenate(
                [found[group].transpose(2, 1, 0).reshape(found.shape[2], -1) for group in own], 1
            )
            if partial is not None:
                partial.after_batch(done)
    table[~there] = np.nan
    ends = np.cumsum([levels * len(names) for names in views])[:-1]
    return Looked(np.split(table, ends, axis=1), there, cut)


def view_pixels(pixels: Tensor, view: str) -> Tensor:
    """Return a view of uint8 (n, s, s, 3) pixels; `+flip` mirrors left and right."""
    return pixels.flip(2) if view.endswith(MIRRORED) else pixels


class Batches(Sequence[list[int]]):
    """Rows in batches, each made into Python's numbers when it is asked for.

    Args:
        rows: int64 (n,).
        cuts: int64 (n_batches + 1,), where each begins, and where the last one ends.
    """

    def __init__(self, rows: NDArray[np.int64], cuts: NDArray[np.int64]) -> None:
        self.rows, self.cuts = rows, cuts

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self.cuts) - 1

    @overload
    def __getitem__(self, number: int) -> list[int]: ...
    @overload
    def __getitem__(self, number: slice) -> "Batches": ...
    def __getitem__(self, number: int | slice) -> "list[int] | Batches":
        """Return the rows of one batch; of a slice, its batches."""
        if isinstance(number, slice):
            first, last, _ = number.indices(len(self))
            return Batches(self.rows, self.cuts[first : max(first, last) + 1])
        begin, end = self.cuts[range(len(self))[number] :][:2]
        return self.rows[begin:end].tolist()


def parts_of(source: PixelSource, rows: NDArray[np.int64], size: int) -> Batches:
    """Return rows in batches of at most `size`; a clip that fits into one is not cut."""
    if not source.numbers.has_clips:
        return Batches(rows, np.append(np.arange(0, len(rows), size), len(rows)))
    items = source.numbers.item_of(rows.tolist())
    ends = np.append(np.flatnonzero(np.diff(items)) + 1, len(rows))  # of the items
    cuts, start = [0], 0
    while start < len(rows):
        last = int(np.searchsorted(ends, start + size, side="right")) - 1
        whole = int(ends[last]) if last >= 0 else 0
        end = whole if whole > start else min(start + size, len(rows))
        cuts.append(end)
        start = end
    return Batches(rows, np.array(cuts))
