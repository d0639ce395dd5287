"""The manifest on disk, so that a later start lists and reads nothing: columns of a mapped file.

What is read from it copies nothing: the words and numbers of a million items are pages of a file
that all processes of a machine share. It holds while everything that it was understood from is
found as it was (`marks`), and the code that reads layouts is the same.
"""

import gc
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from src import paths
from src.artifacts.answers import Asked
from src.artifacts.atomic import atomic_path, file_lock
from src.artifacts.files import read_json, sha256_json, write_json
from src.artifacts.label_names import LabelNames
from src.artifacts.submissions import SubmissionFormat
from src.data.items.dataset_yaml import DatasetConfig
from src.data.items.manifest import COLUMNS, NUMBERS, STRING, UNKNOWN, Dataset
from src.data.items.marks import Basis, Mark, mark, still
from src.errors import LockedError, UserError
from src.mapped import map_file

LOG = logging.getLogger("rvf")
SCHEMA = 1
FEWEST = 2_000  # items of a manifest that is kept: fewer are understood as soon as looked after
# Files of items in folders that are looked at, 1.5 us each; of more some, evenly spread.
MOST_LOOKED_AT, SPREAD = 100_000, 10_000
_WHAT = "kept manifest"
_PARTS = ("items", "given", "truth", "masks", "missing", "extra", "submission", "marks")
_KEYS = ("code", "about", "file", "notes", "ignored", "labels", "from_splits", "data_sha256",
         "kinds", "submission")  # fmt: skip
_WRITTEN = [name for name in COLUMNS if name not in ("width", "height")]  # those are never known
_READ = ("src/data/items", "src/data/layouts", "src/data/published", "src/data/pixels/frames.py")
_Tables = dict[str, pa.Table]


@dataclass(frozen=True)
class KeptManifest:
    """The kept manifest of a data set, as one command reads it."""

    name: str  # of the data set
    root: Path  # its folder
    group_by: str | None  # what stands in place of dataset.yaml's
    about: str = ""  # of shards: the fingerprint of their list, which names every file's

    @property
    def path(self) -> Path:
        """Return the JSON that says what is kept; the columns lie beside it."""
        key = sha256_json([os.path.abspath(self.root), self.group_by])  # noqa: PTH100
        return paths.kept_manifest(self.name, key[:16])

    def read(self, config: DatasetConfig) -> Dataset | None:
        """Return the data set as it was kept; None where there is none, or it has changed.

        `config` is what dataset.yaml says now.
        """
        if not self.path.exists():
            return None
        try:
            record = read_json(self.path, schema=SCHEMA, what=_WHAT, keys=_KEYS, sealed=True)
            if (record["code"], record["about"]) != (code_sha256(), self.about):
                return None
            if list(mark(str(self._columns))[1:]) != record["file"]:
                raise UserError(f"{self._columns}: not what was written (edited, or damaged)")
            tables = _map_tables(self._columns)
            if not still(_marks_of(tables["marks"])):
                return None
            return _dataset(self, config, record, tables)
        except (UserError, OSError, pa.ArrowException, LookupError, TypeError, ValueError) as error:
            LOG.info("the kept manifest of %s is made anew: %s", self.name, error)
            return None

    def or_make(
        self, config: DatasetConfig, make: Callable[[], tuple[Dataset, Basis, NDArray[np.bool_]]]
    ) -> Dataset:
        """Return what was kept, else `make` it and keep it; of several processes one makes it.

        `make` returns the data set, what it was understood from, and of each row of items whether
        it is a file of its own.
        """
        record = mark(str(self.path))
        found = self.read(config)
        if found is not None:
            return found
        with ExitStack() as held:
            lock, what = self.path.with_suffix(".lock"), f"the manifest of {self.name}"
            # Where nothing can be written or locked each process understands it for itself.
            with suppress(UserError, OSError):
                try:
                    held.enter_context(file_lock(lock, what))
                except LockedError:
                    LOG.info("another process is reading %s: waiting for it", self.name)
                    held.enter_context(file_lock(lock, what, wait=True))
            found = self.read(config) if mark(str(self.path)) != record else None
            if found is not None:
                return found
            with _without_collector():
                made = make()
            return self.write(config, *made)

    def write(
        self, config: DatasetConfig, dataset: Dataset, basis: Basis, on_disk: NDArray[np.bool_]
    ) -> Dataset:
        """Keep a data set, and return it as it is read from now on (see `or_make`).

        A small one is not kept, nor what cannot be written.
        """
        if len(dataset.items) < FEWEST or not basis.settled:
            return dataset
        try:
            tables = _tables(dataset)
            tables["marks"] = _as_table([*basis.marks, *_look_at_files(dataset, on_disk)])
            _write_tables(self._columns, tables)
            own = {"about": self.about, "file": list(mark(str(self._columns))[1:])}
            record = _record(dataset) | own
            write_json(self.path, {"schema": SCHEMA, **record}, seal=True)
        except (UserError, OSError, pa.ArrowException, ValueError) as error:
            LOG.info("the manifest of %s is not kept: %s", self.name, error)
            return dataset
        del tables
        return _dataset(self, config, record, _map_tables(self._columns))

    @property
    def _columns(self) -> Path:
        return self.path.with_suffix(".arrow")


