"""One archive that predicts with a recipe elsewhere: code, configs, recipe, folds, checkpoints.

It needs no network, and may lie where nothing can be written (see `src.paths.readable`). Of what
finds faces it brings a detector's file, or the package of one.
"""

import hashlib
import json
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from src import paths
from src.artifacts.atomic import atomic_path
from src.artifacts.competition import check_obeyed
from src.artifacts.files import sha256_file
from src.artifacts.outputs import check_output
from src.artifacts.recipes import Recipe
from src.config import FaceConfig, model_names, model_path
from src.data.items.dataset_yaml import says_cropped
from src.ensemble.extra import is_extra
from src.ensemble.rule import deliveries_of, pools_of
from src.errors import UserError
from src.faces import mtcnn, tflite
from src.faces.detectors import detector_file
from src.inference.lineage import dataset_config
from src.inference.stored import Part, check_recipe
from src.models.checkpoint import read_input
from src.progress import track
from src.strict_yaml import read_mapping

SCHEMA = 1
TOP = "rvf"  # the one folder in the archive
CHUNK = 1 << 20
DATE = (1980, 1, 1, 0, 0, 0)  # of every member, so that equal contents make equal archives
SOURCES = {".py", ".j2", ".css", ".js", ".yaml"}  # code, and what its pages are made of
SCRIPTS = ("train_folds.py", "tune.py", "predict_ensemble.py", "requirements.txt", "LICENSE")
README = """A bundle of rvf: the recipe {recipe} for the data set {dataset}, with all it needs.

    RVF_ROOT=/where/to/write python predict_ensemble.py --data {dataset} --input-root /folder/above

/folder/above/{dataset}/ holds the competition's files, in zips or folders; of the train items only
the list is looked at, none is read. The answer is
$RVF_ROOT/submissions/{dataset}/{recipe}.csv. Nothing is downloaded, and nothing but RVF_ROOT is
written to. Without RVF_ROOT this folder itself is.

requirements.txt lists the packages and versions it was made with (Python 3.11 or 3.12, Linux).
Where there is no network, bring them as wheels:

    pip download --no-deps -r requirements.txt -d wheels          # where there is one
    pip install --no-index --no-deps --find-links wheels -r requirements.txt

kaggle.ipynb does all of this in a Kaggle notebook.
"""
FACES = """
Finding faces:

{notes}

packages/ and detectors/ are found beside the code; no path has to be set.
"""
PACKAGES = {"mtcnn": mtcnn.PACKAGE, "blazeface": tflite.PACKAGE}  # of detectors, by their names


@dataclass(frozen=True)
class Contents:
    """What goes into a bundle."""

    recipe: str  # name of the recipe
    dataset: str  # name of the data set
    files: dict[str, Path]  # name in the archive (below its top folder) -> file
    parts: list[Part]  # the checkpoints among them
    # the SHA-256 of those files that the recipe or a record names by it
    sealed: dict[Path, str] = field(default_factory=dict)
    # name in the archive -> what is written there
    texts: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)  # what must be known of it, for people

    def sizes(self) -> dict[str, tuple[int, int]]:
        """Return number of files and bytes by what they are, the largest first."""
        found: dict[str, tuple[int, int]] = {}
        for name, added in self.listed().items():
            kind = name.split("/")[0] if "/" in name else "scripts"
            count, size = found.get(kind, (0, 0))
            found[kind] = (count + 1, size + added)
        return dict(sorted(found.items(), key=lambda entry: -entry[1][1]))

    def listed(self) -> dict[str, int]:
        """Return the bytes of each file by its name in the archive, sorted."""
        sizes = {name: path.stat().st_size for name, path in self.files.items()}
        sizes |= {name: len(text.encode()) for name, text in self.texts.items()}
        return dict(sorted(sizes.items()))


