"""The page of a model's report: one HTML file, its pictures beside it."""

import html
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np

from src.artifacts.label_names import LabelNames
from src.metrics import calibration_error, classification_report, log_loss, macro_f1
from src.reporting.runs import ModelRuns, Part
from src.strict_yaml import dump_yaml

COMMON = LabelNames()
SCORES = ("macro_f1", "accuracy", "f1_real", "f1_fake", "auc", "log_loss", "ece")
FACTS = ("selection", "epoch", "start", "precision", "device", "trainable", "seconds",
         "items_per_second")  # fmt: skip
STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 1500px; padding: 0 1em;
       color: #222; background: #fff; }
img { max-width: 100%; border: 1px solid #ddd; margin: .4em 0; }
table { border-collapse: collapse; margin: 1em 0; }
th, td { border: 1px solid #ccc; padding: .25em .6em; text-align: right; }
th:first-child, td:first-child { text-align: left; }
pre { background: #f6f6f6; padding: 1em; overflow-x: auto; }
"""


class Section(NamedTuple):
    """A heading with pictures: file names in the page's folder."""

    heading: str
    pictures: list[str]


def scores_of(part: Part) -> dict[str, float]:
    """Return the scores of a part: `tuned_macro_f1`, at 0.5 `SCORES`, and `items`."""
    rows = part.rows
    found = classification_report(rows.label, rows.logit, 0.5)
    found["log_loss"] = log_loss(rows.label, rows.logit)
    found["ece"] = calibration_error(rows.label == 1, rows.prob)
    tuned = macro_f1(rows.label, rows.pred)
    return {"items": len(rows), "tuned_macro_f1": tuned, **{k: found[k] for k in SCORES}}


def make_page(runs: ModelRuns, sections: Sequence[Section], labels: LabelNames = COMMON) -> str:
    """Return the page as HTML that loads nothing but its own pictures.

    Args:
        runs: what is shown.
        sections: its pictures.
        labels: what the classes are called.
    """
    title = _text(f"{runs.model} on {runs.dataset}/{runs.scheme}")
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
        f"<style>{STYLE}</style></head><body>",
        f"<h1>{title}</h1>",
        f"<p>labels: {_text(labels.polarity)}</p>",
        *_scores(runs, labels.names),
    ]
    for section in sections:
        parts.append(f"<h2>{_text(section.heading)}</h2>")
        parts += [_image(name, section.heading) for name in section.pictures]
    parts += [*_facts(runs), *_config(runs), "</body></html>", ""]
    return "\n".join(parts)


def _scores(runs: ModelRuns, names: tuple[str, str]) -> list[str]:
    """Return the table of scores: a row a fold, their mean, all items together."""
    if runs.whole is None:
        return ["<p>Nothing is held out, so nothing is scored.</p>"]
    folds = {f"fold {fold}": scores_of(part) for fold, part in runs.folds.items()}
    columns = list(next(iter(folds.values())))
    rows = [[name, *(_number(row[column]) for column in columns)] for name, row in folds.items()]
    if len(folds) > 1:
        values = np.array([[row[column] for column in columns] for row in folds.values()])
        spread = zip(values.mean(0), values.std(0, ddof=1), strict=True)
        rows.append(["mean ± standard deviation", *(f"{m:.4f} ± {s:.4f}" for m, s in spread)])
        rows[-1][1] = ""
        whole = scores_of(runs.whole)
        rows.append(["all items together", *(_number(whole[column]) for column in columns)])
    note = (
        f"tuned_macro_f1: {runs.whole.how}; chosen with a view to these very items; "
        "tune.py prints the cross-fitted score. The other scores are at 0.5."
    )
    own = {"f1_real": f"f1_{names[0]}", "f1_fake": f"f1_{names[1]}"}
    heads = [own.get(column, column) for column in columns]
    return [_table(["", *heads], rows), f"<p>{_text(note)}</p>"]


def _facts(runs: ModelRuns) -> list[str]:
    """Return the table of the runs: epochs, start, device, time."""
    if not runs.records:
        return ["<p>No run was recorded here: these predictions came from elsewhere.</p>"]
    rows = []
    for fold, record in runs.records.items():
        start = record["start"]
        facts = record | {"start": f"{start.get('source')} {start.get('name') or ''}".strip()}
        cells = (_number(facts[name]) for name in FACTS)
        rows.append([f"fold {fold}", str(len(record["history"])), *cells])
    return ["<h2>Runs</h2>", _table(["", "epochs", *FACTS], rows)]


def _config(runs: ModelRuns) -> list[str]:
    """Return the config of each run; once where all have the same."""
    texts: dict[str, list[str]] = {}
    for fold, record in runs.records.items():
        text = dump_yaml(record["config"])
        texts.setdefault(text, []).append(str(fold))
    found = []
    for text, folds in texts.items():
        of = f" of fold {', '.join(folds)}" if len(texts) > 1 else ""
        found += [f"<h2>Config{_text(of)}</h2>", f"<pre>{_text(text)}</pre>"]
    return found


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"<tr>{''.join(f'<th>{_text(cell)}</th>' for cell in head)}</tr>"]
    lines += [f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>" for row in rows]
    return "\n".join(["<table>", *lines, "</table>"])


def _image(name: str, what: str) -> str:
    return f'<img src="{_text(quote(name))}" alt="{_text(what)}">'


def _number(value: Any) -> str:  # noqa: ANN401 - whatever a record holds
    return f"{value:,.4f}" if isinstance(value, float) else str(value)


def _text(text: str) -> str:
    """Return text that HTML shows as it is; names that are no Unicode lose what is none."""
    return html.escape(text.encode("utf-8", "backslashreplace").decode("utf-8"))
