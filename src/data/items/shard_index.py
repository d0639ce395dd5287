"""The index of a data set of shards: its manifest in columns, without listing or opening a shard.

`index.parquet` is in the manifest's order, so that nothing is sorted; its columns are `SCHEMA_OF`.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from src import paths
from src.artifacts.answers import Asked
from src.artifacts.atomic import atomic_path
from src.artifacts.files import sha256_json
from src.artifacts.fingerprints import fingerprint_of
from src.artifacts.label_names import LabelNames
from src.artifacts.submissions import SubmissionFormat
from src.data.items.dataset_yaml import DatasetConfig
from src.data.items.files import LARGEST
from src.data.items.listing import Entry
from src.data.items.manifest import COLUMNS, STRING, Dataset
from src.data.items.shard_home import INDEX, SUBMISSION, ShardHome, home_of_folder
from src.errors import UserError
from src.strict_yaml import checked
from src.texts import Texts

_NAMES = pa.dictionary(pa.int32(), pa.string())
SCHEMA_OF = pa.schema([
    ("item_id", pa.string()),
    ("shard", _NAMES),
    ("member", pa.string()),  # what the item's file is called in the shard
    ("offset", pa.int64()),  # where its bytes begin in the shard
    ("bytes", pa.int64()),
    ("crc", pa.int64()),  # CRC-32 of them
    ("kind", _NAMES),
    ("split", _NAMES),
    ("label", pa.int8()),  # null in test
    ("group", pa.string()),
    ("domain", _NAMES),
    ("fold", pa.int32()),  # given by the data set; null for none
    ("extra", pa.bool_()),  # always trained on, never scored
    ("mask", pa.string()),  # member, offset, bytes and CRC of its mask; null for none
    ("mask_offset", pa.int64()),
    ("mask_bytes", pa.int64()),
    ("mask_crc", pa.int64()),
])  # fmt: skip
_PLACE = ("offset", "bytes", "crc")
_ALWAYS = ("item_id", "shard", "member", *_PLACE, "kind", "split")  # never null
# Keys of dataset.yaml that shards take along, and that one beside them may say in their place.
CARRIED = ("metric", "output", "rules", "n_folds", "seed", "faces", "group_by")
# Keys that one beside shards may give too: they say nothing of how files are read.
BESIDE = ("shards", "extra", "test_sets", *CARRIED)


def read_shards(name: str, root: Path, config: DatasetConfig, home: ShardHome) -> Dataset:
    """Return the data set that shards hold; `config` is of the dataset.yaml beside them.

    Raises:
        UserError: the index is not there, damaged or of another version, or dataset.yaml says how
            files are to be read, which was settled when the shards were written.
    """
    config, _ = settle(config, home)
    about = home.about()
    table = _index(home, about)
    submission = _submission(home, about)
    items = _items(table)
    ids, is_train = items["item_id"], (items["split"] == "train").to_numpy()
    folds = _column(table, "fold", -1)
    given = folds >= 0
    extra = _column(table, "extra", False)
    has_mask = table["mask"].is_valid().to_numpy(zero_copy_only=False)
    masks = _paths(table.filter(pa.array(has_mask)), "mask", "mask_").to_pandas().astype(STRING)
    count, size = len(about["shards"]), sum(one["bytes"] for one in about["shards"].values())
    return Dataset(
        name=name,
        root=root,
        items=items,
        stamps=_column(table, "crc", 0),
        submission=submission,
        given_folds=pd.Series(folds[given & is_train], ids[given & is_train], name="fold")
        if given.any() else None,
        from_splits=about["from_splits"],
        masks=pd.Series(masks.array, pd.Index(ids[has_mask]), name="mask"),
        extra_ids=frozenset(ids[extra]),
        config=config,
        labels=LabelNames(*(tuple(about["labels"][key]) for key in ("real", "fake"))),
        notes=[f"shards: {count} of {size / 1e9:.3g} GB in {home.place}, packed from "
               f"{about['name']}", *about["notes"]],
        ignored=about["ignored"],
        sha256=sha256_json([about["files"], about["from_splits"], about["name"]]),
    )  # fmt: skip


def settle(config: DatasetConfig, home: ShardHome) -> tuple[DatasetConfig, str]:
    """Return the settings that hold, and the fingerprint of all that the shards hold.

    Raises:
        UserError: as `read_shards`, for what dataset.yaml says and what names the shards.
    """
    home_of_folder.cache_clear()  # dataset.yaml may name another one now
    about = home.about()
    _refuse_readings(config, home, about["settings"])
    return _settings(config, about["settings"], home), sha256_json(about)


def entries_of(dataset: Dataset) -> list[Entry]:
    """Return the file of each item, for what makes one data set of several."""
    rows = zip(dataset.items["path"], dataset.items["bytes"], dataset.stamps, strict=True)
    return [Entry(path, path, size, crc, crc) for path, size, crc in rows]


def places_of(files: Sequence[str] | pd.Series) -> np.ndarray:
    """Return where items lie, int64: number of the shard * 2**40 + offset in it.

    An item that lies elsewhere (of an `extra:` data set, say) counts as one of a shard of its own.

    Raises:
        UserError: none of them lies in a shard.
    """
    found = pc.call_function(
        "extract_regex", [Texts(files).column],
        pc.ExtractRegexOptions(r"^(?P<shard>.*?\.tar)!/(?P<offset>\d{1,12})-"),
    )  # fmt: skip
    if found.null_count == len(found):
        raise UserError(
            "sampler: shards reads shards in their order, and this data set lies in files; "
            "take shuffle, or pack it: python -m src shards"
        )
    if isinstance(found, pa.ChunkedArray):
        found = found.combine_chunks()
    shard, offset = found.flatten()
    shard = shard.dictionary_encode()
    number = pc.fill_null(shard.indices, -1).to_numpy()
    offset = pc.fill_null(offset.cast(pa.int64()), 0).to_numpy()
    alone = len(shard.dictionary) + np.arange(len(files))
    return np.where(number < 0, alone, number) * 2**40 + offset


def _items(table: pa.Table) -> pd.DataFrame:
    """Return the manifest."""
    columns: dict[str, Any] = {"path": _paths(table, "member").to_pandas().astype(STRING)}
    for name in ("item_id", "kind", "split", "group", "domain"):
        columns[name] = table[name].cast(pa.string()).to_pandas().astype(STRING)
    label = table["label"]
    known, null = _column(table, "label", 0).astype(np.int8), ~label.is_valid().to_numpy()
    columns["label"] = pd.Series(pd.arrays.IntegerArray(known, null))
    columns["bytes"] = _column(table, "bytes", 0)
    size = pd.Series(pd.array([pd.NA], "Int32").repeat(len(table)))
    return pd.DataFrame({**columns, "width": size, "height": size})[COLUMNS]


def _paths(table: pa.Table, member: str, prefix: str = "") -> pa.ChunkedArray:
    """Return the paths of members: `train-000000.tar!/1536-20480-2899812733/train/x.jpg`."""
    place = _join(*(table[prefix + name].cast(pa.string()) for name in _PLACE), by="-")
    shard = table["shard"].cast(pa.string())
    return _join(_join(shard, place, by="!/"), table[member], by="/")


def _join(*columns: pa.ChunkedArray, by: str) -> pa.ChunkedArray:
    return pc.call_function("binary_join_element_wise", [*columns, pa.scalar(by)])


def _column(table: pa.Table, name: str, instead: Any) -> np.ndarray:  # noqa: ANN401
    """Return a column as an array, with something in place of what is null."""
    return pc.fill_null(table[name], instead).to_numpy()


def _index(home: ShardHome, about: Mapping[str, Any]) -> pa.Table:
    where = home.join(INDEX)
    table = _parquet(home, about, INDEX)
    if not table.schema.equals(SCHEMA_OF):
        raise UserError(f"{where}: columns are {table.schema.names}, want {SCHEMA_OF.names}")
    empty = [name for name in _ALWAYS if table[name].null_count]
    if empty:
        raise UserError(f"{where}: some items have no {empty[0]}; {_AGAIN}")
    named = set(table["shard"].unique().to_pylist())
    unknown = sorted(named - set(about["shards"]))
    if len(table) != about["items"] or unknown:
        raise UserError(f"{where}: not the index of these shards {unknown[:3]}; {_AGAIN}")
    _check_places(where, table, about["shards"])
    return table


def _check_places(where: str, table: pa.Table, shards: Mapping[str, Any]) -> None:
    """Refuse what lies beyond its shard's end or is no picture, before memory is asked for it."""
    for part in table.to_batches(2**18):
        names = part["shard"].dictionary.to_pylist()
        known = [shards[name]["bytes"] if name in shards else -1 for name in names]  # or unused
        ends = np.array(known, np.int64)
        end = ends[part["shard"].indices.to_numpy()]
        for prefix in ("", "mask_"):
            start, size, crc = (pc.fill_null(part[prefix + name], 0).to_numpy() for name in _PLACE)
            # `end - size`, since a sum could leave int64
            inside = (start >= 0) & (size >= 0) & (size <= np.minimum(end, LARGEST))
            bad = np.flatnonzero(~(inside & (start <= end - size) & (crc >= 0) & (crc < 2**32)))
            if len(bad):
                row = int(bad[0])
                raise UserError(
                    f"{where}: {part['item_id'][row].as_py()}: {size[row]} bytes at {start[row]} "
                    f"of {part['shard'][row].as_py()}, which has {end[row]} bytes (an item at most "
                    f"{LARGEST}); {_AGAIN}"
                )