def collect(name: str, recipe: Recipe, items: int | None = None) -> Contents:
    """List what predicting with a recipe needs.

    `items`: number of test items, for the hours that the rules give; None where it is not known.

    Raises:
        UserError: prediction would refuse the recipe (`check_recipe`), it breaks the rules of the
            competition, or what finds faces is not there.
    """
    check_obeyed(name, recipe, dataset_config(recipe.dataset, None).rules, items=items)
    parts = check_recipe(recipe)
    dataset, scheme = recipe.dataset, recipe.scheme
    wanted = [paths.recipe_json(dataset, name), paths.folds_csv(dataset, scheme)]
    sealed = {paths.folds_csv(dataset, scheme): recipe.folds_sha256}
    for part in parts:
        names = (dataset, scheme, part.model, part.fold)
        wanted += [paths.checkpoint(*names), paths.run_record(*names)]
        sealed[paths.checkpoint(*names)] = part.checkpoint_sha256
    looked, views = deliveries_of(recipe), []
    for member in recipe.members:  # whether the recipe is fresh is checked where it predicts, too
        names = (dataset, scheme, member.model)
        tuned_on = {paths.oof_csv(*names, int(k)): sha for k, sha in member.oof_sha256.items()}
        wanted += tuned_on
        sealed |= tuned_on
        # The CSVs hold means with mirror images, of frames pooled the member's own way, of pictures
        # as they are.
        for fold in map(int, member.oof_sha256):
            if recipe.one_view or pools_of(recipe):
                views.append(paths.oof_views(*names, fold))
            if looked is not None:
                views.append(paths.delivered_views(*names, looked.seed, fold))
        if is_extra(*names):
            wanted.append(paths.extra_record(*names))
            wanted += [paths.extra_test_csv(*names)] if member.weight else []
    files = {
        path.relative_to(paths.root()).as_posix(): paths.readable(path)
        for path in dict.fromkeys([*wanted, *(v for v in views if paths.readable(v).is_file())])
    }
    files |= _code() | _configs([part.model for part in parts]) | _dataset_yaml(dataset)
    sealed = {paths.readable(path): sha256 for path, sha256 in sealed.items()}
    contents = Contents(name, dataset, files, parts, sealed)
    _add_faces(contents)
    return contents


def _code() -> dict[str, Path]:
    files = [path for path in (paths.REPO / "src").rglob("*") if path.suffix in SOURCES]
    files += [paths.REPO / name for name in SCRIPTS]
    found = {path.relative_to(paths.REPO).as_posix(): path for path in files if path.is_file()}
    places = (paths.REPO / "docs" / "kaggle.ipynb", paths.REPO / "kaggle.ipynb")
    return found | {path.name: path for path in places if path.is_file()}


def _configs(models: list[str]) -> dict[str, Path]:
    """Return the models' config files and those they extend; checkpoints know theirs by heart."""
    known, found, waiting = model_names(), {}, list(dict.fromkeys(models))
    while waiting:
        model = waiting.pop()
        if model in known and f"configs/models/{model}.yaml" not in found:
            found[f"configs/models/{model}.yaml"] = path = model_path(model)
            parent = read_mapping(path).get("extends")
            waiting += [str(parent)] if parent is not None else []
    return found


def _dataset_yaml(dataset: str) -> dict[str, Path]:
    own = paths.dataset_dir(dataset) / "dataset.yaml"
    for path in (paths.readable(paths.dataset_yaml(dataset)), own):
        if path.is_file():
            return {f"input/{dataset}.yaml": path}
    return {}


def _add_faces(contents: Contents) -> None:
    """Add what the checkpoints need to find faces, and say so.

    Of a data set with `faces: cropped` nothing has to be found, and what is not there is not asked
    for.
    """
    members: dict[FaceConfig, str] = {}
    for part in contents.parts:
        face = read_input(part.checkpoint)[0].face
        if face is not None:
            members.setdefault(face, part.model)
    needed = not says_cropped(paths.dataset_dir(contents.dataset), "")
    names = {face.detector for face in members}
    for name in names & PACKAGES.keys():
        _add_package(contents, name, needed=needed)
    for face, model in members.items():
        if face.detector_file is not None:
            _add_file(contents, face, model, needed=needed)
    for name in sorted(names - {*PACKAGES, "yunet", "whole"}):
        contents.notes.append(
            f"faces: what the detector {name!r} imports or reads beside face.detector_file is not "
            "packed; bring it yourself"
        )


