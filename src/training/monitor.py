"""What an epoch is judged by: held-out scores, which of them steers a run, and the log's line."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from src.ensemble.calibration import fit_temperature
from src.errors import UserError
from src.metrics import (
    Metric,
    auc,
    classification_report,
    log_loss,
    log_odds,
    score_of,
    sigmoid,
)
from src.training.job import Job

if TYPE_CHECKING:  # the report says what is said here, without torch
    from torch import Tensor

LOSS = "log_loss"  # the metric that a config calls `loss`
SHOWN = (LOSS, "accuracy", "macro_f1", "f1_real", "f1_fake", "precision", "recall", "auc")


def monitored(job: Job) -> Metric | None:
    """Return the metric of held-out items that steers a run; None where none has a say."""
    if job.is_refit or not job.config.is_steered:
        return None
    return job.config.monitored


def check_monitor(job: Job) -> None:
    """Raise a UserError where the held-out items cannot tell the metric that steers a run."""
    metric = monitored(job)
    if metric is None:
        return
    label = job.labels[job.held_rows]
    fakes = int(label.sum())
    reals = len(label) - fakes
    if why := metric.undefined(reals, fakes) or metric.limited(reals, fakes):
        raise UserError(
            f"{job.title}: no epoch can be judged by monitor: {metric.name}, for the held-out "
            f"items are too few of a kind ({why}); take monitor: accuracy or loss, or no choice "
            "among epochs (selection: last, no patience)"
        )


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


def count_right(logit: "Tensor", label: "Tensor") -> "Tensor":
    """Return how many of (n,) logits are on the side of their (n,) labels; stays on the device.

    A mixed item's label is that of its larger part.
    """
    return ((logit.detach() >= 0) == (label >= 0.5)).sum()


def epoch_line(entry: dict[str, Any], epochs: int, seconds: float, how: str = "") -> str:
    """Return what the log says of an entry of the history, one of so many epochs.

    `how` is what the held-out items were seen by, where the run's predictions will be by more.
    """
    known = ("epoch", "stage", "items_per_second", *SHOWN)
    rest = [name for name in entry if name not in known and not name.startswith("train_")]
    names = [*(name for name in SHOWN if name in entry), *rest]
    scores = " ".join(f"{_short(name)} {entry[name]:.4f}" for name in names)
    scores = f"held out at 0.5{how}: {scores}" if scores else "nothing held out"
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
    """Return the loss of the training items, its terms and the accuracy as text; no layers."""
    names = [name for name in entry if name.startswith("train_") and not name[-1].isdigit()]
    return " ".join(f"{name.removeprefix('train_')} {entry[name]:.4f}" for name in names)


def _short(name: str) -> str:
    return "loss" if name == LOSS else name


def constant_loss(label: NDArray[np.int64]) -> float:
    """Return the log loss of answering every one of (n,) items with the share of fakes in them.

    At most ln 2, a coin's.
    """
    share = log_odds(np.full(len(label), label.mean()))
    return log_loss(label, share)


def confidence_note(label: NDArray[np.int64], logit: NDArray[np.float64]) -> str:
    """Say that (n,) logits are over-confident, and the way out; "" where they are not.

    They are where their log loss is worse than that of one answer for all items: who pays for
    probabilities then pays for this net. A temperature (Guo et al., ICML 2017) tells how far the
    logits are too large.
    """
    loss, constant = log_loss(label, logit), constant_loss(label)
    if loss <= constant:
        return ""
    slope = fit_temperature(label, logit).slope
    cooled = log_loss(label, slope * logit)
    said = (
        f"over-confident: a held-out loss of {loss:.4f} is worse than that of one answer for all "
        f"items, their share of fakes ({constant:.4f}). "
    )
    if constant - cooled < 0.01 * constant:
        area = auc(label, logit)
        return f"{said}Smaller logits would not help: they tell little apart (AUC {area:.4f})"
    return (
        f"{said}Divided by {1 / slope:.1f}, the logits would have one of {cooled:.4f}. AUC and a "
        "tuned threshold do not mind; for probabilities tune.py calibrates. Or train a variant: "
        "--set loss.label_smoothing=0.1, fewer epochs, or --set monitor=loss --set selection=best"
    )
