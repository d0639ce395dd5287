"""What gradients and losses tell of a merge: learned soups, Fisher information, linear paths.

Where the loss does not stay low on the straight line between two models, an average of the two lies
on a hill and is worse than both (Frankle et al. 2020, Linear mode connectivity; Neyshabur et al.
2020).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor
from torch.func import functional_call

from src.data.batches.loader import EvalBatches
from src.merging.recipe import MergeRecipe
from src.metrics import log_loss, macro_f1
from src.models.classifier import Classifier
from src.progress import track
from src.seeds import derive_seed
from src.soups.bench import Bench, layers_of, plain, weighted
from src.tensor_files import read_tensors

EPOCHS = 3
BATCH = 64
LR = 0.1  # the paper's, for the weights


def learned_recipe(
    bench: Bench, names: Sequence[str], rows: NDArray[np.bool_], knots: int = 1
) -> MergeRecipe:
    """Learn the weights of an average (Wortsman et al. 2022, Model soups, app. I: learned soup).

    Softmax weights and a temperature on the logits minimise the log loss (AdamW), starting at the
    uniform soup. With several knots the weights are a gradient over depth (the paper's "by
    layer" with fewer numbers to overfit). BatchNorm takes each batch's own statistics. `rows` are
    (n,) bool, of the held-out rows.
    """
    net, chip = bench.model.net, bench.chip
    trained = {
        key: torch.stack([bench.state(name)[key].to(chip) for name in names])
        for key, _ in net.named_parameters()
    }
    statistics = {key: value for key, value in net.state_dict().items() if key not in trained}
    raw = torch.zeros(knots, len(names), device=chip, requires_grad=True)
    scale = torch.zeros((), device=chip, requires_grad=True)
    optimizer = torch.optim.AdamW([raw, scale], lr=LR, weight_decay=0.0)
    _modes(bench, batch_statistics=True)
    try:
        for pixels, label in _batches(bench, rows):
            weights = raw.softmax(1)
            mixed = {
                key: torch.tensordot(_at(weights, bench.depth(key)), stack, dims=1)
                for key, stack in trained.items()
            }
            # Batches change them in place; they stay those of before.
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
    for layer in layers_of(bench.model.net).values() if batch_statistics else ():
        layer.train()


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


ESTIMATE = "estimate"  # `fisher: estimate` of a model in a recipe
COMPANION = "fisher"
ITEMS = 256


def fisher_diagonal(model: Classifier, items: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return E_x E_y [(d log p(y|x) / d weight)^2] (Matena & Raffel 2022, eq. 3 and sec. 3.2).

    With one logit z the mean over y is exact: p (1 - p) (dz / d weight)^2.

    The model is in eval mode, items are uint8 (s, s, 3). Returned are as many tensors as the net's
    state dict has floating-point ones, float32 on the CPU; ones for what is no weight (BatchNorm's
    statistics), which are then averaged.
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
    """Return a recipe with files in `home` for each `fisher: estimate`, of training items."""
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


POINTS = 5
PATH_ITEMS = 256  # held-out rows, drawn
BATCHES = 4  # of training items, to settle BatchNorm on
HOPELESS = 0.1  # nats of log loss above the line between the ends


@dataclass(frozen=True)
class LossPath:
    """The straight line between the weights of two models."""

    first: str
    other: str
    alphas: tuple[float, ...]  # shares of `other`, from 0 to 1
    losses: tuple[float, ...]  # log loss at each, in nats, on held-out rows
    scores: tuple[float, ...]  # macro-F1 at 0.5 at each

    @property
    def barrier(self) -> float:
        """Return how far the loss rises above the straight line between the ends' losses."""
        line = np.interp(self.alphas, [0, 1], [self.losses[0], self.losses[-1]])
        return float(np.max(np.array(self.losses) - line))

    @property
    def is_hopeless(self) -> bool:
        """Whether an average of the two cannot be expected to work."""
        return self.barrier > HOPELESS


def walk(bench: Bench, names: Sequence[str], points: int = POINTS) -> list[LossPath]:
    """Walk from the first model to each other one, in so many points, ends included.

    The loss is that of a few hundred held-out rows.
    """
    rng = np.random.default_rng(derive_seed("path", bench.seed))
    rows = np.sort(rng.permutation(bench.job.held_rows)[:PATH_ITEMS])
    label = bench.job.labels[rows]

    def look(names: Sequence[str], weights: Sequence[float]) -> tuple[float, float]:
        one = [name for name, weight in zip(names, weights, strict=True) if weight == 1]
        # An end is that model itself, with the statistics that it was trained with.
        recipe = plain("uniform", one) if one else weighted(names, weights)
        bench.put(recipe, batches=BATCHES)
        logit = bench.predict(rows)
        return log_loss(label, logit), macro_f1(label, logit >= 0)

    alphas = np.linspace(0, 1, points).tolist()
    start = look(names[:1], [1.0])
    paths = []
    for other in names[1:]:
        seen = [start, *(look([names[0], other], [1 - a, a]) for a in alphas[1:])]
        losses, scores = zip(*seen, strict=True)
        paths.append(LossPath(names[0], other, tuple(alphas), losses, scores))
    return paths
