"""Train one model on one fold: `fit_fold` -> `train_one_epoch`; resumable after any epoch."""

import logging
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from src import paths
from src.artifacts.files import file_lock
from src.config import ModelConfig
from src.data.dataset import (
    DeviceBatches,
    EpochSampler,
    TrainBatches,
    make_loader,
)
from src.data.pixels import Canvas, PixelSource
from src.ensemble.extra import refuse_extra_name
from src.metrics import classification_report
from src.models.weights import Start
from src.progress import track
from src.seeds import derive_seed
from src.training import begin, device, finish, resume
from src.training.begin import class_weights
from src.training.job import Job
from src.training.keeper import Keeper
from src.training.loading import loader_workers
from src.training.memory import advised
from src.training.optim import lr_at
from src.training.predict import Compute, predict_views
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
        torch.manual_seed(derive_seed(job.config.seed, "init", job.fold))
        model, start = begin.build_model(job, state)
        precision = state["precision"] if state else begin.choose_precision(job, model, chip)
        canvases = [Canvas.of(model.spec)]
        source = PixelSource(job.root, job.table["path"].tolist(), canvases, job.siblings)
        source.preload(paths.pixel_cache(job.dataset), job.options.cache)
        if job.options.overwrite:
            resume.discard(job)  # not before all that may still be refused
        begin.log_start(what, start, model, chip)
        run = begin.make_run(job, model, chip, precision)
        if state is not None:
            resume.take_over(run, state, paths.run_state(*job.names), chip.type)
            batch = f", batch {run.batch}" if run.batch else ""
            LOG.info("resumed after epoch %d of %d%s", run.epoch, job.epochs, batch)
        workers, decoders = loader_workers(job.options.workers, source, job.config, chip)
        compute = Compute(chip, run.precision, decoders, 2 * job.config.optim.batch_size)
        with advised(chip, job.config.optim.batch_size, model.spec.image_size, WAYS_OUT):
            _train_epochs(job, run, source, compute, start, workers)
        final = Compute(chip, device.inference_precision(chip, "auto"), decoders)
        finish.finish_run(job, run, source, final, start)
    return True


def _train_epochs(
    job: Job, run: Run, source: PixelSource, compute: Compute, start: Start, workers: int
) -> None:
    config, chip, clock = job.config, compute.device, job.options.clock
    rows, labels = job.train_rows, job.labels
    size = run.model.spec.image_size
    sampler = EpochSampler(
        rows,
        labels[rows],
        config.optim.batch_size,
        balanced=config.sampler == "balanced",
        seed=derive_seed(config.seed, job.fold),
    )
    batches = TrainBatches(
        source,
        labels,
        config.augment,
        size,
        derive_seed(config.seed, job.fold),
        config.erase,
    )
    loader = make_loader(batches, sampler, workers, pin=chip.type == "cuda")
    loader = DeviceBatches(loader, config.augment, size, chip)
    weights = torch.tensor(class_weights(config, labels[rows]), device=chip)
    log = finish.EpochLog(job)
    keeper = Keeper(job, run, start, len(sampler))
    try:
        while run.epoch < job.epochs and not _out_of_patience(run, config):
            keeper.begin_epoch()
            sampler.epoch, sampler.first = run.epoch, run.batch
            with clock.noting():
                loss = train_one_epoch(
                    run, loader, config, weights, len(sampler), job, keeper.after_step
                )
                if clock.wanted():
                    keeper.stop()
            try:
                report = {} if job.is_refit else _score_held(job, run, source, compute)
            except KeyboardInterrupt:
                with clock.noting():
                    keeper.save()
                raise
            with clock.noting():  # a signal in mid-save would cost the whole epoch
                taken = keeper.end_epoch()
                rate = len(sampler) * sampler.batch_size / taken
                run.count_epoch(loss, rate, taken, report, keep_best=config.selection == "best")
                keeper.save()
            log.write(run.history[-1], job.epochs, taken)
            if clock.wanted():
                clock.leave()
    finally:
        log.close()


def _score_held(job: Job, run: Run, source: PixelSource, compute: Compute) -> dict[str, float]:
    """Return the scores of the held-out items, of one view each, at 0.5."""
    held = job.held_rows
    logits, readable = predict_views([run.averaged], [("full",)], source, held, compute)
    finish.check_logits(job, logits[0], readable)
    return classification_report(job.labels[held], logits[0][:, 0], 0.5)


def _out_of_patience(run: Run, config: ModelConfig) -> bool:
    if config.patience is None or not run.best:
        return False
    return run.epoch - run.best["epoch"] >= config.patience


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
        config: the model's config.
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
    chip = weights.device
    run.model.train()
    steps, accumulate = steps_per_epoch * config.optim.epochs, config.optim.accumulate
    run.loss_sum = torch.as_tensor(run.loss_sum, dtype=torch.float32, device=chip)
    total = run.loss_sum
    run.optimizer.zero_grad(set_to_none=True)
    title = f"epoch {run.epoch + 1}/{job.epochs}"
    bar = track(loader, title, total=steps_per_epoch - run.batch, unit="batch")
    for number, batch in enumerate(bar, run.batch):
        # Everything random follows from (seed, fold, epoch, batch): resuming needs no more.
        torch.manual_seed(derive_seed(config.seed, job.fold, "batch", run.epoch, number))
        step = run.epoch * steps_per_epoch + number
        for group in run.optimizer.param_groups:
            group["lr"] = lr_at(step, steps, steps_per_epoch, config.optim)
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
