"""Verdicts of files: real, fake, or unsure with the reasons."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

UNSURE, WORDS = "unsure", np.array(["real", "fake"], dtype=object)
UNREADABLE = "unreadable"  # the reason of a file that has no answer
# Why a verdict is unsure.
BAND, FLIPS, NO_FACE, PARTIAL, FAR = "band", "flips", "no_face", "partial_file", "far"
FEW = "few frames"  # of a live source, so far


def verdicts_of(
    names: Sequence[str],
    pred: NDArray[np.int64],
    readable: NDArray[np.bool_],
    reasons: Mapping[str, set[str]],
) -> pd.DataFrame:
    """Return `verdict` (real, fake or unsure) and `reason` of files, by name.

    Args:
        names: n files.
        pred, readable: (n,) 0/1, and whether there is an answer at all; without one there is no
            verdict either.
        reasons: why verdicts are unsure -> the files; several are joined by `; `.
    """
    why = ["; ".join(one for one, some in reasons.items() if name in some) for name in names]
    reason = np.where(readable, np.array(why, dtype=object), UNREADABLE)
    said = np.where(reason == "", WORDS[pred], UNSURE)
    verdict = np.where(readable, said, "")
    return pd.DataFrame({"verdict": verdict, "reason": reason}, index=pd.Index(names))


def count_verdicts(verdicts: pd.DataFrame) -> str:
    """Say how many files are sure, and why the others are not."""
    given = verdicts[verdicts["verdict"] != ""]
    counts = given["verdict"].value_counts()
    sure = int(counts.drop(UNSURE, errors="ignore").sum())
    said = f"{sure} of {len(given)} verdicts are sure"
    said += f" ({counts.get('real', 0)} real, {counts.get('fake', 0)} fake)"
    unsure = given.loc[given["verdict"] == UNSURE, "reason"].str.split("; ").explode()
    if len(unsure):
        whys = (f"{count} {why}" for why, count in unsure.value_counts().items())
        said += f"; unsure: {', '.join(whys)}"
    return said
