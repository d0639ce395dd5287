"""Folds that hold out whole clusters of what the items look like to a frozen backbone.

So that a score tells of kinds of pictures that were not trained on, as a private test holds them:
what the winners of Inclusion 2024 split by (JTGroup; arXiv 2412.20833).
"""

from collections.abc import Callable
from typing import NamedTuple, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src.artifacts.clusters import Clusters, FloatArray, at_length_1, project
from src.data.folds.schemes import clusters_name
from src.errors import UserError
from src.stratify import stratified_group_folds

AXES = 32  # of the features that clusters are looked for on; 64 parted known domains less well
MOST_FOR_AXES = 20_000  # items that the axes are found from
STARTS = 10  # of k-means; the best is kept
Labels = NDArray[np.int64]


class FrozenFeatures(NamedTuple):
    """What a frozen backbone says of items."""

    features: NDArray[np.float32]  # (n, d)
    model: str  # its config
    weights_sha256: str  # of the file that its weights came from; "" where they are random


# Features of items; of a table as `Job.table`, in the order of a fold file.
FeaturesOf = Callable[[pd.DataFrame], FrozenFeatures]


def fit_clusters(
    frozen: FrozenFeatures, ids: pd.Series, group: Labels, k: int, seed: int
) -> Clusters:
    """Cluster items by k-means (Lloyd; scikit-learn's k-means++), each group as a whole.

    What is clustered is the mean of each group on the main axes, as heavy as the group is large;
    an item's cluster is that of its group.

    Args:
        frozen: features of n items, by item_id.
        ids: their item_ids.
        group: the group of each, int64 (n,).
        k: number of clusters.
        seed: of k-means.

    Raises:
        UserError: fewer groups, or fewer that differ, than clusters.
    """
    from sklearn.cluster import KMeans  # slow to import
    from sklearn.decomposition import PCA

    features = frozen.features
    _, place = np.unique(group, return_inverse=True)
    sizes = np.bincount(place)
    if len(sizes) < k:
        raise UserError(
            f"{k} clusters of {len(ids)} items in {len(sizes)} groups; want fewer clusters than "
            "groups, a quarter of them at most to be of use"
        )
    some = np.sort(np.random.default_rng(seed).permutation(len(ids))[:MOST_FOR_AXES])
    count = min(AXES, features.shape[1], len(some) - 1)
    pca = PCA(count, svd_solver="covariance_eigh").fit(at_length_1(features[some]))
    mean, axes = (_stored(np.asarray(values)) for values in (pca.mean_, pca.components_))
    parts = [on_axes for on_axes, _ in project(features, mean, axes)]
    means = np.zeros((len(sizes), count))
    np.add.at(means, place, np.concatenate(parts))
    means /= sizes[:, None]
    kinds = len(np.unique(np.round(means, 6), axis=0))
    if kinds < k:
        raise UserError(
            f"{k} clusters of {len(sizes)} groups, of which {frozen.model} tells only {kinds} "
            "apart: take fewer clusters, or features of another model (--features)"
        )
    kmeans = KMeans(k, n_init=cast(str, STARTS), random_state=seed)
    cluster = kmeans.fit_predict(means, sample_weight=sizes).astype(np.int64)[place]
    clusters = Clusters(
        frozen.model, frozen.weights_sha256, mean, axes, _stored(kmeans.cluster_centers_),
        pd.DataFrame({"item_id": ids.to_numpy(object), "cluster": cluster}),
    )  # fmt: skip
    clusters.table["distance"] = clusters.distances(features)
    return clusters


def _stored(values: FloatArray) -> FloatArray:
    """Round to float32, in which they are kept: distances are then the same when read."""
    return values.astype(np.float32).astype(np.float64)


def deal_clusters(labels: Labels, cluster: Labels, n_folds: int, seed: int, where: str) -> Labels:
    """Return the fold of each item, int64 (n,): whole clusters, both classes in each fold.

    Dealt as scikit-learn's StratifiedGroupKFold deals groups. Where that leaves a fold with one
    class, each fold begins with a cluster of both, or with one of reals and one of fakes, and the
    others go to the smallest fold in turn.

    Raises:
        UserError: no dealing gives each fold both classes; says how many folds would. `where` is
            the data set's folder.
    """
    folds = stratified_group_folds(labels, cluster, n_folds, seed)
    if all(len(np.unique(labels[folds == fold])) == 2 for fold in range(n_folds)):
        return folds
    counts = np.stack(
        [np.bincount(cluster[labels == k], minlength=cluster.max() + 1) for k in (0, 1)]
    )
    by_size = np.argsort(-counts.sum(0), kind="stable")
    both, *alone = (
        [int(j) for j in by_size if (counts[:, j] > 0).tolist() == kind]
        for kind in ([True, True], [True, False], [False, True])
    )
    cores = [[j] for j in both] + [list(pair) for pair in zip(*alone, strict=False)]
    if len(cores) < n_folds:
        raise UserError(_cannot(counts, [len(both), *map(len, alone)], n_folds, seed, where))
    fold_of = np.full(counts.shape[1], -1)
    for fold, core in enumerate(cores[:n_folds]):
        fold_of[core] = fold
    sizes = counts.sum(0)
    for j in by_size[fold_of[by_size] < 0]:
        filled = np.bincount(fold_of[fold_of >= 0], sizes[fold_of >= 0], n_folds)
        fold_of[j] = filled.argmin()
    return fold_of[cluster]


def _cannot(counts: Labels, kinds: list[int], n_folds: int, seed: int, where: str) -> str:
    """Say why no dealing fits, and what would."""
    both, reals, fakes = kinds
    most, k = both + min(reals, fakes), int((counts.sum(0) > 0).sum())
    ways = [f"more clusters (--scheme {clusters_name(2 * k, n_folds, seed)})"]
    if most > 1:
        ways.insert(0, f"fewer folds (--scheme {clusters_name(k, most, seed)})")
    return (
        f"{where}: of {k} clusters {both} hold both classes, {reals} reals alone and {fakes} fakes "
        f"alone, so at most {most} folds can hold both, and {n_folds} are asked for: take "
        f"{', '.join(ways)}, another seed, or features of another model (--features)"
    )
