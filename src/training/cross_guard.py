"""No leaked score: what checkpoints were trained on is told from their records and fold files."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from src import paths
from src.artifacts.folds import read_folds
from src.artifacts.merged import ingredients_of
from src.artifacts.recipes import Recipe
from src.artifacts.runs import has_run, read_run
from src.data.dataset_yaml import read_dataset_yaml
from src.data.layouts import load_dataset
from src.data.manifest import Dataset
from src.data.overlap import find_overlap
from src.errors import UserError

LOG = logging.getLogger("rvf")


@dataclass(frozen=True)
class Ancestor:
    """Something that a checkpoint comes from.

    Attributes:
        what: in words.
        dataset, scheme: what it was trained on.
        pseudo: pseudo-labelled test items were among it.
    """

    what: str
    dataset: str
    scheme: str
    pseudo: bool = False


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


def check_not_trained_on(recipe: Recipe, folds: Sequence[paths.FoldName], other: Dataset) -> None:
    """Raise where a checkpoint, or anything that it comes from, was trained on the other data set.

    That is told from the fold files, where every trained item stands, from the ingredients of
    merges, and from the weights that a run started from.

    Raises:
        UserError: with what was trained on it.
    """
    for one in dict.fromkeys(_ancestors(recipe, folds)):
        if one.dataset == other.name:
            raise UserError(f"{one.what} was trained on {other.name}: no leaked score is reported")
        if not paths.folds_csv(one.dataset, one.scheme).is_file():
            LOG.warning(
                "WARNING %s was trained on %s: its fold file is not here, so whether items of %s "
                "are among them is not known", one.what, one.dataset, other.name,
            )  # fmt: skip
        known = trained_ids(one.dataset, one.scheme)
        shared = _shared(known, one.dataset, other)
        if shared:
            raise UserError(
                f"{one.what} was trained on {len(shared)} items of {other.name}, for example "
                f"{shared[0]!r} (folds/{one.dataset}/{one.scheme}.csv): no leaked score is reported"
            )


def check_no_pseudo(recipe: Recipe, folds: Sequence[paths.FoldName]) -> None:
    """Raise where a checkpoint, or what it comes from, was trained on pseudo-labelled test items.

    A score of those would be that of a net which has seen their pixels.
    """
    for one in _ancestors(recipe, folds):
        if one.pseudo and one.dataset == recipe.dataset:
            raise UserError(
                f"{one.what} was trained on test items of {one.dataset} with pseudo-labels: their "
                "score would be that of a net that has seen them; evaluate the model without"
            )


def trained_ids(dataset: str, scheme: str) -> set[str]:
    """Return the items in a fold file; none where it is gone."""
    path = paths.folds_csv(dataset, scheme)
    return set(read_folds(path)["item_id"]) if path.is_file() else set()


def unseen(
    recipe: Recipe, other: Dataset, table: pd.DataFrame, input_root: Path | None
) -> pd.DataFrame:
    """Return the rows that are no relatives of what a recipe's checkpoints were trained on.

    See `leave_out_seen`.
    """
    return leave_out_seen(recipe.dataset, recipe.scheme, other, table, input_root)


def leave_out_seen(
    name: str, scheme: str | None, other: Dataset, table: pd.DataFrame, input_root: Path | None
) -> pd.DataFrame:
    """Return the rows that are no copies of trained items and of none of their videos; says it.

    Args:
        name: the data set that is trained on.
        scheme: of its folds; None, or one without a fold file, where nothing is trained yet.
        other: the data set of the rows.
        table: rows of its manifest.
        input_root: folder of data sets, instead of `input/`.

    Raises:
        UserError: nothing is left, or one class alone where there were two.
    """
    try:
        trained = load_dataset(name, input_root)
    except UserError as error:
        LOG.warning("WARNING copies of items of %s are not looked for: %s", name, error)
        return table
    ids = trained_ids(name, scheme) if scheme else set()
    if not ids and other.name in trained.config.test_sets:
        return table  # its folds will leave the relatives out
    found = find_overlap(trained, ids or set(trained.train["item_id"]), other, table, scheme or "")
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
        f"{'were seen' if ids else 'would be seen'} in training on {name}"
    )
    why = f"({found.counts}; {mine} is akin to {theirs} of {name})"
    way = _way_out(trained, other, scheme if ids else None)
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


def _shared(known: set[str], dataset: str, other: Dataset) -> list[str]:
    """Return the items of another data set that stand in a fold file.

    `extra:` and `combine:` put the name of the part before an item's id.
    """
    theirs = other.train["item_id"].tolist()
    theirs = [one for one in theirs if one not in other.extra_ids]
    own = {f"{dataset}/{one}" for one in known}
    parts = tuple(f"{part}/" for part in other.config.combine)
    return [
        one
        for one in theirs
        if f"{other.name}/{one}" in known
        or one in own
        or (parts and one.startswith(parts) and one in known)
    ]


def _ancestors(recipe: Recipe, folds: Sequence[paths.FoldName]) -> Iterator[Ancestor]:
    runs = _Runs()
    for member in recipe.members:
        for fold in folds if member.weight else ():
            names = (recipe.dataset, recipe.scheme, member.model, fold)
            if not has_run(*names):
                yield Ancestor(member.model, recipe.dataset, recipe.scheme)
            else:
                record = read_run(*names)
                has_pseudo = bool(record.get("pseudo"))
                yield Ancestor(member.model, recipe.dataset, recipe.scheme, has_pseudo)
                yield from _of_record(record, member.model, runs, set())


def _of_record(
    record: Mapping[str, Any], what: str, runs: "_Runs", done: set[str]
) -> Iterator[Ancestor]:
    for one in ingredients_of(record):
        if one.get("dataset"):
            text = f"{one['name']}, among the ingredients of {what},"
            yield Ancestor(text, one["dataset"], one["scheme"])
        yield from _of_file(str(one.get("sha256", "")), what, runs, done)
    start = record.get("start") or {}
    if start.get("source") == "file":
        yield from _of_file(str(start["sha256"]), what, runs, done)


def _of_file(sha256: str, what: str, runs: "_Runs", done: set[str]) -> Iterator[Ancestor]:
    """Yield what a file of weights comes from, where it is a checkpoint of a run that is here."""
    if not sha256 or sha256 in done:
        return
    done.add(sha256)
    record = runs.of(sha256)
    if record is not None:
        text = f"{record['model']}, from which {what} started,"
        yield Ancestor(text, record["dataset"], record["scheme"], bool(record.get("pseudo")))
        yield from _of_record(record, what, runs, done)


class _Runs:
    """The run records here, by the SHA-256 of their checkpoints; read when first asked for."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, Any]] | None = None

    def of(self, sha256: str) -> dict[str, Any] | None:
        """Return the record of a checkpoint, None where no run here wrote it."""
        if self._known is None:
            self._known = {}
            for path in sorted(paths.checkpoints_home().glob("*/*/*/fold_*.json")):
                try:
                    record = json.loads(path.read_bytes())
                except ValueError:
                    continue  # damaged: whoever uses that run hears of it
                self._known[str(record.get("checkpoint_sha256"))] = record
        return self._known.get(sha256)
