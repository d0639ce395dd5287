"""Predicted and labelled rows: items, or groups of them; by domain, by manipulation, by kind."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src import metrics, scores
from src.data.items.identities import video_of_frame

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Names = NDArray[np.object_]
BY = ("domain", "manipulation", "kind")
NO_NAME = "(none)"  # a domain of which nothing is known


@dataclass(frozen=True)
class Rows:
    """Predicted and labelled items, or groups of them."""

    label: IntArray  # (n,) int64
    prob: FloatArray  # (n,) float64 P(fake)
    logit: FloatArray  # (n,) float64, its log odds
    threshold: FloatArray  # (n,) float64, what the prob of each is held against
    pred: IntArray  # (n,) int64
    group: IntArray  # (n,) int64 codes
    clip: IntArray  # (n,) int64 codes, see `clips_of`
    fold: IntArray  # (n,) int64
    domain: Names  # (n,) str objects
    kind: Names  # (n,) str objects
    # (n,) int64 decisions at cuts that other rows chose; None where there are none
    dev: IntArray | None = None

    def __len__(self) -> int:
        return self.label.size

    def take(self, mask: NDArray[np.bool_] | NDArray[np.intp]) -> "Rows":
        """Return some rows."""
        columns: dict[str, Any] = {k: v[mask] for k, v in vars(self).items() if v is not None}
        return Rows(**columns)


def clips_of(item_ids: Names, group: IntArray, kind: Names) -> IntArray:
    """Return (n,) codes of what counts as one clip: the images of one group in one folder.

    A group may be wider than a video (both people of a face swap, all that look alike), but the
    frames of a video lie in a folder of their own, or are called so (`<video>_frame<number>`). An
    item of kind `video` is a clip by itself.
    """
    names = [
        str(item) if what == "video" else _video_of(str(item))
        for item, what in zip(item_ids, kind, strict=True)
    ]
    place = np.unique(np.array(names), return_inverse=True)[1]
    pairs = np.stack([group, place], axis=1)
    return np.unique(pairs, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)


def _video_of(item_id: str) -> str:
    folder, _, name = item_id.rpartition("/")
    stem = name.rpartition(".")[0] or name
    video = video_of_frame(stem)
    return f"{folder}/{video}" if video else folder


def pool_groups(rows: Rows) -> Rows:
    """Pool items of one clip, label, domain and kind into one row by the mean of their probs.

    A video's frames become a verdict on the video. Reals and fakes of one clip stay apart, and so
    do fakes of several manipulations. The development decisions are not kept.
    """
    keys = [rows.clip, rows.label, rows.fold]
    keys += [np.unique(v.astype(str), return_inverse=True)[1] for v in (rows.domain, rows.kind)]
    _, first, unit, size = np.unique(
        np.stack(keys, axis=1), axis=0, return_index=True, return_inverse=True, return_counts=True
    )
    unit = unit.reshape(-1)
    prob = np.clip(np.bincount(unit, rows.prob) / size, 0.0, 1.0)
    pooled = replace(rows, dev=None).take(first)
    alone = size == 1
    prob = np.where(alone, pooled.prob, prob)
    logit = np.where(alone, pooled.logit, metrics.log_odds(prob, scores.CLIP))
    pred = np.where(alone, pooled.pred, prob >= pooled.threshold).astype(np.int64)
    return replace(pooled, prob=prob, logit=logit, pred=pred)


def decide_by_others(rows: Rows, development: Rows | None = None) -> Rows:
    """Decide every row at the EER cut of development rows: those given, or the other folds.

    Returns:
        The rows with `dev`; None there where no fold is left, or it lacks a class.
    """
    dev = np.zeros(len(rows), dtype=np.int64)
    for fold in np.unique(rows.fold):
        held = rows.fold == fold
        others = rows.take(~held) if development is None else development
        cut = scores.eer_cut(scores.roc(others.label, others.logit)) if len(others) else np.nan
        if np.isnan(cut):
            return replace(rows, dev=None)
        dev[held] = rows.logit[held] >= cut
    return replace(rows, dev=dev)


def levels_of(
    rows: Rows, *, folds: Sequence[int] | None = None, development: Rows | None = None
) -> dict[str, Rows]:
    """Return rows with `dev` at the levels there are: `item`, and `group` where items pool.

    Args:
        rows: items.
        folds: those to keep once all have been decided (None: all): the rest is development.
        development: items that choose the cuts, instead of the other folds.
    """
    pooled = pool_groups(rows)
    pooled_development = None if development is None else pool_groups(development)
    levels = {"item": decide_by_others(rows, development)}
    if len(pooled) < len(rows):
        levels["group"] = decide_by_others(pooled, pooled_development)
    if folds is None:
        return levels
    return {level: some.take(np.isin(some.fold, folds)) for level, some in levels.items()}


def parts(rows: Rows, by: str) -> Iterator[tuple[str, NDArray[np.bool_], str]]:
    """Yield value, (n,) mask and a note for every kind, domain or manipulation.

    A manipulation is the domain of fakes; they stand against the reals of that domain, or against
    all reals where it has none.
    """
    names = rows.kind if by == "kind" else rows.domain
    fake = rows.label == 1
    for value in sorted(set(names[fake] if by == "manipulation" else names)):
        mask, note = names == value, ""
        if by == "manipulation":
            own = bool((mask & ~fake).any())
            if not own:
                mask = mask | ~fake
            note = f"against {'its own' if own else 'all'} {int((mask & ~fake).sum())} reals"
        yield value or NO_NAME, mask, note
