"""The learned soup: mixing weights by gradient (Wortsman et al. 2022, Model soups, app. I)."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from src.data.dataset import EvalBatches
from src.merging.recipe import MergeRecipe
from src.merging.settings import depth_by_name
from src.seeds import derive_seed
from src.training.merge_batchnorm import has_batchnorm
from src.training.merge_bench import Bench, weighted

EPOCHS = 3
BATCH = 64
LR = 0.1  # the paper's, for the weights


def learned_recipe(
    bench: Bench, names: Sequence[str], rows: NDArray[np.bool_], knots: int = 1
) -> MergeRecipe:
    """Learn the weights of an average on held-out rows, and return them as a recipe.

    Softmax weights and a temperature on the logits minimise the log loss (AdamW), starting at the
    uniform soup. With several knots the weights are a gradient over depth (the paper's "by
    layer" with fewer numbers to overfit). BatchNorm takes each batch's own statistics.

    Args:
        bench: where the weights lie.
        names: of the ingredients.
        rows: (n,) bool, of the held-out rows.
        knots: weights a model over depth.

    Returns:
        `linear` with a weight a model, or a list of weights over depth.
    """
    net, chip = bench.model.net, bench.chip
    stacks = {
        key: torch.stack([bench.state(name)[key].to(chip) for name in names])
        for key, value in bench.state(names[0]).items()
        if value.is_floating_point()
    }
    statistics = {key: value.clone() for key, value in net.state_dict().items()
                  if key not in dict(net.named_parameters())}  # fmt: skip
    trained = {key: stack for key, stack in stacks.items() if key not in statistics}
    depth = bench.depth or depth_by_name(bench.state(names[0]))
    raw = torch.zeros(knots, len(names), device=chip, requires_grad=True)
    scale = torch.zeros((), device=chip, requires_grad=True)
    optimizer = torch.optim.AdamW([raw, scale], lr=LR, weight_decay=0.0)
    _modes(bench, batch_statistics=True)
    try:
        for pixels, label in _batches(bench, rows):
            weights = raw.softmax(1)
            mixed = {
                key: torch.tensordot(_at(weights, depth(key)), stack, dims=1)
                for key, stack in trained.items()
            }
            buffers = {key: value.clone() for key, value in statistics.items()}
            ready = bench.model.normalised(pixels.to(chip))
            logit = functional_call(net, {**mixed, **buffers}, (ready,)).squeeze(1)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                logit.float() * scale.exp(), label.to(chip)
            )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    finally:
        _modes(bench, batch_statistics=False)
    found = raw.detach().softmax(1).cpu().double().T.tolist()
    return weighted(names, [each[0] if knots == 1 else tuple(each) for each in found])


def _at(weights: Tensor, depth: float) -> Tensor:
    """Return (m,) weights at a depth 0..1 between (knots, m) ones, as recipes interpolate."""
    if len(weights) == 1:
        return weights[0]
    place = depth * (len(weights) - 1)
    low = min(int(place), len(weights) - 2)
    return torch.lerp(weights[low], weights[low + 1], place - low)


def _modes(bench: Bench, *, batch_statistics: bool) -> None:
    bench.model.eval()
    if batch_statistics and has_batchnorm(bench.model.net):
        for module in bench.model.net.modules():
            if isinstance(module, _BatchNorm):
                module.train()


def _batches(bench: Bench, rows: NDArray[np.bool_]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches of held-out pixels with float labels, for all epochs."""
    held = bench.job.held_rows[rows]
    source = EvalBatches(bench.source, [bench.model.spec])
    starts = [*range(0, max(1, len(held) - 1), BATCH), len(held)]  # none of a single item
    for epoch in range(EPOCHS):
        order = np.random.default_rng(derive_seed("learned soup", epoch)).permutation(held)
        for start, end in pairwise(starts):
            part = order[start:end]
            label = torch.from_numpy(bench.job.labels[part]).float()
            yield source[part.tolist()]["pixels0"], label
