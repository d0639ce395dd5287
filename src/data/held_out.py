"""Which files are test items, and what train/ and val/ make of the rest where they are kept."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import PurePosixPath

import pandas as pd

from src.artifacts.submissions import SubmissionFormat
from src.data.dataset_yaml import DatasetConfig
from src.data.field_splits import split_folds
from src.data.labelling import TrainItem
from src.data.matching import FileIndex
from src.data.places import MediaFile, own_folders
from src.data.sample import Sample, left_aside, match_sample
from src.errors import UserError


def follow_sample(
    files: list[MediaFile], sample: Sample | None
) -> tuple[list[MediaFile], list[str]]:
    """Make test folders of those whose files a sample submission names; returns notes too.

    Those are folders that are no split's, beside a train/, and where there is no test/, val/ too.
    Each id that is not in test/ must fit one of their files.
    """
    splits = {file.place.split for file in files}
    if sample is None or "train" not in splits:
        return files, []
    tests = FileIndex(f.known_as(i) for i, f in enumerate(files) if f.place.split == "test")
    ids = [item_id for item_id in sample.layout.item_ids if not tests.find(item_id)]
    wanted = ("",) if "test" in splits else ("", "val")
    pool = [i for i, file in enumerate(files) if file.place.split in wanted]
    index = FileIndex(files[i].known_as(i) for i in pool)
    found = [index.find(item_id) for item_id in ids] if pool else []
    if not found or any(len(fits) != 1 for fits in found):
        return files, []
    others = {file.folder for file in files if file.place.split not in wanted}
    hit = {fits[0] for fits in found}
    own = own_folders({files[i].folder for i in hit}, others)
    homes = sorted({own[files[i].folder] for i in hit} - {""})
    inside = {
        i for i in pool
        if i in hit or any(f"{files[i].folder}/".startswith(f"{home}/") for home in homes)
    }  # fmt: skip
    done = [
        replace(file, place=replace(file.place, split="test")) if i in inside else file
        for i, file in enumerate(files)
    ]
    named = ", ".join(f"{home}/" for home in homes) or "files"
    return done, [f"splits: {PurePosixPath(sample.where).name} names {named}: test items"]


def find_test(
    files: list[MediaFile], sample: Sample | None, config: DatasetConfig, unread: dict[str, str]
) -> tuple[dict[int, str], SubmissionFormat | None, list[str]]:
    """Return file -> item_id of the test items, what to hand in, and notes."""
    inside = [i for i, file in enumerate(files) if file.place.split == "test"]
    if sample is None:
        if not inside:
            return {}, None, ["no test items"]
        test = {i: files[i].name for i in inside}
        layout = SubmissionFormat("filename", "label", sorted(test.values()))
        return test, layout, ["no sample submission: it will be written as filename,label"]
    # Without test/, everything in one folder: the sample says which files are test items.
    pool = inside or [
        i for i, file in enumerate(files) if file.place.split == "" and file.place.label is None
    ]
    index = FileIndex(files[i].known_as(i) for i in pool)
    if not inside and not any(index.find(item_id) for item_id in sample.layout.item_ids):
        count = len(sample.layout.item_ids)
        lies_there = left_aside(sample, range(count), unread)
        why = "" if lies_there is None else f": {lies_there[1]}"
        return {}, None, [f"no test items, though {sample.where} names {count}{why}"]
    test = match_sample(sample, index, unread)
    unlisted = [i for i in inside if i not in test]
    if unlisted and config.unlisted_files == "error":
        raise UserError(
            f"{sample.where} has no row for {files[unlisted[0]].entry.path} ({len(unlisted)} such "
            f"files of {len(inside)}); leave them aside in dataset.yaml: `unlisted_files: ignore`"
        )
    layout = sample.layout
    note = (
        f"submission: {PurePosixPath(sample.where).name}, {len(layout.item_ids)} rows of "
        f"{layout.id_column},{layout.label_column}, written as "
        f"{layout.label_names[0]} (real) and {layout.label_names[1]} (fake)"
    )
    return test, layout, [note, *sample.notes]


def test_labels(files: list[MediaFile], test: dict[int, str]) -> pd.Series | None:
    """Return item_id -> label of the test items; None where a folder does not say it."""
    labels = {item_id: files[index].place.label for index, item_id in test.items()}
    if not labels or None in labels.values():
        return None
    return pd.Series(labels, dtype="int64", name="label").sort_index()


def given_folds(train: Collection[TrainItem]) -> tuple[pd.Series | None, list[str]]:
    """Return the folds of a table's column, else those of train/ and val/ with a note on val/."""
    folds = {item.item_id: item.fold for item in train}
    if folds and None not in folds.values():
        return pd.Series(folds, dtype="int64", name="fold").sort_index(), []
    given = {item.item_id: int(not item.in_val) for item in train}
    return split_folds(given, {item.item_id: item.label for item in train})
