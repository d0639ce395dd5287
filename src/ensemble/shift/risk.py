"""Which verdicts are sure: those outside of a band around the threshold, where few are wrong.

Learn then test (Angelopoulos, Bates, Candès, Jordan & Lei 2021, arXiv 2110.01052) of the error
among the verdicts that are given (Geifman & El-Yaniv, NeurIPS 2017), for real and for fake apart.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.ensemble.predictions import Decided
from src.errors import UserError
from src.metrics import log_odds, sigmoid
from src.stratify import stratified_group_folds

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]
RISK, CONFIDENCE = 0.05, 0.9
NEVER = float("inf")
STEPS = 20  # bands that are tried on a side, from its furthest twentieth of verdicts to all of them
# Wrong verdicts that the first band tested can bear: a wrong label far out must not end the search.
SPARE = 2
RISKS = np.arange(1, 51) / 100  # among which the lowest that can be met is looked for
ASSUMES = (
    "it holds for items like the out-of-fold rows: the same kinds of fakes, and the same share of "
    "them; of another kind or share, more of what is sure may be wrong. It was found "
    "on verdicts by the net that held a row out, and is not proven of the mean of all folds' nets"
)


@dataclass(frozen=True)
class Band:
    """From where on verdicts are sure: distances from the threshold, in log odds of P(fake)."""

    risk: float  # at most this share of sure verdicts is wrong, of either word
    confidence: float  # with this probability over the rows it was found on
    real: float  # least distance of a sure `real`; `NEVER` where none is sure
    fake: float  # likewise of a sure `fake`

    def is_sure(self, prob: FloatArray, threshold: FloatArray, pred: IntArray) -> BoolArray:
        """Return bool (n,): which verdicts `pred`, 0/1, are sure."""
        least = np.where(pred == 1, self.fake, self.real)
        return distance(prob, threshold) >= least

    def ends(self, threshold: float) -> tuple[float, float]:
        """Return the P(fake) up to which `real` is sure, and from which on `fake` is."""
        middle = log_odds(threshold)
        low, high = sigmoid(np.array([middle - self.real, middle + self.fake]))
        return float(low), float(high)

    def words(self, threshold: float) -> str:
        """Say in words what is sure."""
        low, high = self.ends(threshold)
        real = f"real up to {low:.4g}" if self.real < NEVER else "real never"
        fake = f"fake from {high:.4g} on" if self.fake < NEVER else "fake never"
        return f"sure, by P(fake): {real}, {fake}"


def distance(prob: FloatArray, threshold: FloatArray) -> FloatArray:
    """Return (n,) how far probs are from their thresholds, in log odds."""
    return np.abs(log_odds(prob) - log_odds(threshold))


def find_band(rows: Decided, risk: float = RISK, confidence: float = CONFIDENCE) -> Band:
    """Find the narrowest band outside of which at most the share `risk` of verdicts is wrong.

    Each side is searched at half of what may go wrong, 1 - `confidence`: its bands are tested from
    the widest on, and the first that does not pass ends the search (fixed sequence). Each test is
    Clopper and Pearson's, exact for independent rows; rows of a group count by their design effect
    (`Evidence`). Nothing is drawn: equal rows give the same band.

    Args:
        rows: decided by what was not fitted on them.
        risk: share of wrong verdicts, 0 < risk < 1.
        confidence: that of both sides together.

    Raises:
        UserError: neither side can be sure at this risk; says the lowest that can be met.
    """
    if not 0 < risk < 1:
        raise UserError(f"--risk {risk:g}: want a share of wrong verdicts between 0 and 1")
    band = _band(rows, risk, confidence)
    if min(band.real, band.fake) < NEVER:
        return band
    said = f"--risk {risk:g} cannot be met: by {len(rows)} out-of-fold rows"
    said += f" of {rows.n_groups} groups no verdict is that sure with {confidence:.0%} confidence"
    for one in RISKS[risk < RISKS]:
        other = _band(rows, float(one), confidence)
        if min(other.real, other.fake) < NEVER:
            raise UserError(f"{said}; the lowest that can is {one:g}. --risk 0 asks for no band")
    raise UserError(
        f"{said}, nor with any up to {RISKS[-1]:g}. Train more folds, or take --risk 0, which asks "
        "for no band"
    )


def _band(rows: Decided, risk: float, confidence: float) -> Band:
    far, wrong = distance(rows.prob, rows.threshold), rows.pred != rows.label
    allowed = (1 - confidence) / 2
    ends = []
    for word in (0, 1):
        said = rows.pred == word
        ends.append(_least(far[said], wrong[said], rows.group[said], risk, allowed))
    return Band(risk, confidence, *ends)


def _least(
    far: FloatArray, wrong: BoolArray, group: IntArray, risk: float, allowed: float
) -> float:
    """Return the least distance of one side's sure verdicts, `NEVER` where none can be sure."""
    found, began = NEVER, False
    bands = list(_evidence(far, wrong, group, allowed)) if len(far) else []
    for least, evidence in bands:
        is_last = least == bands[-1][0]  # so few rows that no wrong one can be borne
        began = began or is_last or evidence.with_wrong(SPARE).p_value(risk) <= allowed
        if began and evidence.p_value(risk) > allowed:
            break
        found = least if began else found
    return found


