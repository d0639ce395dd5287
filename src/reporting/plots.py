"""What one looks at after a run, each drawn into one pair of axes from labels and probs."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.artifacts.label_names import DEFAULT
from src.bootstrap import wilson_interval
from src.metrics import (
    BINS,
    Counts,
    area,
    average_precision,
    bins_of,
    calibration_error,
    counts,
    macro_f1,
    macro_f1_of_counts,
    roc,
)
from src.reporting.charts import LINE, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FloatArray = NDArray[np.float64]
Labels = NDArray[np.int64]
REAL, FAKE = "tab:blue", "tab:red"
HISTOGRAM_BINS, CUTS = 40, 201
LOSSES = {
    "train_loss": ("train, as it is minimised", "black", "--"),
    "log_loss": ("held out, log loss", "tab:purple", "-"),
}
SCORES = {
    "train_accuracy": ("accuracy, train", "black", "--"),
    "accuracy": ("accuracy, held out", "tab:blue", "-"),
    "macro_f1": ("macro-F1, held out", "tab:green", "-"),
    "auc": ("AUC, held out", "tab:orange", "-"),
}
_MARKS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")


class Bins(NamedTuple):
    """A reliability diagram: (b,) of the bins that hold items."""

    prob: FloatArray
    share: FloatArray
    items: Labels
    low: FloatArray  # of the 95 % interval of `share`, Wilson's
    high: FloatArray


def reliability_bins(label: Labels, prob: FloatArray, bins: int = BINS) -> Bins:
    """Return mean prob, share of fakes and number of items of equally wide bins of P(fake)."""
    place = bins_of(prob, bins)
    count = np.bincount(place, minlength=bins)
    held = count > 0
    mean = np.bincount(place, prob, bins)[held] / count[held]
    fakes = np.bincount(place, label, bins)[held]
    return Bins(mean, fakes / count[held], count[held], *wilson_interval(fakes, count[held]))


def threshold_curve(label: Labels, prob: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return thresholds (201,) from 0 to 1, and macro-F1 (201,) of decisions at each."""
    cuts = np.linspace(0, 1, CUTS)
    reals, fakes = (np.sort(prob[label == value]) for value in (0, 1))
    tn, fn = (np.searchsorted(part, cuts, "left").astype(float) for part in (reals, fakes))
    return cuts, macro_f1_of_counts(Counts(tn, len(reals) - tn, fn, len(fakes) - fn))


Histories = Mapping[Any, Sequence[Mapping[str, Any]]]
Lines = Mapping[str, tuple[str, str, str]]  # key of a history -> name, colour, style of its line


def draw_losses(axes: "Axes", histories: Histories, constant: float | None = None) -> None:
    """Draw the training loss and the held-out log loss over the epochs of runs.

    Args:
        axes: where to.
        histories: fold -> entries with `epoch`, `train_loss`, perhaps `log_loss`, `stage`.
        constant: the log loss of one answer for all items, drawn as a line.
    """
    axes.set(title="losses", xlabel="epoch", ylabel="loss, nats")
    draw_epochs(axes, histories, LOSSES, constant)


def draw_scores(axes: "Axes", histories: Histories) -> None:
    """Draw accuracy of training and held-out items, macro-F1 and AUC of these, over the epochs.

    `histories` are as of `draw_losses`, with `train_accuracy`, `accuracy`, `macro_f1`, `auc`.
    """
    axes.set(title="scores at 0.5", xlabel="epoch", ylabel="score")
    draw_epochs(axes, histories, SCORES)


