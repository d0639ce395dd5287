"""What ingredients of a merge must have in common."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from src import paths
from src.artifacts.files import sha256_file
from src.errors import UserError
from src.models.backbones import build_backbone
from src.models.formats import Foreign, Target
from src.models.formats.fit import adapt
from src.soups.ingredients import Ingredient
from src.tensor_files import read_tensors

SIZES = ("image size", "canvas")  # that differ where position embeddings are resized


def facts_of(one: Ingredient) -> dict[str, Any]:
    """Return by name what must be alike for an average of weights to mean anything."""
    config, spec = one.config, one.spec
    return {
        "backbone": config.backbone.name.split(".")[0],
        "backbone.kwargs": config.backbone.kwargs,
        "head.pool": config.head.pool,
        "head.normalize": config.head.normalize,
        "label order": one.metadata.get("label_order"),
        "mean": spec.mean,
        "std": spec.std,
        "geometry": spec.geometry,
        "interpolation": spec.interpolation,
        "image size": spec.image_size,
        "canvas": spec.canvas,
        "face": spec.face,
        "reencode": spec.reencode,
        "frames.eval": spec.frames.eval,
        "frames.pool": spec.frames.pool,
        "frames.decoder": spec.frames.decoder,
        "tta": config.tta,
    }


def check_agreement(ingredients: Sequence[Ingredient], *, resized: bool = False) -> None:
    """Check that all ingredients are one architecture that sees and answers alike.

    Args:
        ingredients: the first is what the others are held against.
        resized: position embeddings will be, so that image sizes may differ.

    Raises:
        UserError: a table of all that differs.
    """
    first, ours = ingredients[0], facts_of(ingredients[0])
    lines = []
    for other in ingredients[1:]:
        theirs = facts_of(other)
        for key, value in ours.items():
            if theirs[key] != value and not (resized and key in SIZES):
                lines.append(
                    f"  {key}: {_short(value)} in {first.name}, {_short(theirs[key])} in "
                    f"{other.name}"
                )
    if lines:
        hint = "" if resized or "image size" not in "".join(lines) else (
            "\nposition embeddings of another image size are resized with `resize_pos_embed: true`"
        )  # fmt: skip
        raise UserError("these models cannot be merged:\n" + "\n".join(lines) + hint)


def _short(value: Any) -> str:  # noqa: ANN401 - whatever a config holds
    if isinstance(value, tuple):
        return "(" + ", ".join(f"{number:.6g}" for number in value) + ")"
    return str(value)


def resize_positions(ingredients: Mapping[str, Ingredient]) -> dict[str, Ingredient]:
    """Give all ingredients the position embeddings of the first one's image size.

    Bicubic, class and register tokens as they are (timm's `resample_abs_pos_embed`).

    Raises:
        UserError: the embeddings are no square grid.
    """
    first, *rest = ingredients.values()
    done = {first.name: first}
    for other in rest:
        if other.spec.image_size == first.spec.image_size:
            done[other.name] = other
            continue
        path = _resized(other, first)
        sha256 = sha256_file(path)
        done[other.name] = replace(other, path=path, sha256=sha256, spec=first.spec)
    return done


def _resized(other: Ingredient, first: Ingredient) -> Path:
    from safetensors.torch import save_file

    net, native = build_backbone(first.config.backbone, first.spec.image_size, first.config.head)
    fitted, _ = adapt(Foreign(read_tensors(other.path)), Target(net, native.head), other.path)
    path = paths.merge_parts() / f"{other.sha256[:32]}_{first.spec.image_size}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: value.contiguous() for key, value in fitted.tensors.items()}, path)
    return path
