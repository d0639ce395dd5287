"""One merge of one fold, from names to a member like any other: checkpoint, OOF, record."""

import logging
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from src import paths
from src.artifacts.files import file_lock, sha256_file, write_csv, write_json
from src.artifacts.oof import read_views
from src.errors import UserError
from src.merging.recipe import MergeRecipe
from src.training import checkpoint, record
from src.training.finish import check_weights, predict_held, write_predictions
from src.training.job import Job
from src.training.merge_agree import check_agreement, check_unseen, resize_positions
from src.training.merge_bench import Bench, FloatArray, plain
from src.training.merge_fisher import with_fisher
from src.training.merge_inputs import START, Ingredient, Place, resolve
from src.training.merge_path import LossPath, walk
from src.training.merge_plan import MergePlan, Selection, check_name
from src.training.merge_record import fingerprint, in_words, merge_record
from src.training.merge_select import Choice, Chooser
from src.training.merge_table import CROSS_FITTED, halves_of
from src.training.merge_tried import tried_table

LOG = logging.getLogger("rvf")


@dataclass
class Merged:
    """What `merge_fold` did.

    Attributes:
        job: the merge as a run.
        ingredients: by name.
        skipped: it was there already.
        paths: of the check before averaging.
        chosen: on all held-out rows, where something was to be chosen.
        tried: what was looked at for that (see `tried_table`).
    """

    job: Job
    ingredients: dict[str, Ingredient]
    skipped: bool = False
    paths: list[LossPath] = field(default_factory=list)
    chosen: Choice | None = None
    tried: pd.DataFrame | None = None


def merge_fold(plan: MergePlan, place: Place, job: Job, *, check: bool = True) -> Merged:
    """Merge one fold of every ingredient and write the result as a run.

    Args:
        plan: the merge.
        place: where the ingredients lie.
        job: names, rows and options; its model and config are replaced by the merge's.
        check: walk between the ingredients before they are averaged.

    Raises:
        UserError: ingredients that do not agree, one that saw the rows to be scored, a run of
            another kind or other ingredients under the merge's name.
    """
    check_name(plan.name, place.dataset, place.scheme)
    ingredients = resolve(plan.recipes, place)
    if len({one.spec.image_size for one in ingredients.values()}) > 1 and plan.resize_pos_embed:
        check_agreement(list(ingredients.values()), resized=True)
        ingredients = resize_positions(ingredients)
    check_agreement(list(ingredients.values()))
    first = next(iter(ingredients.values()))
    job = Job(
        plan.name, first.config, place.dataset, place.scheme, place.fold, job.root, job.table,
        job.options,
    )  # fmt: skip
    if not job.is_refit:
        held = set(job.table["item_id"].to_numpy()[job.held_rows])
        check_unseen(list(ingredients.values()), place.dataset, place.scheme, job.table, held)
    elif plan.selection.how != "fixed":
        raise UserError(
            f"{plan.name}: nothing is held out in --fold all, so nothing can be chosen; write what "
            "was chosen (`chosen` in the record of a fold) into a file of its own and merge that"
        )
    what = f"{place.dataset}/{place.scheme}/{plan.name} fold {place.fold}"
    with file_lock(paths.run_lock(*job.names), what):
        if _is_finished(plan, job, ingredients):
            return Merged(job, ingredients, skipped=True)
        merged = Merged(job, ingredients)
        _carry_out(plan, merged, check=check)
    return merged


def _is_finished(plan: MergePlan, job: Job, ingredients: Mapping[str, Ingredient]) -> bool:
    path = paths.run_record(*job.names)
    if not path.exists():
        return False
    found = record.read_record(path)["merged_from"]
    if found is None:
        raise UserError(f"{path}: {job.model} was trained; give the merge's file another name")
    if job.options.overwrite:
        return False
    if found["fingerprint"] != fingerprint(plan, ingredients):
        raise UserError(
            f"{path}: a merge of other ingredients or settings lies there; merge again with "
            "--overwrite, or give the file another name"
        )
    predicted = job.is_refit or paths.oof_csv(*job.names).exists()
    return predicted and paths.checkpoint(*job.names).exists()