def draw_epochs(
    axes: "Axes", histories: Histories, lines: Lines, constant: float | None = None
) -> None:
    """Draw keys of histories, and where stages begin.

    One run's lines differ by colour; of several runs a colour and a mark is a fold, so that only
    the styles of `lines` tell keys apart there.
    """
    if not any(histories.values()):
        axes.text(0.5, 0.5, "no record of a training", ha="center", transform=axes.transAxes)
        axes.set(xticks=[], yticks=[])
        return
    several, drawn = len(histories) > 1, set()
    for number, (fold, history) in enumerate(histories.items()):
        for key, (name, colour, style) in lines.items():
            points = [(e["epoch"], e[key]) for e in history if e.get(key) is not None]
            if not points:
                continue
            label = None if several else name
            if several and fold not in drawn:
                label = f"fold {fold}"
            drawn |= {fold, key}
            axes.plot(*zip(*points, strict=True), linestyle=style, label=label, markersize=4,
                      color=_colour(number) if several else colour,
                      marker=_MARKS[number % len(_MARKS)] if several else ".")  # fmt: skip
    styles = [key for key in lines if key in drawn]
    if several and len(styles) > 1:
        for key in styles:
            axes.plot([], [], color="black", linestyle=lines[key][2], label=lines[key][0])
    if constant is not None:
        axes.axhline(constant, **{**LINE, "linestyle": ":"}, label="one answer for all items")
    axes.xaxis.get_major_locator().set_params(integer=True)  # type: ignore[attr-defined]
    _mark_stages(axes, max(histories.values(), key=len))
    # Below: where it would hide the least takes long to find, and changes from run to run.
    axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, -0.14),
        fontsize=8,
        ncols=2 + several,
        frameon=False,
    )


def _colour(number: int) -> str:
    return f"C{number % 10}"


def _mark_stages(axes: "Axes", history: Sequence[Mapping[str, Any]]) -> None:
    """Mark where each stage of a run begins, with its name."""
    axes.set_xlim(0.5, history[-1]["epoch"] + 0.5)
    before = None
    for entry in history:
        stage = entry.get("stage")
        if stage is not None and stage != before:
            start = entry["epoch"] - 0.5
            if before is not None:
                axes.axvline(start, **LINE)
            axes.text(start, 1.0, f" {shown(str(stage), 20)}", transform=axes.get_xaxis_transform(),
                      fontsize=8, va="top")  # fmt: skip
        before = stage


def mark_thresholds(axes: "Axes", cuts: Mapping[str, float | None]) -> None:
    """Draw thresholds on P(fake) as lines, each with its name and value; None draws none."""
    known = [(name, min(cut, 1.0)) for name, cut in cuts.items() if cut is not None]
    for number, (name, cut) in enumerate(sorted(known, key=lambda one: one[1])):
        axes.axvline(cut, **{**LINE, "color": "black"})
        left = number == 0 and cut > 0.3  # names of two lines that are close stand apart
        axes.annotate(
            f"{name} {cut:.3g}", (cut, 0.02), xycoords=axes.get_xaxis_transform(), fontsize=8,
            rotation=90, va="bottom", ha="right" if left else "left", xytext=(-2 if left else 2, 0),
            textcoords="offset points", bbox={"facecolor": "white", "alpha": 0.7, "pad": 0.5,
                                              "edgecolor": "none"},
        )  # fmt: skip


def draw_confusion(
    axes: "Axes", label: Labels, pred: Labels, how: str, names: Sequence[str] = DEFAULT
) -> None:
    """Draw the confusion counts of (n,) labels and decisions, and how these were made."""
    c = counts(label, pred)
    table = np.array([[c.tn, c.fp], [c.fn, c.tp]])
    shares = table / np.maximum(table.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares):
        text = f"{int(table[row, column]):,}\n{share:.1%}"
        axes.text(column, row, text, ha="center", va="center",
                  color="white" if share > 0.5 else "black")  # fmt: skip
    names = [shown(name, 20) for name in names]
    axes.set(xticks=[0, 1], xticklabels=names, yticks=[0, 1], yticklabels=names)
    axes.set(xlabel="called", ylabel="is")
    axes.set_title(f"{shown(how)}\nmacro-F1 {macro_f1(label, pred):.4f}", fontsize=9)


