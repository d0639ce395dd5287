"""What the header of a picture says before a pixel is decoded."""

import re
from collections.abc import Mapping
from typing import Any, BinaryIO, NamedTuple

from PIL import ExifTags, Image

from src.data.audit_jpeg import Tables, read_tables
from src.data.audit_layout import Layout, read_layout
from src.data.audit_name import collapse
from src.data.audit_profile import profile_name
from src.data.audit_words import clean, shorten

# Tags of EXIF 2.3.
MAKE, MODEL, SOFTWARE, ORIENTATION = 0x010F, 0x0110, 0x0131, 0x0112
_NOTES = {0x010E: "description", 0x013B: "artist", 0x8298: "copyright"}
_CHROMA = {(1, 1): "4:4:4", (2, 1): "4:2:2", (2, 2): "4:2:0", (1, 2): "4:4:0", (4, 1): "4:1:1"}
_UNITS = {0: "without unit", 1: "an inch", 2: "a cm"}  # of JFIF 1.02
_TOOL = re.compile(rb"CreatorTool(?:>|=[\"'])([^<\"']{1,60})")
_NO_NOTES = ("xmp", "XML:com.adobe.xmp", "Software")


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
