"""What the header of a picture or clip says before a pixel is decoded: Pillow's and PyAV's word.

Values are numbers, and words that stay short. Of an item's name the folders are left out: they
often are the label.
"""

import hashlib
import io
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms

from src.data.pixels.video_decoders import open_video, packets_of
from src.data.pixels.video_packets import probe_open, tag_of

NONE = -1.0  # a number that this kind of file does not have
Value = float | str
MOST_LETTERS = 60
MOST_READ = 4000
RARE = "*"
_NUMBER = re.compile(r"[0-9]+")
# Digests and UUIDs are numbers too; eight letters without a digit may be a word.
_RUN = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-fA-F]{8,}|[0-9]+")
_WORD = re.compile(r"[^\W\d_]+")
ORDINARY = "the usual"  # name of tables that some quality of libjpeg gives
APART = "the usual, chroma of another quality"
_NOTES = {
    ExifTags.Base.ImageDescription: "description",
    ExifTags.Base.Artist: "artist",
    ExifTags.Base.Copyright: "copyright",
}
_CHROMA = {(1, 1): "4:4:4", (2, 1): "4:2:2", (2, 2): "4:2:0", (1, 2): "4:4:0", (4, 1): "4:1:1"}
_UNITS = {0: "without unit", 1: "an inch", 2: "a cm"}  # of JFIF 1.02
_TOOL = re.compile(rb"CreatorTool(?:>|=[\"'])([^<\"']{1,60})")
_NO_NOTES = ("xmp", "XML:com.adobe.xmp", "Software")
_FIRST = 2048  # bytes of the first frame, where x264 and x265 sign
_SIGNED = re.compile(rb"(x26[45])[^\0]{0,12}? core (\d+)|Lavc[\d.]*(?: \w+)?")
_WRITERS = ("encoder", "software", "com.apple.quicktime.software")


def picture_fields(file: BinaryIO) -> dict[str, Value] | None:
    """Return the fields of any picture that Pillow knows; None where its header cannot be read.

    Width and height are as stored: the EXIF orientation is not applied.
    """
    try:
        with Image.open(file) as image:
            return _of_picture(image)
    except Exception:  # noqa: BLE001 - of a broken header Pillow makes any error
        return None


def _of_picture(image: Image.Image) -> dict[str, Value]:
    info: Mapping[Any, Any] = image.info
    tags = _exif(info.get("exif"))
    png = image.format == "PNG"
    texts = {str(key): value for key, value in info.items() if png and isinstance(value, str)}
    orientation = tags.get(ExifTags.Base.Orientation)
    make, model = tags.get(ExifTags.Base.Make), tags.get(ExifTags.Base.Model)
    return (
        _of_jpeg(image)
        | {
            "width": float(image.width),
            "height": float(image.height),
            "colour type": image.mode,
            "parts of the file": shorten(_parts(image), 120),
            "compression": clean(info.get("compression"))[:20],  # of a TIFF
            "density": _density(info),
            "EXIF tags": shorten(" ".join(str(ExifTags.TAGS.get(t, t)) for t in sorted(tags)), 120),
            "EXIF orientation": float(orientation) if isinstance(orientation, int) else NONE,
            "colour profile": _profile(info.get("icc_profile")),
            "software": _software(tags, info),
            "camera": f"{clean(make)[:60]} {clean(model)[:60]}".strip(),
            "notes": _notes(info.get("comment"), tags, texts),
        }
    )


def _of_jpeg(image: Image.Image) -> dict[str, Value]:
    """Return the fields of a JPEG's quantisation and sampling; none of another kind."""
    if image.format not in ("JPEG", "MPO"):
        return {}
    tables: dict[int, list[int]] = getattr(image, "quantization", {})
    layers: list[tuple[int, int, int, int]] = getattr(image, "layer", [])
    used = tuple(layer[3] for layer in layers)
    judged = _judge(tuple((k, tuple(tables[k])) for k in sorted(tables)), used) if tables else {}
    return judged | {
        "JPEG chroma": _subsampling(layers),
        "JPEG progressive": float("progressive" in image.info),
    }


