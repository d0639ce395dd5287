"""How fast tuning is, beside what others do: thresholds, the evaluator, a trial, greedy selection.

    python -m benchmarks.tuning        everything in one run, alternating; CPU time of one thread

`hillclimbers` runs beside ours where it is installed (pip install hillclimbers).
"""

import argparse
import functools
import importlib.util
import time
from collections.abc import Callable

import numpy as np
import optuna
from sklearn.metrics import f1_score, roc_auc_score

from benchmarks.tune_command import weigh_tune
from src.ensemble.strategies import ROUNDS, greedy_weights
from src.metrics import MACRO_F1, auc, macro_f1, metric_named, sigmoid
from src.objectives import Objective
from src.thresholds import best_threshold

SIZES = (10_000, 100_000, 1_000_000)
optuna.logging.set_verbosity(optuna.logging.ERROR)


def simulate(n: int, members: int, seed: int = 0, fakes: float = 0.3) -> dict[str, np.ndarray]:
    """Make logits with a shared difficulty, own errors and own calibration."""
    rng = np.random.default_rng(seed)
    label = (rng.random(n) < fakes).astype(np.int64)
    truth = 2.0 * (2 * label - 1) + 1.3 * rng.normal(size=n)
    errors = rng.normal(size=(n, members)) * rng.uniform(0.8, 1.6, members)
    logits = (truth[:, None] + errors) * rng.uniform(0.8, 2.5, members) + rng.normal(
        size=members
    ) / 2
    group = rng.integers(0, n // 2, n)
    return {"label": label, "group": group, "fold": group % 5, "logits": logits}


def seconds(*calls: Callable[[], object], repeats: int = 3) -> list[float]:
    """Return the least CPU seconds of each call, taken in turn."""
    best = [float("inf")] * len(calls)
    for _ in range(repeats):
        for place, call in enumerate(calls):
            start = time.process_time()
            call()
            best[place] = min(best[place], time.process_time() - start)
    return best


def optuna_threshold(label: np.ndarray, prob: np.ndarray, trials: int = 200) -> float:
    """Search the threshold as is often done: TPE, scikit-learn's F1 inside."""
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
    study.optimize(
        lambda trial: f1_score(
            label, prob >= trial.suggest_float("threshold", 0.0, 1.0), average="macro"
        ),
        n_trials=trials,
    )
    return study.best_value


def thresholds() -> None:
    """Compare the exact threshold with a search, and the evaluator with scikit-learn's."""
    print(
        "n          exact s   TPE-200 + f1_score s   ratio   gain      f1_score us / ours us  ratio"
    )
    for n in SIZES:
        found = simulate(n, 1)
        label, prob = found["label"], sigmoid(found["logits"][:, 0])
        exact = best_threshold(label, prob)[1]
        searched: list[float] = []
        ours, theirs = seconds(
            lambda a=label, b=prob: best_threshold(a, b),
            lambda a=label, b=prob, to=searched: to.append(optuna_threshold(a, b)),
            repeats=1 if n > 100_000 else 2,
        )
        ours = min(seconds(lambda a=label, b=prob: best_threshold(a, b), repeats=20)[0], ours)
        pred = (prob >= 0.5).astype(np.int64)
        quick, slow = _evaluators(label, pred)
        gain = exact - max(searched)
        print(f"{n}  {ours:.5f}  {theirs:.3f}  {theirs / ours:.0f}x  {gain:+.6f}"
              f"  {slow * 1e6:.0f} / {quick * 1e6:.1f}  {slow / quick:.0f}x")  # fmt: skip
        same = abs(macro_f1(label, pred) - f1_score(label, pred, average="macro"))
        if n == 100_000:
            target("exact threshold over TPE-200 + f1_score at 1e5", theirs / ours, 50, "x")
            target("macro_f1 over f1_score at 1e5", slow / quick, 100, "x")
        best_or_short("exact never below the search", f"n={n} {gain:+.2e}", gain >= -1e-12)
        best_or_short("macro_f1 equals f1_score to 1e-12", f"n={n} {same:.1e}", same <= 1e-12)


def _evaluators(label: np.ndarray, pred: np.ndarray) -> tuple[float, float]:
    inner = max(1, 2_000_000 // len(label))

    def ours() -> None:
        for _ in range(inner):
            macro_f1(label, pred)

    def theirs() -> None:
        f1_score(label, pred, average="macro")

    quick, slow = seconds(ours, theirs, repeats=7)
    return quick / inner, slow


def one_trial(n: int = 100_000, members: int = 8, trials: int = 200) -> None:
    """Hold a trial of the search against one that computes nothing."""
    found = simulate(n, members)
    label, probs = found["label"], sigmoid(np.ascontiguousarray(found["logits"].T))
    objective = Objective(MACRO_F1, label)
    single = objective.arrange(probs).astype(np.float32)
    names = [f"w{i}" for i in range(members)]

    def run(score: Callable[[np.ndarray], float]) -> None:
        study = optuna.create_study(
            direction="maximize", sampler=optuna.samplers.TPESampler(seed=0)
        )
        study.optimize(
            lambda trial: score(np.array([trial.suggest_float(name, 0, 1) for name in names])),
            n_trials=trials,
        )

    def scored(weights: np.ndarray) -> float:
        return objective.quick((weights / weights.sum()).astype(np.float32) @ single)

    ours, null = seconds(lambda: run(scored), lambda: run(lambda w: float(w[0])), repeats=5)
    print(f"one TPE trial, M={members}, n={n}: {ours / trials * 1e3:.2f} ms, "
          f"with a null objective {null / trials * 1e3:.2f} ms")  # fmt: skip
    ratio = ours / null
    best_or_short("one trial over a null trial", f"{ratio:.2f}x", ratio <= 1.2, "<= 1.2x")


def one_auc(n: int = 100_000) -> None:
    """Hold an AUC inside a search, and the exact one at its end, against scikit-learn's."""
    found = simulate(n, 1)
    label, prob = found["label"], sigmoid(found["logits"][:, 0])
    objective = Objective(metric_named("auc"), label)
    rows = objective.arrange(prob)
    single = rows.astype(np.float32)
    quick, exact, theirs = seconds(
        lambda: objective.quick(single), lambda: auc(label, prob),
        lambda: roc_auc_score(label, prob), repeats=20,
    )  # fmt: skip
    off = abs(objective.quick(single) - roc_auc_score(label, prob))
    same = abs(objective.exact(rows) - roc_auc_score(label, prob))
    print(f"AUC at n={n}: {quick * 1e3:.2f} ms in a search (off by {off:.1e}), "
          f"{exact * 1e3:.2f} ms exactly, roc_auc_score {theirs * 1e3:.1f} ms")  # fmt: skip
    target("AUC in a search over roc_auc_score", theirs / quick, 30, "x")
    best_or_short("AUC at the end equals roc_auc_score to 1e-12", f"{same:.1e}", same <= 1e-12)


def greedy(n: int = 100_000, members: int = 20) -> None:
    """Time greedy selection beside AutoGluon's way and `hillclimbers`."""
    found = simulate(n, members)
    label, probs = found["label"], sigmoid(np.ascontiguousarray(found["logits"].T))
    [ours] = seconds(lambda: greedy_weights(label, probs), repeats=3)
    [two_rounds] = seconds(lambda: _autogluon_like(label, probs, 2), repeats=1)
    theirs = two_rounds / 2 * ROUNDS  # each round costs the same
    print(f"greedy, {ROUNDS} rounds, M={members}, n={n}: ours {ours:.2f} CPU-s, threshold inside; "
          f"f1_score at 0.5, as AutoGluon does, {theirs:.1f}")  # fmt: skip
    best_or_short("greedy 50 rounds", f"{ours:.2f} CPU-s", ours < 1.0, "< 1 CPU-s")
    if not (importlib.util.find_spec("hillclimbers") and importlib.util.find_spec("plotly")):
        print("hillclimbers (which wants plotly): not installed here")
        return
    _hillclimbers(label[:20_000], probs[:8, :20_000])


def _autogluon_like(label: np.ndarray, probs: np.ndarray, rounds: int) -> None:
    total = np.zeros(probs.shape[1])
    for number in range(1, rounds + 1):
        scores = [
            f1_score(label, (total + prob) / number >= 0.5, average="macro") for prob in probs
        ]
        total += probs[int(np.argmax(scores))]


def _macro_f1_at_half(label: np.ndarray, prob: np.ndarray) -> float:
    return f1_score(label, np.asarray(prob) >= 0.5, average="macro")


def _hillclimbers(label: np.ndarray, probs: np.ndarray) -> None:
    import contextlib
    import io

    import pandas as pd
    from hillclimbers import climb_hill

    names = [f"m{i}" for i in range(len(probs))]
    table = pd.DataFrame(probs.T, columns=pd.Index(names))

    def climb() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            climb_hill(
                train=pd.DataFrame({"label": label}), target="label", objective="maximize",
                oof_pred_df=table, test_pred_df=table, plot_hill=False, plot_hist=False,
                eval_metric=functools.partial(_macro_f1_at_half),
            )  # fmt: skip

    theirs, ours = seconds(climb, lambda: greedy_weights(label, probs), repeats=1)
    print(f"hillclimbers, n=20000, M=8: {theirs:.1f} CPU-s, ours {ours:.3f} ({theirs / ours:.0f}x)")


def command(n: int = 100_000, members: int = 20) -> None:
    """Time the whole command: reading its CSVs, all default strategies nested, writing."""
    for metric in ("macro_f1", "auc"):
        found = weigh_tune(simulate(n, members), "--metric", metric)
        table = found.printed.partition("candidate ")
        print("".join(table[1:]).partition(" on 100000 items")[0])
        best_or_short(f"tune.py, M={members}, n={n}, {metric}, all default strategies, nested",
                      f"{found.wall_s:.0f} s wall, {found.cpu_s:.0f} CPU-s", found.wall_s < 60,
                      "< 60 s")  # fmt: skip
        peak = found.peak_gib
        best_or_short("its peak memory", f"{peak:.2f} GiB", peak < 2, "< 2 GiB")


def target(name: str, ratio: float, least: float, unit: str) -> None:
    """Print one line for a ratio that should be large."""
    best_or_short(name, f"{ratio:.0f}{unit}", ratio >= least, f">= {least}{unit}")


def best_or_short(name: str, figure: str, good: bool, wanted: str = "") -> None:
    """Print one line a target."""
    print(f"{'ok' if good else 'short'} {name}: {figure}{f' (target {wanted})' if wanted else ''}")


def main() -> None:
    """Run all parts, or those named."""
    parts = {
        "command": command, "thresholds": thresholds, "trial": one_trial, "auc": one_auc,
        "greedy": greedy,
    }  # fmt: skip
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*parts, []], help="default: all")
    for name in parser.parse_args().parts or parts:
        parts[name]()


if __name__ == "__main__":
    main()
