"""Merging files larger than memory: a tensor at a time is read, merged and written."""

import hashlib
import json
import math
import struct
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from src.artifacts.atomic import GrowingFile
from src.errors import UserError
from src.merging.depth import Depth
from src.merging.merger import Merger
from src.merging.recipe import MergeRecipe
from src.merging.sources import SAFE_DTYPES, Kind, Source, open_source
from src.progress import track

METADATA_KEY = "merge"
NAMES = {dtype: name for name, dtype in SAFE_DTYPES.items()}
ALIGNED = 8


class TensorFile(GrowingFile):
    """A `.safetensors` file written tensor by tensor, that a later process can go on with.

    Args:
        path: of the finished file.
        kinds: of the tensors by name.
        metadata: text by name; what identifies the content must be in it.
    """

    def __init__(self, path: Path, kinds: Mapping[str, Kind], metadata: Mapping[str, str]) -> None:
        # In the order in which they are added: the widest numbers first, so that all are aligned.
        self.names = sorted(kinds, key=lambda name: (-kinds[name].dtype.itemsize, name))
        entries: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
        ends = [0]
        for name in self.names:
            dtype, shape = kinds[name]
            ends.append(ends[-1] + dtype.itemsize * math.prod(shape))
            entries[name] = {
                "dtype": NAMES[dtype], "shape": list(shape), "data_offsets": ends[-2:]
            }  # fmt: skip
        text = json.dumps(entries, separators=(",", ":")).encode()
        text += b" " * (-len(text) % ALIGNED)
        super().__init__(path, struct.pack("<Q", len(text)) + text, ends[1:])

    def add_tensor(self, tensor: Tensor) -> None:
        """Write the next tensor of `names`; raises UserError where the disk is full."""
        self.add(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)


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
        recipe: what to do; its companions (`fisher:`) are paths.
        files: by the recipe's names of models and base; `.safetensors` or `torch.save` files.
        output: what to write; replaced where it exists.
        metadata: of the output; that of the base (else of the first model) if None. The recipe,
            its seed and its fingerprint are added under `merge`.
        device: where to compute.
        depth: see `Merger`.
        keep: an output that this very merge of these files wrote before is left as it is.
        stamps: what identifies the content of an input, by its name in the recipe, where it is not
            path, size and time of change: the `fingerprint` of the merge that made it.

    Raises:
        UserError: see `open_source`, `Merger` and `check_no_input`; a full disk.
        LockedError: another process is merging into the same file.
    """
    start = time.monotonic()
    check_no_input(output, [recipe], files)
    with ExitStack() as stack:
        sources = {name: stack.enter_context(open_source(Path(files[name]), name))
                   for name in recipe.sources if name in files}  # fmt: skip
        for name in sources.keys() & (stamps or {}).keys():
            sources[name].stamp = (stamps or {})[name]
        further = _companions(stack, recipe)
        merger = Merger(recipe, sources, companions=further, device=device, depth=depth)
        fingerprint = _fingerprint(merger)
        text = dict(merger.reference.metadata if metadata is None else metadata)
        text[METADATA_KEY] = json.dumps({**recipe.as_dict(), "fingerprint": fingerprint})
        file = TensorFile(output, merger.kinds, text)
        if keep and file.is_there:
            file.done = len(file.names)
        else:
            with file:
                for name in track(file.names[file.done :], "merging", unit="tensor"):
                    file.add_tensor(merger.tensor(name))
        for name in file.names[: file.done]:
            merger.skip(name)
        return MergeReport(
            path=output,
            tensors=len(file.names),
            copied=sum(not merger.is_merged(name) for name in merger.names),
            resumed=file.done,
            size=file.size,
            seconds=time.monotonic() - start,
            fingerprint=fingerprint,
            warnings=tuple(merger.warnings()),
        )


def check_no_input(output: Path, recipes: Sequence[MergeRecipe], files: Mapping[str, Path]) -> None:
    """Raise a UserError where a merge must not be written to a path.

    It is no `.safetensors` file, is a folder, or is an input of one of the recipes, which would be
    gone.
    """
    if output.suffix != ".safetensors":
        raise UserError(f"{output}: merged weights are written as .safetensors; name it so")
    if output.is_dir():
        raise UserError(f"{output}: is a folder; give the name of a file")
    inputs = {name: Path(path) for name, path in files.items()}
    for one in (one for recipe in recipes for one in recipe.models):
        inputs |= {f"{key} of {one.model}": Path(file) for key, file in one.companions.items()}
    for name, path in inputs.items():
        if path.resolve() == output.resolve():
            raise UserError(f"{output}: is {name!r}, one of the inputs; choose another name")


def check_documents(recipes: Sequence[MergeRecipe], files: Mapping[str, Path]) -> None:
    """Check all merges of a file before the first is made; no tensor is read.

    Args:
        recipes: in the order to carry them out; names of earlier ones stand for their results.
        files: of all other names.

    Raises:
        UserError: see `open_source` and `Merger`.
    """
    with ExitStack() as stack:
        sources = {name: stack.enter_context(open_source(Path(files[name]), name))
                   for recipe in recipes for name in recipe.sources if name in files}  # fmt: skip
        for recipe in recipes:
            merger = Merger(recipe, sources, companions=_companions(stack, recipe))
            if recipe.name:  # its values are yet to be made
                sources[recipe.name] = Source(recipe.name, merger.kinds, merger.tensor, {})


def _companions(stack: ExitStack, recipe: MergeRecipe) -> dict[str, list[Source]]:
    return {
        key: [stack.enter_context(open_source(Path(one.companions[key]))) for one in recipe.models]
        for key in recipe.method.companions
    }


def _fingerprint(merger: Merger) -> str:
    """Return the SHA-256 of the recipe, of each tensor's parameters and of the inputs' stamps."""
    further = [source for each in merger.companions.values() for source in each]
    stamps = [source.stamp for source in [*merger.inputs, *further]]
    parts = [merger.recipe.as_dict(), stamps, merger.parameters]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
