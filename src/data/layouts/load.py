"""The door for data sets: folders, zips, CSV and JSON of many layouts to one manifest."""

from collections import Counter
from dataclasses import replace
from operator import attrgetter
from pathlib import Path

from src import paths
from src.artifacts.label_names import make_label_names
from src.data.items.dataset_yaml import DatasetConfig, read_dataset_yaml
from src.data.items.listing import TEXT_SUFFIX, Entry, Listing, list_files
from src.data.items.manifest import (
    Dataset,
    Row,
    check_items,
    fingerprint,
    make_items,
    make_manifest,
)
from src.data.items.places import MediaFile, note_splits, place_files, refuse_outside
from src.data.items.words import make_label_map, make_split_map
from src.data.layouts.class_folders import Labelled, give_columns, label_by_folders
from src.data.layouts.held_out import find_test, follow_sample, given_folds
from src.data.layouts.joining import Loaded, check_part, combine, join_extra
from src.data.layouts.label_tables import find_label_tables
from src.data.layouts.lists import OnDisk
from src.data.layouts.parquet_sets import read_parquet_sets
from src.data.layouts.sample_submission import find_sample
from src.data.layouts.table_labels import label_by_tables
from src.data.layouts.test_list import TestItems, find_test_list
from src.data.pixels.frames import BEYOND
from src.data.published.readers import read_field
from src.data.published.reading import make_dataset
from src.errors import UserError, unknown_name

_Opened = tuple[Path | None, str | None]  # input_root and group_by of `load_dataset`


def load_dataset(
    dataset: str, input_root: Path | None = None, group_by: str | None = None
) -> Dataset:
    """Understand a data set from its names and CSV alone; nothing is decoded.

    Args:
        dataset: folder of `input/`, or `demo`.
        input_root: folder of data sets, instead of `input/`.
        group_by: what ties face swaps, instead of what dataset.yaml says.

    Returns:
        Its manifest, what to hand in, and notes on what was understood.

    Raises:
        UserError: there is no such data set, or it is ambiguous or incomplete; the message names
            file, row and value, and how to settle it.
    """
    root, config = _open(dataset, input_root, group_by)
    if config.combine:
        entries, loaded = _combine(dataset, root, config, (input_root, group_by))
    else:
        entries, loaded = _load(dataset, root, config)
    for name in config.extra:
        extra = _load_part(name, loaded, "extra", (input_root, group_by))
        entries, loaded = join_extra((entries, loaded), extra)
    check_items(loaded.items, root)
    return replace(
        loaded,
        stamps=[entry.stamp for entry in entries],
        sha256=fingerprint(loaded.items, [entry.crc for entry in entries]),
    )


def _open(
    dataset: str, input_root: Path | None, group_by: str | None = None
) -> tuple[Path, DatasetConfig]:
    root = _find_root(dataset, input_root)
    config = read_dataset_yaml(root, paths.readable(paths.dataset_yaml(dataset)))
    return root, config if group_by is None else replace(config, group_by=group_by)


def _find_root(dataset: str, input_root: Path | None) -> Path:
    root = paths.dataset_dir(dataset, input_root)
    if dataset == paths.DEMO and not root.is_dir():
        from src.data.demo.make import make_demo  # only here is anything but reading needed

        return make_demo()
    if not root.is_dir():
        home = paths.input_dir(input_root)
        names = [p.name for p in home.iterdir() if p.is_dir()] if home.is_dir() else []
        raise unknown_name("data set", dataset, [*names, paths.DEMO], f"looked in {home}")
    return root


