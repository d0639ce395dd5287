"""Every metric, on numpy arrays in float64: label 0 real, 1 fake; `pred = prob >= threshold`.

Fake is positive: the attack of ISO/IEC 30107-3. Papers on face anti-spoofing such as FLIP
(Srivatsan et al., ICCV 2023) take the real face as positive: `swapped` gives their curve.

A metric is a function under `@metric`, and the scorecard shows it; `tuned=True` makes it one that a
data set may be scored by (`metric:` in dataset.yaml), which `tune.py` then maximises. Items may
carry weights, whole numbers of copies, so that a bootstrap sorts once.

Two classes: probs and logits are (n,), of the class fake. Of more classes they would be (n,
classes), and the functions below would take such; `check_label` refuses them until then.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from src.errors import UserError, unknown_name
from src.registry import Registry

FloatArray = NDArray[np.float64]
NAN = float("nan")
BINS = 15  # of the calibration error
TINY = float(np.finfo(np.float64).tiny)
EDGE = float(np.finfo(np.float64).eps)  # how near to 0 and 1 a prob may come as log odds

# What a metric is computed from.
DECISIONS = "decisions"  # Counts of decisions at the threshold; numbers, or arrays of one shape
DEVELOPMENT = "development decisions"  # Counts at EER cuts that other rows chose
OWN_CUT = "decisions at the own EER cut"  # Counts at the EER cut of these very rows
ATTACKS = "attacks"  # Counts at the threshold, and APCER of the worst kind of attack
RANKS = "ranks"  # Roc
LOSSES = "losses"  # (n,) labels as bool and (n,) logits; gives (n,), whose mean is the metric
PROBS = "probs"  # (n,) labels as bool, (n,) probs and (n,) weights
BOTH, REAL, FAKE, ANY = "both", "real", "fake", "any"  # classes that there must be


@dataclass(frozen=True)
class Metric:
    """What a metric wants, and how it is computed."""

    name: str
    wants: str  # one of `DECISIONS` .. `PROBS`
    compute: Callable[..., Any]
    classes: str = BOTH  # without which it says nothing
    higher: bool = True  # whether more is better
    # class and share of it that may be wrong: with fewer items than 1 / share none may
    allows: tuple[str, float] | None = None
    tuned: bool = False  # whether a data set may be scored by it
    bounds: tuple[float, float] = (0.0, 1.0)  # the lowest and the highest value

    @property
    def decides(self) -> bool:
        """Tell whether it is of decisions, so that a threshold has to be found for it."""
        return self.wants in (DECISIONS, DEVELOPMENT)

    @property
    def sign(self) -> int:
        """Return 1 where more is better, else -1: what makes a value something to maximise."""
        return 1 if self.higher else -1

    @property
    def title(self) -> str:
        """Return its name as people write it."""
        return TITLES.get(self.name, self.name.replace("_", " "))

    def undefined(self, reals: int, fakes: int) -> str:
        """Say why it says nothing of so many items; "" where it does."""
        if reals + fakes < 2:
            return "one item only"
        if self.classes in (BOTH, REAL) and not reals:
            return "only fakes"
        return "only reals" if self.classes in (BOTH, FAKE) and not fakes else ""

    def limited(self, reals: int, fakes: int) -> str:
        """Say where a class is too small for a rate's limit to allow a single error."""
        if self.allows is None:
            return ""
        kind, share = self.allows
        n, name = (reals, "reals") if kind == REAL else (fakes, "fakes")
        return f"{n} {name}: the limit allows no error at all" if n * share < 1 else ""


METRICS: Registry[Metric] = Registry("metric")
DEFAULT = "macro_f1"  # what a data set is scored by that names no metric
TITLES = {
    "macro_f1": "macro-F1", "f1_real": "F1 of real", "f1_fake": "F1 of fake", "auc": "AUC",
    "ap": "AP", "eer": "EER", "hter": "HTER", "mcc": "MCC", "brier": "Brier score",
}  # fmt: skip
ALIASES = {
    "f1": "f1_fake", "f1_macro": "macro_f1", "acc": "accuracy", "roc_auc": "auc", "auroc": "auc",
    "average_precision": "ap", "loss": "log_loss", "logloss": "log_loss",
    "cross_entropy": "log_loss", "brier_score": "brier", "matthews": "mcc",
}  # fmt: skip
_AT_LIMIT = re.compile(r"(tpr@fpr|tnr@fnr)=([0-9.]+(?:e-?\d+)?)(%?)")


