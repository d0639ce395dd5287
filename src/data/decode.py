"""JPEG through its fastest decoder, scaled down while it decodes, and sizes checked beforehand."""

import io
from collections.abc import Sequence

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

MAX_PIXELS = 2**28  # 268 million, 805 MB as RGB: above the largest cameras, below a bomb
JPEG_START = b"\xff\xd8\xff"
_EXIF = b"Exif\0\0"
_ORIENTATION, _SHORT = 0x0112, 3

# Pillow only reads headers here, and `check_size` holds them to the limit above.
Image.MAX_IMAGE_PIXELS = None


class UnreadableImageError(ValueError):
    """The bytes are not an image that can be decoded."""


def check_size(height: int, width: int) -> None:
    """Raise an UnreadableImageError for an image of more than `MAX_PIXELS`."""
    if height * width > MAX_PIXELS:
        raise UnreadableImageError(
            f"its header announces {width}x{height} pixels; more than {MAX_PIXELS:,} are refused "
            "(a decompression bomb, or an image to be cut up first)"
        )


def check_header(data: bytes) -> None:
    """Check the size that a file of any format announces, before anything is allocated for it.

    What Pillow cannot read passes: the decoder has the last word.

    Raises:
        UnreadableImageError: more than `MAX_PIXELS`.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
    except Exception:  # noqa: BLE001 - a broken header fails in as many ways as there are formats
        return
    check_size(height, width)


def decode_jpeg(data: bytes, sides: Sequence[int | None]) -> list[NDArray[np.uint8]] | None:
    """Decode a JPEG, for each wanted side at the smallest scale that still covers it.

    Scaled decoding computes fewer coefficients of each block: it averages, and does not alias.

    Args:
        data: the file's bytes.
        sides: both sides of the result are at least this many pixels, unless the image has fewer;
            None decodes at full size.

    Returns:
        uint8 RGB (height, width, 3) for each side, EXIF orientation applied; equal scales share
        one array. None where this decoder does not do it: CMYK, damaged, unclear EXIF.

    Raises:
        UnreadableImageError: more than `MAX_PIXELS`.
    """
    try:
        height, width, colours, _ = _header(data, 0)
    except ValueError:
        return None
    check_size(height, width)
    orientation = exif_orientation(data)
    if orientation is None or colours not in ("YCbCr", "Gray"):
        return None
    by_scale: dict[tuple[int, int], NDArray[np.uint8]] = {}
    found = []
    try:
        for side in sides:
            scale = _header(data, side or 0)[:2]
            if scale not in by_scale:
                by_scale[scale] = _turn(_pixels(data, side or 0), orientation)
            found.append(by_scale[scale])
    except ValueError:  # also for what is merely suspicious: OpenCV decides
        return None
    return found


def _header(data: bytes, side: int) -> tuple[int, int, str, str]:
    """Return height and width at the scale of a side, colour space and subsampling."""
    factor = 2 if side else 1  # below a half, scaled decoding costs more than the whole image
    height, width, colours, chroma = simplejpeg.decode_jpeg_header(
        data, min_height=side, min_width=side, min_factor=factor
    )
    return int(height), int(width), colours, chroma


def _pixels(data: bytes, side: int) -> NDArray[np.uint8]:
    factor = 2 if side else 1
    return simplejpeg.decode_jpeg(data, "RGB", min_height=side, min_width=side, min_factor=factor)


def exif_orientation(data: bytes) -> int | None:
    """Return the EXIF orientation of a JPEG, 1 to 8; 1 where there is none, None where unclear."""
    try:
        return _orientation_in_segments(data)
    except IndexError:
        return None if _EXIF in data else 1


def _orientation_in_segments(data: bytes) -> int | None:
    place, found = 2, None
    while data[place] == 0xFF and data[place + 1] not in (0xDA, 0xD9, 0xFF):
        length = int.from_bytes(data[place + 2 : place + 4], "big")
        if data[place + 1] == 0xE1 and data.startswith(_EXIF, place + 4):
            if found is not None:
                return None
            found = _orientation_in_tiff(data[place + 10 : place + 2 + length])
            if found is None:
                return None
        place += 2 + length
    if data[place : place + 2] != b"\xff\xda" and (found is not None or _EXIF in data):
        return None
    return 1 if found is None else found


def _orientation_in_tiff(tiff: bytes) -> int | None:
    order = {b"II*\0": "little", b"MM\0*": "big"}.get(tiff[:4])
    if order is None:
        return None

    def number(place: int, size: int) -> int:
        if place + size > len(tiff):
            raise IndexError
        return int.from_bytes(tiff[place : place + size], order)  # type: ignore[arg-type]

    start = number(4, 4)
    for entry in range(start + 2, start + 2 + 12 * number(start, 2), 12):
        if number(entry, 2) == _ORIENTATION:
            value = number(entry + 8, 2)
            plain = number(entry + 2, 2) == _SHORT and number(entry + 4, 4) == 1
            return value if plain and 1 <= value <= 8 else None
    return 1


def _turn(image: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Undo an EXIF orientation."""
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(image[::rows, ::columns])
