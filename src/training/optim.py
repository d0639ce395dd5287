"""Optimizers and schedules by name; BatchNorm statistics of weights that no step made."""

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from src.compute import device
from src.compute.late import at_once
from src.config import OptimConfig
from src.errors import UserError
from src.registry import Registry

LOG = logging.getLogger("rvf")
Groups = list[dict[str, Any]]
OPTIMIZERS: Registry[Callable[[Groups, OptimConfig], torch.optim.Optimizer]] = Registry("optimizer")


@OPTIMIZERS.register("adamw")
def adamw(groups: Groups, config: OptimConfig) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter 2019)."""
    return torch.optim.AdamW(groups, lr=config.lr, fused=_fused(groups))


@OPTIMIZERS.register("adam")
def adam(groups: Groups, config: OptimConfig) -> torch.optim.Optimizer:
    """Adam (Kingma and Ba 2015); weight decay is added to the gradient."""
    return torch.optim.Adam(groups, lr=config.lr, fused=_fused(groups))


@OPTIMIZERS.register("sgd")
def sgd(groups: Groups, config: OptimConfig) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum 0.9."""
    return torch.optim.SGD(groups, lr=config.lr, momentum=0.9, nesterov=True, fused=_fused(groups))


def _fused(groups: Groups) -> bool | None:
    """Tell whether one kernel updates all weights: it can be told on the device to leave them."""
    weights = [weight for group in groups for weight in group["params"]]
    return True if weights and not at_once(weights[0].device) else None


@OPTIMIZERS.register("lion")
def lion(groups: Groups, config: OptimConfig) -> torch.optim.Optimizer:
    """Lion (Chen et al. 2023, alg. 2): wants a learning rate 3 to 10 times below AdamW's."""
    from timm.optim.lion import Lion

    return Lion(groups, lr=config.lr)


@OPTIMIZERS.register("schedule_free")
def schedule_free(groups: Groups, config: OptimConfig) -> torch.optim.Optimizer:
    """Schedule-free AdamW (Defazio et al. 2024): a mean of the weights stands in for a schedule.

    It has two sets of weights, one to train and one to use: see `optimizer_mode`.
    """
    from schedulefree import AdamWScheduleFree

    return AdamWScheduleFree(groups, lr=config.lr)


def optimizer_mode(optimizer: torch.optim.Optimizer, *, train: bool) -> bool:
    """Put the weights into the net that an optimizer trains, or those that it wants used.

    They are the same for all but schedule-free. To be called before an epoch and after it; nothing
    happens where they are in already. The way there and back is not exact in the last bit, so a
    state that is saved within an epoch is saved as it is. Returns whether there are two sets.
    """
    switch = getattr(optimizer, "train" if train else "eval", None)
    if switch is not None:
        switch()
    return switch is not None


def build_optimizer(
    net: nn.Module, config: OptimConfig, others: Sequence[nn.Module] = ()
) -> torch.optim.Optimizer:
    """Build the optimizer of what is trainable; biases and norms are not decayed.

    `others` are trained along, at the learning rate of the head. Every group has an `lr_scale`: its
    learning rate over that of the schedule.

    Raises:
        UserError: `layer_decay`, and a net that does not say what its layers are.
    """
    if config.layer_decay is not None:
        groups = _layer_groups(net, config, config.layer_decay)
    else:
        groups = _two_groups(net, config)
    for other in others:
        groups += [group for group in _two_groups(other, config) if group["params"]]
    return OPTIMIZERS.get(config.name)(groups, config)


def _two_groups(module: nn.Module, config: OptimConfig) -> Groups:
    """Return what is trainable of a module: what is decayed, and what is not."""
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    matrices = [p for p in trainable if p.ndim > 1]
    vectors = [p for p in trainable if p.ndim <= 1]
    return [
        {"params": matrices, "weight_decay": config.weight_decay, "lr_scale": 1.0},
        {"params": vectors, "weight_decay": 0.0, "lr_scale": 1.0},
    ]


def _layer_groups(net: nn.Module, config: OptimConfig, decay: float) -> Groups:
    """Return a group a layer and kind: layer i of L has scale decay^(L-i), the head scale 1.

    As BEiT (Bao et al. 2022) and MAE fine-tune; neither tokens nor position embeddings are decayed.
    """
    from timm.optim._param_groups import param_groups_layer_decay

    if not hasattr(net, "group_matcher"):
        raise UserError(
            f"optim.layer_decay: {type(net).__name__} does not say what its layers are; leave it "
            "out, or take a backbone of timm's"
        )
    undecayed = net.no_weight_decay() if hasattr(net, "no_weight_decay") else ()  # type: ignore[operator]
    return param_groups_layer_decay(net, config.weight_decay, undecayed, layer_decay=decay)


ONE_CYCLE_RISE = 0.3  # share of the steps; both are torch's defaults
ONE_CYCLE_START = 25.0  # the peak over the first learning rate
GAIN = 1e-4  # relative: what counts as a gain to `plateau`, torch's default


