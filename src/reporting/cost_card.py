"""What models cost beside each other and beside a teacher: lines, CSV and a picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from src.inference.cost import Cost, text_tower
from src.reporting.card_table import cell
from src.reporting.charts import new_figure, save_figure, shown
from src.reporting.cost_limits import Limit, broken
from src.reporting.scorecard import Card

SCORES = {"macro_f1": "macro-F1", "auc": "AUC"}
NOISY = 0.2  # a spread of throughput from which the figure is marked
ALONE = 0.9  # of its cores; below it other work slowed the model down


@dataclass(frozen=True)
class MeasuredOn:
    """How everything was measured."""

    device: str
    batch: int
    threads: int
    rounds: int
    on_cpu: bool
    load: float  # average of the machine's last minute, as measuring began
    cores: int  # of the machine


@dataclass(frozen=True)
class Scored:
    """The scores of a model, and on what."""

    card: Card
    folds: tuple[int, ...]
    threshold: str  # in words


def cost_table(
    costs: Sequence[Cost],
    scores: Mapping[str, Scored],
    teacher: Cost | None,
    limits: list[Limit],
    measured_on: MeasuredOn,
    *,
    text: bool,
) -> pd.DataFrame:
    """Return a row a way, in plain units: bytes, seconds, parameters, multiply-accumulates.

    `of_teacher_*` are shares of the teacher's figure, `faster_than_teacher` the median factor of
    throughput over turns of the same round. Scores are NaN where a model has none.
    """
    rows = []
    for cost in costs:
        run, turns = cost.fresh, cost.turns
        row: dict[str, object] = {
            "model": cost.way.name, "engine": cost.way.engine, "precision": cost.way.precision,
            "image_size": cost.image_size, "parameters": cost.parameters, "macs": cost.macs,
            "file_bytes": cost.file_bytes, "file_kind": cost.file_kind,
            "images_per_second": turns.median, "lowest": min(turns.images_per_second),
            "highest": max(turns.images_per_second),
            "images_per_cpu_second": float(np.median(turns.images_per_cpu_second)),
            "share_of_cores": turns.share if measured_on.on_cpu else None,
            "load_seconds": run.load_seconds, "first_seconds": run.first_seconds,
            "warm_seconds": run.warm_seconds, "peak_bytes": run.peak_bytes,
            "library_bytes": run.library_bytes,
        }  # fmt: skip
        if text:
            row["parameters_with_text"] = cost.parameters + text_tower()
        if teacher is not None:
            row |= {
                "of_teacher_parameters": cost.parameters / teacher.parameters,
                "of_teacher_macs": cost.macs / teacher.macs,
                "of_teacher_file_bytes": cost.file_bytes / teacher.file_bytes,
                "of_teacher_warm_seconds": run.warm_seconds / teacher.fresh.warm_seconds,
                "of_teacher_peak_bytes": run.peak_bytes / teacher.fresh.peak_bytes,
                "faster_than_teacher": turns.factor(teacher.turns),
            }
        if limits:
            row["over_budget"] = ", ".join(broken(cost, limits))
        row |= _scores_of(scores.get(cost.way.name), scores, teacher)
        rows.append(row | vars(measured_on))
    return pd.DataFrame(rows)


def is_disturbed(cost: Cost, measured_on: MeasuredOn) -> bool:
    """Tell whether other work, or a chip that changed its pace, shows in the throughput."""
    waited = measured_on.on_cpu and cost.turns.share < ALONE
    return waited or cost.turns.spread > NOISY


def _scores_of(
    scored: Scored | None, scores: Mapping[str, Scored], teacher: Cost | None
) -> dict[str, object]:
    found: dict[str, object] = {}
    if not scores:
        return found
    card = None if scored is None else scored.card
    of_teacher = None if teacher is None else scores.get(teacher.way.name)
    for name in SCORES:
        score = None if card is None else card.scores[name]
        values = (np.nan, np.nan, np.nan) if score is None else (score.value, score.low, score.high)
        found |= dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))
        if of_teacher is not None:
            found[f"of_teacher_{name}"] = values[0] / of_teacher.card.scores[name].value
    found["items"] = None if card is None else card.items
    found["folds"] = "" if scored is None else " ".join(map(str, scored.folds))
    return found


def cost_lines(
    costs: Sequence[Cost],
    scores: Mapping[str, Scored],
    limits: list[Limit],
    measured_on: MeasuredOn,
    *,
    text: bool,
) -> list[list[str]]:
    """Return the figures as lines of a table, with units."""
    head = [
        "model", "engine", "px", "parameters", *(["with text tower"] if text else []), "GMACs",
        "file", "images/s [lowest, highest]", "first, warm ms", "peak MB (libraries)",
        *([*SCORES.values(), "items"] if scores else []), *(["budget"] if limits else []),
    ]  # fmt: skip
    lines = [head]
    for cost in costs:
        turns, run, scored = cost.turns, cost.fresh, scores.get(cost.way.name)
        speeds = turns.images_per_second
        noisy = " noisy" if turns.spread > NOISY else ""
        if measured_on.on_cpu and turns.share < ALONE:
            noisy += f", had {turns.share:.0%} of its cores"
        line = [
            cost.way.name, f"{cost.way.engine} {cost.way.precision}", str(cost.image_size),
            f"{cost.parameters:,}", *([f"{cost.parameters + text_tower():,}"] if text else []),
            f"{cost.macs / 1e9:.4g}", f"{cost.file_bytes / 1e6:.2f} MB {cost.file_kind}",
            f"{turns.median:.1f} [{min(speeds):.1f}, {max(speeds):.1f}]{noisy}",
            f"{1e3 * run.first_seconds:.1f}, {1e3 * run.warm_seconds:.1f}",
            f"{run.peak_bytes / 1e6:.0f} ({run.library_bytes / 1e6:.0f})",
        ]  # fmt: skip
        if scores:
            line += [cell(scored.card.scores[name]) if scored else "-" for name in SCORES]
            line.append(str(scored.card.items) if scored else "-")
        if limits:
            over = broken(cost, limits)
            line.append(f"over {', '.join(over)}" if over else "fits")
        lines.append(line)
    return lines


def against_lines(costs: Sequence[Cost], teacher: Cost, table: pd.DataFrame) -> list[list[str]]:
    """Return each way's share of the teacher's figures, and how many times faster it is."""
    names = ["parameters", "macs", "file_bytes", "warm_seconds", "peak_bytes", *SCORES]
    heads = ["parameters", "GMACs", "file", "warm latency", "peak memory", *SCORES.values()]
    kept = [(n, h) for n, h in zip(names, heads, strict=True) if f"of_teacher_{n}" in table]
    lines = [[f"of {teacher.way.title}", *(head for _, head in kept), "images/s"]]
    for cost, record in zip(costs, table.to_dict("records"), strict=True):
        if cost is teacher:
            continue
        shares = [record[f"of_teacher_{name}"] for name, _ in kept]
        cells = ["-" if np.isnan(share) else f"{share:.1%}" for share in shares]
        lines.append([cost.way.title, *cells, f"{record['faster_than_teacher']:.2f} times"])
    return lines


def plot_costs(costs: Sequence[Cost], scores: Mapping[str, Scored], path: Path) -> Path | None:
    """Draw scores with their intervals over GMACs and over throughput with its spread.

    Returns:
        `path`; None where nothing is scored, and nothing is drawn.
    """
    points = [(cost, scores[cost.way.name].card) for cost in costs if cost.way.name in scores]
    if not points:
        return None
    figure = new_figure(12, 5 * len(SCORES))
    from matplotlib.ticker import LogLocator, NullFormatter

    grid = figure.subplots(len(SCORES), 2, squeeze=False)
    for (name, title), (left, right) in zip(SCORES.items(), grid, strict=True):
        for cost, card in points:
            score = card.scores[name]
            if np.isnan(score.value):
                continue
            bars = [[score.value - score.low], [score.high - score.value]]
            high = None if np.isnan(score.low) else np.clip(bars, 0, None)
            turns = cost.turns
            wide = [
                [turns.median - min(turns.images_per_second)],
                [max(turns.images_per_second) - turns.median],
            ]
            left.errorbar(cost.macs / 1e9, score.value, high, fmt="o", capsize=3)
            right.errorbar(turns.median, score.value, high, wide, fmt="o", capsize=3)
            for axes, x in ((left, cost.macs / 1e9), (right, turns.median)):
                axes.annotate(shown(cost.way.title, 32), (x, score.value), fontsize=8,
                              xytext=(5, 5), textcoords="offset points")  # fmt: skip
        left.set(xscale="log", xlabel="GMACs an image", ylabel=f"{title}, 95 % interval")
        right.set(xscale="log", xlabel="images a second", ylabel=f"{title}, 95 % interval")
        for axes in (left, right):
            axes.margins(0.35, 0.2)
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter(NullFormatter())
    return save_figure(figure, path)
