"""Several data sets as one: `extra:` (always trained on) and `combine:` (the parts of a whole)."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from src import paths
from src.artifacts.label_names import make_label_names
from src.data.items.dataset_yaml import DatasetConfig
from src.data.items.identities import PUBLISHED, tie_parts
from src.data.items.listing import Entry
from src.data.items.manifest import Dataset, make_items
from src.errors import UserError

Loaded = tuple[list[Entry], Dataset]


def check_part(name: str, root: Path, config: DatasetConfig, of: Dataset, how: str) -> None:
    """Check that a data set may be a part of another.

    Args:
        name, root, config: of the part.
        of: what it becomes a part of.
        how: `extra` or `combine`.

    Raises:
        UserError: it is the data set itself, the demo, or has parts of its own.
    """
    where = of.root / "dataset.yaml"
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


def join_extra(main: Loaded, other: Loaded) -> Loaded:
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
    order = _order(items)
    return [both[i] for i in order], replace(
        dataset,
        items=items.loc[order].reset_index(drop=True),
        extra_ids=dataset.extra_ids | set(added["item_id"]),
        notes=[*dataset.notes, note],
        missing=(*dataset.missing, *_missing(extra)),
    )


def combine(name: str, root: Path, config: DatasetConfig, parts: Sequence[Loaded]) -> Loaded:
    """Make one data set of the train items of others.

    An item_id, a group and a domain begin with the part's name, but for the groups of published
    sets (`FaceForensics++/000`), which are the same videos everywhere. An item without a domain
    has that name as its domain (all have with `domains: set`). Test items of the parts, and folds
    that they bring, are left aside and counted.

    Args:
        name, root, config: of the data set that consists of them.
        parts: as loaded, their folders beside each other in `input/`.
    """
    items, entries, notes = [make_items({}, [])], [], []
    ignored: dict[str, int] = {}
    missing: list[str] = []
    for other_entries, part in parts:
        added, kept = _prefixed(part, other_entries, config.domains)
        items.append(added)
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
        stamps=[],
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


def _prefixed(
    part: Dataset, entries: Sequence[Entry], domains: str
) -> tuple[pd.DataFrame, list[Entry]]:
    is_train = (part.items["split"] == "train").to_numpy()
    added = part.items[is_train].copy()
    named = added["group"].str.startswith(tuple(f"{family}/" for family in PUBLISHED))
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


def _missing(part: Dataset) -> list[str]:
    return [f"../{part.name}/{path}" for path in part.missing]


def _order(items: pd.DataFrame) -> list[int]:
    order = items.sort_values(["split", "item_id"], ascending=[False, True], kind="stable").index
    return order.tolist()
