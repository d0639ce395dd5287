"""Which strategies to climb, the simplest first; all are registered by importing them here."""

from collections.abc import Sequence

from src.ensemble import strategies, studies  # noqa: F401 - they register
from src.ensemble.calibration import CALIBRATIONS
from src.ensemble.rule import VOTING
from src.ensemble.strategy import (
    INCUMBENT,
    STRATEGIES,
    Search,
    Strategy,
    calibrated_name,
    incumbent_of,
)
from src.errors import UserError
from src.metrics import MACRO_F1, Metric

__all__ = [
    "CALIBRATIONS",
    "INCUMBENT",
    "STRATEGIES",
    "Search",
    "Strategy",
    "calibrate",
    "incumbent_of",
    "ladder",
]


def calibrate(
    names: Sequence[str], method: str, n_members: int, metric: Metric = MACRO_F1
) -> list[str]:
    """Return the ladder on which every strategy that scale matters to is calibrated first.

    One member alone is left as it is where neither its order nor its best threshold changes.

    Raises:
        UserError: an unknown method.
    """
    CALIBRATIONS.get(method)
    found = [calibrated_name(method, name) for name in names]
    known = [
        there
        if there in STRATEGIES and not STRATEGIES.get(there).wants_more(n_members, metric)
        else name
        for there, name in zip(found, names, strict=True)
    ]
    return ladder(n_members, names=list(dict.fromkeys(known)), metric=metric)


def ladder(
    n_members: int,
    voting: str | None = None,
    names: Sequence[str] | None = None,
    metric: Metric = MACRO_F1,
) -> list[str]:
    """Return the strategies to try, the simplest first; those that want more members are left out.

    Args:
        n_members: of the ensemble.
        voting: only those of this voting; None takes all.
        names: only these, whether tried by default or not; None takes the defaults.
        metric: what they are to be good for; those that do not suit it are left out.

    Raises:
        UserError: an unknown name, or one that does not fit the voting, the metric or the members.
    """
    if voting is not None:
        VOTING.get(voting)
    found = []
    for name in STRATEGIES if names is None else names:
        strategy = STRATEGIES.get(name)
        fits = voting in (None, strategy.voting) and metric.wants in strategy.suits
        fits = fits and not strategy.wants_more(n_members, metric)
        if names is not None and not fits:
            suits = "" if metric.wants in strategy.suits else f", and does not suit {metric.name}"
            raise UserError(
                f"strategy {name!r} votes {strategy.voting} and wants {strategy.min_members} or "
                f"more members{suits}; there are {n_members}, and --voting is "
                f"{voting or 'not given'}"
            )
        if voting is None and names is None and n_members == 1:
            fits = fits and strategy.voting == "soft"  # one member has nothing to vote on
        if fits and (names is not None or metric.wants in strategy.default):
            found.append((strategy.rung, name))
    if not found:
        raise UserError(
            f"no strategy votes {voting!r} with {n_members} member(s) for {metric.name}; train "
            "another model, or leave --voting out"
        )
    # The plain mean first: it learns nothing, where others of its rung or below learn something.
    return [
        name
        for _, name in sorted(set(found), key=lambda one: (one[1] != incumbent_of(metric), one))
    ]
