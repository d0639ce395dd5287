"""Members that have finished different folds: what can be tuned, what fewer members would win."""

from collections.abc import Sequence

import numpy as np

from src.ensemble.align import Aligned
from src.ensemble.crossfit import Tried, can_weigh
from src.ensemble.search import STRATEGIES
from src.errors import UserError

MOST = 2  # choices of members that are offered


def tunable(names: Sequence[str], aligned: Aligned) -> list[str]:
    """Return the strategies that can be fitted: those that learn weights want items of all members.

    Raises:
        UserError: none of them.
    """
    if can_weigh(aligned):
        return list(names)
    found = [name for name in names if not STRATEGIES.get(name).weighs]
    if not found:
        raise UserError(f"{', '.join(names)}: {line_on_weights(aligned)}")
    return found


def ragged_notes(aligned: Aligned, winner: Tried) -> list[str]:
    """Return lines on what the members' different folds cost, none where they are the same."""
    if aligned.complete.all():
        return []
    lines = [line_on_weights(aligned)]
    if winner.decided < len(aligned):
        models = [m for m, say in zip(aligned.models, winner.rule.used(), strict=True) if say]
        lines.append(
            f"{winner.name} can decide {winner.decided} of {len(aligned)} items, on the others the "
            f"plain mean is scored; --models {' '.join(models)} scores these alone"
        )
    return lines


def line_on_weights(aligned: Aligned) -> str:
    """Say on which items weights are learned, and which members alone have more in common."""
    complete = int(aligned.complete.sum())
    n = len(aligned.models)
    if can_weigh(aligned):
        text = (
            f"weights are learned on the {complete} of {len(aligned)} items that all {n} members "
            "predicted, thresholds on all"
        )
    elif complete:
        text = f"all {n} members predicted items of one class alone, so no weights are learned"
    else:
        text = f"no item was predicted by all {n} members, so no weights are learned"
    return text + "".join(f"; {offer}" for offer in _offers(aligned, complete))


def _offers(aligned: Aligned, complete: int) -> list[str]:
    """Say which members alone have more items in common, the most items first."""
    folds = {model: frozenset(aligned.folds_of(model)) for model in aligned.models}
    found: dict[tuple[str, ...], tuple[int, str]] = {}
    for common in sorted(set(folds.values()), key=sorted):
        models = tuple(model for model, have in folds.items() if common <= have)
        items = int(np.isin(aligned.fold, list(common)).sum())
        if len(models) > 1 and items > complete:
            numbers = " ".join(map(str, sorted(common)))
            where = f"{items} (fold{'s' * (len(common) > 1)} {numbers})"
            found[models] = max(found.get(models, (0, "")), (items, where))
    best = sorted(found.items(), key=lambda one: -one[1][0])[:MOST]
    return [f"--models {' '.join(models)} would have {where}" for models, (_, where) in best]
