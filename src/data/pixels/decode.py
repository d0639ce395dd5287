"""Any picture file's bytes to upright RGB pixels; what its decoder objects to is said, not printed.

JPEG goes through its fastest decoder, scaled down while it decodes, every other format through
Pillow, so that one library says which way up a picture is (`ImageOps.exif_transpose`), what its
modes mean and which frame comes first. Sizes are checked beforehand.
"""

import ctypes
import io
import re
import warnings
import zlib
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageOps, PngImagePlugin, TiffImagePlugin

from src.data.pixels.formats import describe_unknown, file_format, named
from src.errors import UnreadableImageError

MAX_PIXELS = 2**28  # 268 million, 805 MB as RGB: above the largest cameras, below a bomb
DAMAGED = "damaged picture"  # begins what is said of one that could be read only in part
_END = b"\xff\xd9"
# Objections to headers of which no pixel hangs.
_HARMLESS = (
    "Corrupt JPEG data: bad ICC marker", "Warning: unknown JFIF revision",
    "Unknown Adobe color transform", "Invalid SOS parameters for sequential",
)  # fmt: skip
# What a JPEG that need not be upright must contain (`Image.getexif` reads no other).
_TURNING = (b"Exif\0\0", b"tiff:Orientation")
_SHORT = 2**16  # bytes; to search more takes longer than to parse the header

_BY_PILLOW = {
    "jpeg": "JPEG", "png": "PNG", "gif": "GIF", "bmp": "BMP", "tiff": "TIFF", "jp2": "JPEG2000",
    "pbm": "PPM", "pgm": "PPM", "ppm": "PPM", "webp": "WEBP", "avif": "AVIF", "heic": "HEIF",
}  # fmt: skip
# Without these of a PNG there is no picture; its other chunks are notes.
_NEEDED = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_JPEG_IN_TIFF = 7
_STRIPS, _TILES = (273, 279), (324, 325)  # tags of their places and sizes

Image.MAX_IMAGE_PIXELS = None  # `check_size` holds all pictures to the limit above
# Pillow warns of odd metadata on stderr; what cannot be decoded it raises.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
# Workflows and profiles of more than 1 MB are no attack; 64 MB remain the limit of all texts.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY
with suppress(AttributeError, OSError):  # Pillow's libtiff prints what Pillow raises besides
    ctypes.CDLL(Image.core.__file__).TIFFSetErrorHandler(None)


class Decoded(NamedTuple):
    """A picture, upright."""

    # uint8 RGB (height, width, 3), one for each side that was asked for
    pixels: list[NDArray[np.uint8]]
    problem: str = ""  # "", or `DAMAGED` and what its decoder objected to


def check_size(height: int, width: int) -> None:
    """Raise an UnreadableImageError for an image of more than `MAX_PIXELS`."""
    if height * width > MAX_PIXELS:
        raise UnreadableImageError(
            f"its header announces {width}x{height} pixels; more than {MAX_PIXELS:,} are refused "
            "(a decompression bomb, or an image to be cut up first)"
        )


def _damage(complaint: object) -> str:
    return f"{DAMAGED}, read as far as its decoder went ({complaint})"


def decode(data: bytes, sides: Sequence[int | None]) -> Decoded:
    """Decode a picture file, of a JPEG for each side at the smallest scale that still covers it.

    Both sides of the result are at least as many pixels, unless the image has fewer; None, and any
    format but JPEG, come at full size. Scaled decoding computes fewer coefficients of each block:
    it averages, and does not alias. Equal scales share one array. Alpha is dropped, of an animation
    the first picture is taken (of an APNG its default image), of 16 bits a channel the high byte.

    Raises:
        UnreadableImageError: empty, of no format that is read, of more than `MAX_PIXELS`, of a
            depth that no decoder here reads, or not one pixel of it can be decoded.
    """
    if not data:
        raise UnreadableImageError("the file is empty (0 bytes)")
    kind = file_format(data)
    if kind == "unknown":
        raise UnreadableImageError(describe_unknown(data))
    if kind == "jpeg":
        found = _decode_jpeg(data, sides)
        if found is not None:
            return found
    pixels, problem = _by_pillow(data, kind)
    return Decoded([pixels] * len(sides), problem)


