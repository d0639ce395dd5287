"""`dataset.yaml`: what names and CSV alone do not say, read strictly."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from glob import escape
from pathlib import Path
from typing import Any

from src.data.items.split_words import NONE, SPLITS
from src.errors import UserError, unknown_name
from src.strict_yaml import read_yaml

GROUP, DOMAIN, IGNORE = LEVELS = ("group", "domain", "ignore")
Levels = str | tuple[str, ...]  # what each folder of a path is, or one word for all of them
MISFITS = ("error", IGNORE)
CHOICES = {
    "same_names": (GROUP, IGNORE),
    "missing_files": MISFITS,
    "unlisted_files": MISFITS,
    "overlap": ("train", "test"),
    "group_by": ("identity", "video"),
    "domains": ("own", "set"),
    "faces": ("detect", "cropped"),
}


@dataclass(frozen=True)
class SampleConfig:
    """The `submission:` part.

    Attributes:
        file: the sample submission, path in the data set's folder.
        id_column, label_column: its columns.
        label_names: what to write for real and for fake.
    """

    file: str | None = None
    id_column: str | None = None
    label_column: str | None = None
    label_names: tuple[str, str] | None = None


@dataclass(frozen=True)
class DatasetConfig:
    """Everything `dataset.yaml` may say.

    Attributes:
        labels: word (a folder's name or a CSV's value) -> 0 real, 1 fake.
        labels_file: the tables or lists that hold the labels, paths in the data set's folder.
        id_column, label_column, group_column, domain_column, fold_column: its columns.
        extra: data sets whose train items join, always trained on and never scored.
        test_sets: data sets to be tested on: what is akin to their items is not trained on.
        submission: the sample submission.
        subfolders: what folders below a class folder are: `group` (one person or one video each),
            `domain` or `ignore`; or such a word for each level, the outermost first.
        folders_above: the same of the folders above the class folders; `domain` by default.
        same_names: what equal names in several classes, domains or splits mean: `group` ties files
            and folders, `ignore` none; by default folders alone.
        splits: pattern of a folder's name -> train, val, test, or none: the name is just a name.
        ignore: patterns of paths to leave aside.
        missing_files: `ignore` rows of the CSV that have no file.
        unlisted_files: `ignore` files that no row names.
        n_folds, seed: of the default fold scheme.
        layout: name of the layout (`src.data.published.readers`), where it is not to be found out.
        json: DeepfakeBench JSON files to read, paths in the data set's folder; all by default.
        root: start of the paths in them, and what to put in its place.
        compression: level to read of a set that comes in several.
        overlap: `train` or `test`: what a video becomes that stands in the splits of both.
        group_by: `identity` (all people of a face swap) or `video` (just the clip it changes).
        combine: data sets whose train items make up this one.
        domains: in a combined set, `own` (of its parts, where they have any) or `set` (its parts).
        frames_per_video: how many frames of a video of train (and val) and of test become items,
            where videos are folders or lists of frames; None for all.
        faces: `cropped` where every picture is a face already, so that no model looks for one.
    """

    labels: dict[str, int] = field(default_factory=dict)
    labels_file: list[str] = field(default_factory=list)
    id_column: str | None = None
    label_column: str | None = None
    group_column: str | None = None
    domain_column: str | None = None
    fold_column: str | None = None
    extra: list[str] = field(default_factory=list)
    test_sets: list[str] = field(default_factory=list)
    submission: SampleConfig = field(default_factory=SampleConfig)
    subfolders: Levels | None = None
    folders_above: Levels | None = None
    same_names: str | None = None
    splits: dict[str, str] = field(default_factory=dict)
    ignore: list[str] = field(default_factory=list)
    missing_files: str = "error"
    unlisted_files: str = "error"
    n_folds: int = 5
    seed: int = 42
    layout: str | None = None
    json: list[str] = field(default_factory=list)
    root: tuple[str, str] | None = None
    compression: str | None = None
    overlap: str = "train"
    group_by: str = "identity"
    combine: list[str] = field(default_factory=list)
    domains: str = "own"
    faces: str = "detect"
    frames_per_video: tuple[int | None, int | None] = (None, None)


def read_dataset_yaml(root: Path, instead: Path | None = None) -> DatasetConfig:
    """Read `dataset.yaml` of a data set's folder; without one, the defaults.

    Args:
        root: the folder.
        instead: a file that stands for it where nothing can be written into the folder.

    Raises:
        UserError: not YAML, a key unknown or twice, a value of a wrong kind, or two files that
            differ.
    """
    path = root / "dataset.yaml"
    if instead is not None and instead.exists():
        if path.exists() and path.read_bytes() != instead.read_bytes():
            raise UserError(f"{path} and {instead} differ; which one holds? Keep that one")
        path = instead
    if (root / "dataset.yml").exists():
        raise UserError(f"{root / 'dataset.yml'}: call it dataset.yaml")
    if not path.exists():
        return DatasetConfig()
    content = read_yaml(path, as_text=True)
    if content in ("", None):
        return DatasetConfig()
    return _parse(content, path)


def _parse(content: object, path: Path) -> DatasetConfig:
    values = _known_keys(content, DatasetConfig, path, "")
    parsed: dict[str, Any] = {}
    for key, value in values.items():
        if key in _READERS:
            parsed[key] = _READERS[key](value, path)
        elif key in ("json", "labels_file") and isinstance(value, str):
            parsed[key] = [_word(value, key, path)]
        elif key in ("extra", "test_sets", "ignore", "json", "combine", "labels_file"):
            parsed[key] = _words(value, key, path)
        elif key in ("subfolders", "folders_above"):
            parsed[key] = _levels(value, key, path)
        elif key in ("n_folds", "seed"):
            parsed[key] = _count(value, key, path, at_least=2 if key == "n_folds" else 0)
        else:
            parsed[key] = _word(value, key, path)
    for key, allowed in CHOICES.items():
        if key in parsed and parsed[key] not in allowed:
            raise unknown_name(f"value of {key} in {path}:", parsed[key], allowed)
    return DatasetConfig(**parsed)


def _known_keys(content: object, kind: type, path: Path, prefix: str) -> dict[str, Any]:
    if not isinstance(content, dict):
        what = prefix.rstrip(".") or "the file"
        raise UserError(f"{path}: {what} is {content!r}, want a mapping of keys to values")
    known = [f.name for f in fields(kind)]
    for key in content:
        if key not in known:
            short = {name.removesuffix("_column"): name for name in known}
            near = get_close_matches(key, short, n=1, cutoff=0.8)
            hint = f"perhaps {prefix + short[near[0]]!r}" if near else ""
            names = [prefix + name for name in known]
            raise unknown_name(f"key in {path}:", prefix + key, names, hint)
    return content


def _labels(value: object, path: Path) -> dict[str, int]:
    """Read `{word: 0|1}`, or `{real: [words], fake: [words]}`."""
    if not isinstance(value, dict) or not value:
        raise UserError(f"{path}: labels is {value!r}, want e.g. {{bona_fide: 0, morph: 1}}")
    labels: dict[str, int] = {}
    for key, target in value.items():
        if isinstance(target, list) and key in ("real", "fake"):
            labels |= dict.fromkeys(_words(target, f"labels.{key}", path), int(key == "fake"))
        elif target in ("0", "1"):
            labels[key] = int(target)
        else:
            raise UserError(f"{path}: labels: {key} is {target!r}, want 0 (real) or 1 (fake)")
    if set(labels.values()) != {0, 1}:
        raise UserError(f"{path}: labels must name a word for 0 (real) and one for 1 (fake)")
    return labels


def _levels(value: object, key: str, path: Path) -> Levels:
    words = value if isinstance(value, list) and value else [_word(value, key, path)]
    for word in words:
        if word not in LEVELS:
            raise unknown_name(f"value of {key} in {path}:", str(word), LEVELS)
    return tuple(words) if isinstance(value, list) else words[0]


def _splits(value: object, path: Path) -> dict[str, str]:
    if not isinstance(value, dict) or not value:
        raise UserError(f"{path}: splits is {value!r}, want e.g. {{phase1: val, phase2: test}}")
    for name, split in value.items():
        if split not in (*SPLITS, NONE):
            raise unknown_name(f"value of splits.{name} in {path}:", str(split), (*SPLITS, NONE))
    return value


def offer(key: str, words: Mapping[str, str | int | None]) -> str:
    """Return a line for dataset.yaml, such as `labels: {teasing: 0|1}` where only a person knows.

    Pasted as it is, `0|1` is refused: a guess would be right half of the time.

    Args:
        key: `labels` or `splits`.
        words: each word -> what it means, None for `0|1`.
    """
    pairs = (f"{_quoted(w)}: {'0|1' if value is None else value}" for w, value in words.items())
    return f"`{key}: {{{', '.join(pairs)}}}`"


def _quoted(word: str) -> str:
    plain = re.match(r"[\w.][\w. -]*$", word)
    return word if plain else "'" + word.replace("'", "''") + "'"


def offer_ignore(*paths: str) -> str:
    """Return the line for dataset.yaml that leaves paths aside; a `*` at an end stays a pattern."""
    patterns = [escape(path.removesuffix("*")) + "*" * path.endswith("*") for path in paths]
    return "`ignore: ['" + "', '".join(p.replace("'", "''") for p in patterns) + "']`"


def _frames(value: object, path: Path) -> tuple[int | None, int | None]:
    """Read a number for both, or `{train: 8, test: 32}` or one of the two."""
    given = value if isinstance(value, dict) else {"train": value, "test": value}
    if not given or not set(given) <= {"train", "test"}:
        raise UserError(f"{path}: frames_per_video is {value!r}, want 8 or {{train: 8, test: 32}}")
    found = {key: _count(n, "frames_per_video", path, at_least=1) for key, n in given.items()}
    return found.get("train"), found.get("test")


def _root(value: object, path: Path) -> tuple[str, str]:
    if not isinstance(value, dict) or set(value) != {"from", "to"}:
        raise UserError(f"{path}: root is {value!r}, want {{from: START_OF_PATHS, to: FOLDER}}")
    if not all(isinstance(part, str) for part in value.values()):
        raise UserError(f'{path}: root is {value!r}, want two paths (or "" for none)')
    if re.match(r"[A-Za-z]:|[/\\~]", value["to"]) or ".." in re.split(r"[/\\]", value["to"]):
        raise UserError(
            f"{path}: root.to is {value['to']!r}, want a folder inside {path.parent}; make a "
            "symbolic link there to where the files lie, and name the link"
        )
    return value["from"], value["to"]


def _sample(value: object, path: Path) -> SampleConfig:
    values = _known_keys(value, SampleConfig, path, "submission.")
    parsed: dict[str, Any] = {}
    for key, item in values.items():
        if key == "label_names":
            names = _words(item, "submission.label_names", path)
            if len(names) != 2 or names[0] == names[1]:
                raise UserError(f"{path}: submission.label_names is {item!r}, want [REAL, FAKE]")
            parsed[key] = (names[0], names[1])
        else:
            parsed[key] = _word(item, f"submission.{key}", path)
    return SampleConfig(**parsed)


_READERS: dict[str, Callable[[object, Path], Any]] = {
    "labels": _labels, "submission": _sample, "splits": _splits, "root": _root,
    "frames_per_video": _frames,
}  # fmt: skip


def _word(value: object, key: str, path: Path) -> str:
    if not isinstance(value, str) or not value:
        raise UserError(f"{path}: {key} is {value!r}, want a word")
    return value


def _words(value: object, key: str, path: Path) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(v, str) and v for v in value):
        raise UserError(f"{path}: {key} is {value!r}, want a list of words")
    if len(set(value)) != len(value):
        raise UserError(f"{path}: {key} names something twice: {value}")
    return value


def _count(value: object, key: str, path: Path, *, at_least: int) -> int:
    if not isinstance(value, str) or not value.isdecimal() or int(value) < at_least:
        raise UserError(f"{path}: {key} is {value!r}, want a whole number >= {at_least}")
    return int(value)
