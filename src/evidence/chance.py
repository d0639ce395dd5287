"""P(fake) as a frequency: what share of held-out rows with such an answer were fake."""

from dataclasses import dataclass

import numpy as np

from src.ensemble.calibration import Curve, fit_platt
from src.ensemble.predictions import Decided
from src.metrics import calibration_error, log_odds
from src.stratify import stratified_group_folds


@dataclass(frozen=True)
class Chance:
    """A curve from the rule's P(fake) to the share of fakes among held-out rows."""

    curve: Curve  # of the log odds of P(fake): Platt's, two numbers, for it must hold between rows
    error: float  # calibration error of such curves: each half of the groups by the other's
    share: float  # of fakes among the rows

    def of(self, prob: float) -> float:
        """Return the share of fakes to expect where the rule says so."""
        return float(self.curve.prob(log_odds(np.array([prob])))[0])


def chance_of(rows: Decided, seed: int = 42) -> Chance:
    """Fit the curve on rows decided by what was not fitted on them.

    Two halves by group say how far such a curve is off on rows that it has not seen.
    """
    logit, label = log_odds(rows.prob), rows.label
    half = stratified_group_folds(label, rows.group, 2, seed)
    unseen = np.empty(len(label))
    for one in (0, 1):
        curve = fit_platt(label[half != one], logit[half != one])
        unseen[half == one] = curve.prob(logit[half == one])
    error = calibration_error(label == 1, unseen)
    return Chance(fit_platt(label, logit), error, float(label.mean()))
