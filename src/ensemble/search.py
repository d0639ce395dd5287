"""Which strategies to climb, the simplest first; all are registered by importing them here."""

from collections.abc import Sequence

from src.ensemble import strategies, studies  # noqa: F401 - they register
from src.ensemble.calibration import CALIBRATIONS
from src.ensemble.rule import VOTING
from src.ensemble.strategy import INCUMBENT, STRATEGIES, Search, Strategy, calibrated_name
from src.errors import UserError

__all__ = ["CALIBRATIONS", "INCUMBENT", "STRATEGIES", "Search", "Strategy", "calibrate", "ladder"]


def calibrate(names: Sequence[str], method: str, n_members: int) -> list[str]:
    """Return the ladder on which every strategy that scale matters to is calibrated first.

    One member alone is left as it is: its exact threshold needs no calibration.

    Raises:
        UserError: an unknown method.
    """
    CALIBRATIONS.get(method)
    found = [calibrated_name(method, name) for name in names]
    known = [
        there if there in STRATEGIES and STRATEGIES.get(there).min_members <= n_members else name
        for there, name in zip(found, names, strict=True)
    ]
    return ladder(n_members, names=list(dict.fromkeys(known)))


def ladder(
    n_members: int, voting: str | None = None, names: Sequence[str] | None = None
) -> list[str]:
    """Return the strategies to try, the simplest first; those that want more members are left out.

    Args:
        n_members: of the ensemble.
        voting: only those of this voting; None takes all.
        names: only these, whether tried by default or not; None takes the defaults.

    Raises:
        UserError: an unknown name, or one that does not fit the voting or the members.
    """
    if voting is not None:
        VOTING.get(voting)
    found = []
    for name in STRATEGIES if names is None else names:
        strategy = STRATEGIES.get(name)
        fits = voting in (None, strategy.voting) and strategy.min_members <= n_members
        if names is not None and not fits:
            raise UserError(
                f"strategy {name!r} votes {strategy.voting} and wants {strategy.min_members} or "
                f"more members; there are {n_members}, and --voting is {voting or 'not given'}"
            )
        if voting is None and names is None and n_members == 1:
            fits = fits and strategy.voting == "soft"  # one member has nothing to vote on
        if fits and (names is not None or strategy.default):
            found.append((strategy.rung, name))
    if not found:
        raise UserError(
            f"no strategy votes {voting!r} with {n_members} member(s); train another model"
        )
    return [name for _, name in sorted(set(found))]
