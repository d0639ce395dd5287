"""What is written last: the index of all shards, and the list of them that makes them whole."""

import hashlib
import io
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from src.artifacts.atomic import atomic_path
from src.artifacts.files import sealed_text
from src.data.items.dataset_yaml import DatasetConfig, part_of, says_cropped
from src.data.items.manifest import Dataset
from src.data.items.shard_home import ABOUT, INDEX, SCHEMA, SUBMISSION, ShardHome
from src.data.items.shard_index import CARRIED, SCHEMA_OF, submission_parts
from src.data.shards.tar import sha256_of, size_of
from src.errors import UserError

_WRITTEN = ("member", "offset", "bytes", "crc", "mask", "mask_offset", "mask_bytes", "mask_crc")


def settings_of(dataset: Dataset) -> dict[str, Any]:
    """Return what shards take along of a dataset.yaml.

    Raises:
        UserError: `faces: cropped` holds for some parts of a combined data set, and not for all.
    """
    settings = TypeAdapter(DatasetConfig).dump_python(
        dataset.config, mode="json", exclude_defaults=True
    )
    parts = {part_of(path) for path in dataset.items["path"].unique() if path.startswith("../")}
    parts |= {""} if not dataset.items["path"].str.startswith("../").all() else set()
    cropped = {says_cropped(dataset.root, part) for part in parts}
    if len(cropped) > 1:
        raise UserError(
            f"{dataset.root}: some of its parts say `faces: cropped` and some do not, and shards "
            "say one thing of all items: pack each part, and combine these (`combine:`)"
        )
    faces = {"faces": "cropped"} if cropped == {True} else {}
    return {key: settings[key] for key in CARRIED if key in settings and key != "faces"} | faces


def describe(
    dataset: Dataset,
    home: ShardHome,
    plan: str,
    settings: Mapping[str, Any],
    parts: Mapping[str, pa.Table],
) -> None:
    """Write `index.parquet`, `submission.parquet` and, last, `shards.json`.

    `parts` are where the items of each shard are, `plan` what they were dealt by.
    """
    index = _index(dataset, parts)
    buffer = io.BytesIO()
    pq.write_table(index, buffer, compression="zstd", write_page_checksum=True)
    submission, answers = submission_parts(dataset.submission)
    files = {INDEX: buffer.getvalue()} | ({SUBMISSION: answers} if submission else {})
    about = {
        "schema": SCHEMA,
        "name": dataset.name,
        "plan": plan,
        "items": len(index),
        "files": {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
                  for name, data in files.items()},
        "shards": {name: {"bytes": size_of(part), "sha256": sha256_of(part),
                          "items": len(part)} for name, part in parts.items()},
        "labels": asdict(dataset.labels),
        "settings": dict(settings),
        "submission": submission,
        "from_splits": dataset.from_splits,
        "notes": dataset.notes,
        "ignored": dataset.ignored,
    }  # fmt: skip
    for name, data in files.items():
        _put(home, name, data)
    _put(home, ABOUT, sealed_text(about).encode())


def _index(dataset: Dataset, parts: Mapping[str, pa.Table]) -> pa.Table:
    """Return the index, in the manifest's order."""
    items = dataset.items
    found = pa.concat_tables(part.replace_schema_metadata(None) for part in parts.values())
    order = np.argsort(found["row"].to_numpy(), kind="stable")
    numbers = np.repeat(np.arange(len(parts)), [len(part) for part in parts.values()])
    shard = pa.DictionaryArray.from_arrays(
        pa.array(numbers[order].astype(np.int32)), pa.array(list(parts), pa.string())
    )
    written = found.take(pa.array(order))
    folds = pd.Series(dataset.given_folds if dataset.given_folds is not None else {}, dtype="Int32")
    is_train = items["split"] == "train"
    fold = items["item_id"].map(folds).where(is_train).astype("Int32")
    label = items["label"].where(is_train).astype("Int8")
    columns = {
        "item_id": items["item_id"],
        "shard": shard,
        **{name: written[name] for name in _WRITTEN},
        **{name: items[name] for name in ("kind", "split", "group", "domain")},
        "label": label,
        "fold": fold,
        "extra": items["item_id"].isin(dataset.extra_ids) & is_train,
    }
    arrays = [_as_array(columns[field.name], field.type) for field in SCHEMA_OF]
    return pa.table(arrays, schema=SCHEMA_OF)


def _as_array(column: Any, kind: pa.DataType) -> pa.Array | pa.ChunkedArray:  # noqa: ANN401
    if not isinstance(column, pd.Series):
        return column.cast(kind) if column.type != kind else column
    if pa.types.is_dictionary(kind):
        return pa.array(column, pa.string()).dictionary_encode()
    return pa.array(column, kind)


def _put(home: ShardHome, name: str, data: bytes) -> None:
    if home.is_remote:
        home.write(name, data)
        return
    with atomic_path(Path(home.join(name))) as temporary:
        temporary.write_bytes(data)
