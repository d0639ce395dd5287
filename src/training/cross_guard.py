"""Copies and relatives of what was trained on are not scored; `lineage` says what that was."""

import logging
from collections.abc import Collection
from pathlib import Path

import pandas as pd

from src import paths
from src.artifacts.folds import read_folds
from src.data.folds.overlap import find_overlap
from src.data.items.dataset_yaml import read_dataset_yaml
from src.data.items.manifest import Dataset
from src.data.layouts.load import load_dataset
from src.errors import UserError

LOG = logging.getLogger("rvf")


def check_parts(name: str, other: Dataset, input_root: Path | None) -> None:
    """Raise where `dataset.yaml` says that both data sets hold the same items."""
    home = paths.dataset_dir(name, input_root)
    config = read_dataset_yaml(home, paths.readable(paths.dataset_yaml(name)))
    scored = {other.name, *other.config.combine}
    for key, parts in (("extra", config.extra), ("combine", [name, *config.combine])):
        shared = sorted(scored.intersection(parts))
        if shared:
            raise UserError(
                f"--from {name} --data {other.name}: both hold the items of {', '.join(shared)} "
                f"(`{key}:` in dataset.yaml), so the checkpoints were trained on them"
            )


def trained_ids(dataset: str, scheme: str | None) -> set[str]:
    """Return the items in a fold file; none where there is none yet."""
    path = paths.folds_csv(dataset, scheme or "")
    return set(read_folds(path)["item_id"]) if scheme and path.is_file() else set()


def leave_out_seen(
    name: str,
    ids: Collection[str] | None,
    other: Dataset,
    table: pd.DataFrame,
    input_root: Path | None,
    scheme: str | None = None,
) -> pd.DataFrame:
    """Return the rows that are no copies of trained items and of none of their videos; says it.

    Args:
        name: the data set that is trained on.
        ids: what of it was trained on; empty where nothing is yet, None where all of it was.
        other: the data set of the rows.
        table: rows of its manifest.
        input_root: folder of data sets, instead of `input/`.
        scheme: of its folds.

    Raises:
        UserError: nothing is left, or one class alone where there were two.
    """
    try:
        trained = load_dataset(name, input_root)
    except UserError as error:
        LOG.warning("WARNING copies of items of %s are not looked for: %s", name, error)
        return table
    yet = ids is None or len(ids) > 0
    if not yet and other.name in trained.config.test_sets:
        return table  # its folds will leave the relatives out
    known = ids if yet else set(trained.train["item_id"])
    found = find_overlap(trained, known, other, table, scheme or "")
    if found.people:
        LOG.warning(
            "WARNING %s: %d of %d items show people who are in other videos of %s, as their names "
            "say; they are scored", other.name, found.people, len(table), name,
        )  # fmt: skip
    if not found.seen.any():
        return table
    kept = table[~found.seen]
    mine, theirs = found.example
    text = (
        f"{other.name}: {int(found.seen.sum())} of {len(table)} items "
        f"{'were seen' if yet else 'would be seen'} in training on {name}"
    )
    why = f"({found.counts}; {mine} is akin to {theirs} of {name})"
    way = _way_out(trained, other, scheme if yet else None)
    if kept["label"].nunique() < table["label"].nunique():
        raise UserError(f"{text} {why}, and what is left does not hold both classes{way}")
    LOG.warning("WARNING %s and are not scored %s%s", text, why, way)
    return kept


def _way_out(trained: Dataset, other: Dataset, scheme: str | None) -> str:
    """Say how all items can be scored: what they share must not be trained on."""
    if trained.name == other.name:
        return ""
    first = f"; to score them, say `test_sets: [{other.name}]` in {trained.root / 'dataset.yaml'}"
    if scheme is None:
        return f"{first}: then {trained.name} is trained on without what both share"
    return (
        f"{first}, make new folds (`python -m src folds --data {trained.name} --seed 43`) and "
        "train on them: they leave out what both share"
    )
