"""Train one model on one fold: `fit_fold` -> `train_one_epoch`; resumable after any epoch."""

import logging
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from src import paths
from src.artifacts.atomic import file_lock
from src.compute import device
from src.compute.memory import advised
from src.config import ModelConfig
from src.data.batches.loader import (
    DeviceBatches,
    TrainBatches,
    make_loader,
)
from src.data.batches.samplers import EpochSampler
from src.data.pixels.source import Canvas, PixelSource
from src.ensemble.extra import refuse_extra_name
from src.inference.frames import Seen, predict_items
from src.inference.predict import Compute
from src.metrics import classification_report
from src.models.adapters import merge_adapters
from src.models.anatomy import Probe
from src.models.weights import Start
from src.progress import track
from src.seeds import derive_seed
from src.training import begin, finish, resume, stages
from src.training.begin import class_weights, loader_workers
from src.training.features import FeatureBatches, cached_features, probe_logits
from src.training.finish import EpochLog
from src.training.job import Job
from src.training.optim import optimizer_mode
from src.training.resume import Keeper
from src.training.run import Run
from src.training.step import backward, optimizer_step

LOG = logging.getLogger("rvf")
WAYS_OUT = (
    "--auto-batch trains the same batch in pieces that fit (on a GPU); or train a variant of its "
    "own name: --set optim.batch_size=... --set optim.accumulate=... --as NAME, or a smaller "
    "input.image_size. The same command goes on after the last finished epoch"
)


def fit_fold(job: Job) -> bool:
    """Train one model on one fold and write its checkpoint, predictions and record.

    Returns:
        False where the run was finished already.

    Raises:
        UserError: a run of other settings lies there, the weights do not fit, the loss is not
            finite, or another process is at work on this fold (`LockedError`).
    """
    what = f"{job.dataset}/{job.scheme}/{job.model} fold {job.fold}"
    begin.check_names(job.config)
    refuse_extra_name(job.dataset, job.scheme, job.model)
    with file_lock(paths.run_lock(*job.names), what):
        wanted = resume.wanted_start(job)
        if resume.is_finished(job, wanted):
            return False
        job.options.clock.check_room(what)
        chip = device.choose_device(job.options.device)
        device.set_deterministic(chip)
        state = resume.read_state(job, wanted)
        torch.manual_seed(derive_seed(job.config.start_seed, "init", job.fold))
        model, start, head = begin.build_model(job, state)
        precision = state["precision"] if state else begin.choose_precision(job, model, chip)
        canvases = [Canvas.of(model.spec)]
        files, frames = job.table["path"].tolist(), job.config.frames
        source = PixelSource(job.root, files, canvases, job.siblings, frames)
        run = begin.make_run(job, model, head, chip, precision)
        cached = all(stage.cached for stage in run.stages)  # then each image is decoded once
        if not cached or source.numbers.has_clips:
            source.preload(paths.pixel_cache(job.dataset), job.options.cache)
        if job.options.overwrite:
            resume.discard(job)  # not before all that may still be refused
        begin.log_start(what, start, model, chip)
        workers, decoders = loader_workers(job.options.workers, source, job.config, chip)
        compute = Compute(chip, run.precision, decoders, 2 * job.config.optim.batch_size)
        with advised(chip, job.config.optim.batch_size, model.spec.image_size, WAYS_OUT):
            _train_stages(job, run, source, compute, start, workers, state)
        merge_adapters(run.averaged.net)
        final = Compute(chip, device.inference_precision(chip, "auto"), decoders)
        finish.finish_run(job, run, source, final, start)
    return True


def _train_stages(
    job: Job,
    run: Run,
    source: PixelSource,
    compute: Compute,
    start: Start,
    workers: int,
    state: dict[str, Any] | None,
) -> None:
    """Train one stage after the other, from where a state left off."""
    sampler = begin.make_sampler(job)
    stages.enter_stage(run, job, state.get("stage", 0) if state else 0, len(sampler))
    if state is not None:
        resume.take_over(run, state, paths.run_state(*job.names), compute.device.type)
        batch = f", batch {run.batch}" if run.batch else ""
        epochs = stages.epochs_in_all(run, job)
        LOG.info("resumed after epoch %d of %d%s", run.epoch, epochs, batch)
    log = EpochLog(job)
    keeper = Keeper(job, run, start, len(sampler))
    try:
        while True:
            batches = _batches(job, run, source, compute, sampler, workers)
            _train_epochs(job, run, source, compute, sampler, batches, keeper, log)
            stages.take_mean(run, job, sampler, batches, compute.device)
            with job.options.clock.noting():
                stages.leave_stage(run, job)
                if run.stage + 1 == len(run.stages):
                    return
                stages.enter_stage(run, job, run.stage + 1, len(sampler))
                keeper.save()
    finally:
        log.close()


def _batches(
    job: Job,
    run: Run,
    source: PixelSource,
    compute: Compute,
    sampler: EpochSampler,
    workers: int,
) -> FeatureBatches | DeviceBatches:
    """Return what a stage is trained on: pixels, or the features of a frozen backbone."""
    config, chip = job.config, compute.device
    seed, size = derive_seed(config.seed, job.fold), run.model.spec.image_size
    if run.current.cached:
        steady = Compute(chip, run.precision, compute.workers)
        features = cached_features(job, run.model, run.head, source, steady)
        return FeatureBatches(features, job.labels, sampler, seed, source.numbers)
    mixes = max(config.mixup, config.cutmix) > 0
    batches = TrainBatches(
        source, job.labels, config.augment, size, seed, config.erase, mixes=mixes
    )
    loader = make_loader(batches, sampler, workers, pin=chip.type == "cuda")
    return DeviceBatches(loader, config.augment, size, chip, config.mixup, config.cutmix)


