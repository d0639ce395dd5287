"""Maps held against chance: what is lost of a verdict when a map's hottest places are hidden.

The deletion test (Samek et al., IEEE TNNLS 2017, "Evaluating the visualization of what a deep
neural network has learned", sec. III) with a control: the same region elsewhere. Hiding any fifth
of a picture moves a logit, and a smooth region moves it otherwise than single pixels do, so a draw
is the map's own hottest region, turned, mirrored and moved at random: as large, as coarse, with as
long an edge. A map that costs the verdict no more than its own shape in other places says nothing.
What hides is a blur, but of a map that a blur has drawn: that is hidden with shuffled cells.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.explain.hide import blurred, hidden, shuffled
from src.explain.maps import FAKE_ONLY, MAPS, Pixels, logits_of, untouched, usual_kinds
from src.explain.overlay import enlarged, hottest
from src.models.classifier import Classifier
from src.seeds import derive_seed

DRAWS = 16
BEATEN = 15  # draws that must lose less; see docs/explain.md for what other rules keep
LEAST = 0.1  # of the logit, that it must cost: 2.5 points of P(fake) at most
# Kinds that search for what blurring costs most, and so pass a check by blurring nearly always.
DRAWN_BY_BLUR = {"occlusion"}
FLAT = 1e-6  # of its largest value: a map that varies by less
NO_BETTER, HARDLY_ANY, IS_FLAT, NOT_FINITE, ONLY_FAKE = WITHHELD = (
    "no_better_than_chance", "hardly_any", "flat", "not_finite", "speaks_of_fakes_only",
)  # fmt: skip
Mask = NDArray[np.bool_]  # (s, s)


@dataclass(frozen=True)
class CheckedMap:
    """A map of one picture, and what its check found."""

    kind: str  # of `MAPS`
    where: NDArray[np.float32]  # (s, s), 0 to 1, at the net's input size; 0 where there is none
    # of the verdict's logit, when the hottest 20 % are hidden; NaN where that was not tried
    lost: float
    random: NDArray[np.float32]  # (16,) the same of random 20 %
    withheld: str  # "" where it is to be shown, else one of `WITHHELD`

    @property
    def beats(self) -> float:
        """Return the share of the random draws that lose less."""
        return float(np.mean(self.random < self.lost))

    def record(self) -> dict[str, Any]:
        """Return all but the map, as JSON holds it; None for what was not tried."""
        tried = bool(np.isfinite(self.lost))
        return {
            "kind": self.kind,
            "withheld": self.withheld,
            "lost": self.lost if tried else None,
            "random": self.random.tolist() if tried else None,
            "beats": self.beats if tried else None,
        }


def check_maps(
    model: Classifier,
    name: str,
    pixels: Pixels,
    kinds: Sequence[str] | None = None,
    *,
    fake: Sequence[bool] | None = None,
    seed: int = 0,
) -> list[list[CheckedMap]]:
    """Return the maps of each picture, those that passed their check first, the surest before.

    A map explains the verdict that was given: of a fake one what speaks for fake, of a real one
    what speaks for real. Each costs 17 forward passes a picture, beside those that draw it.

    Args:
        model: as its checkpoint is; on any device. Its mode, gradients and hooks stay as they are.
        name: of the model, for messages.
        pixels: uint8 RGB (n, s, s, 3), as its net takes them.
        kinds: of `MAPS`; None takes `usual_kinds`.
        fake: the verdicts (n,), where they are others than the signs of the logits.
        seed: of the random draws.

    Raises:
        UserError: a kind that there is not, or that is asked for and the net cannot show.
    """
    if kinds is None:
        kinds = usual_kinds(model, name)
    drawers = {kind: MAPS.get(kind) for kind in dict.fromkeys(kinds)}
    if not len(pixels):
        return []
    with untouched(model):
        logits = logits_of(model, pixels)
        verdict = logits > 0 if fake is None else np.asarray(fake, bool)
        towards = np.where(verdict, 1, -1).astype(np.float32)
        maps = {kind: draw(model, name, pixels, towards) for kind, draw in drawers.items()}
        found = []
        for row, picture in enumerate(pixels):
            own = {kind: drawn[row] for kind, drawn in maps.items()}
            rng = np.random.default_rng(derive_seed(seed, row))
            found.append(_checked(model, picture, own, logits[row], towards[row], rng))
    return found


def _checked(
    model: Classifier,
    picture: Pixels,
    maps: dict[str, NDArray[np.float32]],
    logit: float,
    towards: float,
    rng: np.random.Generator,
) -> list[CheckedMap]:
    found = []
    for kind, drawn in maps.items():
        where, withheld = prepared(drawn, len(picture))
        if kind in FAKE_ONLY and towards < 0:
            withheld = ONLY_FAKE
        lost, random = float("nan"), np.full(DRAWS, np.nan, np.float32)
        if not withheld:
            region = hottest(where)
            draws = [elsewhere(region, rng) for _ in range(DRAWS)]
            left = logits_of(model, deleted(picture, kind, [region, *draws]))
            losses = towards * (logit - left)
            lost, random = float(losses[0]), losses[1:].astype(np.float32)
            withheld = verdict_on(lost, random)
        found.append(CheckedMap(kind, where, lost, random, withheld))
    return sorted(found, key=_rank)


def _rank(one: CheckedMap) -> tuple[bool, float, float]:
    if not np.isfinite(one.lost):
        return True, 1.0, 0.0
    return bool(one.withheld), -one.beats, float(one.random.mean()) - one.lost


def verdict_on(lost: float, random: NDArray[np.float32]) -> str:
    """Return "" for a map that is better than chance, else the code of why it is withheld.

    Its place may cost nothing, or make the verdict surer, where others do so all the more.
    """
    if not (np.isfinite(lost) and np.isfinite(random).all()):
        return NOT_FINITE
    if np.sum(random < lost) < BEATEN:
        return NO_BETTER
    return "" if lost >= LEAST else HARDLY_ANY


def prepared(drawn: NDArray[np.float32], size: int) -> tuple[NDArray[np.float32], str]:
    """Return a map as (size, size) from 0 to 1, and the code of why it cannot be one.

    What speaks against the verdict, below 0, counts as nothing.
    """
    nothing = np.zeros((size, size), np.float32)
    if not np.isfinite(drawn).all():
        return nothing, NOT_FINITE
    positive = drawn.astype(np.float64).clip(min=0)
    low, high = float(positive.min()), float(positive.max())
    if high - low <= FLAT * high:
        return nothing, IS_FLAT
    return enlarged((positive - low) / (high - low), size), ""


def elsewhere(region: Mask, rng: np.random.Generator) -> Mask:
    """Return a region turned, mirrored and moved at random; what leaves a side comes in again."""
    turned = np.rot90(region, int(rng.integers(4)))
    if rng.random() < 0.5:
        turned = turned.T
    down, across = rng.integers(0, len(region), 2).tolist()
    return np.roll(turned, (down, across), (0, 1))


def deleted(picture: Pixels, kind: str, regions: Sequence[Mask]) -> Iterator[Pixels]:
    """Yield a picture (s, s, 3) with each region hidden, by another way than drew the map."""
    other = shuffled(picture) if kind in DRAWN_BY_BLUR else blurred(picture)
    for region in regions:
        yield hidden(picture, other, region)