class Evidence(NamedTuple):
    """As many independent verdicts as some say together, and how many of them are wrong."""

    rows: float  # their number over the design effect
    wrong: float

    def with_wrong(self, wrong: float) -> "Evidence":
        """Return the same with so many wrong ones, if there are as many."""
        return self._replace(wrong=min(wrong, self.rows))

    def p_value(self, risk: float) -> float:
        """Return the probability of so few wrong ones if the share `risk` of all were wrong.

        The binomial distribution's, by the incomplete beta function where numbers are not whole
        (Korn & Graubard, Survey Methodology 24, 1998).
        """
        from scipy.special import betainc  # slow to import

        if self.wrong >= self.rows:
            return 1.0
        return float(betainc(self.rows - self.wrong, self.wrong + 1, 1 - risk))


def _evidence(
    far: FloatArray, wrong: BoolArray, group: IntArray, allowed: float
) -> Iterator[tuple[float, Evidence]]:
    """Yield bands of one side from the widest on: least distance, and what lies beyond it."""
    alike = _likeness(wrong, group)
    ordered = np.sort(far)[::-1]
    places = np.unique(np.ceil(len(far) * np.arange(1, STEPS + 1) / STEPS).astype(int) - 1)
    last = NEVER
    for place in places:
        least = float(ordered[place])
        if least < last:  # equal distances stay together
            beyond = far >= least
            yield least, _weigh(wrong[beyond], group[beyond], alike, allowed)
        last = least


def _weigh(wrong: BoolArray, group: IntArray, alike: float, allowed: float) -> Evidence:
    """Count verdicts by their design effect: how much less rows of one group say than others.

    The larger of two is taken: as their own errors say, and as rows of so `alike` groups would
    (Kish, Survey Sampling, 1965: 1 + (m - 1) alike). A t in place of a normal quantile pays for
    few groups (Korn & Graubard 1998).
    """
    from scipy.special import ndtri, stdtrit  # slow to import

    n, share = wrong.size, float(wrong.mean())
    size, effect, groups = _design(wrong, group)
    if size == 1:
        return Evidence(n, float(wrong.sum()))
    effect = max(1.0, effect, 1 + (size - 1) * alike)
    few = (ndtri(allowed) / stdtrit(groups - 1, allowed)) ** 2 if groups > 1 else 1 / n
    rows = float(n / effect * few)
    return Evidence(rows, rows * share)


def _likeness(wrong: BoolArray, group: IntArray) -> float:
    """Return the correlation of errors within groups, 0 to 1; 1 where no error tells."""
    size, effect, _ = _design(wrong, group)
    if size == 1:
        return 0.0
    return float(np.clip((effect - 1) / (size - 1), 0, 1)) if effect else 1.0


def _design(wrong: BoolArray, group: IntArray) -> tuple[float, float, int]:
    """Return a verdict's mean group size, the design effect of (n,) errors, and how many groups.

    The effect is 0 where it cannot be told: no error, nothing but errors, one group.
    """
    code = np.unique(group, return_inverse=True)[1].reshape(-1)
    sizes = np.bincount(code)
    n, groups, share = wrong.size, len(sizes), float(np.mean(wrong)) if wrong.size else 0.0
    size = float((sizes**2).sum() / max(1, n))
    if size <= 1 or groups < 2 or share in (0.0, 1.0):
        return max(1.0, size), 0.0, groups
    excess = np.bincount(code, wrong - share)  # of errors, by group
    between = groups / (groups - 1) * float((excess**2).sum())
    return size, between / (n * share * (1 - share)), groups


class Check(NamedTuple):
    """What bands of one half of the rows say of the other half."""

    rows: int
    groups: int
    sure: int  # rows of a sure verdict
    wrong: int  # of these

    def words(self) -> str:
        """Say it in words."""
        said = (
            f"{self.sure / self.rows:.1%} of {self.rows} out-of-fold rows of {self.groups} groups"
        )
        said += " lie outside of the band"
        if self.sure:
            said += f", and {self.wrong / self.sure:.1%} of these are wrong"
        return f"{said} (each half by the band of the other)"

    def record(self) -> dict[str, Any]:
        """Return it for a JSON."""
        return {**self._asdict(), "error": self.wrong / self.sure if self.sure else None}


def check_halves(
    rows: Decided, risk: float = RISK, confidence: float = CONFIDENCE, seed: int = 42
) -> Check:
    """Find bands on one half of the groups and count on the other, both ways.

    A half on which no verdict can be sure leaves none of the other.
    """
    half = stratified_group_folds(rows.label, rows.group, 2, seed)
    sure = np.zeros(len(rows), dtype=bool)
    for side in (0, 1):
        band = _band(rows.take(half == side), risk, confidence)
        sure |= (half != side) & band.is_sure(rows.prob, rows.threshold, rows.pred)
    wrong = int((rows.pred != rows.label)[sure].sum())
    return Check(len(rows), rows.n_groups, int(sure.sum()), wrong)
