"""Optuna searches for weights: in memory, or in a storage that outlives and joins processes.

With them the strategies of hard voting: members decide, the (weighted) majority wins.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from src import paths
from src.artifacts.atomic import file_lock
from src.artifacts.packages import is_installed
from src.ensemble.predictions import ALONE, fit_threshold
from src.ensemble.rule import TIE, Rule, equal_weights, mean_prob, plain_rule
from src.ensemble.strategies import greedy_weights
from src.ensemble.strategy import DECIDING, Search, strategy, with_best_threshold
from src.errors import UserError
from src.metrics import score_of, sigmoid
from src.objectives import Objective, best_exactly
from src.seeds import derive_seed

if TYPE_CHECKING:
    import optuna

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
FINGERPRINT = "rvf_problem"
BLOCK = 1 << 16
JOURNAL = b'{"op_code":'  # what every line of a journal begins with


@strategy(
    "tpe", voting="soft", rung=12, min_members=2, sampler="TPESampler", trials=100, weighs=True
)
def fit_tpe(label: IntArray, logits: FloatArray, search: Search) -> Rule:
    """Search weights with Optuna's TPE (Bergstra et al., NIPS 2011), the threshold inside."""
    return _searched(label, logits, search, "TPESampler")


@strategy(
    "cma-es", voting="soft", rung=12, min_members=2, sampler="CmaEsSampler", trials=300, weighs=True
)
def fit_cma_es(label: IntArray, logits: FloatArray, search: Search) -> Rule:
    """Search weights with Optuna's CMA-ES (Hansen 2016), the threshold inside."""
    return _searched(label, logits, search, "CmaEsSampler")


def _searched(label: IntArray, logits: FloatArray, search: Search, sampler: str) -> Rule:
    probs = sigmoid(np.ascontiguousarray(logits.T))
    objective = Objective(search.metric, label)
    arranged = objective.arrange(probs)
    # Single precision halves the traffic of a trial; the finalists are scored exactly.
    single = arranged.astype(np.float32)

    def quick(weights: FloatArray) -> float:
        return objective.quick(weights.astype(np.float32) @ single)

    def exact(weights: FloatArray) -> float:
        return objective.exact(mean_prob(weights, arranged))

    tried_first = [greedy_weights(label, probs, search.metric)]
    weights = search_weights(quick, exact, logits.shape[1], search, sampler, tried_first)
    return with_best_threshold(label, logits, search, "soft", weights)


def search_weights(
    score: Callable[[FloatArray], float],
    exact: Callable[[FloatArray], float],
    n_members: int,
    search: Search,
    sampler: str,
    tried_first: Sequence[FloatArray],
) -> FloatArray:
    """Return the (m,) weights of sum 1, m >= 2, of the highest score.

    Equal weights are tried first, and win ties; then `tried_first`, before any search. `score` is
    asked for every trial, `exact` for those that look best.

    Raises:
        UserError: the storage is out of reach, or its study is of another problem.
    """
    import optuna
    from optuna.study import MaxTrialsCallback

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    complete = (optuna.trial.TrialState.COMPLETE,)
    share = optuna.distributions.FloatDistribution(0.0, 1.0)
    names = [f"weight_{i}" for i in range(n_members)]
    trials = search.trials or 0

    def weights_of(values: Sequence[float]) -> FloatArray:
        total = sum(values)
        return np.array(values) / total if total > 0 else equal_weights(n_members)

    def objective(trial: "optuna.Trial") -> float:
        value = score(weights_of([trial.suggest_float(name, 0.0, 1.0) for name in names]))
        search.on_trial()
        return value

    with _plainly(search):
        study = _open_study(search, sampler)
        fixed = [equal_weights(n_members), *tried_first][:trials]
        if not study.get_trials(deepcopy=False):
            for weights in fixed:
                values = (weights / weights.max()).tolist()
                study.add_trial(
                    optuna.trial.create_trial(
                        params=dict(zip(names, values, strict=True)),
                        distributions=dict.fromkeys(names, share),
                        value=score(weights),
                    )
                )
                search.on_trial()
        missing = trials - len(study.get_trials(deepcopy=False, states=complete))
        if missing > 0 and not search.study:
            study.optimize(objective, n_trials=missing, timeout=search.timeout)
        elif missing > 0:  # several workers on one storage share them
            done = MaxTrialsCallback(trials, states=complete)
            study.optimize(objective, timeout=search.timeout, callbacks=[done])
        search.on_study(study, search.study_name)
        found = study.get_trials(deepcopy=False, states=complete)
    if not found:
        return equal_weights(n_members)
    scored = [
        (trial.value or 0.0, weights_of([trial.params[name] for name in names]))
        for trial in sorted(found, key=lambda trial: trial.number)
    ]
    return best_exactly(scored, exact)


