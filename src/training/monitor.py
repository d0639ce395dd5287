"""What an epoch is judged by: held-out scores, which of them steers a run, and the log's line."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from src.metrics import Metric, classification_report, log_loss, score_of, sigmoid
from src.training.job import Job

LOSS = "log_loss"  # the metric that a config calls `loss`
SHOWN = (LOSS, "accuracy", "macro_f1", "f1_real", "f1_fake", "precision", "recall", "auc")


def monitored(job: Job) -> Metric | None:
    """Return the metric of held-out items that steers a run; None where none has a say."""
    if job.is_refit or not job.config.is_steered:
        return None
    return job.config.monitored


def held_out_scores(
    label: NDArray[np.int64], logit: NDArray[np.float64], also: Metric | None = None
) -> dict[str, float]:
    """Return the scores at 0.5 of (n,) held-out labels and logits, and the log loss.

    The log loss is plain cross-entropy in nats, whatever is trained by: without class weights,
    smoothing or terms, so that it is one number for all models, and what the scorecard shows.
    `also` is a further metric to report, by its name.
    """
    found = {LOSS: log_loss(label, logit), **classification_report(label, logit, 0.5)}
    if also is not None and also.name not in found:
        prob = sigmoid(logit)
        found[also.name] = score_of(also, label, prob, (prob >= 0.5).astype(np.int64))
    return found


def count_right(logit: Tensor, label: Tensor) -> Tensor:
    """Return how many of (n,) logits are on the side of their (n,) labels; stays on the device.

    A mixed item's label is that of its larger part.
    """
    return ((logit.detach() >= 0) == (label >= 0.5)).sum()


def epoch_line(entry: dict[str, Any], epochs: int, seconds: float) -> str:
    """Return what the log says of an entry of the history, one of so many epochs."""
    known = ("epoch", "stage", "train_loss", "train_accuracy", "items_per_second", *SHOWN)
    names = [*(name for name in SHOWN if name in entry), *(n for n in entry if n not in known)]
    scores = " ".join(f"{_short(name)} {entry[name]:.4f}" for name in names)
    scores = f"held out at 0.5: {scores}" if scores else "nothing held out"
    stage = f"{entry['stage']} " if entry.get("stage") else ""
    return (
        f"{stage}epoch {entry['epoch']}/{epochs}: {train_words(entry)} | {scores} | "
        f"{entry['items_per_second']:.0f} img/s {seconds:.0f} s"
    )


def stop_line(job: Job, history: list[dict[str, Any]], best: int) -> str:
    """Return what the log says of a stage that patience ended; `best` is its best epoch."""
    metric, last = monitored(job), history[-1]["epoch"]
    if metric is None:
        return f"stopped after epoch {last}"
    value = next(entry[metric.name] for entry in history if entry["epoch"] == best)
    kept = best if job.config.selection == "best" else last
    return (
        f"stopped after epoch {last}: the held-out {_short(metric.name)} was best in epoch {best} "
        f"({value:.4f}); the weights of epoch {kept} are kept"
    )


def train_words(entry: dict[str, Any]) -> str:
    """Return the loss and the accuracy of the training items as text."""
    names = [name for name in ("train_loss", "train_accuracy") if name in entry]
    return " ".join(f"{name.removeprefix('train_')} {entry[name]:.4f}" for name in names)


def _short(name: str) -> str:
    return "loss" if name == LOSS else name
