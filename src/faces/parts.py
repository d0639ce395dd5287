"""A part of a picture as a net sees it, and back; a second look with black around the picture."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from src.faces.crop import Box, Face, Picture, moved

MARGIN = 0.25  # of black on each side of a picture, times its longer side: faces may fill it
Look = Callable[[Sequence[Picture]], list[list[Face]]]


class Window(NamedTuple):
    """A square of a picture, as a net sees it; black where the picture ends."""

    pixels: Picture
    across: float  # px of the part for one of the picture
    down: float
    left: float  # px of the picture at which the part begins
    top: float

    def back(self, face: Face) -> Face:
        """Return a face of the part in pixels of the picture."""

        def point(x: float, y: float) -> tuple[float, float]:
            return x / self.across + self.left, y / self.down + self.top

        x0, y0, x1, y1 = face.box
        points = face.points and tuple(point(x, y) for x, y in face.points)
        return Face((*point(x0, y0), *point(x1, y1)), face.score, points)


def look(picture: Picture, box: Box, side: int) -> Window:
    """Show a part of a picture, which may reach over its edge, in the middle of `side` x `side` px.

    Shape and colours stay; what lies beyond the picture, or fills up the square, is black.
    """
    height, width = picture.shape[:2]
    x0, y0, x1, y1 = box
    scale = side / max(x1 - x0, y1 - y0, 1e-6)
    begin_x, begin_y = (x0 + x1) / 2 - side / scale / 2, (y0 + y1) / 2 - side / scale / 2
    left, right = _within(x0, x1, width)
    top, bottom = _within(y0, y1, height)
    shown, times = halved(picture[top:bottom, left:right], scale * max(bottom - top, right - left))
    bottom, right = top + times * shown.shape[0], left + times * shown.shape[1]
    size = [min(side, max(1, round(scale * n))) for n in (right - left, bottom - top)]
    how = cv2.INTER_AREA if times * scale < 1 else cv2.INTER_LINEAR
    small = cv2.resize(shown, size, interpolation=how)
    x = min(max(0, round(scale * (left - begin_x))), side - size[0])
    y = min(max(0, round(scale * (top - begin_y))), side - size[1])
    pixels = np.zeros((side, side, 3), np.uint8)
    pixels[y : y + size[1], x : x + size[0]] = small
    across, down = size[0] / (right - left), size[1] / (bottom - top)
    return Window(pixels, across, down, left - x / across, top - y / down)


def halved(picture: Picture, longest: float) -> tuple[Picture, int]:
    """Halve a picture as long as its longer side stays `longest` px and more; and by what.

    OpenCV averages 2x2 pixels many times as fast as areas of any other size. Of odd sides, the last
    pixel is left out.
    """
    times = 1
    while max(picture.shape[:2]) >= 2 * longest and min(picture.shape[:2]) > 1:
        height, width = picture.shape[0] // 2, picture.shape[1] // 2
        even = picture[: 2 * height, : 2 * width]
        small = cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA)
        picture = np.asarray(small, np.uint8)
        times *= 2
    return picture, times


def look_again(look_once: Look, pictures: Sequence[Picture]) -> list[list[Face]]:
    """Return the faces of pictures; where one reaches over an edge, of a look with a margin."""
    found = look_once(pictures)
    again = [k for k, faces in enumerate(found) if _is_tight(faces, pictures[k])]
    wider = look_wider(look_once, [pictures[k] for k in again])
    for place, faces in zip(again, wider, strict=True):
        found[place] = faces or found[place]
    return found


def look_wider(look_once: Look, pictures: Sequence[Picture]) -> list[list[Face]]:
    """Return the faces of pictures with a black margin round each."""
    margins = [round(MARGIN * max(picture.shape[:2])) for picture in pictures]
    sides = [((margin, margin), (margin, margin), (0, 0)) for margin in margins]
    found = look_once([np.pad(*both) for both in zip(pictures, sides, strict=True)])
    return [
        [moved(face, -margin, -margin) for face in faces]
        for margin, faces in zip(margins, found, strict=True)
    ]


def _is_tight(faces: Sequence[Face], picture: Picture) -> bool:
    height, width = picture.shape[:2]
    boxes = [face.box for face in faces]
    return any(b[0] < 0 or b[1] < 0 or b[2] > width or b[3] > height for b in boxes)


def _within(low: float, high: float, end: int) -> tuple[int, int]:
    """Return the whole pixels of 0..end that a stretch touches; at least one."""
    first = min(max(0, int(np.floor(low))), end - 1)
    return first, min(max(first + 1, int(np.ceil(high))), end)
