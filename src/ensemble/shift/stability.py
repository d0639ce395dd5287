"""Do verdicts stay the same where items come another way?"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from src.artifacts.oof import CLEAN, Levels


@dataclass(frozen=True)
class Stability:
    """Which verdicts flip, and at which levels."""

    flips: pd.DataFrame  # bool, a row an item that could be read (its index), a column a level
    seed: int  # of the levels' draws

    @property
    def kept(self) -> int:
        """Return how many items keep their verdict at every level."""
        return int((~self.flips.any(axis=1)).sum())

    def flipped(self) -> dict[str, list[str]]:
        """Return item_id -> the levels at which its verdict flips, of those that do."""
        moved = self.flips[self.flips.any(axis=1)]
        names = np.array(self.flips.columns, dtype=object)
        rows = moved.to_numpy()
        return {str(i): names[row].tolist() for i, row in zip(moved.index, rows, strict=True)}

    def words(self) -> str:
        """Say in words how many stay, and where most do not."""
        said = f"{self.kept:,} of {len(self.flips):,} keep their verdict at "
        said += f"{len(self.flips.columns)} levels ({' '.join(self.flips.columns)})"
        counts = self.flips.sum()
        if not counts.any():
            return said
        return f"{said}; most flips at {counts.idxmax()}: {int(counts.max()):,}"

    def record(self) -> dict[str, Any]:
        """Return it for a JSON: every item that is not named is stable."""
        return {
            "levels": list(self.flips.columns),
            "seed": self.seed,
            "stable": self.kept,
            "items": len(self.flips),
            "flips": {level: int(count) for level, count in self.flips.sum().items()},
            "flipped": self.flipped(),
        }


def stability_of(votes: pd.DataFrame, at: Mapping[str, pd.DataFrame], levels: Levels) -> Stability:
    """Hold verdicts against those of the same rule at single levels.

    Args:
        votes: what is answered: `pred` 0/1 and `fallback` by item_id.
        at: level -> the same of the items as it delivers them alone; of `CLEAN` as they are, which
            counts as a level where it says anything else (the answer is a mean over several).
        levels: their names, in order, and the seed of their draws.
    """
    read = votes.index[~votes["fallback"].to_numpy(bool)]
    answer = votes.loc[read, "pred"]
    flips = {level: at[level].loc[read, "pred"] != answer for level in levels.names}
    plain = at[CLEAN].loc[read, "pred"] != answer
    table = pd.DataFrame({"as it is": plain} | flips if plain.any() else flips, index=read)
    return Stability(table, levels.seed)
