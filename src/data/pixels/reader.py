"""One item at a time to square uint8 canvases: an image, frames of a clip, their face crops.

What canvases show of a picture: all of it, or a face.
"""

from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from src.config import READING, FaceConfig, FramesConfig
from src.data.items.files import read_bytes, stamp_of
from src.data.pixels import images
from src.data.pixels.cache import Marks, mark_items
from src.data.pixels.clips import NAMED_AS_IMAGE, is_clip, middle_frame, read_clip
from src.data.pixels.faces import FaceBoxes, Picture
from src.data.pixels.frames import FrameNumbers
from src.data.pixels.images import Canvas
from src.data.pixels.stills import decode
from src.errors import UnreadableImageError, UserError

cv2.setNumThreads(1)  # parallelism lies in workers and torch; nested pools slow both

Canvases = list[NDArray[np.uint8]]
# How many slots a clip has, 1 or more -> which of them are wanted, ascending.
Wanted = Callable[[int], Sequence[int]]


class FaceCuts:
    """What the canvases of a list of items show of a picture: all of it, or a face.

    Args:
        root: folder of the data set.
        canvases: of the items.
        frames: which frames of clips are looked at.
    """

    def __init__(self, root: Path, canvases: Iterable[Canvas], frames: FramesConfig) -> None:
        faces = dict.fromkeys(canvas.face for canvas in canvases if canvas.face is not None)
        self.boxes = {face: FaceBoxes(root, face, frames) for face in faces}
        self.person = 0

    def search(self, items: Sequence[str]) -> None:
        """Find the faces that a canvas shows; see `FaceBoxes.search`."""
        for boxes in self.boxes.values():
            boxes.search(items)

    def cut(self, path: str, frame: int, canvas: Canvas, picture: Picture) -> Picture:
        """Return what a canvas shows of a picture, before it is resized; see `FaceBoxes.crop`."""
        return (
            picture
            if canvas.face is None
            else self.boxes[canvas.face].crop(path, picture, frame, self.person)
        )

    def of_person(self, person: int) -> "FaceCuts":
        """Return the same faces, of which another person's is shown."""
        other = copy(self)
        other.person = person
        return other

    def count_people(self, face: FaceConfig, items: Sequence[str]) -> list[int]:
        """Return how many people each item shows."""
        self.boxes[face].search(items)
        return [len(self.boxes[face].people(path)) for path in items]

    def faceless(self, face: FaceConfig | None, items: Sequence[str]) -> list[int]:
        """Return which items show no face, so that the whole picture stood for it."""
        if face is None:
            return []
        lost = set(self.boxes[face].faceless(items))
        return [place for place, path in enumerate(items) if path in lost]

    def stamp(self, path: str) -> tuple[int, ...]:
        """Return what decides an item's crop beside its file and the canvas."""
        return (1,) if any(boxes.is_cropped(path) for boxes in self.boxes.values()) else ()