def _find(name: str) -> Metric | None:
    plain = name.lower().replace("-", "_")
    plain = ALIASES.get(plain, plain)
    at_limit = _AT_LIMIT.fullmatch(plain.replace(" ", ""))
    if plain not in METRICS and at_limit:
        limit = float(at_limit[2]) / (100 if at_limit[3] else 1)
        return _at_limit(at_limit[1], limit) if 0 < limit < 1 else None
    return METRICS.get(plain) if plain in METRICS else None


def metric_named(name: str) -> Metric:
    """Return a metric by its name, another name in use (`ALIASES`), or `tpr@fpr=X%` of any X.

    Raises:
        UserError: unknown, with the nearest known name.
    """
    found = _find(name)
    if found is None:
        raise unknown_name("metric", name, METRICS)
    return found


def tuned_metric(name: str) -> Metric:
    """Return a metric that a data set may be scored by; see `metric_named`.

    Raises:
        UserError: unknown, or one that is met by calling all items real or all fake.
    """
    found, known = _find(name), [one.name for one in METRICS.in_order() if one.tuned]
    if found is None:
        raise unknown_name("metric", name, known)
    if not found.tuned:
        raise UserError(
            f"metric {name!r} says too little alone to be tuned for; choose one of "
            + ", ".join(known)
        )
    return found


def tuned_name(name: str) -> str:
    """Return the own name of a metric that a data set may be scored by, for models of a YAML.

    Raises:
        ValueError: what `tuned_metric` raises, as pydantic wants it.
    """
    try:
        return tuned_metric(name).name
    except UserError as error:
        raise ValueError(str(error)) from None


def metric(name: str, wants: str, classes: str = BOTH, **rest: Any) -> Callable[[Any], Any]:  # noqa: ANN401 - fields
    """Register a function as a metric."""

    def add(compute: Callable[..., Any]) -> Callable[..., Any]:
        METRICS.register(name)(Metric(name, wants, compute, classes, **rest))
        return compute

    return add


class Counts(NamedTuple):
    """The confusion counts; numbers, or arrays of the same shape."""

    tn: FloatArray
    fp: FloatArray
    fn: FloatArray
    tp: FloatArray


class Roc(NamedTuple):
    """The ROC curve, as counts: what `score >= cut` calls fake."""

    cut: FloatArray  # (k + 1,) falling: inf, half-way between the k distinct scores, -inf
    fp: FloatArray  # (k + 1,) reals called fake, from 0 to all
    tp: FloatArray  # (k + 1,) fakes called fake, from 0 to all


def sigmoid(logit: ArrayLike) -> FloatArray:
    """Return P(fake) of logits, float64 and without overflow."""
    logit = np.asarray(logit, dtype=np.float64)
    small = np.exp(-np.abs(logit))
    return np.where(logit >= 0, 1.0, small) / (1.0 + small)


def log_odds(prob: ArrayLike, edge: float = EDGE) -> FloatArray:
    """Return the logits of probs, which are first kept `edge` away from 0 and 1."""
    prob = np.clip(np.asarray(prob, dtype=np.float64), edge, 1 - edge)
    return np.log(prob) - np.log1p(-prob)


def check_label(label: ArrayLike, other: ArrayLike, what: str) -> NDArray[np.bool_]:
    """Return (n,) labels as bool; `other`, which messages call `what`, are n finite numbers.

    Raises:
        ValueError: no items, other shapes, a label other than 0/1, a number that is not finite.
    """
    label, other = np.asarray(label), np.asarray(other)
    if label.ndim != 1 or label.shape != other.shape or not label.size:
        raise ValueError(f"label {label.shape} and {what} {other.shape} are not two equal (n,)")
    fake = label == 1
    if not (fake | (label == 0)).all():
        raise ValueError(
            f"labels are {np.unique(label)[:5].tolist()}, want 0 (real) and 1 (fake); more than "
            "two classes are not scored yet"
        )
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


