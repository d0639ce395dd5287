"""All that changes while a fold is trained, and how to go on from it."""

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from timm.utils.model_ema import ModelEmaV3
from torch import nn
from torch.amp.grad_scaler import GradScaler

from src.models.classifier import Classifier
from src.models.strategies import Stage
from src.models.weights import Start
from src.training import record
from src.training.job import Job
from src.training.schedules import Schedule
from src.training.swa import WeightMean


@dataclass
class Run:
    """All that changes while a fold is trained, and so all that a resume state holds.

    Attributes:
        model, scaler, precision: what computes.
        stages: what is trained, one after the other.
        head: names of the net's classifier layers.
        stage: the number of the stage that is under way.
        stage_epoch: epochs done of it.
        optimizer, schedule, ema, swa, active: of that stage; `active` is what a training step
            calls: the model, or its head alone.
        epoch: epochs done, of all stages.
        batch: batches done of the next one; only whole optimizer steps count.
        loss_sum: of their losses.
        spent: seconds spent on them in earlier processes.
        seconds: of the epochs done.
        history: an entry an epoch.
        best: the best epoch of the stage so far, with `selection: best`.
        kept: an entry a finished stage.
        micro_batch: images computed at once; 0 for the whole batch. Not in the state: it is a
            matter of the machine.
        remembered: batches since the last step, with their loss weights and share of it; kept
            with `sam_rho` alone, which looks at them twice. Not in the state, made between steps.
    """

    model: Classifier
    scaler: GradScaler
    precision: str
    stages: list[Stage]
    head: tuple[str, ...]
    optimizer: torch.optim.Optimizer = field(init=False)
    schedule: Schedule = field(init=False)
    ema: ModelEmaV3 | None = field(init=False, default=None)
    swa: WeightMean | None = field(init=False, default=None)
    active: nn.Module = field(init=False)
    stage: int = 0
    stage_epoch: int = 0
    epoch: int = 0
    batch: int = 0
    loss_sum: torch.Tensor | float = 0.0
    spent: float = 0.0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] = field(default_factory=dict)
    kept: list[dict[str, Any]] = field(default_factory=list)
    micro_batch: int = 0
    remembered: list[tuple[dict[str, torch.Tensor], torch.Tensor, int]] = field(
        default_factory=list
    )

    @property
    def current(self) -> Stage:
        """Return the stage that is under way."""
        return self.stages[self.stage]

    @property
    def averaged(self) -> Classifier:
        """Return the model whose weights are kept: the EMA where there is one."""
        return self.ema.module if self.ema is not None else self.model  # type: ignore[return-value]

    def count_epoch(
        self, loss: float, rate: float, seconds: float, report: dict[str, float], *, keep_best: bool
    ) -> None:
        """Write a finished epoch into the history, and keep its weights if they are the best.

        Args:
            loss: mean over the epoch.
            rate: items/s.
            seconds: it took.
            report: scores of the held-out items; empty in a refit.
            keep_best: whether the epoch of the best macro-F1 is wanted.
        """
        self.epoch, self.stage_epoch = self.epoch + 1, self.stage_epoch + 1
        self.batch, self.loss_sum = 0, 0.0
        if self.swa is not None:
            self.swa.after_epoch(self.model, self.stage_epoch)
        self.seconds += seconds
        entry: dict[str, Any] = {"epoch": self.epoch, "loss": loss, "items_per_second": rate}
        if len(self.stages) > 1:
            entry["stage"] = self.current.name
        self.history.append(entry | report)
        score = report.get("macro_f1", -1.0)
        if keep_best and score > self.best.get("macro_f1", -1.0):
            weights = {k: v.clone() for k, v in self.averaged.net.state_dict().items()}
            self.best = {"macro_f1": score, "epoch": self.epoch, "net": weights}
            self.best["stage_epoch"] = self.stage_epoch

    def state(self, job: Job, start: Start) -> dict[str, Any]:
        """Return tensors and plain containers from which `restore` goes on exactly."""
        return {
            "identity": record.identity(job, asdict(start)),
            "start": asdict(start),
            "model": self.model.net.state_dict(),
            "ema": self.ema.module.net.state_dict() if self.ema is not None else None,
            "swa": self.swa.state() if self.swa is not None else None,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "precision": self.precision,
            "schedule": self.schedule.state(),
            "stage": self.stage,
            "stage_epoch": self.stage_epoch,
            "kept": self.kept,
            "epoch": self.epoch,
            "batch": self.batch,
            "loss_sum": float(self.loss_sum),
            "spent": self.spent,
            "seconds": self.seconds,
            "history": self.history,
            "best": self.best,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over a state that `state` made; its stage was entered before."""
        self.model.net.load_state_dict(state["model"])
        if self.ema is not None:
            self.ema.module.net.load_state_dict(state["ema"])
        if self.swa is not None:
            self.swa.restore(state["swa"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.schedule.restore(state.get("schedule", {}))
        self.stage_epoch = state.get("stage_epoch", state["epoch"])
        self.kept = state.get("kept", [])
        self.epoch, self.seconds = state["epoch"], state["seconds"]
        self.history, self.best = state["history"], state["best"]
        # States of older versions were saved between two epochs only.
        self.batch, self.spent = state.get("batch", 0), state.get("spent", 0.0)
        self.loss_sum = state.get("loss_sum", 0.0)
