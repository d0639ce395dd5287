"""Where merges are tried: weights into a net, BatchNorm settled, held-out rows predicted."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from src import paths
from src.compute import device
from src.compute.request import Compute, default_workers
from src.data.batches.loader import EvalBatches
from src.data.pixels.source import Canvas, PixelSource
from src.errors import UserError
from src.inference.predict import predict_items
from src.merging.depth import Depth, DepthByName
from src.merging.merger import merge_tensors
from src.merging.recipe import Ingredient as Part
from src.merging.recipe import MergeRecipe
from src.merging.sources import Source, open_source
from src.merging.streaming import merge_files
from src.models.anatomy import anatomy_of
from src.models.backbones import build_backbone
from src.models.classifier import Classifier
from src.seeds import derive_seed
from src.soups.ingredients import IngredientFile
from src.tensor_files import read_tensors
from src.training.job import Job
from src.training.optim import fill_statistics
from src.training.results import check_logits

LOG = logging.getLogger("rvf")
FloatArray = NDArray[np.float64]
BATCH = 64
STATISTICS = ("running_mean", "running_var")
COUNTER = "num_batches_tracked"
ROUNDING = 1e-6  # of a tensor's largest weight: by so much a merge that gives one model back is off


class Bench:
    """A net that takes one merge after the other, and the rows on which they are tried.

    Args:
        job: the merge as a run: its name, the first ingredient's config, the fold.
        ingredients: by their names in the recipes.
        batchnorm: training items that BatchNorm is estimated on; 0 keeps what was merged.
    """

    def __init__(self, job: Job, ingredients: Mapping[str, IngredientFile], batchnorm: int) -> None:
        self.job = job
        self.files: dict[str, Path] = {name: one.path for name, one in ingredients.items()}
        first = next(iter(ingredients.values()))
        self.views, spec = first.views, first.spec
        # Whichever model stands first, the same items are drawn.
        self.seed = min(one.config.seed for one in ingredients.values())
        self.chip = job.options.chip
        device.set_deterministic(self.chip)
        net, native = build_backbone(job.config.backbone, spec.image_size, job.config.head)
        model = Classifier(net, spec).to(self.chip, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model: Classifier = model.eval()
        files, canvases = job.table["path"], [Canvas.of(spec)]
        self.source = PixelSource(job.root, files, canvases, frames=spec.frames, stamps=job.stamps)
        self.source.preload(paths.pixel_cache(job.dataset), job.options.cache)
        self.batchnorm = batchnorm if layers_of(net) else 0
        workers = job.options.workers
        self.compute = Compute(
            job.options.device,
            device.inference_precision(self.chip, job.options.precision),
            (0 if self.source.is_kept else default_workers()) if workers is None else workers,
        )
        self._states: dict[str, dict[str, Tensor]] = {}
        self.depth = depth_of(net, native.head)

    @cached_property
    def batches(self) -> list[dict[str, Tensor]]:
        """The training items on which BatchNorm is estimated."""
        return self.draw(self.batchnorm)

    def draw(self, items: int) -> list[dict[str, Tensor]]:
        """Return batches of at most so many training items, as evaluation sees them."""
        job = self.job
        return training_batches(self.source, self.model, job.train_rows, items, self.seed)

    @property
    def labels(self) -> NDArray[np.int64]:
        """Return the labels of the held-out rows."""
        return self.job.labels[self.job.held_rows]

    def state(self, name: str) -> dict[str, Tensor]:
        """Return the weights behind a name, read once."""
        if name not in self._states:
            self._states[name] = read_tensors(self.files[name])
        return self._states[name]

    def put(self, recipe: MergeRecipe, *, batches: int | None = None) -> None:
        """Merge in memory and put the result into the net.

        BatchNorm is estimated on the first so many batches, on all if None.
        """
        states = {name: self.state(name) for name in recipe.sources}
        fisher = [
            read_tensors(Path(file)) for one in recipe.models for file in one.companions.values()
        ]
        merged = merge_tensors(
            recipe, states, fisher=fisher or None, device=self.chip, depth=self.depth
        )
        self.load(merged, recipe, batches=batches)

    def put_from_files(self, recipe: MergeRecipe, part: Path) -> None:
        """Merge tensor by tensor from the files into `part`, and put the result into the net.

        A file that an interrupted command has left there whole is not merged again.
        """
        report = merge_files(
            recipe, self.files, part, metadata={}, device=self.chip, depth=self.depth,
            keep=True,
        )  # fmt: skip
        for warning in report.warnings:
            LOG.warning("WARNING %s: %s", self.job.model, warning)
        self.load(read_tensors(part), recipe)

    def load(
        self, tensors: Mapping[str, Tensor], recipe: MergeRecipe, *, batches: int | None = None
    ) -> None:
        """Put merged weights into the net and settle its BatchNorm, unless they are one model's."""
        self.model.net.load_state_dict({key: value.float() if value.is_floating_point() else value
                                        for key, value in tensors.items()})  # fmt: skip
        self.model.eval()
        if not self.batchnorm:
            return
        with ExitStack() as stack:
            sources = [stack.enter_context(open_source(self.files[n])) for n in recipe.sources]
            twins = twins_of(self.model.net, tensors, sources)
            if twins:  # that model itself: new statistics would make another one of it
                take_statistics(self.model.net, twins[0])
            keep = shared_layers(self.model.net, twins or sources)
        estimate_statistics(
            self.model, self.batches[:batches], self.chip, self.compute.precision, keep
        )

    def predict(self, rows: NDArray[np.int64] | None = None, what: str = "") -> FloatArray:
        """Return the net's (n,) logits of rows (None: the held-out ones), the mean over its views.

        Raises:
            UserError: an item cannot be decoded, or a logit is not finite.
        """
        wanted = self.job.held_rows if rows is None else rows
        seen = predict_items(self.model, self.views, self.source, wanted, self.compute, what=what)
        if rows is None:
            check_logits(self.job, seen)
        return seen.pooled(self.model.spec.frames.pool)


