"""One item at a time to square uint8 canvases: an image, frames of a clip, their face crops."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Self

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src.artifacts.oof import Levels
from src.config import READING, FaceConfig, FramesConfig
from src.data.items.files import read_bytes, stamp_of
from src.data.pixels import images
from src.data.pixels.cache import Marks
from src.data.pixels.decode import decode
from src.data.pixels.deliveries import level_named
from src.data.pixels.faces import FaceBoxes, Picture
from src.data.pixels.formats import is_clip
from src.data.pixels.frames import FrameNumbers
from src.data.pixels.images import Canvas
from src.data.pixels.video import NAMED_AS_IMAGE, Clip, Convert, Pick, middle_frame, read_clip
from src.errors import UnreadableImageError, UserError
from src.texts import hashes_of, mixed, texts_of

cv2.setNumThreads(1)  # parallelism lies in workers and torch; nested pools slow both

Canvases = list[NDArray[np.uint8]]
# How many slots a clip has, 1 or more -> which of them are wanted, ascending.
Wanted = Callable[[int], Sequence[int]]


class FaceCuts:
    """What the canvases of a list of items show of a picture: all of it, or a face."""

    def __init__(
        self,
        root: Path,
        canvases: Iterable[Canvas],
        frames: FramesConfig,
        *,
        keep: bool = True,
    ) -> None:
        faces = dict.fromkeys(canvas.face for canvas in canvases if canvas.face is not None)
        self.boxes = {face: FaceBoxes(root, face, frames, keep=keep) for face in faces}
        self.person = 0

    def search(self, items: Sequence[str]) -> None:
        """Find the faces that a canvas shows; see `FaceBoxes.search`."""
        for boxes in self.boxes.values():
            boxes.search(items)

    def cut(
        self,
        path: str,
        frame: int,
        canvas: Canvas,
        picture: Picture,
        over: Picture | None = None,
    ) -> Picture:
        """Return what a canvas shows of a picture, before it is resized; see `FaceBoxes.crop`."""
        if canvas.face is None:
            return picture if over is None else over
        return self.boxes[canvas.face].crop(path, picture, frame, self.person, over)

    def cut_delivered(
        self, path: str, frame: int, canvases: Sequence[Canvas], picture: Picture, levels: Levels
    ) -> Iterator[tuple[Canvas, Picture]]:
        """Yield canvases, level by level, with what each shows of a picture as it is delivered.

        Faces are looked for in the picture as it is, and are where the delivery took them.
        """
        faces = {face: boxes.spot(path, picture, frame, self.person)
                 for face, boxes in self.boxes.items()}  # fmt: skip
        for name in levels.names:
            sent = level_named(name).deliver(picture, path, frame, levels.seed)
            for canvas in canvases:
                face = None if canvas.face is None else faces[canvas.face]
                if canvas.face is None or face is None:
                    yield canvas, sent.pixels
                    continue
                cut = self.boxes[canvas.face].cut
                yield canvas, cut(sent.pixels, sent.carry(face), align=canvas.face.align)

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

    Row numbers are the places of items in `paths` (of the manifest, below `root`); `canvases` are
    the distinct ones wanted of each item. `cuts` are given where the faces are known already;
    `stamps`, int64 (n,), are those of a manifest (`Dataset.stamps`), without which `marks` asks the
    disk for each file's.
    """

    def __init__(
        self,
        root: Path,
        paths: Sequence[str] | pd.Series,
        canvases: Sequence[Canvas],
        frames: FramesConfig | None = None,
        cuts: FaceCuts | None = None,
        stamps: NDArray[np.int64] | None = None,
    ) -> None:
        self.root = root
        self.paths = texts_of(paths)
        self.canvases = list(dict.fromkeys(canvases))
        self.numbers = FrameNumbers(self.paths, frames or FramesConfig())
        self.cuts = cuts or FaceCuts(root, self.canvases, self.numbers.frames)
        self.stamps = stamps
        self.levels: Levels | None = None  # None: pictures are as they are

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.paths)

    @property
    def nbytes(self) -> int:
        """Return how much all canvases take."""
        each = sum(3 * canvas.size**2 for canvas in self.canvases)
        return each * int(self.numbers.slot_starts[-1])

    @property
    def n_levels(self) -> int:
        """Return at how many levels each picture is delivered: 1 where they are as they are."""
        return 1 if self.levels is None else len(self.levels.names)

    def image(self, item: int) -> tuple[Canvases, bool]:
        """Return an image's canvases, and whether `describe` has something to say of it.

        Raises:
            UnreadableImageError: the item cannot be decoded.
        """
        path = self.paths[item]
        data = read_bytes(self.root, path)
        try:
            if self.levels is not None:
                decoded, problem = decode(data, [None])
                return self._draw_frame(path, decoded[0], 0), bool(problem)
            cut = partial(self.cuts.cut, path, 0)
            drawn, problem = images.make_canvases(data, self.canvases, cut)
            return drawn, bool(problem)
        except UnreadableImageError:
            if not is_clip(data):
                raise
            return self._draw_frame(path, middle_frame(data), 0), True

    def clip(self, item: int, wanted: Wanted) -> tuple[list[Canvases], bool]:
        """Return some of the frames that a clip has, and whether it was read only in part.

        Raises:
            UnreadableImageError: the item cannot be decoded.
        """
        draw = partial(self._draw_frame, self.paths[item])
        clip = self._read_clip(item, self.numbers.slots, pick=wanted, convert=draw)
        return clip.frames, bool(clip.problem)

    def _read_clip(
        self, item: int, count: int, *, pick: Pick | None = None, convert: Convert = None
    ) -> Clip:
        decoder = self.numbers.frames.decoder
        path = self.paths[item]
        return read_clip(self.root, path, count, pick=pick, convert=convert, decoder=decoder)

    def _draw_frame(self, path: str, picture: Picture, number: int) -> Canvases:
        if self.levels is not None:
            shown = self.cuts.cut_delivered(path, number, self.canvases, picture, self.levels)
            return [canvas.draw(part) for canvas, part in shown]
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
            raise UserError(
                f"{self.root / self.paths[item]}: {error}; it was readable when the folds were "
                "made: put the file back"
            ) from None

    def read_slots(self, rows: Sequence[int]) -> list[Picture | None]:
        """Return the first canvas of slots; None for those that a clip is too short to have."""
        found: list[Picture | None] = []
        for item, part in self.numbers.by_item(rows, slots=True):
            slots = [row - int(self.numbers.slot_starts[item]) for row in part]

            def wanted(held: int, slots: list[int] = slots) -> list[int]:
                return [slot for slot in slots if slot < held]

            drawn = [canvases[0] for canvases in self.slots_or_stop(item, wanted)]
            found += [*drawn, *[None] * (len(part) - len(drawn))]
        return found

    def with_every_slot(self) -> Self:
        """Return a reader of the same pixels whose evaluation looks at every slot of a clip."""
        slots, other = self.numbers.slots, copy(self)
        frames = replace(self.numbers.frames, train=slots, eval=slots)
        other.numbers = FrameNumbers(self.paths, frames)
        return other

    def of_person(self, person: int) -> Self:
        """Return a reader that shows another person of the items than the largest."""
        other = copy(self)
        other.cuts = copy(self.cuts)
        other.cuts.person = person
        return other

    def delivering(self, levels: Levels) -> Self:
        """Return a reader of the pictures as each level delivers them, from one decode.

        It gives all canvases of the first level, then those of the second ...
        """
        other = copy(self)
        other.levels = levels
        return other

    def find_faces(self) -> None:
        """Look for the faces of all items, where a canvas shows them and nobody has looked yet.

        Raises:
            UserError: see `FaceBoxes.search`.
        """
        self.cuts.search(self.paths)

    def describe(self, item: int) -> str:
        """Say what is wrong with an item whose frames are cut; decodes it again."""
        if self.numbers.is_clip[item]:
            return self._read_clip(item, 1, convert=lambda *_: None).problem
        data = read_bytes(self.root, self.paths[item])
        return NAMED_AS_IMAGE if is_clip(data) else decode(data, [1]).problem

    def marks(self) -> Marks:
        """Return a 64-bit mark of each slot, which changes with its item's path or stamp."""
        stamps, numbers = self.stamps, self.numbers
        if stamps is None:
            looked = (_stamp(stamp_of(self.root, path)) for path in self.paths)
            stamps = np.fromiter(looked, np.int64, len(self))
        marks = mixed(hashes_of(self.paths), stamps.astype(np.int64).view(np.uint64))
        if self.cuts.boxes:
            cropped = [sum(self.cuts.stamp(path)) for path in self.paths]
            marks = np.where(cropped, mixed(marks, np.full_like(marks, 1)), marks)
        if not numbers.has_clips:
            return marks
        # A frame's place depends on how many there are.
        of_places = hashes_of(
            [
                f"{k}/{numbers.slots} {numbers.frames.decoder} {READING}"
                for k in range(numbers.slots)
            ]
        )
        counts = np.diff(numbers.slot_starts)
        place = np.arange(numbers.slot_starts[-1]) - np.repeat(numbers.slot_starts[:-1], counts)
        of_items = np.repeat(marks, counts)
        in_clips = np.repeat(numbers.is_clip, counts)
        return np.where(in_clips, mixed(of_items, of_places[place]), of_items)


def _stamp(found: tuple[int, ...]) -> int:
    """Return the stamp that a manifest has of a file, from its size and CRC, or size and times."""
    return found[1] if len(found) == 2 else hash(found[1:])
