"""Which models stand in the table of a merge, and their predictions of held-out rows.

What held-out rows have had a say in, and hence which scores on them count; and labelled items of
another data set, seen by nobody.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src import paths
from src.artifacts.files import parse_column, read_csv, sha256_file
from src.artifacts.oof import CROSS_FITTED, read_oof
from src.artifacts.runs import START, has_run, ingredients_of, oof_file, read_run, was_selected
from src.compute.request import Compute
from src.data.items.manifest import Dataset
from src.data.pixels.source import Canvas, PixelSource
from src.errors import UserError
from src.inference.cross_dataset import leave_out_seen
from src.inference.lineage import share_items
from src.inference.predict import predict_views
from src.metrics import log_odds, sigmoid
from src.models.checkpoint import load_checkpoint
from src.seeds import derive_seed
from src.soups.ingredients import is_file
from src.soups.table import ENSEMBLE, Contender, FloatArray, Held

EDGE = 1e-12  # probs of an average are kept so far from 0 and 1 when turned into logits
ITEMS = 2000  # of another data set
Run = tuple[str, str, str]  # data set, scheme, model
Record = Mapping[str, Any]  # of a run, or what that of a merge says of an ingredient


class Line(NamedTuple):
    """A run that has its own predictions of the held-out rows."""

    name: str  # of the model
    kind: str  # `ingredient` or `merge`
    forwards: int  # of a net that an item costs


def lines_of(
    merges: Sequence[str], dataset: str, scheme: str, fold: paths.FoldName
) -> tuple[list[Line], dict[str, str]]:
    """Return the ingredients and merges that can be scored, each once, and those that cannot.

    Ingredients of finished merges come first; with them, by the name of an ingredient without
    predictions of these rows, why.
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
    """Return why an ingredient, as a merge's record has it, cannot be scored; empty where it can.

    Its run must be of a place: data set, scheme and fold.
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


@dataclass(frozen=True)
class Standing:
    """What a run's held-out rows decided."""

    chosen: bool = False  # which merge it is; its score is that of what either half chose
    epoch: bool = False  # an epoch of it, or of an ingredient: its score is flattered
    unscored: str = ""  # why no score of it counts; empty where one does


def standing_of(dataset: str, scheme: str, model: str, fold: paths.FoldName) -> Standing:
    """Tell from the record of a finished run what its held-out rows decided."""
    record = read_run(dataset, scheme, model, fold)
    merged = record["merged_from"]
    if merged is None:
        return Standing(epoch=was_selected(record))
    chosen = bool(merged["chosen"])
    here = [one for one in ingredients_of(record) if _on(one, record)]
    # A merge is not asked itself: its own ingredients are among these.
    epoch = any(was_selected(one) and not one.get("ingredients") for one in here)
    again = [str(one["name"]) for one in here if one["chosen"]]
    file = paths.cross_fitted_csv(dataset, scheme, model, fold)
    reason = ""
    if again:
        reason = f"{again[0]} among its ingredients was itself chosen on these rows"
    elif chosen and not (file.is_file() and merged["cross_fitted_sha256"] == sha256_file(file)):
        reason = f"nothing says that {file} is of this merge; merge it again with --overwrite"
    return Standing(chosen, epoch, reason)


def had_a_say(ingredients: Iterable[Record], place: Record, input_root: Path | None = None) -> bool:
    """Tell whether rows of a data set chose an ingredient, its epoch, or one that it is made of.

    Ingredients are run records; a place has the `dataset` and `scheme` of the rows.
    """
    return any(
        was_selected(run) and _on(run, place, input_root)
        for record in ingredients
        for run in (record, *ingredients_of(record))
    )


def _on(one: Record, place: Record, input_root: Path | None = None) -> bool:
    """Tell whether what chose an ingredient can have been the rows of a place."""
    return bool(one.get("dataset")) and share_items(place, one, input_root)


def read_contender(
    held: Held, table: pd.DataFrame, run: Run, kind: str, forwards: int
) -> Contender:
    """Read a run's out-of-fold predictions, and those by what either half would have chosen."""
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


def read_holdout(
    dataset: Dataset,
    trained: Mapping[str, Collection[str] | None],
    items: int = ITEMS,
    input_root: Path | None = None,
) -> pd.DataFrame:
    """Draw labelled images of a data set, rows of its manifest, but for copies of training items.

    Only what is drawn is opened. `trained` are ids of what was trained on, by data set
    (`lineage.trained_sets`). A UserError where this is one of them, or a class is missing.
    """
    if dataset.name in trained:
        raise UserError(f"--holdout {dataset.name}: that is what the models were trained on")
    table = dataset.train[~dataset.train["item_id"].isin(dataset.extra_ids)]
    table = table[(table["kind"] == "image").to_numpy()]
    rng = np.random.default_rng(derive_seed("holdout", dataset.name))
    kept = table.iloc[np.sort(rng.permutation(len(table))[:items])]
    if kept["label"].nunique() < 2:
        raise UserError(f"--holdout {dataset.name}: wants labelled images of both classes")
    place = dataset.items.index.get_indexer(kept.index)
    drawn = replace(dataset, items=kept, stamps=dataset.stamps[place])
    for name, ids in trained.items():
        kept = leave_out_seen(name, ids, drawn, kept, input_root)
    return kept


def predict_holdout(
    dataset: Dataset,
    rows: pd.DataFrame,
    checkpoints: Sequence[Sequence[Path]],
    compute: Compute,
) -> tuple[list[NDArray[np.float64]], NDArray[np.bool_]]:
    """Predict items of another data set with several models in one pass.

    A model is a list of checkpoints, of its folds, whose mean logit counts. Returned are (m,)
    logits a model, and (m,) which items could be decoded.
    """
    files = [file for each in checkpoints for file in each]
    loaded = [load_checkpoint(file, compute.chip) for file in files]
    canvases = [Canvas.of(model.spec) for model, _ in loaded]
    source = PixelSource(dataset.root, rows["path"].tolist(), canvases)
    looked = predict_views(
        [model for model, _ in loaded], [views for _, views in loaded], source,
        np.arange(len(rows)), compute, what=dataset.name,
    )  # fmt: skip
    pooled = iter([table.mean(1) for table in looked.logits])
    return [np.mean([next(pooled) for _ in each], axis=0) for each in checkpoints], looked.there
