"""The record of a merge: what a run's record holds, and what it was merged from."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from src import paths
from src.artifacts.files import sha256_file, sha256_json
from src.artifacts.runs import START
from src.compute import device
from src.merging.recipe import MergeRecipe
from src.models.classifier import count_parameters
from src.soups.bench import Bench
from src.soups.gradients import LossPath
from src.soups.ingredients import Ingredient
from src.soups.plan import MergePlan
from src.soups.select import Choice
from src.training import finish
from src.training.job import Job


@dataclass
class Merged:
    """What `merge_fold` did."""

    job: Job  # the merge as a run
    ingredients: dict[str, Ingredient]  # by name
    flattered: bool = False  # held-out rows chose an ingredient, or its epoch
    skipped: bool = False  # it was there already
    paths: list[LossPath] = field(default_factory=list)  # of the check before averaging
    chosen: Choice | None = None  # on all held-out rows, where something was to be chosen
    cross_fitted: pd.DataFrame | None = None  # logits of what either half chose (see `choose`)
    tried: pd.DataFrame | None = None  # what was looked at for that (see `tried_table`)

    @property
    def is_selected(self) -> bool:
        """Whether held-out rows had a say in it."""
        return self.chosen is not None or self.flattered


def fingerprint(plan: MergePlan, ingredients: Mapping[str, Ingredient]) -> str:
    """Return the SHA-256 of all that decides a merge."""
    weights = {name: one.sha256 for name, one in ingredients.items()}
    chosen = asdict(plan.selection)
    recipes = [recipe.as_dict() for recipe in plan.recipes]
    further = [
        sha256_file(Path(file))
        for recipe in plan.recipes
        for one in recipe.models
        for file in one.companions.values()
        if Path(file).is_file()
    ]
    return sha256_json([recipes, chosen, plan.batchnorm, weights, *further])


def in_words(recipe: MergeRecipe) -> str:
    """Return a recipe in one line: its method, its models, the settings that it gives."""
    models = []
    for one in recipe.models:
        own = ", ".join(f"{key} {_number(value)}" for key, value in one.parameters.items())
        models.append(f"{one.model} ({own})" if own else one.model)
    common = ", ".join(f"{key} {_number(value)}" for key, value in recipe.parameters.items())
    return f"{recipe.merge_method} of {', '.join(models)}" + (f"; {common}" if common else "")


def _number(value: Any) -> str:  # noqa: ANN401
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_number, value)) + "]"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _as_written(recipe: MergeRecipe, plan: MergePlan) -> MergeRecipe:
    """Return a chosen recipe with companions as the user wrote them: estimated ones are gone."""
    written = {one.model: one.companions for one in plan.final.models}
    models = tuple(replace(one, companions=written[one.model]) for one in recipe.models)
    return replace(recipe, models=models, more={})


def merge_record(
    plan: MergePlan,
    merged: Merged,
    bench: Bench,
    report: dict[str, float],
    seconds: float,
) -> dict[str, Any]:
    """Return the record of a merge.

    Training's own fields are empty; the start and the rate are those of the first ingredient.

    Args:
        plan: as written.
        merged: what was done.
        bench: where.
        report: scores of the held-out rows at 0.5; empty where none are held out.
        seconds: that it took.
    """
    job, chip = merged.job, bench.chip
    runs = [one.record for name, one in merged.ingredients.items() if name != START and one.record]
    first = runs[0]
    chosen = merged.chosen
    return {
        **finish.opening(job, first["start"]),
        "selection": "best" if merged.is_selected else "last",
        "epoch": 0,
        "precision": "fp32",
        "inference_precision": bench.compute.precision,
        "micro_batch": 0,
        "compiled": False,
        "device": device.device_name(chip),
        "threads": torch.get_num_threads(),
        "seconds": seconds,
        "items_per_second": first["items_per_second"],
        "parameters": count_parameters(bench.model),
        "trainable": 0,
        "stages": [],
        "history": [],
        "metrics": report,
        "merged_from": {
            "fingerprint": fingerprint(plan, merged.ingredients),
            "recipes": [recipe.as_dict() for recipe in plan.recipes],
            "ingredients": [one.as_dict() for one in merged.ingredients.values()],
            "batchnorm": bench.batchnorm,
            "selection": asdict(plan.selection),
            "chosen": None if chosen is None else _as_written(chosen.recipe, plan).as_dict(),
            "chosen_score": None if chosen is None else chosen.score,
            "cross_fitted_sha256": None
            if merged.cross_fitted is None
            else sha256_file(paths.cross_fitted_csv(*job.names)),
            "barriers": {path.other: path.barrier for path in merged.paths},
        },
        **finish.closing(job),
    }
