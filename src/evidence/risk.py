"""Which verdicts of a recipe are sure, found on its out-of-fold rows, with what that rests on."""

from dataclasses import dataclass
from typing import Any

from src.artifacts.recipes import Recipe
from src.ensemble.predictions import Decided
from src.ensemble.rule import rule_of
from src.ensemble.shift.risk import (
    ASSUMES,
    NEVER,
    RISK,
    RISKS,
    Band,
    Check,
    check_halves,
    find_band,
)
from src.errors import UserError
from src.reporting.evaluated import IN_SAMPLE, honest_rows, how_decided, subject_of_recipe

MOST = 0.2  # a risk above it is no word of anything being sure
IN_SAMPLE_DOUBT = (
    "too few groups to cross-fit: the band rests on rows that the rule itself was fitted on, and "
    "more of what is sure may be wrong; train more folds"
)


@dataclass(frozen=True)
class RecipeBand:
    """The band of a recipe."""

    band: Band
    threshold: float  # of the recipe
    check: Check  # each half of the rows by the band of the other
    share: float  # of fakes among the rows
    doubts: list[str]  # why it may not hold

    def words(self) -> str:
        """Say in words what is sure, and how far that held."""
        risk = f"risk {self.band.risk:g} with {self.band.confidence:.0%} confidence"
        lines = [f"{risk}; {self.band.words(self.threshold)}", self.check.words()]
        lines.append(f"{ASSUMES} (here {self.share:.1%})")
        return "\n".join([*lines, *(f"WARNING {doubt}" for doubt in self.doubts)])

    def record(self) -> dict[str, Any]:
        """Return it for a JSON."""
        low, high = self.band.ends(self.threshold)
        return {
            "risk": self.band.risk,
            "confidence": self.band.confidence,
            "real_up_to": low if self.band.real < NEVER else None,
            "fake_from": high if self.band.fake < NEVER else None,
            "check": self.check.record(),
            "share_fake": self.share,
            "assumes": ASSUMES,
            "doubts": self.doubts,
        }


@dataclass(frozen=True)
class Grounds:
    """The out-of-fold rows of a recipe, decided by what was not fitted on them."""

    rows: Decided
    threshold: float  # of the recipe
    doubts: list[str]  # why what is found on them may not hold

    def band(self, risk: float | None) -> RecipeBand:
        """Find the band.

        Args:
            risk: share of sure verdicts that may be wrong; None: `RISK`, or the lowest from there
                to `MOST` at which both words can be sure, else one.

        Raises:
            UserError: the risk cannot be met (`find_band`).
        """
        rows = self.rows
        band = _lowest(rows) if risk is None else find_band(rows, risk)
        check, share = check_halves(rows, band.risk), float(rows.label.mean())
        return RecipeBand(band, self.threshold, check, share, self.doubts)


def grounds_of(name: str, recipe: Recipe) -> Grounds:
    """Return the rows of a recipe, called `name`; raises a UserError where predictions are gone."""
    subject = subject_of_recipe(name, recipe)
    doubts = list(subject.notes)
    if how_decided(subject) == IN_SAMPLE:
        doubts.append(IN_SAMPLE_DOUBT)
    return Grounds(honest_rows(subject), rule_of(recipe).threshold, doubts)


def _lowest(rows: Decided) -> Band:
    """Return the band at the usual risk, or at the lowest above it at which both words can be sure.

    Where no risk up to `MOST` lets both, the lowest that lets one.
    """
    one_word: Band | None = None
    for risk in (RISK, *(float(one) for one in RISKS if RISK < one <= MOST)):
        try:
            band = find_band(rows, risk)
        except UserError:
            continue
        if max(band.real, band.fake) < NEVER:
            return band
        one_word = one_word or band
    return one_word or find_band(rows, MOST)
