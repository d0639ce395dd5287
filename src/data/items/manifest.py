"""The manifest: one row an item, and the data set it belongs to."""

import hashlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src.artifacts.answers import choose_output, describe
from src.artifacts.label_names import LabelNames
from src.artifacts.submissions import SubmissionFormat
from src.data.items.dataset_yaml import DatasetConfig
from src.data.items.files import kind_of
from src.data.items.listing import Entry
from src.data.items.words import means_real, number_names
from src.errors import UserError
from src.metrics import DEFAULT

COLUMNS = [
    "item_id", "path", "kind", "split", "label", "group", "domain", "width", "height", "bytes",
]  # fmt: skip
UNKNOWN = -1
# Every column of words lies in Arrow's buffers, which may be a mapped file: pandas' own `str`.
STRING = pd.StringDtype("pyarrow", na_value=np.nan)
NO_STAMPS = np.zeros(0, np.int64)
NUMBERS = {"label": "Int8", "width": "Int32", "height": "Int32", "bytes": "int64"}


def _no_masks() -> pd.Series:
    return pd.Series(index=pd.Index([], dtype=STRING), dtype=STRING, name="mask")


@dataclass(frozen=True)
class Dataset:
    """A data set as understood from names and CSV alone."""

    name: str  # the folder's name in `input/`
    root: Path  # the folder; manifest paths are relative to it
    # the manifest, `COLUMNS`: train items, then test items, each sorted by item_id. label is Int8
    # and NA in test; group and domain are "" where nothing is known; width and height are NA
    # (`src.data.folds.scan` finds them).
    items: pd.DataFrame
    stamps: NDArray[np.int64]  # (n,) a row of items: changes when the file does
    submission: SubmissionFormat | None = None  # what to hand in; None without test items
    # item_id -> 0/1 where the test folders give the truth away. Kept apart: no prediction reads it.
    test_labels: pd.Series | None = None
    # item_id -> fold where the CSV brings a fold column, or published splits a val
    given_folds: pd.Series | None = None
    # given_folds are published splits, used where scheme `fixed` is asked for
    from_splits: bool = False
    # item_id -> path of the mask of manipulated pixels, of the train items that have one
    masks: pd.Series = field(default_factory=_no_masks)
    # train items of `extra:` data sets, always trained on, never scored
    extra_ids: frozenset[str] = frozenset()
    config: DatasetConfig = field(default_factory=DatasetConfig)  # what `dataset.yaml` said
    labels: LabelNames = field(default_factory=LabelNames)  # what it calls real and fake
    # what was understood and from where, one sentence each
    notes: list[str] = field(default_factory=list)
    ignored: dict[str, int] = field(default_factory=dict)  # reason -> number of files left aside
    # paths of items whose files are named but not there; they can be listed only
    missing: tuple[str, ...] = ()
    sha256: str = ""  # of ids, paths, sizes and zip CRCs

    @property
    def train(self) -> pd.DataFrame:
        """Return the rows of the train items (extra data included), not copied."""
        return self.items.iloc[: self._n_train]

    @property
    def test(self) -> pd.DataFrame:
        """Return the rows of the test items, not copied."""
        return self.items.iloc[self._n_train :]

    @cached_property
    def _n_train(self) -> int:
        split = self.items["split"]
        return bisect_left(range(len(split)), 1, key=lambda row: split.array[row] == "test")

    def require_test(self) -> SubmissionFormat:
        """Return what to hand in; a UserError where there are no test items, or files missing."""
        if self.submission is None:
            raise UserError(
                f"{self.root} has no test items (no test/ or test.zip), so there is nothing to "
                "predict; training and tuning work without. Put the test files there, or predict "
                "any folder with --checkpoint FILE --input-dir DIR --output out.csv"
            )
        refuse_missing(self)
        return self.submission

    def require_train(self) -> pd.DataFrame:
        """Return the rows of train items; a UserError if there are none, or files are missing."""
        if self.train.empty:
            raise UserError(
                f"{self.root} has no train items, only test items; where a folder's name says test "
                "and means something else, say so in dataset.yaml: `splits: {NAME: none}`"
            )
        refuse_missing(self)
        return self.train


