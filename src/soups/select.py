"""What of a merge is chosen by score: who goes into a soup, weights, a method's parameters.

A choice is made on some held-out rows and returned as a recipe that says all of it: on all of
them, and on either half for a score that counts.
"""

import itertools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src.artifacts.oof import CROSS_FITTED, read_oof
from src.artifacts.runs import check_oof
from src.ensemble.predictions import ALONE, fit_threshold
from src.errors import UserError
from src.merging.merger import MergeRefusedError
from src.merging.recipe import MergeRecipe, Setting
from src.metrics import metric_named
from src.progress import track
from src.seeds import derive_seed
from src.soups.bench import Bench, plain
from src.soups.gradients import learned_recipe
from src.soups.ingredients import IngredientFile
from src.soups.plan import Range, Selection
from src.soups.table import TooFewGroupsError, halves_of
from src.training.job import Job

LOG = logging.getLogger("rvf")
FloatArray = NDArray[np.float64]
Rows = NDArray[np.bool_]
SCORES = ["macro_f1", "auc", "log_loss"]  # columns of `tried_table`


@dataclass(frozen=True)
class Chosen:
    """A recipe without anything left to choose."""

    recipe: MergeRecipe  # what was chosen
    score: float  # of it on the rows that it was chosen on; higher is better


def score_of(metric: str, label: NDArray[np.int64], logit: FloatArray) -> float:
    """Return a score of (n,) logits, at the best threshold of these rows; higher is better."""
    found = metric_named(metric)
    return found.sign * fit_threshold(label, logit, ALONE, found)[1]


class Chooser:
    """Chooses on several sets of rows; a merge that two of them look at is made once."""

    def __init__(self, bench: Bench, recipe: MergeRecipe, selection: Selection) -> None:
        self.bench, self.recipe, self.selection = bench, recipe, selection
        self._known: dict[str, tuple[MergeRecipe, FloatArray]] = {}

    def know(self, recipe: MergeRecipe, logits: FloatArray) -> None:
        """Take over the (n,) logits of a merge that are known already."""
        self._known[repr(recipe.as_dict())] = (recipe, logits)

    @property
    def tried(self) -> list[tuple[MergeRecipe, FloatArray]]:
        """Return every merge that was looked at, with its logits of all held-out rows."""
        return list(self._known.values())

    def logits(self, recipe: MergeRecipe) -> FloatArray:
        """Return the logits of all held-out rows by a merge, (n,) float64."""
        key = repr(recipe.as_dict())
        if key not in self._known:
            self.bench.put(recipe)
            self._known[key] = (recipe, self.bench.predict())
        return self._known[key][1]

    def score(self, recipe: MergeRecipe, rows: Rows) -> float:
        """Return the score of a merge on some of the held-out rows."""
        return score_of(self.selection.metric, self.bench.labels[rows], self.logits(recipe)[rows])

    def choose(self, rows: Rows) -> Chosen:
        """Choose on some of the held-out rows, (n,) bool."""
        if self.selection.how == "greedy":
            return greedy_soup(self.recipe, lambda recipe: self.score(recipe, rows))
        if self.selection.how == "learned":
            names = [one.model for one in self.recipe.models]
            learned = learned_recipe(self.bench, names, rows, self.selection.knots)
            return Chosen(learned, self.score(learned, rows))
        scores = [self.score(recipe, rows) for recipe in self._searched]
        best = int(np.argmax(scores))
        return Chosen(self._searched[best], scores[best])

    @cached_property
    def _searched(self) -> list[MergeRecipe]:
        """The merges of a search but those that the method refuses, be it at one depth; made."""
        found = []
        space = candidates(self.recipe, self.selection, self.bench.seed)
        for recipe in track(space, "searching", unit="merge"):
            try:
                self.logits(recipe)
            except MergeRefusedError as error:
                LOG.info("search: left out: %s", error)
            else:
                found.append(recipe)
        if not found:
            raise UserError(
                f"search: {self.recipe.merge_method} refuses all {len(space)} combinations"
            )
        return found


def greedy_soup(recipe: MergeRecipe, score: Callable[[MergeRecipe], float]) -> Chosen:
    """Add models to a soup while that helps (Wortsman et al. 2022, Model soups, recipe 1).

    Models are sorted by their own score, the best begins, and each further one stays only if the
    uniform soup with it has a strictly higher score.
    """
    alone = {one.model: score(plain("uniform", [one.model])) for one in recipe.models}
    order = sorted(alone, key=lambda name: -alone[name])
    chosen, best = order[:1], alone[order[0]]
    for name in order[1:]:
        found = score(plain("uniform", [*chosen, name]))
        if found > best:
            chosen, best = [*chosen, name], found
    return Chosen(plain("uniform", chosen), best)


def candidates(recipe: MergeRecipe, selection: Selection, seed: int) -> list[MergeRecipe]:
    """Return the merges that a search looks at: a grid where it fits, else random draws.

    Draws do not depend on scores (Bergstra & Bengio 2012): a sampler that learns from the scores
    of all rows would carry what it learnt from one half into the choice on the other.
    """
    axes = [
        (name, model, space)
        for name, space in selection.space.items()
        for model in (
            [one.model for one in recipe.models] if space.each == "model" else [None]
        )
    ]  # fmt: skip
    grid = [space.values for _, _, space in axes for _ in range(space.knots)]  # noqa: PD011
    if all(grid) and np.prod([len(values) for values in grid]) <= selection.trials:
        draws = [list(values) for values in itertools.product(*grid)]
    else:
        rng = np.random.default_rng(derive_seed("merge search", seed))
        draws = [[space.draw(rng) for _, _, space in axes for _ in range(space.knots)]
                 for _ in range(selection.trials)]  # fmt: skip
    found: list[MergeRecipe] = []
    for made in (_with(recipe, axes, values) for values in draws):
        if made not in found:
            found.append(made)
    return found


