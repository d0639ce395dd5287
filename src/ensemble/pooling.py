"""From the logits of an item's frames to one logit: pooling, a stage of the recipe.

Views of one frame (its mirror image) are averaged first, in logits. An item of one frame, such as
an image, keeps that logit bit for bit, whatever the pooling.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src.registry import Registry

FloatArray = NDArray[np.float64]
# (frames,) float64 logits of one item, 2 or more -> its logit.
Pooling = Callable[[FloatArray], float]
POOLING: Registry[Pooling] = Registry("pooling")
DEFAULT = "mean_prob"  # as in `FramesConfig`
TOP_SHARE = 0.25  # of the frames
TRIM_SHARE = 0.2  # of the frames, at either end


@POOLING.register("mean_prob")
def mean_prob(logits: FloatArray) -> float:
    """Return the logit of the mean probability: most published detectors' verdict on a clip."""
    # In logarithms: a prob that rounds to 1 would have no logit.
    fake, real = -np.logaddexp(0.0, -logits), -np.logaddexp(0.0, logits)
    return float(np.logaddexp.reduce(fake) - np.logaddexp.reduce(real))


@POOLING.register("mean_logit")
def mean_logit(logits: FloatArray) -> float:
    """Return the mean logit: the geometric mean of the odds."""
    return float(logits.mean())


@POOLING.register("top_k_mean")
def top_k_mean(logits: FloatArray) -> float:
    """Return the mean logit of the quarter of frames (one at least) that look most fake."""
    count = max(1, round(TOP_SHARE * logits.size))
    return float(np.sort(logits)[-count:].mean())


@POOLING.register("trimmed_mean")
def trimmed_mean(logits: FloatArray) -> float:
    """Return the mean logit without the fifth of frames at either end."""
    cut = int(TRIM_SHARE * logits.size)
    return float(np.sort(logits)[cut : logits.size - cut].mean())


@POOLING.register("max")
def largest(logits: FloatArray) -> float:
    """Return the largest logit: one fake frame makes a fake clip."""
    return float(logits.max())


@POOLING.register("median")
def median(logits: FloatArray) -> float:
    """Return the median logit."""
    return float(np.median(logits))


def pool_frames(logits: FloatArray, item: NDArray[np.int64], n: int, name: str) -> FloatArray:
    """Pool frames by item.

    Args:
        logits: float64 (n_frames,), one a frame: its views' mean.
        item: int64 (n_frames,), 0..n-1, ascending.
        n: number of items.
        name: in `POOLING`.

    Returns:
        float64 (n,), NaN for an item without a frame.

    Raises:
        UserError: an unknown pooling.
    """
    pool = POOLING.get(name)
    counts = np.bincount(item, minlength=n)
    starts = np.cumsum(counts) - counts
    pooled = np.full(n, np.nan)
    alone = counts == 1
    pooled[alone] = logits[starts[alone]]
    for one in np.flatnonzero(counts > 1):
        pooled[one] = pool(logits[starts[one] : starts[one] + counts[one]])
    return pooled


def frame_of(view: str) -> str:
    """Return the frame that a view is of: `f03` of `f03+flip`."""
    return view.partition("+")[0]


def pool_table(views: pd.DataFrame, name: str) -> pd.Series:
    """Pool one model's views of items, each predicted by one fold.

    Args:
        views: `item_id, view, logit`, each item and view once.
        name: in `POOLING`.

    Returns:
        float64 logits by item_id, sorted.
    """
    frames = views["view"].map({view: frame_of(view) for view in views["view"].unique()})
    by_frame = views.groupby([views["item_id"], frames], sort=True)["logit"].mean()
    ids, item = np.unique(
        by_frame.index.get_level_values(0).to_numpy(dtype=object), return_inverse=True
    )
    pooled = pool_frames(by_frame.to_numpy(np.float64), item.astype(np.int64), len(ids), name)
    return pd.Series(pooled, pd.Index(ids, name="item_id"), dtype="float64")
