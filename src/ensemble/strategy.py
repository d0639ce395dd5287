"""What a search strategy is, and the registry of all.

A strategy sees labels and logits and returns a rule. It is judged elsewhere, on items it did not
see (`crossfit`), and taken only where it beats the simpler one there (`tune`).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from src.ensemble.calibration import CALIBRATIONS
from src.ensemble.predictions import fit_threshold
from src.ensemble.rule import Rule, plain_rule
from src.metrics import DECISIONS, DEVELOPMENT, LOSSES, MACRO_F1, RANKS, Metric
from src.registry import Registry

if TYPE_CHECKING:
    import optuna

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
INCUMBENT = "mean@0.5"  # where decisions are scored
PLAIN_MEAN = "mean"  # the incumbent where no threshold is sought
STEPS_UP = {"isotonic": 4}  # on the ladder; a curve of many knots is less simple than a line
LINE = 3
DECIDING = (DECISIONS, DEVELOPMENT)
ANY = (*DECIDING, RANKS, LOSSES)  # what metrics may want
# calibrated strategies -> the kinds of metric for which they are tried unasked; the rest are tried
# when named, or by --calibrate
DEFAULT = {"platt-mean": ANY, "temperature-mean": (LOSSES,), "isotonic-mean": (LOSSES,)}


@dataclass(frozen=True)
class Search:
    """How hard a strategy may look."""

    trials: int | None = None  # trials of one search; None takes the strategy's own number
    seed: int = 42  # of samplers and bags
    on_trial: Callable[[], None] = lambda: None  # called after every trial
    # where studies are kept: an Optuna storage URL, or a file (a journal); empty: memory
    study: str = ""
    study_name: str = ""  # name of this search's study there
    fingerprint: str = ""  # of the problem; a study of another one is refused
    timeout: float | None = None  # seconds one search may take; None has no limit
    # called with every finished study and its name
    on_study: Callable[["optuna.Study", str], None] = lambda _study, _name: None
    metric: Metric = MACRO_F1  # what is maximised


Fit = Callable[[IntArray, FloatArray, Search], Rule]


@dataclass(frozen=True)
class Strategy:
    """A way to find a rule."""

    voting: str  # the voting its rules use
    rung: int  # place on the ladder, the simplest first
    fit: Fit  # (n,) labels, (n, m) logits, search -> rule
    about: str  # one line
    min_members: int = 1  # it has nothing to look for below this many
    sampler: str = ""  # Optuna's sampler class, where it runs trials; else empty
    trials: int = 0  # of one search, unless the user says otherwise
    suits: tuple[str, ...] = ANY  # what a metric may want (`Metric.wants`) for it to make sense
    default: tuple[str, ...] = ANY  # what a metric may want for it to be tried without being named
    # whether calibrating the members first can change what it does; not where only their order
    # counts, nor for the incumbent, which learns nothing
    scale_matters: bool = True
    calibrates: bool = False  # whether its members are calibrated first
    # whether it learns weights: fitted on the items that all members predicted, its threshold on
    # all; the others, which only average, are fitted on whatever there is
    weighs: bool = False

    def wants_more(self, n_members: int, metric: Metric) -> bool:
        """Tell whether so few members leave it nothing to do.

        One member's curve changes what its probs are worth, but no order and no best threshold.
        """
        alone = n_members == 1 and self.calibrates and metric.wants != LOSSES
        return alone or n_members < self.min_members


def incumbent_of(metric: Metric) -> str:
    """Return the name of the plain mean, which learns nothing."""
    return INCUMBENT if metric.decides else PLAIN_MEAN


STRATEGIES: Registry[Strategy] = Registry("strategy")


def calibrated_name(method: str, name: str) -> str:
    """Return the name of a strategy after a calibration: `platt-greedy`."""
    return f"{method}-{name}"


def strategy(name: str, *, voting: str, rung: int, **rest: Any) -> Callable[[Fit], Fit]:  # noqa: ANN401 - fields
    """Register a fit under a name; the first line of its docstring says what it does.

    Where the scale of members matters, it is registered once more after each calibration.

    Args:
        name: of the strategy.
        voting, rung, rest: fields of `Strategy`.
    """

    def add(fit: Fit) -> Fit:
        about = (fit.__doc__ or "").strip().partition("\n")[0]  # `python -OO` has none
        bare = Strategy(voting, rung, fit, about, **rest)
        STRATEGIES.register(name)(bare)
        for method in CALIBRATIONS if bare.scale_matters else ():
            own = calibrated_name(method, name)
            STRATEGIES.register(own)(_calibrated(name, bare, method, DEFAULT.get(own, ())))
        return fit

    return add


def _calibrated(name: str, bare: Strategy, method: str, default: tuple[str, ...]) -> Strategy:
    """Return a strategy on calibrated members.

    The curves are fitted on the rows that the strategy is fitted on, so nested scores stay honest.
    """

    def fit(label: IntArray, logits: FloatArray, search: Search) -> Rule:
        known = ~np.isnan(logits)
        curves = tuple(
            CALIBRATIONS.get(method)(label[rows], logit[rows])
            for rows, logit in zip(known.T, logits.T, strict=True)
        )
        rows = [curve.logit(logit) for curve, logit in zip(curves, logits.T, strict=True)]
        return replace(bare.fit(label, np.stack(rows, axis=1), search), curves=curves)

    return replace(
        bare,
        rung=bare.rung + STEPS_UP.get(method, LINE),
        fit=fit,
        about=f"Calibrate every member ({method}), then {name}.",
        default=default,
        scale_matters=False,
        calibrates=True,
    )


def with_best_threshold(
    label: IntArray,
    logits: FloatArray,
    search: Search,
    voting: str,
    weights: FloatArray,
    **rest: Any,  # noqa: ANN401 - fields of the rule
) -> Rule:
    """Return the rule of (m,) weights, and other fields, at its exact best threshold, if any."""
    return fit_threshold(label, logits, plain_rule(voting, weights, **rest), search.metric)[0]
