"""Items to square uint8 canvases: each file is decoded once, and kept where there is room.

Rows are those of `FrameNumbers`: an image has one, a clip one for each of its frames.
"""

import fcntl
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from src.config import FramesConfig
from src.data import images
from src.data.cache import ABSENT, Marks, Stored, gb, mark_items, missing_space, open_cache
from src.data.cache_build import Spans, build_cache, decoding_threads
from src.data.clips import NAMED_AS_IMAGE, is_clip, middle_frame, read_clip
from src.data.face_boxes import FaceCuts
from src.data.frames import FrameNumbers
from src.data.images import Canvas
from src.data.sources import read_bytes, stamp_of
from src.errors import UserError
from src.machine import available_memory
from src.progress import track

LOG = logging.getLogger("rvf")
RAM_SHARE = 0.4  # of the memory that is free
OWN_SHARE = 0.02  # of it; so much every process may hold, more only one of them

cv2.setNumThreads(1)  # parallelism lies in workers and torch; nested pools slow both

Canvases = list[NDArray[np.uint8]]

_CLAIMS: dict[Path, int] = {}  # descriptors, open as long as the process: the lock goes with it


Wanted = Callable[[int], Sequence[int]]


class Frame(NamedTuple):
    """A frame of an item.

    Attributes:
        canvases: uint8 (size, size, 3) each, in the order of the source's; None where the item
            cannot be decoded, or its clip is too short to have this frame.
        cut: its clip was read only in part (`Clip.problem`), or lies under an image's name.
    """

    canvases: Canvases | None
    cut: bool = False


