"""What goes to the Hub with a merge: its card, and records that tell nothing of this machine."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from src import paths
from src.artifacts.runs import ingredients_of, read_record, read_run, write_record
from src.merging.recipe import Ingredient, MergeRecipe
from src.soups.contenders import read_contender
from src.soups.plan import MergePlan
from src.soups.table import TooFewGroupsError, held_rows, scores_of
from src.tensor_files import SUFFIXES

_ABSOLUTE = re.compile(r"^(~|/|\\\\|[A-Za-z]:[\\/])")


def public_record(path: Path, target: Path) -> Path:
    """Write a copy of a run's record in which files stand by their names alone; returns where."""
    write_record(target, _without_folders(read_record(path)))
    return target


def _without_folders(value: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
    if isinstance(value, dict):
        return {_file_name(key): _without_folders(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_folders(one) for one in value]
    return _file_name(value) if isinstance(value, str) else value


def _file_name(text: str) -> str:
    if _ABSOLUTE.match(text) or text.endswith(SUFFIXES):
        return re.split(r"[\\/]", text.rstrip("\\/"))[-1]
    return text


def card_of(
    plan: MergePlan, dataset: str, scheme: str, folds: Sequence[paths.FoldName], table: pd.DataFrame
) -> str:
    """Return the README of a finished merge: what each fold is made of, and what it is worth.

    `folds` are those that are uploaded, `table` is the fold file.
    """
    run = (dataset, scheme, plan.name)
    records = {fold: read_run(*run, fold) for fold in folds}
    lines = [
        f"- fold {fold}: {_made_of(record['merged_from'])}. {_worth(run, fold, table)}\n"
        for fold, record in records.items()
    ]
    parts = [one for record in records.values() for one in ingredients_of(record)]
    known = dict.fromkeys([dataset, *(one["dataset"] for one in parts if one.get("dataset"))])
    return (
        f"# {plan.name}\n\nMerged from models that were trained on {', '.join(known)}:\n\n"
        + "".join(lines)
        + "\nEach `.safetensors` carries its preprocessing and label order (one logit, fake > "
        "0), each `.json` what it was merged from. The licences of the weights that the "
        "ingredients started from apply.\n"
    )


def _made_of(merged: Mapping[str, Any]) -> str:
    """Return the merge of a record in words, then those that it refers to."""
    *earlier, last = merged["recipes"]
    return "; ".join(map(_in_words, [merged.get("chosen") or last, *earlier]))


def _in_words(recipe: Mapping[str, Any]) -> str:
    models = [Ingredient(_file_name(one["model"]), one["parameters"]) for one in recipe["models"]]
    method, common = recipe["merge_method"], recipe["parameters"]
    said = MergeRecipe(method, tuple(models), parameters=common).in_words()
    base = f"; base {_file_name(recipe['base_model'])}" if recipe["base_model"] else ""
    return f"{recipe['name']}: {said}{base}" if recipe["name"] else said + base


def _worth(run: tuple[str, str, str], fold: paths.FoldName, table: pd.DataFrame) -> str:
    if isinstance(fold, str):
        return "Every training item was seen; nothing is held out to score it on."
    try:
        held = held_rows(table, [fold])
    except TooFewGroupsError:
        return "No score: too few groups."
    one = read_contender(held, table, run, "merge", forwards=1)
    if one.unscored:
        return f"No score: {one.unscored.rpartition('/')[2]}."
    found = scores_of(held, one)
    how = ", by what was chosen on the other half of them" if one.chosen else ""
    flattered = " (flattered: an epoch was chosen on them)" if one.flattered else ""
    return (
        f"Macro-F1 at 0.5 on its {found.rows} held-out items{how}: {found.at_half:.4f}, AUC "
        f"{found.auc:.4f}{flattered}."
    )