class ItemReader:
    """Decodes the items of a list; nothing is kept.

    Args:
        root: folder of the data set.
        paths: manifest paths of the items, in the order of their row numbers.
        canvases: the distinct canvases wanted of each item.
        frames: what is seen of clips.
        cuts: where the canvases' faces are known already; None makes a new one.
    """

    def __init__(
        self,
        root: Path,
        paths: Sequence[str],
        canvases: Sequence[Canvas],
        frames: FramesConfig,
        cuts: FaceCuts | None = None,
    ) -> None:
        self.root = root
        self.paths = list(paths)
        self.canvases = list(dict.fromkeys(canvases))
        self.numbers = FrameNumbers(self.paths, frames)
        self.cuts = FaceCuts(root, self.canvases, frames) if cuts is None else cuts

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.paths)

    @property
    def nbytes(self) -> int:
        """Return how much all canvases take."""
        each = sum(3 * canvas.size**2 for canvas in self.canvases)
        return each * int(self.numbers.slot_starts[-1])

    def image(self, item: int) -> tuple[Canvases, bool]:
        """Return an image's canvases, and whether `describe` has something to say of it.

        Raises:
            UnreadableImageError: the item cannot be decoded.
        """
        data = read_bytes(self.root, self.paths[item])
        try:
            cut = partial(self.cuts.cut, self.paths[item], 0)
            drawn, problem = images.make_canvases(data, self.canvases, cut)
            return drawn, bool(problem)
        except UnreadableImageError:
            if not is_clip(data):
                raise
            return self._draw_frame(self.paths[item], middle_frame(data), 0), True

    def clip(self, item: int, wanted: Wanted) -> tuple[list[Canvases], bool]:
        """Return some of the frames that a clip has, and whether it was read only in part.

        Args:
            item: its row number.
            wanted: which of its slots.

        Raises:
            UnreadableImageError: the item cannot be decoded.
        """
        clip = read_clip(
            self.root, self.paths[item], self.numbers.slots, pick=wanted,
            convert=partial(self._draw_frame, self.paths[item]),
            decoder=self.numbers.frames.decoder,
        )  # fmt: skip
        return clip.frames, bool(clip.problem)

    def _draw_frame(self, path: str, picture: NDArray[np.uint8], number: int) -> Canvases:
        cut = self.cuts.cut
        return [canvas.draw(cut(path, number, canvas, picture)) for canvas in self.canvases]

    def slots_or_stop(self, item: int, wanted: Wanted = range) -> list[Canvases]:
        """Return some of the slots that a clip has, or the only one of an image.

        Raises:
            UserError: the item cannot be decoded; names it.
        """
        try:
            if self.numbers.is_clip[item]:
                return self.clip(item, wanted)[0]
            return [self.image(item)[0]]
        except UnreadableImageError as error:
            raise self.gone(item, error) from None

    def read_slots(self, rows: Sequence[int]) -> list[NDArray[np.uint8] | None]:
        """Return the first canvas of slots; None for those that a clip is too short to have."""
        found: list[NDArray[np.uint8] | None] = []
        for item, part in self.numbers.by_item(rows, slots=True):
            slots = [row - int(self.numbers.slot_starts[item]) for row in part]

            def wanted(held: int, slots: list[int] = slots) -> list[int]:
                return [slot for slot in slots if slot < held]

            drawn = [canvases[0] for canvases in self.slots_or_stop(item, wanted)]
            found += [*drawn, *[None] * (len(part) - len(drawn))]
        return found

    def gone(self, item: int, error: Exception) -> UserError:
        """Make the error that names an item which cannot be decoded."""
        return UserError(
            f"{self.root / self.paths[item]}: {error}; it was readable when the folds were "
            "made: put the file back"
        )

    def with_every_slot(self) -> "ItemReader":
        """Return a reader of the same pixels whose evaluation looks at every slot of a clip."""
        slots = self.numbers.slots
        frames = replace(self.numbers.frames, train=slots, eval=slots)
        return ItemReader(self.root, self.paths, self.canvases, frames, self.cuts)

    def of_person(self, person: int) -> "ItemReader":
        """Return a reader that shows another person of the items than the largest."""
        other = copy(self)
        other.cuts = self.cuts.of_person(person)
        return other

    def find_faces(self) -> None:
        """Look for the faces of all items, where a canvas shows them and nobody has looked yet.

        Raises:
            UserError: see `FaceBoxes.search`.
        """
        self.cuts.search(self.paths)

    def describe(self, item: int) -> str:
        """Say what is wrong with an item whose frames are cut; decodes it again."""
        if not self.numbers.is_clip[item]:
            data = read_bytes(self.root, self.paths[item])
            return NAMED_AS_IMAGE if is_clip(data) else decode(data, [1]).problem
        return read_clip(
            self.root, self.paths[item], 1, convert=lambda *_: None,
            decoder=self.numbers.frames.decoder,
        ).problem  # fmt: skip

    def marks(self) -> Marks:
        """Return a 64-bit mark of each slot, which changes with its item's path, size or stamp."""
        stamps = ((*stamp_of(self.root, p), *self.cuts.stamp(p)) for p in self.paths)
        if not self.numbers.has_clips:
            return mark_items(self.paths, stamps)
        slots, decoder = self.numbers.slots, self.numbers.frames.decoder
        named: list[tuple[str, tuple[int, ...]]] = []
        for path, stamp, clip in zip(self.paths, stamps, self.numbers.is_clip, strict=True):
            if clip:  # a frame's place depends on how many there are
                named += [(f"{path}\0{k}/{slots} {decoder} {READING}", stamp) for k in range(slots)]
            else:
                named.append((path, stamp))
        return mark_items((name for name, _ in named), (stamp for _, stamp in named))
