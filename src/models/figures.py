"""What the nets of configs come to: weights, work, what they see; known without building them.

Building every shipped net takes torch, timm and 26 CPU seconds, and gives the same figures each
time. `figures.json` holds those of the shipped configs, and the versions of timm and torch they are
true of. With other versions, and of a user's own configs, a net is counted once and remembered in
`.cache/`, until one of the two or the code of this folder changes.

  python -m src.models.figures    counts the shipped ones, and writes figures.json
"""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from src import paths
from src.config import ModelConfig, model_names, read_model
from src.errors import UserError
from src.progress import track

SHIPPED = Path(__file__).with_suffix(".json")


class Figures(NamedTuple):
    """What a config comes to."""

    parameters: int  # weights
    macs: float  # multiply-accumulates of one image
    image_size: int  # side in pixels
    mean: tuple[float, ...]  # per RGB channel on a 0..1 scale
    std: tuple[float, ...]


Known = dict[str, Figures]  # by `key_of`


def figures_of(models: Mapping[str, ModelConfig]) -> dict[str, Figures]:
    """Return the figures of configs by name; torch is loaded only for those not known yet.

    Raises:
        UserError: a net that has to be counted cannot be built.
    """
    keys = {name: key_of(config) for name, config in models.items()}
    known = _read(SHIPPED, _versions())
    if not known.keys() >= set(keys.values()):
        known |= _read(paths.figures_cache(), _versions_and_code())
    missing = {key: models[name] for name, key in keys.items() if key not in known}
    if missing:
        found = {key: count(config) for key, config in track(missing.items(), "counting")}
        _remember(found)
        known |= found
    return {name: known[key] for name, key in keys.items()}


def key_of(config: ModelConfig) -> str:
    """Return, as JSON, the settings that a config's figures depend on, left out where default."""
    backbone = {key: getattr(config.backbone, key) for key in ("name", "kwargs", "stem_stride")}
    seen = {key: getattr(config.input, key) for key in ("image_size", "mean", "std")}
    head = {
        field.name: getattr(config.head, field.name)
        for field in fields(config.head)
        if getattr(config.head, field.name) != field.default
    }
    said = {key: value for key, value in (backbone | seen | {"head": head}).items() if value}
    return _key(said)


def _key(said: dict[str, Any]) -> str:
    return json.dumps(said, sort_keys=True)


def count(config: ModelConfig) -> Figures:
    """Build a config's net, without its numbers, and count; UserError as `build_backbone`."""
    from src.models.classifier import measure  # torch

    parameters, macs, spec = measure(config)
    return Figures(parameters, macs, spec.image_size, spec.mean, spec.std)


def _figures(parameters: str, macs: str, image_size: str, mean: Any, std: Any) -> Figures:  # noqa: ANN401
    """Return what was written down; ValueError or TypeError for anything else."""
    sides = (tuple(map(float, triple)) for triple in (mean, std))
    return Figures(int(parameters), float(macs), int(image_size), *sides)


def _versions() -> dict[str, str]:
    """Return what counts, without what it was built for (`+cu130`)."""
    return {name: version(name).split("+")[0] for name in ("timm", "torch")}


def _versions_and_code() -> dict[str, str]:
    code = hashlib.sha256()
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        code.update(file.read_bytes())
    return _versions() | {"code": code.hexdigest()}


def _read(file: Path, versions: dict[str, str]) -> Known:
    """Return the figures in a file; none where it is missing, damaged or of other versions."""
    try:
        content = json.loads(file.read_bytes())
        if content["versions"] != versions:
            return {}
        return {_key(said): _figures(*values) for said, values in content["figures"]}
    except (OSError, ValueError, RecursionError, LookupError, TypeError):
        return {}


def _remember(found: Known) -> None:
    """Write figures down, beside those that other processes found meanwhile."""
    with suppress(UserError):  # a full or read-only disk: then they are counted again
        _write(paths.figures_cache(), _versions_and_code(), found)


def _write(file: Path, versions: dict[str, str], found: Known) -> None:
    from src.artifacts.files import write_text  # pandas

    figures = sorted((_read(file, versions) | found).items())
    lines = ",\n".join(f"[{key}, {json.dumps(value)}]" for key, value in figures)
    text = f'{{"versions": {json.dumps(versions)}, "figures": [\n{lines}\n]}}\n'
    write_text(file, text)


if __name__ == "__main__":
    SHIPPED.unlink(missing_ok=True)
    configs = map(read_model, model_names())
    _write(SHIPPED, _versions(), {key_of(config): count(config) for config in configs})