def _add_file(contents: Contents, face: FaceConfig, model: str, *, needed: bool) -> None:
    file = detector_file(face)
    if not file.is_file():
        if needed:
            raise UserError(
                f"face.detector_file: {file} is not there, and {model} finds faces with it; put "
                f"the file of SHA-256 {face.detector_sha256[:12]}... there, and bundle again"
            )
        contents.notes.append(f"{file} is not there, nor needed: `faces: cropped`")
        return
    if sha256_file(file) != face.detector_sha256:
        raise UserError(
            f"{file} is not the detector that {model} was trained with (SHA-256 "
            f"{face.detector_sha256[:12]}...); put that file there, and bundle again"
        )
    name = paths.packed_detector(face.detector_sha256, file.name)
    contents.files[_in_bundle(name)] = file
    contents.notes.append(f"faces: {face.detector} reads {file.name}, which is packed")


def _add_package(contents: Contents, detector: str, *, needed: bool) -> None:
    package = PACKAGES[detector]
    top = f"{_in_bundle(paths.packed_packages())}/{package.folder}"
    try:
        files = {name: package.file(name, f"face.detector: {detector}") for name in package.files}
        licence = package.licence_text()
    except UserError:
        if needed:
            raise
        contents.notes.append(f"{package.name} is not packed, nor needed: `faces: cropped`")
        return
    named = f"{package.name} {package.version} ({package.licence})"
    contents.files.update({f"{top}/{name}": path for name, path in files.items()})
    contents.texts[f"{top}/__init__.py"] = f"# A part of {named}: its face detector.\n"
    contents.texts[f"{top}/{package.licence_file}"] = licence
    contents.notes.append(
        f"faces: the detector of {named} and its weights are packed; nothing has to be installed "
        "or downloaded for it"
    )


def _in_bundle(path: Path) -> str:
    return path.relative_to(paths.bundle_contents().parent).as_posix()


def write_bundle(path: Path, contents: Contents) -> int:
    """Write the archive, whole or not at all; returns its bytes.

    Raises:
        UserError: a file was changed since it was checked.
    """
    words = {"recipe": contents.recipe, "dataset": contents.dataset}
    table = {"schema": SCHEMA, **words, "files": contents.listed()}
    readme = README.format(**words)
    if contents.notes:
        readme += FACES.format(notes="\n".join(f"- {note}" for note in contents.notes))
    with atomic_path(path) as temporary:
        with zipfile.ZipFile(temporary, "w") as archive:
            for name, text in (
                ("bundle.json", json.dumps(table, indent=2) + "\n"),
                ("README.md", readme),
                *sorted(contents.texts.items()),
            ):
                archive.writestr(_member(name), text)
            sizes = (file.stat().st_size for file in contents.files.values())
            chunks = sum(-(-size // CHUNK) for size in sizes)
            for _ in track(_pack(archive, contents), "packing", total=chunks, unit="MiB"):
                pass
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
    return path.stat().st_size


def bundle_output(output: Path | None, dataset: str, recipe: str) -> Path:
    """Return where a bundle is written; raises where it must not be (see `check_output`)."""
    path = paths.bundle_zip(dataset, recipe) if output is None else output
    read = paths.dataset_dir(dataset)
    check_output(path, ".zip", _is_bundle, read=read, is_own_place=output is None)
    return path


def _is_bundle(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read(f"{TOP}/bundle.json"))["schema"] == SCHEMA
    except Exception:  # noqa: BLE001 - zipfile raises whatever a foreign file makes it stumble over
        return False


def _member(name: str, size: int = 0) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(f"{TOP}/{name}", DATE)
    # Weights are noise to a packer.
    packed = zipfile.ZIP_STORED if name.endswith(".safetensors") else zipfile.ZIP_DEFLATED
    info.compress_type, info.external_attr, info.file_size = packed, 0o644 << 16, size
    return info


def _pack(archive: zipfile.ZipFile, contents: Contents) -> Iterator[int]:
    """Copy the files, a chunk at a time; yields the bytes of each."""
    for name, source in sorted(contents.files.items()):
        digest = hashlib.sha256()
        info = _member(name, source.stat().st_size)
        with source.open("rb") as file, archive.open(info, "w") as member:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
                member.write(chunk)
                yield len(chunk)
        if digest.hexdigest() != contents.sealed.get(source, digest.hexdigest()):
            raise UserError(f"{source} was changed while it was packed; bundle again")
