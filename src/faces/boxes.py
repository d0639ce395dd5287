"""A face in a picture, and how boxes overlap."""

from typing import NamedTuple

from numpy.typing import NDArray

Box = tuple[float, float, float, float]
# x, y of: the eye at the left of the picture, the other eye, nose, the corners of the mouth.
Points = tuple[tuple[float, float], ...]


class Face(NamedTuple):
    """A face, in pixels of its picture.

    Attributes:
        box: x0, y0, x1, y1; may reach over the edge of the picture.
        score: how sure the detector is, 0 to 1.
        points: five of them, see `Points`; None where the detector gives none.
    """

    box: Box
    score: float
    points: Points | None = None


def area(box: Box) -> float:
    """Return the area of a box in square pixels; 0 where its corners are the wrong way round."""
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def iou(one: Box, other: Box) -> float:
    """Return intersection over union of two boxes, 0 to 1."""
    shared = area(
        (
            max(one[0], other[0]),
            max(one[1], other[1]),
            min(one[2], other[2]),
            min(one[3], other[3]),
        )
    )
    union = area(one) + area(other) - shared
    return shared / union if union > 0 else 0.0


def between(one: Face, other: Face, share: float) -> Face:
    """Return the face that lies `share` (0 to 1) of the way from one to another."""

    def mix(a: float, b: float) -> float:
        return a + share * (b - a)

    x0, y0, x1, y1 = (mix(a, b) for a, b in zip(one.box, other.box, strict=True))
    points = None
    if one.points is not None and other.points is not None:
        points = tuple(
            (mix(a[0], b[0]), mix(a[1], b[1]))
            for a, b in zip(one.points, other.points, strict=True)
        )
    return Face((x0, y0, x1, y1), min(one.score, other.score), points)


def scaled(face: Face, across: float, down: float) -> Face:
    """Return a face of a picture that was made so many times as wide and as high."""
    x0, y0, x1, y1 = face.box
    points = face.points
    if points is not None:
        points = tuple((across * x, down * y) for x, y in points)
    return Face((across * x0, down * y0, across * x1, down * y1), face.score, points)


def inside(faces: list[Face], picture: NDArray) -> list[Face]:
    """Return the faces at least half of whose box lies in the picture."""
    height, width = picture.shape[:2]
    kept = []
    for face in faces:
        x0, y0, x1, y1 = face.box
        seen = area((max(0.0, x0), max(0.0, y0), min(width, x1), min(height, y1)))
        if seen > 0 and seen >= area(face.box) / 2:
            kept.append(face)
    return kept