def depth_of(net: nn.Module, head: tuple[str, ...]) -> Depth:
    """Return the depth of a net's tensors: told by their names, else by its blocks."""
    names = list(net.state_dict())
    by_name = DepthByName(names)
    if len({by_name(name) for name in names}) > 2:
        return by_name
    parts = anatomy_of(net, head)
    last = max(1, len(parts.blocks) - 1)
    layers = {name.rpartition(".")[0]: 0.0 for name in parts.stem}
    for number, block in enumerate(parts.blocks):
        layers |= {name.rpartition(".")[0]: number / last for name in block}
    return lambda name: layers.get(name.rpartition(".")[0], 1.0)


def plain(method: str, names: Sequence[str]) -> MergeRecipe:
    """Return a recipe without settings."""
    return MergeRecipe(method, tuple(Part(name) for name in names))


def weighted(names: Sequence[str], weights: Sequence[float | tuple[float, ...]]) -> MergeRecipe:
    """Return the weighted average, weights adding up to 1 (one a model, or over depth)."""
    both = zip(names, weights, strict=True)
    parts = tuple(Part(name, {"weight": weight}) for name, weight in both)
    return MergeRecipe("linear", parts, parameters={"normalize": True})


# BatchNorm of merged weights: what it knows of the data belongs to other weights.


def layers_of(net: nn.Module) -> dict[str, _BatchNorm]:
    """Return the layers of a net that keep statistics of the data, by name."""
    return {
        name: module
        for name, module in net.named_modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats
    }


def shared_layers(net: nn.Module, sources: Sequence[Source]) -> set[str]:
    """Return the BatchNorm layers whose statistics are equal in all sources (frozen, or one)."""
    first, *others = sources
    return {
        name
        for name in layers_of(net)
        if all(
            torch.equal(source.read(f"{name}.{what}"), first.read(f"{name}.{what}"))
            for source in others
            for what in STATISTICS
        )
    }


def twins_of(
    net: nn.Module, tensors: Mapping[str, Tensor], sources: Sequence[Source]
) -> list[Source]:
    """Return the sources whose weights `tensors` are, whatever their BatchNorm knows."""
    aside = {f"{name}.{what}" for name in layers_of(net) for what in (*STATISTICS, COUNTER)}
    compared = {
        name: value
        for name, value in tensors.items()
        if name not in aside and value.is_floating_point()
    }
    return [
        source
        for source in sources
        if all(_is_rounded(source.read(name), value) for name, value in compared.items())
    ]


def _is_rounded(one: Tensor, other: Tensor) -> bool:
    first, second = one.float(), other.detach().float().cpu()
    if first.shape != second.shape or not first.numel():
        return first.shape == second.shape
    return float((first - second).abs().max()) <= ROUNDING * float(first.abs().max())


def take_statistics(net: nn.Module, source: Source) -> None:
    """Give a net's BatchNorm layers the statistics that a source holds."""
    for name, layer in layers_of(net).items():
        for what in STATISTICS:
            layer.get_buffer(what).copy_(source.read(f"{name}.{what}"))


def training_batches(
    source: PixelSource, model: Classifier, rows: NDArray[np.int64], items: int, seed: int
) -> list[dict[str, Tensor]]:
    """Draw training items (of clips: frames), at most so many, as evaluation sees them.

    Returns batches of `pixels` uint8 (n, s, s, 3), of equal sizes give or take an item; raises a
    UserError where one cannot be decoded.
    """
    rng = np.random.default_rng(derive_seed(seed, "batchnorm"))
    drawn = rng.permutation(source.numbers.eval_rows(rows).rows)[:items]
    batches = EvalBatches(source, [model.spec])
    found = []
    # Batches weigh alike in the mean, so that none may be a small rest.
    for part in np.array_split(drawn, max(1, -(-len(drawn) // BATCH))):
        batch = batches[part.tolist()]
        if not bool(batch["readable"].all()):
            row = int(part[int((~batch["readable"]).int().argmax())])
            raise UserError(f"{source.root / source.paths[row]}: not readable any more")
        found.append({"pixels": batch["pixels0"]})
    return found


def estimate_statistics(
    model: Classifier,
    batches: Iterable[dict[str, Tensor]],
    chip: torch.device,
    precision: str = "fp32",
    keep: Iterable[str] = (),
) -> int:
    """Estimate BatchNorm's statistics anew: the plain mean over batches (Izmailov et al. 2018).

    Everything else runs as in evaluation: no dropout, no stochastic depth. The model is changed in
    place, but for the layers to `keep`, and in eval mode afterwards. Returns how many layers were
    estimated; no batch is read where there is none.
    """
    kept = set(keep)
    layers = [layer for name, layer in layers_of(model.net).items() if name not in kept]
    model.eval()
    if not layers:
        return 0
    for layer in layers:
        layer.train()
    try:
        fill_statistics(model, layers, batches, chip, precision)
    finally:
        model.eval()
    return len(layers)
