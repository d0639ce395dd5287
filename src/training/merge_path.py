"""Linear mode connectivity: does the loss stay low on the straight line between two models?

Where it does not, an average of the two lies on a hill and is worse than both (Frankle et al. 2020,
Linear mode connectivity; Neyshabur et al. 2020).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from src.metrics import log_loss, macro_f1
from src.seeds import derive_seed
from src.training.merge_bench import Bench, plain, weighted

POINTS = 5
ITEMS = 256  # held-out rows, drawn
BATCHES = 4  # of training items, to settle BatchNorm on
HOPELESS = 0.1  # nats of log loss above the line between the ends


@dataclass(frozen=True)
class LossPath:
    """The straight line between the weights of two models.

    Attributes:
        first, other: their names.
        alphas: shares of `other`, from 0 to 1.
        losses: log loss at each, in nats, on held-out rows.
        scores: macro-F1 at 0.5 at each.
    """

    first: str
    other: str
    alphas: tuple[float, ...]
    losses: tuple[float, ...]
    scores: tuple[float, ...]

    @property
    def barrier(self) -> float:
        """Return how far the loss rises above the straight line between the ends' losses."""
        line = np.interp(self.alphas, [0, 1], [self.losses[0], self.losses[-1]])
        return float(np.max(np.array(self.losses) - line))

    @property
    def is_hopeless(self) -> bool:
        """Whether an average of the two cannot be expected to work."""
        return self.barrier > HOPELESS


def walk(bench: Bench, names: Sequence[str], points: int = POINTS) -> list[LossPath]:
    """Walk from the first model to each other one.

    Args:
        bench: its held-out rows are what the loss is taken of, a few hundred of them.
        names: two or more ingredients.
        points: on each line, ends included.
    """
    rng = np.random.default_rng(derive_seed("path", bench.seed))
    rows = np.sort(rng.permutation(bench.job.held_rows)[:ITEMS])
    label = bench.job.labels[rows]

    def look(names: Sequence[str], weights: Sequence[float]) -> tuple[float, float]:
        one = [name for name, weight in zip(names, weights, strict=True) if weight == 1]
        # An end is that model itself, with the statistics that it was trained with.
        recipe = plain("uniform", one) if one else weighted(names, weights)
        bench.put(recipe, batches=BATCHES)
        logit = bench.predict(rows)
        return log_loss(label, logit), macro_f1(label, logit >= 0)

    alphas = np.linspace(0, 1, points).tolist()
    start = look(names[:1], [1.0])
    paths = []
    for other in names[1:]:
        seen = [start, *(look([names[0], other], [1 - a, a]) for a in alphas[1:])]
        losses, scores = zip(*seen, strict=True)
        paths.append(LossPath(names[0], other, tuple(alphas), losses, scores))
    return paths
