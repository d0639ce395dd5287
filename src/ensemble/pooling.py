"""From the logits of an item's frames to one logit: pooling, a stage of the recipe.

Views of one frame (its mirror image) are averaged first, in logits. An item of one frame, such as
an image, keeps that logit bit for bit, whatever the pooling. The stage is chosen from the members'
logits under every pooling.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src import paths
from src.artifacts.oof import MIRRORED, read_views
from src.artifacts.runs import check_views, has_run, read_run
from src.ensemble.extra import is_extra
from src.errors import UserError
from src.registry import Registry

FloatArray = NDArray[np.float64]
# (frames,) float64 logits of one item, 2 or more -> its logit.
Pooling = Callable[[FloatArray], float]
POOLING: Registry[Pooling] = Registry("pooling")
DEFAULT = "mean_prob"  # as in `FramesConfig`
TOP_SHARE = 0.25  # of the frames
TRIM_SHARE = 0.2  # of the frames, at either end
SAME = 1e-6  # between a pooled logit in the CSV and the one of its views


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
    return float(_most_fake(logits).mean())


@POOLING.register("top_k_median")
def top_k_median(logits: FloatArray) -> float:
    """Return the median logit of the quarter of frames (one at least) that look most fake.

    Of 16 frames those of the four highest, as the winner of the HAI challenge 2025 has it (there of
    probabilities): one frame that is wrong by far moves a mean, and not this.
    """
    return float(np.median(_most_fake(logits)))


def _most_fake(logits: FloatArray) -> FloatArray:
    count = max(1, round(TOP_SHARE * logits.size))
    return np.sort(logits)[-count:]


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
    """Pool frames by item: float64 (n,), NaN for an item without a frame.

    Args:
        logits: float64 (n_frames,), one a frame: its views' mean.
        item: int64 (n_frames,), 0..n-1, ascending.
        n: number of items.
        name: in `POOLING`.

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
    """Return float64 logits by item_id, sorted, of one model's views of items in one fold.

    `views`: `item_id, view, logit`, each item and view once.
    """
    frames = views["view"].map({view: frame_of(view) for view in views["view"].unique()})
    by_frame = views.groupby([views["item_id"], frames], sort=True)["logit"].mean()
    ids, item = np.unique(
        by_frame.index.get_level_values(0).to_numpy(dtype=object), return_inverse=True
    )
    pooled = pool_frames(by_frame.to_numpy(np.float64), item.astype(np.int64), len(ids), name)
    return pd.Series(pooled, pd.Index(ids, name="item_id"), dtype="float64")


def read_plain_views(
    dataset: str, scheme: str, model: str, folds: Sequence[int]
) -> tuple[pd.DataFrame, str] | None:
    """Return a member's views without mirror images, and its own pooling; None where it has none.

    Raises:
        UserError: its stored views are gone, or not those of its run.
    """
    there = [fold for fold in folds if has_run(dataset, scheme, model, fold)]
    runs = [read_run(dataset, scheme, model, fold) for fold in there]
    if not any(run["config"]["tta"] == "flip" for run in runs):
        return None
    found = [read_views(check_views(run)) for run in runs]
    table = pd.concat([views for views, _ in found], ignore_index=True)
    plain = table[~table["view"].str.endswith(MIRRORED)]
    return plain, str(found[0][1].get("pool", DEFAULT))


@dataclass(frozen=True)
class Pooled:
    """What the members' logits are under each pooling."""

    # one a member: the pooling of its OOF CSV; "" for one without views (an extra member), whose
    # logits are the same under every pooling. Empty where no item can have several frames or faces.
    defaults: tuple[str, ...] = ()
    # pooling -> (n, m) float64, rows and columns as `Aligned.logit`
    logits: dict[str, FloatArray] = field(default_factory=dict)

    def names(self, pool: str) -> tuple[str, ...]:
        """Return the members' poolings where those that have a choice take `pool` ("": theirs)."""
        return tuple((pool or own) if own else "" for own in self.defaults)


def show_everyone(dataset: str, scheme: str, folds_of: Mapping[str, Sequence[int]]) -> bool:
    """Tell from the run records whether a member judges every face of an item by itself.

    `folds_of`: model -> its folds. Then an image, too, may have several views to pool. Views
    themselves are not read for it.
    """
    for model, folds in folds_of.items():
        for fold in folds:
            if not has_run(dataset, scheme, model, fold):  # a member from elsewhere
                continue
            config = read_run(dataset, scheme, model, fold)["config"]
            crop = config.get("input", {}).get("crop")
            if crop == "face" and config.get("face", {}).get("which") == "all":
                return True
    return False


def read_pooled(
    dataset: str,
    scheme: str,
    folds_of: Mapping[str, Sequence[int]],
    ids: NDArray[np.object_],
    logits: FloatArray,
) -> Pooled:
    """Read the members' views of (n,) items and pool them in every way there is.

    `folds_of`: member -> its folds; `logits` (n, m) are those of the OOF CSVs, NaN elsewhere.

    Raises:
        UserError: views that do not belong to the CSV beside them.
    """
    found = {pool: logits.copy() for pool in POOLING}
    defaults = []
    for column, (model, folds) in enumerate(folds_of.items()):
        names = (paths.oof_views(dataset, scheme, model, fold) for fold in folds)
        views = [paths.readable(path) for path in names]
        for path, fold in zip(views, folds, strict=True):
            if path.is_file() and has_run(dataset, scheme, model, fold):
                check_views(read_run(dataset, scheme, model, fold))
        if is_extra(dataset, scheme, model) or not all(path.is_file() for path in views):
            defaults.append("")
            continue
        tables, metadata = zip(*(read_views(path) for path in views), strict=True)
        defaults.append(str(metadata[0].get("pool", DEFAULT)))
        table = pd.concat(tables, ignore_index=True)
        for pool, rows in found.items():
            rows[:, column] = pool_table(table, pool).reindex(ids).to_numpy()
        pooled, stored = found[defaults[-1]][:, column], logits[:, column]
        same = np.abs(pooled - stored) <= SAME * np.maximum(1.0, np.abs(stored))
        same |= np.isnan(pooled) & np.isnan(stored)
        if not same.all():
            item = ids[int((~same).argmax())]
            raise UserError(
                f"{views[0]} and its like do not belong to the CSVs beside them (item {item!r}): "
                "delete them to tune without a pooling stage, or train those folds again "
                "(--overwrite)"
            )
    return Pooled(tuple(defaults), found) if any(defaults) else Pooled()
