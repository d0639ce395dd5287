"""Score files and their truth side by side, by id: decided rows of the same items."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src.data.layouts.finder import FileIndex
from src.ensemble.predictions import Decided, columns_of
from src.errors import UserError
from src.reporting.score_files import ScoreFile, Truth


def match_ids(wanted: list[str], have: list[str]) -> NDArray[np.intp]:
    """Return (n,) places in `have` of the ids that are wanted, -1 where there is none.

    An id that is not there as it is written is looked for by its path or file name, with and
    without a suffix of pictures or clips, and taken where just one fits it.
    """
    place = pd.Index(have).get_indexer(pd.Index(wanted))
    lost = np.flatnonzero(place < 0).tolist()
    free = np.setdiff1d(np.arange(len(have)), place).tolist()
    if not lost or not free:
        return place
    there = FileIndex(free, lambda i: (have[i],))
    here = FileIndex(lost, lambda k: (wanted[k],))
    some = there.find_all([wanted[k] for k in lost])
    pairs = {(k, i) for k, fits in zip(lost, some, strict=True) for i in fits}
    some = here.find_all([have[i] for i in free])
    pairs |= {(k, i) for i, fits in zip(free, some, strict=True) for k in fits}
    if pairs:
        found = np.array(sorted(pairs))
        alone = [np.bincount(column)[column] == 1 for column in found.T]
        sure = found[alone[0] & alone[1]]
        place[sure[:, 0]] = sure[:, 1]
    return place


def join(
    truth: Truth, files: Sequence[ScoreFile], *, common: bool = False
) -> tuple[list[Decided], list[str]]:
    """Return each file's rows of the items of the truth, in its order, and what was left out.

    Args:
        truth: the items.
        files: what is scored.
        common: go on with the items that are in all files, where some are not.

    Raises:
        UserError: an id of the truth that a file lacks, or of a file that the truth lacks, unless
            `common`; nothing in common.
    """
    ids = truth.rows["item_id"].tolist()
    places = [match_ids(ids, file.ids) for file in files]
    notes = []
    for file, place in zip(files, places, strict=True):
        said = _left_out(truth, file, place)
        if said and not common:
            raise UserError(
                f"{file.path}: {'; '.join(said)}; --common scores the items that all files hold"
            )
        notes += [f"{file.path}: {text}" for text in said]
    held = np.logical_and.reduce([place >= 0 for place in places])
    if not held.any():
        first = ", ".join(f"{file.ids[0]!r} in {file.path}" for file in files)
        raise UserError(
            f"no id of {truth.path} is in all files; the first are {ids[0]!r} there and {first}"
        )
    columns = columns_of(truth.rows.loc[held])
    rows = []
    for file, place in zip(files, places, strict=True):
        at, cut = place[held], np.full(int(held.sum()), file.threshold)
        own = {name: getattr(file, name)[at] for name in ("logit", "prob", "pred", "score")}
        rows.append(Decided(**columns, **own, threshold=cut))
    return rows, notes


def _left_out(truth: Truth, file: ScoreFile, place: NDArray[np.intp]) -> list[str]:
    """Say which ids of the truth a file lacks, and which of its own the truth lacks."""
    ids, said = truth.rows["item_id"], []
    lost = np.flatnonzero(place < 0)
    if lost.size:
        said.append(
            f"{lost.size} of {len(ids)} ids of {truth.path} are missing, the first is "
            f"{ids.iloc[lost[0]]!r}"
        )
    extra = np.setdiff1d(np.arange(len(file.ids)), place)
    if extra.size:
        said.append(
            f"{extra.size} of its {len(file.ids)} ids are not in {truth.path}, the first is "
            f"{file.ids[extra[0]]!r}"
        )
    return said
