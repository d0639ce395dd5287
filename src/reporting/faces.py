"""A contact sheet of the faces that were found, and of what a model would see of them."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from src import paths
from src.data.items.files import kind_of
from src.data.items.manifest import Dataset
from src.data.pixels.faces import FaceBoxes
from src.data.pixels.video import read_picture
from src.errors import UserError
from src.faces.crop import Face, crop_face
from src.faces.tracks import place
from src.reporting.preview import Row, draw_rows
from src.seeds import derive_seed

Picture = NDArray[np.uint8]
FOUND, LOST = 4, 2  # items of each label with a face, and without
SIDE = 480  # px of the longer side of a picture on the sheet
CHOSEN, OTHER, FILLED = (0, 230, 0), (255, 200, 0), (90, 160, 255)


def draw_faces(dataset: Dataset, boxes: FaceBoxes) -> Path:
    """Draw some training items with their boxes, the crop and the aligned crop.

    The person that a model follows is drawn green, other faces yellow; blue is a box that was
    filled in from the frames around. An item without a face shows the whole picture. Of a clip,
    one frame is shown.

    Args:
        dataset: data set.
        boxes: its train items, searched.

    Returns:
        The PNG.

    Raises:
        UserError: no train items with a face, or without, that can be decoded.
    """
    train = dataset.train
    rows = []
    for label in (0, 1):
        part = train[train["label"] == label]
        ids = dict(zip(part["path"], part["item_id"], strict=True))
        rows += [
            Row(str(ids[path]), label, _pictures(dataset.root, path, boxes))
            for path in _choose(list(ids), boxes)
        ]
    if not rows:
        raise UserError(f"{dataset.root}: no train item that can be drawn")
    margin = boxes.face.margin
    titles = ["boxes", f"crop, margin {margin:g}", f"aligned, margin {margin:g}"]
    title = f"faces of {dataset.name} by {boxes.face.detector}"
    path = paths.faces_png(dataset.name)
    return draw_rows(rows, titles, title, path, dataset.labels.names)


def _choose(items: list[str], boxes: FaceBoxes) -> list[str]:
    """Return some items with a face and some without, the same ones each time."""
    rng = np.random.default_rng(derive_seed(0, "faces"))
    order = [items[k] for k in rng.permutation(len(items)) if boxes.frames_of(items[k])]
    found = [path for path in order if boxes.people(path)][:FOUND]
    return found + [path for path in order if not boxes.people(path)][:LOST]


def _pictures(root: Path, path: str, boxes: FaceBoxes) -> list[Picture]:
    numbers = sorted(boxes.frames_of(path))
    number = numbers[len(numbers) // 2]
    if kind_of(path) == "video":
        picture = boxes.read_frame(path, number)
    else:
        picture = read_picture(root, path)
    people = boxes.people(path)
    faces = boxes.frames_of(path)[number]
    placed = place(people[0], number) if people else None
    marked = _marked(picture, [f for f in faces if placed is None or f != placed.face], OTHER)
    if placed is None:
        return [_small(one) for one in (marked, picture, picture)]
    marked = _marked(marked, [placed.face], FILLED if placed.is_filled else CHOSEN)
    margin = boxes.face.margin
    crops = [crop_face(picture, placed.face, margin, align=align) for align in (False, True)]
    return [_small(one) for one in (marked, *crops)]


def _marked(picture: Picture, faces: list[Face], colour: tuple[int, int, int]) -> Picture:
    picture = picture.copy()
    width = max(1, max(picture.shape[:2]) // 200)
    for face in faces:
        x0, y0, x1, y1 = (round(value) for value in face.box)
        cv2.rectangle(picture, (x0, y0), (x1, y1), colour, width)
        for x, y in face.points or ():
            cv2.circle(picture, (round(x), round(y)), width, colour, -1)
    return picture


def _small(picture: Picture) -> Picture:
    scale = SIDE / max(picture.shape[:2])
    if scale >= 1:
        return picture
    size = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
