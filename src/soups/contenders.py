"""Which models stand in the table of a merge, and their predictions of held-out rows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from src import paths
from src.artifacts.files import parse_column, read_csv
from src.artifacts.oof import read_oof
from src.artifacts.runs import START, has_run, oof_file, read_run
from src.errors import UserError
from src.metrics import log_odds, sigmoid
from src.soups.ingredients import is_file
from src.soups.standing import standing_of
from src.soups.table import CROSS_FITTED, ENSEMBLE, Contender, FloatArray, Held

EDGE = 1e-12  # probs of an average are kept so far from 0 and 1 when turned into logits
Run = tuple[str, str, str]  # data set, scheme, model


class Line(NamedTuple):
    """A run that has its own predictions of the held-out rows."""

    name: str  # of the model
    kind: str  # `ingredient` or `merge`
    forwards: int  # of a net that an item costs


def lines_of(
    merges: Sequence[str], dataset: str, scheme: str, fold: paths.FoldName
) -> tuple[list[Line], dict[str, str]]:
    """Return the ingredients and merges that can be scored, each once, and those that cannot.

    Args:
        merges: names of finished merges.
        dataset, scheme, fold: of the held-out rows.

    Returns:
        Ingredients first; and by the name of an ingredient without predictions of these rows, why.
    """
    found: dict[str, Line] = {}
    aside: dict[str, str] = {}
    for name in merges:
        merged = read_run(dataset, scheme, name, fold)
        for one in merged["merged_from"]["ingredients"]:
            why = why_aside(one, (dataset, scheme, fold))
            if why:
                aside.setdefault(one["name"], why)
                continue
            record = read_run(dataset, scheme, one["model"], fold)
            line = Line(one["model"], "ingredient", _forwards(record["config"]))
            found.setdefault(one["model"], line)
    for name in merges:
        merged = read_run(dataset, scheme, name, fold)
        found[name] = Line(name, "merge", _forwards(merged["config"]))
    return list(found.values()), aside


def why_aside(one: Mapping[str, Any], place: tuple[str, str, paths.FoldName]) -> str:
    """Return why an ingredient cannot be scored by its run; empty where it can.

    Args:
        one: as the record of a merge has it.
        place: data set, scheme and fold that the run must be of.
    """
    dataset, scheme, fold = place
    if one["name"] == START:
        return "what the models started from, which was not trained on this task"
    if "@stage" in one["name"]:
        return "an earlier stage of a run, of which there are no predictions"
    if (one["dataset"], one["scheme"], one["fold"]) != place:
        kind = "a file" if is_file(one["name"]) else "a model"
        return f"{kind} without predictions of fold {fold} of {dataset}/{scheme}"
    names = (dataset, scheme, one["model"], fold)
    if not has_run(*names) or read_run(*names)["checkpoint_sha256"] != one["sha256"]:
        return f"{paths.run_record(*names)} is not, or no longer, of the weights that were merged"
    return ""


def _forwards(config: Mapping[str, Any]) -> int:
    return 2 if config["tta"] == "flip" else 1


def read_contender(
    held: Held, table: pd.DataFrame, run: Run, kind: str, forwards: int
) -> Contender:
    """Read a run's out-of-fold predictions, and what it would be if chosen on either half.

    Args:
        held: the rows.
        table: the fold file.
        run: data set, scheme, model.
        kind: `ingredient` or `merge`.
        forwards: that an item costs.

    Raises:
        UserError: predictions are missing or of other rows.
    """
    logits, halves, standings = [], [], []
    for fold in held.folds:
        oof = read_oof(oof_file(*run, fold), table, fold)
        logit, standing = oof["logit"].to_numpy(np.float64), standing_of(*run, fold)
        logits.append(logit)
        standings.append(standing)
        if standing.chosen and not standing.unscored:
            halves.append(_read_halves(paths.cross_fitted_csv(*run, fold), oof["item_id"]))
        else:
            halves.append(np.stack([logit, logit]))
    whole = np.concatenate(logits)
    return Contender(
        run[2], kind, whole, np.concatenate(halves, 1), forwards,
        chosen=any(one.chosen for one in standings),
        flattered=any(one.epoch for one in standings),
        unscored=next((one.unscored for one in standings if one.unscored), ""),
    )  # fmt: skip


def _read_halves(path: Path, ids: pd.Series) -> FloatArray:
    table = read_csv(path, CROSS_FITTED, what="file of cross-fitted logits")
    if table["item_id"].tolist() != ids.tolist():
        raise UserError(f"{path}: not of this fold's items; merge again with --overwrite")
    return np.stack([parse_column(table, f"logit_{k}", float, path).to_numpy() for k in (0, 1)])


def ensemble_of(ingredients: Sequence[Contender]) -> Contender:
    """Return the plain mean of the ingredients' probs: what a merge saves the cost of.

    Ingredients that were chosen come into each half as the other half chose them.
    """
    away = [one.elsewhere for one in ingredients if one.elsewhere is not None]
    halves = [mean_prob([one.by_half[half] for one in ingredients]) for half in (0, 1)]
    lacking = [one.name for one in ingredients if one.unscored]
    return Contender(
        ENSEMBLE, "ensemble", mean_prob([one.logit for one in ingredients]), np.stack(halves),
        sum(one.forwards for one in ingredients),
        chosen=any(one.chosen for one in ingredients),
        elsewhere=mean_prob(away) if away else None,
        flattered=any(one.flattered for one in ingredients),
        unscored=f"{lacking[0]} has no score" if lacking else "",
    )  # fmt: skip


def mean_prob(logits: Sequence[FloatArray]) -> FloatArray:
    """Return the log-odds of the mean of the probs that logits stand for."""
    return log_odds(np.mean([sigmoid(logit) for logit in logits], axis=0), EDGE)
