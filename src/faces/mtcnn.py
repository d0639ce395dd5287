"""MTCNN (Zhang et al. 2016), whose weights lie inside the wheel of facenet-pytorch."""

import logging
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from src import paths
from src.artifacts.packages import Package
from src.errors import UserError
from src.faces.crop import Face, Picture
from src.faces.detectors import DETECTORS, Detector, refuse_file
from src.faces.parts import MARGIN, look_again

LOG = logging.getLogger("rvf")
LONGEST = 960
SMALLEST = 24  # px of a face
MIN_SCORE = 0.8
PACKAGE = Package(
    "facenet-pytorch",
    "2.6.0",
    "facenet_pytorch",
    {  # the package's top is left out: it imports `requests` and further nets
        "models/mtcnn.py": "29a965963337313068ab335cbc48f4a4facc2e5857756ef7b9ab11e5c1d6b620",
        "models/utils/detect_face.py": (
            "7f6244c8118b9a19d0b6620e6dcb90625cced5b1eceed58d0d69303b5ccbab06"
        ),
        "data/pnet.pt": "a2a71925e0b9996a42f63e47efc1ca19043e69558b5c523b978d611dfae49c8f",
        "data/rnet.pt": "bbb937de72efc9ef83b186c49f5f558467a1d7e3453a8ece0d71a886633f6a86",
        "data/onet.pt": "165bfbe42940416ccfb977545cf0e976d5bf321f67083ae2aaaa5c764280118d",
    },
    "MIT",
    pip="--no-deps",
    hint="and then pip install requests; `make setup` brings both; without --no-deps, pip would "
    "put an old torch in place of yours",
    licence_file="LICENSE.md",
)


@DETECTORS.register("mtcnn")
class Mtcnn(Detector):
    """Boxes and five points; on a GPU where there is one."""

    identity = f"mtcnn-{PACKAGE.version}-{LONGEST}-{SMALLEST}-{MIN_SCORE}-{MARGIN}"
    batch = 16
    longest: int | None = LONGEST

    def __init__(self, file: Path | None) -> None:
        refuse_file("mtcnn", file)
        self._net: Any = None

    def detect(self, pictures: Sequence[Picture]) -> list[list[Face]]:
        """See `Detector`; a picture with a face over its edge is looked at again, with a margin.

        On tight crops MTCNN is wrong and sure of it (eyes on the brows at score 1.000), unless
        there is black around them. A margin round every picture would cost 1.6 times the time.

        Raises:
            UserError: facenet-pytorch is not installed.
        """
        return look_again(self.look_once, pictures)

    def look_once(self, pictures: Sequence[Picture]) -> list[list[Face]]:
        """Return the faces of pictures as they are; those of one size are looked at together."""
        found: list[list[Face]] = [[] for _ in pictures]
        by_shape: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
        for place, picture in enumerate(pictures):
            by_shape[picture.shape].append(place)
        for shape, places in by_shape.items():
            if min(shape[:2]) <= SMALLEST:
                continue  # too small for a face, and the net would fail
            alike = [pictures[place] for place in places]
            for place, faces in zip(places, self._look(alike), strict=True):
                found[place] = faces
        return found

    def _look(self, pictures: list[Picture]) -> list[list[Face]]:
        import torch

        if self._net is None:
            self._net = _load()
        try:
            boxes, scores, points = self._net.detect(pictures, landmarks=True)
        except torch.OutOfMemoryError:
            if len(pictures) == 1:
                raise
            half = len(pictures) // 2
            return self._look(pictures[:half]) + self._look(pictures[half:])
        except (IndexError, RuntimeError) as error:
            # It fails where a candidate lies outside of its picture (facenet-pytorch 2.6.0).
            if len(pictures) > 1:
                return [faces for one in pictures for faces in self._look([one])]
            LOG.warning("mtcnn failed on a picture, which counts as one without a face: %s", error)
            return [[]]
        rows = zip(boxes, scores, points, strict=True)
        return [_faces(*row) if row[0] is not None else [] for row in rows]


def _load() -> Any:  # noqa: ANN401 - an optional package's own kind
    _find_packed()
    try:
        # The package's top wants `requests`; the copy in a bundle goes without.
        from facenet_pytorch.models.mtcnn import MTCNN  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError(
            f"face.detector: mtcnn wants facenet-pytorch, which cannot be imported ({error}): "
            f"{PACKAGE.install} ({PACKAGE.hint})"
        ) from None
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    return MTCNN(keep_all=True, min_face_size=SMALLEST, select_largest=False, device=device)


def _find_packed() -> None:
    """Let the copy that a bundle brought be imported, before any that is installed."""
    brought = str(paths.packed_packages())
    if paths.bundle_contents().is_file() and Path(brought).is_dir() and brought not in sys.path:
        sys.path.insert(0, brought)


def _faces(boxes: Any, scores: Any, points: Any) -> list[Face]:  # noqa: ANN401 - object arrays
    found = []
    for box, score, marks in zip(boxes, scores, points, strict=True):
        if score is None or float(score) < MIN_SCORE or not np.isfinite(box.astype(float)).all():
            continue
        x0, y0, x1, y1 = (float(value) for value in box)
        five = tuple((float(x), float(y)) for x, y in marks)
        found.append(Face((x0, y0, x1, y1), float(score), five))
    return found