def _carry_out(plan: MergePlan, merged: Merged, *, check: bool) -> None:
    began = time.monotonic()
    job, ingredients = merged.job, merged.ingredients
    bench = Bench(job, ingredients, plan.batchnorm)
    parts = paths.merge_parts() / fingerprint(plan, ingredients)[:32]
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
        recipe = _choose(plan.selection, recipe, merged, bench)
    file = parts / "merged.safetensors"
    bench.put_from_files(recipe, file)
    _write(plan, merged, bench, time.monotonic() - began)
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


def _choose(selection: Selection, recipe: MergeRecipe, merged: Merged, bench: Bench) -> MergeRecipe:
    """Choose on all held-out rows, and on either half, for a score that was not chosen on."""
    job, half = merged.job, halves_of(bench.labels, bench.groups)
    chooser = Chooser(bench, recipe, selection)
    for name, one in merged.ingredients.items():
        logit = _own_logits(job, one)
        if logit is not None:
            chooser.know(plain("uniform", [name]), logit)
    by_half = [chooser.choose(half == k) for k in (0, 1)]
    merged.chosen = chooser.choose(np.ones(len(half), bool))
    ids = job.table["item_id"].to_numpy()[job.held_rows]
    logits: list[FloatArray] = [chooser.logits(choice.recipe) for choice in by_half]
    table = pd.DataFrame({"item_id": ids, "half": half, "logit_0": logits[0], "logit_1": logits[1]})
    ordered = table[CROSS_FITTED].sort_values("item_id", kind="stable")
    write_csv(paths.cross_fitted_csv(*job.names), ordered)
    merged.tried = tried_table(bench.labels, chooser.tried, selection)
    LOG.info(
        "chosen by %s (%s, %d merges tried): %s", selection.how, selection.metric,
        merged.chosen.tried, in_words(merged.chosen.recipe),
    )  # fmt: skip
    return merged.chosen.recipe


def _own_logits(job: Job, one: Ingredient) -> FloatArray | None:
    """Return an ingredient's out-of-fold logits, where they are there and of these weights."""
    run = one.record or {}
    path = paths.oof_views(job.dataset, job.scheme, str(run.get("model")), job.fold)
    if (run.get("dataset"), run.get("scheme"), run.get("fold")) != (
        job.dataset, job.scheme, job.fold,
    ) or not path.is_file():  # fmt: skip
        return None
    views, metadata = read_views(path)
    pooled = views.groupby("item_id")["logit"].mean()
    ids = job.table["item_id"].to_numpy()[job.held_rows]
    if metadata.get("checkpoint_sha256") != one.sha256 or set(pooled.index) != set(ids):
        return None
    return pooled.loc[ids].to_numpy(np.float64)


def _write(plan: MergePlan, merged: Merged, bench: Bench, seconds: float) -> None:
    """Write checkpoint, predictions and, last, the record."""
    job, model = merged.job, bench.model
    if job.is_refit:
        check_weights(job, model)
    seen = None if job.is_refit else predict_held(job, model, bench.source, bench.compute)
    paths.run_record(*job.names).unlink(missing_ok=True)
    if merged.chosen is None:  # what an earlier merge of this name chose is not this one's
        paths.cross_fitted_csv(*job.names).unlink(missing_ok=True)
    content = job.config.as_dict()
    checkpoint.save_checkpoint(paths.checkpoint(*job.names), model, content, bench.views)
    sha256 = sha256_file(paths.checkpoint(*job.names))
    report = {} if seen is None else write_predictions(job, seen, sha256)
    write_json(
        paths.run_record(*job.names), merge_record(plan, merged, bench, report, sha256, seconds)
    )