def weighted_counts(
    fake: NDArray[np.bool_], said: NDArray[np.bool_], weight: NDArray[np.int64]
) -> Counts:
    """Return the confusion counts of (n,) items and decisions, each counted `weight` times."""
    cells = np.bincount(2 * fake + said, weights=weight, minlength=4)
    return Counts(*cells)


def ratio(part: FloatArray, whole: FloatArray) -> FloatArray:
    """Divide whole numbers; 0/0 is 0 (scikit-learn's `zero_division=0`)."""
    return part / np.maximum(whole, 1)


def _share(part: ArrayLike, whole: ArrayLike) -> FloatArray:
    """Divide whole numbers; 0/0 is NaN."""
    whole = np.asarray(whole)
    return np.divide(part, whole, out=np.full(whole.shape, NAN), where=whole > 0)


@metric("macro_f1", DECISIONS, tuned=True)
def macro_f1_of_counts(c: Counts) -> FloatArray:
    """Return the mean of both classes' F1."""
    return (f1_real(c) + f1_fake(c)) / 2


@metric("f1_real", DECISIONS, REAL, tuned=True)
def f1_real(c: Counts) -> FloatArray:
    """Return the F1 of class 0; 0 where it has neither items nor predictions."""
    return ratio(2 * c.tn, 2 * c.tn + c.fn + c.fp)


@metric("f1_fake", DECISIONS, FAKE, tuned=True)
def f1_fake(c: Counts) -> FloatArray:
    """Return the F1 of class 1; 0 where it has neither items nor predictions."""
    return ratio(2 * c.tp, 2 * c.tp + c.fn + c.fp)


@metric("precision_real", DECISIONS, REAL)
def precision_real(c: Counts) -> FloatArray:
    """Return the share of reals among the items called real; 0 if none was."""
    return ratio(c.tn, c.tn + c.fn)


@metric("precision_fake", DECISIONS, FAKE)
def precision_fake(c: Counts) -> FloatArray:
    """Return the share of fakes among the items called fake; 0 if none was."""
    return ratio(c.tp, c.tp + c.fp)


@metric("recall_real", DECISIONS, REAL)
def recall_real(c: Counts) -> FloatArray:
    """Return the share of reals that were called real; 0 if there is none."""
    return ratio(c.tn, c.tn + c.fp)


@metric("recall_fake", DECISIONS, FAKE)
def recall_fake(c: Counts) -> FloatArray:
    """Return the share of fakes that were called fake; 0 if there is none."""
    return ratio(c.tp, c.tp + c.fn)


@metric("accuracy", DECISIONS, ANY, tuned=True)
def accuracy(c: Counts) -> FloatArray:
    """Return the share of right decisions."""
    return ratio(c.tn + c.tp, c.tn + c.fp + c.fn + c.tp)


@metric("balanced_accuracy", DECISIONS, tuned=True)
def balanced_accuracy(c: Counts) -> FloatArray:
    """Return the mean of both classes' recall; NaN where a class is absent."""
    return 1 - hter(c)


@metric("mcc", DECISIONS, tuned=True, bounds=(-1.0, 1.0))
def matthews(c: Counts) -> FloatArray:
    """Return the correlation of labels and decisions (Matthews 1975); 0 where one is constant."""
    reals, fakes, said = c.tn + c.fp, c.tp + c.fn, c.tp + c.fp
    spread = np.sqrt(reals * fakes) * np.sqrt(said * (c.tn + c.fn))
    return (c.tp * c.tn - c.fp * c.fn) / np.maximum(spread, TINY)


@metric("auc", RANKS, tuned=True)
def area(curve: Roc) -> float:
    """Return the area under the ROC curve, P(score of a fake > that of a real); a tie counts half.

    NaN where a class is absent.
    """
    reals, fakes = curve.fp[-1], curve.tp[-1]
    if not reals or not fakes:
        return NAN
    # Whole numbers until the end: the reals below each fake, and those not above it.
    pairs = np.diff(curve.tp) @ (2 * reals - curve.fp[1:] - curve.fp[:-1])
    return float(pairs / (2.0 * fakes * reals))


