"""How sure a score is: a paired bootstrap that draws whole groups; of a share, by Wilson."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from src.metrics import LOSSES, Counts, Metric, log_odds, roc_of_counts
from src.thresholds import BINS, threshold_of_counts

Answer = tuple[NDArray[np.float64], NDArray[np.int64]]  # (n,) prob, (n,) decision
REPLICATES = 2000
FEWEST = 200  # replicates of a large table
THRESHOLDS = 200  # replicates of the threshold's interval
NORMAL_95 = 1.959963984540054  # standard errors either way that hold 95 %
MIN_GROUPS = 10  # below this an interval would be fiction
_CELLS = 4_000_000  # of one block of draws: 32 MB
_ROWS = 10_000_000  # of all replicates together that look at every row, about: some seconds
_RANKS = 1 << 12  # bins of a ROC curve
_FINE_RANKS = 1 << 16  # of one that is read at a limit: 1e-4 must not share a bin


def bootstrap_scores(
    metric: Metric,
    label: NDArray[np.int64],
    answers: Sequence[Answer],
    group: NDArray[np.int64],
    *,
    seed: int,
    replicates: int | None = None,
) -> NDArray[np.float64]:
    """Score resampled groups; every replicate scores all answers on the same draw.

    The group (cluster) bootstrap: as many groups are drawn, with replacement, as there are
    (Efron & Tibshirani, An Introduction to the Bootstrap, 1993, ch. 8), separately among groups of
    reals only, of fakes only and of both (strata). For decisions, groups with equal counts cannot
    be told apart, so how often each *pattern* of counts is drawn is multinomial: the same law at a
    fraction of the draws.

    Args:
        metric: one that a data set may be scored by.
        label: (n,) 0/1.
        answers: k times (n,) prob and (n,) decision.
        group: (n,) codes.
        seed, replicates: of the draws, and their number; None takes `REPLICATES`, fewer where
            every row has to be looked at in each.

    Returns:
        (replicates, k) float64; NaN where a draw leaves the metric undefined.
    """
    if metric.decides:
        return _scores_of_counts(metric, label, answers, group, seed, replicates or REPLICATES)
    replicates = replicates or int(np.clip(_ROWS // label.size, FEWEST, REPLICATES))
    draws = resamples(label, group, seed=seed, replicates=replicates)
    probs = [prob for prob, _ in answers]
    if metric.wants == LOSSES:
        loss = np.stack([metric.compute(label == 1, log_odds(prob)) for prob in probs], axis=1)
        return np.stack([copies @ loss / copies.sum() for copies in draws])
    bins = _FINE_RANKS if metric.allows else _RANKS
    fake, ranks = label == 1, [_ranks(prob, bins) for prob in probs]
    parts = [(rank[~fake], rank[fake]) for rank in ranks]
    scores = []
    for copies in draws:
        weight = copies[~fake], copies[fake]
        counts = (map(np.bincount, part, weight, [bins] * 2) for part in parts)
        scores.append([metric.compute(roc_of_counts(*both)) for both in counts])
    return np.array(scores)


def _ranks(prob: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
    """Return (n,) codes below `bins` in the order of probs: equal ones share one."""
    value, code = np.unique(prob, return_inverse=True)
    if value.size <= bins:
        return code
    return np.searchsorted(np.sort(prob), prob, "left") * bins // prob.size


def _scores_of_counts(
    metric: Metric,
    label: NDArray[np.int64],
    answers: Sequence[Answer],
    group: NDArray[np.int64],
    seed: int,
    replicates: int,
) -> NDArray[np.float64]:
    patterns, copies = _patterns(label, [pred for _, pred in answers], group)
    strata = _strata(patterns)
    rng = np.random.default_rng(seed)
    table = patterns.astype(np.float64)
    block = max(1, _CELLS // len(copies))
    scores = []
    for i in range(0, replicates, block):
        totals = _draw(rng, copies, strata, min(block, replicates - i)) @ table
        real, fake, tp, fp = totals[:, :1], totals[:, 1:2], totals[:, 2::2], totals[:, 3::2]
        scores.append(metric.compute(Counts(tn=real - fp, fp=fp, fn=fake - tp, tp=tp)))
    return np.concatenate(scores)


def bootstrap_threshold(
    metric: Metric,
    label: NDArray[np.int64],
    prob: NDArray[np.float64],
    group: NDArray[np.int64],
    *,
    seed: int,
    replicates: int = THRESHOLDS,
) -> NDArray[np.float64]:
    """Return the best threshold (to 1/4096) of every resample of groups, (replicates,)."""
    place = (prob * BINS).astype(np.int64) + label * (BINS + 1)
    found = np.empty(replicates)
    for number, copies in enumerate(resamples(label, group, seed=seed, replicates=replicates)):
        counts = np.bincount(place, weights=copies, minlength=2 * (BINS + 1))
        found[number] = threshold_of_counts(counts.reshape(2, BINS + 1), metric)[0]
    return found


def resamples(
    label: NDArray[np.int64],
    group: NDArray[np.int64],
    *,
    seed: int | np.random.Generator,
    replicates: int,
) -> Iterator[NDArray[np.int64]]:
    """Yield (n,) copies of each item, for any score: whole groups, as `bootstrap_scores`."""
    groups, code = np.unique(group, return_inverse=True)
    strata = strata_of(label, code)
    ones = np.ones(len(groups), dtype=np.int64)
    rng = np.random.default_rng(seed)
    for _ in range(replicates):
        yield _draw(rng, ones, strata, 1)[0][code]


def strata_of(label: NDArray[np.int64], code: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """Part groups into those of reals only, of fakes only and of both; each is a row's `code`."""
    fakes = np.bincount(code, weights=label)
    return _strata(np.stack([np.bincount(code) - fakes, fakes], axis=1))


