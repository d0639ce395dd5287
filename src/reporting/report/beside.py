"""What other commands wrote of a data set, a model or a recipe, as parts of a page.

Each part that is not there says which command makes it.
"""

import json
import math
import shlex
from pathlib import Path

import pandas as pd

from src import paths
from src.artifacts.files import write_csv
from src.artifacts.oof import WHOLE_LEVEL
from src.artifacts.submission_log import read_log
from src.errors import UserError
from src.metrics import TITLES
from src.reporting.report.blocks import Block, Cell, Folded, Grid, Missing, Picture, Words, figure
from src.reporting.report.subjects import Reported
from src.reporting.robustness import CLEAN_ROW, FLIPS, FPR, MEAN_ROW

MOST_LETTERS = 20_000  # shown of what a submission was made of
KNOWN = {"auc", FPR, FLIPS}
CARD = {"level", "of", "score", "value", "low", "high", "folds", "threshold"}  # columns of a card
COST = {
    "model": "model", "engine": "engine", "precision": "precision", "parameters": "parameters",
    "macs": "GMACs", "file_bytes": "file, MB", "images_per_second": "images a second",
    "warm_seconds": "latency, ms", "peak_bytes": "memory at most, MB",
}  # fmt: skip
SCALED = {"macs": 1e-9, "file_bytes": 1e-6, "warm_seconds": 1e3, "peak_bytes": 1e-6}


def _read(path: Path, columns: set[str]) -> pd.DataFrame | str:
    """Return a table that another command wrote, or why it cannot be shown."""
    try:
        table = pd.read_csv(path, dtype={"model": str, "name": str, "level": str})
    except (OSError, ValueError) as error:
        return f"{path.name} cannot be read ({type(error).__name__})."
    missing = sorted(columns - set(table.columns))
    return f"{path.name} has no column {missing[0]}." if missing else table


def robustness_summary(shown: list[Reported], lead: Reported | None) -> list[Block]:
    """Return what each card says in a line, the picture of one, and who has none."""
    lines: list[list[str | Cell]] = []
    blocks: list[Block] = []
    metrics: set[str] = set()
    for one in shown:
        table = _read(one.folder / "robustness.csv", CARD)
        if isinstance(table, str):
            blocks.append(Words(f"{one.name}: {table}"))
            continue
        cells = _by_level(table)
        metric = next(iter(set(table["score"]) - KNOWN), "")
        metrics.add(metric)
        aucs = {
            level: row["value"]
            for (of, level, score), row in cells.items()
            if of == "items" and score == "auc" and level not in (CLEAN_ROW, MEAN_ROW, WHOLE_LEVEL)
        }
        worst = min(aucs, key=lambda level: (aucs[level], level), default="")
        keys = [(score, level) for level in (CLEAN_ROW, MEAN_ROW) for score in ("auc", metric, FPR)]
        found = [_scored(cells.get(("items", level, score))) for score, level in keys]
        worst_words = f"{worst} {aucs[worst]:.3f}" if worst else "–"
        page = one.page if one.page.is_file() else None
        lines.append([Cell(one.name, link=page), *found, worst_words])
    if lines:
        named = TITLES.get(*metrics, *metrics) if len(metrics) == 1 else "own metric"
        heads = [f"{what}, {level}" for level in ("clean", "levels")
                 for what in ("AUC", named, "reals called fake")]  # fmt: skip
        note = "levels: the mean over all ways of delivery; each is on the page behind the name."
        blocks.insert(0, Grid(["name", *heads, "worst by AUC"], lines, None, note))
    if lead is not None:
        here = robustness_blocks(lead)
        blocks += [one for one in here if isinstance(one, Picture | Missing)]
    return blocks


def _by_level(table: pd.DataFrame) -> dict[tuple[str, str, str], dict]:
    return {(row["of"], row["level"], row["score"]): row for row in table.to_dict("records")}


