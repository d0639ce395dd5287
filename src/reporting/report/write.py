"""The pages of a data set: one of all models and recipes, and one of each."""

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from src import paths
from src.artifacts.folds import scheme_names
from src.artifacts.label_names import LabelNames, read_label_names
from src.data.audit.metadata import Headers, audit_headers, read_headers
from src.data.items.manifest import Dataset
from src.errors import UserError
from src.reporting.card_table import cell
from src.reporting.report import beside, details, makings
from src.reporting.report.blocks import Block, Cell, Grid, Missing, Page, Section, Words, write_page
from src.reporting.report.maps import map_blocks
from src.reporting.report.subjects import FITTED, Reported, recipe_subject, scores_of
from src.reporting.report.surroundings import audit_blocks, fold_blocks
from src.reporting.report.traits import MOST_HEADERS, trait_blocks, traits_of
from src.reporting.report.worst import worst_blocks
from src.reporting.scorecard import Score

TUNED = "tuned"  # the recipe that goes before others


@dataclass(frozen=True)
class ItemFiles:
    """Where items and their files come from."""

    dataset: Dataset | None  # None where it cannot be listed
    labels: LabelNames  # what its classes are called
    headers: Headers | None = None  # of some train items
    traits: pd.DataFrame = field(default_factory=pd.DataFrame)  # of these, see `traits_of`
    why: str = ""  # why there is no data set, or no header

    @classmethod
    def of(cls, dataset: Dataset | None, name: str, why: str = "") -> "ItemFiles":
        """Read the headers of some files; those that are gone are a reason, no error."""
        if dataset is None:
            return cls(None, read_label_names(name), why=why)
        try:
            headers = read_headers(dataset, MOST_HEADERS)
        except UserError as error:
            return cls(dataset, dataset.labels, why=str(error))
        return cls(dataset, dataset.labels, headers, traits_of(headers))


@dataclass(frozen=True)
class Written:
    """What a report consists of."""

    index: Path  # the page of the data set
    pages: list[Reported]  # what has a page of its own
    lead: Reported | None  # what the page of the data set shows in detail


def recipes_of(dataset: str, scheme: str) -> tuple[list[Reported], list[str]]:
    """Return the recipes of a scheme, `TUNED` first, and what is wrong with the damaged ones."""
    files = {p.stem: p for home in paths.recipe_dirs(dataset)[::-1] for p in home.glob("*.json")}
    found, troubles = [], []
    for name in sorted(files, key=lambda name: (name != TUNED, name)):
        try:
            one = recipe_subject(dataset, scheme, files[name])
        except UserError as error:
            troubles.append(str(error))
            continue
        if one is not None:
            found.append(one)
    return found, troubles


def lead_of(models: Sequence[Reported], recipes: Sequence[Reported]) -> Reported | None:
    """Return the first recipe that has rows, else the model of the best honest score."""
    for one in recipes:
        if one.rows is not None:
            return one
    scored = [one for one in models if one.rows is not None]
    return max(scored, key=lambda one: (one.metric.sign * one.score.value, one.name), default=None)


def write_report(
    dataset: str,
    scheme: str,
    models: Sequence[Reported],
    files: ItemFiles,
    *,
    chosen: Sequence[str] | None = None,
    troubles: Sequence[str] = (),
    maps: bool = False,
) -> Written:
    """Draw and write the page of each model and recipe, then that of the data set.

    Args:
        dataset, scheme: whose models they are.
        models: all that can be shown.
        files: of their items.
        chosen: models that get a page of their own, with what the data set's page shows in detail
            (None: all models and recipes).
        troubles: what could not be read.
        maps: whether to look where nets look, which costs passes.

    Raises:
        UserError: the disk is full or forbidden.
    """
    recipes, damaged = recipes_of(dataset, scheme)
    lead = lead_of(models, recipes)
    every = [*models, *recipes]
    paged = every if chosen is None else [one for one in models if one.name in chosen]
    if lead is not None and lead not in paged:
        paged = [*paged, lead]
    of_lead: list[Section] = []
    for one in paged:
        sections = detail_sections(one, files, every, maps=maps)
        if one is lead:
            of_lead = sections
        write_page(_subject_page(one, files, sections))
    beside.write_scores(paths.cost_csv(dataset, scheme).with_name("scores.csv"), every)
    page = _data_page(dataset, scheme, every, lead, of_lead, files, [*troubles, *damaged])
    return Written(write_page(page), list(paged), lead)


