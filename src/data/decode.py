"""JPEG through its fastest decoder, scaled down while it decodes, and sizes checked beforehand."""

import io
import re
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

MAX_PIXELS = 2**28  # 268 million, 805 MB as RGB: above the largest cameras, below a bomb
DAMAGED = "damaged picture"  # begins what is said of one that could be read only in part
_END = b"\xff\xd9"
# What a JPEG that need not be upright must contain (`Image.getexif` reads no other).
_TURNING = (b"Exif\0\0", b"tiff:Orientation")
_SHORT = 2**16  # bytes; to search more takes longer than to parse the header

Image.MAX_IMAGE_PIXELS = None  # `check_size` holds all pictures to the limit above
# Pillow warns of odd metadata on stderr; what cannot be decoded it raises.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


class UnreadableImageError(ValueError):
    """The bytes are not an image that can be decoded."""


class Decoded(NamedTuple):
    """A picture, upright.

    Attributes:
        pixels: uint8 RGB (height, width, 3), one for each side that was asked for.
        problem: "", or `DAMAGED` and what its decoder objected to.
    """

    pixels: list[NDArray[np.uint8]]
    problem: str = ""


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
                found, problem = _decode(data, side or 0, colours)
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
        return None
    return Decoded(pixels, problem)


def _header(data: bytes, side: int) -> tuple[int, int, str, str]:
    """Return height and width at the scale of a side, colour space and subsampling."""
    factor = 2 if side else 1  # below a half, scaled decoding costs more than the whole image
    height, width, colours, chroma = simplejpeg.decode_jpeg_header(
        data, min_height=side, min_width=side, min_factor=factor
    )
    return int(height), int(width), colours, chroma


def _decode(data: bytes, side: int, colours: str) -> tuple[NDArray[np.uint8], str]:
    """Return pixels at the scale of a side, and what is wrong with them."""

    def pixels(data: bytes, *, strict: bool) -> NDArray[np.uint8]:
        space = "CMYK" if colours in ("CMYK", "YCCK") else "RGB"
        found = simplejpeg.decode_jpeg(
            data, space, min_height=side, min_width=side, min_factor=2 if side else 1, strict=strict
        )
        if space == "RGB":
            return found
        # Stored inverted, as Adobe began it and everybody else took over.
        return np.array(Image.fromarray(~found, "CMYK").convert("RGB"))

    try:
        return pixels(data, strict=True), ""
    except ValueError as error:
        complaint = str(error)
    if complaint.startswith("Premature end"):
        try:  # where only the two bytes that end a JPEG are missing, no pixel is
            return pixels(data + _END, strict=True), ""
        except ValueError as error:
            complaint = str(error)
    # It also warns of odd headers and colour profiles, which move no pixel.
    corrupt = complaint.startswith(("Premature end", "Corrupt JPEG")) and "ICC" not in complaint
    return pixels(data, strict=False), damage(complaint) if corrupt else ""


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
