"""What is known of a model: its folds' predictions and records, and the threshold it is held to."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src import paths
from src.artifacts.folds import fold_numbers, read_folds
from src.artifacts.oof import read_oof, read_views
from src.artifacts.recipes import Recipe, check_recipe_fresh, read_recipe
from src.artifacts.runs import has_run, oof_file, read_run
from src.ensemble.align import finished_folds
from src.ensemble.pooling import DEFAULT
from src.ensemble.rule import vote
from src.ensemble.stages import pools_of, rule_of
from src.errors import UserError, unknown_name
from src.metrics import sigmoid
from src.thresholds import best_threshold

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Decisions:
    """How a model's items were decided."""

    pred: NDArray[np.int64]  # (n,) int64
    how: str  # the threshold and where it comes from, for a title
    # the threshold on P(fake) itself; None where it is on something else, or several
    line: float | None


@dataclass(frozen=True)
class Part:
    """Predictions of one fold, or of all finished folds together."""

    name: str  # `fold 0`, `all finished folds`
    item_ids: NDArray[np.object_]  # (n,) str objects
    label: NDArray[np.int64]  # (n,) int64
    logit: FloatArray  # (n,) float64
    tuned: Decisions  # the decisions at the tuned threshold
    # of each run: its fold and its entries an epoch; empty without a record
    histories: dict[paths.FoldName, list[dict[str, Any]]]

    @property
    def prob(self) -> FloatArray:
        """Return (n,) P(fake) as the model says it."""
        return sigmoid(self.logit)


@dataclass(frozen=True)
class ModelRuns:
    """All that a report shows.

    Attributes:
        dataset, scheme, model: names.
        folds: one part a finished fold.
        whole: all of them together; None where nothing is scored (only a refit).
        records: of the runs, by fold; none for predictions from elsewhere.
    """

    dataset: str
    scheme: str
    model: str
    folds: dict[int, Part]
    whole: Part | None
    records: dict[paths.FoldName, dict[str, Any]]


def reportable(dataset: str, scheme: str) -> list[str]:
    """Return the models that have predictions or a record, sorted."""
    models = set(finished_folds(dataset, scheme))
    home = paths.run_scheme_dir(dataset, scheme)
    for folder in home.iterdir() if home.is_dir() else ():
        if any(folder.glob("fold_*.json")):
            models.add(paths.model_from_slug(folder.name))
    return sorted(models)


def collect_runs(dataset: str, scheme: str, model: str) -> ModelRuns:
    """Read a model's predictions and records.

    Raises:
        UserError: a model without any (lists those that have some), or a file that its reader
            refuses.
    """
    known = reportable(dataset, scheme)
    if model not in known:
        raise unknown_name("model with a finished run", model, known, "train_folds.py trains one")
    table = read_folds(paths.folds_csv(dataset, scheme))
    numbers = fold_numbers(table)
    done = finished_folds(dataset, scheme).get(model, [])
    records = _records(dataset, scheme, model, [*numbers, paths.ALL])
    read = [read_oof(oof_file(dataset, scheme, model, k), table, k) for k in done]
    if not read:
        return ModelRuns(dataset, scheme, model, {}, None, records)
    oof = pd.concat(read, ignore_index=True)
    tuned = decide(dataset, scheme, model, oof, table)
    histories = {fold: record["history"] for fold, record in records.items()}
    whole = _part(
        "all finished folds" if len(done) > 1 else f"fold {done[0]}", oof, tuned, histories
    )
    parts = {}
    for fold in done:
        mine = (oof["fold"] == fold).to_numpy()
        decisions = Decisions(tuned.pred[mine], tuned.how, tuned.line)
        own = {key: entries for key, entries in histories.items() if key == fold}
        parts[fold] = _part(f"fold {fold}", oof[mine], decisions, own)
    return ModelRuns(dataset, scheme, model, parts, whole, records)


def _part(
    name: str, oof: pd.DataFrame, tuned: Decisions, histories: dict[paths.FoldName, Any]
) -> Part:
    return Part(
        name,
        oof["item_id"].to_numpy(dtype=object),
        oof["label"].to_numpy(np.int64),
        oof["logit"].to_numpy(np.float64),
        tuned,
        histories,
    )


def _records(
    dataset: str, scheme: str, model: str, folds: list[paths.FoldName]
) -> dict[paths.FoldName, dict[str, Any]]:
    there = [fold for fold in folds if has_run(dataset, scheme, model, fold)]
    return {fold: read_run(dataset, scheme, model, fold) for fold in there}


def decide(
    dataset: str, scheme: str, model: str, oof: pd.DataFrame, table: pd.DataFrame
) -> Decisions:
    """Decide items as a recipe of this model alone does, else at their own best threshold.

    Args:
        dataset: data set.
        scheme: fold scheme.
        model: name.
        oof: `item_id, label, logit` of the items.
        table: the fold file.
    """
    found = own_recipe(dataset, scheme, model)
    if found is not None and _pools_otherwise(dataset, scheme, model, found[1]):
        found = None  # its threshold is one of other logits
    logit, label = oof["logit"].to_numpy(np.float64), oof["label"].to_numpy(np.int64)
    if found is None:
        threshold, _ = best_threshold(label, sigmoid(logit))
        pred = (sigmoid(logit) >= threshold).astype(np.int64)
        return Decisions(
            pred, f"threshold {threshold:.4f}, the best of its out-of-fold items", threshold
        )
    name, recipe = found
    rule = rule_of(recipe)
    place = table.set_index("item_id").loc[oof["item_id"]]
    values = place[rule.by].to_numpy(dtype=object) if rule.by else None
    logits = np.zeros((len(logit), len(recipe.members)))
    logits[:, [member.model == model for member in recipe.members]] = logit[:, None]
    votes = vote(rule, logits, values)
    plain = not rule.by and np.array_equal(votes.prob, sigmoid(logit))
    cut = f"thresholds by {rule.by}" if rule.by else f"threshold {rule.threshold:.4f}"
    return Decisions(votes.pred, f"{cut}, recipe {name}", rule.threshold if plain else None)


def _pools_otherwise(dataset: str, scheme: str, model: str, recipe: Recipe) -> bool:
    """Tell whether a recipe pools the model's frames in another way than its OOF CSV does."""
    pool = pools_of(recipe).get(model)
    files = [paths.oof_views(dataset, scheme, model, fold) for fold in recipe.folds]
    there = next((path for path in files if path.is_file()), None)
    if pool is None or there is None:
        return False
    return read_views(there)[1].get("pool", DEFAULT) != pool


def own_recipe(dataset: str, scheme: str, model: str) -> tuple[str, Recipe] | None:
    """Return the recipe in which this model alone has a say, `tuned` before others."""
    files = {p.stem: p for home in paths.recipe_dirs(dataset)[::-1] for p in home.glob("*.json")}
    for name in sorted(files, key=lambda name: (name != "tuned", name)):
        recipe = _fresh(files[name])
        if recipe is None or recipe.scheme != scheme:
            continue
        if [member.model for member in recipe.members if member.weight] == [model]:
            return name, recipe
    return None


def _fresh(path: Path) -> Recipe | None:
    """Return a recipe; None where it was made from files that have changed since.

    One that is damaged is named: without it other thresholds would be taken in silence.
    """
    recipe = read_recipe(path)
    try:
        rule_of(recipe)
        check_recipe_fresh(recipe)
    except UserError:
        return None
    return recipe
