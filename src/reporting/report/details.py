"""How one model or recipe decides held-out items: its curves, and where its errors lie."""

from pathlib import Path

import numpy as np
import pandas as pd

from src.artifacts.files import write_csv
from src.bootstrap import wilson_interval
from src.ensemble.predictions import Decided
from src.metrics import METRICS, calibration_error, counts, roc, score_of
from src.reporting import plots
from src.reporting.evaluated import NO_NAME
from src.reporting.report.blocks import Block, Cell, Grid, Pictures, Words, draw, figure
from src.reporting.report.subjects import Reported, of_its_own
from src.training.monitor import constant_loss

MOST_PARTS = 20  # rows of a table by domain
MOST_POINTS = 1000  # of a curve's CSV
OVER_EPOCHS = {
    "losses": ("losses over the epochs", ("train_loss", "log_loss"), "loss, nats"),
    "accuracy": ("accuracy over the epochs", ("train_accuracy", "accuracy"), "accuracy"),
    "macro_f1": ("macro-F1 at 0.5 over the epochs", ("macro_f1",), "macro-F1, held out"),
    "auc": ("AUC over the epochs", ("auc",), "AUC, held out"),
}


def decisions(subject: Reported, names: tuple[str, str]) -> list[Block]:
    """Return the confusion table of all items, then the tables by kind and by domain.

    Args:
        subject: with rows; of whom.
        names: what the classes are called.
    """
    rows = subject.rows
    assert rows is not None
    real, fake = names
    tn, fp, fn, tp = map(int, counts(rows.label, rows.pred))
    cells = [
        [real, _of(tn, tn + fp), _of(fp, tn + fp)],
        [fake, _of(fn, fn + tp), _of(tp, fn + tp)],
    ]
    blocks: list[Block] = [
        Words(f"How it was decided: {subject.how}.", soft=True),
        Grid(["is", f"called {real}", f"called {fake}"], cells),
    ]
    for by, title in (("kind", "By kind"), ("domain", "By domain")):
        if len(set(rows.values(by))) > 1:
            table = part_table(rows, by)
            path = subject.folder / f"by_{by}.csv"
            write_csv(path, table)
            blocks.append(_part_table(table, title, path, names))
    if any(isinstance(one, Grid) for one in blocks[2:]):
        blocks.append(Words(f"Intervals are Wilson's and {of_its_own(rows)}.", soft=True))
    return blocks


def _of(part: int, whole: int) -> Cell:
    share = part / whole if whole else 0.0
    return Cell(f"{part:,} ({share:.1%})" if whole else "0", share=share)


def part_table(rows: Decided, by: str) -> pd.DataFrame:
    """Return a row for every `kind` or `domain`: counts, errors with Wilson's interval, AUC.

    The part with most errors comes first. AUC and macro-F1 are NaN where a part holds one class,
    and `note` says so.
    """
    values, found = rows.values(by), []
    for value in sorted(set(values)):
        part = rows.take(values == value)
        c = counts(part.label, part.pred)
        reals, fakes = int(c.tn + c.fp), int(c.fn + c.tp)
        known = {one: METRICS.get(one) for one in ("macro_f1", "auc")}
        why = known["auc"].undefined(reals, fakes)
        scores = {
            name: np.nan if why else score_of(one, part.label, part.prob, part.pred)
            for name, one in known.items()
        }
        found.append({
            by: str(value) or NO_NAME, "items": len(part), "reals": reals, "fakes": fakes,
            "reals_called_fake": int(c.fp), "fakes_called_real": int(c.fn),
            "errors": int(c.fp + c.fn), **scores, "note": why,
        })  # fmt: skip
    table = pd.DataFrame(found)
    table["error_rate"] = table["errors"] / table["items"]
    table["low"], table["high"] = wilson_interval(table["errors"], table["items"])
    return table.sort_values(["errors", by], ascending=[False, True], ignore_index=True)


def _part_table(table: pd.DataFrame, title: str, path: Path, names: tuple[str, str]) -> Grid:
    real, fake = names
    head = [title, "items", real, fake, f"{real} called {fake}", f"{fake} called {real}",
            "errors [95 %]", "macro-F1", "AUC"]  # fmt: skip
    lines = []
    for row in table.head(MOST_PARTS).to_dict("records"):
        rate = f"{row['error_rate']:.1%} [{row['low']:.1%}, {row['high']:.1%}]"
        scores = [figure(row["macro_f1"]), figure(row["auc"])]
        if row["note"]:
            scores = [row["note"], f"none: {row['note']}"]
        number = (f"{row[key]:,}" for key in ("items", "reals", "fakes"))
        wrong = (f"{row[key]:,}" for key in ("reals_called_fake", "fakes_called_real"))
        lines.append([str(row[table.columns[0]]), *number, *wrong,
                      Cell(rate, share=row["error_rate"]), *scores])  # fmt: skip
    note = ""
    if len(table) > MOST_PARTS:
        rest = table.iloc[MOST_PARTS:]
        note = (
            f"The {MOST_PARTS} with most errors; {len(rest)} more hold {rest['items'].sum():,} "
            f"items and {rest['errors'].sum():,} errors."
        )
    return Grid(head, lines, path, note)


