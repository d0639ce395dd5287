"""The winner's cross-fitted decisions, scored by kind and by domain."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.ensemble.align import Aligned
from src.ensemble.rule import Votes
from src.metrics import auc, counts, f1_fake, f1_real, macro_f1_of_counts

BY = ("kind", "domain")


def break_down(aligned: Aligned, votes: Votes | None) -> dict[str, list[dict[str, Any]]]:
    """Score decisions for every kind and every domain, as far as there is more than one.

    Args:
        aligned: labels, kinds and domains of n items.
        votes: (n,) cross-fitted probs and decisions; None scores nothing.

    Returns:
        `kind` and `domain`, each where it has two values or more -> rows sorted by value:
        `value, n, fakes, macro_f1, f1_real, f1_fake, auc`. Where a class is absent, its F1,
        macro-F1 and AUC are None: they say nothing there.
    """
    if votes is None:
        return {}
    found = {by: np.unique(aligned.values(by).astype(str), return_inverse=True) for by in BY}
    return {
        by: [
            {"value": str(value), **_score(aligned.label[rows], votes.prob[rows], votes.pred[rows])}
            for value, rows in zip(values, _rows_of(code, len(values)), strict=True)
        ]
        for by, (values, code) in found.items()
        if len(values) > 1
    }


def _rows_of(code: NDArray[np.intp], n_values: int) -> list[NDArray[np.intp]]:
    """Return the rows of each of the codes 0..n_values-1, by one sort."""
    ends = np.cumsum(np.bincount(code, minlength=n_values))
    return np.split(np.argsort(code, kind="stable"), ends[:-1])


def _score(
    label: NDArray[np.int64], prob: NDArray[np.float64], pred: NDArray[np.int64]
) -> dict[str, Any]:
    c = counts(label, pred)
    fakes = int(label.sum())
    both = 0 < fakes < label.size
    return {
        "n": int(label.size),
        "fakes": fakes,
        "macro_f1": float(macro_f1_of_counts(c)) if both else None,
        "f1_real": float(f1_real(c)) if fakes < label.size else None,
        "f1_fake": float(f1_fake(c)) if fakes else None,
        "auc": auc(label, prob) if both else None,
    }
