"""Items to square uint8 canvases: each file is decoded once, and kept where there is room.

Rows are those of `FrameNumbers`: an image has one, a clip one for each of its frames.
"""

from collections.abc import Iterator, Sequence
from copy import copy
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.config import FramesConfig
from src.data.pixels.cache import ABSENT, Marks, Stored
from src.data.pixels.frames import FrameNumbers
from src.data.pixels.images import Canvas
from src.data.pixels.keeping import keep
from src.data.pixels.reader import Canvases, FaceCuts, ItemReader, Wanted
from src.errors import UnreadableImageError


class Frame(NamedTuple):
    """A frame of an item."""

    # uint8 (size, size, 3) each, in the order of the source's; None where the item cannot be
    # decoded, or its clip is too short to have this frame
    canvases: Canvases | None
    # its file was read only in part, or lies under another kind's name (`describe`)
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
        self._items = ItemReader(root, paths, canvases, frames or FramesConfig())
        self.root, self.paths = self._items.root, self._items.paths
        self.canvases = self._items.canvases
        self._siblings = list(siblings)
        self._kept: list[Stored] | None = None

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self._items)

    @property
    def numbers(self) -> FrameNumbers:
        """Return the numbers of the items' frames."""
        return self._items.numbers

    @property
    def cuts(self) -> FaceCuts:
        """Return what the canvases show of a picture."""
        return self._items.cuts

    @property
    def is_kept(self) -> bool:
        """Tell whether reading an item decodes nothing any more."""
        return self._kept is not None

    @property
    def nbytes(self) -> int:
        """Return how much all canvases take."""
        return self._items.nbytes

    def read(self, item: int) -> Canvases:
        """Return an image's canvases, or those of a clip's middle evaluation frame.

        uint8 (size, size, 3) each, in the order of `canvases`; they may be read-only.

        Raises:
            UnreadableImageError: the item cannot be decoded.
        """
        if self.numbers.is_clip[item]:
            return self._clip(item, lambda held: [held // 2])[0][0]
        return self._image(item)[0]

    def read_or_stop(self, item: int) -> Canvases:
        """Return what `read` does; raises a UserError naming the item that is unreadable."""
        try:
            return self.read(item)
        except UnreadableImageError as error:
            raise self._items.gone(item, error) from None

    def read_eval(self, rows: Sequence[int]) -> Iterator[Frame]:
        """Yield the frames of evaluation rows; a clip is decoded once for rows in a row.

        Nothing is raised for an item that cannot be decoded: its frames have no canvases.
        """
        for item, part in self.numbers.by_item(rows):
            try:
                if self.numbers.is_clip[item]:
                    frames = self._eval_frames(item, part)
                else:
                    frames = [Frame(*self._image(item))] * len(part)
            except UnreadableImageError:
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
        except UnreadableImageError as error:
            raise self._items.gone(item, error) from None

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

    def _image(self, item: int) -> tuple[Canvases, bool]:
        """Return an image's canvases, and whether `describe` has something to say of it."""
        if self._kept is not None:
            row = self.numbers.slot_starts[item]
            return [kept.pixels[kept.rows[row]] for kept in self._kept], False
        return self._items.image(item)

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
        return self._items.clip(item, wanted)

    def with_every_slot(self) -> "PixelSource":
        """Return a source of the same pixels whose evaluation looks at every slot of a clip."""
        other = copy(self)
        other._items = self._items.with_every_slot()
        return other

    def of_person(self, person: int) -> "PixelSource":
        """Return a source that shows another person of the items than the largest; not kept."""
        other = copy(self)
        other._items, other._siblings, other._kept = self._items.of_person(person), [], None
        return other

    def find_faces(self) -> None:
        """Look for the faces of all items, where a canvas shows them and nobody has looked yet.

        Raises:
            UserError: see `FaceBoxes.search`.
        """
        if self._kept is None:
            self._items.find_faces()

    def describe(self, item: int) -> str:
        """Say what is wrong with an item whose frames are `cut`; decodes it again."""
        return self._items.describe(item)

    def marks(self) -> Marks:
        """Return a 64-bit mark of each slot, which changes with its item's path, size or stamp."""
        return self._items.marks()

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
        where, kept = keep(self._items, self._siblings, home, cache)
        if kept is not None:
            self._kept = kept
        return where
