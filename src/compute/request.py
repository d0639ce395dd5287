"""What a command was asked to compute with: one object, from its flags down to every pass."""

import logging
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from src.compute import ranks
from src.compute.clock import Clock
from src.machine import cpu_count

if TYPE_CHECKING:  # a request is made before torch is loaded, which not every command needs
    import torch

LOG = logging.getLogger("rvf")
LARGEST = 512  # images a forward pass that prediction starts with on a GPU


@dataclass(frozen=True)
class Compute:
    """Where, in which arithmetic, how much at once and until when."""

    device: str = "auto"  # `auto`, `cpu`, `cuda`, `cuda:1`, `mps`
    precision: str = "auto"  # `auto`, `fp32`, `bf16`, `fp16`, of exported files `int8` too
    workers: int | None = None  # processes that decode; 0 decodes in this one, None chooses
    engine: str | None = None  # `eager`, `onnx`, `openvino`; None is eager
    compile: bool = False  # through torch.compile
    auto_batch: bool = False  # as much at once as fits into the GPU's memory; else advice
    batch_size: int = 64  # images a forward pass of a prediction
    clock: Clock = field(default_factory=Clock)  # when to stop

    @cached_property
    def chip(self) -> "torch.device":
        """The device, as torch knows it; raises a UserError where there is none such."""
        from src.compute.device import choose_device

        return choose_device(self.device)

    def processes(self, n_items: int) -> int:
        """Return how many processes decode so many items."""
        return default_workers(n_items) if self.workers is None else self.workers

    def for_items(self, n_items: int) -> "Compute":
        """Return the request to predict so many items: processes and images a pass are chosen."""
        shrinks = self.auto_batch and self.chip.type == "cuda"
        if self.auto_batch and not shrinks:
            LOG.info("--auto-batch: no GPU here, %d images a pass as always", self.batch_size)
        return replace(
            self,
            workers=self.processes(n_items),
            auto_batch=shrinks,
            batch_size=LARGEST if shrinks else self.batch_size,
        )


def default_workers(n_items: int = 1_000_000) -> int:
    """Return how many processes decode: one core is left to the model, and few items need none."""
    cores = cpu_count() // ranks.neighbours()
    return max(0, min(cores - 1, 8, n_items // 2000))