class Schedule(ABC):
    """The learning rate of every step of a stage: a linear warmup, then what a subclass says.

    `steps` are those of the whole stage. A registered schedule is made of `(config, steps,
    steps_per_epoch)`.
    """

    def __init__(self, config: OptimConfig, steps: int, steps_per_epoch: int) -> None:
        self.config = config
        self.steps = steps
        self.steps_per_epoch = steps_per_epoch
        self.low = min(config.min_lr, config.lr)
        self.warmup = min(round(config.warmup_epochs * steps_per_epoch), steps - 1)

    def lr(self, step: float) -> float:
        """Return the learning rate of a step of the stage (from 0), of a group of scale 1.

        With a budget there are steps between the whole ones, or some are passed over.
        """
        if step < self.warmup:
            return self.config.lr * (step + 1) / (self.warmup + 1)
        return self.after_warmup(step)

    @abstractmethod
    def after_warmup(self, step: float) -> float:
        """Return the learning rate of a step that is past the warmup."""

    def after_epoch(self, score: float) -> None:  # noqa: B027 - most have no use for it
        """Take note of an epoch's score, higher is better: of held-out items where they steer.

        Else it is minus the training loss.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers from which `load_state_dict` goes on exactly."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        for name in self.state_dict():
            setattr(self, name, state[name])


SCHEDULES: Registry[Callable[[OptimConfig, int, int], Schedule]] = Registry("schedule")


@SCHEDULES.register("cosine")
class Cosine(Schedule):
    """Half a cosine from `lr` to `min_lr` (Loshchilov and Hutter 2017, eq. 5, one period)."""

    def after_warmup(self, step: float) -> float:  # noqa: D102
        share = (step - self.warmup) / max(1, self.steps - self.warmup)
        return _half_cosine(self.config.lr, self.low, share)


@SCHEDULES.register("constant")
class Constant(Schedule):
    """The same learning rate for every step."""

    def after_warmup(self, step: float) -> float:  # noqa: ARG002, D102
        return self.config.lr


@SCHEDULES.register("step")
class Decay(Schedule):
    """A cut by `decay_rate` every `decay_epochs` epochs of the stage, down to `min_lr`."""

    def after_warmup(self, step: float) -> float:  # noqa: D102
        cuts = int(step / self.steps_per_epoch / self.config.decay_epochs)
        return max(self.low, self.config.lr * self.config.decay_rate**cuts)


@SCHEDULES.register("plateau")
class Plateau(Schedule):
    """A cut by `decay_rate` when what steers the run has stood still, down to `min_lr`.

    As torch's `ReduceLROnPlateau(mode="max", patience=decay_epochs)`: that many epochs without a
    gain are borne, the next one cuts.
    """

    best, waited, cuts = -math.inf, 0, 0

    def after_warmup(self, step: float) -> float:  # noqa: ARG002, D102
        return max(self.low, self.config.lr * self.config.decay_rate**self.cuts)

    def after_epoch(self, score: float) -> None:
        """Count the epochs without a gain; cut when there are too many."""
        if score > self.best + GAIN * abs(self.best) or math.isinf(self.best):
            self.best, self.waited = score, 0
            return
        self.waited += 1
        if self.waited > self.config.decay_epochs:
            before = self.after_warmup(self.steps)
            self.cuts, self.waited = self.cuts + 1, 0
            if before > self.low:
                LOG.info("plateau: no gain, lr %g -> %g", before, self.after_warmup(self.steps))

    def state_dict(self) -> dict[str, Any]:  # noqa: D102
        return {"best": self.best, "waited": self.waited, "cuts": self.cuts}


@SCHEDULES.register("one_cycle")
class OneCycle(Schedule):
    """Up to `lr` over the first 30 % of the steps, then down to `min_lr`, both on half a cosine.

    Smith and Topin 2018 ("Super-convergence"), as in torch's `OneCycleLR`. It is a warmup, so
    `warmup_epochs` is not read.
    """

    def __init__(self, config: OptimConfig, steps: int, steps_per_epoch: int) -> None:
        super().__init__(config, steps, steps_per_epoch)
        self.warmup = 0

    def after_warmup(self, step: float) -> float:  # noqa: D102
        peak = self.config.lr
        top = max(ONE_CYCLE_RISE * self.steps - 1, 1e-9)
        if step <= top:
            return _half_cosine(peak / ONE_CYCLE_START, peak, step / top)
        return _half_cosine(peak, self.low, (step - top) / max(1e-9, self.steps - 1 - top))


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))


def settle_statistics(
    model: nn.Module, batches: Iterable[dict[str, Tensor]], chip: torch.device, precision: str
) -> None:
    """Estimate anew what BatchNorm knows of the data, as the plain mean over batches.

    For weights that no step made (means of others): what it knew belongs to those.
    Layers without trained weights keep what they know, as they did in training. Where a model has
    no such layer nothing is read.
    """
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm) and not _is_frozen(m)]
    if not layers:
        return
    was_training = {module: module.training for module in model.modules()}
    model.train()
    freeze_modes(model)
    try:
        fill_statistics(model, layers, batches, chip, precision)
    finally:
        for module, training in was_training.items():
            module.training = training


def fill_statistics(
    model: nn.Module,
    layers: Sequence[_BatchNorm],
    batches: Iterable[dict[str, Tensor]],
    chip: torch.device,
    precision: str,
) -> None:
    """Give layers that are in training mode the plain mean of the statistics of some batches."""
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # torch's word for a plain mean
    try:
        with torch.no_grad(), device.autocast(chip, precision):
            for batch in batches:
                model({key: tensor.to(chip) for key, tensor in batch.items()})
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum


def freeze_modes(net: nn.Module) -> None:
    """Put the parts of a net in training mode that hold no trained weight into evaluation mode.

    Their BatchNorm statistics and dropout are then those of inference.
    """
    for module in net.modules():
        if _is_frozen(module):
            module.eval()


def _is_frozen(module: nn.Module) -> bool:
    """Tell whether a module has weights, and none of them is trained."""
    weights = list(module.parameters())
    return bool(weights) and not any(weight.requires_grad for weight in weights)