@contextmanager
def _without_collector() -> Iterator[None]:
    """Look for no circles among millions of objects that hold none: a fifth of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def forget(name: str) -> None:
    """Remove what is kept of a data set, however it was read, and the directories of all zips."""
    home = paths.kept_manifest(name, "any").parent
    for file in home.glob("*.json") if home.is_dir() else ():
        file.unlink(missing_ok=True)
        file.with_suffix(".arrow").unlink(missing_ok=True)
    for file in paths.zip_directory("any").parent.glob("*.arrow"):
        file.unlink(missing_ok=True)


@cache
def code_sha256() -> str:
    """Return the fingerprint of the code that understands data sets."""
    digest = sha256(f"{pd.__version__} {pa.__version__} {np.__version__}".encode())
    for name in _READ:
        place = paths.REPO / name
        for file in sorted(place.glob("*.py")) if place.is_dir() else [place]:
            digest.update(f"\0{file.name}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def _record(dataset: Dataset) -> dict[str, Any]:
    """Return all of a data set that is no column."""
    wanted = dataset.submission
    given = {"given": dataset.given_folds, "truth": dataset.test_labels}
    return {
        "code": code_sha256(),
        "notes": dataset.notes,
        "ignored": dataset.ignored,
        "labels": [dataset.labels.real, dataset.labels.fake],
        "from_splits": dataset.from_splits,
        "data_sha256": dataset.sha256,
        "kinds": [name for name, column in given.items() if column is not None],
        "submission": None
        if wanted is None
        else {
            "id_column": wanted.id_column, "answer_column": wanted.answer_column,
            "label_names": wanted.label_names, "header": wanted.header,
            "further": [*wanted.further], "columns": wanted.columns, "asked": wanted.asked,
        },
    }  # fmt: skip


def _tables(dataset: Dataset) -> _Tables:
    items, wanted = dataset.items, dataset.submission
    columns = {name: _words(items[name]) for name in _WRITTEN if name not in ("label", "bytes")}
    columns["label"] = pa.array(items["label"].to_numpy(np.int8, na_value=UNKNOWN))
    columns["bytes"] = pa.array(items["bytes"].to_numpy(np.int64))
    columns["stamp"] = pa.array(dataset.stamps)
    found = {"items": pa.table(columns)}
    for part, series in (("given", dataset.given_folds), ("truth", dataset.test_labels)):
        ids, numbers = ([], []) if series is None else (series.index, series.to_numpy(np.int64))
        found[part] = pa.table({"item_id": _words(ids), "value": pa.array(numbers, pa.int64())})
    masks = {"item_id": _words(dataset.masks.index), "path": _words(dataset.masks)}
    ids = {} if wanted is None else {"item_id": wanted.item_ids} | {
        f"{place}": cells for place, cells in enumerate(wanted.further.values())
    }  # fmt: skip
    return found | {
        "masks": pa.table(masks),
        "missing": pa.table({"path": _words(dataset.missing)}),
        "extra": pa.table({"item_id": _words(sorted(dataset.extra_ids))}),
        "submission": pa.table({name: _words(cells) for name, cells in ids.items()}),
    }


def _words(some: pd.Series | pd.Index | Sequence[str]) -> pa.Array:
    """Return strings as one piece, whose offsets have 64 bits, as pandas wants them."""
    kept = some.array if isinstance(some, pd.Series | pd.Index) else [*some]
    found = pa.array(kept, pa.large_string())
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found


def _look_at_files(dataset: Dataset, on_disk: NDArray[np.bool_]) -> Iterator[Mark]:
    """Mark files of items, all or evenly spread ones; what is said to be missing has no mark."""
    rows = np.flatnonzero(on_disk)
    if len(rows) > MOST_LOOKED_AT:
        rows = rows[np.linspace(0, len(rows) - 1, SPREAD).astype(np.int64)]
    missing, found = {*dataset.missing}, dataset.items.iloc[rows]
    for path, size, stamp in zip(found["path"], found["bytes"], dataset.stamps[rows], strict=True):
        if path not in missing:
            # As it was listed, not as it is by now.
            yield Mark(os.path.abspath(dataset.root / path), int(size), int(stamp), -1)  # noqa: PTH100


def _as_table(marks: Sequence[Mark]) -> pa.Table:
    where = pa.array([os.fsencode(one.path) for one in marks], pa.large_binary())
    numbers = np.array([one[1:] for one in marks], np.int64).reshape(-1, 3)
    columns = dict(zip(Mark._fields[1:], numbers.T, strict=True))
    return pa.table({"path": where, **{n: pa.array(c.copy()) for n, c in columns.items()}})


def _marks_of(table: pa.Table) -> Iterator[Mark]:
    columns = (table[name].to_pylist() for name in Mark._fields)
    for where, *numbers in zip(*columns, strict=True):
        yield Mark(os.fsdecode(where), *numbers)


def _write_tables(path: Path, tables: Mapping[str, pa.Table]) -> None:
    """Write Arrow streams one behind the other."""
    with atomic_path(path) as temporary, pa.OSFile(str(temporary), "wb") as sink:
        for part in _PARTS:
            with pa.ipc.new_stream(sink, tables[part].schema) as writer:
                writer.write_table(tables[part])


def _map_tables(path: Path) -> _Tables:
    source, found = map_file(path), {}
    for part in _PARTS:
        with pa.ipc.open_stream(source) as reader:
            found[part] = reader.read_all().combine_chunks()  # of one piece it copies nothing
        found[part].validate()
    return found


def _dataset(
    kept: KeptManifest, config: DatasetConfig, record: Mapping[str, Any], tables: _Tables
) -> Dataset:
    known = {name: _series(tables[name]["item_id"], tables[name]["value"], column)
             for name, column in (("given", "fold"), ("truth", "label"))
             if name in record["kinds"]}  # fmt: skip
    masks = tables["masks"]
    return Dataset(
        name=kept.name,
        root=kept.root,
        items=_items(tables["items"]),
        stamps=_numbers(tables["items"]["stamp"]),
        submission=_submission(record["submission"], tables["submission"]),
        test_labels=known.get("truth"),
        given_folds=known.get("given"),
        from_splits=record["from_splits"],
        masks=pd.Series(_strings(masks["path"]), _index(masks["item_id"]), name="mask"),
        extra_ids=frozenset(tables["extra"]["item_id"].to_pylist()),
        config=config,
        labels=LabelNames(*map(tuple, record["labels"])),
        notes=record["notes"],
        ignored=record["ignored"],
        missing=tuple(tables["missing"]["path"].to_pylist()),
        sha256=record["data_sha256"],
    )


def _items(table: pa.Table) -> pd.DataFrame:
    label, unknown = _numbers(table["label"]), np.ones(len(table), bool)
    nowhere = np.zeros(len(table), np.int32)  # never touched, so that it takes no memory
    columns: dict[str, Any] = {
        "label": pd.arrays.IntegerArray(label, label == UNKNOWN),
        "bytes": _numbers(table["bytes"]),
        "width": pd.arrays.IntegerArray(nowhere, unknown),
        "height": pd.arrays.IntegerArray(nowhere, unknown),
    }
    columns |= {name: _strings(table[name]) for name in COLUMNS if name not in NUMBERS}
    return pd.DataFrame({name: columns[name] for name in COLUMNS}, copy=False)


def _strings(column: pa.ChunkedArray) -> pd.api.extensions.ExtensionArray:
    make: Any = STRING  # pandas' annotations leave its protocol out
    return make.__from_arrow__(column)


def _index(column: pa.ChunkedArray) -> pd.Index:
    return pd.Index(_strings(column))


def _numbers(column: pa.ChunkedArray) -> NDArray[Any]:
    # To combine a single piece would copy it.
    whole = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    return whole.to_numpy(zero_copy_only=True)


def _series(ids: pa.ChunkedArray, values: pa.ChunkedArray, name: str) -> pd.Series:
    return pd.Series(_numbers(values), _index(ids), name=name, copy=False)


def _submission(said: Mapping[str, Any] | None, table: pa.Table) -> SubmissionFormat | None:
    if said is None:
        return None
    cells = {name: table[str(place)].to_pylist() for place, name in enumerate(said["further"])}
    return SubmissionFormat(
        said["id_column"],
        said["answer_column"],
        table["item_id"].to_pylist(),
        tuple(said["label_names"]),
        said["header"],
        cells,
        tuple(said["columns"]),
        None if said["asked"] is None else Asked(*said["asked"]),
    )