def curves(subject: Reported, names: tuple[str, str]) -> list[Block]:
    """Draw P(fake) by class, reliability, macro-F1 by threshold, ROC, precision and recall."""
    rows, home = subject.rows, subject.folder
    assert rows is not None
    label, prob, fake = rows.label, rows.prob, names[1]
    bins = plots.reliability_bins(label, prob)
    cuts, scores = plots.threshold_curve(label, prob)
    error = calibration_error(label == 1, prob)
    best = int(np.argmax(scores))
    edges = np.linspace(0, 1, plots.HISTOGRAM_BINS + 1)
    spread = [np.histogram(prob[label == value], edges)[0] for value in (0, 1)]
    drawn = [
        draw(
            home / "prob.png", f"P({fake}) by class",
            f"Histogram of P({fake}) of {len(rows):,} items: the median of {names[0]} is "
            f"{_median(prob[label == 0])}, that of {fake} {_median(prob[label == 1])}.",
            lambda axes: plots.draw_histograms(axes, label, prob, subject.line, names),
            pd.DataFrame({"from": edges[:-1], "to": edges[1:], "reals": spread[0],
                          "fakes": spread[1]}),
        ),
        draw(
            home / "reliability.png", "Reliability",
            f"Share of {fake} in bins of P({fake}) with 95 % intervals, beside the diagonal; the "
            f"expected calibration error is {error:.4f}.",
            lambda axes: plots.draw_reliability(axes, label, prob),
            pd.DataFrame(bins._asdict()),
        ),
        draw(
            home / "threshold.png", "Macro-F1 by threshold",
            f"Macro-F1 over the threshold on P({fake}): {scores[best]:.4f} at most, at "
            f"{cuts[best]:.3f}; {scores[len(cuts) // 2]:.4f} at 0.5.",
            lambda axes: plots.draw_threshold(axes, label, prob, subject.line),
            pd.DataFrame({"threshold": cuts, "macro_f1": scores}),
        ),
    ]  # fmt: skip
    blocks: list[Block] = []
    if 0 < label.sum() < len(label):
        curve = roc(label, prob)
        every = np.unique(np.linspace(0, len(curve.tp) - 1, MOST_POINTS).astype(int))
        fp, tp = curve.fp[every], curve.tp[every]
        ranking = pd.DataFrame({"reals_called_fake": fp / curve.fp[-1],
                                "fakes_called_fake": tp / curve.tp[-1]})  # fmt: skip
        with np.errstate(invalid="ignore"):
            precise = ranking.assign(precision=np.where(tp + fp > 0, tp / (tp + fp), 1.0))
        area = score_of(METRICS.get("auc"), label, prob, rows.pred)
        drawn += [
            draw(home / "roc.png", "ROC", f"Fakes found over reals called fake; AUC {area:.4f}.",
                 lambda axes: plots.draw_roc(axes, label, prob), ranking),
            draw(home / "precision_recall.png", "Precision and recall",
                 f"Precision of {fake} over the share of {fake} that is found.",
                 lambda axes: plots.draw_precision_recall(axes, label, prob), precise),
        ]  # fmt: skip
    else:
        blocks.append(Words(f"All items are {names[int(label[0])]}: no AUC, no curve of ranking."))
    note = f"Intervals of reliability {of_its_own(rows)}."
    return [Pictures(drawn), *blocks, Words(note, soft=True)]


def _median(prob: np.ndarray) -> str:
    return f"{np.median(prob):.3f}" if prob.size else "not known"


def epochs(subject: Reported) -> list[Block]:
    """Draw how the runs of a model learned, a colour a fold."""
    histories = {fold: history for fold, history in subject.histories.items() if history}
    if not histories:
        return [Words("No learning curves: these predictions came from elsewhere, or were merged.")]
    drawn = []
    constant = None if subject.rows is None else constant_loss(subject.rows.label)
    for stem, (title, keys, what) in OVER_EPOCHS.items():
        known = {key: (plots.LOSSES | plots.SCORES)[key] for key in keys}
        table = pd.DataFrame([
            {"fold": fold, "epoch": entry["epoch"], "stage": entry.get("stage") or "",
             **{key: entry.get(key) for key in keys}}
            for fold, history in histories.items() for entry in history
        ])  # fmt: skip
        if table[list(keys)].isna().all(axis=None):
            continue
        last = table.groupby("fold")[keys[-1]].last().dropna()
        ends = f"{last.min():.4f} to {last.max():.4f}" if len(last) else "not known"

        def plot(axes: object, known: object = known, what: str = what, stem: str = stem) -> None:
            axes.set(xlabel="epoch", ylabel=what)  # type: ignore[attr-defined]
            level = constant if stem == "losses" else None
            plots.draw_epochs(axes, histories, known, level)  # type: ignore[arg-type]

        alt = f"{title} of {len(histories)} runs, {keys[-1]} at the end {ends}"
        path = subject.folder / f"epochs_{stem}.png"
        drawn.append(draw(path, title[0].upper() + title[1:], f"{alt}.", plot, table))
    return [Pictures(drawn)]