@lru_cache(4096)
def _judge(
    tables: tuple[tuple[int, tuple[int, ...]], ...], used: tuple[int, ...]
) -> dict[str, Value]:
    """Hold tables (number, 64 values row by row) against libjpeg's.

    `used` is the table number of each component, luma first. The tables' name is `ORDINARY` where
    they are exactly what libjpeg writes at one quality, `APART` where chroma alone has another,
    else a fingerprint of all.
    """
    by_number = {number: np.array(values) for number, values in tables}
    known = [number for number in used if number in by_number]
    quality, exact = nearest_quality(by_number[known[0] if known else min(by_number)])
    chroma_quality, chroma_exact = -1, True
    if len(known) > 1:
        chroma = by_number[known[1]]
        # At the lowest qualities several tables are equal: the luma's quality is tried first.
        same = bool((_usual_tables()[quality - 1, 1] == chroma).all())
        chroma_quality, chroma_exact = (quality, True) if same else nearest_quality(chroma, 1)
    name = digest(repr((tables, used)).encode())
    plain = exact and chroma_exact and known == [0, 1, 1][: len(known)]
    if plain and len(tables) == len(set(known)):
        name = ORDINARY if chroma_quality in (-1, quality) else APART
    return {
        "JPEG quality": float(quality),
        "JPEG chroma quality": float(chroma_quality),
        "JPEG tables": name,
    }


def nearest_quality(table: NDArray[np.integer], number: int = 0) -> tuple[int, bool]:
    """Return the libjpeg quality whose luma (0) or chroma (1) table is nearest; is it equal?"""
    away = np.abs(_usual_tables()[:, number] - table).sum(1)
    best = int(away.argmin())
    return best + 1, not away[best]


@cache
def _usual_tables() -> NDArray[np.int64]:
    """Return libjpeg's luma and chroma tables of quality 1 to 100, (100, 2, 64), row by row."""
    found = []
    for quality in range(1, 101):
        file = io.BytesIO()
        Image.new("RGB", (8, 8)).save(file, "JPEG", quality=quality)
        with Image.open(file) as image:
            tables: dict[int, list[int]] = getattr(image, "quantization", {})
            found.append([tables[0], tables[1]])
    return np.array(found)


def _subsampling(layers: list[tuple[int, int, int, int]]) -> str:
    if len(layers) < 3:
        return "grey" if len(layers) == 1 else ""
    (_, wide, high, _), (_, own_wide, own_high, _) = layers[:2]
    factors = wide // max(1, own_wide), high // max(1, own_high)
    return _CHROMA.get(factors, f"{factors[0]}x{factors[1]}")


def _parts(image: Image.Image) -> str:
    """Return a JPEG's segments of applications in their order, else the names of the notes."""
    segments: list[tuple[str, bytes]] = getattr(image, "applist", [])
    if not segments:
        return " ".join(sorted(map(str, image.info)))
    named = []
    for marker, content in segments:
        said = clean(content[:28].split(b"\0", 1)[0])
        said = "XMP" if said.startswith("http://ns.adobe.com/xap") else said[:12]
        named.append(marker if marker == "COM" else f"{marker}({said if said.isascii() else ''})")
    return " ".join(named)


def _density(info: Mapping[Any, Any]) -> str:
    """Return pixels an inch or cm, with the unit."""
    if "jfif_density" in info:
        across, down = info["jfif_density"]
        unit = info["jfif_unit"]
        return f"{across} x {down} {_UNITS.get(unit, f'unit {unit}')}"
    key, unit = ("dpi", "an inch") if "dpi" in info else ("aspect", "without unit")
    found = info.get(key)
    if not isinstance(found, tuple) or len(found) != 2:
        return ""
    return f"{float(found[0]):.6g} x {float(found[1]):.6g} {unit}"


def _exif(raw: bytes | None) -> dict[int, object]:
    exif = Image.Exif()
    try:
        exif.load(raw or b"")
        return dict(exif.items())
    except Exception:  # noqa: BLE001 - of broken EXIF Pillow makes any error
        return {}


def _profile(profile: bytes | None) -> str:
    """Return what an ICC profile calls itself, its fingerprint where it has no name; "" of none."""
    if not profile:
        return ""
    try:
        name = clean(ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile))))
    except (ImageCms.PyCMSError, OSError):
        name = ""
    return name[:60] or digest(profile)


def _software(tags: Mapping[int, object], info: Mapping[Any, Any]) -> str:
    said = tags.get(ExifTags.Base.Software) or info.get("Software")
    if not said and isinstance(info.get("xmp"), bytes):
        tool = _TOOL.search(info["xmp"])
        said = tool[1] if tool else None
    return clean(said)[:60]


