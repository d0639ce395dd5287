"""What a frozen backbone sees in the items: computed once, kept on disk, shared by all folds.

Or of every augmented batch anew.
"""

import copy
import hashlib
import io
import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from src import paths
from src.artifacts.atomic import GrowingFile, file_lock
from src.compute import device, ranks
from src.compute.device import eagerly
from src.compute.request import Compute
from src.data.batches.loader import EvalBatches, draw_frames, make_loader
from src.data.batches.samplers import BatchKey, EpochSampler
from src.data.batches.share import Share
from src.data.folds.clusters import FrozenFeatures
from src.data.pixels.cache import identity
from src.data.pixels.frames import FrameNumbers, FrameRows
from src.data.pixels.source import Canvas, PixelSource
from src.inference.engines import fused
from src.inference.predict import VIEWS, Seen, parts_of, view_pixels
from src.models.anatomy import anatomy_of
from src.models.classifier import Classifier
from src.models.prefix import entering_at
from src.progress import track
from src.seeds import derive_seed
from src.training.auxiliary import at_size
from src.training.job import Job

LOG = logging.getLogger("rvf")
Features = NDArray[np.float32]
Batch = dict[str, Tensor]


class FeatureBatches:
    """Training batches of features, in place of pixels.

    Args:
        features: float32 (n_slots, n_views, ...), NaN for a slot that its clip does not have.
        labels: 0/1 by row.
        sampler: which rows.
        seed: of the draw of a view.
        numbers: of the items' slots.
    """

    def __init__(
        self,
        features: Features,
        labels: NDArray[np.int64],
        sampler: EpochSampler,
        seed: int,
        numbers: FrameNumbers,
    ) -> None:
        self.features, self.labels, self.sampler = features, labels, sampler
        self.seed, self.numbers = seed, numbers
        self.share = Share()
        self.held = None  # slots of each item, int64 (n_items,), where there are clips
        if numbers.has_clips:
            there = np.isfinite(features.reshape(len(features), -1)[:, 0]).astype(np.int64)
            self.held = np.add.reduceat(there, numbers.slot_starts[:-1])

    def __iter__(self) -> Iterator[Batch]:
        """Yield `features` float32 (n, ...), `label` int64 (n,), `item` int64 (n,)."""
        for key in self.sampler:
            own = self.share.of(len(key.rows))
            rng = np.random.default_rng(derive_seed(self.seed, "view", key.epoch, key.number))
            views = rng.integers(self.features.shape[1], size=len(key.rows))[own]
            slots, rows = self._slots(key)[own], np.array(key.rows[own])
            yield {
                "features": torch.from_numpy(self.features[slots, views]),
                "label": torch.from_numpy(self.labels[rows]),
                "item": torch.from_numpy(rows),
            }

    def _slots(self, key: BatchKey) -> NDArray[np.int64]:
        """Return the slots of a batch's items, of a clip one that is drawn."""
        rows = np.array(key.rows)
        if self.held is None:
            return rows
        found = self.numbers.slot_starts[rows]
        for place, draw in enumerate(draw_frames(self.seed, key)):
            if self.numbers.is_clip[rows[place]]:
                slots = self.numbers.train_slots(int(self.held[rows[place]]))
                found[place] += slots[int(draw * len(slots))]
        return found

    def predict(
        self, probe: nn.Module, items: NDArray[np.int64], chip: torch.device, views: int = 1
    ) -> Seen:
        """Return what the head says of the first views of items, all evaluation frames of each."""
        rows, frames = self._eval_rows(items)
        probe.eval()
        logits = []
        with torch.inference_mode():
            for part in np.array_split(rows, max(1, len(rows) // 4096)):
                features = torch.from_numpy(self.features[part, :views]).to(chip).flatten(0, 1)
                logits.append(probe({"features": features})["logit"].double().cpu())
        logits = torch.cat(logits).numpy().reshape(len(rows), views)
        return Seen(frames, logits, np.ones(len(rows), bool), len(items))

    def _eval_rows(self, items: NDArray[np.int64]) -> tuple[NDArray[np.int64], FrameRows]:
        """Return the slots that evaluation looks at, (n,), and which frames of which item."""
        frames = self.numbers.eval_rows(items)
        if self.held is None:
            return items, frames
        slots = [self.numbers.eval_slots(int(self.held[item])) for item in items]
        there = frames.frame < np.array([len(one) for one in slots])[frames.place]
        frames = FrameRows(*(column[there] for column in frames))
        starts = self.numbers.slot_starts[items]
        return np.concatenate([s + one for s, one in zip(starts, slots, strict=True)]), frames


class AugmentedFeatures:
    """Training batches of what a frozen backbone sees in augmented pixels.

    Args:
        batches: of pixels, as a `Classifier` takes them.
        model: whose backbone it is; a copy looks, since dropout before its head is at work.
        head: names of the classifier layers of its net.
        compute: where, and how exactly.
    """

    def __init__(
        self, batches: Iterable[Batch], model: Classifier, head: tuple[str, ...], compute: Compute
    ) -> None:
        self.batches, self.body = batches, Body(copy.deepcopy(model), head[0], compute)

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches with `features` float32 (n, ...) in place of pixels."""
        for wide in self.batches:  # a later stage's teacher may see more pixels
            batch = at_size(wide, self.body.model.spec.image_size)
            kept = {key: batch[key] for key in ("label", "item")}
            # Made without a gradient; the head's needs a tensor that may take part in one.
            features = self.body(batch["pixels"], batch.get("blank"))
            yield {"features": features.clone(), **kept}


def cached_features(
    job: Job, model: Classifier, head: tuple[str, ...], source: PixelSource, compute: Compute
) -> Features:
    """Return the features of all slots of a job's items, of the views its config predicts with.

    They are mapped from the cache (see `FeatureBatches`), where this backbone, with these weights,
    has seen these items before; an interrupted extraction goes on where it stopped. `head` names
    the classifier layers of the model's net.

    Raises:
        UserError: an item cannot be decoded.
    """
    in_head = anatomy_of(model.net, head).head
    weights = {name: w for name, w in model.net.state_dict().items() if name not in in_head}
    pooled = job.config.head
    words = [VIEWS[job.config.tta], pooled.pool, pooled.registers]
    path = paths.feature_cache(job.dataset, key_of(job, model, weights, source, compute, words))
    with ExitStack() as stack:
        lock = file_lock(path.with_suffix(".lock"), "the features", wait=True)
        ranks.led(lambda: stack.enter_context(lock))
        if not ranks.led(lambda: is_whole(path)):
            _extract(path, Body(model, head[0], compute), source, VIEWS[job.config.tta])
        ranks.led(lambda: None)  # it is in its place
    features = np.load(path, mmap_mode="r")
    LOG.info("features: %s of %s -> %s", "x".join(map(str, features.shape)), job.model, path)
    return features


def item_features(job: Job) -> FrozenFeatures:
    """Return what a frozen backbone says of each item of a job.

    (n, d): the mean over an item's views and frames of `cached_features`, in the job's precision,
    so that a run of strategy `feature_extractor` on the same items finds them made, and this
    function finds those of such a run. d is that of what enters the classifier, tokens or places of
    a map averaged.

    Raises:
        UserError: the weights are out of reach or do not fit; an item cannot be decoded.
    """
    from src.training import setup  # which asks every strategy; a run has loaded it

    config, options, chip = job.config, job.options, job.options.chip
    device.set_deterministic(chip)
    model, start, head = setup.build_model(job, None)
    batch_size = config.optim.batch_size
    asked = options.precision
    precision = device.training_precision(asked, chip, model, config.backbone, batch_size)
    model.to(device=chip, memory_format=torch.channels_last)  # type: ignore[call-overload]
    files, canvas = job.table["path"], Canvas.of(model.spec)
    source = PixelSource(job.root, files, [canvas], frames=config.frames, stamps=job.stamps)
    if source.numbers.has_clips:
        source.preload(paths.pixel_cache(job.dataset), options.cache)
    _, decoders = setup.loader_workers(options.workers, source, config, chip)
    compute = Compute(options.device, precision, decoders, batch_size=2 * batch_size)
    slots = cached_features(job, model, head, source, compute)
    means = _item_means(slots, source.numbers.slot_starts)
    return FrozenFeatures(means, job.model, start.sha256)


def _item_means(slots: Features, starts: NDArray[np.int64], at_once: int = 4096) -> Features:
    """Return the mean of an item's slots (NaN where its clip has none) and views, (n, d)."""
    # A head takes (slots, views, d), or tokens before the d, or places of a map after it.
    across = {4: (1, 2), 5: (1, 3, 4)}.get(slots.ndim, 1)
    means = np.empty((len(starts) - 1, slots.shape[3 if slots.ndim == 4 else 2]), np.float32)
    for first in range(0, len(means), at_once):
        bounds = starts[first : first + at_once + 1]
        seen = slots[bounds[0] : bounds[-1]].astype(np.float64).mean(across)
        there = np.isfinite(seen[:, 0])
        total = np.add.reduceat(np.where(there[:, None], seen, 0.0), bounds[:-1] - bounds[0])
        counts = np.add.reduceat(there.astype(np.int64), bounds[:-1] - bounds[0])
        means[first : first + at_once] = total / counts[:, None]
    return means


class Body:
    """What enters a module of a net in evaluation mode; on a CPU by a faster copy of it.

    Args:
        model: is put into evaluation mode.
        cut: path of the module: the classifier, or the first of a part that is trained.
        compute: where, and how exactly.
    """

    def __init__(self, model: Classifier, cut: str, compute: Compute) -> None:
        self.model, self.cut, self.compute = model.eval(), cut, compute
        if compute.chip.type == "cpu":
            plain = compute.precision == "bf16"
            net = fused(model.net, model.spec.image_size, plain_attention=plain)
            self.model = Classifier(net, model.spec).eval()

    def __call__(self, pixels: Tensor, blank: Tensor | None = None) -> Tensor:
        """Map pixels on the device (see `Classifier`) to float32 features (n, ...)."""
        with device.autocast(self.compute.chip, self.compute.precision):
            seen = entering_at(self.model.net, self.cut, self.model.normalised(pixels, blank))
        return seen.float()

    def shape(self) -> tuple[int, ...]:
        """Return the shape of an item's features."""
        size = self.model.spec.image_size
        pixels = torch.zeros(1, size, size, 3, dtype=torch.uint8, device=self.compute.chip)
        return tuple(self(pixels).shape[1:])


def is_whole(path: Path) -> bool:
    """Tell whether a file of features is there, and as long as its header says."""
    try:
        np.load(path, mmap_mode="r")
    except FileNotFoundError:
        return False
    except (ValueError, OSError, EOFError):
        LOG.warning("%s is damaged; made again", path)
        return False
    return True


def _extract(path: Path, body: Body, source: PixelSource, views: tuple[str, ...]) -> None:
    """Write the features of one batch after the other; an interrupted extraction goes on."""
    compute, chip = body.compute, body.compute.chip
    source.find_faces()
    source = source.with_every_slot()
    count = int(source.numbers.eval_starts[-1])
    shape = (count, len(views), *body.shape())
    parts = parts_of(source, np.arange(count), compute.batch_size)
    ends = np.cumsum([len(part) for part in parts]) * 4 * int(np.prod(shape[1:]))
    began = time.monotonic()

    def look(batch: Batch) -> bytes:
        _check_readable(source, batch)
        pixels = batch["pixels0"].to(chip, non_blocking=True)
        table = torch.stack([body(view_pixels(pixels, view)) for view in views], 1)
        table = table.cpu().numpy()
        table[~batch["readable"].numpy()] = np.nan
        return table.tobytes()

    with growing(path, npy_header(shape), ends.tolist()) as (done, add), eagerly():
        left = parts[done:]
        batches, mine = EvalBatches(source, [body.model.spec]), left[ranks.rank() :: ranks.count()]
        loader = make_loader(batches, mine, compute.processes(count), pin=chip.type == "cuda")
        seen = ranks.in_turns(map(look, loader), len(left))
        for table in track(seen, "features", total=len(left), unit="batch"):
            add(table)
    taken, looks = time.monotonic() - began, sum(map(len, left)) * len(views)
    LOG.info("features: %d views in %.0f s, %.0f a second", looks, taken, looks / taken)


@contextmanager
def growing(
    path: Path, header: bytes, ends: list[int], *, reserve: bool = False
) -> Iterator[tuple[int, Callable[[bytes], None]]]:
    """Open a growing file, of several ranks on the leading one; see `GrowingFile`.

    Yields how many records it has, and what adds one: nothing is added elsewhere.
    """
    with ExitStack() as stack:

        def begin() -> int:
            nonlocal add
            file = stack.enter_context(GrowingFile(path, header, ends, reserve=reserve))
            add = file.add
            return file.done

        def add(record: bytes) -> None:
            raise ValueError(f"{len(record)} bytes came to a rank that does not write")

        yield ranks.led(begin), lambda record: add(record)


def _check_readable(source: PixelSource, batch: Batch) -> None:
    """Raise a UserError for an item none of whose frames can be decoded."""
    rows, readable = batch["item"].numpy(), batch["readable"].numpy()
    if readable.all():
        return
    items = source.numbers.item_of(rows.tolist())
    starts = source.numbers.eval_starts[items]
    lost = ~readable & (rows == starts)  # a clip has its first frame, or none
    if lost.any():
        source.read_or_stop(int(items[lost.argmax()]))


def npy_header(shape: tuple[int, ...], kind: str = "<f4") -> bytes:
    """Return the first bytes of a .npy file, of float32 where nothing else is said."""
    file = io.BytesIO()
    content = {"descr": kind, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, content)
    return file.getvalue()


def key_of(
    job: Job,
    model: Classifier,
    weights: Mapping[str, Tensor],
    source: PixelSource,
    compute: Compute,
    words: Sequence[Any],
) -> str:
    """Return a name of features; it changes with all that decides them.

    Args:
        job: its items, and the settings of its backbone.
        model: its preprocessing.
        weights: that have seen the items, by name.
        source: of their pixels.
        compute: how exactly they were looked at.
        words: what else decides; as JSON holds it.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    spec = asdict(model.spec)
    if not source.numbers.has_clips:
        del spec["frames"]
    # As of the pixel cache: features of pixels made in another way are not those of its pixels.
    known = [spec, identity(Canvas.of(model.spec)), compute.precision, asdict(job.config.backbone)]
    digest.update(json.dumps([*known, *words]).encode())
    digest.update(source.marks().tobytes())
    return digest.hexdigest()[:16]