def _decode_jpeg(data: bytes, sides: Sequence[int | None]) -> Decoded | None:
    """Return the picture, turned upright as Pillow would; None where this decoder gives none."""
    by_scale: dict[tuple[int, int], NDArray[np.uint8]] = {}
    pixels, problem = [], ""
    try:
        height, width, colours, _ = _header(data, 0)
        check_size(height, width)
        for side in sides:
            scale = _header(data, side)[:2] if side else (height, width)
            if scale not in by_scale:
                found, problem = _decode(data, side or 0, scale, colours)
                by_scale[scale] = _turn(found, jpeg_orientation(data))
            pixels.append(by_scale[scale])
    except UnreadableImageError:
        raise
    except ValueError as error:
        deep = re.search(r"precision (\d+)", str(error))
        if deep:
            raise UnreadableImageError(
                f"a JPEG of {deep[1]} bits a channel, and 8 are read: convert it to PNG"
            ) from None
        bare = _bare(data) if str(error).startswith(_HARMLESS) else data
        return None if bare == data else _decode_jpeg(bare, sides)
    return Decoded(pixels, problem)


def _header(data: bytes, side: int) -> tuple[int, int, str, str]:
    """Return height and width at the scale of a side, colour space and subsampling."""
    factor = 2 if side else 1  # below a half, scaled decoding costs more than the whole image
    height, width, colours, chroma = simplejpeg.decode_jpeg_header(
        data, min_height=side, min_width=side, min_factor=factor
    )
    return int(height), int(width), colours, chroma


def _space(colours: str) -> str:
    return "CMYK" if colours in ("CMYK", "YCCK") else "RGB"


def _decode(
    data: bytes, side: int, shape: tuple[int, int], colours: str
) -> tuple[NDArray[np.uint8], str]:
    """Return pixels at the scale of a side, of that shape, and what is wrong with them."""
    space, factor = _space(colours), 2 if side else 1
    read = partial(
        simplejpeg.decode_jpeg, data, space, min_height=side, min_width=side, min_factor=factor
    )
    problem = ""
    try:
        found = read()
    except ValueError:
        problem = _complaint(data)
        # Rows that were not reached are not written.
        found = np.zeros((*shape, len(space)), np.uint8)
        read(strict=False, buffer=found)
        if not found.any():
            raise
    if space == "CMYK":  # stored inverted, as Adobe began it and everybody else took over
        found = np.array(Image.fromarray(~found, space).convert("RGB"))
    return found, _damage(problem) if problem else ""


def _complaint(data: bytes) -> str:
    """Return what the decoder of a JPEG objects to; "" for what moves no pixel."""
    found = _objection(data)
    if found.startswith("Premature end"):  # perhaps of the two bytes that end a JPEG alone
        data += _END
        found = _objection(data)
    if found.startswith(_HARMLESS):  # it tells its first objection and no other
        found = _objection(_bare(data + _END))
    return "" if found.startswith(_HARMLESS) else found


def _objection(data: bytes) -> str:
    try:
        space = _space(_header(data, 0)[2])
        simplejpeg.decode_jpeg(data, space, min_height=1, min_width=1)
    except ValueError as error:
        return str(error) or "broken"
    return ""


def _bare(data: bytes) -> bytes:
    """Return a JPEG without headers of JFIF and of colour profiles, its first scan a whole one."""
    kept, place = [data[:2]], 2
    while data[place : place + 1] == b"\xff":
        kind, length = data[place + 1 : place + 2], data[place + 2 : place + 4]
        end = place + 2 + int.from_bytes(length, "big")
        if kind == b"\xda":
            return b"".join([*kept, data[place : end - 3], b"\0\x3f\0", data[end:]])
        kept += [] if kind in (b"\xe0", b"\xe2") else [data[place:end]]
        place = end
    return data


def jpeg_orientation(data: bytes) -> int:
    """Return the orientation of a JPEG by EXIF or XMP, 1 to 8; 1 where there is none."""
    if len(data) <= _SHORT and not any(mark in data for mark in _TURNING):
        return 1
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            value = image.getexif().get(0x0112, 1)
    except Exception:  # noqa: BLE001 - broken metadata fail in as many ways as there are tags
        return 1
    return value if value in range(1, 9) else 1