@metric("ap", RANKS, tuned=True)
def average_precision(curve: Roc) -> float:
    """Return AP = sum over cuts of (recall gained) * precision there, without interpolation.

    As scikit-learn's `average_precision_score`. NaN where a class is absent.
    """
    if _rates(curve) is None:
        return NAN
    precision = curve.tp[1:] / np.maximum(curve.tp[1:] + curve.fp[1:], 1)
    return float(np.sum(np.diff(curve.tp) / curve.tp[-1] * precision))


@metric("eer", RANKS, higher=False, tuned=True)
def eer(curve: Roc) -> float:
    """Return the equal error rate: x where the ROC curve crosses TPR = 1 - x.

    Between its points the curve is a straight line, and the crossing is solved exactly: what
    scipy's brentq on 1 - x - TPR(x) finds (FSFM, CVPR 2025, and most papers). DeepfakeBench
    (NeurIPS 2023) takes the FPR at argmin |FNR - FPR| over the points instead, which can differ by
    half a step of either rate. NaN where a class is absent.
    """
    rates = _rates(curve)
    if rates is None:
        return NAN
    fpr, tpr = rates
    gap = fpr + tpr - 1  # FPR - FNR: from -1 to 1, never falling
    after = int(np.argmax(gap >= 0))
    step = -gap[after - 1] / (gap[after] - gap[after - 1])
    return float(fpr[after - 1] + step * (fpr[after] - fpr[after - 1]))


@metric("hter_test_eer", OWN_CUT, higher=False)
@metric("hter", DEVELOPMENT, higher=False, tuned=True)
def hter(c: Counts) -> FloatArray:
    """Return the half total error rate (FPR + FNR) / 2; NaN where a class is absent.

    It is honest only at a threshold that was not chosen on these items; at the EER cut of the
    scored rows themselves many papers report it.
    """
    return (fpr(c) + fnr(c)) / 2


@metric("apcer", ATTACKS, FAKE, higher=False)
def worst_apcer(_c: Counts, worst: float) -> float:
    """Return APCER of all kinds of attack: that of the worst (ISO/IEC 30107-3)."""
    return worst


@metric("bpcer", DECISIONS, REAL, higher=False)
def fpr(c: Counts) -> FloatArray:
    """Return the share of reals called fake: BPCER (ISO/IEC 30107-3), FAR; NaN without reals."""
    return _share(c.fp, c.fp + c.tn)


def fnr(c: Counts) -> FloatArray:
    """Return the share of fakes called real: the miss rate, FRR; NaN without fakes."""
    return _share(c.fn, c.fn + c.tp)


@metric("acer", ATTACKS, higher=False)
def acer(c: Counts, worst: float) -> float:
    """Return the average of the worst kind's APCER and BPCER (ISO/IEC 30107-3:2017)."""
    return (worst + float(fpr(c))) / 2


def _at_limit(kind: str, limit: float) -> Metric:
    """Return the rate of one class where a share `limit` of the other may be wrong."""

    def compute(curve: Roc) -> float:
        return tpr_at_fpr(curve if kind == "tpr@fpr" else swapped(curve), limit)

    name = f"{kind}={limit * 100:.6g}%"
    of = REAL if kind == "tpr@fpr" else FAKE
    return Metric(name, RANKS, compute, allows=(of, limit), tuned=True)


for _made in (_at_limit("tpr@fpr", 0.01), _at_limit("tpr@fpr", 0.001), _at_limit("tnr@fnr", 0.01)):
    METRICS.register(_made.name)(_made)  # tnr@fnr: TPR@FPR of papers with real = positive


@metric("log_loss", LOSSES, ANY, higher=False, tuned=True, bounds=(0.0, float("inf")))
def cross_entropy(fake: NDArray[np.bool_], logit: FloatArray) -> FloatArray:
    """Return (n,) cross entropies in nats; from logits, so nothing has to be clipped."""
    return np.logaddexp(0.0, np.where(fake, -logit, logit))


@metric("brier", LOSSES, ANY, higher=False, tuned=True)
def squared_error(fake: NDArray[np.bool_], logit: FloatArray) -> FloatArray:
    """Return (n,) squared distances of P(fake) from the label (Brier 1950, of one class)."""
    return (sigmoid(logit) - fake) ** 2


