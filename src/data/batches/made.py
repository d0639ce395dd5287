"""Training pictures that are more than a file: pseudo-fakes of reals, and masks of fakes."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.config import BlendConfig
from src.data.batches.blend import beside_blend, distract, self_blend
from src.data.pixels.landmarks import Landmarks
from src.data.pixels.masks import MaskReader
from src.seeds import derive_seed

if TYPE_CHECKING:  # it loads albumentations
    from src.data.batches.augment_presets import Augment


class Made(NamedTuple):
    """A picture as it will be augmented."""

    pixels: NDArray[np.uint8]  # RGB (side, side, 3)
    # (side, side), 255 where a pixel was replaced; None where nobody knows
    mask: NDArray[np.uint8] | None
    is_blend: bool = False

    def augmented(self, augment: "Augment") -> "Made":
        """Return it by the next draws of a preset, the mask along with the picture."""
        if self.mask is None:
            return self._replace(pixels=augment(image=self.pixels)["image"])
        found = augment(image=self.pixels, mask=self.mask)
        return self._replace(pixels=found["image"], mask=found["mask"])


class Masked:
    """Says where items were manipulated: reals nowhere, fakes where their files say."""

    def __init__(self, size: int, files: MaskReader | None = None, canvas: int = 0) -> None:
        self.size, self.files, self.canvas = size, files, canvas

    def of(self, item: int, label: int) -> NDArray[np.uint8] | None:
        """Return an item's mask, uint8 (size, size) of its canvas; None where nobody knows."""
        if label == 0:
            return np.zeros((self.size, self.size), np.uint8)
        return None if self.files is None else self.files.read(item, self.canvas)


class PseudoFakes:
    """Makes blends of real faces whose landmarks are known."""

    def __init__(self, asked: BlendConfig, landmarks: Landmarks) -> None:
        self.asked, self.landmarks = asked, landmarks

    def make(self, one: Made, seed: int, *, blend: bool) -> Made:
        """Return an item's picture, or a blend of it; either with distractors, where asked for.

        `seed` is of the item in this batch: the picture and its blend get equal distractors. One
        that shows no face is not blended, and stays what it was. Whatever is not blended is changed
        as what surrounds a blend.
        """
        rng = np.random.default_rng(derive_seed(seed, "face"))
        if blend and (marks := self.landmarks.of(one.pixels)) is not None:
            one = Made(*self_blend(one.pixels, marks, self.asked, rng), is_blend=True)
        else:
            one = one._replace(pixels=beside_blend(one.pixels, rng))
        rng = np.random.default_rng(derive_seed(seed, "distract"))
        if rng.random() >= self.asked.distractors:
            return one
        pixels, left = distract(one.pixels, rng)
        mask = one.mask
        if mask is not None:
            mask = np.rint(mask * left).astype(np.uint8)
        return one._replace(pixels=pixels, mask=mask)
