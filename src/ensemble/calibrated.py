"""Calibration as a stage before any strategy: `platt-greedy` is greedy on calibrated members.

The curves are fitted on the rows that the strategy is fitted on, so nested scores stay honest. Each
strategy that a change of scale can touch (hard voting in its ties) is registered once more for
every calibration.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from src.ensemble.curves import CALIBRATIONS
from src.ensemble.rule import Rule
from src.ensemble.strategy import STRATEGIES, Fit, Search, Strategy

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


def _calibrated(name: str, plain: Strategy, method: str) -> Strategy:
    return replace(
        plain,
        rung=plain.rung + STEPS_UP.get(method, LINE),
        fit=calibrate_first(plain.fit, method),
        about=f"Calibrate every member ({method}), then {name}.",
        min_members=max(2, plain.min_members),
        default=calibrated_name(method, name) in DEFAULT,
        scale_matters=False,
    )


def register_calibrated() -> None:
    """Register every strategy that scale matters to once more after each calibration."""
    plain = {name: STRATEGIES.get(name) for name in STRATEGIES}
    for name, found in plain.items():
        for method in CALIBRATIONS if found.scale_matters else ():
            STRATEGIES.register(calibrated_name(method, name))(_calibrated(name, found, method))
