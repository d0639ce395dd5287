"""Which files are test items, and what train/ and val/ make of the rest where they are kept."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pandas as pd

from src.data.items.dataset_yaml import DatasetConfig
from src.data.items.manifest import without_sample
from src.data.items.places import FileIndex, MediaFile, own_folders
from src.data.layouts.class_folders import TrainItem, thin_folders
from src.data.layouts.sample_submission import Sample, left_aside, match_sample
from src.data.layouts.test_list import TestItems, TestList, match_list
from src.data.published.reading import split_folds
from src.errors import UserError


def follow_sample(
    files: list[MediaFile], sample: Sample | None
) -> tuple[list[MediaFile], list[str]]:
    """Make test items of the files that a sample submission names; returns notes too.

    Beside a train/ those are whole folders that are no split's, and where there is no test/, val/
    too. Where no folder says a split, those are the named files of the class folders alone. Each id
    that is not in test/ must fit one of these files.
    """
    splits = {file.place.split for file in files}
    if sample is None:
        return files, []
    if "train" not in splits:
        return (files, []) if "test" in splits else _follow_into_classes(files, sample)
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


def _follow_into_classes(
    files: list[MediaFile], sample: Sample
) -> tuple[list[MediaFile], list[str]]:
    """Hold out the files of class folders that a sample names, where it names no others."""
    labelled = [i for i, file in enumerate(files) if file.place.label is not None]
    free = (f.known_as(i) for i, f in enumerate(files) if f.place.label is None)
    others, index = FileIndex(free), FileIndex(files[i].known_as(i) for i in labelled)
    ids = sample.layout.item_ids
    if not labelled or any(others.find(one) or len(index.find(one)) != 1 for one in ids):
        return files, []
    hit = {index.find(one)[0] for one in ids}
    done = [
        replace(file, place=replace(file.place, split="test")) if i in hit else file
        for i, file in enumerate(files)
    ]
    return done, [
        f"splits: {PurePosixPath(sample.where).name} names {len(hit)} files of the class folders, "
        f"such as {files[min(hit)].entry.path}: test items, not trained on"
    ]


def find_test(
    files: list[MediaFile],
    sample: Sample | None,
    listed: TestList | None,
    config: DatasetConfig,
    unread: dict[str, str],
) -> TestItems:
    """Return the test items: those that a sample or a list names, else all of test/."""
    inside = [i for i, file in enumerate(files) if file.place.split == "test"]
    if sample is None and listed is None:
        return _all_inside(files, inside, config)
    # Without test/, everything in one folder: the sample says which files are test items.
    pool = inside or [
        i for i, file in enumerate(files)
        if file.place.split == "" and (sample is None or file.place.label is None)
    ]  # fmt: skip
    if listed is not None and listed.by_column:
        pool = list(range(len(files)))
    if sample is not None:
        where, found = sample.where, _find_sampled(files, pool, sample, unread, some=bool(inside))
    else:
        assert listed is not None  # one of the two
        where, found = listed.where, match_list(listed, files, pool, config)
    of = {*found.ids, *found.thinned}
    unlisted = [i for i in inside if i not in of] if of else []
    if unlisted and config.unlisted_files == "error":
        raise UserError(
            f"{where} has no row for {files[unlisted[0]].entry.path} ({len(unlisted)} such "
            f"files of {len(inside)}); leave them aside in dataset.yaml: `unlisted_files: ignore`"
        )
    found.ignored[f"test files that {PurePosixPath(where).name} does not name"] += len(unlisted)
    return found


def _all_inside(files: list[MediaFile], inside: list[int], config: DatasetConfig) -> TestItems:
    kept = thin_folders(files, inside, config.frames_per_video[1], config)
    test = {i: files[i].name for i in kept}
    layout, notes = without_sample(test.values(), config)
    return TestItems(test, layout, notes, thinned={*inside} - {*kept})


def _find_sampled(
    files: list[MediaFile], pool: list[int], sample: Sample, unread: dict[str, str], *, some: bool
) -> TestItems:
    index = FileIndex(files[i].known_as(i) for i in pool)
    if not some and not any(index.find(item_id) for item_id in sample.layout.item_ids):
        count = len(sample.layout.item_ids)
        lies_there = left_aside(sample, range(count), unread)
        why = "" if lies_there is None else f": {lies_there[1]}"
        said = f"no test items, though {sample.where} names {count}{why}"
        everything = FileIndex(file.known_as(i) for i, file in enumerate(files))
        alike = sum(bool(everything.find(item_id)) for item_id in sample.layout.item_ids)
        if alike:
            said = (
                f"WARNING {said}; {alike} of them are names of train files: if they are the same "
                "files, move them into test/"
            )
        return TestItems({}, None, [said])
    layout = sample.layout
    note = (
        f"submission: {PurePosixPath(sample.where).name}, {len(layout.item_ids)} rows of "
        f"{layout.id_column},{layout.label_column}, {layout.written}"
    )
    return TestItems(match_sample(sample, index, unread), layout, [note, *sample.notes])


def given_folds(root: Path, train: Collection[TrainItem]) -> tuple[pd.Series | None, list[str]]:
    """Return the folds of a table's column, else those of train/ and val/ with a note on val/.

    Raises:
        UserError: the column skips a fold.
    """
    folds = {item.item_id: item.fold for item in train}
    if folds and None not in folds.values():
        found = sorted({int(fold or 0) for fold in folds.values()} - {-1})
        if found != list(range(len(found))) or len(found) < 2:
            raise UserError(f"{root}: the column of folds holds {found}, want 0..k-1")
        return pd.Series(folds, dtype="int64", name="fold").sort_index(), []
    given = {item.item_id: int(not item.in_val) for item in train}
    return split_folds(given, {item.item_id: item.label for item in train})