@metric("ece", PROBS, ANY, higher=False)
def calibration_error(
    fake: NDArray[np.bool_],
    prob: FloatArray,
    weight: NDArray[np.int64] | None = None,
    bins: int = BINS,
) -> float:
    """Return the mean distance of P(fake) from the share of fakes (Guo et al., ICML 2017, eq. 3).

    Sum over bins of (items / n) * |share of fakes - mean prob|, in equally wide bins of P(fake)
    itself, which a voting of probs relies on, not of the confidence in the decision.
    """
    weight = np.ones(fake.size, np.int64) if weight is None else weight
    gap = np.bincount(bins_of(prob, bins), weight * (fake - prob), bins)
    return float(np.abs(gap).sum() / weight.sum())


def bins_of(prob: FloatArray, bins: int = BINS) -> NDArray[np.int64]:
    """Return the bin of (n,) probs, 0..bins-1, all equally wide; 1.0 lies in the last."""
    return np.minimum((prob * bins).astype(np.int64), bins - 1)


def attack_errors(
    kind: NDArray[np.intp], missed: NDArray[np.bool_], weight: NDArray[np.int64], n_kinds: int
) -> FloatArray:
    """Return APCER of each kind of attack (ISO/IEC 30107-3): the share of its fakes called real.

    Args:
        kind: (m,) code of every fake, 0..n_kinds-1.
        missed: (m,) whether it was called real.
        weight: (m,) copies of it.
        n_kinds: number of kinds.

    Returns:
        (n_kinds,), NaN where a kind has no fakes.
    """
    wrong = np.bincount(kind, weight * missed, n_kinds)
    return _share(wrong, np.bincount(kind, weight, n_kinds))


@dataclass(frozen=True)
class Ranking:
    """Items sorted by score, once for all weights."""

    order: NDArray[np.intp]  # (n,) rows, the highest score first
    fake: NDArray[np.bool_]  # (n,) bool, in that order
    last: NDArray[np.intp]  # (k,) place of the last item of each distinct score
    cut: FloatArray  # (k + 1,) as in `Roc`


def rank(label: ArrayLike, score: ArrayLike) -> Ranking:
    """Sort (n,) items by finite scores: probs, or logits; raises as `check_label`."""
    fake = check_label(label, score, "score")
    score = np.asarray(score, dtype=np.float64)
    order = np.argsort(-score, kind="stable")
    value = score[order]
    last = np.append(np.flatnonzero(value[1:] < value[:-1]), value.size - 1)
    upper, lower = value[last[:-1]], value[last[:-1] + 1]
    middle = lower + (upper - lower) / 2
    cut = np.concatenate(([np.inf], np.where(middle > lower, middle, upper), [-np.inf]))
    return Ranking(order, fake[order], last, cut)


def roc_of(ranking: Ranking, weight: NDArray[np.int64] | None = None) -> Roc:
    """Return the ROC curve of ranked items, (n,) copies of each (None: one)."""
    share = np.ones(ranking.order.size) if weight is None else weight[ranking.order].astype(float)
    called = np.append(0.0, np.cumsum(share)[ranking.last])
    tp = np.append(0.0, np.cumsum(share * ranking.fake)[ranking.last])
    return Roc(ranking.cut, called - tp, tp)


def roc(label: ArrayLike, score: ArrayLike) -> Roc:
    """Return the ROC curve of (n,) labels and finite scores; raises as `check_label`."""
    return roc_of(rank(label, score))


def roc_of_counts(real: NDArray[Any], fake: NDArray[Any]) -> Roc:
    """Return the ROC curve of a histogram: (b,) reals and fakes of rising scores, in any unit."""
    called = np.zeros((2, real.size + 1))
    for row, part in zip(called, (real, fake), strict=True):
        row[1:] = np.cumsum(part[::-1])  # of whole numbers, several times as fast as of floats
    return Roc(np.arange(real.size + 1, 0.0, -1.0), *called)


def swapped(curve: Roc) -> Roc:
    """Return the curve with the real as positive: what `score < cut` calls real, cuts rising."""
    fp, tp = curve.fp[::-1], curve.tp[::-1]
    return Roc(curve.cut[::-1], tp[0] - tp, fp[0] - fp)


