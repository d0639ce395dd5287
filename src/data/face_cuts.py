"""What canvases show of a picture: all of it, or a face."""

from collections.abc import Iterable, Sequence
from copy import copy
from pathlib import Path

from src.config import FaceConfig, FramesConfig
from src.data.face_boxes import FaceBoxes, Picture
from src.data.images import Canvas


class FaceCuts:
    """What the canvases of a list of items show of a picture: all of it, or a face.

    Args:
        root: folder of the data set.
        canvases: of the items.
        frames: which frames of clips are looked at.
    """

    def __init__(self, root: Path, canvases: Iterable[Canvas], frames: FramesConfig) -> None:
        faces = dict.fromkeys(canvas.face for canvas in canvases if canvas.face is not None)
        self.boxes = {face: FaceBoxes(root, face, frames) for face in faces}
        self.person = 0

    def search(self, items: Sequence[str]) -> None:
        """Find the faces that a canvas shows; see `FaceBoxes.search`."""
        for boxes in self.boxes.values():
            boxes.search(items)

    def cut(self, path: str, frame: int, canvas: Canvas, picture: Picture) -> Picture:
        """Return what a canvas shows of a picture, before it is resized; see `FaceBoxes.crop`."""
        return (
            picture
            if canvas.face is None
            else self.boxes[canvas.face].crop(path, picture, frame, self.person)
        )

    def of_person(self, person: int) -> "FaceCuts":
        """Return the same faces, of which another person's is shown."""
        other = copy(self)
        other.person = person
        return other

    def count_people(self, face: FaceConfig, items: Sequence[str]) -> list[int]:
        """Return how many people each item shows."""
        self.boxes[face].search(items)
        return [len(self.boxes[face].people(path)) for path in items]

    def faceless(self, face: FaceConfig | None, items: Sequence[str]) -> list[int]:
        """Return which items show no face, so that the whole picture stood for it."""
        if face is None:
            return []
        lost = set(self.boxes[face].faceless(items))
        return [place for place, path in enumerate(items) if path in lost]

    def stamp(self, path: str) -> tuple[int, ...]:
        """Return what decides an item's crop beside its file and the canvas."""
        return (1,) if any(boxes.is_cropped(path) for boxes in self.boxes.values()) else ()
