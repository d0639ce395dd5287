"""What the header of a picture says before a pixel is decoded.

How a JPEG was quantised: all of its tables, against those of libjpeg.

The name that a colour profile gives itself (ICC.1:2022, clauses 7 and 10).
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from src.data.audit.file_layout import Layout, read_layout
from src.data.audit.texts import clean, collapse, digest, shorten

# Tags of EXIF 2.3.
MAKE, MODEL, SOFTWARE, ORIENTATION = 0x010F, 0x0110, 0x0131, 0x0112
_NOTES = {0x010E: "description", 0x013B: "artist", 0x8298: "copyright"}
_CHROMA = {(1, 1): "4:4:4", (2, 1): "4:2:2", (2, 2): "4:2:0", (1, 2): "4:4:0", (4, 1): "4:1:1"}
_UNITS = {0: "without unit", 1: "an inch", 2: "a cm"}  # of JFIF 1.02
_TOOL = re.compile(rb"CreatorTool(?:>|=[\"'])([^<\"']{1,60})")
_NO_NOTES = ("xmp", "XML:com.adobe.xmp", "Software")


ORDINARY = "the usual"  # name of tables that some quality of libjpeg gives
APART = "the usual, chroma of another quality"
# Quantisation of luma and chroma (ITU-T T.81, 1992, tables K.1 and K.2), row by row.
_LUMA_TABLE = np.array([
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55,
    14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
])  # fmt: skip
_CHROMA_TABLE = np.full((8, 8), 99)
_CHROMA_TABLE[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]
_BASES = {"luma": _LUMA_TABLE, "chroma": _CHROMA_TABLE.reshape(-1)}


_DIRECTORY, _ENTRY = 128, 12


def profile_name(profile: bytes | None) -> str:
    """Return the description of an ICC profile, or its fingerprint where it has none; "" of none.

    Args:
        profile: the whole of it.
    """
    if not profile:
        return ""
    count = min(100, _number(profile, _DIRECTORY))
    for at in range(_DIRECTORY + 4, _DIRECTORY + 4 + _ENTRY * count, _ENTRY):
        if profile[at : at + 4] == b"desc":
            start = _number(profile, at + 4)
            name = _description(profile[start : start + _number(profile, at + 8)])
            if name:
                return name[:60]
    return digest(profile)


def _description(text: bytes) -> str:
    """Return the text of a tag of type `desc` (version 2) or `mluc` (version 4)."""
    if text[:4] == b"desc":
        return clean(text[12 : 12 + _number(text, 8)])
    if text[:4] == b"mluc":
        length, start = _number(text, 20), _number(text, 24)
        return clean(text[start : start + length].decode("utf-16-be", "replace"))
    return ""


def _number(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "big")


class Tables(NamedTuple):
    """Quantisation tables of a JPEG; -1 and "" where there are none."""

    quality: int  # of libjpeg whose luma table is nearest, 1 to 100
    luma: float  # mean of the luma table
    chroma_quality: int  # of libjpeg whose chroma table is nearest
    number: int  # of tables
    # "the usual" where these are exactly the tables that libjpeg writes at `quality`; where chroma
    # alone has another quality, that in words; else a fingerprint of all
    name: str


def read_tables(tables: Mapping[int, Sequence[int]], used: Sequence[int]) -> Tables:
    """Judge tables.

    Args:
        tables: number -> 64 values, row by row.
        used: the table number of each component; luma first.
    """
    if not tables:
        return Tables(-1, -1.0, -1, -1, "")
    return _judge(tuple((k, tuple(tables[k])) for k in sorted(tables)), tuple(used))


@lru_cache(4096)
def _judge(tables: tuple[tuple[int, tuple[int, ...]], ...], used: tuple[int, ...]) -> Tables:
    by_number = {number: np.array(values) for number, values in tables}
    known = [number for number in used if number in by_number]
    luma = by_number[known[0] if known else min(by_number)]
    quality, exact = nearest_quality(luma)
    chroma = by_number[known[1]] if len(known) > 1 else None
    chroma_quality, chroma_exact = -1, True
    if chroma is not None:
        # At the lowest qualities several tables are equal: the luma's quality is tried first.
        same = bool((_tables("chroma")[quality - 1] == chroma).all())
        chroma_quality, chroma_exact = (
            (quality, True) if same else nearest_quality(chroma, "chroma")
        )
    plain = exact and chroma_exact and known == [0, 1, 1][: len(known)]
    if plain and len(tables) == len(set(known)):
        name = ORDINARY if chroma_quality in (-1, quality) else APART
    else:
        name = digest(repr((tables, used)).encode())
    return Tables(quality, float(luma.mean()), chroma_quality, len(tables), name)


def nearest_quality(table: NDArray[np.integer], base: str = "luma") -> tuple[int, bool]:
    """Return the libjpeg quality whose table is nearest to (64,), and whether it is equal."""
    away = np.abs(_tables(base) - table).sum(1)
    best = int(away.argmin())
    return best + 1, not away[best]


@cache
def _tables(base: str) -> NDArray[np.int64]:
    """Return libjpeg's `luma` or `chroma` tables of quality 1 to 100, (100, 64) (jcparam.c)."""
    quality = np.arange(1, 101)[:, None]
    scale = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    return np.clip((_BASES[base] * scale + 50) // 100, 1, 255)


class PictureHeader(NamedTuple):
    """What a picture says of itself; -1 and "" stand for what its kind of file does not have.

    Attributes:
        width, height: pixels, as stored (EXIF orientation not applied).
        mode: Pillow's name of the colour type: RGB, RGBA, P, L.
        tables: of a JPEG's quantisation.
        layout: the parts of the file.
        subsampling: of chroma, `4:2:0`.
        progressive: 0 or 1.
        density: pixels an inch or cm, with the unit.
        gamma: of a PNG.
        compression: of data, where the kind of file leaves a choice.
        exif: 0 or 1, whether there is EXIF.
        tags: names of the EXIF tags of the picture itself.
        orientation: EXIF's, 1 to 8.
        profile: 0 or 1, whether there is an ICC profile.
        profile_name: what that is called.
        software, camera: as EXIF (or a PNG's text, or XMP) names them.
        texts: names of a PNG's text entries (image generators leave `parameters`, `prompt`).
        comment: 0 or 1, whether there is a JPEG's or GIF's comment.
        notes: comment and texts themselves, digits as `#`, long ones as a fingerprint.
    """

    width: int
    height: int
    mode: str
    tables: Tables
    layout: Layout
    subsampling: str
    progressive: int
    density: str
    gamma: float
    compression: str
    exif: int
    tags: str
    orientation: int
    profile: int
    profile_name: str
    software: str
    camera: str
    texts: str
    comment: int
    notes: str


def read_picture(file: BinaryIO) -> PictureHeader | None:
    """Read the header of any picture that Pillow knows; None where it has none."""
    try:
        with Image.open(file) as image:
            return _read(image, file)
    except Exception:  # noqa: BLE001 - of a broken header Pillow makes any error
        return None


def _read(image: Image.Image, file: BinaryIO) -> PictureHeader:
    info: Mapping[Any, Any] = image.info
    jpeg, png = image.format in ("JPEG", "MPO"), image.format == "PNG"
    layout = read_layout(file, "jpeg" if jpeg else (image.format or "").lower())
    layers: list[tuple[int, int, int, int]] = getattr(image, "layer", []) if jpeg else []
    tables: dict[int, Any] = getattr(image, "quantization", {}) if jpeg else {}
    tags = _exif(info.get("exif"))
    texts = {str(key): value for key, value in info.items() if png and isinstance(value, str)}
    return PictureHeader(
        width=image.width,
        height=image.height,
        mode=image.mode,
        tables=read_tables(tables, [layer[3] for layer in layers]),
        layout=layout,
        subsampling=_subsampling(layers) if jpeg else "",
        progressive=int("progressive" in info) if jpeg else -1,
        density=_density(info),
        gamma=float(info.get("gamma", -1)),
        compression=layout.compression or ("" if jpeg else clean(info.get("compression"))[:20]),
        exif=int(bool(info.get("exif"))),
        tags=shorten(" ".join(str(ExifTags.TAGS.get(tag, tag)) for tag in sorted(tags)), 120),
        orientation=_orientation(tags),
        profile=int(bool(info.get("icc_profile"))),
        profile_name=profile_name(info.get("icc_profile")),
        software=_software(tags, info),
        camera=f"{_word(tags.get(MAKE))} {_word(tags.get(MODEL))}".strip(),
        texts=shorten(" ".join(sorted(texts)), 120),
        comment=int(bool(info.get("comment"))),
        notes=_notes(info.get("comment"), tags, texts),
    )


def _subsampling(layers: list[tuple[int, int, int, int]]) -> str:
    if len(layers) < 3:
        return "grey" if len(layers) == 1 else ""
    (_, wide, high, _), (_, own_wide, own_high, _) = layers[:2]
    factors = wide // max(1, own_wide), high // max(1, own_high)
    return _CHROMA.get(factors, f"{factors[0]}x{factors[1]}")


def _density(info: Mapping[Any, Any]) -> str:
    if "jfif_density" in info:
        across, down = info["jfif_density"]
        unit = info["jfif_unit"]
        return f"{across} x {down} {_UNITS.get(unit, f'unit {unit}')}"
    found, unit = (
        (info.get("dpi"), "an inch") if "dpi" in info else (info.get("aspect"), "without unit")
    )
    if not isinstance(found, tuple) or len(found) != 2:
        return ""
    return f"{float(found[0]):.6g} x {float(found[1]):.6g} {unit}"


def _exif(raw: bytes | None) -> dict[int, object]:
    if not raw:
        return {}
    exif = Image.Exif()
    try:
        exif.load(raw)
        return dict(exif.items())
    except Exception:  # noqa: BLE001 - of broken EXIF Pillow makes any error
        return {}


def _orientation(tags: Mapping[int, object]) -> int:
    found = tags.get(ORIENTATION)
    return found if isinstance(found, int) else -1


def _software(tags: Mapping[int, object], info: Mapping[Any, Any]) -> str:
    said = tags.get(SOFTWARE) or info.get("Software")
    if not said and isinstance(info.get("xmp"), bytes):
        tool = _TOOL.search(info["xmp"])
        said = tool[1] if tool else None
    return _word(said)


def _notes(comment: object, tags: Mapping[int, object], texts: Mapping[str, str]) -> str:
    found = {"comment": comment} if comment and "comment" not in texts else {}
    found |= {name: tags[tag] for tag, name in _NOTES.items() if tags.get(tag)}
    found |= {key: texts[key] for key in sorted(texts) if key not in _NO_NOTES}
    return shorten(collapse("; ".join(f"{key}: {clean(text)}" for key, text in found.items())))


def _word(value: object) -> str:
    return clean(value)[:60]