class PixelSource:
    """Canvases of a list of items.

    Args:
        root: folder of the data set.
        paths: manifest paths of the items, in the order of their row numbers.
        canvases: the distinct canvases wanted of each item.
        siblings: paths that other runs will want; a cache on disk that is made anew holds them
            too where there is room, so that it serves those runs as well.
        frames: what is seen of clips.
    """

    def __init__(
        self,
        root: Path,
        paths: Sequence[str],
        canvases: Sequence[Canvas],
        siblings: Sequence[str] = (),
        frames: FramesConfig | None = None,
    ) -> None:
        self.root = root
        self.paths = list(paths)
        self.canvases = list(dict.fromkeys(canvases))
        self.numbers = FrameNumbers(self.paths, frames or FramesConfig())
        self.cuts = FaceCuts(root, self.canvases, self.numbers.frames)
        self._siblings = list(siblings)
        self._kept: list[Stored] | None = None

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.paths)

    @property
    def is_kept(self) -> bool:
        """Tell whether reading an item decodes nothing any more."""
        return self._kept is not None

    @property
    def nbytes(self) -> int:
        """Return how much all canvases take."""
        each = sum(3 * canvas.size**2 for canvas in self.canvases)
        return each * int(self.numbers.slot_starts[-1])

    def read(self, item: int) -> Canvases:
        """Return an image's canvases, or those of a clip's middle evaluation frame.

        uint8 (size, size, 3) each, in the order of `canvases`; they may be read-only.

        Raises:
            UnreadableImageError: the item cannot be decoded.
        """
        if self.numbers.is_clip[item]:
            return self._clip(item, lambda held: [held // 2])[0][0]
        if self._kept is not None:
            row = self.numbers.slot_starts[item]
            return [kept.pixels[kept.rows[row]] for kept in self._kept]
        return self._image(item)[0]

    def read_or_stop(self, item: int) -> Canvases:
        """Return what `read` does; raises a UserError naming the item that is unreadable."""
        try:
            return self.read(item)
        except images.UnreadableImageError as error:
            raise self._gone(item, error) from None

    def read_eval(self, rows: Sequence[int]) -> Iterator[Frame]:
        """Yield the frames of evaluation rows; a clip is decoded once for rows in a row.

        Nothing is raised for an item that cannot be decoded: its frames have no canvases.
        """
        for item, part in self._by_item(rows, slots=False):
            try:
                if self.numbers.is_clip[item]:
                    frames = self._eval_frames(item, part)
                else:
                    kept = self._kept is not None
                    frame = Frame(self.read(item)) if kept else Frame(*self._image(item))
                    frames = [frame] * len(part)
            except images.UnreadableImageError:
                frames = [Frame(None)] * len(part)
            yield from frames

    def _eval_frames(self, item: int, rows: Sequence[int]) -> list[Frame]:
        """Return evaluation frames of a clip; None for those that it is too short to have."""
        frames = [row - int(self.numbers.eval_starts[item]) for row in rows]

        def wanted(held: int) -> list[int]:
            slots = self.numbers.eval_slots(held)
            return [int(slots[frame]) for frame in frames if frame < len(slots)]

        drawn, cut = self._clip(item, wanted)
        missing = [None] * (len(frames) - len(drawn))
        return [Frame(one, cut) for one in [*drawn, *missing]]

    def read_train(self, items: Sequence[int], draws: NDArray[np.float64]) -> Iterator[Canvases]:
        """Yield the canvases of a training frame of each item; they may be read-only.

        Args:
            items: row numbers.
            draws: float64 (n,) in [0, 1), which choose among a clip's frames.

        Raises:
            UserError: an item cannot be decoded; names it.
        """
        for item, draw in zip(items, draws, strict=True):
            clip = self.numbers.is_clip[item]
            yield self._train_frame(item, draw) if clip else self.read_or_stop(item)

    def _train_frame(self, item: int, draw: float) -> Canvases:
        def wanted(held: int) -> list[int]:
            slots = self.numbers.train_slots(held)
            return [int(slots[int(draw * len(slots))])]

        try:
            return self._clip(item, wanted)[0][0]
        except images.UnreadableImageError as error:
            raise self._gone(item, error) from None

    def stack(
        self, items: Sequence[int], draws: NDArray[np.float64] | None = None
    ) -> NDArray[np.uint8]:
        """Return the first canvas of `read_train`, uint8 (n, size, size, 3), a copy.

        Without `draws` a clip gives the first of its frames.

        Raises:
            UserError: an item cannot be decoded; names it.
        """
        if self._kept is not None and not self.numbers.has_clips:
            kept = self._kept[0]
            return np.take(kept.pixels, kept.rows[list(items)], axis=0)
        draws = np.zeros(len(items)) if draws is None else draws
        return np.stack([canvases[0] for canvases in self.read_train(items, draws)])

    def _clip(self, item: int, wanted: Wanted) -> tuple[list[Canvases], bool]:
        """Return some of the frames that a clip has, and whether it was read only in part.

        Args:
            item: its row number.
            wanted: how many slots the clip has, 1 or more -> which of them are wanted, ascending.
        """
        if self._kept is not None:
            start, end = self.numbers.slot_starts[item : item + 2]
            rows = [kept.rows[start:end] for kept in self._kept]
            held = int((rows[0] != ABSENT).sum())
            return [
                [kept.pixels[row[slot]] for kept, row in zip(self._kept, rows, strict=True)]
                for slot in wanted(held)
            ], False
        clip = read_clip(
            self.root, self.paths[item], self.numbers.slots, pick=wanted,
            convert=partial(self._draw_frame, self.paths[item]),
            decoder=self.numbers.frames.decoder,
        )  # fmt: skip
        return clip.frames, bool(clip.problem)

    def _draw_frame(self, path: str, picture: NDArray[np.uint8], number: int) -> Canvases:
        cut = self.cuts.cut
        return [canvas.draw(cut(path, number, canvas, picture)) for canvas in self.canvases]

    def _image(self, item: int) -> tuple[Canvases, bool]:
        """Return an image's canvases, and whether it is a clip under an image's name."""
        data = read_bytes(self.root, self.paths[item])
        try:
            cut = partial(self.cuts.cut, self.paths[item], 0)
            return images.make_canvases(data, self.canvases, cut), False
        except images.UnreadableImageError:
            if not is_clip(data):
                raise
            return self._draw_frame(self.paths[item], middle_frame(data), 0), True

    def _read_slots(self, rows: Sequence[int]) -> list[NDArray[np.uint8] | None]:
        """Return the first canvas of slots; None for those that a clip is too short to have."""
        found: list[NDArray[np.uint8] | None] = []
        for item, part in self._by_item(rows, slots=True):
            if not self.numbers.is_clip[item]:
                found += [self.read_or_stop(item)[0]] * len(part)
                continue
            slots = [row - int(self.numbers.slot_starts[item]) for row in part]

            def wanted(held: int, slots: list[int] = slots) -> list[int]:
                return [slot for slot in slots if slot < held]

            try:
                drawn = [canvases[0] for canvases in self._clip(item, wanted)[0]]
            except images.UnreadableImageError as error:
                raise self._gone(item, error) from None
            found += [*drawn, *[None] * (len(part) - len(drawn))]
        return found

    def _by_item(self, rows: Sequence[int], *, slots: bool) -> Iterator[tuple[int, list[int]]]:
        items = self.numbers.item_of(rows, slots=slots).tolist()
        for item, part in groupby(zip(items, rows, strict=True), key=lambda pair: pair[0]):
            yield item, [row for _, row in part]

    def _gone(self, item: int, error: Exception) -> UserError:
        return UserError(
            f"{self.root / self.paths[item]}: {error}; it was readable when the folds were "
            "made: put the file back"
        )

    def with_every_slot(self) -> "PixelSource":
        """Return a source of the same pixels whose evaluation looks at every slot of a clip."""
        slots = self.numbers.slots
        frames = replace(self.numbers.frames, train=slots, eval=slots)
        other = PixelSource(self.root, self.paths, self.canvases, self._siblings, frames)
        other._kept, other.cuts = self._kept, self.cuts
        return other

    def of_person(self, person: int) -> "PixelSource":
        """Return a source that shows another person of the items than the largest; not kept."""
        other = PixelSource(self.root, self.paths, self.canvases, frames=self.numbers.frames)
        other.cuts = self.cuts.of_person(person)
        return other

    def find_faces(self) -> None:
        """Look for the faces of all items, where a canvas shows them and nobody has looked yet.

        Raises:
            UserError: see `FaceBoxes.search`.
        """
        if self._kept is None:
            self.cuts.search(self.paths)

    def describe(self, item: int) -> str:
        """Say what is wrong with an item whose frames are `cut`; decodes a clip again."""
        if not self.numbers.is_clip[item]:
            return NAMED_AS_IMAGE
        return read_clip(
            self.root, self.paths[item], 1, convert=lambda *_: None,
            decoder=self.numbers.frames.decoder,
        ).problem  # fmt: skip

    def preload(self, home: Path | None = None, cache: str = "auto") -> str:
        """Decode everything once, onto the disk or into memory; says in the log where and why.

        Args:
            home: folder of the data set's pixel caches; None keeps nothing on disk.
            cache: `disk`, `ram`, `none`, or `auto`: the first of these for which there is room.

        Returns:
            Where the pixels are now: `disk`, `ram`, or `none` (decoded each time they are read).

        Raises:
            UserError: an item cannot be decoded; names it. `disk` or `ram` was asked for, and
                there is no room.
        """
        reasons = []
        ways = {
            "disk": lambda: self._keep_on_disk(home),
            "ram": lambda: self._keep_in_ram(home, forced=cache == "ram"),
        }
        for how, keep in ways.items():
            if cache in ("auto", how):
                reason = keep()
                if not reason:
                    return how
                reasons.append(reason)
                if cache == how:
                    raise UserError(f"--cache {how}: {reason}; --cache auto takes what is possible")
        self.find_faces()  # before there are loader processes, each of which would look
        why = "; ".join(reasons) or "--cache none"
        LOG.info("pixels: decoded anew in every epoch (%s)", why)
        return "none"

    def _keep_on_disk(self, home: Path | None) -> str:
        if home is None or not len(self):
            return "no folder for a cache"
        marks = self.marks()
        kept = [open_cache(home, canvas, marks) for canvas in self.canvases]
        lacking = [c for c, found in zip(self.canvases, kept, strict=True) if found is None]
        whole = self
        if lacking and self._siblings:
            mine = set(self.paths)
            more = [*self.paths, *(path for path in self._siblings if path not in mine)]
            both = PixelSource(self.root, more, self.canvases, frames=self.numbers.frames)
            both.cuts = self.cuts
            wanted = both.marks()
            if not any(missing_space(home, canvas, wanted) for canvas in lacking):
                whole, marks = both, wanted
        for canvas in lacking:
            reason = missing_space(home, canvas, marks)
            if reason:
                return reason
            need = gb(3 * canvas.size**2 * len(marks))
            LOG.info("pixels: %d items of %d px take %s on disk", len(whole), canvas.size, need)
        for number, canvas in enumerate(self.canvases):
            if kept[number] is None:
                try:
                    kept[number] = whole.build(home, canvas, marks)
                except OSError as error:
                    return f"the pixel cache could not be written ({error})"
        own = slice(self.numbers.slot_starts[-1])  # siblings come last
        self._kept = [Stored(one.pixels, one.rows[own]) for one in kept if one is not None]
        return ""

    def build(self, home: Path, canvas: Canvas, marks: Marks) -> Stored:
        """Make the cache of one canvas of all items; see `build_cache`."""
        self.find_faces()
        single = PixelSource(self.root, self.paths, [canvas], frames=self.numbers.frames)
        single.cuts = self.cuts
        spans = None
        if self.numbers.has_clips:
            spans = Spans(self.numbers.slot_starts, single._read_slots)
        return build_cache(home, canvas, marks, lambda item: single.read_or_stop(item)[0], spans)

    def marks(self) -> Marks:
        """Return a 64-bit mark of each slot, which changes with its item's path, size or stamp."""
        stamps = ((*stamp_of(self.root, p), *self.cuts.stamp(p)) for p in self.paths)
        if not self.numbers.has_clips:
            return mark_items(self.paths, stamps)
        slots, decoder = self.numbers.slots, self.numbers.frames.decoder
        named: list[tuple[str, tuple[int, ...]]] = []
        for path, stamp, clip in zip(self.paths, stamps, self.numbers.is_clip, strict=True):
            if clip:  # a frame's place depends on how many there are
                named += [(f"{path}\0{k}/{slots} {decoder}", stamp) for k in range(slots)]
            else:
                named.append((path, stamp))
        return mark_items((name for name, _ in named), (stamp for _, stamp in named))

    def _keep_in_ram(self, home: Path | None, *, forced: bool) -> str:
        free = available_memory()
        if self.nbytes > RAM_SHARE * free:
            return f"{gb(self.nbytes)} do not fit into {RAM_SHARE:.0%} of the {gb(free)} of memory"
        if not forced and self.nbytes > OWN_SHARE * free and not _claim(home):
            return "another process holds these pixels in memory"
        self.find_faces()
        starts = self.numbers.slot_starts
        ram = [np.empty((starts[-1], c.size, c.size, 3), np.uint8) for c in self.canvases]
        rows = np.arange(starts[-1])

        def fill(item: int) -> None:
            start = starts[item]
            drawn = [self.read_or_stop(item)] if not clip[item] else self._all_slots(item)
            rows[start + len(drawn) : starts[item + 1]] = ABSENT
            for place, canvases in enumerate(drawn, start):
                for array, canvas in zip(ram, canvases, strict=True):
                    array[place] = canvas

        clip = self.numbers.is_clip.tolist()
        with decoding_threads() as pool:
            for _ in track(
                pool.map(fill, range(len(self))), "decoding", total=len(self), unit="img"
            ):
                pass
        for array in ram:
            array.flags.writeable = False  # as a cache on disk is
        self._kept = [Stored(array, rows) for array in ram]
        return ""

    def _all_slots(self, item: int) -> list[Canvases]:
        try:
            return self._clip(item, range)[0]
        except images.UnreadableImageError as error:
            raise self._gone(item, error) from None


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
    except OSError:
        return True
    return True
