"""What an answer column holds: labels, probabilities or ranks.

What the metric scores decides, held against what the sample asks for (`choose_output`); what was
written is always said (`Holding`).
"""

import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src.errors import UserError
from src.metrics import LOSSES, metric_named

# Decisions; P(fake); its rank as a share of the rows.
Output = Literal["label", "prob", "rank"]
Names = tuple[str, str]  # how label 0 and label 1 are written
LOG_LOSS = "log_loss"
# How near to 0 and 1 a prob may come where log loss is the metric, which has no bound there: still
# a number of its own where a scorer reads it as float32.
EDGE = 1e-7
_BETWEEN = re.compile(r"[^a-z0-9]+|_")
_PROB_WORDS = frozenset((
    "prob", "probs", "proba", "probability", "probabilities", "score", "scores", "confidence",
    "likelihood",
))  # fmt: skip
_PROB_NAMES = frozenset(("y_pred", "p", "p_fake", "p_real", "pfake", "preal"))
_ANSWER_WORDS = _PROB_WORDS | {
    "label", "labels", "target", "targets", "class", "answer", "answers", "prediction",
    "predictions", "predicted", "pred", "preds", "fake", "real", "verdict", "y", "p", "pfake",
}  # fmt: skip


class Asked(NamedTuple):
    """What a sample asks for by its looks."""

    output: Output  # `label` or `prob`
    why: str  # what says so, for people


class Holding(NamedTuple):
    """What an answer column holds, for people and for the sidecar."""

    output: Output
    means: str  # how it is to be read
    rows: int  # that have an answer
    distinct: int  # how many values there are
    low: float | None = None  # the least and the greatest, None of labels
    high: float | None = None
    clipped: int = 0  # rows that were nearer to 0 or 1 than `EDGE`

    def record(self) -> dict[str, Any]:
        """Return it for a sidecar."""
        found: dict[str, Any] = {"output": self.output, "means": self.means}
        if self.output == "label":
            return found
        found |= {"range": [self.low, self.high], "distinct": self.distinct}
        return found | ({"clipped": self.clipped, "edge": EDGE} if self.clipped else {})

    def __str__(self) -> str:
        """Say it in a sentence."""
        kind = {"label": "labels", "prob": "probabilities", "rank": "ranks"}[self.output]
        if self.output == "label" or self.low is None:
            return f"{kind}, {self.means}"
        said = f"{kind}, {self.means}, from {self.low:.6g} to {self.high:.6g}; "
        said += f"{self.distinct} distinct values in {self.rows} rows"
        said += f" ({self.distinct / self.rows:.1%})"
        if self.clipped:
            said += (
                f"; {self.clipped} rows were nearer than {EDGE:g} to 0 or 1 and are kept that far "
                "away, for by log loss a wrong one costs without bound"
            )
        return said


def _words(column: str) -> list[str]:
    return [word for word in _BETWEEN.split(column.strip().lower()) if word]


def asks_for_prob(column: str) -> bool:
    """Tell whether an answer column's name asks for probabilities: `prob`, `y_pred`, `score`."""
    words = _words(column)
    return not _PROB_WORDS.isdisjoint(words) or "_".join(words) in _PROB_NAMES


def answer_columns(columns: Sequence[str]) -> list[str]:
    """Return the columns whose names say that they hold answers."""
    return [name for name in columns if not _ANSWER_WORDS.isdisjoint(_words(name))]


def choose_output(metric: str, asked: Asked | None, given: Output | None = None) -> Output:
    """Return what an answer column is to hold: what the metric scores, unless it is `given`.

    Metrics of decisions take labels, all others probabilities, which keep ranks too.

    Raises:
        UserError: the sample asks for the other, and nobody has settled it.
    """
    wanted: Output = "label" if metric_named(metric).decides else "prob"
    if given is not None or asked is None or asked.output == wanted:
        return given or wanted
    wants, scores, fitting, others = (
        ("labels", "probabilities or their ranks", "macro_f1", "f1, accuracy, mcc ...")
        if asked.output == "label"
        else ("probabilities", "decisions", "auc", "log_loss, brier, ap ...")
    )
    raise UserError(
        f"{asked.why}, so the competition asks for {wants}, and the metric {metric} scores "
        f"{scores}. Say in dataset.yaml what the competition scores, such as `metric: {fitting}` "
        f"(or {others}), and run tune.py again; or what to write all the same: "
        f"`output: {asked.output}` or `output: {wanted}`"
    )


class Answer(NamedTuple):
    """What is handed in."""

    output: Output
    metric: str  # that it is scored by
    doubts: list[str]  # what is doubtful about that, for people


