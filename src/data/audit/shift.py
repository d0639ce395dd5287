"""Which fold scheme is most like a change of data: how well held-out items are told from others.

Adversarial validation of each fold against the rest, on features of a frozen backbone.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src import paths
from src.artifacts.clusters import FloatArray, at_length_1
from src.artifacts.folds import CLUSTERS, read_folds, scheme_names
from src.data.audit.trees import Labels, cross_fit, make_splits
from src.data.folds.clusters import AXES, FeaturesOf, FrozenFeatures
from src.data.folds.groups import find_components
from src.data.folds.make import deal_folds
from src.data.folds.scan import scan_items
from src.data.folds.schemes import LODO, default_scheme, full_name, is_lodo
from src.data.items.manifest import Dataset
from src.errors import UserError
from src.metrics import auc

MOST = 4000  # items of a comparison, drawn at random where there are more
NEIGHBOURS = 25
TEST = "test"


@dataclass(frozen=True)
class SchemeShift:
    """How far the held-out items of a scheme's folds are from those that are trained on."""

    scheme: str  # its name; TEST: the test items against all train items, as one fold
    # of each fold, how well its items are told from the others: .5 by chance, 1 without a mistake;
    # NaN where it holds too few groups to tell
    aucs: tuple[float, ...]
    is_made: bool  # its fold file is there
    refused: str = ""  # why such folds cannot be made; "" where they can

    @property
    def mean(self) -> float:
        """The mean over the folds that can be told; NaN where there are none."""
        known = [area for area in self.aucs if not np.isnan(area)]
        return float(np.mean(known)) if known else float("nan")

    @property
    def silent(self) -> list[int]:
        """Folds that hold too few groups to tell."""
        return [fold for fold, area in enumerate(self.aucs) if np.isnan(area)]


def compare_schemes(dataset: Dataset, features_of: FeaturesOf, seed: int = 0) -> list[SchemeShift]:
    """Say of each scheme that is there, or could be made, how well its held-out items are told.

    Folds that are not made are dealt as they would be, and not written. The order is that of the
    means, highest first; the test items, where there are any, come last.

    Raises:
        UserError: no train item can be read; see `FeaturesOf`.
    """
    made = scheme_names(dataset.name)
    rows = _trained_rows(dataset, made)
    train, known = features_of(rows), pd.Index(rows["item_id"])
    test_rows = _test_rows(dataset)
    features = train.features
    if len(test_rows):
        features = np.concatenate([features, features_of(test_rows).features])
    seen, group = main_axes(features), _components(dataset, rows, test_rows)

    def again(table: pd.DataFrame) -> FrozenFeatures:
        """Return the features of some of the train items."""
        return train._replace(
            features=train.features[known.get_indexer(pd.Index(table["item_id"]))]
        )

    found: list[SchemeShift] = []
    could = [default_scheme(dataset), LODO, full_name(dataset, CLUSTERS)]
    for scheme in dict.fromkeys([*made, *could]):
        try:
            if scheme in made:
                folds = read_folds(paths.folds_csv(dataset.name, scheme))
            else:
                folds = deal_folds(dataset, scheme, again).folds
        except UserError as error:
            found.append(SchemeShift(scheme, (), is_made=False, refused=str(error)))
            continue
        at = known.get_indexer(pd.Index(folds["item_id"]))
        fold, there = folds["fold"].to_numpy(np.int64)[at >= 0], at[at >= 0]
        told_by_fold = tuple(
            told(seen[there], fold == k, group[there], seed) for k in range(int(fold.max()) + 1)
        )
        found.append(SchemeShift(scheme, told_by_fold, is_made=scheme in made))
    found.sort(key=lambda one: -np.nan_to_num(one.mean))
    if len(test_rows):
        area = told(seen, np.arange(len(seen)) >= len(rows), group, seed)
        found.append(SchemeShift(TEST, (area,), is_made=True))
    return found


def _trained_rows(dataset: Dataset, made: list[str]) -> pd.DataFrame:
    """Return the train items as a run has them (`Job.table`), so that features are shared.

    A fold file of the schemes `made` says which; `lodo` may leave some out.
    """
    whole = next((scheme for scheme in made if not is_lodo(scheme)), None)
    if whole is None:
        folds = deal_folds(dataset, default_scheme(dataset)).folds
    else:
        folds = read_folds(paths.folds_csv(dataset.name, whole))
    folds = folds[["item_id", "label", "group"]].assign(fold=-1)
    return folds.merge(dataset.train[["item_id", "path", "bytes"]], on="item_id").sort_values(
        "item_id", kind="stable", ignore_index=True
    )


def _test_rows(dataset: Dataset) -> pd.DataFrame:
    """Return the test items that can be read, as `Job.table`; of their labels nothing is known."""
    scan = scan_items(dataset)
    good = ((scan["error"] == "") & (scan["split"] == "test")).to_numpy()
    rows = dataset.items.loc[good, ["item_id", "path", "bytes"]].reset_index(drop=True)
    return rows.assign(label=0, group="", fold=-1)


def _components(dataset: Dataset, train: pd.DataFrame, test: pd.DataFrame) -> Labels:
    """Return which of these items, train then test, are copies or of one origin: int64 (n,)."""
    paths_seen = pd.Index([*train["path"], *test["path"]])
    at = pd.Index(dataset.items["path"]).get_indexer(paths_seen)
    scan, given = scan_items(dataset).iloc[at], dataset.items["group"].iloc[at]
    return find_components(scan.reset_index(drop=True), given.reset_index(drop=True)).joint


def main_axes(features: NDArray[np.floating]) -> FloatArray:
    """Return features (n, d) at length 1 on their main axes, each with a spread of 1: (n, p)."""
    from sklearn.decomposition import PCA  # slow to import

    count = min(AXES, features.shape[1], len(features) - 1)
    pca = PCA(count, whiten=True, svd_solver="covariance_eigh")
    return pca.fit_transform(at_length_1(features))


def told(seen: FloatArray, inside: NDArray[np.bool_], group: Labels, seed: int) -> float:
    """Return the AUC by which items inside a fold are told from the others, cross-fitted by group.

    The model asks the nearest neighbours: what is held out may be several patches of the space,
    which no plane parts, and boosted trees found no more in ten times the time. NaN where a side
    has fewer than two groups.

    Args:
        seen: (n, p) of `main_axes`.
        inside: which items are held out.
        group: of each item; no group is both asked for and answers.
        seed: of the draw of items, and of the parts.
    """
    some = np.sort(np.random.default_rng(seed).permutation(len(seen))[:MOST])
    side, group = inside[some].astype(np.int64), group[some]
    if len(np.unique(side)) < 2 or not (splits := make_splits(side, group, seed)):
        return float("nan")
    scored = np.sort(np.concatenate([held for _, held in splits]))
    prob, _ = cross_fit(_neighbours, seen[some], side, splits)
    return auc(side[scored], prob[scored])


def _neighbours(seen: FloatArray, side: Labels) -> object:
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier(min(NEIGHBOURS, len(seen)), weights="distance").fit(seen, side)
