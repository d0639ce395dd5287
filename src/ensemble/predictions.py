"""Labelled items and what was predicted of them: the one table that is tuned on and scored.

`decide` makes decisions of it by a rule; `fit_threshold` finds the threshold of a rule. Tuning,
evaluation, reports and merges do both here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src.ensemble.rule import FoldCurves, Rule, Votes, can_vote, plain_rule, vote
from src.metrics import MACRO_F1, Metric, log_odds, score_of
from src.thresholds import best_threshold

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Names = NDArray[np.object_]
ALONE = plain_rule("soft", np.ones(1))  # one model's own prob at 0.5


@dataclass(frozen=True)
class Predictions:
    """Labelled items, a row each; a column of logits a model."""

    item_id: Names  # (n,) str objects
    label: IntArray  # (n,) 0/1
    group: IntArray  # (n,) codes
    fold: IntArray  # (n,)
    domain: Names  # (n,) str objects
    kind: Names  # (n,) str objects, `image` or `video`
    # (n, m), NaN where a model did not predict an item; (n,) of one model, or of what several
    # decided together
    logit: FloatArray

    def __len__(self) -> int:
        return self.label.size

    @property
    def n_groups(self) -> int:
        """Return the number of groups among the items."""
        return len(np.unique(self.group))

    @property
    def complete(self) -> NDArray[np.bool_]:
        """Return (n,) which items all models predicted."""
        return np.asarray(~np.isnan(self.logit.reshape(len(self), -1)).any(axis=1))

    def values(self, by: str) -> Names:
        """Return (n,) the `kind` or the `domain` of the items."""
        return {"kind": self.kind, "domain": self.domain}[by]

    def through(self, models: Sequence[str], curves: Mapping[str, FoldCurves]) -> Self:
        """Return the same with some models' logits through the curves of their folds' models.

        `models`: of the columns of `logit`.
        """
        logit = self.logit.copy()
        for model, by_fold in curves.items():
            for fold, curve in by_fold.items() if model in models else ():
                here = self.fold == int(fold), list(models).index(model)
                logit[here] = curve.logit(logit[here])
        return replace(self, logit=logit)

    def take(self, rows: NDArray[np.bool_] | NDArray[np.intp]) -> Self:
        """Return some rows, of every column."""
        columns: dict[str, Any] = {
            name: column[rows]
            for name, column in vars(self).items()
            if isinstance(column, np.ndarray)
        }
        return replace(self, **columns)


@dataclass(frozen=True)
class Decided(Predictions):
    """Items that a rule has decided; `logit` (n,) goes with `prob`."""

    prob: FloatArray  # (n,) P(fake)
    threshold: FloatArray  # (n,) what the prob of each is held against
    pred: IntArray  # (n,) 0/1
    dev: IntArray | None = None  # (n,) decisions at cuts that other rows chose, if there are any
    score: FloatArray | None = None  # (n,) what orders the items, where that is not the logit

    @property
    def ranked(self) -> FloatArray:
        """Return (n,) what orders the items."""
        return self.logit if self.score is None else self.score


def columns_of(table: pd.DataFrame) -> dict[str, Any]:
    """Return all of `Predictions` but the logits, from rows of a fold file.

    Args:
        table: `item_id` (a column, or the index), `label, group, domain, kind`, perhaps `fold`
            (else it is 0); the group "" stands for the item alone.
    """
    table = table.reset_index() if table.index.name == "item_id" else table
    # A group's name and an item's id cannot be one: the letter before tells them apart.
    own = np.where(table["group"] == "", "i " + table["item_id"], "g " + table["group"])
    fold = table["fold"] if "fold" in table else np.zeros(len(table))
    return {
        "item_id": table["item_id"].to_numpy(dtype=object),
        "label": table["label"].to_numpy(np.int64),
        "group": pd.factorize(own.astype(object), sort=True)[0].astype(np.int64),
        "fold": np.asarray(fold, dtype=np.int64),
        "domain": table["domain"].to_numpy(dtype=object),
        "kind": table["kind"].to_numpy(dtype=object),
    }


def votes_of(rule: Rule, rows: Predictions) -> Votes:
    """Return prob and decision of items by a rule whose members are the columns of logits."""
    return vote(rule, rows.logit, rows.values(rule.by) if rule.by else None)


def decide(rule: Rule, rows: Predictions) -> Decided:
    """Return items as decided by a rule whose members are the columns of logits.

    `threshold` is 0.5 with hard voting, whose prob is a share of votes.
    """
    votes = votes_of(rule, rows)
    threshold = rule.threshold_of(rows.values(rule.by) if rule.by else None, len(rows))
    if rule.voting == "hard":
        threshold = np.full(len(rows), 0.5)
    own = {name: getattr(rows, name) for name in Predictions.__dataclass_fields__}
    own["logit"] = log_odds(votes.prob)
    return Decided(**own, prob=votes.prob, threshold=threshold, pred=votes.pred)


def fit_threshold(
    label: IntArray, logit: FloatArray, rule: Rule = ALONE, metric: Metric = MACRO_F1
) -> tuple[Rule, float]:
    """Return a rule at its best threshold on some items, and the metric there.

    A metric of probs or ranks wants no threshold: the rule stays as it is. Items that the rule
    cannot decide (`can_vote`) do not count.

    Args:
        label: (n,) 0/1.
        logit: (n, m), a column a member of the rule; (n,) of one model alone.
        rule: any but hard voting, whose members have thresholds of their own.
        metric: what the threshold is best for.
    """
    logit = logit.reshape(label.size, -1)
    known = can_vote(rule, logit)
    label, votes = label[known], vote(rule, logit[known])
    if not metric.decides:
        return rule, score_of(metric, label, *votes)
    threshold, score = best_threshold(label, votes.prob, metric)
    return replace(rule, threshold=threshold), score
