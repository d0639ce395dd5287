"""Items to square uint8 canvases: each file is decoded once, and kept where there is room.

Rows are those of `FrameNumbers`: an image has one, a clip one for each of its frames. What was
decoded is kept on the disk or in memory.
"""

import fcntl
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src.artifacts.oof import Levels
from src.config import FramesConfig
from src.data.items.files import in_shard, read_ahead
from src.data.items.shard_index import places_of
from src.data.pixels.cache import (
    ABSENT,
    Marks,
    NoRoomError,
    Stored,
    begun,
    gb,
    missing_space,
    no_room,
    open_cache,
)
from src.data.pixels.cache_build import build_cache
from src.data.pixels.images import Canvas
from src.data.pixels.reader import Canvases, FaceCuts, ItemReader, Wanted
from src.errors import UnreadableImageError, UserError
from src.machine import available_memory, decoding_threads
from src.mapped import give_back
from src.progress import track
from src.texts import Texts

LOG = logging.getLogger("rvf")
RAM_SHARE = 0.4  # of the memory that is free
OWN_SHARE = 0.02  # of it; so much every process may hold, more only one of them

_CLAIMS: dict[Path, int] = {}  # descriptors, open as long as the process: the lock goes with it


class Frame(NamedTuple):
    """A frame of an item."""

    # uint8 (size, size, 3) each, in the order of the source's; None where the item cannot be
    # decoded, or its clip is too short to have this frame
    canvases: Canvases | None
    # its file was read only in part, or lies under another kind's name (`describe`)
    cut: bool = False


