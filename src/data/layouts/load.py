"""The door for data sets: folders, zips, CSV and JSON of many layouts to one manifest.

Several data sets as one: `extra:` (always trained on) and `combine:` (the parts of a whole).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src import paths
from src.artifacts.label_names import make_label_names
from src.data.items.dataset_yaml import DatasetConfig, read_dataset_yaml
from src.data.items.folder import Folder
from src.data.items.identities import is_published, tie_parts
from src.data.items.kept_manifest import KeptManifest
from src.data.items.listing import TEXT_SUFFIX, Entry, Listing, list_files
from src.data.items.manifest import (
    NO_STAMPS,
    UNKNOWN,
    Dataset,
    Item,
    check_items,
    fingerprint,
    make_items,
    make_manifest,
    name_domains,
)
from src.data.items.marks import NEVER, Basis
from src.data.items.masks import as_series, describe_masks, masks_of_items
from src.data.items.places import note_splits, place_files, refuse_outside
from src.data.items.shard_home import ABOUT, home_of
from src.data.items.shard_index import entries_of, read_shards, settle
from src.data.items.words import make_split_map
from src.data.layouts.class_folders import Labelled, label_by_folders
from src.data.layouts.label_tables import find_label_tables, label_by_tables
from src.data.layouts.lists import texts_to_read
from src.data.layouts.mask_column import take_masks
from src.data.layouts.mask_folders import part_masks
from src.data.layouts.parquet_sets import ParquetSets, read_parquet_sets
from src.data.layouts.sample_submission import find_sample
from src.data.layouts.test_items import (
    TestItems,
    find_test,
    find_test_list,
    follow_sample,
    given_folds,
)
from src.data.pixels.frames import BEYOND
from src.data.published.reading import make_dataset, read_published
from src.errors import UserError, unknown_name

Loaded = tuple[list[Entry], Dataset]  # entry i belongs to item i
_MOST_TEXTS = 10_000  # that count among tables; of more just those that may be lists


def load_dataset(
    dataset: str, input_root: Path | None = None, group_by: str | None = None
) -> Dataset:
    """Understand a data set from its names and CSV alone.

    Decoded are a few files of a folder `masks` beside those of classes, and nothing else.

    `dataset` is a folder of `input/` (or of `input_root`), or `demo`; `group_by` tells what ties
    face swaps, instead of dataset.yaml.

    Raises:
        UserError: there is no such data set, or it is ambiguous or incomplete; the message names
            file, row and value, and how to settle it.
    """
    opener = _Opener(input_root, group_by, Basis())
    root, config = opener.open(dataset)
    home, about = home_of(root, config), ""
    if home is not None:  # what it holds is told by its list, wherever it lies
        config, about = settle(config, home)
    kept = KeptManifest(dataset, root, group_by, about)
    return kept.or_make(config, lambda: _understand(dataset, root, config, opener))


def _understand(
    name: str, root: Path, config: DatasetConfig, opener: "_Opener"
) -> tuple[Dataset, Basis, NDArray[np.bool_]]:
    home = home_of(root, config)
    if home is not None and not config.extra:
        loaded = read_shards(name, root, config, home)
        check_items(loaded.items, root)
        return loaded, opener.basis, np.zeros(len(loaded.items), bool)
    if config.combine and home is None:
        entries, loaded = _with_domains(_combine(name, root, config, opener))
    else:
        entries, loaded = opener.load(name, root, config)
    for part in config.extra:
        extra = opener.load_part(part, loaded, "extra")
        entries, loaded = _join_extra((entries, loaded), extra)
    check_items(loaded.items, root)
    dataset = replace(
        loaded,
        notes=[*loaded.notes, *describe_masks(loaded.items, loaded.masks)],
        stamps=np.fromiter((entry.stamp for entry in entries), np.int64, len(entries)),
        sha256=fingerprint(loaded.items, [entry.crc for entry in entries]),
    )
    on_disk = np.fromiter((entry.crc is None for entry in entries), bool, len(entries))
    return dataset, opener.basis, on_disk


@dataclass(frozen=True)
class _Opener:
    """What `load_dataset` was asked for, which holds for all parts."""

    input_root: Path | None
    group_by: str | None
    basis: Basis  # what it is understood from

    def open(self, dataset: str) -> tuple[Path, DatasetConfig]:
        root = paths.dataset_dir(dataset, self.input_root)
        if dataset == paths.DEMO and not root.is_dir():
            from src.data.demo.make import make_demo  # only here is anything but reading needed

            root = make_demo()
        if not root.is_dir():
            home = paths.input_dir(self.input_root)
            names = [p.name for p in home.iterdir() if p.is_dir()] if home.is_dir() else []
            raise unknown_name("data set", dataset, [*names, paths.DEMO], f"looked in {home}")
        instead = paths.readable(paths.dataset_yaml(dataset))
        for said in (root / "dataset.yaml", root / "dataset.yml", instead):
            self.basis.add(said)
        config = read_dataset_yaml(root, instead)
        return root, config if self.group_by is None else replace(config, group_by=self.group_by)

    def load_part(self, name: str, of: Dataset, how: str) -> Loaded:
        """Load a part (`how`: extra or combine) of a data set, which may have no parts itself."""
        where = of.root / "dataset.yaml"
        paths.check_plain(name, f"{where}: {how}")
        root, config = self.open(name)
        if name == of.name:
            raise UserError(f"{where}: {how} names the data set itself")
        if name == paths.DEMO and how == "combine":
            raise UserError(f"{where}: combine names the demo, which lies in no folder of input/")
        for key, parts in (("extra", config.extra), ("combine", config.combine)):
            if parts:
                raise UserError(
                    f"{root / 'dataset.yaml'}: {name} is itself a part of {of.name} ({how}), so it "
                    f"may have no `{key}:`; list them all in {where}"
                )
        loaded = self.load(name, root, config)
        if loaded[1].extra_ids:
            raise UserError(
                f"{where}: {how} names {name}, whose shards hold items that are never scored (it "
                "was packed with an `extra:`): pack it without"
            )
        return loaded

    def load(self, name: str, root: Path, config: DatasetConfig) -> Loaded:
        """Load a data set without its parts."""
        home = home_of(root, config)
        if home is not None:
            if home.is_remote:
                self.basis.newest_ns = NEVER
            self.basis.add(home.join(ABOUT))
            packed = read_shards(name, root, config, home)
            return entries_of(packed), packed
        return _with_domains(_read(name, root, config, self.basis))


def _with_domains(loaded: Loaded) -> Loaded:
    """Take the domains from the names of files, where dataset.yaml says so."""
    entries, dataset = loaded
    pattern = dataset.config.domain_from
    if pattern is None:
        return loaded
    items, note = name_domains(dataset.items, pattern, dataset.root)
    return entries, replace(dataset, items=items, notes=[*dataset.notes, note])


def _list(
    name: str, root: Path, config: DatasetConfig, basis: Basis
) -> tuple[dict[str, int], ParquetSets, Folder, list[str]]:
    """Return what is left aside, rows with pictures, the folder without masks, and notes."""
    listing = list_files(root, tuple(config.ignore), basis)
    texts = listing.texts if len(listing.texts) <= _MOST_TEXTS else texts_to_read(listing.texts)
    for entry in (*listing.tables, *texts):
        if entry.crc is None:  # else its zip is marked
            basis.add(root / entry.path)
    rows = read_parquet_sets(Folder(name, root, config, listing))
    media = sorted([*listing.media, *rows.media], key=attrgetter("logical"))
    listed = replace(listing, media=media, tables=rows.tables)
    return listing.ignored, rows, *part_masks(Folder(name, root, config, listed))


def _read(name: str, root: Path, config: DatasetConfig, basis: Basis) -> Loaded:
    left_aside, rows, folder, in_folders = _list(name, root, config, basis)
    sample, tables = find_sample(folder)
    reading = read_published(folder, has_sample=sample is not None)
    if reading is not None:
        reading.notes += in_folders
        left = (entry for entry in tables if entry.suffix != TEXT_SUFFIX)
        unread = [entry.path for entry in left if entry.logical not in reading.tables]
        if unread:
            reading.notes.append(f"{len(unread)} tables left aside, the first is {unread[0]}")
        return make_dataset(folder, reading)
    _check_not_empty(root, folder.listing)
    label_tables, apart, aside = find_label_tables(folder, tables)
    folder, label_tables, of_masks = take_masks(folder, label_tables)
    listed, why = find_test_list(folder, tables, apart, read=sample is None)
    aside += why
    splits = make_split_map(config.splits, folder.on_disk, (e.logical for e in tables))
    files = place_files(folder, splits)
    files, named = follow_sample(files, sample)
    found = find_test(folder, files, sample, listed)
    held = {*found.ids, *found.thinned}
    refuse_outside(root, files, held)
    train = [i for i, file in enumerate(files) if i not in held and file.place.split != "test"]
    labelled = Labelled(folder, files, train)
    if label_tables:
        label_by_tables(labelled, label_tables)
    else:
        label_by_folders(labelled, aside)
        for index, item in labelled.items.items() if rows.given else ():
            group, fold = rows.given.get(files[index].entry.path, ("", None))
            item.group, item.fold = group or item.group, fold
    given, about_val = given_folds(root, labelled.items.values())
    about_splits = note_splits(files, splits)
    train_items, test_items = [*labelled.items.values()], _test_items(labelled, found)
    # Half a kilobyte an item goes before the columns come.
    for done in (label_tables, files, labelled.files, labelled.items, train, found.ids):
        done.clear()
    entries, items, truth = make_manifest(train_items, test_items)
    labelled.ignored[BEYOND] = len(labelled.thinned)
    ignored = Counter(left_aside) + Counter(labelled.ignored) + found.ignored
    ignored += Counter({BEYOND: len(found.thinned)})
    return entries, Dataset(
        name=name,
        root=root,
        items=items,
        stamps=NO_STAMPS,
        submission=found.submission,
        test_labels=truth,
        given_folds=given,
        from_splits=bool(about_val),
        masks=masks_of_items(folder.listing, entries, items, ignored, labelled.masks),
        config=config,
        labels=make_label_names(labelled.words),
        notes=[*labelled.notes, *about_val, *about_splits, *named, *found.notes,
               *rows.notes, *in_folders, *of_masks, *aside],
        ignored=dict(ignored),
    )  # fmt: skip


def _check_not_empty(root: Path, listing: Listing) -> None:
    if not listing.media:
        tars = "neither image nor video (.tar)" in listing.ignored
        tar = (
            "; a folder of tars is a data set once its shards.json is there, which `python -m src "
            "shards` writes last; tars from elsewhere must be unpacked"
        )
        aside = "; ".join(f"{count} x {reason}" for reason, count in listing.ignored.items())
        raise UserError(
            f"{root} holds no image or video, neither in folders nor in zips"
            + (f" (left aside: {aside})" if aside else "")
            + tar * tars
        )


def _test_items(labelled: Labelled, found: TestItems) -> list[Item]:
    files = labelled.files
    truths = found.labels or {name: files[i].place.label for i, name in found.ids.items()}
    items = []
    for (i, name), origin in zip(found.ids.items(), labelled.origins_of(found.ids), strict=True):
        label = truths.get(name)
        label = UNKNOWN if label is None else label
        items.append(Item(files[i].entry, name, label, origin.group, origin.domain))
    return items


def _combine(name: str, root: Path, config: DatasetConfig, opener: _Opener) -> Loaded:
    """Make one data set of the train items of others.

    An item_id, a group and a domain begin with the part's name, but for the groups of published
    sets (`FaceForensics++/000`), which are the same videos everywhere. Test items of the parts, and
    folds that they bring, are left aside and counted.
    """
    listing = list_files(root, tuple(config.ignore), opener.basis)
    if listing.media:
        raise UserError(
            f"{root}: dataset.yaml combines {', '.join(config.combine)}, but the folder holds "
            f"files of its own, such as {listing.media[0].path}; make a data set of them and "
            "name it there too"
        )
    whole = Dataset(name, root, make_items({}, []), NO_STAMPS)
    parts = [opener.load_part(part, whole, "combine") for part in config.combine]
    items, entries, notes = [make_items({}, [])], [], []
    ignored: dict[str, int] = {}
    missing: list[str] = []
    masks: dict[str, str] = {}
    for other_entries, part in parts:
        added, kept = _prefixed(part, other_entries, config.domains)
        items.append(added)
        masks |= _masks(part)
        entries += kept
        missing += _missing(part)
        notes.append(
            f"combine: {len(added)} train items of {part.name} "
            f"({int((added['label'] == 0).sum())} real, {int((added['label'] == 1).sum())} fake)"
        )
        notes += [f"{part.name}: {note}" for note in part.notes if note != "no test items"]
        if part.given_folds is not None:
            notes.append(f"{part.name}: the folds that it brings are not used")
        if len(part.test):
            ignored[f"test items of {part.name}"] = len(part.test)
        ignored |= {f"{part.name}: {reason}": n for reason, n in part.ignored.items()}
    table = pd.concat([part for part in items if len(part)], ignore_index=True)
    table["group"] = tie_parts(table["group"].tolist(), table["path"].tolist(), config.group_by)
    order = _order(table)
    return [entries[i] for i in order], Dataset(
        name=name,
        root=root,
        items=table.loc[order].reset_index(drop=True),
        stamps=NO_STAMPS,
        masks=as_series(masks),
        config=config,
        labels=make_label_names(
            (label, word)
            for _, part in parts
            for label, words in enumerate((part.labels.real, part.labels.fake))
            for word in words
        ),
        notes=[*notes, "no test items"],
        ignored=ignored,
        missing=tuple(missing),
    )


def _join_extra(main: Loaded, other: Loaded) -> Loaded:
    """Add the train items of another data set, which are always trained on and never scored."""
    (entries, dataset), (other_entries, extra) = main, other
    added, kept = _prefixed(extra, other_entries, "own")
    every = pd.concat([dataset.items, added], ignore_index=True)
    groups = tie_parts(every["group"].tolist(), every["path"].tolist(), dataset.config.group_by)
    scored = {*groups[: len(dataset.items)]} - {""}
    related = [group in scored for group in groups[len(dataset.items) :]]
    added = added[[not is_one for is_one in related]]
    kept = [entry for entry, is_one in zip(kept, related, strict=True) if not is_one]
    items = pd.concat([dataset.items, added], ignore_index=True)
    both = [*entries, *kept]
    note = f"extra: {len(added)} train items of {extra.name}, always trained on and never scored"
    if any(related):
        note += f"; {sum(related)} left out, for they share a group with items that are scored"
    order, ids = _order(items), set(added["item_id"])
    return [both[i] for i in order], replace(
        dataset,
        items=items.loc[order].reset_index(drop=True),
        masks=as_series({**dataset.masks, **{k: v for k, v in _masks(extra).items() if k in ids}}),
        extra_ids=dataset.extra_ids | ids,
        notes=[*dataset.notes, note],
        missing=(*dataset.missing, *_missing(extra)),
    )


def _prefixed(
    part: Dataset, entries: Sequence[Entry], domains: str
) -> tuple[pd.DataFrame, list[Entry]]:
    is_train = (part.items["split"] == "train").to_numpy()
    added = part.items[is_train].copy()
    named = added["group"].map(is_published).astype(bool)
    people = added["group"]
    for column in ("item_id", "group", "domain"):
        prefixed = part.name + "/" + added[column]
        added[column] = prefixed if column == "item_id" else prefixed.where(added[column] != "", "")
    # Video 000 of FaceForensics++ is the same one in every set that is cut from it.
    added["group"] = added["group"].where(~named, people)
    if domains == "set":
        added["domain"] = part.name
    else:
        added["domain"] = added["domain"].where(added["domain"] != "", part.name)
    added["path"] = f"../{part.name}/" + added["path"]
    return added, [entry for entry, keep in zip(entries, is_train, strict=True) if keep]


def _masks(part: Dataset) -> dict[str, str]:
    return {f"{part.name}/{item}": f"../{part.name}/{path}" for item, path in part.masks.items()}


def _missing(part: Dataset) -> list[str]:
    return [f"../{part.name}/{path}" for path in part.missing]


def _order(items: pd.DataFrame) -> list[int]:
    order = items.sort_values(["split", "item_id"], ascending=[False, True], kind="stable").index
    return order.tolist()
