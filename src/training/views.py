"""Augmented views of the items as the frozen first blocks of a net see them, kept for all folds."""

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from src import paths
from src.artifacts.atomic import file_lock
from src.compute import ranks
from src.compute.device import eagerly
from src.compute.request import Compute
from src.data.batches.hard_reals import HardReals
from src.data.batches.loader import TrainBatches, make_loader
from src.data.batches.on_device import DeviceBatches
from src.data.batches.samplers import BatchKey, EpochSampler
from src.data.batches.share import Share
from src.data.pixels.source import PixelSource
from src.errors import UserError
from src.models.classifier import Classifier
from src.models.prefix import prefix_state
from src.progress import track
from src.seeds import derive_seed
from src.training.features import Body, growing, is_whole, key_of, npy_header
from src.training.job import Job

LOG = logging.getLogger("rvf")
View = NDArray[np.float16]
_KIND = torch.float16  # half the room; activations of ten to a thousandth of what it can hold


class PrefixViews:
    """The views of a job's items by the first blocks of its net, made when they are asked for.

    A view is what enters the cut from an augmented look at every item of the data set: float16
    (n_items, ...), channels last where it is a map. It depends on the seed, the augmentation and
    the weights before the cut alone, so that all folds and all models behind one prefix share it;
    an interrupted view goes on where it stopped.

    Args:
        job: whose items.
        model: whose first blocks look.
        cut: path of the first module behind them.
        source: of pixels.
        compute: where, how exactly, by how many workers.
    """

    def __init__(
        self, job: Job, model: Classifier, cut: str, source: PixelSource, compute: Compute
    ) -> None:
        self.job, self.model, self.source, self.compute = job, model, source, compute
        self.body = Body(model, cut, compute)
        self.seed = derive_seed(job.config.seed, "views")
        words = [cut, job.config.augment, self.seed]
        words += [] if job.config.augment_real is None else [job.config.augment_real]
        weights = prefix_state(model.net, cut)
        self.folder = paths.prefix_views(
            job.dataset, key_of(job, model, weights, source, compute, words)
        )

    def __getitem__(self, number: int) -> View:
        """Return a view, mapped from the disk.

        Raises:
            UserError: it has numbers that float16 cannot hold; an item cannot be decoded; the disk
                is full.
        """
        path = self.folder / f"view_{number:03d}.npy"
        with ExitStack() as stack:
            lock = file_lock(self.folder / "lock", "the views", wait=True)
            ranks.led(lambda: stack.enter_context(lock))
            if not ranks.led(lambda: is_whole(path)):
                self._make(path, number)
            ranks.led(lambda: None)  # it is in its place
        return np.load(path, mmap_mode="r")

    def _make(self, path: Path, number: int) -> None:
        config, size, chip = self.job.config, self.model.spec.image_size, self.compute.chip
        batch_size = self.compute.batch_size
        rows = np.arange(len(self.job.table))
        parts = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
        keys = [BatchKey(number, place, tuple(map(int, part))) for place, part in enumerate(parts)]
        shape = self._shape()
        ends = np.cumsum([len(part) for part in parts]) * _KIND.itemsize * int(np.prod(shape))
        pixels = TrainBatches(self.source, self.job.labels, config.augment, size, self.seed)
        pixels.reals = HardReals.of(config.augment_real)
        began = time.monotonic()
        header = npy_header((len(rows), *shape), f"<f{_KIND.itemsize}")
        with growing(path, header, ends.tolist(), reserve=True) as (done, add), eagerly():
            left = keys[done:]
            mine, processes = left[ranks.rank() :: ranks.count()], self.compute.processes(len(rows))
            loader = make_loader(pixels, mine, processes, pin=chip.type == "cuda")
            batches = DeviceBatches(loader, config.augment, size, chip)
            looked = (self._look(batch).tobytes() for batch in batches)
            seen = ranks.in_turns(looked, len(left))
            for view in track(seen, f"view {number + 1}", total=len(left), unit="batch"):
                add(view)
        if not ranks.leads():
            return
        taken = max(time.monotonic() - began, 1e-9)
        count = sum(len(key.rows) for key in left)
        LOG.info(
            "view %d: %d items in %.0f s, %.0f a second, %.2f GB -> %s",
            number + 1, count, taken, count / taken, path.stat().st_size / 1e9, path,
        )  # fmt: skip

    def _look(self, batch: dict[str, Tensor]) -> View:
        seen = _channels_last(self.body(batch["pixels"], batch.get("blank"))).to(_KIND)
        if not torch.isfinite(seen).all():
            raise UserError(
                f"strategy frozen_prefix: {self.job.model} gives numbers before its cut that "
                "float16 cannot hold; take transfer.cache_features: false"
            )
        return seen.contiguous().cpu().numpy()

    def _shape(self) -> tuple[int, ...]:
        return tuple(_channels_last(torch.empty(1, *self.body.shape())).shape[1:])


class ViewBatches:
    """Training batches of the latest views, of which each batch draws one for each of its items.

    Args:
        views: made as they are needed.
        labels: 0/1 by row.
        sampler: which rows.
        seed: of the draw.
    """

    def __init__(
        self, views: PrefixViews, labels: NDArray[np.int64], sampler: EpochSampler, seed: int
    ) -> None:
        self.views, self.labels, self.sampler, self.seed = views, labels, sampler, seed
        self.kept: dict[int, View] = {}
        self.share = Share()

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """Yield `features` float16 (n, ...) or (n, c, h, w), `label` and `item` int64 (n,).

        Raises:
            UserError: a view cannot be made (`PrefixViews`), or was damaged since.
        """
        numbers = self.window(self.sampler.epoch)
        self.kept = {k: self.kept[k] if k in self.kept else self.views[k] for k in numbers}
        for key in self.sampler:
            own = self.share.of(len(key.rows))
            rows = np.array(key.rows[own])
            rng = np.random.default_rng(derive_seed(self.seed, "view", key.epoch, key.number))
            drawn = rng.choice(numbers, len(key.rows))[own]
            pairs = zip(drawn.tolist(), rows.tolist(), strict=True)
            features = torch.from_numpy(np.stack([self.kept[view][row] for view, row in pairs]))
            if not torch.isfinite(features).all():
                raise UserError(
                    f"{self.views.folder}: its views are damaged; delete that folder, and the same "
                    "command makes them again"
                )
            yield {
                "features": features.permute(0, 3, 1, 2) if features.ndim == 4 else features,
                "label": torch.from_numpy(self.labels[rows]),
                "item": torch.from_numpy(rows),
            }

    def window(self, epoch: int) -> list[int]:
        """Return the numbers of the views that an epoch, counted from 0, draws from."""
        wanted = self.views.job.config.transfer
        last = epoch // wanted.renew_views
        return list(range(max(0, last - wanted.views + 1), last + 1))


def _channels_last(seen: Tensor) -> Tensor:
    return seen.permute(0, 2, 3, 1) if seen.ndim == 4 else seen
