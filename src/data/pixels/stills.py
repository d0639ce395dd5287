"""Any picture file's bytes to upright RGB pixels; what its decoder objects to is said, not printed.

JPEG goes through `decode`, every other format through Pillow, so that one library says which way
up a picture is (`ImageOps.exif_transpose`), what its modes mean and which frame comes first.
"""

import ctypes
import io
import zlib
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, PngImagePlugin, TiffImagePlugin

from src.data.pixels.decode import Decoded, check_size, complaint, damage, decode_jpeg
from src.data.pixels.formats import describe_unknown, file_format, named
from src.errors import UnreadableImageError

_BY_PILLOW = {
    "jpeg": "JPEG", "png": "PNG", "gif": "GIF", "bmp": "BMP", "tiff": "TIFF", "jp2": "JPEG2000",
    "pbm": "PPM", "pgm": "PPM", "ppm": "PPM", "webp": "WEBP", "avif": "AVIF", "heic": "HEIF",
}  # fmt: skip
# Without these of a PNG there is no picture; its other chunks are notes.
_NEEDED = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_JPEG_IN_TIFF = 7
_STRIPS, _TILES = (273, 279), (324, 325)  # tags of their places and sizes

# Workflows and profiles of more than 1 MB are no attack; 64 MB remain the limit of all texts.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY
with suppress(AttributeError, OSError):  # Pillow's libtiff prints what Pillow raises besides
    ctypes.CDLL(Image.core.__file__).TIFFSetErrorHandler(None)


def decode(data: bytes, sides: Sequence[int | None]) -> Decoded:
    """Decode a picture file.

    Args:
        data: the file's bytes.
        sides: what is wanted of a JPEG, see `decode_jpeg`; other formats come at full size.

    Returns:
        A picture for each side. Alpha is dropped, of an animation the first picture is taken (of an
        APNG its default image), of 16 bits a channel the high byte.

    Raises:
        UnreadableImageError: empty, of no format that is read, of more than `decode.MAX_PIXELS`
            pixels, or not one pixel of it can be decoded.
    """
    if not data:
        raise UnreadableImageError("the file is empty (0 bytes)")
    kind = file_format(data)
    if kind == "unknown":
        raise UnreadableImageError(describe_unknown(data))
    if kind == "jpeg":
        found = decode_jpeg(data, sides)
        if found is not None:
            return found
    pixels, problem = _by_pillow(data, kind)
    return Decoded([pixels] * len(sides), problem)


def _by_pillow(data: bytes, kind: str) -> tuple[NDArray[np.uint8], str]:
    if kind == "heic":
        _register_heic()
    image, problem = _opened(data, kind)
    with image:
        check_size(image.height, image.width)
        try:
            image.load()
        except Exception as error:  # noqa: BLE001 - each format has errors of its own
            if not _holds_pixels(image):
                raise _unreadable(kind, error) from None
            problem = damage(error)
        problem = problem or _damage_within(image, data)
        with suppress(Exception):  # metadata that cannot be read turn nothing
            ImageOps.exif_transpose(image, in_place=True)
        return _as_rgb(image, kind), problem


def _damage_within(image: Image.Image, data: bytes) -> str:
    """Return what is wrong with the JPEGs in a TIFF, whose decoder's objections Pillow drops."""
    tags: Any = getattr(image, "tag_v2", {})
    if tags.get(TiffImagePlugin.COMPRESSION) != _JPEG_IN_TIFF:
        return ""
    tables = tags.get(TiffImagePlugin.JPEGTABLES, b"")[:-2]  # without the end of their own
    tiled = _TILES[0] in tags
    for place, size in zip(*(tags[tag] for tag in (_TILES if tiled else _STRIPS)), strict=False):
        strip = data[place : place + size]
        found = complaint(tables + strip[2:] if tables else strip)
        if found:
            return damage(found)
    return ""


def _opened(data: bytes, kind: str) -> tuple[Image.Image, str]:
    """Return an image whose header was read, and what is wrong with it."""
    try:
        return Image.open(io.BytesIO(data), formats=[_BY_PILLOW[kind]]), ""
    except Exception as error:  # noqa: BLE001 - a broken header fails in many ways
        if kind == "png":
            try:
                bare = Image.open(io.BytesIO(_bare_png(data)), formats=["PNG"])
            except Exception:  # noqa: BLE001
                raise _unreadable(kind, error) from None
            return bare, damage("a checksum or a note in it is wrong")
        raise _unreadable(kind, error) from None


def _unreadable(kind: str, error: Exception) -> UnreadableImageError:
    why = "broken header" if isinstance(error, Image.UnidentifiedImageError) else str(error)
    return UnreadableImageError(f"{named(kind)} of which nothing can be decoded ({why})")


def _bare_png(data: bytes) -> bytes:
    """Return a PNG without its notes, with right checksums: the pixels have one of their own."""
    kept, place = [data[:8]], 8
    while place + 8 <= len(data):
        end = place + 8 + int.from_bytes(data[place : place + 4], "big")
        if data[place + 4 : place + 8] in _NEEDED:
            body = data[place + 4 : end]
            kept += [data[place : place + 4], body, zlib.crc32(body).to_bytes(4, "big")]
        place = end + 4
    return b"".join(kept)


def _holds_pixels(image: Image.Image) -> bool:
    """Tell whether anything was decoded before an error."""
    image.tile = []  # type: ignore[attr-defined] - nothing is left to be decoded
    try:
        return image.getbbox() is not None
    except Exception:  # noqa: BLE001 - some decoders give all or nothing
        return False


def _as_rgb(image: Image.Image, kind: str) -> NDArray[np.uint8]:
    if image.mode.startswith("I;16") or (image.mode == "I" and kind == "pgm"):
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode in ("I", "F"):
        what = "floats" if image.mode == "F" else "32-bit or signed integers"
        raise UnreadableImageError(
            f"{named(kind)} of {what}, whose range is not known: convert it to 8 bits a channel"
        )
    image.info.pop("transparency", None)  # dropped as all alpha is, without a warning
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _register_heic() -> None:
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        raise UnreadableImageError(
            "a HEIC picture: pip install pillow-heif reads it, or convert it to JPEG"
        ) from None
    register_heif_opener()
