"""What a search strategy is, and the registry of all.

A strategy sees labels and logits and returns a rule. It is judged elsewhere, on items it did not
see (`crossfit`), and taken only where it beats the simpler one there (`tune`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from src.ensemble.predictions import fit_threshold
from src.ensemble.rule import Rule, plain_rule
from src.registry import Registry

if TYPE_CHECKING:
    import optuna

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
INCUMBENT = "mean@0.5"


def _ignore_trial() -> None:
    """Do nothing after a trial."""


def _ignore_study(_study: "optuna.Study", _name: str) -> None:
    """Do nothing with a finished study."""


@dataclass(frozen=True)
class Search:
    """How hard a strategy may look."""

    trials: int | None = None  # trials of one search; None takes the strategy's own number
    seed: int = 42  # of samplers and bags
    on_trial: Callable[[], None] = _ignore_trial  # called after every trial
    # where studies are kept: an Optuna storage URL, or a file (a journal); empty: memory
    study: str = ""
    study_name: str = ""  # name of this search's study there
    fingerprint: str = ""  # of the problem; a study of another one is refused
    timeout: float | None = None  # seconds one search may take; None has no limit
    # called with every finished study and its name
    on_study: Callable[["optuna.Study", str], None] = _ignore_study


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
    default: bool = True  # whether it is tried without being named
    # whether calibrating the members first can change what it does; not where only their order
    # counts, nor for the incumbent, which learns nothing
    scale_matters: bool = True


STRATEGIES: Registry[Strategy] = Registry("strategy")


def strategy(
    name: str,
    *,
    voting: str,
    rung: int,
    min_members: int = 1,
    sampler: str = "",
    trials: int = 0,
    default: bool = True,
    scale_matters: bool = True,
) -> Callable[[Fit], Fit]:
    """Register a fit under a name; the first line of its docstring says what it does."""

    def add(fit: Fit) -> Fit:
        about = (fit.__doc__ or "").strip().partition("\n")[0]  # `python -OO` has none
        STRATEGIES.register(name)(
            Strategy(voting, rung, fit, about, min_members, sampler, trials, default, scale_matters)
        )
        return fit

    return add


def with_best_threshold(
    label: IntArray,
    logits: FloatArray,
    voting: str,
    weights: FloatArray,
    **rest: Any,  # noqa: ANN401 - fields of the rule
) -> Rule:
    """Return the rule of (m,) weights, and other fields of it, at its exact best threshold."""
    return fit_threshold(label, logits, plain_rule(voting, weights, **rest))[0]
