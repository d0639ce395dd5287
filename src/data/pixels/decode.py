"""JPEG through its fastest decoder, scaled down while it decodes, and sizes checked beforehand."""

import io
import re
import warnings
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

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

Image.MAX_IMAGE_PIXELS = None  # `check_size` holds all pictures to the limit above
# Pillow warns of odd metadata on stderr; what cannot be decoded it raises.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


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


def damage(complaint: object) -> str:
    """Return the `problem` of a picture whose decoder objected."""
    return f"{DAMAGED}, read as far as its decoder went ({complaint})"


def decode_jpeg(data: bytes, sides: Sequence[int | None]) -> Decoded | None:
    """Decode a JPEG, for each wanted side at the smallest scale that still covers it.

    Scaled decoding computes fewer coefficients of each block: it averages, and does not alias.

    Args:
        data: the file's bytes.
        sides: both sides of the result are at least this many pixels, unless the image has fewer;
            None decodes at full size.

    Returns:
        The picture, turned as Pillow's `exif_transpose` turns it; equal scales share one array.
        None where this decoder gives none.

    Raises:
        UnreadableImageError: more than `MAX_PIXELS`, or a depth that no decoder here reads.
    """
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
        return None if bare == data else decode_jpeg(bare, sides)
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
    space = _space(colours)
    read = partial(
        simplejpeg.decode_jpeg,
        data,
        space,
        min_height=side,
        min_width=side,
        min_factor=2 if side else 1,
    )
    problem = ""
    try:
        found = read()
    except ValueError:
        problem = complaint(data)
        # Rows that were not reached are not written.
        found = np.zeros((*shape, len(space)), np.uint8)
        read(strict=False, buffer=found)
        if not found.any():
            raise
    if space == "CMYK":  # stored inverted, as Adobe began it and everybody else took over
        found = np.array(Image.fromarray(~found, space).convert("RGB"))
    return found, damage(problem) if problem else ""


def complaint(data: bytes) -> str:
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