def robustness_blocks(reported: Reported) -> list[Block]:
    """Return the robustness card, level by level."""
    path = reported.folder / "robustness.csv"
    data, name = shlex.quote(reported.dataset), shlex.quote(reported.name)
    what = "--recipe" if reported.is_recipe else "--model"
    scheme = "" if reported.is_recipe else f" --scheme {reported.scheme}"
    command = f"python -m src robustness --data {data} {what} {name}{scheme}"
    if not path.is_file() and reported.runs is not None and not reported.runs.records:
        return [Words("Not known: these predictions came from elsewhere, without a net to ask.")]
    if not path.is_file():
        return [Missing("Scores as messengers and sites deliver pictures:", command)]
    table = _read(path, CARD)
    if isinstance(table, str):
        return [Missing(table, command)]
    scores = list(dict.fromkeys(table["score"]))
    cells = _by_level(table)
    lines: list[list[str | Cell]] = []
    for of, level in dict.fromkeys(zip(table["of"], table["level"], strict=True)):
        rows = [cells.get((of, level, score)) for score in scores]
        title = level if of == "items" else f"{of}, {level}"
        lines.append([title, *(_scored(row) for row in rows)])
    folds, cut = table["folds"].iloc[0], table["threshold"].iloc[0]
    blocks: list[Block] = [
        Words(
            f"Held-out items of fold {folds} as each level delivers them; decided at {cut}, which "
            "was fitted on clean items. fpr_on_reals: reals called fake; flips: verdicts other "
            "than of the item as it is.",
            soft=True,
        ),
        Grid(["level", *scores], lines, path),
    ]
    picture = path.with_suffix(".png")
    if picture.is_file():
        alt = f"Scores of {reported.name} at {len(lines)} levels with 95 % intervals"
        clean, mean = (cells.get(("items", name, "auc")) for name in (CLEAN_ROW, MEAN_ROW))
        if clean and mean:
            alt += f": AUC {clean['value']:.3f} clean, {mean['value']:.3f} in the mean of levels"
        blocks.append(Picture(picture, "Level by level", f"{alt}.", is_wide=True))
    return blocks


def _scored(row: dict | None) -> str | Cell:
    if row is None or math.isnan(row["value"]):
        return "–"
    text = f"{row['value']:.3f}"
    if not math.isnan(row["low"]):
        text += f" [{row['low']:.3f}, {row['high']:.3f}]"
    return text


def cost_blocks(dataset: str, scheme: str, models: list[str]) -> list[Block]:
    """Return what models cost, as `card` measured it."""
    path = paths.cost_csv(dataset, scheme)
    names = " ".join(map(shlex.quote, models)) or "MODEL"
    command = f"python -m src card {names} --data {shlex.quote(dataset)} --scheme {scheme}"
    if not path.is_file():
        return [Missing("Parameters, speed and memory beside the scores:", command)]
    table = _read(path, set(COST))
    if isinstance(table, str):
        return [Missing(table, command)]
    lines = []
    for row in table.to_dict("records"):
        cells = []
        for key in COST:
            value = row[key]
            if isinstance(value, str):
                cells.append(value)
            else:
                scaled = float(value) * SCALED.get(key, 1.0)
                cells.append("–" if math.isnan(scaled) else f"{scaled:,.4g}"
                             if key != "parameters" else f"{scaled:,.0f}")  # fmt: skip
        lines.append(cells)
    blocks: list[Block] = [Grid(list(COST.values()), lines, path)]
    if {"device", "threads", "batch"} <= set(table.columns):
        first = table.iloc[0]
        blocks.append(Words(
            f"Measured on {first['device']}; threads: {first['threads']}, batches of "
            f"{first['batch']}.", soft=True,
        ))  # fmt: skip
    picture = path.with_suffix(".png")
    if picture.is_file():
        alt = f"Scores of {len(lines)} models with intervals over GMACs and over throughput."
        blocks.append(Picture(picture, "Score against cost", alt, is_wide=True))
    lacking = [name for name in models if name not in set(table["model"])]
    if lacking:
        blocks.append(Missing(f"Not measured yet: {', '.join(lacking)}.", command))
    return blocks


def localisation_blocks(reported: Reported) -> list[Block]:
    """Return the sheet of where a net says that pictures were changed, where it was drawn."""
    names = reported.dataset, reported.scheme, reported.name
    picture, table = paths.localisation_png(*names), paths.localisation_csv(*names)
    if reported.is_recipe or not (picture.is_file() and table.is_file()):
        return []
    alt = "Pictures, their masks and the net's boundary maps, the best and the worst."
    return [Picture(picture, "Where pictures were changed", alt, is_plot=False, is_wide=True)]


