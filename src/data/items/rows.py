"""From items as readers find them to the manifest's rows, and to what is handed in of them."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import pandas as pd

from src.artifacts.submissions import SubmissionFormat
from src.data.items.dataset_yaml import DatasetConfig
from src.data.items.listing import kind_of
from src.data.items.manifest import make_items
from src.data.items.walk import Entry
from src.data.items.words import number_names


class Row(NamedTuple):
    """One item: its file, id, label (None for a test item of which nobody knows), group, domain."""

    entry: Entry
    item_id: str
    label: int | None
    group: str
    domain: str


def make_manifest(
    train: Sequence[Row], test: Sequence[Row]
) -> tuple[list[Entry], pd.DataFrame, pd.Series | None]:
    """Return the manifest, the file of each of its rows, and the labels of test, kept apart."""
    rows = [*train, *test]
    columns: dict[str, list[Any]] = {
        "item_id": [row.item_id for row in rows],
        "path": [row.entry.path for row in rows],
        # A row of a parquet file may have no name.
        "kind": [kind_of(row.entry.logical) or "image" for row in rows],
        "split": ["train"] * len(train) + ["test"] * len(test),
        "label": [*(row.label for row in train), *[pd.NA] * len(test)],
        "group": [row.group for row in rows],
        "domain": [row.domain for row in rows],
        "bytes": [row.entry.bytes for row in rows],
    }
    items = make_items(columns, list(range(len(rows))))
    truth = {row.item_id: row.label for row in test}
    known = bool(truth) and None not in truth.values()
    labels = pd.Series(truth, dtype="int64", name="label").sort_index() if known else None
    return [rows[i].entry for i in items.index], items.reset_index(drop=True), labels


def answer_names(config: DatasetConfig) -> tuple[str, str]:
    """Return how real and fake are written in answers: as dataset.yaml says, or in its numbers."""
    return config.submission.label_names or number_names(config.labels)


def without_sample(
    ids: Iterable[str], config: DatasetConfig
) -> tuple[SubmissionFormat | None, list[str]]:
    """Return what to hand in of test items that no sample submission names, and a note on it."""
    layout = SubmissionFormat("filename", "label", sorted(ids), answer_names(config))
    if not layout.item_ids:
        return None, ["no test items"]
    return layout, [f"no sample submission: it will be filename,label, {layout.written}"]
