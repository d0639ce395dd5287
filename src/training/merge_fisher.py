"""How sure a model is of each of its weights: the diagonal of the Fisher information."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from src.merging.recipe import MergeRecipe
from src.models.classifier import Classifier
from src.progress import track
from src.tensor_files import read_tensors
from src.training.merge_bench import Bench

ESTIMATE = "estimate"  # `fisher: estimate` of a model in a recipe
COMPANION = "fisher"
ITEMS = 256


def fisher_diagonal(model: Classifier, items: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return E_x E_y [(d log p(y|x) / d weight)^2] (Matena & Raffel 2022, eq. 3 and sec. 3.2).

    With one logit z the mean over y is exact: p (1 - p) (dz / d weight)^2.

    Args:
        model: in eval mode; its gradients are used up.
        items: uint8 (s, s, 3) each.

    Returns:
        As many tensors as the net's state dict has floating-point ones, float32 on the CPU; ones
        for what is no weight (BatchNorm's statistics), which are then averaged.
    """
    net = model.net
    weights = dict(net.named_parameters())
    total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for pixels in track(items, "Fisher information", unit="item"):
        logit = model({"pixels": pixels[None]})["logit"][0]
        slopes = torch.autograd.grad(logit, list(weights.values()), allow_unused=True)
        prob = logit.detach().float().sigmoid()
        for name, slope in zip(weights, slopes, strict=True):
            if slope is not None:
                total[name] += prob * (1 - prob) * slope**2
    found = {name: value / max(1, len(items)) for name, value in total.items()}
    return {
        name: found.get(name, torch.ones_like(value)).float().cpu().contiguous()
        for name, value in net.state_dict().items()
        if value.is_floating_point()
    }


def with_fisher(bench: Bench, recipe: MergeRecipe, home: Path) -> MergeRecipe:
    """Estimate what a recipe wants estimated, on training items, and return it with files.

    Args:
        bench: where the weights and the training items are.
        recipe: `fisher: estimate` stands for a file that is made here.
        home: folder of the files.
    """
    if not any(one.companions.get(COMPANION) == ESTIMATE for one in recipe.models):
        return recipe
    items = [pixels for batch in bench.draw(ITEMS) for pixels in batch["pixels"].to(bench.chip)]
    models = []
    for number, one in enumerate(recipe.models):
        if one.companions.get(COMPANION) == ESTIMATE:
            bench.model.net.load_state_dict(read_tensors(bench.files[one.model]))
            path = home / f"fisher_{number}.safetensors"
            save_file(fisher_diagonal(bench.model.eval(), items), path)
            one = replace(one, companions={**one.companions, COMPANION: str(path)})
        models.append(one)
    return replace(recipe, models=tuple(models))