@contextmanager
def _plainly(search: Search) -> Iterator[None]:
    """Turn what a storage raises into a user's error; every driver has its own kinds."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not search.study:
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"--study {_without_password(search.study)}: {_without_password(reason)}; what is "
            "stored stays, the same command goes on"
        ) from error


def _without_password(text: str) -> str:
    return re.sub(r"://[^@/\s]*@", "://***@", text)


def _open_study(search: Search, sampler: str) -> "optuna.Study":
    import optuna

    make = getattr(optuna.samplers, sampler)
    if not search.study:
        return optuna.create_study(direction="maximize", sampler=make(seed=search.seed))
    key = hashlib.sha256(search.study.encode()).hexdigest()[:16]
    # Workers that make tables at once disturb each other, and the one that fails loses its search.
    with file_lock(paths.study_lock(key), "the storage of the study", wait=True):
        study = optuna.create_study(
            study_name=search.study_name,
            storage=open_storage(search.study),
            direction="maximize",
            load_if_exists=True,
        )
    trials = len(study.get_trials(deepcopy=False))
    # Workers, and a search that goes on, must not draw the same points again.
    study.sampler = make(seed=derive_seed(search.seed, os.getpid(), trials))
    known = study.user_attrs.get(FINGERPRINT)
    if known is None and not trials:
        study.set_user_attr(FINGERPRINT, search.fingerprint)
    elif known != search.fingerprint:
        raise UserError(
            f"--study {_without_password(search.study)}: its study {search.study_name!r} is of "
            "another problem (other members, folds, predictions or seed); give another file or "
            "database, or another --recipe name"
        )
    return study


def open_storage(where: str) -> "optuna.storages.BaseStorage":
    """Open an Optuna storage: a URL (`sqlite:///x.db`, `postgresql://...`), or a journal file.

    Raises:
        UserError: the folder of the file does not exist, or the file is no journal.
    """
    import optuna
    from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

    class CuttingLock(JournalFileSymlinkLock):
        """Cuts off what a full disk left of a line: the next one would be written behind it."""

        def acquire(self) -> bool:
            acquired = super().acquire()
            _cut_torn_line(path)
            return acquired

    if "://" in where:
        return optuna.storages.get_storage(_with_driver(where))
    path = Path(where)
    if path.is_dir() or not path.parent.is_dir():
        raise UserError(f"--study {where}: want a file in a folder that exists, or a database URL")
    if path.exists():
        _check_journal(path)
    return optuna.storages.JournalStorage(JournalFileBackend(str(path), CuttingLock(str(path))))


def _check_journal(path: Path) -> None:
    """Raise a UserError where a file is no journal: trials would be appended to it."""
    if path.is_file():
        with path.open("rb") as file:
            begins = file.read(len(JOURNAL))
        if JOURNAL.startswith(begins):
            return
    raise UserError(f"--study {path}: is there and no journal of a study; take another name")


def _cut_torn_line(path: Path) -> None:
    """Cut a journal behind its last line break; its lock must be held."""
    with path.open("r+b") as file:
        place = end = file.seek(0, os.SEEK_END)
        while place:
            start = max(0, place - BLOCK)
            file.seek(start)
            found = file.read(place - start).rfind(b"\n")
            if found >= 0:
                place = start + found + 1
                break
            place = start
        if place < end:
            file.truncate(place)


def _with_driver(url: str) -> str:
    """Name the driver that is installed: a plain `postgresql://` would want the old psycopg2."""
    plain = "postgresql://"
    if url.startswith(plain) and not is_installed("psycopg2"):
        return "postgresql+psycopg://" + url.removeprefix(plain)
    return url


@strategy("majority@0.5", voting="hard", rung=1, suits=DECIDING)
def fit_plain_majority(_label: IntArray, logits: FloatArray, _search: Search) -> Rule:
    """Take the majority of the members' decisions at 0.5: nothing is learned."""
    return plain_rule("hard", equal_weights(logits.shape[1]))


@strategy("majority", voting="hard", rung=2, suits=DECIDING)
def fit_majority(label: IntArray, logits: FloatArray, search: Search) -> Rule:
    """Let every member decide at its own exact best threshold; take the plain majority."""
    fitted = [fit_threshold(label, logit, ALONE, search.metric)[0] for logit in logits.T]
    thresholds = np.array([rule.threshold for rule in fitted])
    return Rule("hard", equal_weights(logits.shape[1]), thresholds, 0.5)


@strategy(
    "weighted-majority", voting="hard", rung=12, min_members=3, sampler="TPESampler", trials=100,
    suits=DECIDING, weighs=True,
)  # fmt: skip
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
        return search.metric.sign * score_of(search.metric, label, share, pred)

    weights = search_weights(score, score, logits.shape[1], search, "TPESampler", [])
    return Rule("hard", weights, plain.thresholds, 0.5)