_AGAIN = "copy the folder again, or write the shards again (python -m src shards)"


def _parquet(home: ShardHome, about: Mapping[str, Any], name: str) -> pa.Table:
    """Return a file of the home, whose SHA-256 `shards.json` knows: it says labels and groups."""
    sha256 = about["files"][name]["sha256"]
    try:
        path = _local_copy(home, name, sha256)
        if fingerprint_of(path) != sha256:
            raise UserError(
                f"{home.join(name)} is not what was written (its SHA-256 does not fit); {_AGAIN}"
            )
        return pq.read_table(path, page_checksum_verification=True, memory_map=False)
    except FileNotFoundError:
        raise UserError(f"{home.join(name)} is not there; {_AGAIN}") from None
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{home.join(name)} is damaged ({error}); {_AGAIN}") from None


def _local_copy(home: ShardHome, name: str, sha256: str) -> Path:
    if not home.is_remote:
        return Path(home.join(name))
    copy = paths.shard_blocks(sha256[:24]) / name
    if not copy.exists() or fingerprint_of(copy) != sha256:
        with atomic_path(copy) as temporary:
            temporary.write_bytes(home.read(name))
    return copy


def _submission(home: ShardHome, about: Mapping[str, Any]) -> SubmissionFormat | None:
    kept = about["submission"]
    if kept is None:
        return None
    table = _parquet(home, about, SUBMISSION)
    columns = {name: table[name].to_pylist() for name in table.column_names}
    ids = columns.pop(kept["id_column"])
    asked = None if kept["asked"] is None else Asked(*kept["asked"])
    return SubmissionFormat(
        kept["id_column"], kept["answer_column"], ids, tuple(kept["label_names"]), kept["header"],
        columns, tuple(kept["columns"]), asked,
    )  # fmt: skip