def _train_epochs(
    job: Job,
    run: Run,
    source: PixelSource,
    compute: Compute,
    sampler: EpochSampler,
    batches: FeatureBatches | DeviceBatches,
    keeper: Keeper,
    log: EpochLog,
) -> None:
    """Train the epochs of a stage."""
    config, clock = stages.stage_config(run, job.config), job.options.clock
    weights = class_weights(config, job.labels[job.train_rows])
    loss_weights = torch.tensor(weights, device=compute.device)
    while not stages.is_over(run, job):
        keeper.begin_epoch()
        sampler.epoch, sampler.first = run.epoch, run.batch
        stages.begin_epoch(run, job)
        with clock.noting():
            loss = train_one_epoch(
                run, batches, config, loss_weights, len(sampler), job, keeper.after_step
            )
            if clock.wanted():
                keeper.stop()
        try:
            stages.prepare_scoring(run, job, sampler, batches, compute.device)
            report = {} if job.is_refit else _score_held(job, run, source, compute, batches)
        except KeyboardInterrupt:
            with clock.noting():
                keeper.save()
            raise
        with clock.noting():  # a signal in mid-save would cost the whole epoch
            taken = keeper.end_epoch()
            rate = len(sampler) * sampler.batch_size / taken
            best = config.selection == "best" and not job.is_refit
            run.count_epoch(loss, rate, taken, report, keep_best=best)
            # Without a choice among epochs no held-out item may steer the run either.
            run.schedule.after_epoch(report["macro_f1"] if best else -loss)
            keeper.save()
        log.write(run.history[-1], stages.epochs_in_all(run, job), taken)
        if clock.wanted():
            clock.leave()


def _score_held(
    job: Job,
    run: Run,
    source: PixelSource,
    compute: Compute,
    batches: FeatureBatches | DeviceBatches,
) -> dict[str, float]:
    """Return the scores of the held-out items, of one view each, at 0.5."""
    held, config = job.held_rows, job.config
    if isinstance(batches, FeatureBatches) and isinstance(run.active, Probe):
        rows, frames = batches.eval_rows(held)
        logits = probe_logits(run.active, batches.features[rows, 0], compute.device)[:, None]
        seen = Seen(frames, logits, np.ones(len(rows), bool), len(held))
    else:
        seen = predict_items(run.averaged, ("full",), source, held, compute)
    finish.check_logits(job, seen)
    return classification_report(job.labels[held], seen.pooled(config.frames.pool), 0.5)


def train_one_epoch(
    run: Run,
    loader: Iterable[dict[str, Tensor]],
    config: ModelConfig,
    weights: Tensor,
    steps_per_epoch: int,
    job: Job,
    after_step: Callable[[], bool] | None = None,
) -> float:
    """Take one pass over the training items, or what is left of one.

    Args:
        run: its `batch` counts on from where the loader begins.
        loader: batches.
        config: the model's config, with the stage's optimisation.
        weights: loss weights of the classes, on the device.
        steps_per_epoch: batches of a whole pass.
        job: names what is trained.
        after_step: called after each optimizer step; True ends the pass there.

    Returns:
        The mean loss of the pass so far.

    Raises:
        UserError: the loss or the gradient is not finite; names the batch's items; no step was
            made with it.
    """
    chip, accumulate = weights.device, config.optim.accumulate
    run.loss_sum = torch.as_tensor(run.loss_sum, dtype=torch.float32, device=chip)
    total = run.loss_sum
    if run.batch < steps_per_epoch:  # else the weights to be used are in place, or soon are
        optimizer_mode(run.optimizer, train=True)
    run.optimizer.zero_grad(set_to_none=True)
    title = f"epoch {run.epoch + 1}/{stages.epochs_in_all(run, job)}"
    bar = track(loader, title, total=steps_per_epoch - run.batch, unit="batch")
    for number, batch in enumerate(bar, run.batch):
        # Everything random follows from (seed, fold, epoch, batch): resuming needs no more.
        torch.manual_seed(derive_seed(config.seed, job.fold, "batch", run.epoch, number))
        step = run.stage_epoch * steps_per_epoch + number
        for group in run.optimizer.param_groups:
            group["lr"] = run.schedule.lr(step) * group.get("lr_scale", 1.0)
        batch = {key: tensor.to(chip, non_blocking=True) for key, tensor in batch.items()}
        share = min(accumulate, steps_per_epoch - number // accumulate * accumulate)
        loss = backward(run, batch, config, weights, share)
        if not torch.isfinite(loss):
            finish.stop_on_loss("loss", loss.item(), batch, run, job)
        full = (number + 1) % accumulate == 0 or number + 1 == steps_per_epoch
        if full and not optimizer_step(run, config, step // accumulate):
            finish.stop_on_loss("gradient", float("nan"), batch, run, job)
        total = total + loss
        if full:
            run.batch, run.loss_sum = number + 1, total
            if after_step is not None and after_step():
                break
    return float(run.loss_sum) / run.batch
