"""What lies beside a published file of weights: the names of its classes, its mean and std."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.errors import UserError
from src.models.formats import Triple

REAL = frozenset((
    "real", "reals", "realism", "realistic", "genuine", "live", "bonafide", "authentic", "pristine",
    "original", "human", "hum", "humans", "natural", "nature", "photo", "not ai", "non ai",
    "not fake", "no fake", "real image", "real images", "real face", "realart",
))  # fmt: skip
FAKE = frozenset((
    "fake", "fakes", "deepfake", "deepfakes", "ai", "ai generated", "aigenerated", "aigc", "aiart",
    "artificial", "generated", "synthetic", "spoof", "attack", "manipulated", "forged", "tampered",
    "fake image", "fake images", "fake face", "ai image", "ai images", "not real",
))  # fmt: skip
# By Pillow's numbers, as transformers writes them, and by timm's names.
RESAMPLE = {0: "nearest", 2: "bilinear", 3: "bicubic", "bilinear": "bilinear", "bicubic": "bicubic"}
MOST_NAMED = 8  # classes


@dataclass(frozen=True)
class Beside:
    """What `config.json` and `preprocessor_config.json` beside a file say."""

    config: dict[str, Any]  # the former; empty where there is none
    labels: tuple[str, ...] = ()  # names of the classes in the order of their numbers
    mean: Triple | None = None  # of the pixels, 0..1 scale
    std: Triple | None = None
    # by which pixels are enlarged; empty where nothing says or it is none of ours
    interpolation: str = ""

    @property
    def fake(self) -> int | None:
        """The class that means fake, see `fake_of`."""
        return fake_of(self.labels)

    @property
    def note(self) -> str:
        """What a user should know of the classes, one line."""
        if not self.labels:
            return ""
        if len(self.labels) > MOST_NAMED:
            return f"it has {len(self.labels)} classes (config.json)"
        names = ", ".join(f"{number} {name}" for number, name in enumerate(self.labels))
        unknown = "" if self.fake is not None else "; which of them is fake is not known"
        return f"its classes are {names} (config.json){unknown}"


def fake_of(labels: Sequence[str]) -> int | None:
    """Return the class that means fake; None unless there are two, one real and one fake."""
    words = [" ".join(re.sub("[_-]", " ", label.lower()).split()) for label in labels]
    kinds = [0 if word in REAL else 1 if word in FAKE else None for word in words]
    return kinds.index(1) if sorted(kinds, key=str) == [0, 1] else None


def look_beside(path: Path) -> Beside:
    """Read what lies beside a weights file, as transformers or timm write it.

    Raises:
        UserError: damaged.
    """
    config = _json(path.parent / "config.json")
    pixels = _json(path.parent / "preprocessor_config.json")
    timms = config.get("pretrained_cfg")
    timms = timms if isinstance(timms, dict) else {}
    try:
        mean, std = (
            _triple(pixels.get(f"image_{what}", timms.get(what))) for what in ("mean", "std")
        )
        if pixels.get("do_normalize") is False:
            mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
        resample = pixels.get("resample", timms.get("interpolation"))
        interpolation = RESAMPLE.get(resample, "")
        return Beside(config, _labels(config, timms), mean, std, interpolation)
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{path.parent}: config.json or preprocessor_config.json is damaged ({error})"
        ) from error


def _labels(config: dict[str, Any], timms: dict[str, Any]) -> tuple[str, ...]:
    names = config.get("id2label") or config.get("label_names") or timms.get("label_names") or {}
    if isinstance(names, dict):
        names = [names[number] for number in sorted(names, key=int)]
    return tuple(map(str, names))


def _triple(values: Any) -> Triple | None:  # noqa: ANN401 - whatever a JSON holds
    if values is None:
        return None
    red, green, blue = map(float, values)
    return red, green, blue


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"{path}: no JSON ({error})") from error
    return content if isinstance(content, dict) else {}
