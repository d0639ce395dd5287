"""How many frames a clip should give, and whether its file is whole, found without decoding it."""

import re
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from av.codec import CodecContext
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from src.data.pixels.video_decoders import describe_colours, open_video, packets_of

MISSING_SHARE = 0.02  # of the expected frames; containers count, and round, so many wrongly
MISSING_FRAMES = 2
_LISTED = ("mov", "avi")  # names of formats whose index lists every packet
# One piece after the other: between two packets lie fewer bytes than the largest has.
_DENSE = ("matroska", "asf")
# Where files are put one behind the other, packets count as damaged that are not; nothing says how
# many there are, but when each is decoded.
_JOINED = ("mpegts",)
_CONSTANT = 0.9  # of the steps are equal where the rate is constant
_JUMP = 10.0  # seconds: no hole, but another piece
_TRAILER = 1024  # bytes behind the last packet of a live recording, which has no index


class ClipInfo(NamedTuple):
    """What a clip's header announces; 0 or "" where it says nothing."""

    fps: float = 0.0  # frames a second, the mean where the rate varies
    duration: float = 0.0  # seconds
    codec: str = ""  # four characters such as `avc1`, else its name
    width: int = 0  # pixels, as stored
    height: int = 0
    announced: int = 0  # number of frames
    colours: str = ""  # which of its colours are not converted, see `describe_colours`


class Outlook(NamedTuple):
    """What to expect of a clip."""

    info: ClipInfo  # what its header says
    frames: int  # packets that are to be shown; 0 if unknown
    sure: bool  # whether each of them is a frame if the clip is whole
    # seconds from its start at which the last packet of the video is shown; 0 if unknown
    end: float
    missing: int  # frames that the container announces beyond its packets
    holes: int  # frames that lay in holes, by the times at which the others are shown
    broken: bool  # whether its packets tell that the file is damaged


def look_ahead(path: Path, limit: int) -> Outlook:
    """Go through the packets of a clip, sound and all, at most `limit` of its video.

    Raises:
        UnreadableVideoError: see `open_video`.
    """
    file, stream = open_video(path)
    with file:
        info, name = probe_open(file, stream), file.format.name
        joined = name.startswith(_JOINED)
        seen = _Packets(stream, joined=joined)
        seen.count(packets_of(file), limit)
        index = stream.index_entries
        listed = name.startswith(_LISTED) and len(index) > 0
        sure = name.startswith("mov") and stream.frames > 0
        missing = sum(not one.is_discard for one in index) - seen.shown if listed else 0
        behind = 0 if sure else seen.announced_behind((file.duration or 0) / 1e6)
        if behind:
            missing = max(missing, seen.announced_behind(_own_duration(file, stream)))
        dense = name.startswith(_DENSE)
        rest = (file.size or 0) - seen.reach
        broken = bool(
            seen.errors
            or (seen.corrupt and not joined)
            or (dense and seen.gap > seen.largest)
            or (dense and not file.duration and rest > _TRAILER)
            or falls_short(seen.shown, seen.shown + behind)
        )
        end = seen.end - float((stream.start_time or 0) * (stream.time_base or 0))
        shown = min(seen.shown, limit)
        return Outlook(info, shown, sure, end, missing, seen.holes(), broken)


def falls_short(found: int, expected: int) -> bool:
    """Tell whether more frames are missing than containers count wrongly."""
    return expected - found > max(MISSING_FRAMES, MISSING_SHARE * expected)