def detail_sections(
    one: Reported, files: ItemFiles, every: Sequence[Reported], *, maps: bool
) -> list[Section]:
    """Return how a model or recipe decides held-out items: decisions, curves, worst, traits."""
    if one.rows is None:
        return []
    names = files.labels.names
    worst = worst_blocks(one, files.dataset, names, files.why if files.dataset is None else "")
    looks = map_blocks(one, list(every), files.dataset, draw=maps)
    if files.headers is None:
        traits: list[Block] = [Missing(f"Headers of files were not read: {files.why}")]
    else:
        traits = trait_blocks(one, files.headers, files.traits, names)
    return [
        Section("decisions", "What is called what", details.decisions(one, names)),
        Section("curves", "Curves", details.curves(one, names)),
        Section("worst", "The most wrong items", worst),
        *([Section("maps", "Where the net looks", looks)] if looks else []),
        Section("traits", "Errors by traits of files", traits),
    ]


def _subject_page(one: Reported, files: ItemFiles, detailed: list[Section]) -> Page:
    names = files.labels.names
    sections = []
    if one.is_recipe:
        sections.append(Section("recipe", "Members and stages", makings.recipe_blocks(one)))
    else:
        sections.append(Section("scores", "Scores, fold by fold", makings.fold_scores(one, names)))
    sections += detailed
    if not one.is_recipe:
        sections.append(Section("epochs", "Over the epochs", details.epochs(one)))
    if one.rows is not None:
        sections.append(Section("robustness", "Robustness", beside.robustness_blocks(one)))
    localised = beside.localisation_blocks(one)
    if localised:
        sections.append(Section("localisation", "Where pictures were changed", localised))
    if not one.is_recipe:
        cost = beside.cost_blocks(one.dataset, one.scheme, [one.name])
        runs = makings.run_blocks(one, files.labels)
        sections += [Section("cost", "Cost", cost), Section("runs", "Runs", runs)]
    kind = "recipe" if one.is_recipe else "model"
    above = [(one.dataset, paths.report_html(one.dataset))]
    lead = [f"A {kind} on {one.dataset}, folds {one.scheme}. Labels: {files.labels.polarity}."]
    lead += [] if one.is_recipe else [f"{note[0].upper()}{note[1:]}." for note in one.notes]
    return Page(one.page, one.name, above, lead, sections, _keys(one))


def _keys(one: Reported) -> list[tuple[str, str]]:
    if one.rows is None:
        return [("scored", one.score.why)] if not one.trouble else []
    how = "cross-fitted" if one.is_cross_fitted else "in-sample"
    fakes = int(one.rows.label.sum())
    return [
        (f"{one.metric.title}, {how if one.metric.decides else 'held out'}", _scored(one.score)),
        ("AUC", _scored(one.auc)),
        ("held-out items", f"{len(one.rows):,} ({fakes:,} fake)"),
        ("groups", f"{one.rows.n_groups:,}"),
    ]  # fmt: skip


