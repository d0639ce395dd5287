"""What an epoch's training items cost so far: summed on the device, brought together over ranks."""

import math

import torch

from src.compute import ranks
from src.training.run import SUMS, Run


def begin(run: Run, chip: torch.device) -> None:
    """Go on with the sums of a run on a device, of which the leading rank holds what was."""
    for name in SUMS:
        start = torch.as_tensor(getattr(run, name), dtype=torch.float32, device=chip)
        setattr(run, name, start if ranks.leads() else torch.zeros_like(start))
    terms = {name: found.to(chip) for name, found in run.terms.items()}
    run.terms = {k: v if ranks.leads() else torch.zeros_like(v) for k, v in terms.items()}


def bring_together(run: Run) -> None:
    """Let the sums of a run be those of all ranks, on each of them; `begin` goes on from there."""
    if ranks.count() == 1 or not run.batch:
        return
    names = sorted({name for each in ranks.gathered(list(run.terms)) for name in each})
    for name in SUMS:
        setattr(run, name, ranks.summed(torch.as_tensor(getattr(run, name)).clone()))
    run.terms = {name: ranks.summed(run.terms[name].clone()) for name in names}


def running(run: Run, batch_size: int, batches: float) -> dict[str, float]:
    """Return the mean loss and the accuracy of the epoch's training items so far.

    As they were trained on: augmented, and by weights that changed in the meantime; with each term
    that was added to the loss, layer by layer too. There is no accuracy where a `loss` of one's own
    does without `outputs`.

    Args:
        run: whose sums.
        batch_size: items of a batch.
        batches: that the sums are of.
    """
    items = batches * batch_size
    found = {"train_loss": float(run.loss_sum) / batches}
    accuracy = float(run.right) / items
    if not math.isnan(accuracy):
        found["train_accuracy"] = accuracy
    for name, term in run.terms.items():
        found[f"train_{name}"] = float(term.mean()) / items
        if term.ndim:
            layers = enumerate((term / items).tolist(), 1)
            found |= {f"train_{name}_{layer}": value for layer, value in layers}
    return found
