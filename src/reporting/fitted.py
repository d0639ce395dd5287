"""The score that a rule was tuned for, as tuning said it and as it stands on a card."""

import math
from typing import Any, NamedTuple

from src.reporting.card_table import cell
from src.reporting.evaluated import Rows, Subject
from src.reporting.scorecard import Card, Score

SAME = 1e-9  # two scores of the same decisions are no farther apart


class Fitted(NamedTuple):
    """What is said of the score that a rule was fitted for."""

    notes: list[str]
    wider: bool = False  # whether its interval is that of tuning


def how_fitted(subject: Subject, cards: dict[Rows, list[Card]]) -> Fitted:
    """Say the score that a rule was fitted for, first as others than its own rows give it.

    Where it is what tuning found, the card has tuning's interval from then on.
    """
    if subject.tuned is None:
        return Fitted([])
    scores, metric = subject.tuned.scores, subject.metric
    crossfitted = subject.crossfitted is not None
    same = crossfitted and _as_tuned(cards, metric, scores)
    found = {rows.how: group[0] for rows, group in cards.items() if rows.how}
    said = [f"{how} {cell(card.scores[metric])}" for how, card in found.items()]
    if crossfitted:
        said[0] += " (each part of the rows decided by what was fitted on the others)"
    else:
        said[0] += " (fitted on these very rows, which flatters)"
    notes = [f"{metric}: {'; '.join(said)}"]
    stated = scores.get("cross_fitted")
    if stated is None:
        notes.append("nothing could be cross-fitted: there were too few groups")
    elif not same:
        low, high = scores.get("interval") or (math.nan, math.nan)
        words = cell(Score(stated, low, high))
        notes.append(
            f"tune.py's own cross-fitted {metric} is {words}: {_why_other(subject, cards)}"
        )
    return Fitted(notes, wider=same and scores["interval"] is not None)


def _why_other(subject: Subject, cards: dict[Rows, list[Card]]) -> str:
    """Say why the score of tuning is not the one that stands here."""
    assert subject.tuned is not None
    if next(iter(cards.values()))[0].items != subject.tuned.scores["rows"]:
        return f"that one is of {subject.tuned.scores['rows']} rows"
    if subject.crossfitted is not None:
        return "there other logits stood in for those of merges that were chosen on these rows"
    if not subject.is_recipe:
        return "there other models decided some parts of the rows (--recipe shows them)"
    return "its parts cannot be told again, for their number of rows or members is another"


def _as_tuned(cards: dict[Rows, list[Card]], metric: str, scores: dict[str, Any]) -> bool:
    """Put the interval of tuning in place where the first card's score is the cross-fitted one.

    It holds the choice among candidates and what folds differ by, which draws of rows do not know.

    Args:
        cards: as from `score_all`; changed in place.
        metric: that was tuned for.
        scores: of the recipe.

    Returns:
        Whether it is that score: not of some of the folds alone, or of other logits.
    """
    card, stated = next(iter(cards.values()))[0], scores.get("cross_fitted")
    found = card.scores[metric]
    if stated is None or card.items != scores.get("rows"):
        return False
    if not abs(found.value - stated) <= SAME:
        return False
    if scores["interval"] is not None:
        low, high = scores["interval"]
        card.scores[metric] = found._replace(low=low, high=high)
    return True
