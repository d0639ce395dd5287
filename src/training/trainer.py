"""Train one model on one fold: `fit` -> `train_stage` -> `train_epoch` -> `train_step`.

A run goes on exactly after any step that it was stopped at.
"""

import logging
import math
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain, islice
from typing import Any

import torch
from torch import Tensor

from src import paths
from src.artifacts.atomic import file_lock
from src.compute import device, ranks
from src.compute.memory import advised
from src.compute.request import Compute
from src.data.batches.hard_reals import HardReals
from src.data.batches.loader import TrainBatches, make_loader
from src.data.batches.on_device import DeviceBatches
from src.data.pixels.source import Canvas, PixelSource
from src.ensemble.extra import refuse_extra_name
from src.inference.predict import VIEWS, Seen, predict_shared
from src.models.adapters import merge_adapters
from src.models.classifier import Classifier
from src.models.prefix import Suffix
from src.progress import track
from src.seeds import derive_seed
from src.training import resume, setup
from src.training.auxiliary import at_size
from src.training.auxiliary.distil import looks_alike_always
from src.training.auxiliary.teachers import check_teachers_since, find_teachers
from src.training.features import AugmentedFeatures, FeatureBatches, cached_features
from src.training.job import Job
from src.training.lockstep import Lockstep
from src.training.monitor import (
    check_monitor,
    count_right,
    epoch_line,
    held_out_scores,
    monitored,
    stop_line,
    train_words,
)
from src.training.optim import optimizer_mode, settle_statistics
from src.training.pacing import Pacer
from src.training.results import check_logits, finish_run
from src.training.runlog import run_log
from src.training.step import Batch, Step, loss_and_terms, shown
from src.training.together import check_alike, check_batch, not_finite
from src.training.trackers import TRACKERS, Tracked
from src.training.views import PrefixViews, ViewBatches

LOG = logging.getLogger("rvf")
VIEW_BATCH = 16  # items that a prefix sees at once: more no longer fit a CPU's cache
SETTLING_BATCHES = 50  # that BatchNorm is estimated from after an epoch of schedule_free
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
    setup.check_names(job.config)
    check_monitor(job)
    refuse_extra_name(job.dataset, job.scheme, job.model)
    check_batch(job)
    ranks.use(job.options.chip)
    check_alike(job)
    with ExitStack() as stack:
        lock = file_lock(paths.run_lock(*job.names), job.title)
        ranks.led(lambda: stack.enter_context(lock))
        wanted = resume.wanted_start(job)
        if ranks.led(lambda: resume.is_finished(job, wanted)):
            check_teachers_since(job)
            return False
        if job.config.distil is not None:
            job = replace(job, teachers=find_teachers(job).record)
        ranks.led(lambda: job.options.clock.check_room(job.title))
        state = resume.read_state(job, wanted)
        if (budget := job.budget) is not None:
            ranks.led(lambda: budget.begin(job.names, state["budget"] if state else None))
        with run_log(job):
            Trainer(job, state).fit()
    return True