def _rates(curve: Roc) -> tuple[FloatArray, FloatArray] | None:
    """Return FPR and TPR; None where a class is absent."""
    reals, fakes = curve.fp[-1], curve.tp[-1]
    return (curve.fp / reals, curve.tp / fakes) if reals and fakes else None


def eer_cut(curve: Roc) -> float:
    """Return the cut whose FNR and FPR are closest: the threshold "at the EER".

    Among equally close ones that of the lowest sum of both, then the highest cut. Unlike `eer`
    itself it is a cut that can be made, so its HTER may differ a little from the EER. NaN where a
    class is absent.
    """
    reals, fakes = curve.fp[-1], curve.tp[-1]
    if not reals or not fakes:
        return NAN
    # Whole numbers: equal distances are equal to the last bit.
    wrong_real, wrong_fake = curve.fp * fakes, (fakes - curve.tp) * reals
    best = np.lexsort((wrong_real + wrong_fake, np.abs(wrong_real - wrong_fake)))[0]
    return float(curve.cut[best])


def tpr_at_fpr(curve: Roc, limit: float) -> float:
    """Return the TPR at the last point of the ROC curve with FPR <= limit; 0 if none finds a fake.

    No interpolation, as FLIP computes it (on `swapped`). NaN where a class is absent.
    """
    rates = _rates(curve)
    if rates is None:
        return NAN
    return float(rates[1][np.searchsorted(rates[0], limit, "right") - 1])


def score_of(metric: Metric, label: ArrayLike, prob: ArrayLike, pred: ArrayLike) -> float:
    """Return a metric that a data set may be scored by, of (n,) labels, probs and decisions.

    Probs of exactly 0 and 1 are kept `EDGE` away from them, as scikit-learn's `log_loss` does. NaN
    where the metric is undefined.
    """
    if metric.decides:
        return float(metric.compute(counts(label, pred)))
    fake = check_label(label, prob, "prob")
    if metric.wants == LOSSES:
        return float(np.mean(metric.compute(fake, log_odds(prob))))
    if metric.name == "auc":
        return auc(label, prob)  # the same to the last bit, and faster
    return float(metric.compute(roc(label, prob)))


def macro_f1(label: ArrayLike, pred: ArrayLike) -> float:
    """Return the plain mean of both classes' F1, of (n,) labels and (n,) decisions.

    The same as scikit-learn's `f1_score(labels=[0, 1], average="macro", zero_division=0)`.
    """
    return float(macro_f1_of_counts(counts(label, pred)))


def auc(label: ArrayLike, score: ArrayLike) -> float:
    """Return `area` of (n,) labels and probs or logits, to the last bit, at a third of its time."""
    fake = check_label(label, score, "score")
    score = np.asarray(score, dtype=np.float64)
    fakes, reals = np.sort(score[fake]), np.sort(score[~fake])
    if not fakes.size or not reals.size:
        return NAN
    below = np.searchsorted(reals, fakes, "left").sum()
    upto = np.searchsorted(reals, fakes, "right").sum()
    return float((below + upto) / (2.0 * fakes.size * reals.size))


def log_loss(label: ArrayLike, logit: ArrayLike) -> float:
    """Return the mean cross entropy in nats."""
    fake = check_label(label, logit, "logit")
    return float(np.mean(cross_entropy(fake, np.asarray(logit, dtype=np.float64))))


MACRO_F1 = METRICS.get(DEFAULT)


def classification_report(
    label: ArrayLike, logit: ArrayLike, threshold: float = 0.5
) -> dict[str, float]:
    """Return what training prints per epoch, of (n,) labels and finite logits.

    `accuracy, macro_f1, f1_real, f1_fake, precision, recall` (of class fake) at the threshold on
    P(fake), and `auc` (NaN where a class is absent).
    """
    check_label(label, logit, "logit")
    c = counts(label, sigmoid(logit) >= threshold)
    return {
        "accuracy": float(accuracy(c)),
        "macro_f1": float(macro_f1_of_counts(c)),
        "f1_real": float(f1_real(c)),
        "f1_fake": float(f1_fake(c)),
        "precision": float(precision_fake(c)),
        "recall": float(recall_fake(c)),
        "auc": auc(label, logit),
    }
