"""What is known of a model: its folds' predictions and records, and the threshold it is held to."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from src import paths
from src.artifacts.folds import fold_numbers, read_folds
from src.artifacts.oof import read_views
from src.artifacts.recipes import Recipe, check_recipe_fresh, read_recipe
from src.artifacts.runs import has_run, read_run
from src.ensemble.align import finished_folds, read_logits
from src.ensemble.crossfitted import cross_threshold, part_rules
from src.ensemble.pooling import DEFAULT
from src.ensemble.predictions import (
    ALONE,
    Decided,
    IntArray,
    Predictions,
    columns_of,
    decide,
    fit_threshold,
)
from src.ensemble.rule import deliveries_of, fold_curves_of, pools_of, rule_of
from src.errors import UserError, unknown_name
from src.metrics import metric_named

SEED = 42  # of the parts of a single fold, as tune.py's default


@dataclass(frozen=True)
class RunPart:
    """Predictions of one fold, or of all finished folds together."""

    name: str  # `fold 0`, `all finished folds`
    # cross-fitted where that could be done; `prob` and `logit` are the model's own
    rows: Decided
    in_sample: IntArray  # (n,) 0/1, decided by the threshold that was fitted on these very items
    how: str  # how `rows` were decided, for a title
    is_cross_fitted: bool  # else they are the in-sample ones
    tuned: str  # the threshold that was fitted on all of them, and where it comes from
    # the same on P(fake) itself; None where it is on something else, or several
    line: float | None
    # of each run: its fold and its entries an epoch; empty without a record
    histories: dict[paths.FoldName, list[dict[str, Any]]]


@dataclass(frozen=True)
class ModelRuns:
    """All that a report shows."""

    dataset: str
    scheme: str
    model: str
    folds: dict[int, RunPart]  # one part a finished fold
    whole: RunPart | None  # all of them together; None where nothing is scored (only a refit)
    # of the runs, by fold; none for predictions from elsewhere
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
    folds = [fold for fold in (*numbers, paths.ALL) if has_run(dataset, scheme, model, fold)]
    records = {fold: read_run(dataset, scheme, model, fold) for fold in folds}
    if not done:
        return ModelRuns(dataset, scheme, model, {}, None, records)
    logit = read_logits(dataset, scheme, model, done, table)
    columns = columns_of(table.set_index("item_id").loc[logit.index])
    own = Predictions(**columns, logit=logit.to_numpy(np.float64))
    histories = {fold: record["history"] for fold, record in records.items()}
    name = "all finished folds" if len(done) > 1 else f"fold {done[0]}"
    whole = decide_alone(dataset, scheme, model, own, name)
    whole = replace(whole, histories=histories)
    parts = {
        fold: replace(
            whole, name=f"fold {fold}", rows=whole.rows.take(whole.rows.fold == fold),
            in_sample=whole.in_sample[whole.rows.fold == fold],
            histories={key: entries for key, entries in histories.items() if key == fold},
        )
        for fold in done
    }  # fmt: skip
    return ModelRuns(dataset, scheme, model, parts, whole, records)


def decide_alone(dataset: str, scheme: str, model: str, rows: Predictions, name: str) -> RunPart:
    """Decide items as a recipe of this model alone does, else at their own best threshold.

    Args:
        dataset, scheme, model: whose items they are.
        rows: all of the finished folds, sorted by id; `logit` (n,).
        name: see `RunPart`.
    """
    own = decide(ALONE, replace(rows, logit=rows.logit[:, None]))
    damaged: list[Path] = []
    found = own_recipe(dataset, scheme, model, damaged)
    if found is not None and (
        _pools_otherwise(dataset, scheme, model, found[1])
        or fold_curves_of(found[1])
        or deliveries_of(found[1])
        or not metric_named(found[1].metric).decides
    ):
        found = None  # its threshold is one of other logits, or was never fitted
    if found is None:
        rule, _ = fit_threshold(rows.label, rows.logit)
        crossfit = cross_threshold(rows, SEED)
        tuned = f"threshold {rule.threshold:.4f}, the best of its out-of-fold items"
        if damaged:
            named = ", ".join(path.name for path in damaged)
            tuned += f" (passed over, for what it says cannot be read: {named})"
        logits = rows.logit[:, None]
    else:
        rule, crossfit = rule_of(found[1]), part_rules(found[1], rows, alone=model)
        cut = f"thresholds by {rule.by}" if rule.by else f"threshold {rule.threshold:.4f}"
        tuned = f"{cut}, recipe {found[0]}"
        is_this = np.array([member.model == model for member in found[1].members])
        logits = np.where(is_this, rows.logit[:, None], 0.0)
    given = replace(rows, logit=logits)
    fitted = decide(rule, given)
    decided, how = fitted, f"in-sample: {tuned}"
    if crossfit is not None:
        decided = crossfit.decide(given)
        how = f"cross-fitted: {crossfit.words()}"
    plain = not rule.by and np.array_equal(fitted.prob, own.prob)
    decided = replace(decided, prob=own.prob, logit=rows.logit)
    line = rule.threshold if plain else None
    return RunPart(name, decided, fitted.pred, how, crossfit is not None, tuned, line, {})


def _pools_otherwise(dataset: str, scheme: str, model: str, recipe: Recipe) -> bool:
    """Tell whether a recipe pools the model's frames in another way than its OOF CSV does."""
    pool = pools_of(recipe).get(model)
    files = [paths.oof_views(dataset, scheme, model, fold) for fold in recipe.folds]
    there = next((path for path in files if path.is_file()), None)
    if pool is None or there is None:
        return False
    return read_views(there)[1].get("pool", DEFAULT) != pool


def own_recipe(
    dataset: str, scheme: str, model: str, damaged: list[Path] | None = None
) -> tuple[str, Recipe] | None:
    """Return the recipe in which this model alone has a say, `tuned` before others.

    Args:
        dataset, scheme, model: of whom.
        damaged: takes the files that are damaged; None: the first one is a UserError, for without
            it other thresholds would be taken in silence.
    """
    files = {p.stem: p for home in paths.recipe_dirs(dataset)[::-1] for p in home.glob("*.json")}
    for name in sorted(files, key=lambda name: (name != "tuned", name)):
        try:
            recipe = _fresh(files[name])
        except UserError:
            if damaged is None:
                raise
            damaged.append(files[name])
            continue
        if recipe is None or recipe.scheme != scheme:
            continue
        if [member.model for member in recipe.members if member.weight] == [model]:
            return name, recipe
    return None


def _fresh(path: Path) -> Recipe | None:
    """Return a recipe; None where it was made from files that have changed since.

    Raises:
        UserError: it is damaged.
    """
    recipe = read_recipe(path)
    try:
        rule_of(recipe)
        check_recipe_fresh(recipe)
    except UserError:
        return None
    return recipe
