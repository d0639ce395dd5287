"""Hard reals: real training pictures as phones and apps treat them, and real still.

Detectors call retouched, denoised and upscaled photos generated. One that was shown some as real
does not (4,000 retouched portraits took an entrant's false alarms on them from 22 % to 0.5 %:
Phineas1500/sieve-ai-image-detector, issue 33, 2026).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from src.artifacts.oof import JOIN, TREATMENTS, is_treatment
from src.data.pixels.deliveries import level_named
from src.errors import unknown_name
from src.seeds import derive_seed
from src.strict_yaml import Chance, checked, make_keys

SETTINGS = make_keys("Settings", {"share": (Chance, 0.5)})


@dataclass(frozen=True)
class HardReals:
    """Treats some of the real pictures of a batch, before they are augmented as all are."""

    level: str  # of treatments alone (`is_treatment`), which keep a picture's size
    share: float  # chance of a real picture

    @classmethod
    def of(cls, asked: str | Mapping[str, Any] | None) -> Self | None:
        """Return what a config's `augment_real` asks for.

        Raises:
            UserError: no such treatment, or a setting that it has not.
        """
        if asked is None:
            return None
        given = {"name": asked} if isinstance(asked, str) else dict(asked)
        name = str(given.pop("name"))
        if not all(is_treatment(step) for step in name.split(JOIN)):
            raise unknown_name("treatment of real pictures", name, TREATMENTS)
        level_named(name)
        return cls(name, checked(given, SETTINGS, f"augment_real: {name}").share)

    def __call__(self, canvas: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
        """Return a real picture's canvas, (s, s, 3), as `seed` treats it; perhaps as it was."""
        if np.random.default_rng(seed).random() >= self.share:
            return canvas
        return level_named(self.level).deliver(canvas, "", 0, derive_seed(seed, "hard")).pixels
