"""What a file tells about its label without its pixels: size, format, shape."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src.data.items.manifest import Dataset
from src.metrics import auc

WORTH_A_WARNING = 0.75
_FOLDS = 5


@dataclass(frozen=True)
class Shortcut:
    """A property of files that tells labels apart."""

    name: str  # for people
    auc: float  # area under the ROC curve with that property alone, >= 0.5


def find_shortcuts(
    dataset: Dataset, scan: pd.DataFrame, at_least: float = WORTH_A_WARNING
) -> list[Shortcut]:
    """Return the properties of train files whose AUC is at least `at_least`, the best first.

    A kind (format, width x height) is scored by its share of fakes in the other folds.
    """
    use = (
        (scan["split"] == "train") & (scan["error"] == "") & (scan["format"] != "video")
    ).to_numpy()
    labels = dataset.items["label"][use].to_numpy(np.int64)
    if len(labels) == 0 or np.bincount(labels, minlength=2).min() < _FOLDS:
        return []
    size = dataset.items["bytes"][use].to_numpy(float)
    shape = scan["width"][use].astype(str) + "x" + scan["height"][use].astype(str)
    scores = {
        "the size in bytes": size,
        "the format": _share_of_fakes(scan["format"][use], labels),
        "width x height": _share_of_fakes(shape, labels),
    }
    aucs = {name: auc(labels, score) for name, score in scores.items()}
    found = [Shortcut(name, max(area, 1 - area)) for name, area in aucs.items()]
    found = [shortcut for shortcut in found if shortcut.auc >= at_least]
    return sorted(found, key=lambda shortcut: -shortcut.auc)


def _share_of_fakes(kinds: pd.Series, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return for each item the share of fakes of its kind, counted in the other folds."""
    names = kinds.to_numpy(str)
    fold = np.empty(len(labels), np.int64)
    for label in (0, 1):  # in turn, so that every fold has both classes
        members = np.random.default_rng(0).permutation(np.flatnonzero(labels == label))
        fold[members] = np.arange(len(members)) % _FOLDS
    scores = np.empty(len(labels))
    for held_out in (fold == k for k in range(_FOLDS)):
        shares = pd.Series(labels[~held_out]).groupby(names[~held_out]).mean()
        scores[held_out] = shares.reindex(names[held_out]).fillna(labels[~held_out].mean())
    return scores
