"""A merge of files of weights: a checkpoint, and nothing scored."""

import logging
from pathlib import Path

from src import paths
from src.errors import UserError
from src.merging.sources import open_source
from src.merging.streaming import MergeReport, merge_files
from src.training.checkpoint import read_facts
from src.training.merge_agree import check_agreement
from src.training.merge_inputs import Ingredient, is_file
from src.training.merge_plan import MergePlan

LOG = logging.getLogger("rvf")
OURS = "rvf"  # key of the metadata of our checkpoints


def merge_to_file(plan: MergePlan, output: Path, device: str) -> MergeReport:
    """Merge files of weights, tensor by tensor; nothing is predicted.

    Where all are checkpoints of ours, they must agree as models of the zoo must; the preprocessing
    of the base (else of the first) travels on. BatchNorm is merged like weights.

    Args:
        plan: of files alone, with nothing to choose.
        output: a `.safetensors` file.
        device: where to compute.

    Raises:
        UserError: a model of the zoo among them, something to choose, files that do not agree.
    """
    from src.training.device import choose_device

    if plan.selection.how != "fixed":
        raise UserError(f"{plan.name}: --output scores nothing, so nothing can be chosen")
    if plan.resize_pos_embed:
        raise UserError(f"{plan.name}: resize_pos_embed is for models of the zoo")
    documents = [recipe.name for recipe in plan.recipes]
    files = {
        name: Path(name)
        for recipe in plan.recipes
        for name in recipe.sources
        if name not in documents
    }
    for name in files:
        if not is_file(name):
            raise UserError(
                f"{plan.name}: {name!r} is not a file of weights; models of the zoo are merged "
                "fold by fold, without --output"
            )
    _check_ours(files)
    chip = choose_device(device)
    for recipe in plan.recipes[:-1]:
        part = paths.merge_parts() / f"{plan.name}.{recipe.name}.safetensors"
        merge_files(recipe, files, part, device=chip, keep=True)
        files[recipe.name] = part
    report = merge_files(plan.final, files, output, device=chip)
    for recipe in plan.recipes[:-1]:
        files[recipe.name].unlink()
    if _has_statistics(output):
        LOG.info("BatchNorm's statistics were merged like weights; estimate them anew by merging "
                 "models of the zoo (python -m src merge without --output)")  # fmt: skip
    return report


def _check_ours(files: dict[str, Path]) -> None:
    ours = []
    for name, path in files.items():
        source = open_source(path, name)
        is_ours = OURS in source.metadata
        source.close()
        if is_ours:
            metadata, config, spec, views = read_facts(path)
            ours.append(Ingredient(name, path, "", config, spec, views, metadata, None, None))
    if len(ours) == len(files):
        check_agreement(ours)
    elif ours:
        LOG.warning(
            "WARNING %s: a checkpoint of this repo, merged with foreign files: whether those see "
            "the same pixels and mean the same by a positive logit is not known", ours[0].name,
        )  # fmt: skip


def _has_statistics(path: Path) -> bool:
    source = open_source(path)
    try:
        return any(name.endswith("running_mean") for name in source.names)
    finally:
        source.close()