class Trainer:
    """One model on one fold, with all that it is trained by.

    To train otherwise, override a method: `make_batches` (what a stage is trained on), `loss` (a
    teacher, a second head), `score` and `quality` (what an epoch is judged by), `is_over` (when a
    stage ends).

    Args:
        job: what is trained.
        state: of the same run, half done; None begins it.
    """

    def __init__(self, job: Job, state: dict[str, Any] | None = None) -> None:
        self.job, self.config, self.state, self.clock = job, job.config, state, job.options.clock
        self.chip = job.options.chip
        device.set_deterministic(self.chip)
        with ranks.leader_first():
            model, self.start, head = setup.build_model(job, state)
        precision = state["precision"] if state else ranks.led(lambda: self.choose_precision(model))
        others = setup.make_auxiliaries(job, model, self.chip)
        # A teacher that sees more pixels than its student has them augmented at its own size.
        self.look_size = max([model.spec.image_size, *(one.look_size for one in others)])
        own = Canvas.of(model.spec)
        wide = own._replace(size=round(own.size * self.look_size / model.spec.image_size))
        canvases, files = list(dict.fromkeys([own, wide])), job.table["path"]
        self.source = PixelSource(
            job.root, files, canvases, job.siblings, self.config.frames, stamps=job.stamps
        )
        self.run, self.sampler = setup.make_run(job, model, head, self.chip, precision, others)
        self.share, self.lockstep = ranks.own_share(), Lockstep(self.run, self.chip)
        weights = setup.class_weights(self.config, self.sampler.pool.labels)
        self.class_weights = torch.tensor(weights, device=self.chip)
        self.pacer = Pacer(self.run, job.budget if ranks.leads() else None)

    def choose_precision(self, model: Classifier) -> str:
        """Return the precision to train in."""
        asked, batch_size = self.job.options.precision, self.config.optim.batch_size
        return device.training_precision(asked, self.chip, model, self.config.backbone, batch_size)

    def fit(self) -> None:
        """Train all stages and write what the run leaves behind."""
        job, run, options = self.job, self.run, self.job.options
        # Of features that are computed once each image is decoded once.
        once = all(stage.features == "cached" for stage in run.stages)
        if not once or self.source.numbers.has_clips:
            self.source.in_order = self.config.sampler == "shards"
            self.source.preload(paths.pixel_cache(job.dataset), options.cache)
        if options.overwrite:
            ranks.led(lambda: resume.discard(job))  # not before all that may still be refused
        setup.log_start(job, self.start, run.model, self.chip)
        self.workers, decoders = setup.loader_workers(
            options.workers, self.source, self.config, self.chip
        )
        batch_size, image_size = self.config.optim.batch_size, run.model.spec.image_size
        batch_size = -(-batch_size // ranks.count())
        # On a CPU no more at once than a step takes: that fits into the memory that it has left.
        at_once = batch_size if self.chip.type == "cpu" else 2 * batch_size
        self.compute = Compute(options.device, run.precision, decoders, batch_size=at_once)
        with advised(self.chip, batch_size, image_size, WAYS_OUT):
            self.train_stages()
        self.pacer.end_run()
        merge_adapters(run.averaged.net)
        final = Compute(options.device, device.inference_precision(self.chip, "auto"), decoders)
        finish_run(job, run, self.source, final, self.start, self.known(final))

    def known(self, final: Compute) -> Seen | None:
        """Return the held-out predictions where they follow from features that were computed."""
        views, same = VIEWS[self.config.tta], self.run.precision == final.precision
        if self.job.is_refit or not same or not isinstance(self.batches, FeatureBatches):
            return None
        return self.batches.predict(self.run.active, self.job.held_rows, self.chip, len(views))

    def train_stages(self) -> None:
        """Train one stage after the other, from where a state left off."""
        run, job = self.run, self.job
        run.enter_stage(self.state["stage"] if self.state else 0)
        if self.state is not None:
            resume.take_over(run, self.state, self.chip.type)
        self.state_file = resume.StateFile(run, self.start)
        tracked = Tracked(job.names, self.config.as_dict(), job.options.overwrite)
        self.tracker = TRACKERS.get(job.options.track if ranks.leads() else "none")(tracked)
        try:
            while True:
                self.train_stage()
                with self.clock.noting():
                    run.leave_stage()
                    if run.stage + 1 == len(run.stages):
                        return
                    run.enter_stage(run.stage + 1)
                    self.state_file.save()
        finally:
            self.tracker.close()

    def train_stage(self) -> None:
        """Train what is left of a stage; with `swa_epochs` the mean of its last weights is kept."""
        run = self.run
        self.batches = self.make_batches()
        self.pacer.begin_stage()
        run.settle()
        while not self.is_over():
            self.train_epoch()
        if run.left and run.best:
            LOG.info("%s", stop_line(self.job, run.history, run.best["epoch"]))
        if run.swa is not None:
            self.settle(run.swa.module, first=0)  # type: ignore[arg-type]
            run.model.load_state_dict(run.swa.module.state_dict())
            last = run.current.optim.swa_epochs
            LOG.info("the mean of the weights of the last %d epochs is kept", last)

    def make_batches(self) -> FeatureBatches | AugmentedFeatures | ViewBatches | DeviceBatches:
        """Return what a stage is trained on: pixels, or the features of what is frozen."""
        job, run, config, source = self.job, self.run, self.config, self.source
        seed, size = derive_seed(config.seed, job.fold), self.look_size
        steady = Compute(self.compute.device, run.precision, self.compute.workers)
        if run.current.features == "cached":
            features = cached_features(job, run.model, run.head, source, steady)
            head = FeatureBatches(features, job.labels, self.sampler, seed, source.numbers)
            head.share = self.share
            return head
        if run.current.features == "views":
            looks = replace(steady, workers=self.workers, batch_size=VIEW_BATCH)
            views = PrefixViews(job, run.model, run.current.cut, source, looks)
            behind = ViewBatches(views, job.labels, self.sampler, seed)
            behind.share = self.share
            return behind
        mixes = max(config.mixup, config.cutmix) > 0
        batches = TrainBatches(source, job.labels, config.augment, size, seed, mixes=mixes)
        if config.wants_views:
            batches.see_twice(config.view_augment)
        batches.canvas, batches.share = len(source.canvases) - 1, self.share
        batches.reals = HardReals.of(config.augment_real)
        with ranks.leader_first():
            batches.fakes = setup.make_pseudo_fakes(job, source, batches.canvas)
        batches.masked = setup.make_masks(job, source, batches.canvas)
        if looks_alike_always(config) and not source.numbers.has_clips:
            for one in run.at_work:
                one.know_beforehand(job.train_rows, batches.as_they_are)
        loader = make_loader(batches, self.sampler, self.workers, pin=self.chip.type == "cuda")
        mix = config.mixup, config.cutmix
        pixels = DeviceBatches(loader, config.augment, size, self.chip, *mix, self.share)
        if run.current.features is None:
            return pixels
        return AugmentedFeatures(pixels, run.model, run.head, steady)

    def quality(self, report: dict[str, float]) -> float | None:
        """Return what steers the run, higher is better; None where held-out items have no say."""
        metric = monitored(self.job)
        return None if metric is None else metric.sign * report[metric.name]

    def is_over(self) -> bool:
        """Tell whether the stage has no batch left, or no patience."""
        run, patience = self.run, self.run.current.patience
        if not run.left:
            return True
        return bool(patience is not None and run.best and run.epoch - run.best["epoch"] >= patience)

    def train_epoch(self) -> None:
        """Train what is left of an epoch, score it, and save the state."""
        run, clock = self.run, self.clock
        self.state_file.begin_epoch()
        self.pacer.begin_epoch()
        self.sampler.epoch, self.sampler.first = run.epoch, run.batch
        run.begin_epoch()
        with clock.noting():
            scores = self.train_batches()
            if self.lockstep.is_stopped():
                self.state_file.stop()
        try:
            # schedule_free trains other weights than those that it wants used.
            exchanged = optimizer_mode(run.optimizer, train=False)
            run.settle()
            if exchanged and run.current.trains_body:
                self.settle(run.model, first=max(0, run.steps - SETTLING_BATCHES))
            held = {} if self.job.is_refit else self.score()
        except KeyboardInterrupt:  # other ranks are wherever they were interrupted
            with clock.noting():
                self.state_file.write()
            raise
        with clock.noting():  # a signal in mid-save would cost the whole epoch
            taken = self.state_file.end_epoch()
            self.pacer.end_epoch()
            rate = run.batch * self.sampler.pool.batch_size / taken
            quality = self.quality(held)
            run.count_epoch(taken, scores | {"items_per_second": rate} | held, quality)
            run.schedule.after_epoch(-scores["train_loss"] if quality is None else quality)
            self.state_file.save()
        self.log_epoch(taken)
        if self.lockstep.is_stopped():
            clock.leave()

    def log_epoch(self, seconds: float) -> None:
        """Say what came of the epoch that has ended, in the log and to the tracker."""
        run, entry, views = self.run, self.run.history[-1], len(VIEWS[self.config.tta])
        how = f", 1 of {views} views" if views > 1 else ""
        how += ", by the EMA of weights" if run.ema is not None else ""
        how += ", before the mean of weights" if run.swa is not None else ""
        line = epoch_line(entry, run.epochs, seconds, how)
        is_best = run.best.get("epoch") == run.epoch
        LOG.info("%s%s", line, f" | best {self.config.monitor} so far" if is_best else "")
        numbers = {k: float(v) for k, v in entry.items() if isinstance(v, int | float)}
        self.tracker.log(numbers, run.epoch)

    def train_batches(self) -> dict[str, float]:
        """Take one pass over the training items, or the rest of one; see `running`."""
        run, left = self.run, min(self.run.steps - self.run.batch, self.run.left)
        self.lockstep.begin_sums()
        self.objective = self.lockstep.objective(self.loss)
        if left:  # else the weights to be used are in place, or soon are
            optimizer_mode(run.optimizer, train=True)
        run.optimizer.zero_grad(set_to_none=True)
        title = f"epoch {run.epoch + 1}/{run.epochs}"
        bar = track(self.batches, title, total=left, unit="batch", said=self.said)
        try:
            for first in bar:
                if self.train_step(chain([first], bar)) or not run.left:
                    break
        finally:
            del self.objective  # it knows this trainer, whose loader's workers end when it goes
        return self.lockstep.end_epoch(self.state_file)

    def said(self) -> str:
        """Return what stands beside the progress bar; of several ranks, of this one's items."""
        return train_words(self.lockstep.running()) if self.run.batch else ""

    def train_step(self, batches: Iterator[Batch]) -> bool:
        """Make one optimizer step, of the next `accumulate` batches or the last of an epoch.

        Returns whether to stop after it.

        Raises:
            UserError: the loss or the gradient is not finite; names the batch's items; no step was
                made with it, nor anything saved since.
        """
        run, optim = self.run, self.run.current.optim
        share = min(optim.accumulate, run.steps - run.batch, run.left)
        last = run.position + share * run.pace - 1  # batch of the schedule
        lr = run.schedule.lr(min(max(last, 0.0), run.schedule.steps - 1))
        for group in run.optimizer.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)
        step, total, right = Step(run, self.objective, share), run.loss_sum, run.right
        terms, seen = dict(run.terms), []
        for number, given in enumerate(islice(batches, share), run.batch):
            # Everything random follows from (seed, fold, epoch, batch): resuming needs no more.
            self.lockstep.seed("batch", run.epoch, number)
            batch = {key: tensor.to(self.chip, non_blocking=True) for key, tensor in given.items()}
            self.right: list[Tensor] = []
            self.terms: dict[str, Tensor] = {}
            loss = step.add(batch)
            seen.append((loss, batch["item"]))
            if step.reads and ranks.count() == 1 and not torch.isfinite(loss):
                raise not_finite(self.job, run.epoch + 1, seen[-1:])
            for name, term in self.terms.items():
                terms[name] = terms.get(name, 0) + term
            total, right = total + loss, right + (sum(self.right) if self.right else math.nan)
        made = step.make((run.stage_batches + share - 1) // optim.accumulate)
        self.lockstep.check(step, made, seen)
        run.loss_sum, run.right, run.terms = total, right, terms
        run.advance(share)
        pace = run.pace
        self.pacer.after_step(share)
        pace, run.pace = run.pace, pace  # until all ranks have heard of it
        return self.lockstep.after_step(self.state_file, pace)

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean loss of a batch, or of a piece of one, with its gradients."""
        loss, terms = loss_and_terms(self.run, batch, self.outputs(batch), self.class_weights)
        for name, term in terms.items():
            self.terms[name] = self.terms.get(name, 0) + term.detach() * len(batch["item"])
        return loss

    def outputs(self, batch: Batch) -> dict[str, Any]:
        """Return what the net says of a batch, and count what it calls right."""
        outputs = shown(self.run, batch)
        self.right.append(count_right(outputs["logit"], batch["label"]))
        return outputs

    def settle(self, model: Classifier, first: int) -> None:
        """Make the BatchNorm statistics of a model anew, of an epoch's batches from `first` on."""
        self.lockstep.seed("settle", self.run.epoch)
        self.sampler.epoch, self.sampler.first = self.run.epoch, first
        cut = self.run.current.cut
        if cut and not self.run.batch:  # an epoch has ended: by its views, the next has none yet
            self.sampler.epoch -= 1
        taken = Suffix(model.net, cut) if cut else model
        batches: Iterable[Batch] = self.batches
        if self.run.current.features is None:  # a teacher may see more pixels
            batches = (at_size(batch, model.spec.image_size) for batch in batches)
        settle_statistics(taken, batches, self.chip, self.run.precision)

    def score(self) -> dict[str, float]:
        """Return the scores of the held-out items, of one view each, at 0.5."""
        job, run, held = self.job, self.run, self.job.held_rows
        if isinstance(self.batches, FeatureBatches):
            seen = self.batches.predict(run.active, held, self.chip)
        else:
            seen = predict_shared(run.averaged, ("full",), self.source, held, self.compute)
        check_logits(job, seen)
        logits = seen.pooled(self.config.frames.pool)
        return held_out_scores(job.labels[held], logits, monitored(job))
