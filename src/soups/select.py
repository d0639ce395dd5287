"""What of a merge is chosen by score: who goes into a soup, weights, a method's parameters.

A choice is made on some held-out rows and returned as a recipe that says all of it.
"""

import itertools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.ensemble.predictions import fit_threshold
from src.errors import UserError
from src.merging.merger import MergeRefusedError, try_values
from src.merging.recipe import MergeRecipe, Setting, filters_of
from src.metrics import auc, log_loss
from src.progress import track
from src.seeds import derive_seed
from src.soups.bench import Bench, plain
from src.soups.gradients import learned_recipe
from src.soups.plan import Range, Selection

LOG = logging.getLogger("rvf")
FloatArray = NDArray[np.float64]
Rows = NDArray[np.bool_]


@dataclass(frozen=True)
class Choice:
    """A recipe without anything left to choose."""

    recipe: MergeRecipe  # what was chosen
    score: float  # of it on the rows that it was chosen on; higher is better


def score_of(metric: str, label: NDArray[np.int64], logit: FloatArray) -> float:
    """Return a score that is better the higher it is.

    Args:
        metric: `macro_f1` (at the best threshold of these rows), `auc`, or `log_loss` (negated).
        label: (n,) 0/1.
        logit: (n,).
    """
    if metric == "macro_f1":
        return fit_threshold(label, logit)[1]
    return auc(label, logit) if metric == "auc" else -log_loss(label, logit)


class Chooser:
    """Chooses on several sets of rows; a merge that two of them look at is made once.

    Args:
        bench: where merges are tried.
        recipe: as written, with what is to be chosen left open.
        selection: how to choose.
    """

    def __init__(self, bench: Bench, recipe: MergeRecipe, selection: Selection) -> None:
        self.bench, self.recipe, self.selection = bench, recipe, selection
        self._known: dict[str, tuple[MergeRecipe, FloatArray]] = {}
        self._candidates: list[MergeRecipe] | None = None
        self._refused: set[str] = set()

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

    def choose(self, rows: Rows) -> Choice:
        """Choose on some of the held-out rows, (n,) bool."""
        if self.selection.how == "fixed":
            return Choice(self.recipe, self.score(self.recipe, rows))
        if self.selection.how == "greedy":
            return greedy_soup(self.recipe, lambda recipe: self.score(recipe, rows))
        if self.selection.how == "learned":
            names = [one.model for one in self.recipe.models]
            learned = learned_recipe(self.bench, names, rows, self.selection.knots)
            return Choice(learned, self.score(learned, rows))
        if self._candidates is None:
            self._candidates = candidates(self.recipe, self.selection, self.bench.seed)
        scores = [
            self._score_or_leave_out(recipe, rows)
            for recipe in track(self._candidates, "searching", unit="merge")
        ]
        if max(scores) == -np.inf:
            raise UserError(f"search: {self.recipe.merge_method} refuses every combination")
        best = int(np.argmax(scores))
        return Choice(self._candidates[best], scores[best])

    def _score_or_leave_out(self, recipe: MergeRecipe, rows: Rows) -> float:
        """Return the score; of a merge that its method refuses at some depth, the least."""
        key = repr(recipe.as_dict())
        if key not in self._refused:
            try:
                return self.score(recipe, rows)
            except MergeRefusedError as error:
                LOG.info("search: left out: %s", error)
                self._refused.add(key)
        return -np.inf


def greedy_soup(recipe: MergeRecipe, score: Callable[[MergeRecipe], float]) -> Choice:
    """Add models to a soup while that helps (Wortsman et al. 2022, Model soups, recipe 1).

    Models are sorted by their own score, the best begins, and each further one stays only if the
    uniform soup with it is strictly better.

    Args:
        recipe: a uniform soup; its models are the candidates.
        score: of a soup, higher is better.
    """
    alone = {one.model: score(plain("uniform", [one.model])) for one in recipe.models}
    order = sorted(alone, key=lambda name: -alone[name])
    chosen, best = order[:1], alone[order[0]]
    for name in order[1:]:
        found = score(plain("uniform", [*chosen, name]))
        if found > best:
            chosen, best = [*chosen, name], found
    return Choice(plain("uniform", chosen), best)


def candidates(recipe: MergeRecipe, selection: Selection, seed: int) -> list[MergeRecipe]:
    """Return the merges that a search looks at: a grid where it fits, else random draws.

    Draws do not depend on scores (Bergstra & Bengio 2012): a sampler that learns from the scores
    of all rows would carry what it learnt from one half into the choice on the other.

    Args:
        recipe: its parameters that are searched are replaced.
        selection: the space and the number of trials.
        seed: of the draws.
    """
    axes = [
        (name, model, space)
        for name, space in selection.space.items()
        for model in (
            [one.model for one in recipe.models] if space.each == "model" else [None]
        )
    ]  # fmt: skip
    discrete = all(space.values for _, _, space in axes)
    grid = [space.values for _, _, space in axes for _ in range(space.knots)]
    if discrete and np.prod([len(values) for values in grid]) <= selection.trials:
        draws = [list(values) for values in itertools.product(*grid)]
    else:
        rng = np.random.default_rng(derive_seed("merge search", seed))
        draws = [_draw(axes, rng) for _ in range(selection.trials)]
    found: list[MergeRecipe] = []
    for values in draws:
        made = _with(recipe, axes, values)
        if _works(made) and made not in found:
            found.append(made)
    if not found:
        raise UserError(f"search: {recipe.merge_method} refuses all {len(draws)} combinations")
    return found


Axes = Sequence[tuple[str, str | None, Range]]


def _draw(axes: Axes, rng: np.random.Generator) -> list[Any]:
    values: list[Any] = []
    for _, _, space in axes:
        for _ in range(space.knots):
            if space.values:
                values.append(space.values[int(rng.integers(len(space.values)))])
            else:
                values.append(float(rng.uniform(*space.bounds)))
    return values


def _with(recipe: MergeRecipe, axes: Axes, values: list[Any]) -> MergeRecipe:
    """Return the recipe with the values, in the order of the axes and their knots."""
    left = list(values)
    for name, model, space in axes:
        mine, left = left[: space.knots], left[space.knots :]
        setting: Setting = mine[0] if space.knots == 1 else tuple(float(value) for value in mine)
        if model is None:
            models = tuple(
                replace(one, parameters={k: v for k, v in one.parameters.items() if k != name})
                for one in recipe.models
            )
            recipe = replace(recipe, models=models).with_parameters(**{name: setting})
        else:
            models = tuple(
                replace(one, parameters={**one.parameters, name: setting})
                if one.model == model
                else one
                for one in recipe.models
            )
            recipe = replace(recipe, models=models)
    return recipe


def _works(recipe: MergeRecipe) -> bool:
    """Whether the method takes these values together (weights that add up to 0 it refuses)."""
    if any(filters_of(setting) for _, setting in recipe.settings):
        return True  # by name: the merge itself will tell
    try:
        try_values(recipe, recipe.values("", 0.0))
    except UserError as error:
        LOG.info("search: left out: %s", error)
        return False
    return True
