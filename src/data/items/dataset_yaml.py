"""`dataset.yaml`: what names and CSV alone do not say, read strictly."""

import os
import re
from collections.abc import Mapping
from dataclasses import field
from functools import lru_cache
from glob import escape
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic.dataclasses import dataclass

from src import paths
from src.artifacts.answers import Output
from src.artifacts.competition import CompetitionRules
from src.errors import UserError
from src.metrics import tuned_name
from src.strict_yaml import STRICT, EachOnce, Keys, Word, checked, read_yaml

GROUP, DOMAIN, IGNORE = "group", "domain", "ignore"
Level = Literal["group", "domain", "ignore"]
Levels = Level | tuple[Level, ...]  # what each folder of a path is, or one word for all of them
Misfits = Literal["error", "ignore"]
Words = Annotated[list[Word], EachOnce]
OneOrMore = Annotated[Words, BeforeValidator(lambda x: [x] if isinstance(x, str) else x)]
Frames = Annotated[int, Field(ge=1)] | None  # of a video; None for all


def _labels(value: Any) -> Any:  # noqa: ANN401 - whatever a YAML holds
    """Read `{word: 0|1}`, or `{real: [words], fake: [words]}`."""
    if not isinstance(value, dict):
        raise ValueError("want e.g. {bona_fide: 0, morph: 1}")
    labels: dict[str, int] = {}
    for key, target in value.items():
        words, number = [key], str(target)
        if isinstance(target, list) and key in ("real", "fake"):
            words, number = target, str(int(key == "fake"))
        if number not in ("0", "1"):
            raise ValueError(f"{key} is {target!r}, want 0 (real) or 1 (fake)")
        for word in words:
            if not isinstance(word, str) or word in labels:
                raise ValueError(f"{key}: {word!r} is no word, or stands there twice")
            labels[word] = int(number)
    if value and set(labels.values()) != {0, 1}:
        raise ValueError("must name a word for 0 (real) and one for 1 (fake)")
    return labels


def _root(value: Any) -> Any:  # noqa: ANN401
    """Read `{from: START, to: FOLDER}`."""
    if isinstance(value, tuple):
        return value
    if not isinstance(value, dict) or set(value) != {"from", "to"}:
        raise ValueError("want {from: START_OF_PATHS, to: FOLDER}")
    return value["from"], value["to"]


def _pattern(pattern: str) -> str:
    """Check a regular expression whose first group is wanted."""
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"domain_from is no regular expression: {error}") from None
    if not groups:
        raise ValueError("domain_from has no group; put what is the domain into (): '^(easy|mid)_'")
    return pattern


def _inside(root: tuple[str, str]) -> tuple[str, str]:
    if re.match(r"[A-Za-z]:|[/\\~]", root[1]) or ".." in re.split(r"[/\\]", root[1]):
        raise ValueError(
            f"root.to is {root[1]!r}, want a folder inside the data set's; make a symbolic link "
            "there to where the files lie, and name the link"
        )
    return root


def _frames(value: Any) -> Any:  # noqa: ANN401
    """Read a number for both, or `{train: 8, test: 32}` or one of the two."""
    if isinstance(value, tuple):
        return value
    given = value if isinstance(value, dict) else {"train": value, "test": value}
    if not given or not set(given) <= {"train", "test"}:
        raise ValueError("want 8 or {train: 8, test: 32}")
    return given.get("train"), given.get("test")


@dataclass(frozen=True, config=STRICT)
class SampleConfig(Keys):
    """The `submission:` part."""

    file: Word | None = None  # the sample submission, path in the data set's folder
    id_column: Word | None = None
    answer_column: Word | None = None
    # what to write for real and for fake
    label_names: Annotated[tuple[Word, Word], EachOnce] | None = None


@dataclass(frozen=True, config=STRICT)
class ShardsConfig(Keys):
    """The `shards:` part: a path, or a mapping."""

    path: Word  # a folder, relative to the data set's or absolute, or what fsspec opens (s3://...)
    # what blocks of shards that lie elsewhere may take below .cache/shards; None for a quarter of
    # what is free there
    cache_gb: Annotated[float, Field(gt=0)] | None = None