def draw_histograms(
    axes: "Axes",
    label: Labels,
    prob: FloatArray,
    threshold: float | None,
    names: Sequence[str] = DEFAULT,
) -> None:
    """Draw how P(fake) is spread in each class, and the threshold; items on a log scale.

    The scale begins at half an item, so that a bar of one item has a height.
    """
    for value, (name, colour) in enumerate(zip(names, (REAL, FAKE), strict=True)):
        axes.hist(prob[label == value], bins=HISTOGRAM_BINS, range=(0, 1), alpha=0.5, color=colour,
                  label=shown(name, 20), hatch="//" * value, edgecolor=colour)  # fmt: skip
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.5)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_minor_formatter("")  # else of a few items it says 6e-1
    if threshold is not None and threshold <= 1:
        mark_thresholds(axes, {"threshold": threshold})
    axes.set(title="P(fake) by class", xlabel=f"P({shown(names[1], 20)})", ylabel="items")
    axes.legend(fontsize=8, loc="upper center")


def draw_reliability(axes: "Axes", label: Labels, prob: FloatArray) -> None:
    """Draw the share of fakes over P(fake) with 95 % intervals, and the items of each bin.

    With the expected calibration error (ECE) in the title.
    """
    found = reliability_bins(label, prob)
    axes.plot([0, 1], [0, 1], **LINE, label="as it should be")
    off = np.clip([found.share - found.low, found.high - found.share], 0, None)
    axes.errorbar(found.prob, found.share, off, fmt="o-", color="tab:purple", linewidth=0.8,
                  elinewidth=1.5, capsize=3, markersize=4,
                  label="share, 95 % interval")  # fmt: skip
    for x, y, n in zip(found.prob, found.high, found.items, strict=True):
        axes.annotate(f"{n:,}", (x, y), fontsize=7, ha="center", xytext=(0, 3), color="dimgrey",
                      textcoords="offset points")  # fmt: skip
    error = calibration_error(label == 1, prob)
    axes.set(title=f"reliability: ECE {error:.4f}", xlabel="P(fake)", ylabel="share of fakes")
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.1))
    axes.legend(fontsize=8, loc="upper left")


def draw_roc(axes: "Axes", label: Labels, prob: FloatArray) -> None:
    """Draw the receiver operating characteristic."""
    curve = roc(label, prob)
    axes.plot([0, 1], [0, 1], **LINE)
    axes.plot(curve.fp / curve.fp[-1], curve.tp / curve.tp[-1], color="black")
    axes.set(title=f"ROC: AUC {area(curve):.4f}")
    axes.set(xlabel="reals called fake", ylabel="fakes called fake")


def draw_precision_recall(axes: "Axes", label: Labels, prob: FloatArray) -> None:
    """Draw precision over recall of the class fake."""
    curve = roc(label, prob)
    precision = curve.tp[1:] / (curve.tp[1:] + curve.fp[1:])
    axes.axhline(float(label.mean()), **LINE, label="share of fakes")
    axes.plot(curve.tp / curve.tp[-1], np.append(1.0, precision), color="black")
    score = average_precision(curve)
    axes.set(title=f"precision and recall of fakes: AP {score:.4f}", ylim=(0, 1.03))
    axes.set(xlabel="fakes called fake", ylabel="fakes among those called fake")
    axes.legend(fontsize=8, loc="lower left")


def draw_threshold(axes: "Axes", label: Labels, prob: FloatArray, threshold: float | None) -> None:
    """Draw macro-F1 over the threshold: a flat top forgives, a peak does not."""
    axes.plot(*threshold_curve(label, prob), color="black")
    fitted = None if threshold is None or abs(threshold - 0.5) < 1e-9 else float(threshold)
    mark_thresholds(axes, {"untuned" if fitted is not None else "threshold": 0.5, "fitted": fitted})
    axes.set(title="macro-F1 by threshold", xlabel="threshold on P(fake)", ylabel="macro-F1")
