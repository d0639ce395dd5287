"""Clips to frames: evenly spaced over the whole clip, read from its start to its end, never sought.

A clip is known by its content where a name lies, and read out of zips too.

A seek lands where the container's index says, and on a damaged file OpenCV hands out stale frames
as good ones. A pass from the start gives frame i as frame i, or none.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.data.items.files import local_path, read_bytes
from src.data.pixels.decode import decode
from src.data.pixels.formats import HEAD, file_format, is_clip, names_files
from src.data.pixels.frames import spaced
from src.data.pixels.images import decode_image
from src.data.pixels.video_decoders import DECODERS, Picture, Stream, UnreadableVideoError
from src.data.pixels.video_packets import ClipInfo, Outlook, falls_short, look_ahead
from src.errors import UnreadableImageError

NAMED_AS_IMAGE = "it is a video under an image's name; its middle frame is used"
MAX_DECODED = 500_000  # frames looked at, whatever a header says: 4.6 hours at 30 a second
MOST_KEPT = 600_000_000  # bytes of frames: 32 of 1080p and as many again

Pick = Callable[[int], Sequence[int]]
Convert = Callable[[Picture, int], Any] | None


class Clip(NamedTuple):
    """Frames of a clip."""

    frames: list[Any]  # uint8 RGB (height, width, 3), or whatever `convert` made of them; in order
    indices: NDArray[np.int64]  # int64, which frames of the clip these are
    # number of frames by the index of an MP4, else by the header; 0 where it says nothing
    announced: int
    decoded: int  # number of frames that can be decoded
    problem: str  # "" or in words what is wrong with a clip that was read only in part
    info: ClipInfo = ClipInfo()  # what its header announces


def read_frames(
    path: Path,
    count: int,
    *,
    pick: Pick | None = None,
    convert: Convert = None,
    decoder: str = "pyav",
) -> Clip:
    """Return frames evenly spaced over a whole clip: the centres of `count` equal parts.

    A clip of fewer frames gives each of them once. Where not all can be decoded (a file that was
    cut off, or is damaged in the middle), they are spaced over those that can. `pick` says which of
    so many are wanted (None wants all), `convert` is applied to each wanted frame and its number
    at once, so that full frames need not be kept; `decoder` is a name in `DECODERS`.

    Raises:
        UnreadableVideoError: not a clip, no video stream, or not one frame that can be decoded.
    """
    kept = _KEPT.get(path)
    known = None if kept is None or count not in kept.counts else kept.look(path, decoder)
    if known is None:
        outlook, seen, places = _read(path, decoder, lambda n: _wanted(n, count, pick), convert)
        frames = seen.frames
    else:
        outlook, seen = known
        places = _wanted(seen.decoded, count, pick)
        there = [place for place in places.tolist() if place in seen.frames]
        frames = {
            place: seen.frames[place] if convert is None else convert(seen.frames[place], place)
            for place in there
        }
    announced = outlook.frames + max(0, outlook.missing) if outlook.sure else outlook.info.announced
    found = [place for place in places.tolist() if place in frames]
    if not found:
        what = f"0 of {announced} announced frames" if announced else "not one frame"
        raise UnreadableVideoError(f"{what} can be decoded (no video stream, or damaged)")
    problem = _problem(outlook, seen, len(places) - len(found))
    kept = [frames[place] for place in found]
    return Clip(kept, np.array(found, np.int64), announced, seen.decoded, problem, outlook.info)


def _read(
    path: Path, decoder: str, wanted: Callable[[int], NDArray[np.int64]], convert: Convert
) -> tuple[Outlook, "_Pass", NDArray[np.int64]]:
    """Go through a clip for the frames that are wanted of so many: what was found, and which."""
    opened = DECODERS.get(decoder)
    outlook = look_ahead(path, MAX_DECODED)
    places = wanted(outlook.frames)
    with closing(opened(path, outlook.frames)) as stream:
        seen = _one_pass(stream, places, convert)
    right = wanted(seen.decoded)
    if not np.array_equal(places, right):
        with closing(opened(path, outlook.frames)) as stream:
            seen = seen._replace(frames=_one_pass(stream, right, convert).frames)
    return outlook, seen, right


class _Kept:
    """Frames of one clip that is read several times, of those that are wanted `counts` times."""

    def __init__(self, counts: Iterable[int]) -> None:
        self.counts = set(counts)
        self._seen: dict[str, tuple[Outlook, _Pass]] = {}  # by decoder
        self._lock = Lock()

    def look(self, path: Path, decoder: str) -> tuple[Outlook, "_Pass"] | None:
        """Return what one pass for all counts found; None where that does not fit into memory."""
        with self._lock:
            if decoder not in self._seen and self.counts:
                info = look_ahead(path, MAX_DECODED).info
                if 3 * info.width * info.height * sum(self.counts) > MOST_KEPT:
                    self.counts = set()
                    return None
                outlook, seen, _ = _read(path, decoder, self._places, _locked)
                self._seen[decoder] = outlook, seen
            return self._seen.get(decoder)

    def _places(self, total: int) -> NDArray[np.int64]:
        return np.unique(np.concatenate([spaced(total, count) for count in self.counts]))


_KEPT: dict[Path, _Kept] = {}


def _locked(picture: Picture, _: int) -> Picture:
    picture.flags.writeable = False  # several will look at it
    return picture


@contextmanager
def keeping_frames(root: Path, path: str, counts: Iterable[int]) -> Iterator[None]:
    """Read an item that is a clip once, however often it is read within for so many frames.

    Its frames stay in memory meanwhile, up to `MOST_KEPT`; of larger ones nothing is kept.
    """
    there = local_path(root, path)
    if there is None:  # in a zip
        yield
        return
    _KEPT[there] = _Kept(counts)
    try:
        yield
    finally:
        del _KEPT[there]


def read_clip(
    root: Path,
    path: str,
    count: int,
    *,
    pick: Pick | None = None,
    convert: Convert = None,
    decoder: str = "pyav",
) -> Clip:
    """Return frames of an item that is a clip, or named like one; see `read_frames`.

    An image under a clip's name has one frame, and `problem` says so.

    Raises:
        UnreadableImageError: see `read_frames`; or an image that cannot be decoded, or a list of
            other files.
        UserError: the file is not there any more.
    """
    with open_clip(root, path) as file:
        with file.open("rb") as stream:
            head = stream.read(HEAD)
        if not head:
            raise UnreadableVideoError("the file is empty (0 bytes)")
        if names_files(head):
            raise UnreadableVideoError("not a video: it is a text that may name other files")
        if file_format(head) != "unknown":
            if pick is not None and not len(pick(1)):
                raise UnreadableVideoError("it is an image under a clip's name: one frame")
            (picture,), damaged = decode(read_bytes(root, path), [None])
            frame = picture if convert is None else convert(picture, 0)
            problem = damaged or "it is an image under a clip's name"
            return Clip([frame], np.zeros(1, np.int64), 1, 1, problem)
        return read_frames(file, count, pick=pick, convert=convert, decoder=decoder)


def middle_frame(data: bytes) -> Picture:
    """Return the middle frame of a clip under an image's name, uint8 RGB (height, width, 3).

    Raises:
        UnreadableVideoError: see `read_frames`.
    """
    with _as_file(data, ".bin") as file:
        return read_frames(file, 1).frames[0]


def read_picture(root: Path, path: str) -> Picture:
    """Return an image item's picture, uint8 RGB (height, width, 3), a clip's middle frame.

    Raises:
        UnreadableImageError, UserError: see `read_bytes` and `decode_image`.
    """
    data = read_bytes(root, path)
    try:
        return decode_image(data)
    except UnreadableImageError:
        if not is_clip(data):
            raise
        return middle_frame(data)


@contextmanager
def open_clip(root: Path, path: str) -> Iterator[Path]:
    """Lend a path that a video library can open; a member of a zip is unpacked for so long.

    Raises:
        UnreadableImageError, UserError: see `files.read_bytes`.
    """
    there = local_path(root, path)
    if there is not None:
        try:
            there.open("rb").close()
        except OSError as error:
            raise UnreadableImageError(str(error)) from None
        yield there
        return
    with _as_file(read_bytes(root, path), Path(path).suffix) as file:
        yield file


@contextmanager
def _as_file(data: bytes, suffix: str) -> Iterator[Path]:
    with tempfile.NamedTemporaryFile(suffix=suffix) as file:
        file.write(data)
        file.flush()
        yield Path(file.name)


class _Pass(NamedTuple):
    """What one pass through a clip found."""

    frames: dict[int, Any]  # those that were wanted, by their number
    decoded: int  # how many frames can be decoded
    # packets before the last good frame that could not be decoded; `within`: those of them behind
    # the first good frame
    failed: int
    within: int
    damaged: int  # frames that the decoder knows to be damaged
    end: float  # seconds at which the last frame is shown


def _wanted(total: int, count: int, pick: Pick | None) -> NDArray[np.int64]:
    places = spaced(total, count)
    return places if pick is None or not len(places) else places[list(pick(len(places)))]


def _one_pass(stream: Stream, places: NDArray[np.int64], convert: Convert) -> _Pass:
    """Go through a whole clip; behind a packet that cannot be decoded, good ones may follow."""
    wanted, found = set(places.tolist()), {}
    number = failed = within = bad = 0
    end = 0.0
    for fine in stream.grabs():
        if not fine:
            bad += 1
            continue
        failed += bad
        within += bad if number else 0
        bad = 0
        end = max(end, stream.seconds())
        if number in wanted:
            frame = stream.retrieve()
            if frame is not None:
                found[number] = frame if convert is None else convert(frame, number)
        number += 1
        if number >= MAX_DECODED:
            break
    return _Pass(found, number, failed, within, stream.damaged, end)


def _problem(outlook: Outlook, seen: _Pass, lost: int) -> str:
    """Say what is wrong; a shortfall counts only where something tells that frames are missing."""
    decoded = seen.decoded
    if decoded >= MAX_DECODED:
        return f"only its first {decoded} frames were looked at"
    expected = max(outlook.frames, decoded + seen.failed) + outlook.holes
    whole = expected + max(0, outlook.missing)
    short = falls_short(decoded, whole if outlook.sure else expected if seen.failed else 0)
    if seen.within or short or outlook.holes or _ends_early(outlook, seen):
        return f"decoded {decoded} of {whole} frames"
    if falls_short(decoded, decoded + outlook.missing):
        return f"decoded {decoded} of {whole} frames; the file is cut off or its header is wrong"
    if seen.damaged:
        return f"decoded {decoded} frames, {seen.damaged} of them damaged"
    if outlook.broken:
        return f"decoded {decoded} frames; the file is cut off or damaged"
    return f"{lost} of the wanted frames cannot be decoded" if lost else ""


def _ends_early(outlook: Outlook, seen: _Pass) -> bool:
    """Tell whether packets follow, clearly behind the last frame that can be decoded."""
    if outlook.end <= 0:
        return False
    behind = outlook.frames * (1 - seen.end / outlook.end)
    return falls_short(outlook.frames - round(behind), outlook.frames)
