"""Predictions of another data set's labelled items: train on A, test on B.

Copies and relatives of what was trained on are not scored; `lineage` says what that was.
"""

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from src import paths
from src.artifacts.files import sha256_json
from src.artifacts.folds import read_folds
from src.artifacts.recipes import Recipe
from src.compute.request import Compute
from src.data.folds.overlap import find_overlap
from src.data.items.manifest import Dataset, refuse_missing
from src.data.layouts.load import load_dataset
from src.ensemble.extra import is_extra
from src.errors import UserError
from src.inference import stored
from src.inference.lineage import dataset_config
from src.inference.member_logits import levels_of, member_logits

LOG = logging.getLogger("rvf")


@dataclass(frozen=True)
class LabelledRows:
    """Items of which the truth is known."""

    split: str  # `train` or `test`
    table: pd.DataFrame  # their rows of the manifest, sorted by item_id, label int64
    aside: int  # labelled items of the other split, which are not among them
    unlabelled: int  # items of this split whose truth is not known


def labelled_items(dataset: Dataset, split: str | None = None) -> LabelledRows:
    """Return the labelled items of one split, those of `extra:` left out.

    Without a split, the test items where their labels are there, for these are what papers score,
    else the train items.

    Raises:
        UserError: there are none, or files of items are missing.
    """
    train = dataset.train[~dataset.train["item_id"].isin(dataset.extra_ids)]
    known = dataset.test_labels
    test = dataset.test.iloc[:0] if known is None else dataset.test
    if known is not None:
        test = test.assign(label=known.reindex(test["item_id"]).to_numpy())
        test = test[test["label"].notna()]
    if split is None:
        split = "test" if len(test) else "train"
    table, rest = (test, train) if split == "test" else (train, test)
    if table.empty:
        other = "train" if split == "test" else "test"
        way_out = f"; {len(rest)} others are: --split {other}" if len(rest) else ""
        raise UserError(f"{dataset.root}: no {split} item is labelled{way_out}")
    refuse_missing(dataset)
    table = table.assign(label=table["label"].astype("int64"))
    table = table.sort_values("item_id", kind="stable")
    unlabelled = len(dataset.test) - len(table) if split == "test" else 0
    return LabelledRows(split, table, len(rest), unlabelled)


def check_parts(name: str, other: Dataset, input_root: Path | None) -> None:
    """Raise where `dataset.yaml` says that both data sets hold the same items."""
    config = dataset_config(name, input_root)
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
        scheme: of the folds of what is trained on.

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


def to_predict(dataset: Dataset, table: pd.DataFrame) -> stored.ItemsToPredict:
    """Return rows of a manifest, one split of it, as items to be predicted."""
    print_of = sha256_json([table["split"].iloc[0], stored.fingerprint_items(dataset, table)])
    return stored.ItemsToPredict(
        dataset.root, table["item_id"].tolist(), table["path"].tolist(), print_of
    )


def cross_logits(
    recipe: Recipe,
    folds: Sequence[paths.FoldName] | None,
    other: str,
    items: stored.ItemsToPredict,
    compute: Compute,
    *,
    split: str = "train",
) -> tuple[dict[str, pd.Series], int]:
    """Predict items of a split of another data set, as far as that is not done.

    Returns:
        Member -> logits by item_id, the mean over the checkpoints of some folds, NaN where an item
        is unreadable; and how many checkpoints had to predict.

    Raises:
        UserError: a checkpoint is missing, none is of these folds, or a member came from elsewhere
            (`tune.py --extra`).
    """
    for member in recipe.members:
        if member.weight and is_extra(recipe.dataset, recipe.scheme, member.model):
            raise UserError(
                f"the member {member.model!r} came from elsewhere (tune.py --extra): it has no "
                f"checkpoint that could predict {other}; tune a recipe without it (--models)"
            )
    own = (recipe.dataset, recipe.scheme)
    parts = [
        replace(part, views=paths.cross_views(*own, part.model, part.fold, other, split))
        for part in stored.needed_parts(recipe, folds)
    ]
    lacking = sorted({m.model for m, _ in recipe.runs()} - {part.model for part in parts})
    if lacking and (recipe.is_stack or not parts):
        raise UserError(
            f"--folds {' '.join(map(str, folds or []))}: {lacking[0]} has no checkpoint of them"
            + (", and coefficients (stack) want all members" if recipe.is_stack else "")
        )
    missing = [p for p in parts if stored.stored_predictions(p, items, compute.precision) is None]
    if missing:
        from src.inference import passes  # torch, which stored predictions do not need

        passes.predict_parts(missing, items, compute)
    levels = levels_of(recipe)
    if levels is not None:
        from src.inference.deliveries import deliver  # torch, likewise

        deliver([stored.as_delivered(part, levels) for part in parts], items, compute)
    return member_logits(recipe, parts, items), len(missing)
