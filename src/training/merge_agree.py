"""What ingredients of a merge must have in common, and on which rows it may be scored."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from src import paths
from src.artifacts.files import sha256_file
from src.artifacts.folds import read_folds
from src.artifacts.merged import ingredients_of
from src.errors import UserError
from src.models.backbones import build_backbone
from src.models.formats.base import Foreign
from src.models.formats.fit import adapt
from src.models.tensors import read_tensors
from src.training.merge_inputs import Ingredient

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
    fitted, _ = adapt(Foreign(read_tensors(other.path)), net, native.head, other.path)
    path = paths.merge_parts() / f"{other.sha256[:32]}_{first.spec.image_size}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: value.contiguous() for key, value in fitted.tensors.items()}, path)
    return path


def check_unseen(
    ingredients: Sequence[Ingredient],
    dataset: str,
    scheme: str,
    table: pd.DataFrame,
    held: set[str],
) -> None:
    """Check that no ingredient was trained on the rows that are to be scored.

    What the ingredients started from is not looked into: they all have it in them anyway.

    Args:
        ingredients: as resolved.
        dataset, scheme: whose rows are scored.
        table: that fold file (`item_id`, `fold`).
        held: ids of the rows.

    Raises:
        UserError: an ingredient saw some of them, or nothing says what it saw.
    """
    for one in ingredients:
        if one.record is None:
            if one.path.parent == paths.merge_parts():
                continue
            raise UserError(
                f"{one.name}: no run record lies beside it, so nothing says whether it was trained "
                f"on the {len(held)} rows to be scored; a score of the merge could be a leaked one"
            )
        seen = trained_on(one, dataset, scheme, table)
        leaked = held & seen
        if leaked:
            raise UserError(
                f"{one.name} was trained on {len(leaked)} of the {len(held)} rows that the merge "
                f"would be scored on, such as {min(leaked)!r}: no leaked score is reported. A "
                "merge of fold K takes fold K of every model; a soup across folds is written with "
                "--fold all, and scored with --holdout on a data set that no ingredient saw"
            )


def trained_on(one: Ingredient, dataset: str, scheme: str, table: pd.DataFrame) -> set[str]:
    """Return the ids of a data set's items that an ingredient, or what it was merged of, saw.

    Raises:
        UserError: the fold file has changed since.
    """
    record = one.record or {}
    seen: set[str] = set()
    for run in (record, *ingredients_of(record)):
        if run.get("dataset") == dataset:
            seen |= _seen_by(one.name, run, scheme, table)
        elif run.get("dataset"):
            seen |= _seen_elsewhere(one.name, run, dataset)
    return seen


def _seen_elsewhere(name: str, run: Mapping[str, Any], dataset: str) -> set[str]:
    """Return what a run on another data set saw of this one, as a part of one or the other."""
    other = run["dataset"]
    path = paths.folds_csv(other, run["scheme"])
    if not path.is_file():
        return set()
    seen = _seen_by(name, run, "", read_folds(path))
    parts = {one.removeprefix(f"{dataset}/") for one in seen if one.startswith(f"{dataset}/")}
    return parts | {f"{other}/{one}" for one in seen}


def _seen_by(name: str, run: Mapping[str, Any], scheme: str, table: pd.DataFrame) -> set[str]:
    path = paths.folds_csv(run["dataset"], run["scheme"])
    if not path.is_file() or run["folds_sha256"] != sha256_file(path):
        raise UserError(
            f"{name}: {path} is not the fold file that it was trained with any more, so "
            "nothing says which rows it saw; train it again (--overwrite)"
        )
    rows = table if run["scheme"] == scheme else read_folds(path)
    trained = rows if run["fold"] == paths.ALL else rows[rows["fold"] != run["fold"]]
    return set(trained["item_id"])
