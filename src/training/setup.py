"""What a run begins with: a model with weights, what computes on it, and how much at once."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler

from src import paths
from src.compute import device, ranks
from src.compute.device import compile_model
from src.compute.memory import micro_batch
from src.compute.request import default_workers
from src.compute.whole_batch import share_statistics
from src.config import ModelConfig
from src.data.batches.augment import check_augment, read_augment
from src.data.batches.hard_reals import HardReals
from src.data.batches.made import Masked, PseudoFakes
from src.data.batches.samplers import SAMPLERS, EpochPool, EpochSampler
from src.data.items.shard_index import places_of
from src.data.pixels.landmarks import Landmarks
from src.data.pixels.masks import MaskReader
from src.data.pixels.source import PixelSource
from src.data.pixels.video_decoders import DECODERS
from src.ensemble.pooling import POOLING
from src.errors import UserError
from src.inference.lineage import origin_of
from src.losses import LOSSES
from src.models.backbones import check_backbone
from src.models.checkpoint import is_ours
from src.models.classifier import Classifier, build_classifier, count_parameters
from src.models.packages import package_for
from src.models.prefix import check_cut
from src.models.strategies import STRATEGIES, make_stages
from src.models.weights import Start, carry_input, start_weights
from src.seeds import derive_seed
from src.training.auxiliary import Auxiliary
from src.training.auxiliary.distil import Distillation
from src.training.auxiliary.language import Guidance, check_zero_shot, text_file
from src.training.auxiliary.localisation import Localisation
from src.training.auxiliary.simclr import SimCLR
from src.training.auxiliary.teachers import find_teachers
from src.training.job import Job
from src.training.optim import OPTIMIZERS, SCHEDULES
from src.training.run import Run
from src.training.step import check_step

LOG = logging.getLogger("rvf")
MOST_NAMED = 12  # weights, in a line of the log
SMALL = 3 * 64 * 64  # bytes of an item; a batch of such is copied faster than it is handed over


def check_names(config: ModelConfig) -> None:
    """Raise for a name that no registry knows, before anything is computed."""
    check_backbone(config.backbone.name)
    if config.backbone.pretrained == "package":
        package_for(config.backbone.name)
    check_augment(config.augment, config.input.geometry)
    HardReals.of(config.augment_real)
    if config.wants_views:
        check_augment(config.view_augment, config.input.geometry)
    LOSSES.get(config.loss.name)
    STRATEGIES.get(config.strategy)
    OPTIMIZERS.get(config.optim.name)
    SCHEDULES.get(config.optim.schedule)
    SAMPLERS.get(config.sampler)
    POOLING.get(config.frames.pool)
    DECODERS.get(config.frames.decoder)


def build_model(
    job: Job, state: dict[str, Any] | None
) -> tuple[Classifier, Start, tuple[str, ...]]:
    """Return the job's model, where its weights come from, and the names of its head's layers.

    The state of a half-done run holds all weights and is taken over later; where they came from
    need not be in reach.

    Raises:
        UserError: the weights are out of reach or do not fit.
    """
    torch.manual_seed(derive_seed(job.config.start_seed, "init", job.fold))
    model, native = build_classifier(job.config)
    if state is not None:
        start = Start(**state["start"])
    else:
        given = job.options.weights
        start = start_weights(model.net, job.config, native.head, given, job.options.no_pretrained)
        if given is not None:
            origin = origin_of(given, start.sha256, ours=is_ours(given))
            start = replace(start, origin=origin)
    carry_input(model, job.config, start)
    if job.config.strategy == "zero_shot":
        check_zero_shot(model.net, start)
    return model, start, native.head


def log_start(job: Job, start: Start, model: Classifier, chip: torch.device) -> None:
    """Say what is trained, where, and what it starts from."""
    millions = count_parameters(model) / 1e6
    LOG.info("%s: %.2f M weights on %s", job.title, millions, device.device_name(chip))
    if start.source == "random":
        LOG.info("start: random weights")
        return
    missing, unexpected = _few(start.missing), _few(start.unexpected)
    where = f"{start.source} {start.package}".strip()
    LOG.info(
        "start: %s %s (new: %s; left out: %s)",
        where, start.name, missing or "none", unexpected or "none",
    )  # fmt: skip


def _few(keys: Sequence[str]) -> str:
    """Return names of weights for a line of the log; of many, how many lie in each part."""
    if len(keys) <= MOST_NAMED:
        return ", ".join(keys)
    parts = Counter(key.split(".")[0] for key in keys)
    return ", ".join(f"{count} of {part}" for part, count in parts.items())


def make_auxiliaries(job: Job, model: Classifier, chip: torch.device) -> list[Auxiliary]:
    """Return the losses of a job that bring weights of their own along, on the device.

    Raises:
        UserError: see `find_teachers`, `Distillation`, `Guidance` and `Localisation`.
    """
    found: list[Auxiliary] = []
    config, options = job.config, job.options
    torch.manual_seed(derive_seed(job.config.start_seed, "auxiliary", job.fold))
    if job.config.distil is not None:
        found.append(Distillation(job, find_teachers(job), model, chip))
    if config.language is not None:
        path = text_file(config.language, options.weights, at_random=options.no_pretrained)
        found.append(Guidance(config.language, model, path))
    if config.simclr is not None:
        found.append(SimCLR(config.simclr, model, job.model))
    if config.localise is not None:
        found.append(Localisation(config.localise, model, job.model))
    return [one.to(chip) for one in found]


def make_run(
    job: Job,
    model: Classifier,
    head: tuple[str, ...],
    chip: torch.device,
    precision: str,
    auxiliaries: Sequence[Auxiliary] = (),
) -> tuple[Run, EpochSampler]:
    """Return the model with its stages on the device, no stage entered yet, and its batches' rows.

    Raises:
        UserError: the strategy does not fit the net, a batch does not fit the fold, or a step is
            asked for that this machine or these options cannot make.
    """
    config, options = job.config, job.options
    sampler = EpochSampler(epoch_pool(job), config.sampler, derive_seed(config.seed, job.fold))
    stages = make_stages(model.net, head, config)
    for stage in stages:
        if stage.cut:
            check_cut(model, stage.cut, config.backbone.name)
    model.to(device=chip, memory_format=torch.channels_last)  # type: ignore[call-overload]
    scaler = GradScaler(chip.type, enabled=precision == "fp16")
    modules = nn.ModuleList(auxiliaries)
    run = Run(job, model, head, stages, precision, scaler, len(sampler), auxiliaries=modules)
    pixels = any(stage.features != "cached" for stage in stages)
    if pixels and options.auto_batch:
        run.micro_batch = _fitting_batch(run, chip)
    for net in (model, modules):  # after what each rank tries for itself, before it is compiled
        share_statistics(net)
    if not pixels:
        return run, sampler
    check_step(config, precision, run.micro_batch, compiled=options.compile)
    if options.compile:
        LOG.info("--compile: this takes minutes; predictions of record are made without it")
        with device.untouched(model):
            compile_model(model, chip, precision, job.model, backward=True)
    return run, sampler


def epoch_pool(job: Job) -> EpochPool:
    """Return what the epochs of a job are drawn from.

    With `blend` each real row has a twin, numbered by the items that there are beyond it: a blend
    of it, and a fake. `paired` then puts these two side by side.
    """
    config, rows = job.config, job.train_rows
    labels, paired = job.labels[rows], config.sampler == "paired"
    groups = job.group_numbers[rows] if paired and config.blend is None else None
    if config.blend is not None:
        reals = rows[labels == 0]
        rows = np.concatenate([rows if config.blend.fakes else reals, reals + len(job.table)])
        labels = np.append(job.labels, np.ones(len(job.table), np.int64))[rows]
        groups = rows % len(job.table) if paired else None
    places = None
    if config.sampler == "shards":
        places = places_of(job.table["path"])[rows % len(job.table)]
    return EpochPool(rows, labels, config.optim.batch_size, config.per_class, groups, places)


def make_pseudo_fakes(job: Job, source: PixelSource, canvas: int) -> PseudoFakes | None:
    """Return what blends the real faces of a job, their landmarks found; None without `blend`.

    Raises:
        UserError: no real item shows a face; the package of the landmarks is not installed.
    """
    if job.config.blend is None:
        return None
    reals = job.train_rows[job.labels[job.train_rows] == 0].tolist()
    found = Landmarks(paths.landmarks(job.dataset))
    lost = found.find(source, reals, canvas)
    names = job.table["item_id"].iloc[lost[:3]].tolist()
    if len(lost) == len(reals):
        raise UserError(
            f"blend: none of the {len(reals)} real training items shows a face as this model sees "
            f"it (such as {names[0]}), and pseudo-fakes are made of faces: leave blend out (null), "
            "or look with python -m src data --preview MODEL"
        )
    aside = len(job.train_rows) - len(reals)
    LOG.info(
        "blend: %d reals and a blend of each, new in every epoch; the data set's %d fakes %s",
        len(reals), aside, "are trained on too" if job.config.blend.fakes else "are left aside",
    )  # fmt: skip
    if lost:
        LOG.warning(
            "blend: %d of %d real items show no face and take part unblended: %s%s",
            len(lost), len(reals), ", ".join(names), " ..." if len(lost) > len(names) else "",
        )  # fmt: skip
    return PseudoFakes(job.config.blend, found)


def make_masks(job: Job, source: PixelSource, canvas: int) -> Masked | None:
    """Return what says where a job's items were manipulated; None where no loss asks.

    Raises:
        UserError: nobody knows where: no fake has a mask, and none is made.
    """
    blend, size = job.config.blend, source.canvases[canvas].size
    if not job.config.wants_masks:
        return None
    if blend is not None and not blend.fakes:  # of the data set's own fakes none is seen
        return Masked(size)
    reader = MaskReader(source, job.mask_paths)
    reader.preload(job.labels)
    fakes = job.train_rows[job.labels[job.train_rows] == 1].tolist()
    known = sum(reader.read(row, canvas) is not None for row in fakes)
    if not known and blend is None:
        raise UserError(
            f"localise: none of the {len(fakes)} fakes that are trained on has a mask that can be "
            "used, so there is nothing to learn from: put masks beside the items "
            "(docs/localisation.md), or take blend: {fakes: true}, whose masks are exact"
        )
    LOG.info("masks: of %d of %d fakes that are trained on", known, len(fakes))
    return Masked(size, reader, canvas)


def _fitting_batch(run: Run, chip: torch.device) -> int:
    """Return how many images of a batch are computed at once; 0 for the whole batch.

    Of several ranks, of the part of a batch that is one's own; the card that holds least decides.
    """
    whole = -(-run.job.config.optim.batch_size // ranks.count())
    if chip.type != "cuda":
        LOG.info("--auto-batch: no GPU here, batches of %d are trained whole", whole)
        return 0
    with device.untouched(run.model):
        size = micro_batch(run.model, run.model.spec.image_size, whole, chip, run.precision)
    size = min(ranks.gathered(size))
    if size == whole:
        LOG.info("--auto-batch: batches of %d fit whole", whole)
        return 0
    LOG.info(
        "--auto-batch: batches of %d in pieces of %d, whose gradients add up to the batch's; only "
        "BatchNorm sees the pieces",
        whole, size,
    )  # fmt: skip
    return size


def class_weights(config: ModelConfig, labels: np.ndarray) -> tuple[float, float]:
    """Return the loss weight of real and of fake, by `loss.class_weights` and the training rows."""
    wanted = config.loss.class_weights
    if wanted == "none":
        return 1.0, 1.0
    if wanted == "balanced":
        real, fake = np.bincount(labels, minlength=2)
        return len(labels) / (2 * real), len(labels) / (2 * fake)
    return float(wanted[0]), float(wanted[1])


def loader_workers(
    wanted: int | None, source: PixelSource, config: ModelConfig, device: torch.device
) -> tuple[int, int]:
    """Return how many processes load training batches, and how many load evaluation batches.

    Where pixels are kept, loading them is a copy; and a CPU that trains has no core to spare for
    what is nearly free.
    """
    if wanted is not None:
        return wanted, wanted
    if not source.is_kept:
        return default_workers(), default_workers()
    if device.type == "cpu":
        return 0, 0
    if not read_augment(config.augment).of_batches:
        return default_workers(), 0
    small = source.nbytes <= SMALL * len(source)
    return (0 if small else min(2, default_workers())), 0