def _turn(image: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Undo an EXIF orientation."""
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(image[::rows, ::columns])


def decode_values(data: bytes) -> NDArray[Any]:
    """Decode the values of a picture file as they are stored, upright: (height, width[, channels]).

    Of any depth, integers or floats; one bit as 0 and 255, a palette as its colours, what is
    transparent as black. So a mask is read, whose values mean something.

    Raises:
        UnreadableImageError: see `decode`; or it can be read only in part.
    """
    kind = file_format(data)
    if not data or kind in ("unknown", "jpeg"):
        found = decode(data, [None])
        values, problem = found.pixels[0], found.problem
    else:
        image, problem = _loaded(data, kind)
        with image:
            if image.mode not in ("L", "RGB", "I", "F") and not image.mode.startswith("I;16"):
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
                image = image.convert("RGB")
            values = np.array(image)
    if problem:
        raise UnreadableImageError(problem)
    return values


def size_of(data: bytes) -> tuple[int, int]:
    """Return height and width of a picture file, upright, from its header.

    Raises:
        UnreadableImageError: no format that is read, or a header that cannot be.
    """
    kind = file_format(data)
    if kind == "unknown":
        raise UnreadableImageError(describe_unknown(data))
    with _opened(data, kind)[0] as image:
        turned = 1
        with suppress(Exception):  # metadata that cannot be read turn nothing
            # Not a PNG's own, which decodes all pixels to look behind them.
            turned = Image.Image.getexif(image).get(0x0112, 1)
        if kind == "jpeg":
            turned = jpeg_orientation(data)
        lies = turned in (5, 6, 7, 8)
        return (image.width, image.height) if lies else (image.height, image.width)


def _by_pillow(data: bytes, kind: str) -> tuple[NDArray[np.uint8], str]:
    image, problem = _loaded(data, kind)
    with image:
        return _as_rgb(image, kind), problem


def _loaded(data: bytes, kind: str) -> tuple[Image.Image, str]:
    """Return an image, decoded and upright, and what is wrong with it."""
    image, problem = _opened(data, kind)
    check_size(image.height, image.width)
    try:
        image.load()
    except Exception as error:  # noqa: BLE001 - each format has errors of its own
        if not _holds_pixels(image):
            raise _unreadable(kind, error) from None
        problem = _damage(error)
    problem = problem or _damage_within(image, data)
    with suppress(Exception):  # metadata that cannot be read turn nothing
        ImageOps.exif_transpose(image, in_place=True)
    return image, problem


def _damage_within(image: Image.Image, data: bytes) -> str:
    """Return what is wrong with the JPEGs in a TIFF: Pillow drops what their decoder says."""
    tags: Any = getattr(image, "tag_v2", {})
    if tags.get(TiffImagePlugin.COMPRESSION) != _JPEG_IN_TIFF:
        return ""
    tables = tags.get(TiffImagePlugin.JPEGTABLES, b"")[:-2]  # without the end of their own
    tiled = _TILES[0] in tags
    for place, size in zip(*(tags[tag] for tag in (_TILES if tiled else _STRIPS)), strict=False):
        strip = data[place : place + size]
        found = _complaint(tables + strip[2:] if tables else strip)
        if found:
            return _damage(found)
    return ""


def _opened(data: bytes, kind: str) -> tuple[Image.Image, str]:
    """Return an image whose header was read, and what is wrong with it."""
    if kind == "heic":
        register_heic()
    try:
        return Image.open(io.BytesIO(data), formats=[_BY_PILLOW[kind]]), ""
    except Exception as error:  # noqa: BLE001 - a broken header fails in many ways
        if kind == "png":
            try:
                bare = Image.open(io.BytesIO(_bare_png(data)), formats=["PNG"])
            except Exception:  # noqa: BLE001
                raise _unreadable(kind, error) from None
            return bare, _damage("a checksum or a note in it is wrong")
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


def register_heic() -> None:
    """Teach Pillow to open HEIC.

    Raises:
        UnreadableImageError: the extra that reads it is missing.
    """
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        raise UnreadableImageError(
            "a HEIC picture: pip install pillow-heif reads it, or convert it to JPEG"
        ) from None
    register_heif_opener()
