"""What the names of a merge stand for: runs of the zoo, what they started from, files."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from src import paths
from src.artifacts.fingerprints import fingerprint_of
from src.artifacts.runs import START, check_checkpoint, read_record, read_run
from src.config import InputSpec, ModelConfig, parse_model
from src.errors import UserError
from src.inference.predict import VIEWS
from src.merging.recipe import MergeRecipe
from src.merging.sources import SUFFIXES
from src.models.checkpoint import read_facts, save_checkpoint
from src.models.classifier import build_classifier
from src.models.weights import start_weights
from src.seeds import derive_seed


@dataclass(frozen=True)
class Place:
    """Where runs are looked for.

    Attributes:
        dataset, scheme: names.
        fold: the held-out fold, or `paths.ALL`.
        weights: the file that the models were fine-tuned from, where they were from a file.
        input_root: folder of data sets, instead of `input/`.
    """

    dataset: str
    scheme: str
    fold: paths.FoldName
    weights: Path | None = None
    input_root: Path | None = None


@dataclass(frozen=True)
class Ingredient:
    """The weights behind a name.

    Attributes:
        name: as the recipe writes it.
        path: a checkpoint of ours.
        sha256: of it.
        config, spec, views: as it says of itself.
        metadata: all of that as it stands in the file.
        record: of its run; None for what the models started from.
        fold: the fold that its run held out.
    """

    name: str
    path: Path
    sha256: str
    config: ModelConfig
    spec: InputSpec
    views: list[str]
    metadata: dict[str, Any]
    record: dict[str, Any] | None
    fold: paths.FoldName | None

    def as_dict(self) -> dict[str, Any]:
        """Return what the record of a merge says of it."""
        run = self.record or {}
        keys = ("dataset", "scheme", "model", "fold", "folds_sha256", "selection", "pseudo")
        merged = run.get("merged_from") or {}
        own = {"name": self.name, "sha256": self.sha256, "seed": self.config.seed}
        own["chosen"] = bool(merged.get("chosen"))
        further = merged.get("ingredients", [])
        words: dict[str, Any] = {key: run.get(key) for key in keys}
        start = run.get("start") or {}
        words["start"] = {key: start.get(key) for key in ("source", "name", "sha256", "origin")}
        return {**own, **words, **({"ingredients": further} if further else {})}


def is_file(name: str) -> bool:
    """Whether a name in a recipe is a path of weights rather than a model of the zoo."""
    return name.endswith(SUFFIXES)


def resolve(recipes: Sequence[MergeRecipe], place: Place) -> dict[str, Ingredient]:
    """Return the weights behind every name of a file of recipes, but those of its documents.

    Args:
        recipes: in order.
        place: where.

    Raises:
        UserError: a run is not finished, its checkpoint is not the file that its record speaks of,
            `start` cannot be made again, or a file that is no checkpoint of this repo.
    """
    documents = {recipe.name for recipe in recipes}
    names = dict.fromkeys(name for recipe in recipes for name in recipe.sources)
    wanted = [name for name in names if name not in documents]
    found = {name: _resolve(name, place) for name in wanted if name != START}
    if START in wanted:
        first = next((one for one in found.values() if one.record is not None), None)
        if first is None:
            raise UserError("base_model: start is what a trained model started from: name one")
        found[START] = _start(first, list(found.values()), place)
    return found


def finished_folds(names: Sequence[str], place: Place, folds: Sequence[int]) -> list[int]:
    """Return the folds of which every model of the zoo among the names is finished."""
    models = [name.split("@")[0] for name in names if not is_file(name) and name != START]
    return [
        fold
        for fold in folds
        if all(
            paths.run_record(place.dataset, place.scheme, model, fold).is_file() for model in models
        )
    ]


def _resolve(name: str, place: Place) -> Ingredient:
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
    fold, stage = _which(name, which, place)
    names = (place.dataset, place.scheme, model, fold)
    path = paths.checkpoint(*names) if stage is None else paths.stage_checkpoint(*names, stage)
    done = paths.run_record(*names)
    for file in (done, path):
        if not file.is_file():
            raise UserError(
                f"{name}: {file} is not there; train it: python train_folds.py --model {model} "
                f"--fold {fold} --data {place.dataset}"
            )
    record = read_run(*names)
    if stage is None:
        check_checkpoint(record)
    return _ingredient(name, path, record)


def _which(name: str, which: str, place: Place) -> tuple[paths.FoldName, int | None]:
    """Read what stands behind the `@` of a name: the fold and the stage."""
    kind, _, number = which.partition("_")
    if not which:
        return place.fold, None
    if kind == "fold" and (number.isdecimal() or number == paths.ALL):
        return (paths.ALL if number == paths.ALL else int(number)), None
    if kind == "stage" and number.isdecimal():
        return place.fold, int(number)
    raise UserError(
        f"{name!r}: want MODEL, MODEL@fold_K (of a fold of your choice) or MODEL@stage_N (what an "
        "earlier stage of a run left behind)"
    )


def _ingredient(name: str, path: Path, record: dict[str, Any] | None) -> Ingredient:
    metadata, config, spec, views = read_facts(path)
    fold = None if record is None else record["fold"]
    return Ingredient(name, path, fingerprint_of(path), config, spec, views, metadata, record, fold)


def _start(first: Ingredient, others: Sequence[Ingredient], place: Place) -> Ingredient:
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
        if _is_drawn(start) and draws[0] != draws[1]:
            what = "weights" if start["source"] == "random" else "heads"
            raise UserError(
                f"{other.name} (seed {draws[0][0]}, fold {draws[0][1]}) and {first.name} (seed "
                f"{draws[1][0]}, fold {draws[1][1]}) started from other random {what}: no start "
                "in common. Models of one fold and one `init_seed` share it (python -m src "
                "variants)"
            )
    config = parse_model(first.config.as_dict(), first.name)
    if start["source"] == "file" and place.weights is None:
        raise UserError(
            f"{first.name} started from {start['name']!r}: give that file, --weights FILE"
        )
    torch.manual_seed(derive_seed(config.start_seed, "init", record["fold"]))
    model, native = build_classifier(config)
    made = start_weights(
        model.net, config, native.head, place.weights if start["source"] == "file" else None,
        start["source"] == "random",
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
    return replace(_ingredient(START, path, None), sha256=_sha256_of(model.net.state_dict()))


def _sha256_of(tensors: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _is_drawn(start: dict[str, Any]) -> bool:
    """Tell whether weights were drawn at random in the beginning, be it the head alone."""
    return start["source"] == "random" or bool(start.get("missing", True))