def refuse_missing(dataset: Dataset) -> None:
    """Raise a UserError if files that the data set names are not there."""
    if dataset.missing:
        raise UserError(
            f"{dataset.root}: {len(dataset.missing)} of the {len(dataset.items)} files that it "
            f"names are not there, the first is {dataset.missing[0]}; {ways_to_files(dataset)}"
        )


def ways_to_files(dataset: Dataset) -> str:
    """Say what to do where files that a data set names are not there."""
    part = next((p.split("/")[1] for p in dataset.missing if p.startswith("../")), "")
    where = f"dataset.yaml of {part}" if part else "dataset.yaml"
    renamed = any("layout: deepfakebench" in note for note in dataset.notes)
    root = f"say in {where} where they lie (`root: {{from: START_OF_PATHS, to: FOLDER}}`), "
    return f"put them there, {root * renamed}or pass over them in {where}: `missing_files: ignore`"


def make_items(columns: Mapping[str, list[Any]], index: list[int]) -> pd.DataFrame:
    """Return columns as a manifest (NA if not given), train first, by item_id; keeps the index."""
    table = pd.DataFrame(
        {
            name: pd.Series(columns.get(name), index, dtype=NUMBERS.get(name, STRING))
            for name in COLUMNS
        }
    )
    return table.sort_values(["split", "item_id"], ascending=[False, True], kind="stable")


def check_items(items: pd.DataFrame, where: Path) -> None:
    """Check what every reader of a manifest relies on.

    Raises:
        UserError: an id twice within a split (both files named), a train item without label, a
            class without items.
    """
    twice = items.duplicated(["split", "item_id"])
    if twice.any():
        row = items[twice].iloc[0]
        same = items[(items["split"] == row["split"]) & (items["item_id"] == row["item_id"])]
        raise UserError(
            f"{where}: {row['split']} item {row['item_id']!r} stands for two files: "
            f"{same['path'].iloc[0]} and {same['path'].iloc[1]}"
        )
    train = items[items["split"] == "train"]
    for label, name in ((0, "real"), (1, "fake")):
        if len(train) and not (train["label"] == label).any():
            raise UserError(
                f"{where}: all {len(train)} train items are {'fake' if label == 0 else 'real'}; "
                f"the class {name} (label {label}) is empty: check its folder or the label column"
            )


def fingerprint(items: pd.DataFrame, crcs: list[int | None]) -> str:
    """Return the SHA-256 of ids, splits, paths, sizes and (in zips) CRCs, as 64 hex digits."""
    digest = hashlib.sha256()
    columns = (items[c] for c in ("split", "item_id", "path", "bytes"))
    for split, item_id, path, size, crc in zip(*columns, crcs, strict=True):
        digest.update(f"{split}\0{item_id}\0{path}\0{size}\0{crc}\n".encode())
    return digest.hexdigest()


@dataclass(slots=True)
class Item:
    """One item as its layout understood it."""

    entry: Entry  # its file
    item_id: str
    label: int  # 0, 1, or `UNKNOWN` of a test item
    group: str = ""
    domain: str = ""
    fold: int | None = None  # given by a fold column
    in_val: bool = False  # it stands in a val/ or in the table of one


def make_manifest(
    train: Sequence[Item], test: Sequence[Item]
) -> tuple[list[Entry], pd.DataFrame, pd.Series | None]:
    """Return the manifest, the file of each of its rows, and the labels of test, kept apart."""
    rows = [row for part in (train, test) for row in sorted(part, key=attrgetter("item_id"))]
    # One after the other, and sorted before: no second copy of any is made.
    columns: dict[str, Iterator[Any]] = {
        "item_id": (row.item_id for row in rows),
        "path": (row.entry.path for row in rows),
        # A row of a parquet file may have no name.
        "kind": (kind_of(row.entry.logical) or "image" for row in rows),
        "split": (("train", "test")[at >= len(train)] for at in range(len(rows))),
        "label": (row.label if at < len(train) else pd.NA for at, row in enumerate(rows)),
        "group": (row.group for row in rows),
        "domain": (row.domain for row in rows),
        "bytes": (row.entry.bytes for row in rows),
    }
    items = pd.DataFrame(
        {
            name: pd.Series(
                list(columns[name]) if name in columns else None,
                pd.RangeIndex(len(rows)),
                dtype=NUMBERS.get(name, STRING),
            )
            for name in COLUMNS
        },
        copy=False,
    )
    truth = {row.item_id: row.label for row in test}
    known = bool(truth) and UNKNOWN not in truth.values()
    labels = pd.Series(truth, dtype="int64", name="label").sort_index() if known else None
    return [row.entry for row in rows], items, labels


