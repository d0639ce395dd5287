"""What a model or a recipe is made of: runs and settings, or members, stages and candidates."""

import json
import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from src import paths
from src.artifacts.files import write_csv
from src.artifacts.label_names import LabelNames
from src.config import parse_model
from src.errors import UserError
from src.reporting.report.blocks import Block, Cell, Folded, Grid, Missing, Words, figure
from src.reporting.report.panels import draw_history, draw_panel
from src.reporting.report.subjects import CROSS, FITTED, Reported, lost_files, scores_of
from src.strict_yaml import dump_yaml

FACTS = ("selection", "epoch", "start", "precision", "device", "trainable", "seconds",
         "items_per_second")  # fmt: skip
HEADS = {
    "items": "items", CROSS: "macro-F1, cross-fitted", "macro_f1": "macro-F1 at 0.5",
    "accuracy": "accuracy", "auc": "AUC", "log_loss": "log loss", "ece": "ECE",
    FITTED: "macro-F1, in-sample",
}  # fmt: skip


def fold_scores(reported: Reported, names: tuple[str, str]) -> list[Block]:
    """Return a model's scores fold by fold, their mean and spread, and all items together."""
    runs = reported.runs
    if runs is None or runs.whole is None:
        return [Words("Nothing is held out, so nothing is scored.")]
    folds = {f"fold {fold}": scores_of(part) for fold, part in runs.folds.items()}
    table = pd.DataFrame.from_dict(folds, orient="index")
    path = reported.folder / "scores.csv"
    write_csv(path, table.reset_index(names="fold"))
    own = {"f1_real": f"F1 of {names[0]}", "f1_fake": f"F1 of {names[1]}"}
    heads = [own.get(column, HEADS.get(column, column)) for column in table.columns]
    lines = [[name, *(_number(row[c]) for c in table.columns)] for name, row in folds.items()]
    if len(folds) > 1:
        spread = zip(table.columns, table.mean(), table.std(ddof=1), strict=True)
        cells = ["" if c == "items" else f"{m:.4f} ± {s:.4f}" for c, m, s in spread]
        whole = scores_of(runs.whole)
        lines += [
            ["mean ± standard deviation", *cells],
            ["all items together", *(_number(whole[c]) for c in table.columns)],
        ]
    cross = f"{HEADS[CROSS]}: {runs.whole.how.partition(': ')[2]}, each found on other items. "
    note = (
        f"{cross if runs.whole.is_cross_fitted else ''}{HEADS[FITTED]}: {runs.whole.tuned}, found "
        "on these very items, which flatters. The other scores are at 0.5."
    )
    return [Grid(["of", *heads], lines, path, note)]


def run_blocks(reported: Reported, labels: LabelNames) -> list[Block]:
    """Return epochs, start, device and time of a model's runs, and their settings.

    The picture that a fold's end draws is drawn again where it is missing, or older than what the
    fold predicted.
    """
    runs = reported.runs
    if runs is None or not runs.records:
        return [Words("No run was recorded here: these predictions came from elsewhere.")]
    lines: list[list[str | Cell]] = []
    for fold, record in runs.records.items():
        start = record["start"]
        facts = record | {"start": f"{start.get('source')} {start.get('name') or ''}".strip()}
        picture = _panel(reported, fold, labels)
        cells = (_number(facts[name]) for name in FACTS)
        epochs, numbers = str(len(record["history"])), Cell("none")
        if record["history"]:  # a merge has none
            numbers = Cell("epochs (CSV)", link=picture.with_suffix(".csv"))
            write_csv(picture.with_suffix(".csv"), pd.DataFrame(record["history"]))
        lines.append([Cell(f"fold {fold}", link=picture), numbers, epochs, *cells])
    heads = ["run", "numbers", "epochs", *(name.replace("_", " ") for name in FACTS)]
    return [Grid(heads, lines), *_settings(runs.records)]


def _panel(reported: Reported, fold: paths.FoldName, labels: LabelNames) -> Path:
    """Return a fold's picture, all of it in one, drawn where it is missing or out of date."""
    assert reported.runs is not None
    part = reported.runs.folds.get(fold) if isinstance(fold, int) else None
    names = reported.dataset, reported.scheme, reported.name
    path = reported.folder / f"fold_{fold}.png"
    made_of = [paths.run_record(*names, fold), paths.oof_csv(*names, fold)]
    newest = max((one.stat().st_mtime for one in made_of if one.is_file()), default=math.inf)
    if path.is_file() and path.stat().st_mtime >= newest:
        return path
    history = reported.runs.records[fold]["history"]
    title = f"{reported.name} on {reported.dataset}/{reported.scheme}, fold {fold}"
    if part is None:
        return draw_history(title, {fold: history}, path)
    return draw_panel(part, title, path, labels)


