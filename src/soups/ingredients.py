"""What the names of a merge stand for: runs of the zoo, what they started from, files.

And what they must have in common.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from src import paths
from src.artifacts.files import sha256_file
from src.artifacts.fingerprints import fingerprint_of
from src.artifacts.runs import START, check_checkpoint, read_record, read_run
from src.config import InputSpec, ModelConfig, parse_model
from src.errors import UserError
from src.inference.predict import VIEWS
from src.merging.recipe import MergeRecipe
from src.models.backbones import build_backbone
from src.models.checkpoint import read_facts, save_checkpoint
from src.models.classifier import build_classifier
from src.models.formats import Foreign, Target
from src.models.formats.fit import adapt
from src.models.weights import start_weights
from src.seeds import derive_seed
from src.tensor_files import SUFFIXES, read_tensors
from src.training.job import Job


@dataclass(frozen=True)
class IngredientFile:
    """The weights behind a name."""

    name: str  # as the recipe writes it
    path: Path  # a checkpoint of ours
    sha256: str
    # as it says of itself
    config: ModelConfig
    spec: InputSpec
    views: list[str]
    metadata: dict[str, Any]  # all of that as it stands in the file
    record: dict[str, Any] | None  # of its run; None for what the models started from

    def as_dict(self) -> dict[str, Any]:
        """Return what the record of a merge says of it."""
        run = self.record or {}
        merged, start = run.get("merged_from") or {}, run.get("start") or {}
        keys = (
            *("dataset", "scheme", "model", "fold", "folds_sha256", "selection", "pseudo"),
            "teachers",
        )
        found = {
            "name": self.name,
            "sha256": self.sha256,
            "seed": self.config.seed,
            "chosen": bool(merged.get("chosen")),
            **{key: run.get(key) for key in keys},
            "start": {key: start.get(key) for key in ("source", "name", "sha256", "origin")},
        }
        further = merged.get("ingredients", [])
        return found | ({"ingredients": further} if further else {})


def is_file(name: str) -> bool:
    """Whether a name in a recipe is a path of weights rather than a model of the zoo."""
    return name.endswith(SUFFIXES)


def resolve(recipes: Sequence[MergeRecipe], job: Job) -> dict[str, IngredientFile]:
    """Return the weights behind every name of a file of recipes, but those of its documents.

    The job says which data set, scheme and fold are meant, and, among its options, from which
    `weights` the models were fine-tuned where they were from a file.

    Raises:
        UserError: a run is not finished, its checkpoint is not the file that its record speaks of,
            `start` cannot be made again, or a file that is no checkpoint of this repo.
    """
    documents = {recipe.name for recipe in recipes}
    names = dict.fromkeys(name for recipe in recipes for name in recipe.sources)
    wanted = [name for name in names if name not in documents]
    found = {name: _resolve(name, job) for name in wanted if name != START}
    if START in wanted:
        first = next((one for one in found.values() if one.record is not None), None)
        if first is None:
            raise UserError("base_model: start is what a trained model started from: name one")
        found[START] = _start(first, list(found.values()), job)
    return found


def finished_folds(
    names: Sequence[str], dataset: str, scheme: str, folds: Sequence[int]
) -> list[int]:
    """Return the folds of which every model of the zoo among the names is finished."""
    models = [name.split("@")[0] for name in names if not is_file(name) and name != START]
    return [
        fold
        for fold in folds
        if all(paths.run_record(dataset, scheme, model, fold).is_file() for model in models)
    ]


def _resolve(name: str, job: Job) -> IngredientFile:
    if is_file(name):
        path = Path(name)
        record = path.with_suffix(".json")
        if path.suffix != ".safetensors":
            raise UserError(
                f"{name}: nothing says how its pixels are prepared, nor what it was trained on. "
                "Merge foreign files without scoring: --output FILE.safetensors; or, if the "
                f"models were fine-tuned from it, write base_model: {START} and give --weights"
            )
        found = _ingredient(name, path, read_record(record) if record.is_file() else None)
        if found.record is not None and found.sha256 != found.record["checkpoint_sha256"]:
            raise UserError(f"{path}: not the file that {record} beside it speaks of")
        return found
    model, _, which = name.partition("@")
    fold, stage = _which(name, which, job.fold)
    names = (job.dataset, job.scheme, model, fold)
    path = paths.checkpoint(*names) if stage is None else paths.stage_checkpoint(*names, stage)
    done = paths.run_record(*names)
    for file in (done, path):
        if not file.is_file():
            raise UserError(
                f"{name}: {file} is not there; train it: python train_folds.py --model {model} "
                f"--fold {fold} --data {job.dataset}"
            )
    record = read_run(*names)
    if stage is None:
        check_checkpoint(record)
    return _ingredient(name, path, record)


def _which(name: str, which: str, default: paths.FoldName) -> tuple[paths.FoldName, int | None]:
    """Read what stands behind the `@` of a name: the fold and the stage."""
    kind, _, number = which.partition("_")
    if not which:
        return default, None
    if kind == "fold" and (number.isdecimal() or number == paths.ALL):
        return (paths.ALL if number == paths.ALL else int(number)), None
    if kind == "stage" and number.isdecimal():
        return default, int(number)
    raise UserError(
        f"{name!r}: want MODEL, MODEL@fold_K (of a fold of your choice) or MODEL@stage_N (what an "
        "earlier stage of a run left behind)"
    )


def _ingredient(name: str, path: Path, record: dict[str, Any] | None) -> IngredientFile:
    metadata, config, spec, views = read_facts(path)
    return IngredientFile(name, path, fingerprint_of(path), config, spec, views, metadata, record)


def _start(first: IngredientFile, others: Sequence[IngredientFile], job: Job) -> IngredientFile:
    """Make what a run started from again, head included: the same seed draws the same head."""
    record = first.record or {}
    start = record["start"]
    for other in others:
        their_run = other.record or record
        theirs = their_run["start"]
        if (theirs["source"], theirs["sha256"]) != (start["source"], start["sha256"]):
            raise UserError(
                f"{other.name} started from {theirs['source']} {theirs['name']!r}, {first.name} "
                f"from {start['source']} {start['name']!r}: they have no start in common"
            )
        draws = [(one.config.start_seed, run["fold"])
                 for one, run in ((other, their_run), (first, record))]  # fmt: skip
        drawn = start["source"] == "random" or start.get("missing", True)  # be it the head alone
        if drawn and draws[0] != draws[1]:
            what = "weights" if start["source"] == "random" else "heads"
            raise UserError(
                f"{other.name} (seed {draws[0][0]}, fold {draws[0][1]}) and {first.name} (seed "
                f"{draws[1][0]}, fold {draws[1][1]}) started from other random {what}: no start "
                "in common. Models of one fold and one `init_seed` share it (python -m src "
                "variants)"
            )
    config = parse_model(first.config.as_dict(), first.name)
    weights = job.options.weights if start["source"] == "file" else None
    if start["source"] == "file" and weights is None:
        raise UserError(
            f"{first.name} started from {start['name']!r}: give that file, --weights FILE"
        )
    torch.manual_seed(derive_seed(config.start_seed, "init", record["fold"]))
    model, native = build_classifier(config)
    made = start_weights(
        model.net, config, native.head, weights, start["source"] == "random",
    )  # fmt: skip
    if made.sha256 != start["sha256"]:
        raise UserError(
            f"{made.name or made.source} is not what {first.name} started from "
            f"({start['name']!r}, sha256 {start['sha256'][:12]}...)"
        )
    model.spec = first.spec
    path = paths.merge_parts() / f"start_{first.sha256[:32]}.safetensors"
    save_checkpoint(path, model, config.as_dict(), list(VIEWS[config.tta]))
    # Of the tensors: the file's own would change with whatever else its metadata says.
    digest = hashlib.sha256()
    for name, tensor in sorted(model.net.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return replace(_ingredient(START, path, None), sha256=digest.hexdigest())


SIZES = ("image size", "canvas")  # that differ where position embeddings are resized


def _facts_of(one: IngredientFile) -> dict[str, Any]:
    """Return by name what must be alike for an average of weights to mean anything."""
    config, spec = one.config, one.spec
    return {
        "backbone": config.backbone.name.split(".")[0],
        "backbone.kwargs": config.backbone.kwargs,
        "backbone.stem_stride": config.backbone.stem_stride,
        "head.pool": config.head.pool,
        "head.normalize": config.head.normalize,
        "head.project": config.head.project,
        "head.hidden": config.head.hidden,
        "head.registers": config.head.registers,
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


def check_agreement(ingredients: Sequence[IngredientFile], *, resized: bool = False) -> None:
    """Check that all ingredients are one architecture that sees and answers as the first does.

    Image sizes may differ where position embeddings will be `resized`. Raises a UserError with a
    table of all that differs.
    """
    first, ours = ingredients[0], _facts_of(ingredients[0])
    lines = [
        f"  {key}: {_short(ours[key])} in {first.name}, {_short(value)} in {other.name}"
        for other in ingredients[1:]
        for key, value in _facts_of(other).items()
        if value != ours[key] and not (resized and key in SIZES)
    ]
    if lines:
        hint = "" if resized or "image size" not in "".join(lines) else (
            "\nposition embeddings of another image size are resized with `resize_pos_embed: true`"
        )  # fmt: skip
        raise UserError("these models cannot be merged:\n" + "\n".join(lines) + hint)


def _short(value: Any) -> str:  # noqa: ANN401 - whatever a config holds
    if isinstance(value, tuple):
        return "(" + ", ".join(f"{number:.6g}" for number in value) + ")"
    return str(value)


def resize_positions(ingredients: Mapping[str, IngredientFile]) -> dict[str, IngredientFile]:
    """Give all ingredients the position embeddings of the first one's image size.

    Bicubic, class and register tokens as they are (timm's `resample_abs_pos_embed`).

    Raises:
        UserError: the embeddings are no square grid.
    """
    first, *rest = ingredients.values()
    done = {first.name: first}
    for other in rest:
        same = other.spec.image_size == first.spec.image_size
        done[other.name] = other if same else _resized(other, first)
    return done


def _resized(other: IngredientFile, first: IngredientFile) -> IngredientFile:
    net, native = build_backbone(first.config.backbone, first.spec.image_size, first.config.head)
    fitted, _ = adapt(Foreign(read_tensors(other.path)), Target(net, native.head), other.path)
    path = paths.merge_parts() / f"{other.sha256[:32]}_{first.spec.image_size}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: value.contiguous() for key, value in fitted.tensors.items()}, path)
    return replace(other, path=path, sha256=sha256_file(path), spec=first.spec)
