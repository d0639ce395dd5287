"""What the header of a picture says before a pixel is decoded."""

import hashlib
from functools import cache
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MAKE, MODEL, SOFTWARE = 0x010F, 0x0110, 0x0131  # tags of EXIF 2.3
ORDINARY = "the usual"  # name of tables that some quality of libjpeg gives
# Luma quantisation of JPEG (ITU-T T.81, 1992, table K.1), row by row.
_LUMA = np.array([
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55,
    14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
])  # fmt: skip
_CHROMA = {(1, 1): "4:4:4", (2, 1): "4:2:2", (2, 2): "4:2:0", (1, 2): "4:4:0", (4, 1): "4:1:1"}


class PictureHeader(NamedTuple):
    """What a picture says of itself; -1 and "" stand for what its kind of file does not have.

    Attributes:
        width, height: pixels, as stored (EXIF orientation not applied).
        mode: Pillow's name of the colour type: RGB, RGBA, P, L.
        quality: of libjpeg whose luma table is nearest, 1 to 100.
        luma: mean of the luma table.
        tables: "the usual" where `quality` gives exactly this luma table, else its fingerprint.
        subsampling: of chroma, `4:2:0`.
        progressive: 0 or 1.
        exif, profile: 0 or 1, whether there is EXIF, an ICC profile.
        software, camera: as EXIF (or a PNG's text) names them.
        texts: names of a PNG's text entries (image generators leave `parameters`, `prompt`).
    """

    width: int
    height: int
    mode: str
    quality: int
    luma: float
    tables: str
    subsampling: str
    progressive: int
    exif: int
    profile: int
    software: str
    camera: str
    texts: str


def read_picture(file: BinaryIO) -> PictureHeader | None:
    """Read the header of any picture that Pillow knows; None where it has none."""
    try:
        with Image.open(file) as image:
            return _read(image)
    except Exception:  # noqa: BLE001 - of a broken header Pillow makes any error
        return None


def _read(image: Image.Image) -> PictureHeader:
    info = image.info
    jpeg = image.format in ("JPEG", "MPO")
    tables: dict[int, Any] = getattr(image, "quantization", {}) if jpeg else {}
    luma = np.array(tables[min(tables)]) if tables else None
    quality, exact = (-1, True) if luma is None else nearest_quality(luma)
    tags = _exif(info.get("exif"))
    png = image.format == "PNG"
    texts = {str(key) for key, value in info.items() if png and isinstance(value, str)}
    return PictureHeader(
        width=image.width,
        height=image.height,
        mode=image.mode,
        quality=quality,
        luma=-1.0 if luma is None else float(luma.mean()),
        tables="" if luma is None else ORDINARY if exact else _fingerprint(luma),
        subsampling=_subsampling(image) if jpeg else "",
        progressive=int("progressive" in info) if jpeg else -1,
        exif=int(bool(info.get("exif"))),
        profile=int(bool(info.get("icc_profile"))),
        software=_word(tags.get(SOFTWARE) or info.get("Software")),
        camera=f"{_word(tags.get(MAKE))} {_word(tags.get(MODEL))}".strip(),
        texts=" ".join(sorted(texts)),
    )


def nearest_quality(luma: NDArray[np.integer]) -> tuple[int, bool]:
    """Return the libjpeg quality whose luma table is nearest to (64,), and whether it is equal."""
    away = np.abs(_tables() - luma).sum(1)
    best = int(away.argmin())
    return best + 1, not away[best]


@cache
def _tables() -> NDArray[np.int64]:
    """Return libjpeg's luma tables of quality 1 to 100, (100, 64) (jcparam.c, IJG)."""
    quality = np.arange(1, 101)[:, None]
    scale = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    return np.clip((_LUMA * scale + 50) // 100, 1, 255)


def _fingerprint(luma: NDArray[np.integer]) -> str:
    return hashlib.blake2b(luma.astype(np.uint16).tobytes(), digest_size=3).hexdigest()


def _subsampling(image: Image.Image) -> str:
    layers = getattr(image, "layer", [])
    if len(layers) < 3:
        return "grey" if len(layers) == 1 else ""
    (_, wide, high, _), (_, own_wide, own_high, _) = layers[:2]
    factors = wide // max(1, own_wide), high // max(1, own_high)
    return _CHROMA.get(factors, f"{factors[0]}x{factors[1]}")


def _exif(raw: bytes | None) -> dict[int, object]:
    if not raw:
        return {}
    exif = Image.Exif()
    try:
        exif.load(raw)
        return {tag: exif.get(tag) for tag in (MAKE, MODEL, SOFTWARE)}
    except Exception:  # noqa: BLE001 - of broken EXIF Pillow makes any error
        return {}


def _word(value: object) -> str:
    return "" if value is None else " ".join(str(value).replace("\0", " ").split())[:60]
