"""Cards as lines of a table: side by side for people, a record a score for a CSV."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from src.reporting.scorecard import Card, Score

MOST_ATTACKS = 20  # kinds, the worst ones
IN_PAPERS = ("macro_f1", "accuracy", "auc", "ap", "eer", "hter")


def table_of(columns: Sequence[tuple[str, Card]], names: tuple[str, str]) -> list[list[str]]:
    """Return a column a card under its title, a line a metric; `names` are those of the labels."""
    cards, (real, fake) = [card for _, card in columns], names
    return [
        ["", *(title for title, _ in columns)],
        ["level", *(card.level for card in cards)],
        ["rows", *(f"{c.items} ({c.reals} {real}, {c.fakes} {fake})" for c in cards)],
        ["groups", *(str(card.groups) for card in cards)],
        *([key, *_cells(cards, key)] for key in _keys(cards)),
    ]


def _keys(cards: Sequence[Card]) -> list[str]:
    """Return the metrics in order, kinds of attack below that of the worst."""
    attacks = [key for card in cards for key in card.scores if key.startswith("apcer[")]
    attacks = list(dict.fromkeys(attacks))
    plain = [key for key in cards[0].scores if not key.startswith("apcer[")]
    place = plain.index("apcer") + 1
    kept = sorted(attacks, key=lambda key: -_worst(cards, key))[:MOST_ATTACKS]
    return [*plain[:place], *(key for key in attacks if key in kept), *plain[place:]]


def _cells(cards: Sequence[Card], key: str) -> list[str]:
    return [cell(card.scores[key]) if key in card.scores else "" for card in cards]


def _worst(cards: Sequence[Card], key: str) -> float:
    values = [card.scores[key].value for card in cards if key in card.scores]
    return max((value for value in values if not math.isnan(value)), default=0.0)


def cell(score: Score) -> str:
    """Return a score as text: value, interval; `-` where it is undefined, `*` where limited."""
    if math.isnan(score.value):
        return "-"
    text = f"{score.value:.4f}" + ("*" if score.why else "")
    return text if math.isnan(score.low) else f"{text} [{score.low:.4f}, {score.high:.4f}]"


def mean_of(scores: Iterable[Score | None]) -> float:
    """Return the plain mean of the scores that are defined; NaN where none is."""
    values = [score.value for score in scores if score is not None and not math.isnan(score.value)]
    return sum(values) / len(values) if values else math.nan


def mean_words(cards: Sequence[Card]) -> list[str]:
    """Return `auc 0.9123` of the plain mean over some cards, of the metrics that papers print."""
    means = {name: mean_of(card.scores[name] for card in cards) for name in IN_PAPERS}
    return [f"{name} {mean:.4f}" for name, mean in means.items() if not math.isnan(mean)]


def reasons(card: Card) -> list[str]:
    """Return why some metrics are undefined or limited, the metrics of one reason together."""
    found: dict[str, list[str]] = {}
    for key, score in card.scores.items():
        if score.why:
            mark = "-" if math.isnan(score.value) else "*"
            found.setdefault(f"{mark} ({score.why})", []).append(key)
    return [f"{mark}: {', '.join(keys)}" for mark, keys in found.items()]


def records(card: Card) -> list[dict[str, Any]]:
    """Return a record a score for a CSV; an undefined one is NaN, its note says why."""
    counted = ("level", "by", "value", "items", "reals", "fakes", "groups")
    head = {name: getattr(card, name) for name in counted}
    return [
        head
        | {"metric": metric, "score": score.value, "low": score.low, "high": score.high}
        | {"note": "; ".join([*([score.why] if score.why else []), *card.notes])}
        for metric, score in card.scores.items()
    ]