def _strata(patterns: NDArray[np.int64]) -> list[NDArray[np.intp]]:
    """Part patterns (reals, fakes, ...) into groups of reals only, of fakes only, and mixed."""
    kind = 2 * (patterns[:, 0] > 0) + (patterns[:, 1] > 0)
    return [np.flatnonzero(kind == k) for k in np.unique(kind)]


def _draw(
    rng: np.random.Generator,
    copies: NDArray[np.int64],
    strata: list[NDArray[np.intp]],
    size: int,
) -> NDArray[np.int64]:
    """Draw (size, patterns) how often each pattern comes, as many per stratum as there are."""
    drawn = np.empty((size, len(copies)), dtype=np.int64)
    for rows in strata:
        n = int(copies[rows].sum())
        drawn[:, rows] = rng.multinomial(n, copies[rows] / n, size=size)
    return drawn


def _patterns(
    label: NDArray[np.int64], preds: Sequence[NDArray[np.int64]], group: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the distinct rows of per-group counts and how many groups have each.

    A row: reals, fakes, then for every decision fakes called fake and reals called fake.
    """
    _, code = np.unique(group, return_inverse=True)
    n_groups = int(code.max()) + 1
    fake = label == 1
    masks = [~fake, fake]
    for pred in preds:
        masks += [fake & (pred == 1), ~fake & (pred == 1)]
    rows = np.stack([np.bincount(code[mask], minlength=n_groups) for mask in masks], axis=1)
    return np.unique(rows, axis=0, return_counts=True)


def interval(scores: NDArray[np.float64], level: float = 0.95) -> tuple[float, float]:
    """Return the percentile interval of (b,) replicates."""
    tail = (1 - level) / 2
    low, high = np.nanquantile(scores, [tail, 1 - tail])
    return float(low), float(high)


def wilson_interval(
    hits: ArrayLike, trials: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the 95 % interval of shares, for which it takes every trial to be of its own.

    The score interval (Wilson, JASA 22, 1927), which stays within 0 and 1 and says something of 0
    hits too. Where trials come in groups, such as frames of one clip, it is too narrow.

    Args:
        hits, trials: any shape; NaN limits where there are no trials.
    """
    k, n = np.asarray(hits, np.float64), np.asarray(trials, np.float64)
    z2 = NORMAL_95**2
    with np.errstate(divide="ignore", invalid="ignore"):
        share = k / n
        middle = (share + z2 / (2 * n)) / (1 + z2 / n)
        half = np.sqrt(share * (1 - share) * z2 / n + z2**2 / (4 * n**2)) / (1 + z2 / n)
    # At the ends the limit is the share itself, which rounding must not miss.
    low = np.where(k == 0, np.where(n > 0, 0.0, np.nan), middle - half)
    return low, np.where((k == n) & (n > 0), 1.0, middle + half)
