"""The net of a run and all that changes with it, stage by stage; how to go on from it."""

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from timm.utils.model_ema import ModelEmaV3
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.optim.swa_utils import AveragedModel

from src import paths
from src.models import checkpoint
from src.models.anatomy import Names
from src.models.classifier import Classifier
from src.models.heads import Probe
from src.models.prefix import Suffix
from src.models.strategies import Stage
from src.training.auxiliary import Auxiliary
from src.training.job import Job
from src.training.optim import SCHEDULES, Schedule, build_optimizer, freeze_modes

LOG = logging.getLogger("rvf")
EMA_WARMUP_POWER = 0.75  # decay grows as 1 - (1 + step)^-0.75, so that short runs average too
COUNTS = ("precision", "stage", "stage_epoch", "stage_batches", "position", "pace", "kept", "epoch",
          "batch", "batches", "spent", "seconds", "history", "best", "budget")  # fmt: skip
TINY = 1e-6  # of a batch: what sums of paces may be off by
KEPT_SCORES = ("log_loss", "macro_f1", "auc")  # of a stage's kept epoch, in its entry
SUMS = ("loss_sum", "right")  # on the device while they grow
_OF_FEATURES = {
    None: "",
    "cached": ", on features computed once",
    "augmented": ", on features of augmented items",
    "views": ", on augmented views that what is frozen has seen",
}


