"""All search strategies, registered by importing them, and which of them to climb.

Calibration as a stage before any strategy: `platt-greedy` is greedy on calibrated members.

The curves are fitted on the rows that the strategy is fitted on, so nested scores stay honest. Each
strategy that a change of scale can touch (hard voting in its ties) is registered once more for
every calibration.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from src.ensemble import strategies, studies  # noqa: F401 - they register
from src.ensemble.calibration import CALIBRATIONS
from src.ensemble.rule import VOTING, Rule
from src.ensemble.strategy import INCUMBENT, STRATEGIES, Fit, Search, Strategy
from src.errors import UserError

__all__ = ["CALIBRATIONS", "INCUMBENT", "STRATEGIES", "Search", "Strategy", "calibrate", "ladder"]
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
STEPS_UP = {"isotonic": 4}  # on the ladder; a curve of many knots is less simple than a line
LINE = 3
DEFAULT = ("platt-mean",)  # the rest are tried when named, or by --calibrate


def calibrated_name(method: str, name: str) -> str:
    """Return the name of a strategy after a calibration."""
    return f"{method}-{name}"


def calibrate_first(fit: Fit, method: str) -> Fit:
    """Return a fit that calibrates every member, then fits on the calibrated logits.

    Args:
        fit: of a strategy whose rules have no curves.
        method: name in `CALIBRATIONS`.
    """

    def fit_calibrated(label: IntArray, logits: FloatArray, search: Search) -> Rule:
        curves = tuple(CALIBRATIONS.get(method)(label, logit) for logit in logits.T)
        rows = [curve.logit(logit) for curve, logit in zip(curves, logits.T, strict=True)]
        return replace(fit(label, np.stack(rows, axis=1), search), curves=curves)

    return fit_calibrated


def _calibrated(name: str, bare: Strategy, method: str) -> Strategy:
    return replace(
        bare,
        rung=bare.rung + STEPS_UP.get(method, LINE),
        fit=calibrate_first(bare.fit, method),
        about=f"Calibrate every member ({method}), then {name}.",
        min_members=max(2, bare.min_members),
        default=calibrated_name(method, name) in DEFAULT,
        scale_matters=False,
    )


def register_calibrated() -> None:
    """Register every strategy that scale matters to once more after each calibration."""
    bare = {name: STRATEGIES.get(name) for name in STRATEGIES}
    for name, found in bare.items():
        for method in CALIBRATIONS if found.scale_matters else ():
            STRATEGIES.register(calibrated_name(method, name))(_calibrated(name, found, method))


def calibrate(names: Sequence[str], method: str, n_members: int) -> list[str]:
    """Return the ladder on which every strategy that scale matters to is calibrated first.

    Args:
        names: as `ladder` gives them.
        method: name in `CALIBRATIONS`.
        n_members: one alone is left as it is: its exact threshold needs no calibration.

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
    """Return the strategies to try, the simplest first.

    Args:
        n_members: strategies that want more are left out.
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


register_calibrated()
