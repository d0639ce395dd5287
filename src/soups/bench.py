"""Where merges are tried: weights into a net, BatchNorm settled, held-out rows predicted."""

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from src import paths
from src.compute import device
from src.compute.request import Compute, default_workers
from src.data.pixels.source import Canvas, PixelSource
from src.inference.predict import predict_items
from src.merging.depth import Depth, DepthByName
from src.merging.merger import merge_tensors
from src.merging.recipe import Ingredient as Part
from src.merging.recipe import MergeRecipe
from src.merging.streaming import merge_files
from src.models.anatomy import anatomy_of
from src.models.backbones import build_backbone
from src.models.classifier import Classifier
from src.soups.batchnorm import (
    estimate_statistics,
    has_batchnorm,
    shared_layers,
    take_statistics,
    training_batches,
    twins_of,
)
from src.soups.ingredients import Ingredient
from src.tensor_files import read_tensors
from src.training.finish import check_logits
from src.training.job import Job

LOG = logging.getLogger("rvf")
FloatArray = NDArray[np.float64]


class Bench:
    """A net that takes one merge after the other, and the rows on which they are tried.

    Args:
        job: the merge as a run: its name, the first ingredient's config, the fold.
        ingredients: by their names in the recipes.
        batchnorm: training items that BatchNorm is estimated on; 0 keeps what was merged.
    """

    def __init__(self, job: Job, ingredients: Mapping[str, Ingredient], batchnorm: int) -> None:
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
        files, canvases = job.table["path"].tolist(), [Canvas.of(spec)]
        self.source = PixelSource(job.root, files, canvases, frames=spec.frames)
        self.source.preload(paths.pixel_cache(job.dataset), job.options.cache)
        self.batchnorm = batchnorm if has_batchnorm(net) else 0
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
    def groups(self) -> NDArray[np.int64]:
        """Return the groups of the held-out rows as codes; a row without one is its own."""
        names = self.job.groups[self.job.held_rows].astype(object)
        ids = self.job.table["item_id"].to_numpy()[self.job.held_rows]
        return np.unique(np.where(names == "", ids, names).astype(str), return_inverse=True)[1]

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

        Args:
            recipe: of names that `files` knows.
            batches: BatchNorm is estimated on the first so many; None takes all.
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
        """Merge tensor by tensor from the files, and put the result into the net.

        A file that an interrupted command has left there whole is not merged again.

        Args:
            recipe: of names that `files` knows.
            part: where the merged weights are written; may be deleted afterwards.
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
        files = [self.files[name] for name in recipe.sources]
        twins = twins_of(self.model.net, tensors, files)
        if twins:  # that model itself: new statistics would make another one of it
            take_statistics(self.model.net, twins[0])
        keep = shared_layers(self.model.net, twins or files)
        estimate_statistics(
            self.model, self.batches[:batches], self.chip, self.compute.precision, keep
        )

    def predict(self, rows: NDArray[np.int64] | None = None, what: str = "") -> FloatArray:
        """Return the net's logits, the mean over its views.

        Args:
            rows: row numbers; None takes the held-out ones.
            what: shown as progress.

        Returns:
            (n,) float64.

        Raises:
            UserError: an item cannot be decoded, or a logit is not finite.
        """
        wanted = self.job.held_rows if rows is None else rows
        seen = predict_items(self.model, self.views, self.source, wanted, self.compute, what=what)
        if rows is None:
            check_logits(self.job, seen)
        return seen.pooled(self.model.spec.frames.pool)


def depth_of(net: nn.Module, head: tuple[str, ...]) -> Depth | None:
    """Return the depth of a net's tensors by its blocks, where their names do not tell it.

    None where they do: `DepthByName` is right then.
    """
    names = list(net.state_dict())
    by_name = DepthByName(names)
    if len({by_name(name) for name in names}) > 2:
        return None
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