@dataclass
class Run:
    """All that changes while a fold is trained, and so all that a resume state holds."""

    job: Job
    model: Classifier
    head: tuple[str, ...]  # names of the net's classifier layers
    stages: list[Stage]  # what is trained, one after the other
    precision: str
    scaler: GradScaler
    steps: int  # batches of an epoch
    # losses with weights of their own (`Auxiliary`)
    auxiliaries: nn.ModuleList = field(default_factory=nn.ModuleList)
    # images computed at once; 0 for the whole batch. A matter of the machine, so not in the state
    micro_batch: int = 0
    # Of the stage that is under way; `enter_stage` makes what has no value here.
    stage: int = 0  # its number
    stage_epoch: int = 0  # epochs done of it
    stage_batches: int = 0  # batches done of it
    position: float = 0.0  # how far along its schedule they went, in batches of the config's
    # how far along it a batch goes: 1 without a budget; 0 until the time for one is measured
    pace: float = 1.0
    optimizer: torch.optim.Optimizer = field(init=False)
    schedule: Schedule = field(init=False)
    active: nn.Module = field(init=False)  # what a step calls: the model, or what is trained of it
    ema: ModelEmaV3 | None = None
    swa: AveragedModel | None = None
    # its best epoch, where held-out items steer the run; with `selection: best` its weights too
    best: dict[str, Any] = field(default_factory=dict)
    # Of the whole run.
    epoch: int = 0  # epochs done
    batch: int = 0  # batches done of the next one; only whole optimizer steps count
    batches: int = 0  # batches done in all
    loss_sum: torch.Tensor | float = 0.0  # of their losses
    # of the terms that auxiliaries add to it, by name, (k,) of layers; times the items
    terms: dict[str, torch.Tensor] = field(default_factory=dict)
    right: torch.Tensor | float = 0.0  # items of them that were called right; NaN: not counted
    spent: float = 0.0  # seconds spent on them in earlier processes
    seconds: float = 0.0  # of the epochs done
    history: list[dict[str, Any]] = field(default_factory=list)  # an entry an epoch
    kept: list[dict[str, Any]] = field(default_factory=list)  # an entry a finished stage
    # what was asked of `--minutes` and what was made of it; None without
    budget: dict[str, Any] | None = None

    @property
    def current(self) -> Stage:
        """The stage that is under way."""
        return self.stages[self.stage]

    @property
    def at_work(self) -> list[Auxiliary]:
        """The auxiliaries of this stage: none where it sees features in place of pixels."""
        return list(self.auxiliaries) if self.current.features is None else []  # type: ignore[arg-type]

    @property
    def averaged(self) -> Classifier:
        """The model whose weights are kept: the EMA where there is one."""
        return self.ema.module if self.ema is not None else self.model  # type: ignore[return-value]

    @property
    def kept_epoch(self) -> int:
        """The epoch whose weights the stage keeps: its best, or the last."""
        return int(self.best["epoch"]) if "net" in self.best else self.epoch

    @property
    def passes(self) -> float:
        """How often the training items were passed over, parts of an epoch included."""
        return self.batches / self.steps

    @property
    def left(self) -> int:
        """How many batches the stage has left at its pace, unless patience ends it."""
        if self.current.untrained:
            return 0
        rest = self.schedule.steps - self.position
        if not self.pace:
            return math.ceil(rest)
        left, stop = max(0, math.ceil(rest / self.pace - TINY)), self.job.stop_after
        if stop is None:
            return left
        epochs = stop if isinstance(stop, int) else stop[self.stage]
        return min(left, epochs * self.steps - self.stage_batches)

    @property
    def epochs(self) -> int:
        """How many epochs the run has, those done included, unless patience ends a stage."""
        later = sum(round(stage.optim.epochs) for stage in self.stages[self.stage + 1 :])
        return self.epoch + math.ceil((self.batch + self.left) / self.steps) + later

    def settle(self) -> None:
        """Bring what auxiliaries learned into the nets that are scored and saved."""
        for one in self.at_work:
            one.settle(self.model)
            if self.averaged is not self.model:
                one.settle(self.averaged)

    def weights(self) -> Iterator[nn.Parameter]:
        """Iterate over what may be trained: of the net, and of what is trained along."""
        yield from self.model.parameters()
        yield from self.auxiliaries.parameters()

    def advance(self, batches: int) -> None:
        """Count the batches of a step that was made."""
        self.position += batches * self.pace
        self.batch, self.batches = self.batch + batches, self.batches + batches
        self.stage_batches += batches

    def enter_stage(self, number: int) -> None:
        """Make the optimizer, the schedule and the mean of weights of a stage; weights stay."""
        self.stage, self.stage_epoch, self.stage_batches, self.best = number, 0, 0, {}
        stage, net, optim = self.current, self.model.net, self.current.optim
        self.position, self.pace = 0.0, 0.0 if self.job.budget else self._given_pace()
        _train_only(net, stage.train)
        self.optimizer = build_optimizer(net, optim, self.at_work)
        self.schedule = SCHEDULES.get(optim.schedule)(optim, optim.epochs * self.steps, self.steps)
        self.active = self.model
        self.ema = self.swa = None
        if stage.cut:
            self.active = Suffix(net, stage.cut)
        # A mean of the whole net's weights would cost more than training its head.
        if not stage.trains_body:
            self.active = Probe(net, self.head, self.job.config.backbone.drop_rate)
        elif optim.ema_decay is not None:
            self.ema = ModelEmaV3(
                self.model,
                decay=optim.ema_decay,
                use_warmup=True,
                warmup_power=EMA_WARMUP_POWER,
            )
        elif optim.swa_epochs is not None:
            self.swa = AveragedModel(self.model)
        if len(self.stages) > 1 or len(stage.train) < len(list(net.parameters())):
            self._log_share()

    def begin_epoch(self) -> None:
        """Set what is trained in the coming epoch, and what is in training mode."""
        every = self.job.config.transfer.unfreeze_every
        _train_only(
            self.model.net, self.current.trained_in(int(self.position / self.steps + TINY), every)
        )
        self.model.train()
        self.active.train()
        self.auxiliaries.train()
        freeze_modes(self.model.net)

    def count_epoch(self, seconds: float, scores: dict[str, float], quality: float | None) -> None:
        """Write a finished epoch into the history, and keep its weights if they are to be kept.

        Args:
            seconds: that it took.
            scores: of its training items and the held-out ones (none in a refit).
            quality: what `Trainer.quality` says of these.
        """
        self.epoch, self.stage_epoch = self.epoch + 1, self.stage_epoch + 1
        self.batch, self.loss_sum, self.right, self.terms = 0, 0.0, 0.0, {}
        last = (self.current.optim.swa_epochs or 0) * self.steps
        if self.swa is not None and self.position > self.schedule.steps - last + TINY:
            # The plain mean of the weights after the last epochs (Izmailov et al. 2018, alg. 1).
            self.swa.update_parameters(self.model)
        self.seconds += seconds
        stage = {"stage": self.current.name} if len(self.stages) > 1 else {}
        self.history.append({"epoch": self.epoch, **stage, **scores})
        if quality is not None and quality > self.best.get("quality", -math.inf):
            self.best = {"quality": quality, "epoch": self.epoch}
            if self.job.config.selection == "best":
                net = self.averaged.net
                self.best["net"] = {k: v.clone() for k, v in net.state_dict().items()}

    def leave_stage(self) -> None:
        """Take over the weights that the stage keeps, and save them unless it is the last one.

        The stage's entry in `kept` says which of its epochs they are of.
        """
        net, kept = self.model.net, self.averaged.net
        if "net" in self.best:
            kept.load_state_dict(self.best["net"])
        if kept is not net:
            net.load_state_dict(kept.state_dict())
        number = self.kept_epoch
        scores = next((entry for entry in self.history if entry["epoch"] == number), {})
        epoch = self.stage_epoch - (self.epoch - number)
        trained = 0 if self.current.untrained else _trained_count(net, self.current.train)
        pace = self.position / self.stage_batches if self.stage_batches else 1.0
        entry = {"name": self.current.name, "epochs": epoch, "pace": pace, "trainable": trained}
        self.kept.append(entry | {k: scores[k] for k in KEPT_SCORES if k in scores})
        if self.stage + 1 < len(self.stages):
            path = paths.stage_checkpoint(*self.job.names, self.stage)
            checkpoint.save_checkpoint(path, self.model, self.job.config.as_dict(), ["full"])
            LOG.info("stage %r: weights of its epoch %d -> %s", self.current.name, epoch, path)

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and plain containers from which `load_state_dict` goes on exactly."""
        counts = {name: getattr(self, name) for name in COUNTS}
        parts = {name: part.state_dict() for name, part in self._parts().items()}
        sums = {name: float(getattr(self, name)) for name in SUMS}
        terms = {name: found.tolist() for name, found in self.terms.items()}
        return {**sums, **counts, **parts, "terms": terms}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned; its stage was entered before."""
        kernels = [group.get("fused") for group in self.optimizer.param_groups]
        for group, kernel in zip(state["optimizer"]["param_groups"], kernels, strict=False):
            group["fused"] = kernel  # of this device; the state may be another's
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        for name in (*COUNTS, *SUMS):
            setattr(self, name, state[name])
        self.terms = {name: torch.tensor(found) for name, found in state["terms"].items()}
        if self.job.budget is None:  # though the run may have begun with one
            self.pace, self.budget = self._given_pace(), None

    def _given_pace(self) -> float:
        """Return the pace of the stage where no budget sets it."""
        return 1.0 if self.job.paces is None else self.job.paces[self.stage]

    def _parts(self) -> dict[str, Any]:
        """Return what has a state of its own."""
        parts = {
            "model": self.model.net,
            "optimizer": self.optimizer,
            "scaler": self.scaler,
            "schedule": self.schedule,
        }
        if self.ema is not None:
            parts["ema"] = self.averaged.net
        if self.swa is not None:
            parts["swa"] = self.swa
        if len(self.auxiliaries):
            parts["auxiliaries"] = self.auxiliaries
        return parts

    def _log_share(self) -> None:
        stage, net = self.current, self.model.net
        if stage.untrained:
            LOG.info("%s: nothing is trained, the head is what the prompts say", stage.name)
            return
        count = _trained_count(net, stage.train)
        whole = sum(weight.numel() for weight in net.parameters())
        LOG.info(
            "stage %d of %d, %s: %d of %d weights are trained (%.2f %%), at most %d epochs%s",
            self.stage + 1, len(self.stages), stage.name, count, whole, 100 * count / whole,
            stage.optim.epochs, _OF_FEATURES[stage.features],
        )  # fmt: skip


def _trained_count(net: nn.Module, names: Names) -> int:
    """Return how many numbers the named weights hold."""
    return sum(weight.numel() for name, weight in net.named_parameters() if name in names)


def _train_only(net: nn.Module, names: Names) -> None:
    for name, weight in net.named_parameters():
        weight.requires_grad_(name in names)
