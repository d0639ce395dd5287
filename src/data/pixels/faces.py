"""Which faces an item shows: found once, kept on disk, cut out for every model that wants them."""

import hashlib
import logging
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from src import paths
from src.artifacts.atomic import file_lock
from src.config import READING, FaceConfig, FramesConfig
from src.data.items.dataset_yaml import part_of, says_cropped
from src.data.items.files import IN_ZIP, kind_of, stamp_of
from src.data.pixels.cache import mark_items
from src.data.pixels.video import read_clip, read_picture
from src.errors import UnreadableImageError, UserError
from src.faces.crop import Face, area, crop_face
from src.faces.detectors import Detector, Shrunk, detect_each, detector_of, shrink
from src.faces.store import Found, join_parts, read_boxes, write_part
from src.faces.tracks import Frames, Placed, Track, people, place
from src.machine import decoding_threads
from src.progress import track

LOG = logging.getLogger("rvf")
SAVE_SECONDS = 20.0  # of searching, that a killed process may lose
IMAGES, CLIPS = 32, 2  # items read side by side
CLOSE = 0.4  # of a picture's area: a box as large was cut out by somebody before

Picture = NDArray[np.uint8]

# Marks of items that could not be decoded: every model of an ensemble would try them anew.
_UNREADABLE: set[int] = set()
PIECE = 4096  # bytes read at the beginning, in the middle and at the end of a file
TOGETHER = 256  # items that a thread takes at once


def mark_contents(
    root: Path, items: Sequence[str], names: Sequence[str], pool: Executor
) -> list[int]:
    """Return a 64-bit mark of each item; it changes with what it is named, size, time and bytes.

    Boxes are kept by the folder's name, and two folders of one name may hold other pictures under
    equal paths, of equal size and time. Some of a file's bytes are therefore looked at, and not
    where the folder lies: a search of hours outlives a move of the data. On a network drive each
    file is waited for, hence the pool.

    Raises:
        UserError: a file is gone.
    """
    starts = range(0, len(items), TOGETHER)
    parts = pool.map(lambda start: _stamps(root, items[start : start + TOGETHER]), starts)
    return mark_items(names, (stamp for part in parts for stamp in part)).tolist()


def _stamps(root: Path, items: Sequence[str]) -> list[tuple[int, ...]]:
    # Without the ctime, which a copy of the data set does not keep: its bytes are looked at.
    return [(*stamp_of(root, path)[:2], *_contents_of(root, path)) for path in items]