@dataclass(frozen=True, config=STRICT)
class DatasetConfig(Keys):
    """Everything `dataset.yaml` may say."""

    # word (a folder's name or a CSV's value) -> 0 real, 1 fake
    labels: Annotated[dict[str, int], BeforeValidator(_labels)] = field(default_factory=dict)
    # the tables or lists that hold the labels, paths in the data set's folder
    labels_file: OneOrMore = field(default_factory=list)
    id_column: Word | None = None  # its columns
    label_column: Word | None = None
    group_column: Word | None = None
    domain_column: Word | None = None
    # a regular expression, searched in each file's name; its first group is the domain
    domain_from: Annotated[str, AfterValidator(_pattern)] | None = None
    fold_column: Word | None = None
    mask_column: Word | None = None  # paths of masks of manipulated pixels
    # data sets whose train items join, always trained on and never scored
    extra: Words = field(default_factory=list)
    # data sets to be tested on: what is akin to their items is not trained on
    test_sets: Words = field(default_factory=list)
    submission: SampleConfig = field(default_factory=SampleConfig)  # the sample submission
    # what the competition scores by, a name in `src.metrics` (`tuned`); None is macro_f1
    metric: Annotated[str, AfterValidator(tuned_name)] | None = None
    # what a submission holds; None follows from the metric and the sample
    output: Output | None = None
    # what the competition allows to predict with
    rules: CompetitionRules = field(default_factory=CompetitionRules)
    # what folders below a class folder are: `group` (one person or one video each), `domain` or
    # `ignore`; or such a word for each level, the outermost first
    subfolders: Levels | None = None
    # the same of the folders above the class folders; `domain` by default
    folders_above: Levels | None = None
    # what equal names in several classes, domains or splits mean: `group` ties files and folders,
    # `ignore` none; by default folders alone
    same_names: Literal["group", "ignore"] | None = None
    # pattern of a folder's name -> its split, or none: the name is just a name
    splits: dict[str, Literal["train", "val", "test", "none"]] = field(default_factory=dict)
    ignore: Words = field(default_factory=list)  # patterns of paths to leave aside
    missing_files: Misfits = "error"  # `ignore` rows of the CSV that have no file
    unlisted_files: Misfits = "error"  # `ignore` files that no row names
    n_folds: Annotated[int, Field(ge=2)] = 5  # of the default fold scheme
    seed: Annotated[int, Field(ge=0)] = 42  # likewise
    # name of the layout (of `src.data.published`), where it is not to be found out
    layout: Word | None = None
    # DeepfakeBench JSON files to read, paths in the data set's folder; all by default
    json: OneOrMore = field(default_factory=list)
    # start of the paths in them, and what to put in its place
    root: Annotated[tuple[str, str], BeforeValidator(_root), AfterValidator(_inside)] | None = None
    compression: Word | None = None  # level to read of a set that comes in several
    # what a video becomes that stands in the splits of both
    overlap: Literal["train", "test"] = "train"
    # all people of a face swap, or just the clip it changes
    group_by: Literal["identity", "video"] = "identity"
    combine: Words = field(default_factory=list)  # data sets whose train items make up this one
    # in a combined set: those of its parts, where they have any, or its parts
    domains: Literal["own", "set"] = "own"
    # `cropped` where every picture is a face already, so that no model looks for one
    faces: Literal["detect", "cropped"] = "detect"
    # where the items lie that `python -m src shards` packed; they are all that the data set holds
    shards: Annotated[
        ShardsConfig | None, BeforeValidator(lambda x: {"path": x} if isinstance(x, str) else x)
    ] = None
    # how many frames of a video of train (and val) and of test become items, where videos are
    # folders or lists of frames
    frames_per_video: Annotated[tuple[Frames, Frames], BeforeValidator(_frames)] = (None, None)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.domain_from is not None and self.domain_column is not None:
            raise ValueError("domain_from and domain_column both say what the domain is; keep one")
        return self


def read_dataset_yaml(root: Path, instead: Path | None = None) -> DatasetConfig:
    """Read `dataset.yaml` of a data set's folder, or the file that stands `instead` of it.

    Without one, the defaults hold.

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
    content = read_yaml(path, as_text=True) if path.exists() else None
    return DatasetConfig() if content is None else checked(content, DatasetConfig, str(path))


def part_of(path: str) -> str:
    """Return the neighbouring data set that an item is taken from; "" for its own."""
    words = path.split("/", 2)
    return words[1] if words[0] == ".." and len(words) == 3 else ""


@lru_cache(maxsize=64)
def says_cropped(root: Path, part: str) -> bool:
    """Tell whether `dataset.yaml` of a data set, or of a neighbour of it, says `faces: cropped`."""
    folder = Path(os.path.normpath(root / ".." / part)) if part else root
    try:
        stands_for_it = paths.readable(paths.dataset_yaml(folder.name))
        return read_dataset_yaml(folder, stands_for_it).faces == "cropped"
    except OSError:
        return False


def offer(key: str, words: Mapping[str, str | int | None]) -> str:
    """Return a line for dataset.yaml, `labels: {teasing: 0|1}` where only a person knows (None).

    Pasted as it is, `0|1` is refused: a guess would be right half of the time.
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