def _settings(records: Mapping[paths.FoldName, dict[str, Any]]) -> list[Block]:
    """Return where configs differ from the defaults, and the whole of each, folded away."""
    texts: dict[str, list[str]] = {}
    for fold, record in records.items():
        texts.setdefault(dump_yaml(record["config"]), []).append(str(fold))
    blocks: list[Block] = []
    for text, folds in texts.items():
        of = f" of fold {', '.join(folds)}" if len(texts) > 1 else ""
        config = next(r["config"] for f, r in records.items() if str(f) in folds)
        changed = _unusual(config)
        if changed:
            rows = [[key, value] for key, value in changed.items()]
            blocks.append(Grid([f"setting{of} other than the default", "value"], rows))
        blocks.append(Folded(f"The whole config{of}", text))
    return blocks


def _unusual(config: dict[str, Any]) -> dict[str, str]:
    """Return the settings that are not the defaults, `optim.lr` and so on."""
    try:
        usual = parse_model({"backbone": {"name": config["backbone"]["name"]}}, "").as_dict()
    except (UserError, KeyError, TypeError):
        return {}
    mine, other = _flat(config), _flat(json.loads(json.dumps(usual)))  # lists, as in a record
    found = {key: value for key, value in mine.items() if other.get(key, "") != value}
    found["backbone.name"] = mine.get("backbone.name", "")
    return dict(sorted(found.items()))


def _flat(config: Mapping[str, Any], above: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{above}{key}.")
        else:
            found[f"{above}{key}"] = str(value)
    return found


def recipe_blocks(reported: Reported) -> list[Block]:
    """Return a recipe's members and stages, what predicts, and what it was chosen among."""
    recipe = reported.recipe
    assert recipe is not None
    blocks: list[Block] = []
    if reported.trouble:
        again = f"python tune.py --data {shlex.quote(recipe.dataset)} --recipe " + shlex.quote(
            reported.name
        )
        blocks.append(Missing(f"What it was tuned on is not there as it was: {reported.trouble}",
                              again))  # fmt: skip
    lost = lost_files(reported)
    if lost:
        blocks.append(Words(
            f"It cannot predict here: {len(lost)} of its checkpoints are gone, the first is "
            f"{lost[0].parent.name}/{lost[0].name}."
        ))  # fmt: skip
    home = paths.report_dir
    lines = []
    for member in recipe.members:
        page = home(recipe.dataset, recipe.scheme, member.model) / "index.html"
        share = None if recipe.is_stack else min(1.0, max(0.0, member.weight))
        lines.append([
            Cell(member.model, link=page if page.is_file() else None),
            Cell(f"{member.weight:.4f}", share=share), " ".join(map(str, member.folds)),
            f"{member.threshold:.4f}",
        ])  # fmt: skip
    weight = "coefficient" if recipe.is_stack else "weight"
    blocks.append(Grid(["member", weight, "folds that predict", "own threshold"], lines))
    stages = [
        [str(stage["name"]), ", ".join(f"{k} {_short(v)}" for k, v in stage["params"].items())]
        for stage in recipe.stages
    ]
    blocks.append(Grid(["stage, in this order", "settings"], stages))
    return [*blocks, *_candidates(reported), *(Words(note, soft=True) for note in reported.notes)]


def _candidates(reported: Reported) -> list[Block]:
    """Return what the recipe was chosen among, the incumbent first."""
    assert reported.recipe is not None
    scores = reported.recipe.scores
    cross, incumbent = scores.get("cross_fitted"), scores.get("incumbent")
    blocks: list[Block] = []
    if cross is not None and incumbent is not None:
        title = reported.metric.title
        blocks.append(Words(
            f"{title} {cross:.4f} cross-fitted on {scores.get('rows', 0):,} rows, "
            f"{incumbent:.4f} of the plain mean at 0.5 (the incumbent): {cross - incumbent:+.4f}."
        ))  # fmt: skip
    found = [one for one in scores.get("candidates", []) if isinstance(one, dict)]
    if not found:
        return blocks
    path = reported.folder / "candidates.csv"
    keys = ("name", "voting", "cross_fitted", "gain", "gain_se", "over", "in_sample", "taken")
    write_csv(path, pd.DataFrame([{key: one.get(key) for key in keys} for one in found]))
    lines = []
    for one in found:
        low, high = one.get("interval") or (math.nan, math.nan)
        gain = "" if one.get("gain") is None else f"{one['gain']:+.4f} ± {one['gain_se'] or 0:.4f}"
        lines.append([
            f"{one.get('name')}{' (chosen)' if one.get('taken') else ''}",
            str(one.get("voting") or ""),
            f"{figure(_float(one.get('cross_fitted')))} [{figure(low)}, {figure(high)}]", gain,
            str(one.get("over") or ""), figure(_float(one.get("in_sample"))),
        ])  # fmt: skip
    head = ["candidate", "voting", "cross-fitted [95 %]", "gain ± s.e.", "over", "in-sample"]
    return [*blocks, Grid(head, lines, path)]


def _float(value: object) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 160 else f"{text[:150]} ... ({len(text):,} letters)"


def _number(value: Any) -> str:  # noqa: ANN401 - whatever a record holds
    return f"{value:,.4f}" if isinstance(value, float) else str(value)
