"""From a decoded frame to upright RGB: one conversion, whoever decoded it and whatever its tags.

The matrix and the range are those that the clip names; what names none is BT.601, limited, at any
size. Nothing else is converted: what is HLG, PQ or of other primaries keeps its values.
"""

import struct
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from av import VideoFrame
    from av.video.codeccontext import VideoCodecContext

Picture = NDArray[np.uint8]

# By the numbers of ITU-T H.273, as FFmpeg's own, which name the matrix that converts.
_BT601, _BT2020 = 5, 9
_CONVERTED = (0, 1, 2, 4, 5, 6, 7, 9)  # RGB, BT.709, none named, FCC, BT.601 twice, 240M, BT.2020
_BT601_ALIKE = (0, 2, 5, 6)
_FULL = 2  # range
_NEAREST = {10: _BT2020}  # BT.2020 with constant luminance, as FFmpeg 5 reads it
_MATRICES = {3: "a reserved matrix", 8: "YCgCo", 10: "BT.2020 with constant luminance",
             11: "ST 2085", 12: "a matrix derived from primaries",
             13: "a matrix derived from primaries", 14: "ICtCp"}  # fmt: skip
_TRANSFERS = {9: "logarithmic", 10: "logarithmic", 16: "PQ", 18: "HLG"}
_PLAIN_TRANSFERS = (1, 2, 4, 5, 6, 7, 8, 11, 12, 13, 14, 15, 17)
# Pixel formats that both enlarge and round alike.
_ALIKE = ("yuv420p", "yuv422p", "yuv444p", "yuvj420p", "yuvj422p", "yuvj444p", "gray")
_NEAR_PRIMARIES = (1, 2, 4, 5, 6, 7)  # not: film, BT.2020, P3
_SQUARE = "<9i"  # a display matrix: 9 numbers, row by row


def to_rgb(frame: "VideoFrame") -> Picture:
    """Convert a frame by the matrix and the range that it names.

    Returns:
        uint8 RGB (height, width, 3), as stored: not turned.

    Raises:
        av.FFmpegError: FFmpeg cannot convert its pixel format.
    """
    space = int(frame.colorspace)
    matrix = None if space in _CONVERTED else _NEAREST.get(space, _BT601)
    return np.asarray(frame.to_ndarray(format="rgb24", src_colorspace=matrix, threads=1), np.uint8)


def describe_colours(context: "VideoCodecContext") -> str:
    """Say which of a clip's colours are not converted; "" if there is nothing to say."""
    said = []
    space, transfer = int(context.colorspace), int(context.color_trc)
    if space not in _CONVERTED:
        read_as = "BT.2020" if space in _NEAREST else "BT.601"
        said.append(f"{_MATRICES.get(space, f'matrix {space}')}, read as {read_as}")
    if transfer in _TRANSFERS:
        said.append(f"{_TRANSFERS[transfer]}, not converted to standard range")
    return f"its colours are {'; '.join(said)}" if said else ""


def is_plain(frame: "VideoFrame") -> bool:
    """Tell whether every version of OpenCV converts a frame as `to_rgb` does.

    4.12 takes each matrix for BT.601. 4.13 and later hand out stale memory for what is interlaced
    or of a matrix or transfer that they do not know, and convert PQ, HLG and wide primaries. Chroma
    of 4:1:0 and more than 8 bits come out otherwise than from PyAV.
    """
    full = int(frame.color_range) == _FULL and not frame.format.name.startswith("yuvj")
    return (
        frame.format.name in _ALIKE
        and not (frame.interlaced_frame or full)
        and int(frame.colorspace) in _BT601_ALIKE
        and int(frame.color_trc) in _PLAIN_TRANSFERS
        and int(frame.color_primaries) in _NEAR_PRIMARIES
    )


def display_matrix(frame: "VideoFrame") -> tuple[int, int, int, int]:
    """Return a, b, c, d of a frame's display matrix as -1, 0 or 1: (x, y) -> (ax + cy, bx + dy)."""
    found = frame.side_data.get("DISPLAYMATRIX")
    if found is None or len(found := bytes(found)) < struct.calcsize(_SQUARE):
        return 1, 0, 0, 1
    a, b, _, c, d, *_ = struct.unpack_from(_SQUARE, found)
    size = max(map(abs, (a, b, c, d))) or 1
    return round(a / size), round(b / size), round(c / size), round(d / size)


def upright(picture: Picture, matrix: tuple[int, int, int, int]) -> Picture:
    """Turn and mirror a picture (height, width, 3) as its display matrix says."""
    a, b, c, d = matrix
    if abs(b) + abs(c) > abs(a) + abs(d):
        picture, down, along = picture.transpose(1, 0, 2), b, c
    else:
        down, along = d, a
    return np.ascontiguousarray(picture[:: -1 if down < 0 else 1, :: -1 if along < 0 else 1])