def submission_parts(layout: SubmissionFormat | None) -> tuple[dict[str, Any] | None, bytes]:
    """Return what `shards.json` keeps of what to hand in, and the bytes of `submission.parquet`."""
    if layout is None:
        return None, b""
    kept = {
        "id_column": layout.id_column, "answer_column": layout.answer_column,
        "label_names": list(layout.label_names), "header": layout.header,
        "columns": list(layout.columns),
        "asked": None if layout.asked is None else list(layout.asked),
    }  # fmt: skip
    columns = {layout.id_column: list(layout.item_ids), **layout.further}
    buffer = io.BytesIO()
    arrays = {name: pa.array(map(str, cells), pa.string()) for name, cells in columns.items()}
    table = pa.table(arrays)
    pq.write_table(table, buffer, write_page_checksum=True)
    return kept, buffer.getvalue()


def _settings(config: DatasetConfig, carried: Mapping[str, Any], home: ShardHome) -> DatasetConfig:
    """Return the settings: those that were taken along, and over them what is given here."""
    kept: DatasetConfig = checked(dict(carried), DatasetConfig, home.place)
    return replace(kept, **{key: getattr(config, key) for key in _given(config)})


def _given(config: DatasetConfig) -> list[str]:
    """Return the keys that a dataset.yaml changes."""
    plain = DatasetConfig()
    names = [one.name for one in fields(DatasetConfig)]  # type: ignore[arg-type]
    return [name for name in names if getattr(config, name) != getattr(plain, name)]


def _refuse_readings(config: DatasetConfig, home: ShardHome, carried: Mapping[str, Any]) -> None:
    wrong = [key for key in _given(config) if key not in BESIDE]
    if wrong:
        raise UserError(
            f"dataset.yaml: `{wrong[0]}:` says how files are read, and the items of shards "
            f"({home.place}) were read when they were packed: say it in the dataset.yaml of what "
            "they were packed from, and pack again"
        )
    by = carried.get("group_by", DatasetConfig().group_by)
    if "group_by" in _given(config) and config.group_by != by:
        raise UserError(
            f"group_by: {config.group_by}, and {home.place} was packed with group_by: {by}; groups "
            "are settled there: pack again"
        )