def _load(name: str, root: Path, config: DatasetConfig) -> tuple[list[Entry], Dataset]:
    """Load one data set; entry i belongs to item i."""
    listing = list_files(root, tuple(config.ignore))
    labels = make_label_map(config.labels)
    rows = read_parquet_sets(root, listing.tables, config, labels)
    listing = replace(
        listing, media=sorted([*listing.media, *rows.media], key=attrgetter("logical"))
    )
    on_disk = OnDisk(listing.media, labels)
    sample, tables = find_sample(root, [*rows.tables, *listing.texts], config, on_disk)
    reading = read_field(root, listing, config, has_sample=sample is not None)
    if reading is not None:
        left = (entry for entry in tables if entry.suffix != TEXT_SUFFIX)
        unread = [entry.path for entry in left if entry.logical not in reading.tables]
        if unread:
            reading.notes.append(f"{len(unread)} tables left aside, the first is {unread[0]}")
        return make_dataset(name, root, listing.media, reading, listing.ignored, config)
    _check_not_empty(root, listing)
    label_tables, apart, aside = find_label_tables(root, tables, config, on_disk)
    listed, why = find_test_list(root, tables, config, on_disk, apart, read=sample is None)
    aside += why
    splits = make_split_map(
        config.splits, (e.logical for e in listing.media), (e.logical for e in tables)
    )
    files = place_files(root, listing.media, on_disk.labels, splits)
    files, named = follow_sample(files, sample)
    found = find_test(files, sample, listed, config, listing.unread)
    held = {*found.ids, *found.thinned}
    refuse_outside(root, files, held)
    train = [i for i, file in enumerate(files) if i not in held and file.place.split != "test"]
    if label_tables:
        labelled = label_by_tables(root, files, train, label_tables, config)
    else:
        labelled = label_by_folders(root, files, train, config, aside)
        give_columns(labelled, files, rows.given)
    ignored = Counter(listing.ignored) + Counter(labelled.ignored) + found.ignored
    ignored += Counter({BEYOND: len(found.thinned)})
    entries, items, truth = make_manifest(*_make_rows(files, labelled, found))
    given, about_val = given_folds(root, labelled.items.values())
    dataset = Dataset(
        name=name,
        root=root,
        items=items,
        stamps=[],
        submission=found.submission,
        test_labels=truth,
        given_folds=given,
        from_splits=bool(about_val),
        config=config,
        labels=make_label_names(labelled.words),
        notes=[*labelled.notes, *about_val, *note_splits(files, splits), *named, *found.notes,
               *rows.notes, *aside],
        ignored=dict(ignored),
    )  # fmt: skip
    return entries, dataset


def _check_not_empty(root: Path, listing: Listing) -> None:
    if not listing.media:
        aside = "; ".join(f"{count} x {reason}" for reason, count in listing.ignored.items())
        raise UserError(
            f"{root} holds no image or video, neither in folders nor in zips"
            + (f" (left aside: {aside})" if aside else "")
        )


def _make_rows(
    files: list[MediaFile], labelled: Labelled, found: TestItems
) -> tuple[list[Row], list[Row]]:
    train = [
        Row(files[i].entry, item.item_id, item.label, item.group, item.domain)
        for i, item in labelled.items.items()
    ]
    origins = labelled.origins_of(files, found.ids)
    truths = found.labels or {name: files[i].place.label for i, name in found.ids.items()}
    test = [
        Row(files[i].entry, name, truths.get(name), origin.group, origin.domain)
        for (i, name), origin in zip(found.ids.items(), origins, strict=True)
    ]
    return train, test


def _load_part(name: str, of: Dataset, how: str, opened: _Opened) -> Loaded:
    paths.check_plain(name, f"{of.root / 'dataset.yaml'}: {how}")
    root, config = _open(name, *opened)
    check_part(name, root, config, of, how)
    return _load(name, root, config)


def _combine(name: str, root: Path, config: DatasetConfig, opened: _Opened) -> Loaded:
    listing = list_files(root, tuple(config.ignore))
    if listing.media:
        raise UserError(
            f"{root}: dataset.yaml combines {', '.join(config.combine)}, but the folder holds "
            f"files of its own, such as {listing.media[0].path}; make a data set of them and "
            "name it there too"
        )
    whole = Dataset(name, root, make_items({}, []), [])
    parts = [_load_part(part, whole, "combine", opened) for part in config.combine]
    return combine(name, root, config, parts)
