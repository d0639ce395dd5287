"""What a page is about: a model or a recipe, as rows that were decided, and their scores."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from src import paths
from src.artifacts.recipes import Recipe, check_recipe_fresh, read_recipe
from src.artifacts.runs import was_selected
from src.bootstrap import MIN_GROUPS, bootstrap_scores, interval
from src.ensemble.predictions import Decided, IntArray
from src.ensemble.rule import rule_of
from src.errors import UserError
from src.metrics import (
    METRICS,
    Metric,
    calibration_error,
    classification_report,
    log_loss,
    macro_f1,
    metric_named,
    score_of,
)
from src.reporting.evaluated import honest_rows, own_rows, subject_of_recipe
from src.reporting.fitted import SAME
from src.reporting.runs import ModelRuns, RunPart
from src.reporting.scorecard import Score

CROSS, FITTED = "cross_fitted_macro_f1", "in_sample_macro_f1"
SCORES = ("macro_f1", "accuracy", "f1_real", "f1_fake", "auc", "log_loss", "ece")
ROUNDS = 500  # of the bootstrap of an AUC


@dataclass(frozen=True)
class Reported:
    """A model or a recipe, held-out items and how it decides them."""

    dataset: str
    scheme: str
    name: str
    metric: Metric  # what its threshold was fitted for
    rows: Decided | None  # out of fold; None where nothing is, or `trouble` says why
    in_sample: IntArray  # (n,) 0/1, decided by the rule that was fitted on these very rows
    is_cross_fitted: bool  # whether `rows` were decided by what was fitted on others
    how: str  # how they were decided, in words
    line: float | None  # the one threshold on P(fake), where there is one
    runs: ModelRuns | None = None  # of a model
    recipe: Recipe | None = None  # of a recipe
    trouble: str = ""  # why there are no rows
    notes: list[str] = field(default_factory=list)  # what its scores stand on

    @property
    def is_recipe(self) -> bool:
        """Tell which of the two it is."""
        return self.recipe is not None

    @property
    def folder(self) -> Path:
        """Return where its page and pictures lie, beside what other commands drew of it."""
        names = self.dataset, self.scheme, self.name
        return paths.scorecard_csv(*names, is_recipe=self.is_recipe).parent

    @property
    def page(self) -> Path:
        """Return the path of its page."""
        return self.folder / "index.html"

    @property
    def histories(self) -> Mapping[paths.FoldName, list[dict[str, Any]]]:
        """Return the epochs of its runs, by fold."""
        records = self.runs.records if self.runs else {}
        return {fold: record["history"] for fold, record in records.items()}

    @cached_property
    def score(self) -> Score:
        """Return the metric of the honest decisions with its 95 % interval; why there is none.

        Of a recipe the interval is that of tuning, which knows that it was chosen among others.
        """
        if self.rows is None:
            return Score(np.nan, np.nan, np.nan, self.trouble or "nothing is held out")
        value = interval_of(self.metric, self.rows)
        stated = self.recipe.scores.get("interval") if self.recipe else None
        said = self.recipe.scores.get("cross_fitted") if self.recipe else None
        if stated and said is not None and abs(said - value.value) <= SAME:
            return value._replace(low=stated[0], high=stated[1])
        return value

    @cached_property
    def auc(self) -> Score:
        """Return the AUC with its 95 % interval."""
        if self.rows is None:
            return self.score
        return interval_of(METRICS.get("auc"), self.rows)


def of_its_own(rows: Decided) -> str:
    """Return what intervals that count items rely on, and where it does not hold."""
    note = "take every item to be of its own"
    if rows.n_groups < len(rows):
        note += f"; these {len(rows):,} items form {rows.n_groups:,} groups, so they are too narrow"
    return note


def interval_of(metric: Metric, rows: Decided, seed: int = 0) -> Score:
    """Return a metric of decided rows, its 95 % interval by group, or why there is none."""
    fakes = int(rows.label.sum())
    if why := metric.undefined(len(rows) - fakes, fakes):
        return Score(np.nan, np.nan, np.nan, why)
    answer = rows.prob, rows.pred
    value = score_of(metric, rows.label, *answer)
    if rows.n_groups < MIN_GROUPS:
        return Score(value, np.nan, np.nan, f"no interval of {rows.n_groups} groups")
    rounds = None if metric.decides else ROUNDS
    drawn = bootstrap_scores(metric, rows.label, [answer], rows.group, seed=seed, replicates=rounds)
    return Score(value, *interval(drawn[:, 0]))


def scores_of(part: RunPart | Reported) -> dict[str, float]:
    """Return `items`, macro-F1 cross-fitted (if it is), at 0.5 `SCORES`, in-sample macro-F1."""
    rows = part.rows
    assert rows is not None
    found = classification_report(rows.label, rows.logit, 0.5)
    found["log_loss"] = log_loss(rows.label, rows.logit)
    found["ece"] = calibration_error(rows.label == 1, rows.prob)
    first = {CROSS: macro_f1(rows.label, rows.pred)} if part.is_cross_fitted else {}
    at_half = {k: found[k] for k in SCORES}
    return {"items": len(rows), **first, **at_half, FITTED: macro_f1(rows.label, part.in_sample)}


def subject_of_runs(runs: ModelRuns) -> Reported:
    """Return a model of which runs were read."""
    whole = runs.whole
    names, metric = (runs.dataset, runs.scheme, runs.model), METRICS.get("macro_f1")
    if whole is None:
        none = np.empty(0, np.int64)
        return Reported(*names, metric, None, none, False, "", None, runs)
    chosen = [str(fold) for fold, record in runs.records.items() if was_selected(record)]
    notes = [f"thresholds fitted on all of the rows: {whole.tuned}"]
    if chosen:
        notes.append(
            f"fold {', '.join(chosen)} chose its epoch, or what it merges, by its score on these "
            "very rows, which flatters it"
        )
    return Reported(
        *names, metric, whole.rows, whole.in_sample, whole.is_cross_fitted, whole.how, whole.line,
        runs, notes=notes,
    )  # fmt: skip


def recipe_subject(dataset: str, scheme: str, path: Path) -> Reported | None:
    """Return a recipe; one whose predictions are gone has its own scores, and says so.

    None for a recipe of another scheme.

    Raises:
        UserError: its file is damaged.
    """
    recipe = read_recipe(path)
    if recipe.scheme != scheme or recipe.dataset != dataset:
        return None
    none, metric = np.empty(0, np.int64), metric_named(recipe.metric)
    names = dataset, scheme, path.stem
    notes = [str(note) for note in recipe.scores.get("notes", [])]
    try:
        check_recipe_fresh(recipe)
        found = subject_of_recipe(path.stem, recipe)
        fitted, rule = own_rows(found), rule_of(recipe)
    except UserError as error:
        return Reported(
            *names, metric, None, none, False, "", None, None, recipe, str(error), notes
        )  # fmt: skip
    rows = honest_rows(found)
    is_cross = found.crossfitted is not None
    how = f"cross-fitted: {found.cuts}" if is_cross and found.cuts else found.threshold
    if is_cross and not found.cuts:
        how = f"cross-fitted; {how}"
    in_sample = fitted.pred if len(fitted) == len(rows) else rows.pred
    line = None if rule.by or rule.voting == "hard" else rule.threshold
    return Reported(
        *names, metric, rows, in_sample, is_cross, how, line, None, recipe,
        notes=[*notes, *found.notes],
    )  # fmt: skip


def lost_files(subject: Reported) -> list[Path]:
    """Return the checkpoints that a recipe predicts with and that are gone."""
    recipe = subject.recipe
    if recipe is None:
        return []
    wanted = (
        paths.readable(paths.checkpoint(recipe.dataset, recipe.scheme, member.model, fold))
        for member, fold in recipe.runs()
        if member.checkpoint_sha256
    )
    return [path for path in wanted if not path.is_file()]
