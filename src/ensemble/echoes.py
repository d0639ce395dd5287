"""Members that say the same: one model twice, or a merge that is one of its ingredients."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from src.artifacts.runs import has_run, read_run
from src.errors import UserError

SAME = 1 - 1e-7  # correlation of logits (or its opposite) above which two members are one


def check_members(models: list[str], logits: NDArray[np.float64]) -> None:
    """Raise a UserError for two members that are one, or more members than items.

    Args:
        models: the members.
        logits: (n, n_models).
    """
    if len(models) > len(logits):
        raise UserError(
            f"{len(models)} members for {len(logits)} items: nothing can be tuned on fewer items "
            "than members; train more folds, or choose members with --models"
        )
    for model, other in _twins(models, logits):
        rest = " ".join(one for one in models if one != model)
        raise UserError(
            f"the predictions of {model!r} equal those of {other!r} but for their scale: one model "
            f"twice; leave one out: --models {rest}"
        )


def _twins(models: list[str], logits: NDArray[np.float64]) -> Iterator[tuple[str, str]]:
    """Yield pairs of members that say the same but for the scale."""
    for place, model in enumerate(models):
        for other in range(place):
            if abs(np.corrcoef(logits[:, place], logits[:, other])[0, 1]) > SAME:
                yield model, models[other]


def find_echoes(
    dataset: str, scheme: str, models: list[str], folds: Sequence[int], logits: NDArray[np.float64]
) -> list[tuple[str, str]]:
    """Return merges that turned out to be another member, such as a greedy soup of one.

    Args:
        dataset, scheme: whose.
        models: the members.
        folds: those of the logits.
        logits: (n, n_models).

    Returns:
        (merge, the member that it is) of each.
    """
    if len(models) > len(logits):
        return []  # refused anyway
    found: dict[str, str] = {}
    for pair in _twins(models, logits):
        if found.keys().isdisjoint(pair):
            merge = next((one for one in pair if _is_merge(dataset, scheme, one, folds)), None)
            if merge is not None:
                found[merge] = pair[1] if merge == pair[0] else pair[0]
    return list(found.items())


def _is_merge(dataset: str, scheme: str, model: str, folds: Sequence[int]) -> bool:
    names = (dataset, scheme, model, folds[0])
    return has_run(*names) and bool(read_run(*names)["merged_from"])