def answer_names(config: DatasetConfig) -> tuple[str, str]:
    """Return how real and fake are written in answers: as dataset.yaml says, or in its numbers."""
    return config.submission.label_names or number_names(config.labels)


def check_direction(
    where: str, column: str | None, names: tuple[str, str], config: DatasetConfig
) -> None:
    """Raise a UserError for an answer column whose name says that 1 is real, if nothing settles it.

    What settles it: `submission.label_names` in numbers, a `labels:` that holds both 0 and 1, or
    words as `names`, which mean what they say where labels are handed in.
    """
    given, numbers = config.submission.label_names, (is_number(name) for name in names)
    by_words = not any(numbers) and config.output in (None, "label")
    by_numbers = given is not None and all(map(is_number, given))
    whole = {word.removesuffix(".0"): label for word, label in (config.labels or {}).items()}
    settled = {whole.get("0"), whole.get("1")} == {0, 1}
    if column is None or not means_real(column) or by_words or by_numbers or settled:
        return
    raise UserError(
        f"{where}: does 1 in column {column!r} mean real? Say in dataset.yaml how real and fake "
        "are written: `submission: {label_names: ['1', '0']}`, or else "
        "`submission: {label_names: ['0', '1']}`"
    )


def is_number(word: str) -> bool:
    """Tell whether a label is written as a number."""
    return word.replace(".", "", 1).isdigit()


def plain_format(config: DatasetConfig, id_column: str, ids: list[str]) -> SubmissionFormat:
    """Return what to hand in where there is no sample: two columns, named as dataset.yaml says."""
    given = config.submission
    check_direction("dataset.yaml", given.answer_column, answer_names(config), config)
    return SubmissionFormat(
        given.id_column or id_column, given.answer_column, ids, answer_names(config)
    )


def summary(layout: SubmissionFormat, config: DatasetConfig) -> str:
    """Say what is handed in by the metric that dataset.yaml names; raises as `choose_output`."""
    output = choose_output(config.metric or DEFAULT, layout.asked, config.output)
    return f"{','.join(layout.header_of(output))}, {describe(output, layout.label_names)}"


def without_sample(
    ids: Iterable[str], config: DatasetConfig
) -> tuple[SubmissionFormat | None, list[str]]:
    """Return what to hand in of test items that no sample submission names, and a note on it."""
    layout = plain_format(config, "filename", sorted(ids))
    if not layout.item_ids:
        return None, ["no test items"]
    return layout, [f"no sample submission: it will be {summary(layout, config)}"]


def name_domains(items: pd.DataFrame, pattern: str, where: Path) -> tuple[pd.DataFrame, str]:
    """Return a manifest with the domains that file names say, and a note on them.

    Args:
        items: the manifest.
        pattern: searched in each file's name; its first group is the domain. An item in whose name
            it finds nothing has none.
        where: the data set's folder, for messages.

    Raises:
        UserError: it finds nothing in any name.
    """
    names = items["path"].str.rpartition("/")[2]
    domain = names.str.extract(pattern, expand=True)[0].fillna("").astype(STRING)
    if not len(items) or (domain == "").all():
        example = f", such as {names.iloc[0]!r}" if len(items) else ""
        raise UserError(
            f"{where}: domain_from {pattern!r} in dataset.yaml finds nothing in the names of its "
            f"{len(items)} files{example}"
        )
    count = Counter(zip(domain, items["split"], strict=True))
    found = ", ".join(f"{name or 'none'} {n} {split}" for (name, split), n in sorted(count.items()))
    lost = names[domain == ""]
    more = f" (none: such as {lost.iloc[0]})" if len(lost) else ""
    return items.assign(domain=domain), f"domains: in file names, by domain_from: {found}{more}"
