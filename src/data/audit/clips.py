"""What a clip's container says before a frame is decoded, as PyAV tells it."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from av.container import InputContainer
from av.video.stream import VideoStream

from src.data.audit.texts import NONE, Value, clean
from src.data.pixels.video_decoders import open_video, packets_of
from src.data.pixels.video_packets import probe_open, tag_of

_FIRST = 2048  # bytes of the first frame, where x264 and x265 sign
_SIGNED = re.compile(rb"(x26[45])[^\0]{0,12}? core (\d+)|Lavc[\d.]*(?: \w+)?")
_WRITERS = ("encoder", "software", "com.apple.quicktime.software")


class ClipHeader(NamedTuple):
    """What a clip says of itself.

    Attributes:
        width, height: pixels as coded.
        frames: pictures announced, 0 where that is left open.
        seconds: of the pictures.
        fields: by name, see `audit_fields.FIELDS`.
    """

    width: int
    height: int
    frames: int
    seconds: float
    fields: dict[str, Value]


def read_header(path: Path) -> ClipHeader:
    """Read the header of a clip, and its first packet.

    Raises:
        UnreadableVideoError: see `open_video`.
    """
    file, stream = open_video(path)
    with file:
        info = probe_open(file, stream)
        return ClipHeader(
            info.width, info.height, info.announced, info.duration, _fields(file, stream)
        )


def _fields(file: InputContainer, stream: VideoStream) -> dict[str, Value]:
    context, sounds = stream.codec_context, file.streams.audio
    of_file, of_stream = _lower(file.metadata), _lower(stream.metadata)
    name = file.format.name.split(",")[0]
    keys = sum(entry.is_keyframe for entry in stream.index_entries) if name == "mov" else 0
    level = f" level {context.level}" if context.level >= 0 else ""
    return {
        "format": "mp4" if name == "mov" else name,
        "software": clean(next((of_file[key] for key in _WRITERS if key in of_file), ""))[:60],
        "codec": tag_of(context),
        "codec profile": f"{stream.profile or ''}{level}".strip(),
        "pixel format": context.pix_fmt or "",
        "encoder": _encoder(file, stream, clean(of_stream.get("encoder", ""))),
        "frames between keys": len(stream.index_entries) / keys if keys else NONE,
        "B-frames": float(context.has_b_frames),
        "container brand": clean(of_file.get("major_brand", "")),
        "compatible brands": clean(of_file.get("compatible_brands", "")),
        "handler": clean(of_stream.get("handler_name", ""))[:60],
        "time units a second": float(stream.time_base.denominator) if stream.time_base else NONE,
        "audio": float(bool(sounds)),
        "sound codec": tag_of(sounds[0].codec_context) if sounds else "",
    }


def _lower(metadata: Mapping[str, str]) -> dict[str, str]:
    return {key.lower(): value for key, value in metadata.items()}


def _encoder(file: InputContainer, stream: VideoStream, named: str) -> str:
    """Return who signs the pictures: in the header, or at the start of the first packet."""
    first = next(packets_of(file, stream), None)
    found = _SIGNED.search(bytes(first)[:_FIRST]) if first is not None and first.size else None
    if found is None or (named and not found[1]):
        return named
    signed = f"{clean(found[1])} core {clean(found[2])}" if found[1] else clean(found[0])
    return f"{named} {signed}".strip()
