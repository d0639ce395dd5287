"""One merge of one fold, from names to a member like any other: checkpoint, OOF, record."""

import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from src import paths
from src.artifacts.atomic import file_lock
from src.artifacts.files import sha256_file, sha256_json, write_csv
from src.artifacts.runs import START, read_run, write_record
from src.compute import device
from src.errors import UserError
from src.inference.lineage import check_unseen
from src.models import checkpoint
from src.models.classifier import count_parameters
from src.soups.bench import Bench
from src.soups.contenders import had_a_say
from src.soups.gradients import LossPath, walk, with_fisher
from src.soups.ingredients import (
    IngredientFile,
    check_agreement,
    resize_positions,
    resolve,
)
from src.soups.plan import MergePlan, check_name
from src.soups.select import Chosen, choose
from src.training import results
from src.training.job import Job
from src.training.results import check_weights, predict_held, write_predictions

LOG = logging.getLogger("rvf")


@dataclass
class Merged:
    """What `merge_fold` did."""

    plan: MergePlan  # as written
    job: Job  # the merge as a run
    ingredients: dict[str, IngredientFile]  # by name
    flattered: bool = False  # held-out rows chose an ingredient, or its epoch
    skipped: bool = False  # it was there already
    paths: list[LossPath] = field(default_factory=list)  # of the check before averaging
    chosen: Chosen | None = None  # on all held-out rows, where something was to be chosen
    cross_fitted: pd.DataFrame | None = None  # logits of what either half chose (see `choose`)
    tried: pd.DataFrame | None = None  # what was looked at for that (see `tried_table`)

    @property
    def is_selected(self) -> bool:
        """Whether held-out rows had a say in it."""
        return self.chosen is not None or self.flattered

    @cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of all that decides the merge."""
        plan = self.plan
        weights = {name: one.sha256 for name, one in self.ingredients.items()}
        models = [one for recipe in plan.recipes for one in recipe.models]
        further = [Path(file) for one in models for file in one.companions.values()]
        return sha256_json([
            [recipe.as_dict() for recipe in plan.recipes], asdict(plan.selection), plan.batchnorm,
            weights, *(sha256_file(file) for file in further if file.is_file()),
        ])  # fmt: skip


def merge_fold(
    plan: MergePlan,
    job: Job,
    *,
    input_root: Path | None = None,
    check: bool = True,
    report: Callable[[Merged], None] | None = None,
) -> Merged:
    """Merge one fold of every ingredient and write the result as a run.

    Args:
        plan: what to merge.
        job: which fold of what, its rows and options (`resolve`); its model and config are
            replaced by the merge's.
        input_root: folder of data sets, instead of `input/`.
        check: walk between the ingredients before they are averaged.
        report: writes what people look at; called before the record is written, for what has a
            record is not merged again.

    Raises:
        UserError: ingredients that do not agree, one that saw the rows to be scored, a run of
            another kind or other ingredients under the merge's name.
    """
    check_name(plan.name, job.dataset, job.scheme)
    ingredients = resolve(plan.recipes, job)
    if len({one.spec.image_size for one in ingredients.values()}) > 1 and plan.resize_pos_embed:
        check_agreement(list(ingredients.values()), resized=True)
        ingredients = resize_positions(ingredients)
    check_agreement(list(ingredients.values()))
    first = next(iter(ingredients.values()))
    job = replace(job, model=plan.name, config=first.config)
    if not job.is_refit:
        held_out = (job.dataset, job.scheme, job.fold)
        runs = [(name, one.record) for name, one in ingredients.items() if name != START]
        check_unseen(runs, held_out, job.table, input_root)
    elif plan.selection.how != "fixed":
        raise UserError(
            f"{plan.name}: nothing is held out in --fold all, so nothing can be chosen; write what "
            "was chosen (`chosen` in the record of a fold) into a file of its own and merge that"
        )
    what = f"{job.dataset}/{job.scheme}/{plan.name} fold {job.fold}"
    with file_lock(paths.run_lock(*job.names), what):
        merged = Merged(plan, job, ingredients)
        merged.skipped = _is_finished(merged)
        if not merged.skipped:
            runs = [one.record for one in ingredients.values() if one.record is not None]
            rows = {"dataset": job.dataset, "scheme": job.scheme}
            merged.flattered = had_a_say(runs, rows, input_root)
            _carry_out(merged, check=check, report=report or (lambda _: None))
    return merged


def _is_finished(merged: Merged) -> bool:
    job, path = merged.job, paths.run_record(*merged.job.names)
    if not path.exists():
        return False
    found = read_run(*job.names)["merged_from"]
    if found is None:
        raise UserError(f"{path}: {job.model} was trained; give the merge's file another name")
    if job.options.overwrite:
        return False
    if found["fingerprint"] != merged.fingerprint:
        raise UserError(
            f"{path}: a merge of other ingredients or settings lies there; merge again with "
            "--overwrite, or give the file another name"
        )
    predicted = job.is_refit or paths.oof_csv(*job.names).exists()
    return predicted and paths.checkpoint(*job.names).exists()


def _carry_out(merged: Merged, *, check: bool, report: Callable[[Merged], None]) -> None:
    began = time.monotonic()
    plan, job, ingredients = merged.plan, merged.job, merged.ingredients
    bench = Bench(job, ingredients, plan.batchnorm)
    parts = paths.merge_parts() / merged.fingerprint[:32]
    parts.mkdir(parents=True, exist_ok=True)
    averaged = [name for name in ingredients if name != START]
    if check and len(averaged) > 1 and not job.is_refit:
        merged.paths = walk(bench, averaged)
        _warn(job.model, merged.paths)
    for recipe in plan.recipes[:-1]:
        file = parts / f"{recipe.name}.safetensors"
        bench.put_from_files(with_fisher(bench, recipe, parts), file)
        bench.files[recipe.name] = file
    recipe = with_fisher(bench, plan.final, parts)
    if plan.selection.how != "fixed":
        found = choose(plan.selection, recipe, ingredients, bench)
        merged.chosen, merged.cross_fitted, merged.tried = found
        recipe = merged.chosen.recipe
    bench.put_from_files(recipe, parts / "merged.safetensors")
    _write(merged, bench, time.monotonic() - began, report)
    shutil.rmtree(parts)


def _warn(name: str, found: list[LossPath]) -> None:
    for path in found:
        if path.is_hopeless:
            LOG.warning(
                "WARNING %s: between %s and %s the log loss rises %.3f above the line from one to "
                "the other (macro-F1 %.3f half-way, %.3f and %.3f at the ends): they do not lie in "
                "one valley, and their average cannot be expected to work. Merge models that were "
                "fine-tuned from the same weights",
                name, path.first, path.other, path.barrier,
                path.scores[len(path.scores) // 2], path.scores[0], path.scores[-1],
            )  # fmt: skip


def _write(merged: Merged, bench: Bench, seconds: float, report: Callable[[Merged], None]) -> None:
    """Write checkpoint, predictions, what people look at and, last, the record."""
    job, model = merged.job, bench.model
    if job.is_refit:
        check_weights(job, model)
    seen = None if job.is_refit else predict_held(job, model, bench.source, bench.compute)
    # Killed from here on, nothing of an earlier merge of this name is left that could be taken for
    # predictions of other weights.
    for make in (paths.oof_csv, paths.oof_views, paths.cross_fitted_csv, paths.run_record):
        make(*job.names).unlink(missing_ok=True)
    content = job.config.as_dict()
    checkpoint.save_checkpoint(paths.checkpoint(*job.names), model, content, bench.views)
    sha256 = sha256_file(paths.checkpoint(*job.names))
    scores = {} if seen is None else write_predictions(job, seen, sha256)
    if scores and merged.is_selected:
        LOG.info("what was merged was chosen on these very items: that score is flattered")
    if merged.cross_fitted is not None:
        write_csv(paths.cross_fitted_csv(*job.names), merged.cross_fitted)
    report(merged)
    write_record(paths.run_record(*job.names), _record_of(merged, bench, scores, seconds))


def _record_of(
    merged: Merged, bench: Bench, scores: dict[str, float], seconds: float
) -> dict[str, Any]:
    """Return the record of a merge.

    Training's own fields are empty; the start and the rate are those of the first ingredient.
    """
    plan, job, chosen = merged.plan, merged.job, None
    first = next(one.record for one in merged.ingredients.values() if one.record is not None)
    if merged.chosen is not None:
        # With companions as the user wrote them: estimated ones are gone.
        written = {one.model: one.companions for one in plan.final.models}
        recipe = merged.chosen.recipe
        models = [replace(one, companions=written[one.model]) for one in recipe.models]
        chosen = replace(recipe, models=tuple(models)).as_dict()
    return {
        **results.opening(job, first["start"]),
        "selection": "best" if merged.is_selected else "last",
        "epoch": 0,
        "precision": "fp32",
        "inference_precision": bench.compute.precision,
        "micro_batch": 0,
        "compiled": False,
        "device": device.device_name(bench.chip),
        "threads": torch.get_num_threads(),
        "ranks": 1,
        "seconds": seconds,
        "items_per_second": first["items_per_second"],
        "parameters": count_parameters(bench.model),
        "trainable": 0,
        "stages": [],
        "history": [],
        "budget": None,
        "metrics": scores,
        "merged_from": {
            "fingerprint": merged.fingerprint,
            "recipes": [recipe.as_dict() for recipe in plan.recipes],
            "ingredients": [one.as_dict() for one in merged.ingredients.values()],
            "batchnorm": bench.batchnorm,
            "selection": asdict(plan.selection),
            "chosen": chosen,
            "chosen_score": None if merged.chosen is None else merged.chosen.score,
            "cross_fitted_sha256": None
            if merged.cross_fitted is None
            else sha256_file(paths.cross_fitted_csv(*job.names)),
            "barriers": {path.other: path.barrier for path in merged.paths},
        },
        **results.closing(job),
    }
