"""What a run record says a merge was made of."""

from collections.abc import Mapping
from typing import Any

START = "start"  # `base_model: start`: what the first model was fine-tuned from


def ingredients_of(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the ingredients of a merge and those of the merges among them; none of a trained run.

    Each says `name, sha256, seed, dataset, scheme, model, fold, folds_sha256, start, pseudo`.
    """
    merged = record.get("merged_from") or {}
    return _flat(merged.get("ingredients", []))


def _flat(ingredients: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [each for one in ingredients for each in (one, *_flat(one.get("ingredients", [])))]
