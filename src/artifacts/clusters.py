"""The clusters of a data set's items by frozen features, kept beside the fold file made of them.

They also tell how far a new picture is from everything that was trained on.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src import paths
from src.artifacts.atomic import atomic_path
from src.artifacts.files import check_unique, parse_column, read_csv, write_csv
from src.errors import UserError

COLUMNS = ["item_id", "cluster", "distance"]
ARRAYS = ("mean", "axes", "centres")
AT_ONCE = 8192  # items whose features are in memory as float64

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Clusters:
    """k centres among the features of a frozen backbone, and the items that they are of.

    A feature vector is brought to length 1 first. Its direction says what is seen; its length
    grows with contrast, which compression changes. Centres lie on the main axes of the training
    items, for k-means finds little in a thousand dimensions; a distance counts what is off these
    axes too, since what is new there is new.
    """

    model: str  # whose frozen backbone it was
    weights_sha256: str  # of the file that its weights came from; "" where they are random
    mean: FloatArray  # (d,) of the training items' features, at length 1
    axes: FloatArray  # (p, d) of length 1, at right angles to each other
    centres: FloatArray  # (k, p) on these axes
    # `item_id, cluster, distance` of the items that are scored, by item_id: int64, that of its
    # group; float64, to the nearest centre
    table: pd.DataFrame

    def __len__(self) -> int:
        """Return the number of clusters."""
        return len(self.centres)

    def distances(self, features: NDArray[np.floating]) -> FloatArray:
        """Return how far items are from the nearest centre, float64 (n,), 0 to 2.

        Args:
            features: (n, d) of the same backbone (`src.training.features.item_features`).

        Raises:
            UserError: features of another length: another backbone's.
        """
        if features.ndim != 2 or features.shape[1] != len(self.mean):
            raise UserError(
                f"features of {self.model} are {len(self.mean)} numbers an item, these have the "
                f"shape {features.shape}: take the same model"
            )
        found = [np.empty(0)]
        for place, off in project(features, self.mean, self.axes):
            to_centres = ((place[:, None] - self.centres) ** 2).sum(2)
            found.append(np.sqrt(to_centres.min(1) + off))
        return np.concatenate(found)

    def quantiles(self, distances: FloatArray) -> FloatArray:
        """Return the share of training items that are no farther than each distance, (n,) 0..1.

        At .99 an item is farther from all centres than 99 of 100 training items.
        """
        known = np.sort(self.table["distance"].to_numpy(np.float64))
        return np.searchsorted(known, distances, side="right") / len(known)


def project(
    features: NDArray[np.floating], mean: FloatArray, axes: FloatArray
) -> Iterator[tuple[FloatArray, FloatArray]]:
    """Yield features (n, d) part by part: where they lie on the axes, (m, p), and (m,) how far off.

    The second is the square of what no axis holds.
    """
    for first in range(0, len(features), AT_ONCE):
        moved = at_length_1(features[first : first + AT_ONCE]) - mean
        place = moved @ axes.T
        yield place, np.maximum((moved**2).sum(1) - (place**2).sum(1), 0.0)


def at_length_1(features: NDArray[np.floating]) -> FloatArray:
    """Return features (n, d) as float64 of length 1; one of length 0 stays what it is."""
    wide = np.asarray(features, np.float64)
    return wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)


def write_clusters(dataset: str, scheme: str, clusters: Clusters) -> None:
    """Write what `read_clusters` reads: centres as safetensors, items as CSV."""
    from safetensors.numpy import save

    # safetensors writes memory as it lies (`findings/safetensors_numpy_writes_memory_order.sh`).
    arrays = {k: np.ascontiguousarray(getattr(clusters, k), np.float32) for k in ARRAYS}
    origin = {"model": clusters.model, "weights_sha256": clusters.weights_sha256}
    with atomic_path(paths.cluster_centres(dataset, scheme)) as temporary:
        temporary.write_bytes(save(arrays, {"clusters": json.dumps(origin)}))
    write_csv(paths.clusters_csv(dataset, scheme), clusters.table[COLUMNS])


def read_clusters(dataset: str, scheme: str) -> Clusters:
    """Read the clusters of a fold file; float32 on the disk.

    Raises:
        UserError: a file is missing or damaged, or the two do not belong together.
    """
    arrays, origin = _read_centres(paths.readable(paths.cluster_centres(dataset, scheme)))
    path = paths.readable(paths.clusters_csv(dataset, scheme))
    table = read_csv(path, COLUMNS, what="list of clusters")
    check_unique(table, "item_id", path)
    table["cluster"] = parse_column(table, "cluster", int, path)
    table["distance"] = parse_column(table, "distance", float, path)
    high = table["cluster"].to_numpy(np.int64)
    if high.min(initial=0) < 0 or high.max(initial=0) >= len(arrays["centres"]):
        raise UserError(f"{path}: cluster {high.max()}, and there are {len(arrays['centres'])}")
    mean, axes, centres = (arrays[name] for name in ARRAYS)
    return Clusters(origin["model"], origin["weights_sha256"], mean, axes, centres, table)


def _read_centres(path: Path) -> tuple[dict[str, FloatArray], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            origin = json.loads(file.metadata()["clusters"])
            arrays = {name: file.get_tensor(name).astype(np.float64) for name in ARRAYS}
        return arrays, cast("dict[str, str]", origin)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: no centres of clusters ({error}); folds stand without them, and what asks "
            "how far a picture is needs folds under another name: another seed"
        ) from None
