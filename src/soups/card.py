"""What goes to the Hub with a merge: its card, and records that tell nothing of this machine."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from src import paths
from src.artifacts.runs import ingredients_of, read_record, read_run, write_record
from src.merging.sources import SUFFIXES
from src.soups.contenders import read_contender
from src.soups.plan import MergePlan
from src.soups.table import TooFewGroupsError, held_rows, scores_of

_ABSOLUTE = re.compile(r"^(~|/|\\\\|[A-Za-z]:[\\/])")


def public_record(path: Path, target: Path) -> Path:
    """Write a copy of a run's record in which files stand by their names alone.

    Args:
        path: the record.
        target: where to; returned.
    """
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
    """Return the README of a merge: what each fold is made of, and what it is worth.

    Args:
        plan: the merge; finished.
        dataset, scheme: of the folds.
        folds: those that are uploaded.
        table: the fold file.
    """
    lines = [f"- {_of_fold(plan, dataset, scheme, fold, table)}" for fold in folds]
    records = [read_run(dataset, scheme, plan.name, fold) for fold in folds]
    parts = [one for record in records for one in ingredients_of(record)]
    known = dict.fromkeys([dataset, *(one["dataset"] for one in parts if one.get("dataset"))])
    return (
        f"# {plan.name}\n\nMerged from models that were trained on {', '.join(known)}:\n\n"
        + "\n".join(lines)
        + "\n\nEach `.safetensors` carries its preprocessing and label order (one logit, fake > "
        "0), each `.json` what it was merged from. The licences of the weights that the "
        "ingredients started from apply.\n"
    )


def _of_fold(
    plan: MergePlan, dataset: str, scheme: str, fold: paths.FoldName, table: pd.DataFrame
) -> str:
    merged = read_run(dataset, scheme, plan.name, fold)["merged_from"]
    chosen: Mapping[str, Any] | None = merged.get("chosen")
    recipe = merged["recipes"][-1] if chosen is None else chosen
    *earlier, _ = merged["recipes"]
    said = "; ".join([_in_words(plan, recipe), *(_in_words(plan, one) for one in earlier)])
    said = f"fold {fold}: {said}"
    return f"{said}. {_worth(plan, dataset, scheme, fold, table)}"


def _in_words(plan: MergePlan, recipe: Mapping[str, Any]) -> str:
    models = tuple(
        replace(plan.final.models[0], model=_file_name(one["model"]), parameters=one["parameters"])
        for one in recipe["models"]
    )
    said = replace(
        plan.final, merge_method=recipe["merge_method"], models=models,
        parameters=recipe["parameters"],
    ).in_words()  # fmt: skip
    base = f"; base {_file_name(recipe['base_model'])}" if recipe["base_model"] else ""
    return f"{recipe['name']}: {said}{base}" if recipe["name"] else said + base


def _worth(
    plan: MergePlan, dataset: str, scheme: str, fold: paths.FoldName, table: pd.DataFrame
) -> str:
    if isinstance(fold, str):
        return "Every training item was seen; nothing is held out to score it on."
    try:
        held = held_rows(table, [fold])
    except TooFewGroupsError:
        return "No score: too few groups."
    one = read_contender(held, table, (dataset, scheme, plan.name), "merge", forwards=1)
    if one.unscored:
        return f"No score: {one.unscored.rpartition('/')[2]}."
    found = scores_of(held, one)
    how = ", by what was chosen on the other half of them" if one.chosen else ""
    flattered = " (flattered: an epoch was chosen on them)" if one.flattered else ""
    return (
        f"Macro-F1 at 0.5 on its {found.rows} held-out items{how}: {found.at_half:.4f}, AUC "
        f"{found.auc:.4f}{flattered}."
    )
