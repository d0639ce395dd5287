"""Which rows the ingredients of a merge were trained on: no score of those is reported."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from src import paths
from src.artifacts.files import sha256_file
from src.artifacts.folds import read_folds
from src.artifacts.merged import ingredients_of
from src.data.dataset_yaml import read_dataset_yaml
from src.data.manifest import Dataset
from src.errors import UserError
from src.training.merge_inputs import START, Ingredient

Part = tuple[str, str]  # a data set that consists of no others, an item's id in it
Run = Mapping[str, Any]


def check_unseen(
    ingredients: Sequence[Ingredient],
    dataset: str,
    scheme: str,
    table: pd.DataFrame,
    held: set[str],
    input_root: Path | None = None,
) -> None:
    """Check that no ingredient was trained on the rows that are to be scored.

    What the ingredients started from is not looked into: they all have it in them anyway.

    Args:
        ingredients: as resolved.
        dataset, scheme: whose rows are scored.
        table: that fold file (`item_id`, `fold`).
        held: ids of the rows.
        input_root: folder of data sets, instead of `input/`.

    Raises:
        UserError: an ingredient saw some of them, or nothing says what it saw.
    """
    for one in ingredients:
        if one.record is None:
            if one.path.parent == paths.merge_parts():
                continue
            raise UserError(
                f"{one.name}: no run record lies beside it, so nothing says whether it was trained "
                f"on the {len(held)} rows to be scored; a score of the merge could be a leaked one"
            )
        leaked = held & trained_on(one, dataset, scheme, table, input_root)
        if leaked:
            raise UserError(
                f"{one.name} was trained on {len(leaked)} of the {len(held)} rows that the merge "
                f"would be scored on, such as {min(leaked)!r}: no leaked score is reported. A "
                "merge of fold K takes fold K of every model; a soup across folds is written with "
                "--fold all, and scored with --holdout on a data set that no ingredient saw"
            )


def trained_on(
    one: Ingredient,
    dataset: str,
    scheme: str,
    table: pd.DataFrame,
    input_root: Path | None = None,
) -> set[str]:
    """Return the ids of a data set's items that an ingredient, or what it was merged of, saw.

    Args:
        one: with a record.
        dataset, scheme: whose items.
        table: that fold file.
        input_root: folder of data sets, instead of `input/`.

    Raises:
        UserError: a fold file that it was trained with is gone, or has changed since.
    """
    record = one.record or {}
    seen: set[str] = set()
    for run in (record, *ingredients_of(record)):
        if not run.get("dataset"):
            continue
        rows = _fold_rows(one.name, run, table if run["scheme"] == scheme else None, dataset)
        trained = rows if run["fold"] == paths.ALL else rows[rows["fold"] != run["fold"]]
        if run["dataset"] == dataset:
            seen |= set(trained["item_id"])
        else:
            own = _by_part(dataset, table["item_id"], input_root)
            seen |= {own[part] for part in _parts(run["dataset"], trained["item_id"]) & own.keys()}
    return seen


def trained_sets(
    records: Iterable[tuple[str, Run]], other: Dataset, input_root: Path | None = None
) -> dict[str, set[str]]:
    """Return what models, and all that was merged into them, were trained on.

    Args:
        records: names and run records of models that are to be scored on another data set.
        other: that data set.
        input_root: folder of data sets, instead of `input/`.

    Returns:
        By data set, the ids in the fold files, held-out ones among them.

    Raises:
        UserError: one was trained on items of the other data set, as a part of a larger one or by
            its own name; or nothing says what it was trained on.
    """
    where = f"--holdout {other.name}"
    scored = [one for one in other.train["item_id"] if one not in other.extra_ids]
    own = _by_part(other.name, scored, input_root)
    found: dict[str, set[str]] = {}
    done: set[tuple[str, str]] = set()
    for model, run, what in _lineage(records):
        if not run.get("dataset"):
            if run["name"] != START:
                raise UserError(
                    f"{where}: {what} came without a run record, so nothing says whether it was "
                    "trained on it; no score that could be a leaked one is reported"
                )
            continue
        if run["dataset"] == other.name:
            raise UserError(f"{where}: {what} was trained on it: no leaked score is reported")
        if (run["dataset"], run["scheme"]) in done:
            continue
        done.add((run["dataset"], run["scheme"]))
        ids = _fold_rows(model, run)["item_id"]
        shared = _parts(run["dataset"], ids) & own.keys()
        if shared:
            raise UserError(
                f"{where}: {what} was trained on {len(shared)} of its items, such as "
                f"{min(own[part] for part in shared)!r}, which are also in {run['dataset']}: no "
                "leaked score is reported"
            )
        found.setdefault(run["dataset"], set()).update(ids)
    return found


def share_items(first: Run, other: Run, input_root: Path | None = None) -> bool:
    """Tell whether two runs' fold files score items in common, as parts of larger sets too.

    Args:
        first, other: each with its `dataset` and `scheme`.
        input_root: folder of data sets, instead of `input/`.

    Returns:
        True as well where a fold file is gone, so that nothing says what is in it.
    """
    if first["dataset"] == other["dataset"]:
        return True
    files = [paths.folds_csv(run["dataset"], run["scheme"]) for run in (first, other)]
    if not all(file.is_file() for file in files):
        return True
    tables = [read_folds(file) for file in files]
    ids = [table.loc[table["fold"] >= 0, "item_id"] for table in tables]  # `extra:` is not scored
    names = (first["dataset"], other["dataset"])
    return any(
        not _by_part(names[k], ids[k], input_root)
        .keys()
        .isdisjoint(_parts(names[1 - k], ids[1 - k]))
        for k in (0, 1)
    )


def _lineage(records: Iterable[tuple[str, Run]]) -> Iterable[tuple[str, Run, str]]:
    for model, record in records:
        yield model, record, model
        for one in ingredients_of(record):
            yield str(one["name"]), one, f"{one['name']}, an ingredient of {model},"


def _by_part(dataset: str, ids: Iterable[str], input_root: Path | None) -> dict[Part, str]:
    """Return the items of a data set by the parts that `combine:` and `extra:` made it of."""
    home = paths.dataset_dir(dataset, input_root)
    config = read_dataset_yaml(home, paths.readable(paths.dataset_yaml(dataset)))
    names = {*config.combine, *config.extra}
    found: dict[Part, str] = {}
    for one in ids:
        first, _, rest = one.partition("/")
        found[(first, rest) if first in names else (dataset, one)] = one
    return found


def _parts(dataset: str, ids: Iterable[str]) -> set[Part]:
    """Return all that ids of a data set may stand for.

    What was trained on may have had other parts then, or be gone by now; so each beginning of an
    id counts as the name of a part.
    """
    pairs = [(one.partition("/"), one) for one in ids]
    return {(dataset, one) for _, one in pairs} | {(first, rest) for (first, _, rest), _ in pairs}


def _fold_rows(
    name: str, run: Run, table: pd.DataFrame | None = None, of: str = ""
) -> pd.DataFrame:
    """Return the fold file that a run was trained with.

    Args:
        name: of the ingredient, for messages.
        run: its record, or what a merge's record says of it.
        table: the fold file where it has been read already, of data set `of`.
        of: see there.

    Raises:
        UserError: it is gone, or another one by now.
    """
    path = paths.folds_csv(run["dataset"], run["scheme"])
    if not path.is_file() or run.get("folds_sha256") != sha256_file(path):
        fault = "is not the fold file that it was trained with any more" if path.is_file() else (
            "is not there, the fold file that it was trained with"
        )  # fmt: skip
        raise UserError(
            f"{name}: {path} {fault}, so nothing says which rows it saw; put that file back, or "
            "train it again (--overwrite)"
        )
    return table if table is not None and run["dataset"] == of else read_folds(path)
