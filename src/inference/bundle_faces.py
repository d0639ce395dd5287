"""What a bundle must bring so that its members find faces: a detector's file, or its package."""

import importlib.util
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from src import paths
from src.artifacts.files import sha256_file
from src.config import FaceConfig
from src.data.items.dataset_yaml import says_cropped
from src.errors import UserError
from src.faces.mtcnn import INSTALL, VERSION
from src.faces.spec import detector_file
from src.inference.stored import Part
from src.models.checkpoint import read_input

PACKAGE, DISTRIBUTION = "facenet_pytorch", "facenet-pytorch"
# The detector's own files. The package's top is left out: it imports `requests` and further nets.
PACKAGE_FILES = (
    "models/mtcnn.py",
    "models/utils/detect_face.py",
    "data/pnet.pt",
    "data/rnet.pt",
    "data/onet.pt",
)
TOP = "__init__.py"


class FaceFiles(NamedTuple):
    """What finding faces needs."""

    files: dict[str, Path]  # name in the archive -> file
    texts: dict[str, str]  # name in the archive -> what is written there
    notes: list[str]  # what is said when the bundle is made


def face_files(dataset: str, parts: Iterable[Part]) -> FaceFiles:
    """Return what the checkpoints of a recipe need to find faces.

    Args:
        dataset: name of the data set; of one with `faces: cropped` nothing has to be found, and
            what is not there is not asked for.
        parts: the checkpoints.

    Raises:
        UserError: a detector's file or package is wanted and not there; a file that is not the
            one of the checkpoint; a damaged checkpoint.
    """
    found = FaceFiles({}, {}, [])
    members: dict[FaceConfig, str] = {}
    for part in parts:
        face = read_input(part.checkpoint)[0].face
        if face is not None:
            members.setdefault(face, part.model)
    needed = not says_cropped(paths.dataset_dir(dataset), "")
    names = {face.detector for face in members}
    if "mtcnn" in names:
        _add_mtcnn(found, needed=needed)
    for face, model in members.items():
        if face.detector_file is not None:
            _add_file(found, face, model, needed=needed)
    _say_rest(found, sorted(names - {"mtcnn", "yunet", "whole"}))
    return found


def _add_file(found: FaceFiles, face: FaceConfig, model: str, *, needed: bool) -> None:
    file = detector_file(face)
    if not file.is_file():
        if needed:
            raise UserError(
                f"face.detector_file: {file} is not there, and {model} finds faces with it; put "
                f"the file of SHA-256 {face.detector_sha256[:12]}... there, and bundle again"
            )
        found.notes.append(f"{file} is not there, nor needed: `faces: cropped`")
        return
    if sha256_file(file) != face.detector_sha256:
        raise UserError(
            f"{file} is not the detector that {model} was trained with (SHA-256 "
            f"{face.detector_sha256[:12]}...); put that file there, and bundle again"
        )
    name = paths.packed_detector(face.detector_sha256, file.name)
    found.files[_in_bundle(name)] = file
    found.notes.append(f"faces: {face.detector} reads {file.name}, which is packed")


def _add_mtcnn(found: FaceFiles, *, needed: bool) -> None:
    home = _package_home()
    lacking = [name for name in PACKAGE_FILES if home is None or not (home / name).is_file()]
    if home is None or lacking:
        if needed:
            raise UserError(
                f"a member finds faces with mtcnn, so {DISTRIBUTION} {VERSION} goes into the "
                f"bundle, and it is not installed here: {INSTALL}"
            )
        found.notes.append(f"{DISTRIBUTION} is not installed, nor needed: `faces: cropped`")
        return
    top = f"{_in_bundle(paths.packed_packages())}/{PACKAGE}"
    found.files.update({f"{top}/{name}": home / name for name in PACKAGE_FILES})
    found.texts[f"{top}/{TOP}"] = f"# A part of {DISTRIBUTION} {VERSION}: its face detector.\n"
    found.texts[f"{top}/LICENSE.md"] = _licence(home)
    found.notes.append(
        f"faces: the detector of {DISTRIBUTION} {VERSION} (MIT) and its weights are packed; "
        "nothing has to be installed or downloaded for it"
    )


def _package_home() -> Path | None:
    """Return the package's folder, in the bundle that this code came in or installed."""
    packed = paths.packed_packages() / PACKAGE
    if paths.bundle_contents().is_file() and packed.is_dir():
        return packed
    spec = importlib.util.find_spec(PACKAGE)  # which imports nothing of a top-level package
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


def _licence(home: Path) -> str:
    """Return the package's licence, which asks to be passed on with every copy."""
    brought = home / "LICENSE.md"
    if brought.is_file():
        return brought.read_text(encoding="utf-8")
    try:
        text = metadata.distribution(DISTRIBUTION).read_text("LICENSE.md")
    except metadata.PackageNotFoundError:
        text = None
    if text is None:
        raise UserError(
            f"{home}: the licence of {DISTRIBUTION} is not there; install it: {INSTALL}"
        )
    return text


def _say_rest(found: FaceFiles, own: Sequence[str]) -> None:
    for name in own:
        found.notes.append(
            f"faces: what the detector {name!r} imports or reads beside face.detector_file is not "
            "packed; bring it yourself"
        )


def _in_bundle(path: Path) -> str:
    return path.relative_to(paths.bundle_contents().parent).as_posix()
