"""A merge of files of weights: a checkpoint, and nothing scored."""

import hashlib
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from src import paths
from src.artifacts.atomic import file_lock
from src.artifacts.outputs import check_output
from src.errors import UserError
from src.merging.sources import open_source
from src.merging.streaming import (
    METADATA_KEY,
    MergeReport,
    check_documents,
    check_no_input,
    merge_files,
)
from src.models.checkpoint import read_facts
from src.soups.gradients import ESTIMATE
from src.soups.ingredients import IngredientFile, check_agreement, is_file
from src.soups.plan import MergePlan

if TYPE_CHECKING:
    import torch

LOG = logging.getLogger("rvf")
OURS = "rvf"  # key of the metadata of our checkpoints


def merge_to_file(plan: MergePlan, output: Path, device: str) -> MergeReport:
    """Merge files of weights into a `.safetensors` file, tensor by tensor; nothing is predicted.

    Where all are checkpoints of ours, they must agree as models of the zoo must; the preprocessing
    of the base (else of the first) travels on. BatchNorm is merged like weights. All documents are
    checked before the first is merged.

    Raises:
        UserError: a model of the zoo among them, something to choose, files that do not agree;
            see `merge_files`.
        LockedError: another process is merging into the same file.
    """
    from src.compute.device import choose_device

    files = _files(plan)
    check_no_input(output, plan.recipes, files)
    check_output(output, ".safetensors", _is_merge)
    _check_ours(files)
    chip = choose_device(device)
    if len(plan.recipes) == 1:
        report = merge_files(plan.final, files, output, device=chip)
    else:
        check_documents(plan.recipes, files)
        with _stages(output) as folder:
            report = _carry_out(plan, files, output, chip, folder)
    if _has_statistics(output):
        LOG.info("BatchNorm's statistics were merged like weights; estimate them anew by merging "
                 "models of the zoo (python -m src merge without --output)")  # fmt: skip
    return report


def _is_merge(path: Path) -> bool:
    """Tell whether a file is a merge of files: no run's checkpoint, which has a record."""
    if path.with_suffix(".json").exists() or not path.is_file():
        return False
    try:
        with open_source(path) as source:
            return METADATA_KEY in source.metadata
    except UserError:
        return False


def _files(plan: MergePlan) -> dict[str, Path]:
    """Return the files of a plan by name; raises UserError unless it is of files alone."""
    if plan.selection.how != "fixed":
        raise UserError(f"{plan.name}: --output scores nothing, so nothing can be chosen")
    if plan.resize_pos_embed:
        raise UserError(f"{plan.name}: resize_pos_embed is for models of the zoo")
    documents = [recipe.name for recipe in plan.recipes]
    names = [name for recipe in plan.recipes for name in recipe.sources if name not in documents]
    for name in names:
        if not is_file(name):
            raise UserError(
                f"{plan.name}: {name!r} is not a file of weights; models of the zoo are merged "
                "fold by fold, without --output"
            )
    for one in (one for recipe in plan.recipes for one in recipe.models):
        if ESTIMATE in one.companions.values():
            raise UserError(
                f"{plan.name}: `fisher: {ESTIMATE}` of {one.model} needs training items, and "
                "--output reads none; give a file of Fisher information, or merge models of the "
                "zoo without --output"
            )
    return {name: Path(name) for name in names}


@contextmanager
def _stages(output: Path) -> Iterator[Path]:
    """Yield a folder for the results of earlier documents, this process's alone.

    What a killed merge has left there is gone on with; after a refusal nothing is left.

    Raises:
        LockedError: another process is merging into the same output.
    """
    whose = hashlib.sha256(str(output.resolve()).encode()).hexdigest()[:16]
    folder = paths.merge_parts() / f"file_{whose}"
    with file_lock(folder.with_suffix(".lock"), str(output)):
        try:
            yield folder
        except UserError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        shutil.rmtree(folder, ignore_errors=True)


def _carry_out(
    plan: MergePlan, files: dict[str, Path], output: Path, chip: "torch.device", folder: Path
) -> MergeReport:
    """Merge document by document; the warnings of all are in the last one's report."""
    stamps: dict[str, str] = {}
    warnings: list[str] = []
    files = dict(files)
    for recipe in plan.recipes[:-1]:
        part = folder / f"{recipe.name}.safetensors"
        # Its own fingerprint tells what it was made from; when, would make every run another one.
        made = merge_files(recipe, files, part, device=chip, keep=True, stamps=stamps)
        files[recipe.name], stamps[recipe.name] = part, made.fingerprint
        warnings += [f"{recipe.name}: {warning}" for warning in made.warnings]
    report = merge_files(plan.final, files, output, device=chip, stamps=stamps)
    return replace(report, warnings=(*warnings, *report.warnings))


def _check_ours(files: dict[str, Path]) -> None:
    ours = []
    for name, path in files.items():
        with open_source(path, name) as source:
            is_ours = OURS in source.metadata
        if is_ours:
            metadata, config, spec, views = read_facts(path)
            ours.append(IngredientFile(name, path, "", config, spec, views, metadata, None))
    if len(ours) == len(files):
        check_agreement(ours)
    elif ours:
        LOG.warning(
            "WARNING %s: a checkpoint of this repo, merged with foreign files: whether those see "
            "the same pixels and mean the same by a positive logit is not known", ours[0].name,
        )  # fmt: skip


def _has_statistics(path: Path) -> bool:
    with open_source(path) as source:
        return any(name.endswith("running_mean") for name in source.names)
