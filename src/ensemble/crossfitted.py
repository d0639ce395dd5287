"""The cross-fitted decisions of a recipe: each part of its rows by the rule fitted without it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from src.artifacts.recipes import PartRule, Recipe
from src.ensemble.crossfit import Parts, fallback, make_parts
from src.ensemble.predictions import Decided, IntArray, Predictions, decide, fit_threshold
from src.ensemble.rule import Rule, can_vote, rule_of, stages_of
from src.metrics import MACRO_F1, Metric, metric_named
from src.stratify import stratified_group_folds

REST = -1  # part of the rows that a recipe was not tuned on
PARTS = "parts"  # key of a recipe's search: how its rows were parted
BY_FOLD, BY_GROUP = "fold", "group"


def parted_by(parts: Parts, rows: Predictions) -> str:
    """Return `BY_FOLD` or `BY_GROUP`: how items were parted."""
    is_fold = parts.part is not None and np.array_equal(parts.part, rows.fold)
    return BY_FOLD if is_fold else BY_GROUP


def kept_rules(rules: dict[int, Rule], models: Sequence[str]) -> dict[str, PartRule]:
    """Return part -> the rule fitted without it, as a recipe of these members keeps it."""
    return {
        str(part): PartRule(
            dict(zip(models, map(float, rule.weights), strict=True)),
            dict(zip(models, map(float, rule.thresholds), strict=True)),
            stages_of(rule, models),
        )
        for part, rule in rules.items()
    }


class PartRules(NamedTuple):
    """Rules, and which of them decides which item."""

    rules: dict[int, Rule]  # part -> the rule fitted without it; that of `REST` on all of its own
    part: IntArray  # (n,) keys of the rules
    metric: Metric = MACRO_F1  # that they were fitted for

    def at_thresholds(self, rule: Rule) -> "PartRules":
        """Return a rule in place of each, at the thresholds of that one."""
        found = {
            part: replace(rule, threshold=one.threshold, by=one.by, cuts=one.cuts)
            for part, one in self.rules.items()
        }
        return self._replace(rules=found)

    def words(self) -> str:
        """Return the thresholds in words, for a title."""
        used = {int(k) for k in np.unique(self.part)} - {REST}
        cuts = [self.rules[k].threshold for k in used]
        by = next((f" by {self.rules[k].by}" for k in used if self.rules[k].by), "")
        low, high = f"{min(cuts):.4f}", f"{max(cuts):.4f}"
        return f"threshold{by} {low}" if low == high else f"thresholds{by} {low} to {high}"

    def decide(self, rows: Predictions) -> Decided:
        """Decide the items, (n,), each by the rule of its part.

        Where none of its members predicted an item (`can_vote`), the plain mean of those that did
        decides, at the best threshold of the other parts, as in tuning.
        """
        columns: dict[str, Any] = {}
        for part in np.unique(self.part):
            rule, held = self.rules[int(part)], self.part == part
            known = held & can_vote(rule, rows.logit.reshape(len(rows), -1))
            by = [(rule, known)]
            if (held & ~known).any():
                by.append((fallback(rows, self.part != part, self.metric), held & ~known))
            for one, asked in by:
                for name, column in vars(decide(one, rows.take(asked))).items():
                    if column is not None:
                        columns.setdefault(name, np.empty(len(rows), column.dtype))[asked] = column
        return Decided(**columns)


def part_rules(recipe: Recipe, rows: Predictions, alone: str = "") -> PartRules | None:
    """Return the rules of a recipe's cross-fitted score; None where it has none.

    Args:
        recipe: what was tuned.
        rows: all items that it was tuned on, sorted by id, and perhaps those of other folds.
        alone: the member that must be the only one with a say, in each of them; else None.

    Raises:
        UserError: as `rule_of`.
    """
    if not recipe.crossfit:
        return None
    inside = np.isin(rows.fold, recipe.folds)
    by_fold, members = recipe.search.get(PARTS) == BY_FOLD, [one.model for one in recipe.members]
    say = {m for kept in recipe.crossfit.values() for m, weight in kept.weights.items() if weight}
    same_rows = by_fold or int(inside.sum()) == recipe.scores["rows"]
    if not same_rows or not say <= set(members):
        return None
    part = np.full(len(rows), REST, dtype=np.int64)
    part[inside] = rows.fold[inside]
    if not by_fold:
        label, group, count = rows.label[inside], rows.group[inside], len(recipe.crossfit)
        part[inside] = stratified_group_folds(label, group, count, int(recipe.search["seed"]))
    rules = {REST: rule_of(recipe)}
    for name, kept in recipe.crossfit.items():
        own = [
            replace(m, weight=kept.weights[m.model], threshold=kept.thresholds[m.model])
            for m in recipe.members
        ]
        rules[int(name)] = rule_of(replace(recipe, members=own, stages=kept.stages))
    is_alone = [model == alone for model in members]
    if alone and not all(rule.used().tolist() == is_alone for rule in rules.values()):
        return None
    return PartRules(rules, part, metric_named(recipe.metric))


def cross_threshold(rows: Predictions, seed: int) -> PartRules | None:
    """Return the best threshold of one model, (n,) logits, for macro-F1, without each part.

    None where there are too few groups to part.
    """
    part = make_parts(rows, seed).part
    if part is None:
        return None
    fitted = {int(k): fit_threshold(rows.label[part != k], rows.logit[part != k])[0]
              for k in np.unique(part)}  # fmt: skip
    return PartRules(fitted, part)
