"""`python -m src faces`: find the faces of a data set once, for every model that crops them."""

from argparse import Namespace
from functools import partial

from src.cli import parsers
from src.cli.common import choose_dataset, listed, show_log
from src.cli.data import by_class
from src.config import FaceConfig
from src.data.items.manifest import Dataset, refuse_missing
from src.data.layouts.load import load_dataset
from src.data.pixels.faces import FaceBoxes
from src.faces.detectors import detector_of
from src.reporting.contact_sheets import draw_faces
from src.strict_yaml import checked


def run_faces(arguments: Namespace) -> None:
    """Do what the flags ask for."""
    name = choose_dataset(arguments.data, arguments.input_root)
    given = {key: getattr(arguments, key) for key in ("detector", "detector_file", "margin")}
    face = checked(given, FaceConfig, "faces")
    detector_of(face)  # a typo answers before a data set is read
    show_log()
    dataset = load_dataset(name, arguments.input_root)
    refuse_missing(dataset)
    boxes = FaceBoxes(dataset.root, face)
    boxes.search(dataset.items["path"].tolist())
    _print_found(dataset, boxes)
    if arguments.preview:
        print(f"preview: {draw_faces(dataset, boxes)}")


def _print_found(dataset: Dataset, boxes: FaceBoxes) -> None:
    (head, items), *rows = by_class(dataset)
    words = ("items", "with a face", "several", "frames", "with a face", "filled")
    print(head + "".join(f"{word:>13}" for word in words))
    for begin, part in rows:
        counts = "".join(f"{text:>13}" for text in _counts(part["path"].tolist(), boxes))
        print(f"{begin}{counts}")
    ids = dict(zip(items["path"], items["item_id"], strict=True))
    cropped = sum(boxes.is_cropped(path) for path in ids)
    if cropped:
        print(f"{cropped} items are cropped already (`faces: cropped`) and were left alone")
    lost = [ids[path] for path in boxes.faceless(ids)]
    if lost:
        print(
            f"{len(lost)} items show no face: a model sees the whole picture of them: "
            f"{listed(lost)}"
        )
    _print_filled(ids, boxes)
    unread = [ids[p] for p in ids if not boxes.frames_of(p) and not boxes.is_cropped(p)]
    if unread:
        print(f"{len(unread)} items cannot be decoded (python -m src data says why)")
    if boxes.looked_at:
        each = 1000 * boxes.seconds / boxes.looked_at
        print(f"{boxes.looked_at} frames searched, {each:.0f} ms each")
    else:
        print("nothing to search: all of it was known")
    print(f"kept in {boxes.home}")


def _print_filled(ids: dict[str, str], boxes: FaceBoxes) -> None:
    """Name the items that show the face they are judged by in less than half of their frames."""
    filled = [
        f"{item} ({count} of {len(boxes.frames_of(path))})"
        for path, item in ids.items()
        if 2 * (count := boxes.count_filled(path)) > len(boxes.frames_of(path))
    ]
    if filled:
        print(
            f"{len(filled)} items have their face's box filled in from other frames in most of "
            f"their frames: {listed(filled)}"
        )


def _counts(items: list[str], boxes: FaceBoxes) -> list[str]:
    """Return a row of the table; the last is the share into which a person's box was filled."""
    looked = [path for path in items if boxes.frames_of(path)]
    people = [len(boxes.people(path)) for path in looked]
    frames = [faces for path in looked for faces in boxes.frames_of(path).values()]
    return [
        str(len(items)),
        _share(sum(count > 0 for count in people), len(people)),
        _share(sum(count > 1 for count in people), len(people)),
        str(len(frames)),
        _share(sum(bool(faces) for faces in frames), len(frames)),
        _share(sum(boxes.count_filled(path) for path in looked), len(frames)),
    ]


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"


main = partial(parsers.main, "faces")