class _Packets:
    """What the packets of a file tell, taken together."""

    def __init__(self, stream: VideoStream, *, joined: bool) -> None:
        self._stream, self._joined = stream, joined
        # Of these VP8 alone stores a frame that is never shown as a packet of its own.
        self._vp8 = stream.codec_context.name in ("vp8", "libvpx")
        self.shown = 0  # packets of the video that are to be shown
        self.corrupt = self.errors = 0  # packets cut off, or marked; places not understood
        # Bytes of the largest packet, most between two, and where the last one ends.
        self.largest = self.gap = self.reach = 0
        # Seconds: when the first and the last of the video is shown, and the most between two;
        # when the first packet of any stream begins, and the last one ends.
        self.start = self.first = float("inf")
        self.end = self.last = self.longest = 0.0
        self.open_end = False  # the last one does not say how long it lasts
        # Places and bytes of all packets; of those of the video also when they are decoded, and
        # whether they are marked: one number after the other.
        self._places, self._own = array("q"), array("q")

    def count(self, packets: Iterable[Packet | None], limit: int) -> None:
        """Go through packets, at most `limit` of the video."""
        for packet in packets:
            if packet is None:
                self.errors += 1
            elif packet.size:
                self._count(packet)
            if self.shown >= limit:
                return

    def _count(self, packet: Packet) -> None:
        self.corrupt += packet.is_corrupt
        self.largest = max(self.largest, packet.size)
        if packet.pos is not None:
            self.gap = max(self.gap, packet.pos - self.reach if self.reach else 0)
            self.reach = max(self.reach, packet.pos + packet.size)
        mine = packet.stream_index == self._stream.index
        if mine and (packet.is_discard or (self._vp8 and not memoryview(packet)[0] >> 4 & 1)):
            return
        self.shown += mine
        if self._joined and packet.pos is not None:
            self._places.extend((packet.pos, packet.size))
            if mine and packet.dts is not None:
                self._own.extend((packet.pos, packet.size, packet.dts, packet.is_corrupt))
        if packet.pts is not None:
            self._time(packet.pts, packet.duration or 0, float(packet.time_base), mine=mine)

    def _time(self, pts: int, duration: int, unit: float, *, mine: bool) -> None:
        begin, end = pts * unit, (pts + duration) * unit
        self.first = min(self.first, begin)
        if end >= self.last:
            self.last, self.open_end = end, not duration
        if mine:
            if begin > self.end > self.start:
                self.longest = max(self.longest, begin - self.end)
            self.start, self.end = min(self.start, begin), max(self.end, begin)

    def holes(self) -> int:
        """Return how many frames are missing between others of a constant rate, where joined.

        Between the two lie bytes that no packet has, or the second is marked; a recording that
        leaves frames out leaves neither.
        """
        own = np.array(self._own).reshape(-1, 4)
        own = own[np.argsort(own[:, 0])]
        steps = np.diff(own[:, 2])
        usual = np.median(steps[steps > 0]) if (steps > 0).any() else 0
        if not usual or np.mean(np.abs(steps - usual) < usual / 10) < _CONSTANT:
            return 0
        places = np.array(self._places).reshape(-1, 2)
        places = places[np.argsort(places[:, 0])]
        before = np.cumsum([0, *places[:, 1]])[np.searchsorted(places[:, 0], own[:, 0])]
        unread = np.diff(own[:, 0] - before)
        lost = np.round(steps / usual) - 1
        lost[steps * float(self._stream.time_base or 0) > _JUMP] = 0
        told = (unread > lost * np.median(own[:, 1]) / 2) | (own[1:, 3] > 0)
        found = int(lost[told & (lost > 0)].sum())
        return found if falls_short(self.shown, self.shown + found) else 0

    def announced_behind(self, seconds: float) -> int:
        """Return how many frames an announced duration holds behind the last packet."""
        if not seconds or self.end <= self.start:
            return 0
        length = self.last - min(self.first, 0)  # Matroska counts from 0, whatever comes first
        rest = seconds - length - self.open_end * self.longest
        return round(rest * (self.shown - 1) / (self.end - self.start))


def _own_duration(file: InputContainer, stream: VideoStream) -> float:
    """Return how many seconds the picture lasts; 0 where it may be sound that lasts longer."""
    whole = (file.duration or 0) / 1e6
    if len(file.streams) == 1:
        return whole
    told = re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", stream.metadata.get("DURATION", ""))
    if told is None:
        return 0.0
    return min(whole, 3600 * int(told[1]) + 60 * int(told[2]) + float(told[3]))


def probe_open(file: InputContainer, stream: VideoStream) -> ClipInfo:
    """Return what the header of an open clip announces."""
    context = stream.codec_context
    fps = float(stream.average_rate or 0)
    own = float((stream.duration or 0) * (stream.time_base or 0))
    duration = own or (file.duration or 0) / 1e6  # all that Matroska and FLV tell
    announced = stream.frames or round(duration * fps)
    size = context.width, context.height
    return ClipInfo(fps, duration, tag_of(context), *size, announced, describe_colours(context))


def tag_of(context: CodecContext) -> str:
    """Return the four characters by which a container names a codec, else its name."""
    tag = context.codec_tag.strip("\0 ")
    return tag if tag and tag.isascii() and tag.isprintable() else context.codec.canonical_name