def _data_page(
    dataset: str,
    scheme: str,
    every: Sequence[Reported],
    lead: Reported | None,
    of_lead: Sequence[Section],
    files: ItemFiles,
    troubles: Sequence[str],
) -> Page:
    names = files.labels.names
    quoted = shlex.quote(dataset)
    models = [one.name for one in every if not one.is_recipe]
    scores: list[Block] = [_score_table(every), *map(Words, troubles)]
    if not any(one.is_recipe for one in every):
        command = f"python tune.py --data {quoted} --scheme {scheme}"
        scores.append(Missing("No recipe was tuned on these folds yet:", command))
    sections = [Section("members", "Members, recipes and their honest scores", scores)]
    sections += of_lead
    carded = [one for one in every if (one.folder / "robustness.csv").is_file()]
    robust = beside.robustness_summary(carded, lead)
    if robust:
        sections.append(Section("robustness", "Robustness", robust))
    sections += [
        Section("cost", "Cost", beside.cost_blocks(dataset, scheme, models)),
        Section("submissions", "Submissions", beside.submission_blocks(dataset)),
        Section("folds", "Folds and leaks", fold_blocks(files.dataset, dataset, scheme)),
        Section("audit", "What files alone give away", _audit(dataset, files, names)),
    ]
    others = beside.other_schemes(dataset, scheme, scheme_names(dataset))
    if others:
        sections.append(Section("schemes", "Other fold schemes", others))
    text = [f"Folds: {scheme}. Labels: {files.labels.polarity}."]
    keys: list[tuple[str, str]] = []
    if lead is not None:
        kind = "recipe" if lead.is_recipe else "model"
        text.append(
            f"Shown in detail: the {kind} {lead.name}, on items that it was not trained on. Every "
            "model and recipe has a page of its own, linked in the first table."
        )
        keys = _keys(lead)
    return Page(paths.report_html(dataset), f"Report on {dataset}", [], text, sections, keys)


def _audit(dataset: str, files: ItemFiles, names: tuple[str, str]) -> list[Block]:
    command = f"python -m src data --data {shlex.quote(dataset)} --audit"
    if files.headers is None:
        return [Missing(f"Headers of files were not read: {files.why}", command)]
    if not len(files.headers.table):
        return [Words("No header of any file could be read.")]
    return audit_blocks(audit_headers(files.headers), dataset, names)


def _score_table(every: Sequence[Reported]) -> Grid:
    """Return a line a recipe and model, the best honest score first."""
    first = every[0]
    lines: list[tuple[float, list[str | Cell]]] = []
    for one in every:
        page = one.page if one.page.is_file() else None
        name = Cell(f"{one.name} (recipe)" if one.is_recipe else one.name, link=page)
        if one.rows is None:
            lines.append((np.inf, [name, "0", "–", one.score.why, "–", "–", "–", "–", "–"]))
            continue
        found, honest = scores_of(one), one.score
        decided = "cross-fitted" if one.is_cross_fitted else "in-sample"
        decided = f"{one.metric.title}, {decided if one.metric.decides else 'held out'}"
        lines.append((_last(-one.metric.sign * honest.value), [
            name, f"{len(one.rows):,}", _scored(honest), decided, f"{found[FITTED]:.4f}",
            _scored(one.auc), f"{found['log_loss']:.4f}", f"{found['ece']:.4f}", _chosen_by(one),
        ]))  # fmt: skip
    lines.sort(key=lambda line: line[0])
    head = ["name", "items", "score [95 %]", "of what", "macro-F1 in-sample", "AUC [95 %]",
            "log loss", "ECE", "chosen by"]  # fmt: skip
    note = (
        "Items are held out: predicted by models that did not train on them. Cross-fitted: decided "
        "at thresholds that were found on other items. In-sample: found on these very items, which "
        "flatters. A recipe's interval knows that it was chosen."
    )
    path = paths.cost_csv(first.dataset, first.scheme).with_name("scores.csv")
    return Grid(head, [line for _, line in lines], path, note)


def _scored(score: Score) -> str:
    """Return a score with its interval, or why there is none."""
    if math.isnan(score.value):
        return f"none: {score.why}"
    return f"{score.value:.4f} ({score.why})" if score.why else cell(score)


def _last(value: float) -> float:
    return np.inf if math.isnan(value) else value


def _chosen_by(one: Reported) -> str:
    if one.recipe is not None:
        number = len(one.recipe.scores.get("candidates", []))
        return f"best of {number}" if number else "–"
    flattered = any("chose its epoch" in note for note in one.notes)
    return "epoch, by these rows" if flattered else "nothing"
