"""Merging files larger than memory: a tensor at a time is read, merged and written."""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch

from src.errors import UserError
from src.merging.merger import Merger
from src.merging.recipe import Depth, MergeRecipe
from src.merging.sources import Outline, Source, open_source
from src.merging.writer import PartFile
from src.progress import track

METADATA_KEY = "merge"


@dataclass(frozen=True)
class MergeReport:
    """What a merge did."""

    path: Path  # of the merged weights
    tensors: int  # how many there are
    copied: int  # those of integers, which were copied
    resumed: int  # those that an interrupted merge had left
    size: int  # of the file, bytes
    seconds: float  # of this process
    fingerprint: str  # of recipe and inputs; also in the file's metadata, with the recipe
    warnings: tuple[str, ...]  # for people


def merge_files(
    recipe: MergeRecipe,
    files: Mapping[str, Path],
    output: Path,
    *,
    companions: Mapping[str, Path] | None = None,
    metadata: Mapping[str, str] | None = None,
    device: torch.device | str = "cpu",
    depth: Depth | None = None,
    keep: bool = False,
    stamps: Mapping[str, str] | None = None,
) -> MergeReport:
    """Merge files of weights into a `.safetensors` file, written whole or not at all.

    Memory of its own: that of one tensor of every model, a few times at most. A merge that was
    killed goes on where it stopped when the same recipe is run on the same files (path, size and
    time of change) again.

    Args:
        recipe: what to do.
        files: by the recipe's names of models and base; `.safetensors` or `torch.save` files.
        output: what to write; replaced where it exists.
        companions: files by the names that the recipe's `fisher:` entries give; a name that is
            not in it is taken for a path.
        metadata: of the output; that of the base (else of the first model) if None. The recipe,
            its seed and its fingerprint are added under `merge`.
        device: where to compute.
        depth: see `Merger`.
        keep: an output that this very merge of these files wrote before is left as it is.
        stamps: what identifies the content of an input, by its name in the recipe, where it is not
            path, size and time of change: the `fingerprint` of the merge that made it.

    Returns:
        What was done.

    Raises:
        UserError: see `open_source`, `Merger` and `check_no_input`; a full disk.
        LockedError: another process is merging into the same file.
    """
    start = time.monotonic()
    check_no_input(output, [recipe], files, companions)
    with ExitStack() as stack:
        sources = {name: _opened(stack, Path(files[name]), name)
                   for name in recipe.sources if name in files}  # fmt: skip
        for name in sources.keys() & (stamps or {}).keys():
            sources[name].stamp = (stamps or {})[name]
        further = _companions(stack, recipe, companions)
        merger = Merger(recipe, sources, companions=further, device=device, depth=depth)
        fingerprint = _fingerprint(merger, [s for each in further.values() for s in each])
        text = dict(merger.reference.metadata if metadata is None else metadata)
        text[METADATA_KEY] = json.dumps({**recipe.as_dict(), "fingerprint": fingerprint})
        kinds = {name: (merger.dtype(name), merger.shape(name)) for name in merger.names}
        part = PartFile(output, kinds, text)
        if keep and part.is_there:
            for name in part.names:
                merger.skip(name)
            part.done = len(part.names)
        else:
            _write(part, merger)
        return MergeReport(
            path=output,
            tensors=len(kinds),
            copied=sum(not merger.is_merged(name) for name in merger.names),
            resumed=part.done,
            size=part.size,
            seconds=time.monotonic() - start,
            fingerprint=fingerprint,
            warnings=tuple(merger.warnings()),
        )


def _write(part: PartFile, merger: Merger) -> None:
    with part:
        for name in part.names[: part.done]:
            merger.skip(name)
        for name in track(part.names[part.done :], "merging", unit="tensor"):
            part.add(merger.tensor(name))


def _opened(stack: ExitStack, path: Path, label: str) -> Source:
    source = open_source(path, label)
    stack.callback(source.close)
    return source


def check_no_input(
    output: Path,
    recipes: Sequence[MergeRecipe],
    files: Mapping[str, Path],
    companions: Mapping[str, Path] | None = None,
) -> None:
    """Raise a UserError where a merge must not be written to a path.

    It is no `.safetensors` file, is a folder, or is an input of one of the recipes, which would be
    gone.
    """
    if output.suffix != ".safetensors":
        raise UserError(f"{output}: merged weights are written as .safetensors; name it so")
    if output.is_dir():
        raise UserError(f"{output}: is a folder; give the name of a file")
    inputs = {name: Path(path) for name, path in files.items()}
    for recipe in recipes:
        for one in recipe.models:
            for key, name in one.companions.items():
                inputs[f"{key} of {one.model}"] = _companion(name, companions)
    for name, path in inputs.items():
        if path.resolve() == output.resolve():
            raise UserError(f"{output}: is {name!r}, one of the inputs; choose another name")


def check_documents(
    recipes: Sequence[MergeRecipe],
    files: Mapping[str, Path],
    *,
    companions: Mapping[str, Path] | None = None,
) -> None:
    """Check all merges of a file before the first is made; no tensor is read.

    Args:
        recipes: in the order to carry them out; names of earlier ones stand for their results.
        files: of all other names.
        companions: see `merge_files`.

    Raises:
        UserError: see `open_source` and `Merger`.
    """
    with ExitStack() as stack:
        sources: dict[str, Source] = {}
        for recipe in recipes:
            for name in recipe.sources:
                if name not in sources and name in files:
                    sources[name] = _opened(stack, Path(files[name]), name)
            merger = Merger(recipe, sources, companions=_companions(stack, recipe, companions))
            if recipe.name:
                kinds = {name: (merger.dtype(name), merger.shape(name)) for name in merger.names}
                sources[recipe.name] = Outline(recipe.name, kinds)


def _companions(
    stack: ExitStack, recipe: MergeRecipe, companions: Mapping[str, Path] | None
) -> dict[str, list[Source]]:
    return {
        key: [_opened(stack, _companion(one.companions[key], companions), "")
              for one in recipe.models]
        for key in recipe.method.companions
    }  # fmt: skip


def _companion(name: str, companions: Mapping[str, Path] | None) -> Path:
    return Path((companions or {}).get(name, name))


def _fingerprint(merger: Merger, further: list[Source]) -> str:
    """Return the SHA-256 of the recipe, of each tensor's parameters and of the inputs' stamps."""
    inputs = [*merger.models, *([merger.base] if merger.base else []), *further]
    parts = [merger.recipe.as_dict(), [source.stamp for source in inputs], merger.parameters]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
