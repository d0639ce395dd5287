"""When the test items have another share of fakes than the training items (label shift).

All of it assumes that pictures of a class look alike in both splits and only the classes' shares
differ, p(x | label) equal: where the fakes themselves are new, it misleads.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src.artifacts.recipes import Recipe
from src.ensemble.align import oof_of
from src.ensemble.calibration import CALIBRATIONS
from src.ensemble.rule import Rule, can_vote, deliveries_of, rule_of, stages_of, vote
from src.errors import UserError
from src.metrics import MACRO_F1, RANKS, Metric, log_odds, metric_named
from src.thresholds import best_threshold_at

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
METHODS = ("em", "bbse")
LEAST = 0.001  # an estimate is kept this far from 0 and 1
STEPS = 1000
TINY = 1e-12


@dataclass(frozen=True)
class Shift:
    """A corrected rule."""

    rule: Rule  # with the threshold that is best at the test items' share
    train: float  # share of fakes among the out-of-fold rows
    test: float  # share assumed or estimated among the test items
    method: str  # `em`, `bbse` or `given`


def parse_prior(text: str) -> str | float:
    """Read what `--prior` said: a method, or a share of fakes.

    Raises:
        UserError: neither.
    """
    if text in METHODS:
        return text
    try:
        share = float(text)
    except ValueError:
        share = float("nan")
    if not 0 < share < 1:
        raise UserError(f"--prior {text}: want em, bbse or a share of fakes between 0 and 1")
    return share


def correct(
    rule: Rule,
    label: IntArray,
    logits: FloatArray,
    test_logits: FloatArray,
    prior: str | float,
    metric: Metric = MACRO_F1,
) -> Shift:
    """Move a rule's threshold to where the metric is best at the test items' share of fakes.

    The out-of-fold rows are weighted by class until their share is that of the test items.

    Args:
        rule: tuned, with one threshold.
        label, logits: (n,) 0/1 and (n, m), of the out-of-fold rows.
        test_logits: (t, m), readable items only.
        prior: see `parse_prior`.

    Raises:
        UserError: hard voting, or thresholds by kind or domain; a metric without one; a method
            that finds nothing; no readable test item.
    """
    if not len(test_logits):
        raise UserError("--prior: no test item could be read, so nothing says how many are fake")
    if rule.voting == "hard" or rule.by:
        what = "hard voting" if rule.voting == "hard" else f"thresholds by {rule.by}"
        raise UserError(f"--prior moves one threshold on P(fake); this recipe has {what}")
    if metric.wants == RANKS:
        raise UserError(f"--prior changes no rank, and {metric.name} scores nothing else: leave it")
    prob, test_prob = vote(rule, logits).prob, vote(rule, test_logits).prob
    if prior == "em":
        share = _em(label, prob, test_prob)
    elif prior == "bbse":
        share = _bbse(label, prob, test_prob, rule.threshold)
    else:
        share = float(prior)
    moved = rule
    if metric.decides:
        moved = replace(rule, threshold=best_threshold_at(label, prob, share, metric)[0])
    return Shift(moved, float(label.mean()), share, prior if isinstance(prior, str) else "given")


def shift_recipe(
    recipe: Recipe, logits: Mapping[str, pd.Series], prior: str | float
) -> tuple[Recipe, Shift]:
    """Return a recipe with its threshold at the test items' share of fakes, and how it got there.

    `logits`: by model, NaN where an item is unreadable. Raises as `correct`.
    """
    if deliveries_of(recipe):
        raise UserError(
            "--prior moves a threshold on items as they are; this recipe looks at deliveries of "
            "them too: leave --prior, or tune without --under"
        )
    tuned, models = oof_of(recipe), [member.model for member in recipe.members]
    readable = pd.DataFrame(logits).dropna()
    unseen = np.full(len(readable), np.nan)  # of members without a say
    columns = [readable[m].to_numpy() if m in readable else unseen for m in models]
    test, metric = np.stack(columns, axis=1), metric_named(recipe.metric)
    rule = rule_of(recipe)
    tuned = tuned.take(can_vote(rule, tuned.logit))
    shift = correct(rule, tuned.label, tuned.logit, test, prior, metric)
    return replace(recipe, stages=stages_of(shift.rule, models)), shift


def at_share(prob: FloatArray, train: float, test: float) -> FloatArray:
    """Return (n,) probs as they are where another share of the items is fake.

    Saerens, Latinne & Decaestecker 2002, eq. 2.4: it assumes that `prob` is calibrated at the share
    `train`, 0 < share < 1.
    """
    fake, real = prob * test / train, (1 - prob) * (1 - test) / (1 - train)
    return fake / np.maximum(fake + real, TINY)


def _em(label: IntArray, prob: FloatArray, test_prob: FloatArray) -> float:
    """Saerens, Latinne & Decaestecker, Neural Computation 14 (2002), eq. 2.9, on Platt's probs."""
    odds = log_odds(prob, TINY)
    calibrated = CALIBRATIONS.get("platt")(label, odds).prob(log_odds(test_prob, TINY))
    train = float(label.mean())
    share = train
    for _ in range(STEPS):
        found = float(at_share(calibrated, train, share).mean())
        if abs(found - share) < 1e-9:
            break
        share = found
    return float(np.clip(share, LEAST, 1 - LEAST))


def _bbse(label: IntArray, prob: FloatArray, test_prob: FloatArray, threshold: float) -> float:
    """Lipton, Wang & Smola, ICML 2018 (black box shift estimation), for two classes."""
    said = prob >= threshold
    hit, false = said[label == 1].mean(), said[label == 0].mean()
    if hit - false < 0.05:
        raise UserError(
            "--prior bbse: the recipe tells the classes apart too little "
            f"({hit:.3f} of fakes and {false:.3f} of reals are called fake)"
        )
    share = ((test_prob >= threshold).mean() - false) / (hit - false)
    return float(np.clip(share, LEAST, 1 - LEAST))
