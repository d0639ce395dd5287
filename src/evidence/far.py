"""Which files are far from all that was trained on, by features of a frozen backbone."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src import paths
from src.artifacts.clusters import Clusters, read_clusters
from src.artifacts.recipes import Recipe
from src.config import read_model
from src.errors import UserError
from src.inference.stored import ItemsToPredict
from src.training.features import item_features
from src.training.job import Job, Options

FARTHER_THAN = 0.99  # of the training items
CENTRES = ".clusters.safetensors"  # how the file of a scheme's centres ends


class Far(NamedTuple):
    """Files that are farther from every centre than nearly all training items."""

    names: set[str]
    words: str  # how they were found, or why nothing was looked at: for people


def far_files(
    recipe: Recipe,
    items: ItemsToPredict,
    readable: NDArray[np.bool_],
    device: str = "auto",
    workers: int | None = None,
) -> Far:
    """Look at files with the frozen backbone that a data set's clusters were made of.

    What goes wrong is said and costs no answer.

    Args:
        recipe: its scheme's clusters are taken, else those of another one of its data set.
        items: the files.
        readable: (n,) which of them can be decoded; the others are not looked at.
        device, workers: as of `Options`.
    """
    schemes = _schemes(recipe)
    if not schemes:
        return Far(set(), f"{recipe.dataset} has no clusters (python -m src folds --scheme "
                          "clusters): no file is called far")  # fmt: skip
    if not readable.any():
        return Far(set(), "no file is called far, for none could be read")
    scheme, *others = schemes
    names = np.array(items.item_ids, dtype=object)[readable]
    options = Options(device, workers=workers, track="none", report=False)
    try:
        clusters = read_clusters(recipe.dataset, scheme)
        distances = _distances(clusters, recipe.dataset, items, readable, options)
    except UserError as error:
        return Far(set(), f"no file is called far, for none could be measured: {error}")
    beyond = clusters.quantiles(distances) > FARTHER_THAN
    return Far(
        set(names[beyond]),
        f"{int(beyond.sum())} of {len(names)} files are farther from the {len(clusters)} clusters "
        f"of {scheme} than {FARTHER_THAN:.0%} of the training items"
        + (f" (not asked: {', '.join(others)})" if others else ""),
    )


def _schemes(recipe: Recipe) -> list[str]:
    """Return the schemes of the data set whose centres of clusters are kept, its own first."""
    found = paths.folds_dir(recipe.dataset).glob(f"*{CENTRES}")
    names = {path.name.removesuffix(CENTRES) for path in found}
    if paths.readable(paths.cluster_centres(recipe.dataset, recipe.scheme)).is_file():
        names.add(recipe.scheme)
    return sorted(names, key=lambda name: (name != recipe.scheme, name))


def _distances(
    clusters: Clusters,
    dataset: str,
    items: ItemsToPredict,
    readable: NDArray[np.bool_],
    options: Options,
) -> NDArray[np.float64]:
    files = np.array(items.paths, dtype=object)[readable]
    table = pd.DataFrame({"item_id": files, "path": files, "bytes": 0, "label": 0, "group": 0})
    config = read_model(clusters.model)
    job = Job(clusters.model, config, dataset, "", 0, items.root, table.assign(fold=0), options)
    frozen = item_features(job)
    if frozen.weights_sha256 != clusters.weights_sha256:
        raise UserError(f"{clusters.model} starts from other weights than those of the clusters")
    return clusters.distances(frozen.features)
