"""Every score, on numpy arrays: label 0 real, 1 fake; `pred = prob >= threshold`; float64."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]


class Counts(NamedTuple):
    """The confusion counts; numbers, or arrays of the same shape."""

    tn: FloatArray
    fp: FloatArray
    fn: FloatArray
    tp: FloatArray


def sigmoid(logit: ArrayLike) -> FloatArray:
    """Return P(fake) of logits, float64 and without overflow."""
    logit = np.asarray(logit, dtype=np.float64)
    small = np.exp(-np.abs(logit))
    return np.where(logit >= 0, 1.0, small) / (1.0 + small)


def log_odds(prob: ArrayLike, edge: float) -> FloatArray:
    """Return the logits of probs, which are first kept `edge` away from 0 and 1."""
    prob = np.clip(np.asarray(prob, dtype=np.float64), edge, 1 - edge)
    return np.log(prob) - np.log1p(-prob)


def check_label(label: ArrayLike, other: ArrayLike, what: str) -> NDArray[np.bool_]:
    """Return labels as bool after checking them against what they are paired with.

    Args:
        label: (n,) 0 or 1.
        other: (n,) finite numbers.
        what: name of `other` in messages.

    Raises:
        ValueError: no items, other shapes, a label other than 0/1, a number that is not finite.
    """
    label, other = np.asarray(label), np.asarray(other)
    if label.ndim != 1 or label.shape != other.shape or not label.size:
        raise ValueError(f"label {label.shape} and {what} {other.shape} are not two equal (n,)")
    fake = label == 1
    if not (fake | (label == 0)).all():
        raise ValueError(f"labels are {np.unique(label)[:5].tolist()}, want 0 (real) and 1 (fake)")
    if not np.isfinite(other).all():
        raise ValueError(f"{what} of row {int(np.argmin(np.isfinite(other)))} is not finite")
    return fake


def counts(label: ArrayLike, pred: ArrayLike) -> Counts:
    """Return the confusion counts of (n,) labels and (n,) decisions, both 0/1."""
    fake = check_label(label, pred, "pred")
    said = check_label(pred, label, "label")
    tp = np.count_nonzero(fake & said)
    n_fake, n_said = np.count_nonzero(fake), np.count_nonzero(said)
    values = (fake.size - n_fake - n_said + tp, n_said - tp, n_fake - tp, tp)
    return Counts(*np.array(values, dtype=np.float64))


def ratio(part: FloatArray, whole: FloatArray) -> FloatArray:
    """Divide whole numbers; 0/0 is 0 (scikit-learn's `zero_division=0`)."""
    return part / np.maximum(whole, 1)


def f1_real(c: Counts) -> FloatArray:
    """Return the F1 of class 0; 0 where it has neither items nor predictions."""
    return ratio(2 * c.tn, 2 * c.tn + c.fn + c.fp)


def f1_fake(c: Counts) -> FloatArray:
    """Return the F1 of class 1; 0 where it has neither items nor predictions."""
    return ratio(2 * c.tp, 2 * c.tp + c.fn + c.fp)


def accuracy(c: Counts) -> FloatArray:
    """Return the share of right decisions."""
    return ratio(c.tn + c.tp, c.tn + c.fp + c.fn + c.tp)


def precision(c: Counts) -> FloatArray:
    """Return the share of fakes among the items called fake; 0 if none was."""
    return ratio(c.tp, c.tp + c.fp)


def recall(c: Counts) -> FloatArray:
    """Return the share of fakes that were called fake; 0 if there is none."""
    return ratio(c.tp, c.tp + c.fn)


def macro_f1_of_counts(c: Counts) -> FloatArray:
    """Return the mean of both classes' F1, for one set of counts or for arrays of them."""
    return (f1_real(c) + f1_fake(c)) / 2


def macro_f1(label: ArrayLike, pred: ArrayLike) -> float:
    """Return the plain mean of both classes' F1, of (n,) labels and (n,) decisions.

    The same as scikit-learn's `f1_score(labels=[0, 1], average="macro", zero_division=0)`.
    """
    return float(macro_f1_of_counts(counts(label, pred)))


def auc(label: ArrayLike, score: ArrayLike) -> float:
    """Return the area under the ROC curve; a tie counts half.

    Args:
        label: (n,) 0/1.
        score: (n,) probs or logits.

    Returns:
        P(score of a fake > score of a real); NaN where a class is absent.
    """
    fake = check_label(label, score, "score")
    score = np.asarray(score, dtype=np.float64)
    fakes, reals = np.sort(score[fake]), np.sort(score[~fake])
    if not fakes.size or not reals.size:
        return float("nan")
    below = np.searchsorted(reals, fakes, "left").sum()
    upto = np.searchsorted(reals, fakes, "right").sum()
    return float((below + upto) / (2.0 * fakes.size * reals.size))


def log_loss(label: ArrayLike, logit: ArrayLike) -> float:
    """Return the mean cross entropy in nats; from logits, so nothing has to be clipped."""
    fake = check_label(label, logit, "logit")
    logit = np.asarray(logit, dtype=np.float64)
    return float(np.mean(np.logaddexp(0.0, np.where(fake, -logit, logit))))


def classification_report(
    label: ArrayLike, logit: ArrayLike, threshold: float = 0.5
) -> dict[str, float]:
    """Return what training prints per epoch.

    Args:
        label: (n,) 0/1.
        logit: (n,) finite.
        threshold: on P(fake).

    Returns:
        `accuracy, macro_f1, f1_real, f1_fake, precision, recall` (of class fake) and `auc` (NaN
        where a class is absent).
    """
    check_label(label, logit, "logit")
    c = counts(label, sigmoid(logit) >= threshold)
    return {
        "accuracy": float(accuracy(c)),
        "macro_f1": float(macro_f1_of_counts(c)),
        "f1_real": float(f1_real(c)),
        "f1_fake": float(f1_fake(c)),
        "precision": float(precision(c)),
        "recall": float(recall(c)),
        "auc": auc(label, logit),
    }