Axes = Sequence[tuple[str, str | None, Range]]


def _with(recipe: MergeRecipe, axes: Axes, values: list[Any]) -> MergeRecipe:
    """Return the recipe with the values, in the order of the axes and their knots."""
    left = list(values)
    for name, model, space in axes:
        mine, left = left[: space.knots], left[space.knots :]
        setting: Setting = mine[0] if space.knots == 1 else tuple(float(value) for value in mine)
        models = []
        for one in recipe.models:
            own = dict(one.parameters)
            if model is None:
                own.pop(name, None)
            elif model == one.model:
                own[name] = setting
            models.append(replace(one, parameters=own))
        recipe = replace(recipe, models=tuple(models))
        if model is None:
            recipe = recipe.with_parameters(**{name: setting})
    return recipe


def sweep_axis(selection: Selection) -> str | None:
    """Return the parameter that a search moved along, where it is the only one and a number."""
    if len(selection.space) != 1:
        return None
    ((name, space),) = selection.space.items()
    choices = space.values  # noqa: PD011 - no table
    words = any(isinstance(value, bool | str) for value in choices)
    return None if space.each == "model" or space.knots > 1 or words else name


def tried_table(
    label: NDArray[np.int64],
    tried: Sequence[tuple[MergeRecipe, FloatArray]],
    selection: Selection,
) -> pd.DataFrame:
    """Return a row a merge: on all held-out rows, those that the choice is made on.

    Columns are `merge` in words, the swept parameter, what decides and `SCORES`, at the best
    threshold; sorted by the parameter where there is one, else by what decides.
    """
    axis, rows = sweep_axis(selection), []
    shown = [metric_named(name) for name in dict.fromkeys([selection.metric, *SCORES])]
    for recipe, logit in tried:
        row: dict[str, object] = {"merge": recipe.in_words()}
        if axis is not None:
            if axis not in recipe.parameters:
                continue  # an ingredient, looked at alone
            row[axis] = recipe.parameters[axis]
        row |= {one.name: fit_threshold(label, logit, ALONE, one)[1] for one in shown}
        rows.append(row)
    table = pd.DataFrame(rows)
    by = axis or selection.metric
    rising = axis is not None or not shown[0].higher
    return table.sort_values(by, ascending=rising, kind="stable", ignore_index=True)


def choose(
    selection: Selection, recipe: MergeRecipe, ingredients: dict[str, IngredientFile], bench: Bench
) -> tuple[Chosen, pd.DataFrame, pd.DataFrame]:
    """Choose a merge on all held-out rows, and on either half.

    Returns what all rows chose; the logits of what either half chose (`CROSS_FITTED`, sorted by
    item_id); what was looked at (`tried_table`). A UserError where there are too few groups.
    """
    job = bench.job
    ids = job.table["item_id"].to_numpy()[job.held_rows]
    try:
        half = halves_of(bench.labels, ids, job.groups[job.held_rows])
    except TooFewGroupsError:
        raise UserError(
            f"{job.model} fold {job.fold}: the held-out rows have too few groups to choose on one "
            "half and score on the other; merge without `select` or `search`"
        ) from None
    chooser = Chooser(bench, recipe, selection)
    for name, one in ingredients.items():
        logit = own_logits(job, one)
        if logit is not None:
            chooser.know(plain("uniform", [name]), logit)
    by_half = [chooser.choose(half == k) for k in (0, 1)]
    chosen = chooser.choose(np.ones(len(half), bool))
    logits = [chooser.logits(choice.recipe) for choice in by_half]
    table = pd.DataFrame({"item_id": ids, "half": half, "logit_0": logits[0], "logit_1": logits[1]})
    # Weights that are learned follow the log loss, whatever the metric.
    how = f"chosen by {selection.how} ({selection.metric})"
    how = "weights learned by gradient" if selection.how == "learned" else how
    LOG.info(
        "%s: %s; its score is that of what either half chose, in the table",
        how, chosen.recipe.in_words(),
    )  # fmt: skip
    ordered = table[CROSS_FITTED].sort_values("item_id", kind="stable")
    return chosen, ordered, tried_table(bench.labels, chooser.tried, selection)


def own_logits(job: Job, one: IngredientFile) -> FloatArray | None:
    """Return an ingredient's (n,) out-of-fold logits of a job's held-out rows, in their order.

    They are pooled over views, frames and people as the run pooled them; None where they are not
    there, or of other weights: then they must be predicted.
    """
    run = one.record or {}
    known = tuple(run.get(key) for key in ("dataset", "scheme", "fold", "checkpoint_sha256"))
    if isinstance(job.fold, str) or known != (job.dataset, job.scheme, job.fold, one.sha256):
        return None
    try:
        oof = read_oof(check_oof(run), job.table, job.fold)
    except UserError:  # gone, damaged or of another run: predicted here
        return None
    ids = job.table["item_id"].to_numpy()[job.held_rows]
    return oof.set_index("item_id")["logit"].loc[ids].to_numpy(np.float64)