class PixelSource(ItemReader):
    """Canvases of a list of items, which it can keep.

    `siblings` are paths that other runs will want; a cache on disk that is made anew holds them too
    where there is room, so that it serves those runs as well.
    """

    def __init__(
        self,
        root: Path,
        paths: Sequence[str] | pd.Series,
        canvases: Sequence[Canvas],
        siblings: Sequence[str] = (),
        frames: FramesConfig | None = None,
        cuts: FaceCuts | None = None,
        stamps: NDArray[np.int64] | None = None,
    ) -> None:
        super().__init__(root, paths, canvases, frames, cuts, stamps)
        self._siblings = siblings
        self._kept: list[Stored] | None = None
        # items are read nearly in the order of their shards (`sampler: shards`): whole blocks are
        # asked for ahead
        self.in_order = False

    @property
    def is_kept(self) -> bool:
        """Tell whether reading an item decodes nothing any more."""
        return self._kept is not None

    def read(self, item: int) -> Canvases:
        """Return an image's canvases, or those of a clip's middle evaluation frame.

        uint8 (size, size, 3) each, in the order of `canvases`; they may be read-only.

        Raises:
            UnreadableImageError: the item cannot be decoded.
        """
        if self.numbers.is_clip[item]:
            return self.clip(item, lambda held: [held // 2])[0][0]
        return self.image(item)[0]

    def reading_order(self, items: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the places of some items in the order in which they are best read, int64 (n,).

        As they lie, where they are read out of shards; else as they are given.
        """
        if self._kept is None and len(items) and in_shard(str(self.paths[int(items[0])])):
            return np.argsort(places_of(Texts(self.paths).take(items)), kind="stable")
        return np.arange(len(items))

    def read_or_stop(self, item: int) -> Canvases:
        """Return what `read` does; raises a UserError naming the item that is unreadable."""
        return self.slots_or_stop(item, lambda held: [held // 2])[0]

    def read_eval(self, rows: Sequence[int]) -> Iterator[Frame]:
        """Yield the frames of evaluation rows; a clip is decoded once for rows in a row.

        Nothing is raised for an item that cannot be decoded: its frames have no canvases.
        """
        if self._kept is None:
            items = dict.fromkeys(self.numbers.item_of(rows).tolist())
            read_ahead(self.root, (str(self.paths[item]) for item in items), only_elsewhere=True)
        for item, part in self.numbers.by_item(rows):
            try:
                if self.numbers.is_clip[item]:
                    frames = self._eval_frames(item, part)
                else:
                    frames = [Frame(*self.image(item))] * len(part)
            except UnreadableImageError:
                frames = [Frame(None)] * len(part)
            yield from frames

    def _eval_frames(self, item: int, rows: Sequence[int]) -> list[Frame]:
        frames = [row - int(self.numbers.eval_starts[item]) for row in rows]

        def wanted(held: int) -> list[int]:
            slots = self.numbers.eval_slots(held)
            return [int(slots[frame]) for frame in frames if frame < len(slots)]

        drawn, cut = self.clip(item, wanted)
        lacking = [None] * (len(frames) - len(drawn))  # the clip is too short to have them
        return [Frame(one, cut) for one in [*drawn, *lacking]]

    def read_train(self, items: Sequence[int], draws: NDArray[np.float64]) -> Iterator[Canvases]:
        """Yield the canvases of a training frame of each item; they may be read-only.

        `draws`, float64 (n,) in [0, 1), choose among a clip's frames.

        Raises:
            UserError: an item cannot be decoded; names it.
        """
        if self.in_order and self._kept is None:
            read_ahead(self.root, (self.paths[item] for item in items))
        for item, draw in zip(items, draws, strict=True):

            def wanted(held: int, draw: float = draw) -> list[int]:
                slots = self.numbers.train_slots(held)
                return [int(slots[int(draw * len(slots))])]

            yield self.slots_or_stop(item, wanted)[0]

    def stack(
        self, items: Sequence[int], draws: NDArray[np.float64] | None = None, canvas: int = 0
    ) -> NDArray[np.uint8]:
        """Return one canvas of `read_train`, uint8 (n, size, size, 3), a copy.

        Without `draws` a clip gives the first of its frames.

        Raises:
            UserError: an item cannot be decoded; names it.
        """
        if self._kept is not None and not self.numbers.has_clips:
            kept = self._kept[canvas]
            return np.take(kept.pixels, kept.rows[list(items)], axis=0)
        draws = np.zeros(len(items)) if draws is None else draws
        return np.stack([canvases[canvas] for canvases in self.read_train(items, draws)])

    def image(self, item: int) -> tuple[Canvases, bool]:
        """See `ItemReader.image`; what is kept is not decoded."""
        if self._kept is None:
            return super().image(item)
        row = self.numbers.slot_starts[item]
        return [kept.pixels[kept.rows[row]] for kept in self._kept], False

    def clip(self, item: int, wanted: Wanted) -> tuple[list[Canvases], bool]:
        """See `ItemReader.clip`; what is kept is not decoded."""
        if self._kept is None:
            return super().clip(item, wanted)
        start, end = self.numbers.slot_starts[item : item + 2]
        rows = [kept.rows[start:end] for kept in self._kept]
        held = int((rows[0] != ABSENT).sum())
        return [
            [kept.pixels[row[slot]] for kept, row in zip(self._kept, rows, strict=True)]
            for slot in wanted(held)
        ], False

    def of_person(self, person: int) -> Self:
        """Return a source that shows another person of the items than the largest; not kept."""
        other = super().of_person(person)
        other._siblings, other._kept = [], None
        return other

    def delivering(self, levels: Levels) -> Self:
        """See `ItemReader.delivering`; not kept."""
        other = super().delivering(levels)
        other._siblings, other._kept = [], None
        return other

    def find_faces(self) -> None:
        """See `ItemReader.find_faces`; where pixels are kept, nobody looks."""
        if self._kept is None:
            super().find_faces()

    def preload(self, home: Path | None = None, cache: str = "auto") -> str:
        """Decode everything once, onto the disk or into memory; says in the log where and why.

        `home` is the folder of the data set's pixel caches; None keeps nothing on disk. `cache` is
        `disk`, `ram`, `none`, or `auto`: the first of these for which there is room. Returned is
        where the pixels are now; with `none` they are decoded each time they are read.

        Raises:
            UserError: an item cannot be decoded; names it. `disk` or `ram` was asked for, and
                there is no room.
        """
        self._kept = None
        reasons = []
        ways = {
            "disk": lambda: keep_on_disk(self, self._siblings, home),
            "ram": lambda: keep_in_ram(self, home, forced=cache == "ram"),
        }
        for how, way in ways.items():
            if cache in ("auto", how):
                try:
                    self._kept = way()
                    give_back()  # all rows were looked at; from now on those of a batch are
                    return how
                except NoRoomError as error:
                    if cache == how:
                        why = f"--cache {how}: {error}; --cache auto takes what is possible"
                        raise UserError(why) from None
                    reasons.append(str(error))
        self.find_faces()  # before there are loader processes, each of which would look
        why = "; ".join(reasons) or "--cache none"
        if len(self) and in_shard(self.paths[0]) and not self.in_order:
            why += "; `sampler: shards` would read the shards in their order"
        LOG.info("pixels: decoded anew in every epoch (%s)", why)
        give_back()
        return "none"


def keep_on_disk(items: ItemReader, siblings: Sequence[str], home: Path | None) -> list[Stored]:
    """Return the caches on disk of all items, one for each canvas; those that lack are made.

    Raises:
        NoRoomError: there is no folder, or no space on the disk.
        UserError: an item cannot be decoded; names it.
    """
    if home is None or not len(items):
        raise NoRoomError("no folder for a cache")
    rows = int(items.numbers.slot_starts[-1])
    if not any(begun(home, canvas) for canvas in items.canvases):  # then nothing need be looked up
        needs = [3 * canvas.size**2 * rows for canvas in items.canvases]
        if reason := next(filter(None, (no_room(home, need) for need in needs)), ""):
            raise NoRoomError(reason)
    marks = items.marks()
    kept = [open_cache(home, canvas, marks) for canvas in items.canvases]
    lacking = [c for c, found in zip(items.canvases, kept, strict=True) if found is None]
    whole = items
    if lacking and siblings:
        more = Texts(items.paths).with_others(Texts(siblings))
        both = ItemReader(items.root, more, items.canvases, items.numbers.frames, items.cuts)
        wanted = both.marks()
        if not any(missing_space(home, canvas, wanted) for canvas in lacking):
            whole, marks = both, wanted
    for canvas in lacking:
        reason = missing_space(home, canvas, marks)
        if reason:
            raise NoRoomError(reason)
        need = gb(3 * canvas.size**2 * len(marks))
        LOG.info("pixels: %d items of %d px take %s on disk", len(whole), canvas.size, need)
    for number, canvas in enumerate(items.canvases):
        if kept[number] is None:
            kept[number] = _build(whole, home, canvas, marks)
    own = slice(items.numbers.slot_starts[-1])  # siblings come last
    return [Stored(one.pixels, one.rows[own]) for one in kept if one is not None]


def _build(items: ItemReader, home: Path, canvas: Canvas, marks: Marks) -> Stored:
    items.find_faces()
    single = ItemReader(items.root, items.paths, [canvas], items.numbers.frames, items.cuts)
    return build_cache(home, canvas, marks, single.read_slots, items.numbers.slot_starts)


def keep_in_ram(items: ItemReader, home: Path | None, *, forced: bool) -> list[Stored]:
    """Return the pixels of all items, decoded into memory, one array for each canvas.

    Below `home` processes agree on who holds them, unless it is `forced`.

    Raises:
        NoRoomError: they do not fit, or another process holds them.
        UserError: an item cannot be decoded; names it.
    """
    free = available_memory()
    if items.nbytes > RAM_SHARE * free:
        raise NoRoomError(
            f"{gb(items.nbytes)} do not fit into {RAM_SHARE:.0%} of the {gb(free)} of memory"
        )
    if not forced and items.nbytes > OWN_SHARE * free and not _claim(home):
        raise NoRoomError("another process holds these pixels in memory")
    items.find_faces()
    starts = items.numbers.slot_starts
    ram = [np.empty((starts[-1], c.size, c.size, 3), np.uint8) for c in items.canvases]
    rows = np.arange(starts[-1])

    def fill(item: int) -> None:
        start = starts[item]
        drawn = items.slots_or_stop(item)
        rows[start + len(drawn) : starts[item + 1]] = ABSENT
        for place, canvases in enumerate(drawn, start):
            for array, canvas in zip(ram, canvases, strict=True):
                array[place] = canvas

    with decoding_threads() as pool:
        for _ in track(pool.map(fill, range(len(items))), "decoding", total=len(items), unit="img"):
            pass
    for array in ram:
        array.flags.writeable = False  # as a cache on disk is
    return [Stored(array, rows) for array in ram]


def _claim(home: Path | None) -> bool:
    """Tell whether this process may hold a data set in memory: of several at once, one may."""
    if home is None:
        return True
    path = home / "ram.lock"
    if path not in _CLAIMS:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _CLAIMS[path] = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError:  # nowhere to leave a note: each for itself
            return True
    try:
        # Of this process alone: loader processes that outlive it for a moment do not hold it.
        fcntl.lockf(_CLAIMS[path], fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # no locks there
        return True
    return True