def _notes(comment: object, tags: Mapping[int, object], texts: Mapping[str, str]) -> str:
    """Return comment and texts with digits as `#`, long ones as a fingerprint."""
    found = {"comment": comment} if comment and "comment" not in texts else {}
    found |= {name: tags[tag] for tag, name in _NOTES.items() if tags.get(tag)}
    found |= {key: texts[key] for key in sorted(texts) if key not in _NO_NOTES}
    return shorten(collapse("; ".join(f"{key}: {clean(text)}" for key, text in found.items())))


def clip_fields(path: Path) -> dict[str, Value]:
    """Return the fields of a clip, from its header and its first packet.

    `frames` and `seconds` are 0 where they are not said.

    Raises:
        UnreadableVideoError: see `open_video`.
    """
    file, stream = open_video(path)
    with file:
        info, context = probe_open(file, stream), stream.codec_context
        # Of a sound that no decoder is known for there is no context.
        sounds = [sound.codec_context for sound in file.streams.audio if sound.codec_context]
        of_file = {key.lower(): value for key, value in file.metadata.items()}
        of_stream = {key.lower(): value for key, value in stream.metadata.items()}
        name = file.format.name.split(",")[0]
        keys = sum(entry.is_keyframe for entry in stream.index_entries) if name == "mov" else 0
        level = f" level {context.level}" if context.level >= 0 else ""
        return {
            "width": float(info.width),
            "height": float(info.height),
            "frames": float(info.announced),
            "seconds": info.duration,
            "format": "mp4" if name == "mov" else name,
            "software": clean(next((of_file[key] for key in _WRITERS if key in of_file), ""))[:60],
            "codec": info.codec,
            "codec profile": f"{stream.profile or ''}{level}".strip(),
            "pixel format": context.pix_fmt or "",
            "encoder": _encoder(file, stream, clean(of_stream.get("encoder", ""))),
            "frames between keys": len(stream.index_entries) / keys if keys else NONE,
            "container brand": clean(of_file.get("major_brand", "")),
            "handler": clean(of_stream.get("handler_name", ""))[:60],
            "sound codec": tag_of(sounds[0]) if sounds else "",
        }


def _encoder(file: InputContainer, stream: VideoStream, named: str) -> str:
    """Return who signs the pictures: in the header, or at the start of the first packet."""
    first = next(packets_of(file, stream), None)
    found = _SIGNED.search(bytes(first)[:_FIRST]) if first is not None and first.size else None
    if found is None or (named and not found[1]):
        return named
    signed = f"{clean(found[1])} core {clean(found[2])}" if found[1] else clean(found[0])
    return f"{named} {signed}".strip()


def clean(value: object) -> str:
    """Return a note of a file as one line of text, whatever it holds; "" for None."""
    text = value.decode("latin-1") if isinstance(value, bytes) else str(value or "")
    return " ".join("".join(c if c.isprintable() else " " for c in text[:MOST_READ]).split())


def shorten(text: str, most: int = MOST_LETTERS) -> str:
    """Return a text of at most `most` letters; the end of a longer one is its digest."""
    return text if len(text) <= most else f"{text[: most - 9]}...{digest(text.encode())}"


def digest(data: bytes) -> str:
    """Return six letters that stand for some bytes."""
    return hashlib.blake2b(data, digest_size=3).hexdigest()


def name_fields(item_id: str, path: str) -> dict[str, Value]:
    """Return what an item's own name says; the suffix is the path's, ids of a CSV often lack it."""
    stem = os.path.splitext(item_id.rsplit("/", 1)[-1])[0]  # noqa: PTH122
    numbers = _NUMBER.findall(stem)
    return {
        "extension": os.path.splitext(path)[1],  # noqa: PTH122 - .JPG is not .jpg here
        "name length": float(len(stem)),
        "number in the name": float(min(int(numbers[-1][-15:]), 10**12)) if numbers else NONE,
        "name pattern": collapse(stem)[:MOST_LETTERS],
    }


def collapse(text: str) -> str:
    """Return a text with `#` for every run of digits, digest or UUID: `123_gan_9` is `#_gan_#`."""
    return _RUN.sub(lambda run: "#" if _NUMBER.search(run[0]) else run[0], text)


def without_rare_words(patterns: Sequence[str], least: int) -> list[str]:
    """Return patterns with `*` for every word that fewer than `least` of them hold.

    So what names share is left of them, `*_gan_#` of `anna_gan_#`; labels are not looked at.
    """
    counts = Counter(word for pattern in patterns for word in set(_WORD.findall(pattern)))
    return [
        _WORD.sub(lambda word: word[0] if counts[word[0]] >= least else RARE, pattern)
        for pattern in patterns
    ]
