"""A model's report: pictures of each run and of all, the most wrong items, and the page."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src import paths
from src.artifacts.files import write_text
from src.artifacts.label_names import LabelNames
from src.data.items.manifest import Dataset
from src.data.pixels.images import Canvas
from src.data.pixels.source import PixelSource
from src.errors import UnreadableImageError, UserError
from src.metrics import calibration_error, classification_report, log_loss, macro_f1
from src.reporting import plots
from src.reporting.charts import new_figure, save_figure, shown
from src.reporting.runs import ModelRuns, RunPart
from src.strict_yaml import dump_yaml
from src.training.monitor import constant_loss

COMMON = LabelNames()
COLUMNS, WORST = 6, 24
SIDE = 160  # px of a thumbnail
CANVAS = Canvas(SIDE, "short_side", "bicubic")
CELL = 1.7  # inches
CROSS, FITTED = "cross_fitted_macro_f1", "in_sample_macro_f1"
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


def scores_of(part: RunPart) -> dict[str, float]:
    """Return `items`, macro-F1 cross-fitted (if it is), at 0.5 `SCORES`, in-sample macro-F1."""
    rows = part.rows
    found = classification_report(rows.label, rows.logit, 0.5)
    found["log_loss"] = log_loss(rows.label, rows.logit)
    found["ece"] = calibration_error(rows.label == 1, rows.prob)
    first = {CROSS: macro_f1(rows.label, rows.pred)} if part.is_cross_fitted else {}
    at_half = {k: found[k] for k in SCORES}
    return {"items": len(rows), **first, **at_half, FITTED: macro_f1(rows.label, part.in_sample)}


def make_page(runs: ModelRuns, sections: Sequence[Section], labels: LabelNames = COMMON) -> str:
    """Return the page as HTML that loads nothing but its own pictures."""
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
    parts += [*_localisation(runs), *_cost(runs), *_facts(runs), *_config(runs)]
    parts += ["</body></html>", ""]
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
    cross = f"{CROSS}: {runs.whole.how.partition(': ')[2]}, each found on other items. "
    note = (
        f"{cross if runs.whole.is_cross_fitted else ''}{FITTED}: {runs.whole.tuned}, found on "
        "these very items, which flatters. The other scores are at 0.5."
    )
    own = {"f1_real": f"f1_{names[0]}", "f1_fake": f"f1_{names[1]}"}
    heads = [own.get(column, column) for column in columns]
    return [_table(["", *heads], rows), f"<p>{_text(note)}</p>"]


def _localisation(runs: ModelRuns) -> list[str]:
    """Return the sheet of `python -m src evaluate --by mask`, where it was drawn."""
    names = runs.dataset, runs.scheme, runs.model
    picture, table = paths.localisation_png(*names), paths.localisation_csv(*names)
    if not (picture.is_file() and table.is_file()):
        return []
    link = f'<p><a href="{table.name}">scores of pixels</a></p>'
    return ["<h2>Where pictures were changed</h2>", link, _image(picture.name, "boundary maps")]


def _cost(runs: ModelRuns) -> list[str]:
    """Return a link to what `python -m src card` measured, where this model is in it."""
    path = paths.cost_csv(runs.dataset, runs.scheme)
    if not path.is_file() or runs.model not in set(pd.read_csv(path, dtype=str)["model"]):
        return []
    parts = ["<h2>Cost</h2>", f'<p><a href="../{path.name}">table of costs</a></p>']
    picture = path.with_suffix(".png")
    return [*parts, *([_image(f"../{picture.name}", "score against cost")] * picture.is_file())]


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


def worst_rows(part: RunPart, number: int = WORST) -> NDArray[np.int64]:
    """Return the rows whose P(fake) is farthest from their label, the worst first.

    Logits tell apart what probs near 0 and 1 round to the same; ties go by item_id.
    """
    rows = part.rows
    wrong = np.where(rows.label == 1, -rows.logit, rows.logit)
    return np.lexsort((rows.item_id.astype(str), -wrong))[:number]


def draw_worst(
    part: RunPart, dataset: Dataset, title: str, path: Path, number: int = WORST
) -> Path:
    """Draw the most wrong items: a thumbnail, item_id, label, P(fake).

    An item that is not there any more, or not readable, is an empty square that says so.
    """
    worst = part.rows.take(worst_rows(part, number))
    train = dataset.train
    held = train["item_id"].isin(worst.item_id)
    files = dict(zip(train.loc[held, "item_id"], train.loc[held, "path"], strict=True))
    high = -(-len(worst) // COLUMNS)
    figure = new_figure(CELL * COLUMNS, (CELL + 0.35) * high + 0.5)
    figure.suptitle(shown(title, 110))
    grid = figure.subplots(high, COLUMNS, squeeze=False).ravel()
    for axes in grid[len(worst) :]:
        axes.set_axis_off()
    for row, item_id in enumerate(map(str, worst.item_id)):
        axes, fake = grid[row], bool(worst.label[row])
        picture = _thumbnail(dataset, files, item_id)
        if isinstance(picture, str):
            axes.text(0.5, 0.5, picture, ha="center", va="center", fontsize=8)
        else:
            axes.imshow(picture)
        axes.set(xticks=[], yticks=[])
        name = shown(dataset.labels.names[fake], 20)
        text = f"{shown(item_id, 26)}\n{name}, P(fake) {worst.prob[row]:.4f}"
        axes.set_title(text, fontsize=7, color="tab:red" if fake else "tab:blue")
    return save_figure(figure, path)


def _thumbnail(dataset: Dataset, files: Mapping[str, str], item_id: str) -> NDArray[np.uint8] | str:
    """Return a small picture, or why there is none."""
    if item_id not in files:
        return "not in the\ndata set any more"
    try:
        return PixelSource(dataset.root, [files[item_id]], [CANVAS]).read(0)[0]
    except (UnreadableImageError, UserError, OSError):
        return "not readable"


def write_report(runs: ModelRuns, dataset: Dataset) -> Path:
    """Draw a model's pictures and write the page that shows them, `index.html` beside them."""
    folder = paths.report_dir(runs.dataset, runs.scheme, runs.model)
    sections = []
    if runs.whole is not None and len(runs.folds) > 1:
        sections.append(_draw_part(runs, runs.whole, "all", "All finished folds", WORST, dataset))
    for fold, part in runs.folds.items():
        worst = WORST if len(runs.folds) == 1 else 2 * COLUMNS
        sections.append(_draw_part(runs, part, f"fold_{fold}", f"Fold {fold}", worst, dataset))
    for fold, record in runs.records.items():
        if fold not in runs.folds:  # a refit, which holds nothing out
            path = folder / f"fold_{fold}.png"
            draw_history(f"{runs.model} fold {fold}", {fold: record["history"]}, path)
            sections.append(Section(f"Fold {fold}", [path.name]))
    page = folder / "index.html"
    write_text(page, make_page(runs, sections, dataset.labels))
    return page