def submission_blocks(dataset: str) -> list[Block]:
    """Return what was written to hand in, and what came back of it."""
    home = paths.submission_csv(dataset, "x").parent
    files = sorted(home.glob("*.csv")) if home.is_dir() else []
    command = f"python predict_ensemble.py --data {shlex.quote(dataset)}"
    try:
        log = read_log(paths.submission_log_csv())
        log, trouble = log[log["data"] == dataset], ""
    except UserError as error:
        log, trouble = pd.DataFrame(), str(error)
    if not files and log.empty:
        return [Missing("Nothing was written to hand in yet:", command), *_said(trouble)]
    lines = [_submission_line(path, log) for path in files]
    names = {path.stem for path in files}
    lines += [
        _logged(str(row["recipe"]), "gone", row)
        for row in log.to_dict("records")
        if row["recipe"] not in names
    ]
    head = ["submission", "file", "rows", "called fake", "cross-fitted [95 %]", "public", "logged",
            "note"]  # fmt: skip
    blocks: list[Block] = [Grid(head, lines)]
    if log.empty:
        text = "None is in the book of submissions, which holds public scores beside these:"
        blocks.append(Missing(text, f"python -m src submit-log --data {shlex.quote(dataset)} "
                              "--recipe NAME --public SCORE"))  # fmt: skip
    made = (_made_of(path) for path in files)
    return [*blocks, *(one for one in made if one is not None), *_said(trouble)]


def _made_of(path: Path) -> Folded | None:
    """Return what a submission was made of, by its sidecar; scores stand in the table."""
    try:
        sidecar = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        kept = {key: value for key, value in sidecar.items() if key != "scores"}
    except (OSError, ValueError, AttributeError):
        return None
    text = json.dumps(kept, indent=2, ensure_ascii=False)
    cut = f"\n... ({len(text):,} letters in all)" if len(text) > MOST_LETTERS else ""
    return Folded(f"What {path.name} was made of", text[:MOST_LETTERS] + cut)


def _said(trouble: str) -> list[Block]:
    return [Words(trouble)] if trouble else []


def _submission_line(path: Path, log: pd.DataFrame) -> list[str | Cell]:
    """Return a line of a submission, by its sidecar and its latest entry in the book."""
    mine = log[log["recipe"] == path.stem] if len(log) else log
    logged = mine.iloc[-1].to_dict() if len(mine) else {}
    try:
        sidecar = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        scores = sidecar.get("scores") or {}
        low, high = scores.get("interval") or (math.nan, math.nan)
        row = {
            "rows": sidecar.get("rows"), "share_fake": sidecar.get("share_fake"),
            "cross_fitted": scores.get("cross_fitted"), "low": low, "high": high,
        }  # fmt: skip
    except (OSError, ValueError, AttributeError, TypeError):
        row = {"note": "its sidecar cannot be read"}
    return _logged(path.stem, path.name, {**logged, **row})


def _logged(name: str, file: str, row: dict) -> list[str | Cell]:
    def number(key: str) -> float:
        value = row.get(key)
        return float(value) if isinstance(value, int | float) else math.nan

    rows, share = number("rows"), number("share_fake")
    score = figure(number("cross_fitted"))
    if not math.isnan(number("low")):
        score += f" [{figure(number('low'))}, {figure(number('high'))}]"
    return [
        name, file, "–" if math.isnan(rows) else f"{rows:,.0f}",
        "–" if math.isnan(share) else Cell(f"{share:.1%}", share=min(1.0, max(0.0, share))),
        score, figure(number("public")), str(row.get("time") or "no"), str(row.get("note") or ""),
    ]  # fmt: skip


def other_schemes(dataset: str, scheme: str, others: list[str]) -> list[Block]:
    """Name the other fold schemes of a data set, with the commands that show them."""
    return [
        Missing(f"{other}:", f"python -m src report --data {shlex.quote(dataset)} --scheme {other}")
        for other in others
        if other != scheme
    ]


def write_scores(path: Path, subjects: list[Reported]) -> None:
    """Write the table of scores as CSV."""
    rows = [
        {
            "name": one.name,
            "kind": "recipe" if one.is_recipe else "model",
            "items": 0 if one.rows is None else len(one.rows),
            "metric": one.metric.name,
            "cross_fitted": one.is_cross_fitted,
            "score": one.score.value,
            "low": one.score.low,
            "high": one.score.high,
            "auc": one.auc.value,
            "auc_low": one.auc.low,
            "auc_high": one.auc.high,
            "note": one.score.why,
        }
        for one in subjects
    ]
    write_csv(path, pd.DataFrame(rows))
