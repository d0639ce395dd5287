"""The strategies that find a rule, from simple to complex; each is registered in `STRATEGIES`.

A strategy sees labels and logits and returns a rule. It is judged elsewhere, on items it did not
see (`crossfit`), and taken only where it beats the simpler one there (`tune`).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from src.ensemble.vote import TIE, Rule, mean_prob, vote
from src.metrics import BINS, best_threshold, macro_f1, sigmoid, threshold_of_bins
from src.registry import Registry

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
INCUMBENT = "mean@0.5"


def _ignore_trial() -> None:
    """Do nothing after a trial."""


@dataclass(frozen=True)
class Search:
    """How hard a strategy may look.

    Attributes:
        trials: trials of one search.
        seed: of the sampler.
        on_trial: called after every trial.
    """

    trials: int = 200
    seed: int = 42
    on_trial: Callable[[], None] = _ignore_trial


Fit = Callable[[IntArray, FloatArray, Search], Rule]


@dataclass(frozen=True)
class Strategy:
    """A way to find a rule.

    Attributes:
        voting: the voting its rules use; it stands on that ladder.
        rung: place on the ladder, the simplest first.
        fit: (n,) labels, (n, m) logits, search -> rule.
        min_members: it has nothing to look for below this many.
        sampler: Optuna's sampler class, where it runs trials; else None.
    """

    voting: str
    rung: int
    fit: Fit
    min_members: int = 1
    sampler: str | None = None


STRATEGIES: Registry[Strategy] = Registry("strategy")


def ladder(voting: str, n_members: int) -> list[str]:
    """Return the strategies of a voting that make sense for so many members, simplest first."""
    fitting = [
        (strategy.rung, name)
        for name, strategy in ((name, STRATEGIES.get(name)) for name in STRATEGIES)
        if strategy.voting == voting and strategy.min_members <= n_members
    ]
    return [name for _, name in sorted(fitting)]


def _strategy(
    name: str,
    *,
    voting: str,
    rung: int,
    min_members: int = 1,
    sampler: str | None = None,
) -> Callable[[Fit], Fit]:
    def add(fit: Fit) -> Fit:
        STRATEGIES.register(name)(Strategy(voting, rung, fit, min_members, sampler))
        return fit

    return add


def _equal(n_members: int) -> FloatArray:
    return np.full(n_members, 1.0 / n_members)


def _plain(voting: str, n_members: int) -> Rule:
    return Rule(voting, _equal(n_members), np.full(n_members, 0.5), 0.5)


def _soft_rule(label: IntArray, logits: FloatArray, weights: FloatArray) -> Rule:
    """Return the soft rule of these weights at its exact best threshold."""
    halves = np.full(weights.size, 0.5)
    prob = vote(Rule("soft", weights, halves, 0.5), logits).prob
    return Rule("soft", weights, halves, best_threshold(label, prob)[0])


@_strategy(INCUMBENT, voting="soft", rung=0)
def fit_incumbent(_label: IntArray, logits: FloatArray, _search: Search) -> Rule:
    """Learn nothing: the mean of probs at 0.5."""
    return _plain("soft", logits.shape[1])


@_strategy("mean", voting="soft", rung=1)
def fit_mean(label: IntArray, logits: FloatArray, _search: Search) -> Rule:
    """Keep equal weights, at the exact best threshold."""
    return _soft_rule(label, logits, _equal(logits.shape[1]))


@_strategy("weights", voting="soft", rung=2, min_members=2, sampler="TPESampler")
def fit_weights(label: IntArray, logits: FloatArray, search: Search) -> Rule:
    """Search weights with TPE; every trial is scored at its best threshold of a histogram.

    Tree-structured Parzen estimator: Bergstra et al., NIPS 2011; Optuna's, multivariate.
    """
    probs = sigmoid(np.ascontiguousarray(logits.T))
    offset = label * np.int64(BINS + 1)

    def score(weights: FloatArray) -> float:
        return threshold_of_bins(np.clip(weights @ probs, 0.0, 1.0), offset)[1]

    return _soft_rule(label, logits, _search_weights(score, logits.shape[1], search))


@_strategy("majority@0.5", voting="hard", rung=0)
def fit_plain_majority(_label: IntArray, logits: FloatArray, _search: Search) -> Rule:
    """Learn nothing: the majority of the members' decisions at 0.5."""
    return _plain("hard", logits.shape[1])


@_strategy("majority", voting="hard", rung=1)
def fit_majority(label: IntArray, logits: FloatArray, _search: Search) -> Rule:
    """Let every member decide at its own exact best threshold; take the plain majority."""
    probs = sigmoid(logits)
    thresholds = np.array([best_threshold(label, prob)[0] for prob in probs.T])
    return Rule("hard", _equal(logits.shape[1]), thresholds, 0.5)


@_strategy("weighted-majority", voting="hard", rung=2, min_members=3, sampler="TPESampler")
def fit_weighted_majority(label: IntArray, logits: FloatArray, search: Search) -> Rule:
    """Search the weights of the members' votes with TPE."""
    plain = fit_majority(label, logits, search)
    probs = sigmoid(np.ascontiguousarray(logits.T))
    votes = (probs >= plain.thresholds[:, None]).astype(np.float64)

    def score(weights: FloatArray) -> float:
        share = weights @ votes
        pred = share > 0.5 + TIE
        tie = np.abs(share - 0.5) <= TIE
        if tie.any():
            pred[tie] = mean_prob(weights, probs[:, tie]) >= 0.5
        return macro_f1(label, pred)

    weights = _search_weights(score, logits.shape[1], search)
    return Rule("hard", weights, plain.thresholds, 0.5)


def _search_weights(
    score: Callable[[FloatArray], float], n_members: int, search: Search
) -> FloatArray:
    """Maximise a score over the simplex; equal weights are tried first, and win ties.

    Args:
        score: weights (m,) with sum 1 -> score.
        n_members: m >= 2.
        search: trials, seed, callback.

    Returns:
        (m,) float64 weights with sum 1.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    names = [f"weight_{i}" for i in range(n_members)]

    def weights_of(values: list[float]) -> FloatArray:
        total = sum(values)
        return np.array(values) / total if total > 0 else _equal(n_members)

    def objective(trial: optuna.Trial) -> float:
        value = score(weights_of([trial.suggest_float(name, 0.0, 1.0) for name in names]))
        search.on_trial()
        return value

    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.TPESampler(seed=search.seed)
    )
    study.enqueue_trial(dict.fromkeys(names, 0.5))
    study.optimize(objective, n_trials=search.trials)
    best = max(study.trials, key=lambda trial: (trial.value, -trial.number))
    return weights_of([best.params[name] for name in names])
