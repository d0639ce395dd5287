"""A few real steps of a model on this machine, before anything is trained: what they cost."""

import copy
import os
import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import NamedTuple

import torch

from src.compute import device
from src.config import ModelConfig
from src.inference.engines import fused
from src.inference.predict import VIEWS
from src.machine import cpu_count
from src.models.classifier import Classifier
from src.models.hub import HUB_FILES
from src.training import setup
from src.training.features import Body
from src.training.job import Job
from src.training.run import Run
from src.training.step import Batch, Step, loss_and_terms, shown

PIXELS = 16 * 128 * 128  # of a step on a CPU: from here on an image costs what it does in a batch
STEPS = 3  # that count; one more warms up
SPREAD = 1.4  # slowest over fastest of equal steps: above it others were at work
FREE_SHARE = 0.75  # of the cores' time that was ours: below it others had the rest
OTHERS = 0.5  # of the cores: load average beyond our own


class StageTime(NamedTuple):
    """What a stage of a model costs."""

    epochs: int  # of the config
    seconds: float  # a training item and epoch, of each fold
    shared: float = 0.0  # an item and epoch, once for all folds: a view that frozen blocks keep
    once: float = 0.0  # an item, once for all folds and epochs: features of a frozen backbone
    stretches: bool = True  # more time makes more epochs


class Timing(NamedTuple):
    """What a model costs on this machine."""

    model: str
    image_size: int  # side in px
    views: int  # that predictions look at
    stages: list[StageTime]
    look: float  # seconds an item and view that is predicted
    start: str  # where its weights come from
    took: float  # seconds of this rehearsal


class Watch:
    """Tells whether others were at work while something was timed."""

    def __init__(self) -> None:
        self.spread = 1.0
        self.wall = self.cpu = 0.0

    def repeat(self, step: Callable[[], None]) -> float:
        """Return the median seconds of a step that is made `STEPS` times, once before in vain."""
        step()
        taken = []
        for _ in range(STEPS):
            wall, cpu = time.monotonic(), time.process_time()
            step()
            taken.append(time.monotonic() - wall)
            self.wall, self.cpu = self.wall + taken[-1], self.cpu + time.process_time() - cpu
        self.spread = max(self.spread, max(taken) / max(min(taken), 1e-9))
        return median(taken)

    def disturbed(self) -> str:
        """Say by what the timings were disturbed; "" where they were not."""
        threads = torch.get_num_threads()
        ours = self.cpu / max(threads * self.wall, 1e-9)
        load, cores = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0, cpu_count()
        signs = {
            f"equal steps differed by a factor of {self.spread:.1f}": self.spread > SPREAD,
            f"only {ours:.0%} of the time of its threads ({threads}) was ours": ours < FREE_SHARE,
            f"the load average is {load:.1f}, of {cores} cores": load - threads > OTHERS * cores,
        }
        return "; ".join(sign for sign, there in signs.items() if there)


def rehearse(job: Job, watch: Watch) -> Timing:
    """Time a few steps of each stage of a job's model, and predictions by it.

    Raises:
        UserError: its weights are out of reach or do not fit.
    """
    began = time.monotonic()
    config, chip = job.config, job.options.chip
    model, start, head = setup.build_model(job, None)
    precision = _precision(job, model)
    others = setup.make_auxiliaries(job, model, chip)
    run, _ = setup.make_run(job, model, head, chip, precision, others)
    size = model.spec.image_size
    wide = max([size, *(one.look_size for one in others)])
    images = config.optim.batch_size
    if chip.type == "cpu":
        images = min(images, max(2, PIXELS // size**2))
    batch = {
        "pixels": torch.randint(256, (images, wide, wide, 3), dtype=torch.uint8, device=chip),
        "label": torch.arange(images, device=chip) % 2,
        "item": torch.arange(images, device=chip),
    }
    if config.wants_views:
        batch["views"] = batch["pixels"][:, None].expand(-1, 2, -1, -1, -1)
    if config.wants_masks:
        batch["mask"], batch["has_mask"] = batch["pixels"][..., 0], batch["label"] >= 0
    look = watch.repeat(_look(model, batch, precision)) / images
    views = len(VIEWS[config.tta])
    stages = []
    for number, stage in enumerate(run.stages):
        run.enter_stage(number)
        run.begin_epoch()
        epochs = stage.optim.epochs
        if stage.features == "cached":  # what a head takes is next to nothing
            stages.append(StageTime(epochs, 0.0, once=views * look, stretches=False))
        elif stage.features == "augmented":
            stages.append(StageTime(epochs, look))
        elif stage.features == "views":
            stages.append(_behind(run, batch, watch))
        else:
            stages.append(StageTime(epochs, watch.repeat(_step(run, batch)) / images))
    taken = time.monotonic() - began
    return Timing(job.model, size, views, stages, look, start.source, taken)


def reachable(config: ModelConfig) -> bool:
    """Tell whether a model's weights are here, as far as that takes no network."""
    if config.backbone.pretrained != "hub":
        return True
    import timm
    from huggingface_hub import try_to_load_from_cache

    known = timm.get_pretrained_cfg(config.backbone.name)
    repo = known.hf_hub_id if known else None
    return bool(repo) and any(
        isinstance(try_to_load_from_cache(str(repo), file), str) for file in HUB_FILES
    )


def _precision(job: Job, model: Classifier) -> str:
    """Return the precision to time: what is remembered, for to find out takes seconds."""
    options, config, chip = job.options, job.config, job.options.chip
    if chip.type != "cpu" or options.precision != "auto":
        asked = (options.precision, chip, model, config.backbone, config.optim.batch_size)
        return device.training_precision(*asked)
    return (
        device.remembered(device.precision_key(model, config.backbone, config.optim.batch_size))
        or "fp32"
    )


def _behind(run: Run, batch: Batch, watch: Watch) -> StageTime:
    """Time a stage whose first blocks are frozen: a view by them, and a step behind them."""
    options, images, config = run.job.options, len(batch["item"]), run.job.config
    body = Body(
        copy.deepcopy(run.model), run.current.cut, replace(options, precision=run.precision)
    )
    features = body(batch["pixels"])

    def view() -> None:
        body(batch["pixels"])
        _wait(options.chip)

    shared = watch.repeat(view) / images / config.transfer.renew_views
    kept = {"features": features.half(), "label": batch["label"], "item": batch["item"]}
    seconds = watch.repeat(_step(run, kept)) / images
    return StageTime(run.current.optim.epochs, seconds, shared)


def _step(run: Run, batch: Batch) -> Callable[[], None]:
    """Return what makes a whole training step of a batch."""
    chip = run.job.options.chip
    weights = torch.ones(2, device=chip)

    def loss(piece: Batch) -> torch.Tensor:
        return loss_and_terms(run, piece, shown(run, piece), weights)[0]

    def step() -> None:
        made = Step(run, loss, 1)
        made.add(batch)
        made.make(0)
        _wait(chip)

    return step


def _look(model: Classifier, batch: Batch, precision: str) -> Callable[[], None]:
    """Return what predicts a batch, as `inference.predict` does."""
    chip, net = batch["item"].device, model.net
    if chip.type == "cpu":
        net = fused(net, model.spec.image_size, plain_attention=False)
    looking = Classifier(net, model.spec).eval()

    def look() -> None:
        with (
            torch.inference_mode(),
            device.autocast(chip, "fp32" if chip.type == "cpu" else precision),
        ):
            looking({"pixels": batch["pixels"]})
        _wait(chip)

    return look


def _wait(chip: torch.device) -> None:
    if chip.type == "cuda":
        torch.cuda.synchronize(chip)