def _contents_of(root: Path, path: str) -> tuple[int, ...]:
    """Return a number that follows from pieces of a file, 0 for one that cannot be read.

    A short file is read whole, of a longer one three pieces: bitmaps of equal size may begin and
    end in equal black bars, and containers begin and end in tables. Nothing for a member of a zip:
    its stamp is a CRC of all its bytes.
    """
    if IN_ZIP.match(path) is not None:
        return ()
    try:
        with Path(os.path.normpath(f"{root}/{path}")).open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if size <= 3 * PIECE:
                pieces = file.read(3 * PIECE)
            else:
                places = (0, (size - PIECE) // 2, size - PIECE)
                pieces = b"".join(os.pread(file.fileno(), PIECE, place) for place in places)
    except OSError:
        return (0,)
    return (int.from_bytes(hashlib.blake2b(pieces, digest_size=8).digest(), "little"),)


class FaceBoxes:
    """The faces of a data set's items, by one detector."""

    def __init__(
        self, root: Path, face: FaceConfig, frames: FramesConfig | None = None, *, keep: bool = True
    ) -> None:
        self.root = root
        self.keep = keep  # on disk what was found; else this is one file's look, and says nothing
        self.face = face
        self.frames = frames or FramesConfig()
        self.detector: Detector = detector_of(face)
        self.seconds = 0.0  # of detection
        self.looked_at = 0  # frames
        self._shares: list[float] = []
        self._known: dict[str, Frames] = {}
        self._people: dict[str, list[Track]] = {}
        self._lost: set[str] = set()  # not decodable

    @property
    def home(self) -> Path:
        """Return the folder in which the boxes are kept."""
        # As given: a data set may be a link, under a name of its own.
        name = Path(os.path.normpath(Path.cwd() / self.root)).name or "root"
        return paths.face_cache(name, self.detector.identity)

    def search(self, items: Sequence[str]) -> None:
        """Find the faces of items that nobody has looked for yet, and keep them on disk.

        Interrupted at any moment, the next call goes on after what was kept last. Items that
        are cropped already are passed over, and so are those that cannot be decoded, which are
        not tried again by this process until the file changes.

        Raises:
            UserError: the detector is not installed, or its file is damaged; a file is gone.
        """
        asked = (path for path in dict.fromkeys(items) if path not in self._known)
        wanted = [path for path in asked if not self.is_cropped(path)]
        if not wanted:
            return
        marks = dict(zip(wanted, self._marks(wanted), strict=True))
        self._take(marks, read_boxes(self.home) if self.keep else {})
        if not self._left(marks):
            return
        if not self.keep:
            self._look_and_keep(self._left(marks), keep=False)
            return
        with ExitStack() as stack:
            kept = self._lock(stack)
            self._take(marks, read_boxes(self.home) if kept else {})  # another process's, meanwhile
            left = self._left(marks)
            if left:
                self._look_and_keep(left, kept)

    def crop(
        self,
        path: str,
        picture: Picture,
        frame: int = 0,
        person: int = 0,
        over: Picture | None = None,
    ) -> Picture:
        """Return what a model sees of an image or of a frame of a clip, before it is resized.

        A square round the person, the largest where there are fewer people; the picture as it is
        where the item shows no face, or is cropped already. `over`, uint8 (height, width), lies
        over the picture (a mask), and is cut out in its stead.
        """
        seen = picture if over is None else over
        face = self.spot(path, picture, frame, person)
        return seen if face is None else self.cut(seen, face, align=self.face.align)

    def spot(self, path: str, picture: Picture, frame: int = 0, person: int = 0) -> Face | None:
        """Return the face that `crop` cuts out; None where it is the picture as it is."""
        self._lost.discard(path)  # here is its picture
        who = self.people(path)
        if not who:
            return None
        placed = place(who[person] if person < len(who) else who[0], frame)
        return self.exact(picture, placed) if self.face.align else placed.face

    def exact(self, picture: Picture, placed: Placed) -> Face:
        """Return a face in the picture of its frame with the points that aligning takes."""
        return placed.face if placed.is_filled else self.detector.exact(picture, placed.face)

    def cut(self, picture: Picture, face: Face, *, align: bool) -> Picture:
        """Cut a face out of a picture with the config's margin; see `crop_face`."""
        return crop_face(picture, face, self.face.margin, align=align)

    def read_frame(self, path: str, number: int) -> Picture:
        """Return one of the frames of a clip that were looked at, uint8 RGB (height, width, 3)."""
        place_of = sorted(self._known[path]).index(number)
        clip = read_clip(
            self.root, path, self.slots, pick=lambda _: [place_of], decoder=self.frames.decoder
        )
        return clip.frames[0]

    def people(self, path: str) -> list[Track]:
        """Return the people of an item, the largest first; an item not searched yet is now."""
        if path in self._lost:
            return []
        if path not in self._people:
            if path not in self._known:
                frames = {} if self.is_cropped(path) else self._read(path)
                found = detect_each(self.detector, list(frames.values()))
                self._known[path] = dict(zip(frames, found, strict=True))
            self._people[path] = people(self._known[path], self.detector.sure)
        return self._people[path]

    def frames_of(self, path: str) -> Frames:
        """Return the faces of each frame of an item that was searched; none of any other."""
        return self._known.get(path, {})

    def count_filled(self, path: str) -> int:
        """Return in how many frames looked at the largest person's box is filled in.

        It was not found there, and is taken from the frames around; 0 for an item without a face.
        """
        who = self.people(path)[:1]
        return sum(place(one, number).is_filled for one in who for number in self.frames_of(path))

    def faceless(self, items: Iterable[str]) -> list[str]:
        """Return the items that were looked at and show no face: the whole picture is used."""
        return [p for p in items if self._known.get(p) and not self.people(p)]

    def is_cropped(self, path: str) -> bool:
        """Tell whether the data set that an item comes from says `faces: cropped`."""
        return says_cropped(self.root, part_of(path))

    def _marks(self, items: Sequence[str]) -> list[int]:
        with decoding_threads() as pool:
            return mark_contents(self.root, items, list(map(self._frames_key, items)), pool)

    def _frames_key(self, path: str) -> str:
        """Return an item's path, of a clip with what decides which frames are looked at."""
        # Decoders number the frames of some clips differently, and readings turn them differently.
        is_video = kind_of(path) == "video"
        return f"{path}\0{self.slots} {self.frames.decoder} {READING}" if is_video else path

    @property
    def slots(self) -> int:
        """Return how many frames of a clip are looked at."""
        return max(self.frames.train, self.frames.eval)

    def _take(self, marks: dict[str, int], found: dict[int, Frames]) -> None:
        self._known |= {path: found[mark] for path, mark in marks.items() if mark in found}

    def _left(self, marks: dict[str, int]) -> dict[str, int]:
        """Return the marks of what is not known and may be decodable."""
        self._lost |= {path for path, mark in marks.items() if mark in _UNREADABLE}
        return {p: m for p, m in marks.items() if p not in self._known and m not in _UNREADABLE}

    def _lock(self, stack: ExitStack) -> bool:
        """Wait for another search of these items to end; False where nothing can be written."""
        try:
            self.home.mkdir(parents=True, exist_ok=True)
            stack.enter_context(file_lock(self.home / "lock", "the faces", wait=True))
        except (OSError, UserError) as error:
            LOG.info("faces: found anew each time, for they cannot be kept (%s)", error)
            return False
        return True

    def _look_and_keep(self, marks: dict[str, int], keep: bool) -> None:
        if self.keep:
            LOG.info("faces: looking for them in %d items (%s)", len(marks), self.face.detector)
        new: list[Found] = []
        saved = time.monotonic()
        try:
            for path, frames in self._look_at_all(list(marks)):
                if not frames:  # it cannot be decoded: not written down, for it may be mended
                    _UNREADABLE.add(marks[path])
                    self._lost.add(path)
                    continue
                self._known[path] = frames
                new.append(Found(marks[path], path, frames))
                if keep and time.monotonic() - saved > SAVE_SECONDS:
                    write_part(self.home, new)
                    new, saved = [], time.monotonic()
        finally:
            if keep and new:
                write_part(self.home, new)
        if keep:
            join_parts(self.home)
        if self.keep and np.median(self._shares or [0.0]) >= CLOSE:
            LOG.warning(
                "faces: most boxes fill %.0f %% and more of their picture: it looks cropped "
                "already; say `faces: cropped` in dataset.yaml, and no model crops it again",
                100 * CLOSE,
            )

    def _look_at_all(self, items: list[str]) -> Iterator[tuple[str, Frames]]:
        batches = list(_batches(items))
        with decoding_threads() as pool:
            for batch in track(batches, "faces", unit="batch"):
                read = list(pool.map(self._read, batch))
                pictures = [one for frames in read for one in frames.values()]
                begun = time.perf_counter()
                seen = detect_each(self.detector, pictures, pool)
                faces = iter(seen)
                self._shares += [
                    max(area(face.box) for face in found) / (one.height * one.width)
                    for one, found in zip(pictures, seen, strict=True)
                    if found
                ]
                self.seconds += time.perf_counter() - begun
                self.looked_at += len(pictures)
                for path, frames in zip(batch, read, strict=True):
                    yield path, {number: next(faces) for number in frames}

    def _read(self, path: str) -> dict[int, Shrunk]:
        """Return an item's frames as the detector takes them; none of one not decodable."""

        def small(picture: Picture, _: int = 0) -> Shrunk:
            return shrink(picture, self.detector)

        try:
            if kind_of(path) == "video":
                decoder = self.frames.decoder
                clip = read_clip(self.root, path, self.slots, convert=small, decoder=decoder)
                return dict(zip(clip.indices.tolist(), clip.frames, strict=True))
            return {0: small(read_picture(self.root, path))}
        except UnreadableImageError:
            return {}


def _batches(items: list[str]) -> Iterator[list[str]]:
    images = [path for path in items if kind_of(path) != "video"]
    clips = [path for path in items if kind_of(path) == "video"]
    for part, size in ((images, IMAGES), (clips, CLIPS)):
        for start in range(0, len(part), size):
            yield part[start : start + size]