def _draw_part(
    runs: ModelRuns, part: RunPart, stem: str, heading: str, worst: int, dataset: Dataset
) -> Section:
    folder = paths.report_dir(runs.dataset, runs.scheme, runs.model)
    title = f"{runs.model} on {runs.dataset}/{runs.scheme}, {part.name}"
    panel = draw_panel(part, title, folder / f"{stem}.png", dataset.labels)
    title = f"{title}: the most wrong items"
    sheet = draw_worst(part, dataset, title, folder / f"{stem}.worst.png", worst)
    return Section(heading, [panel.name, sheet.name])


def draw_panel(part: RunPart, title: str, path: Path, labels: LabelNames) -> Path:
    """Draw all that is seen of one run, or of all runs of a model, as one picture."""
    figure = new_figure(15.5, 13.5)
    text = f"{title}: {len(part.rows):,} items, {labels.polarity}"
    figure.suptitle(shown(text, 150), fontsize=14)
    grid = figure.subplots(3, 3).ravel()
    label, prob, names = part.rows.label, part.rows.prob, labels.names
    plots.draw_losses(grid[0], part.histories, constant_loss(label))
    plots.draw_scores(grid[1], part.histories)
    plots.draw_histograms(grid[2], label, prob, part.line, names)
    plots.draw_confusion(grid[3], label, (prob >= 0.5).astype("int64"), "threshold 0.5", names)
    plots.draw_confusion(grid[4], label, part.rows.pred, part.how, names)
    plots.draw_threshold(grid[5], label, prob, part.line)
    plots.draw_reliability(grid[6], label, prob)
    plots.draw_roc(grid[7], label, prob)
    plots.draw_precision_recall(grid[8], label, prob)
    return save_figure(figure, path)


def draw_history(title: str, histories: dict[paths.FoldName, Sequence], path: Path) -> Path:
    """Draw how runs learned that hold nothing out."""
    figure = new_figure(10.4, 4.5)
    figure.suptitle(shown(title))
    left, right = figure.subplots(1, 2)
    plots.draw_losses(left, histories)
    plots.draw_scores(right, histories)
    return save_figure(figure, path)
