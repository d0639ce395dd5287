"""What is to be seen of a fold when its training ends: one picture, and its numbers as text."""

from pathlib import Path
from typing import Any

from src import paths
from src.artifacts.files import write_text
from src.artifacts.label_names import LabelNames
from src.ensemble.predictions import Decided
from src.metrics import (
    calibration_error,
    classification_report,
    counts,
    f1_fake,
    f1_real,
    log_loss,
    macro_f1,
    precision_fake,
    precision_real,
    recall_fake,
    recall_real,
)
from src.reporting.report.panels import draw_history, draw_panel
from src.reporting.runs import RunPart, collect_runs
from src.training.monitor import confidence_note, constant_loss

COLUMNS = ("train_loss", "train_accuracy", "log_loss", "accuracy", "macro_f1", "auc")


def report_fold(
    dataset: str, scheme: str, model: str, fold: paths.FoldName, labels: LabelNames
) -> tuple[Path, Path]:
    """Draw a finished fold and write its summary; returns both paths.

    They are `fold_k.png`, which `python -m src report` draws again, and `fold_k.txt`, in the
    model's folder of reports. A refit, which holds nothing out, has learning curves alone.

    Raises:
        UserError: see `collect_runs`, or the disk takes no file.
    """
    runs, home = collect_runs(dataset, scheme, model), paths.report_dir(dataset, scheme, model)
    record, part = runs.records[fold], runs.folds.get(fold) if isinstance(fold, int) else None
    title = f"{model} on {dataset}/{scheme}, fold {fold}"
    picture, summary = home / f"fold_{fold}.png", home / f"fold_{fold}.txt"
    text = [title, *_run_lines(record), "", *_epoch_lines(record)]
    if part is None:
        draw_history(title, {fold: record["history"]}, picture)
    else:
        draw_panel(part, title, picture, labels)
        text += ["", *_score_lines(part, labels)]
    write_text(summary, "\n".join([*text, ""]))
    return picture, summary


def _run_lines(record: dict[str, Any]) -> list[str]:
    """Return how long a run took and which epoch it kept."""
    epochs, kept = len(record["history"]), record["epoch"]
    config, start = record["config"], record["start"]
    selection = {
        "last": "no held-out item had a say",
        "best": f"chosen by the held-out {config['monitor']}",
        "stopped": f"the held-out {config['monitor']} ended the training",
    }[record["selection"]]
    return [
        f"{epochs} epochs in {record['seconds']:.0f} s, {record['items_per_second']:.0f} items/s, "
        f"{record['device']}, {record['precision']}; start: {start['source']}",
        f"kept: epoch {kept} ({selection})",
        *_budget_lines(record["budget"]),
    ]


def _budget_lines(budget: dict[str, Any] | None) -> list[str]:
    """Say what was made of `--minutes`, where a run had them."""
    if budget is None:
        return []
    ask = budget["ask"]
    return [
        f"--minutes {ask['minutes']:g} for {len(ask['models']) * len(ask['folds'])} runs: the "
        f"whole schedule in {budget['epochs']:.2f} epochs"
    ]


def _epoch_lines(record: dict[str, Any]) -> list[str]:
    """Return the history as a table; the kept epoch has a star."""
    history = record["history"]
    columns = [name for name in COLUMNS if any(name in entry for entry in history)]
    rows = [["epoch", *(name.replace("log_loss", "held-out loss") for name in columns), "stage"]]
    for entry in history:
        star = "*" if entry["epoch"] == record["epoch"] else ""
        numbers = [f"{entry[name]:.4f}" if name in entry else "" for name in columns]
        rows.append([f"{star}{entry['epoch']}", *numbers, entry.get("stage", "")])
    return _aligned(rows)


def _score_lines(part: RunPart, labels: LabelNames) -> list[str]:
    """Return the scores of the out-of-fold predictions, and what is to be said of them."""
    rows = part.rows
    label, half = rows.label, (rows.prob >= 0.5).astype("int64")
    found = classification_report(label, rows.logit, 0.5)
    error = calibration_error(label == 1, rows.prob)
    note = confidence_note(label, rows.logit)
    return [
        f"out-of-fold, {len(rows)} items, labels {labels.polarity}",
        f"log loss {log_loss(label, rows.logit):.4f} (one answer for all items: "
        f"{constant_loss(label):.4f})  AUC {found['auc']:.4f}  ECE {error:.4f}",
        "",
        f"at 0.5: accuracy {found['accuracy']:.4f}, macro-F1 {found['macro_f1']:.4f}",
        *_class_lines(rows, half, labels),
        "",
        f"{part.how}: macro-F1 {macro_f1(label, rows.pred):.4f} (in-sample, at {part.tuned}: "
        f"{macro_f1(label, part.in_sample):.4f})",
        *_class_lines(rows, rows.pred, labels),
        *(["", note] if note else []),
    ]


def _class_lines(rows: Decided, pred: Any, labels: LabelNames) -> list[str]:  # noqa: ANN401
    """Return precision, recall and F1 of each class, and what its items were called."""
    c, (real, fake) = counts(rows.label, pred), labels.names
    table = [["", "precision", "recall", "F1", "items", f"called {real}", f"called {fake}"]]
    for name, scores, called in (
        (real, (precision_real, recall_real, f1_real), (c.tn, c.fp)),
        (fake, (precision_fake, recall_fake, f1_fake), (c.fn, c.tp)),
    ):
        numbers = [f"{float(score(c)):.4f}" for score in scores]
        table.append([name, *numbers, *(f"{int(n)}" for n in (sum(called), *called))])
    return _aligned(table)


def _aligned(rows: list[list[str]]) -> list[str]:
    """Return rows of cells as lines, numbers below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    cells = [[cell.rjust(w) for cell, w in zip(row, widths, strict=True)] for row in rows]
    return ["  ".join(row).rstrip() for row in cells]
