"""What a run begins with: a model with weights, what computes on it, and how much at once.

How many processes load pixels.
"""

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.amp.grad_scaler import GradScaler

from src.compute import device
from src.compute.compiled import compile_model
from src.compute.pieces import micro_batch
from src.config import ModelConfig
from src.data.batches.augment import check_augment, takes_batches
from src.data.batches.samplers import SAMPLERS, EpochSampler, Pool
from src.data.pixels.source import PixelSource
from src.data.pixels.video_decoders import DECODERS
from src.ensemble.pooling import POOLING
from src.inference.lineage import origin_of
from src.inference.predict import default_workers
from src.models.backbones import check_backbone
from src.models.checkpoint import is_ours
from src.models.classifier import Classifier, build_classifier, count_parameters
from src.models.detector import carry_input
from src.models.losses import LOSSES
from src.models.strategies import STRATEGIES, make_stages
from src.models.weights import Start, start_weights
from src.seeds import derive_seed
from src.training.job import Job
from src.training.optim import OPTIMIZERS
from src.training.run import Run
from src.training.schedules import SCHEDULES
from src.training.step import check_step

LOG = logging.getLogger("rvf")


def check_names(config: ModelConfig) -> None:
    """Raise for a name that no registry knows, before anything is computed."""
    check_backbone(config.backbone.name)
    check_augment(config.augment, config.input.geometry)
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

    Args:
        job: the run.
        state: of a half-done run, whose weights are taken over later.

    Raises:
        UserError: the weights are out of reach or do not fit.
    """
    model, native = build_classifier(job.config)
    if state is not None:  # it holds all weights; where they came from need not be in reach
        start = Start(**state["start"])
        carry_input(model, job.config, start)
        return model, start, native.head
    options = job.options
    start = start_weights(
        model.net, job.config, native.head, options.weights, options.no_pretrained
    )
    if options.weights is not None:
        start = replace(
            start, origin=origin_of(options.weights, start.sha256, ours=is_ours(options.weights))
        )
    carry_input(model, job.config, start)
    return model, start, native.head


def choose_precision(job: Job, model: Classifier, chip: torch.device) -> str:
    """Return the precision to train in."""
    backbone, batch_size = job.config.backbone, job.config.optim.batch_size
    return device.training_precision(job.options.precision, chip, model, backbone, batch_size)


def log_start(what: str, start: Start, model: Classifier, chip: torch.device) -> None:
    """Say what is trained, where, and what it starts from."""
    millions = count_parameters(model) / 1e6
    LOG.info("%s: %.2f M weights on %s", what, millions, device.device_name(chip))
    if start.source == "random":
        LOG.info("start: random weights")
    else:
        LOG.info(
            "start: %s %s (new: %s; left out: %s)",
            start.source,
            start.name,
            ", ".join(start.missing) or "none",
            ", ".join(start.unexpected) or "none",
        )


def make_run(
    job: Job, model: Classifier, head: tuple[str, ...], chip: torch.device, precision: str
) -> Run:
    """Return the model with its stages and its scaler, on the device; no stage is entered yet.

    Raises:
        UserError: the strategy does not fit the net, a batch does not fit the fold, or a step is
            asked for that this machine or these options cannot make.
    """
    make_sampler(job)  # made again when it is needed: what it refuses is refused at once
    stages = make_stages(model.net, head, job.config)
    model.to(device=chip, memory_format=torch.channels_last)  # type: ignore[call-overload]
    scaler = GradScaler(chip.type, enabled=precision == "fp16")
    run = Run(model, scaler, precision, stages, head)
    if all(stage.cached for stage in stages):
        return run
    if job.options.auto_batch:
        run.micro_batch = _fitting_batch(job, run, chip)
    check_step(job.config, precision, run.micro_batch, compiled=job.options.compile)
    if job.options.compile:
        LOG.info("--compile: this takes minutes; predictions of record are made without it")
        with device.untouched(model):
            compile_model(model, chip, precision, job.model, backward=True)
    return run


def make_sampler(job: Job) -> EpochSampler:
    """Return what draws the batches of every epoch."""
    rows, config = job.train_rows, job.config
    groups = job.groups[rows] if config.sampler == "paired" else None
    pool = Pool(rows, job.labels[rows], config.optim.batch_size, config.per_class, groups)
    return EpochSampler(pool, config.sampler, derive_seed(config.seed, job.fold))


def class_weights(config: ModelConfig, labels: np.ndarray) -> tuple[float, float]:
    """Return the loss weight of real and of fake.

    Args:
        config: `loss.class_weights`.
        labels: 0/1 of the training rows.
    """
    wanted = config.loss.class_weights
    if wanted == "none":
        return 1.0, 1.0
    if wanted == "balanced":
        real, fake = np.bincount(labels, minlength=2)
        return len(labels) / (2 * real), len(labels) / (2 * fake)
    return float(wanted[0]), float(wanted[1])


def _fitting_batch(job: Job, run: Run, chip: torch.device) -> int:
    """Return how many images of a batch are computed at once; 0 for the whole batch."""
    whole = job.config.optim.batch_size
    if chip.type != "cuda":
        LOG.info("--auto-batch: no GPU here, batches of %d are trained whole", whole)
        return 0
    with device.untouched(run.model):
        size = micro_batch(run.model, run.model.spec.image_size, whole, chip, run.precision)
    if size == whole:
        LOG.info("--auto-batch: batches of %d fit whole", whole)
        return 0
    LOG.info(
        "--auto-batch: batches of %d in pieces of %d, whose gradients add up to the batch's; only "
        "BatchNorm sees the pieces",
        whole, size,
    )  # fmt: skip
    return size


SMALL = 3 * 64 * 64  # bytes of an item; a batch of such is copied faster than it is handed over


def loader_workers(
    wanted: int | None, source: PixelSource, config: ModelConfig, device: torch.device
) -> tuple[int, int]:
    """Return how many processes load training batches, and how many load evaluation batches.

    Args:
        wanted: as `--workers`; None chooses.
        source: pixels; where they are kept, loading them is a copy.
        config: the model, whose augmentation may work on single images.
        device: where it is trained; a CPU has no core to spare for what is nearly free.
    """
    if wanted is not None:
        return wanted, wanted
    if not source.is_kept:
        return default_workers(), default_workers()
    if device.type == "cpu":
        return 0, 0
    if not takes_batches(config.augment):
        return default_workers(), 0
    small = source.nbytes <= SMALL * len(source)
    return (0 if small else min(2, default_workers())), 0
