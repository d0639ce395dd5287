"""What a search over weights maximises: a metric of probs, from a histogram, exactly at the end.

A metric of decisions counts at its best threshold.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from src.metrics import LOSSES, Metric, log_odds, roc_of_counts, score_of
from src.thresholds import BINS, best_threshold, cut_values

FloatArray = NDArray[np.float64]
Weights = TypeVar("Weights")

FINALISTS = 5  # of a search, scored exactly


class Objective:
    """A metric of some labelled items, more is better whichever metric it is.

    Args:
        metric: one that a data set may be scored by.
        label: (n,) 0/1.
    """

    def __init__(self, metric: Metric, label: NDArray[np.int64]) -> None:
        self.metric, self.order = metric, np.argsort(label, kind="stable")
        self.label = label[self.order]
        self.n_real = int(np.count_nonzero(label == 0))
        if metric.wants == LOSSES:
            middle = log_odds(np.minimum((np.arange(BINS + 1) + 0.5) / BINS, 1.0))
            shape = middle.shape
            self.losses = [metric.compute(np.full(shape, fake), middle) for fake in (False, True)]

    def arrange(self, probs: FloatArray) -> FloatArray:
        """Return (..., n) probs with the reals first, as both scores want them."""
        return np.ascontiguousarray(probs[..., self.order])

    def quick(self, prob: NDArray[np.floating], scale: float = 1.0) -> float:
        """Return the score of (n,) arranged `prob * scale` in [0, 1], to one bin.

        Single precision will do: rounding beyond 1 by less than a bin is harmless.
        """
        place = (prob * (scale * BINS)).astype(np.int64)
        real = np.bincount(place[: self.n_real], minlength=BINS + 1)
        fake = np.bincount(place[self.n_real :], minlength=BINS + 1)
        if self.metric.decides:
            # Whole numbers until they are divided: running sums of floats take several times as
            # long.
            items, fakes = np.cumsum(real + fake), np.cumsum(fake)
            below = np.append(0.0, items), np.append(0.0, fakes)
            return float(cut_values(self.metric, *below).max())
        if self.metric.wants == LOSSES:
            value = (real @ self.losses[0] + fake @ self.losses[1]) / place.size
        else:
            value = self.metric.compute(roc_of_counts(real, fake))
        return self._good(value)

    def exact(self, prob: FloatArray) -> float:
        """Return the score of (n,) arranged probs."""
        if self.metric.decides:
            value = best_threshold(self.label, prob, self.metric)[1]
        else:
            value = score_of(self.metric, self.label, prob, prob)
        return self._good(value)

    def _good(self, value: float) -> float:
        return -np.inf if np.isnan(value) else self.metric.sign * float(value)


def best_exactly(
    found: Sequence[tuple[float, Weights]], exact: Callable[[Weights], float]
) -> Weights:
    """Return the best of what a search found, by exact scores of those that look best.

    Args:
        found: quick score and what was found, in the order of finding; equals go to the earlier.
        exact: scores one.
    """
    order = sorted(range(len(found)), key=lambda place: (-found[place][0], place))
    scores = {place: exact(found[place][1]) for place in sorted(order[:FINALISTS])}
    return found[max(scores, key=scores.__getitem__)][1]