def settle_answer(
    tuned_for: str, scored_by: str | None, asked: Asked | None, given: Output | None
) -> Answer:
    """Settle what the answers of a recipe hold.

    Args:
        tuned_for: the recipe's metric.
        scored_by: the data set's metric, if dataset.yaml names one.
        asked: what the sample asks for.
        given: what to write, if a person said so.

    Raises:
        UserError: these contradict each other, and nothing is `given`.
    """
    metric, doubts = scored_by or tuned_for, []
    if metric != tuned_for:
        said = f"the recipe was tuned for {tuned_for}, and dataset.yaml says `metric: {metric}`"
        if given is None and metric_named(metric).decides != metric_named(tuned_for).decides:
            raise UserError(
                f"{said}, which scores another kind of answer: run tune.py again, or say what to "
                "write all the same: --output-kind label, or prob"
            )
        doubts.append(f"{said}: run tune.py again")
    output = choose_output(metric, asked, given)
    if output == "label" and not metric_named(tuned_for).decides:
        doubts.append(f"no threshold was tuned for labels: {tuned_for} scores no decisions")
    if output == "rank" and metric_named(metric).wants == LOSSES:
        doubts.append(f"ranks are no probabilities, which {metric} scores")
    return Answer(output, metric, doubts)


def cut_elsewhere(answer: Answer, votes: pd.DataFrame) -> list[str]:
    """Say how many decisions turn where a scorer of decisions gets probs and cuts them at 0.5.

    `votes`: `prob` and `pred`, a row an item.
    """
    if answer.output != "prob" or not metric_named(answer.metric).decides:
        return []
    turned = int(((votes["prob"] >= 0.5) != (votes["pred"] == 1)).sum())
    return [
        f"{answer.metric} scores decisions: whoever cuts these probabilities at 0.5 decides "
        f"{turned} of {len(votes)} rows otherwise than the recipe does"
    ]


def meaning(names: Names) -> str:
    """Return what a number near 1 says: `P(fake)`, or `P(real)` where 1 is written for real."""
    try:
        real, fake = map(float, names)
    except ValueError:  # words
        return "P(fake)"
    return "P(real)" if real > fake else "P(fake)"


def describe(output: Output, names: Names) -> str:
    """Say how answers are to be read."""
    return {
        "label": f"written as {names[0]} (real) and {names[1]} (fake)",
        "prob": f"{meaning(names)} in [0, 1]",
        "rank": f"the rank of {meaning(names)} as a share of the rows",
    }[output]


def hold(
    votes: pd.DataFrame, names: Names, output: Output, metric: str = ""
) -> tuple[pd.Series, Holding]:
    """Turn votes into answers, and say what they are.

    Args:
        votes: `prob` float64 P(fake) and `pred` 0/1, a row an item.
        names: how the labels are written; where 1 is real, probs and ranks are of real, too.
        output: what to hold.
        metric: what is scored; of log loss, probs are kept off 0 and 1.

    Returns:
        (n,) answers: words, probs, or ranks as shares (rank - 1/2) / n in (0, 1), where equal probs
        share their mean rank.

    Raises:
        UserError: a decision is not 0/1, a prob not in [0, 1].
    """
    n, means = len(votes), describe(output, names)
    if output == "label":
        if not votes["pred"].isin([0, 1]).all():
            raise UserError(f"a decision is not 0 or 1: {sorted(set(votes['pred']))}")
        words = votes["pred"].astype(int).map(dict(enumerate(names)))
        return words, Holding(output, means, n, words.nunique())
    check_probs(votes["prob"])
    values, clipped = votes["prob"], 0
    if output == "rank":
        values = rank_share(values)
    elif metric == LOG_LOSS:
        values, clipped = keep_off(values)
    values = 1 - values if meaning(names) == "P(real)" else values
    bounds = (float(values.min()), float(values.max())) if n else (None, None)
    return values, Holding(output, means, n, values.nunique(), *bounds, clipped)


def keep_off(prob: pd.Series) -> tuple[pd.Series, int]:
    """Return (n,) probs at least `EDGE` from 0 and 1, and how many were nearer."""
    kept = prob.clip(EDGE, 1 - EDGE)
    return kept, int((kept != prob).sum())


def rank_share(values: pd.Series) -> pd.Series:
    """Return (n,) ranks of values as shares (rank - 1/2) / n; equal ones share their mean rank."""
    return (values.rank(method="average") - 0.5) / len(values)


def check_probs(prob: pd.Series) -> None:
    """Raise a UserError for a prob that is no number from 0 to 1; names its item (the index)."""
    values: NDArray[np.float64] = prob.to_numpy(np.float64)
    wrong = ~((values >= 0) & (values <= 1))  # NaN too
    if wrong.any():
        row = int(wrong.argmax())
        raise UserError(
            f"item {prob.index[row]!r}: P(fake) is {values[row]}, want a number from 0 to 1 "
            f"({int(wrong.sum())} such of {len(prob)})"
        )
