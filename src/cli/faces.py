"""`python -m src faces`: find the faces of a data set once, for every model that crops them."""

from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from src.cli.common import Parser, add_data_arguments, choose_dataset, run_command, show_log

if TYPE_CHECKING:
    from src.config import FaceConfig
    from src.data.items.manifest import Dataset
    from src.data.pixels.faces import FaceBoxes

DESCRIPTION = """Find the faces in every image and clip of a data set.

  python -m src faces                        the one data set in input/, with MTCNN
  python -m src faces --data dfdc --preview  and draw boxes and crops of some items
  python -m src faces --detector yunet --detector-file face_detection_yunet_2023mar.onnx

What is found is kept in .cache/faces/ and used by every model whose config says
`input: {crop: face}`; training and prediction look for what is missing by themselves. Interrupted,
the same command goes on where it stopped."""
SHOWN = 10


def make_parser() -> Parser:
    """Return the parser of `python -m src faces`."""
    parser = Parser(DESCRIPTION, prog="python -m src faces")
    add_data_arguments(parser, scheme=False)
    parser.add_argument("--detector", default="mtcnn", metavar="NAME", help="default: mtcnn")
    parser.add_argument("--detector-file", metavar="FILE", help="its weights, for yunet")
    parser.add_argument(
        "--margin", type=float, default=1.3, metavar="M",
        help="of the crops drawn by --preview: side of the square over that of the box",
    )  # fmt: skip
    parser.add_argument("--preview", action="store_true", help="draw boxes and crops of some items")
    return parser


def _run(argv: Sequence[str] | None) -> None:
    arguments = make_parser().parse_args(argv)
    name = choose_dataset(arguments.data, arguments.input_root)
    face = _face(arguments)
    show_log()
    from src.data.items.manifest import refuse_missing
    from src.data.layouts.load import load_dataset
    from src.data.pixels.faces import FaceBoxes

    dataset = load_dataset(name, arguments.input_root)
    refuse_missing(dataset)
    boxes = FaceBoxes(dataset.root, face)
    boxes.search(dataset.items["path"].tolist())
    _print_found(dataset, boxes)
    if arguments.preview:
        from src.reporting.contact_sheets import draw_faces

        print(f"preview: {draw_faces(dataset, boxes)}")


def _face(arguments: Namespace) -> "FaceConfig":
    from src.config import FaceConfig
    from src.faces.detectors import detector_of
    from src.strict_yaml import checked

    given = {key: getattr(arguments, key) for key in ("detector", "detector_file", "margin")}
    face = checked(given, FaceConfig, "faces")
    detector_of(face)  # a typo answers before anything heavy is loaded
    return face


def _print_found(dataset: "Dataset", boxes: "FaceBoxes") -> None:
    items = dataset.items
    names = items["label"].map(dict(enumerate(dataset.labels.names))).astype("object").fillna("?")
    wide = max(6, *map(len, dataset.labels.names))
    table = items.assign(label=names)
    head = ("items", "with a face", "several", "frames", "with a face", "filled")
    print(f"{'split':<6} {'label':<{wide}} {'kind':<6}" + "".join(f"{word:>13}" for word in head))
    for (split, label, kind), part in table.groupby(["split", "label", "kind"], sort=False):
        counts = "".join(f"{text:>13}" for text in _counts(part["path"].tolist(), boxes))
        print(f"{split:<6} {label:<{wide}} {kind:<6}{counts}")
    ids = dict(zip(items["path"], items["item_id"], strict=True))
    cropped = sum(boxes.is_cropped(path) for path in ids)
    if cropped:
        print(f"{cropped} items are cropped already (`faces: cropped`) and were left alone")
    lost = [ids[path] for path in boxes.faceless(ids)]
    if lost:
        more = " ..." if len(lost) > SHOWN else ""
        print(
            f"{len(lost)} items show no face: a model sees the whole picture of them: "
            + ", ".join(lost[:SHOWN]) + more
        )  # fmt: skip
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


def _print_filled(ids: dict[str, str], boxes: "FaceBoxes") -> None:
    """Name the items that show the face they are judged by in less than half of their frames."""
    filled = {
        item: f"{item} ({count} of {len(boxes.frames_of(path))})"
        for path, item in ids.items()
        if 2 * (count := boxes.count_filled(path)) > len(boxes.frames_of(path))
    }
    if filled:
        more = " ..." if len(filled) > SHOWN else ""
        print(
            f"{len(filled)} items have their face's box filled in from other frames in most of "
            "their frames: " + ", ".join(list(filled.values())[:SHOWN]) + more
        )


def _counts(items: list[str], boxes: "FaceBoxes") -> list[str]:
    """Return a row of the table.

    Items, share with a face, share with several people, frames, share with a face, share into
    which the largest person's box was filled.
    """
    looked = [path for path in items if boxes.frames_of(path)]
    people = [len(boxes.people(path)) for path in looked]
    frames = [faces for path in looked for faces in boxes.frames_of(path).values()]
    several = _share(sum(count > 1 for count in people), len(people))
    return [
        str(len(items)),
        _share(sum(count > 0 for count in people), len(people)),
        several,
        str(len(frames)),
        _share(sum(bool(faces) for faces in frames), len(frames)),
        _share(sum(boxes.count_filled(path) for path in looked), len(frames)),
    ]


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"


def main(argv: Sequence[str] | None = None) -> int:
    """Run `python -m src faces`; returns the exit code."""
    return run_command(_run, argv)
