"""One merge, a tensor at a time by name: the same result in any order, in memory or from files.

What makes a merge hopeless is said before or while it is made, by the name of the tensor.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from src.errors import UserError
from src.merging.depth import Depth, DepthByName
from src.merging.methods import Tensors
from src.merging.recipe import MergeRecipe, filters_of, is_gradient
from src.merging.sources import Kind, Source, tensor_source
from src.seeds import derive_seed

COUNTER = "num_batches_tracked"
VARIANCE = "running_var"
SHOWN = 5


class MergeRefusedError(UserError):
    """A method does not take these values of its parameters together."""


class Merger:
    """Carries out a recipe.

    Floating-point tensors are merged in float32 (float64 where one of them or the recipe says so).
    Integers and switches are copied from the base, or from the first model: a mean of counters or
    indices means nothing. A BatchNorm variance that a method made negative becomes the smallest of
    the inputs'. A random method's draws follow from the recipe's seed and the tensor's name.

    Args:
        recipe: what to do.
        sources: by the recipe's names of models and base.
        companions: by name (`fisher`), a source a model, in their order.
        device: where to compute.
        depth: of a tensor, 0 to 1, for gradients; told from the names if None.

    Raises:
        UserError: a source is missing, sources do not go together, a parameter has no value for
            some tensor or one that the method refuses. Nothing has been read by then.
    """

    def __init__(
        self,
        recipe: MergeRecipe,
        sources: Mapping[str, Source],
        *,
        companions: Mapping[str, Sequence[Source]] | None = None,
        device: torch.device | str = "cpu",
        depth: Depth | None = None,
    ) -> None:
        for name in recipe.sources:
            if name not in sources:
                raise UserError(f"there are no weights of {name!r}")
        self.recipe = recipe
        models = [sources[one.model] for one in recipe.models]
        self.base = sources[recipe.base_model] if recipe.base_model else None
        self.inputs = [*models, *([] if self.base is None else [self.base])]
        # What integers, dtypes and metadata are taken from: the base, else a model.
        self.reference = self.base or models[0]
        self.companions = companions or {}
        self.device = torch.device(device)
        _check_alike(self.inputs)
        self.names = self.inputs[0].names
        self._check_filters()
        for source in (source for each in self.companions.values() for source in each):
            self._check_companion(source)
        self.parameters = self._resolved(depth or self._depth_by_name())
        asked = recipe.out_dtype or recipe.dtype
        # Dtype and shape of every tensor after merging.
        self.kinds = {
            name: Kind(getattr(torch, asked), kind.shape)
            if asked and self.is_merged(name)
            else kind
            for name, kind in ((name, self.reference.kinds[name]) for name in self.names)
        }
        # Pairs of inputs that no tensor has told apart so far.
        self._equal = set(combinations(range(len(self.inputs)), 2))
        self._notes: list[str] = []

    def is_merged(self, name: str) -> bool:
        """Return whether a tensor is merged; one of integers or switches is copied."""
        return self.reference.kinds[name].dtype.is_floating_point

    def tensor(self, name: str) -> Tensor:
        """Return one merged tensor, on the CPU, a tensor of its own.

        Raises:
            UserError: an input or the result holds NaN or infinity.
        """
        inputs = [source.read(name) for source in self.inputs]
        self._compare(inputs)
        if not self.is_merged(name):
            if not name.endswith(COUNTER) and any(not torch.equal(inputs[0], t) for t in inputs):
                self._notes.append(
                    f"{name!r} holds integers that differ between the models: copied from "
                    f"{self.reference.label}"
                )
            return self.reference.read(name).clone()
        dtype = self.kinds[name].dtype
        if not inputs[0].numel():
            return inputs[0].to(dtype, copy=True)
        for source, tensor in zip(self.inputs, inputs, strict=True):
            _check_finite(tensor, name, source)
        merged = self._merged(name, inputs)
        if name.endswith(VARIANCE):
            smallest = torch.stack([one.to(merged) for one in inputs]).amin(0)
            merged = torch.where(merged < 0, smallest, merged)
        merged = merged.to("cpu", dtype)
        if not bool(merged.isfinite().all()):
            raise UserError(
                f"{self.recipe.merge_method}: tensor {name!r} became NaN or infinite as "
                f"{str(dtype).removeprefix('torch.')}; use a wider dtype or smaller weights"
            )
        return merged

    def skip(self, name: str) -> None:
        """Take note of a tensor that an interrupted merge has written already."""
        if self._equal:
            self._compare([source.read(name) for source in self.inputs])

    def warnings(self) -> list[str]:
        """Return what a person should hear after all tensors: equal models, copied integers."""
        lines = []
        for pair in sorted(self._equal):
            one, other = (self.inputs[place] for place in pair)
            if self.base in (one, other):
                model = other if one is self.base else one
                lines.append(
                    f"{model.label} equals the base {self.reference.label}: it has learnt nothing "
                    "to merge"
                )
            else:
                lines.append(f"{one.label} and {other.label} are the same weights")
        return [*lines, *self.recipe.doubts(), *self._notes]

    def _merged(self, name: str, inputs: Sequence[Tensor]) -> Tensor:
        """Return the method's result, on the device, float32 or float64."""
        wide = self.recipe.dtype == "float64" or any(t.dtype == torch.float64 for t in inputs)
        work = torch.float64 if wide else torch.float32
        companions = {}
        for key, sources in self.companions.items():
            tensors = [source.read(name) for source in sources]
            for tensor, source in zip(tensors, sources, strict=True):
                _check_finite(tensor, name, source)
            companions[key] = _Widened(tensors, self.device, work)
        models = _Widened(inputs[: len(self.recipe.models)], self.device, work)
        base = None if self.base is None else inputs[-1].to(self.device, work)
        return self._call(name, models, base, companions, self.parameters[name])

    def _compare(self, inputs: Sequence[Tensor]) -> None:
        self._equal = {(a, b) for a, b in self._equal if torch.equal(inputs[a], inputs[b])}

    def _check_filters(self) -> None:
        for name, setting in self.recipe.settings:
            for word in filters_of(setting):
                if not any(word in tensor for tensor in self.names):
                    raise UserError(
                        f"parameter {name!r}: no tensor's name contains the filter {word!r}; they "
                        f"are called {self.names[0]!r} ... {self.names[-1]!r}"
                    )

    def _check_companion(self, source: Source) -> None:
        """Check that a further file holds every tensor that is merged, in its shape."""
        for name in filter(self.is_merged, self.names):
            if name not in source.kinds:
                raise UserError(f"{source.label} lacks tensor {name!r} of {self.reference.label}")
            shape, wanted = source.kinds[name].shape, self.reference.kinds[name].shape
            if shape != wanted:
                raise UserError(f"{source.label}: tensor {name!r} is {shape}, want {wanted}")

    def _depth_by_name(self) -> Depth:
        """Tell depths from names, or refuse gradients where these tell of fewer than two blocks."""
        depth = DepthByName(self.names)
        for name, setting in self.recipe.settings:
            if depth.blocks < 2 and is_gradient(setting):
                raise UserError(
                    f"parameter {name!r} has a gradient over depth, and the names of the tensors "
                    f"({self.names[0]!r} ... {self.names[-1]!r}) show no numbered blocks: give a "
                    "value, or `{filter, value}` entries by parts of their names"
                )
        return depth

    def _resolved(self, depth: Depth) -> dict[str, dict[str, Any]]:
        """Work out every tensor's parameters, and try each set of them on two numbers."""
        resolved, tried = {}, set()
        pair = torch.ones(2)
        models, base = [pair] * len(self.recipe.models), None if self.base is None else pair
        companions = dict.fromkeys(self.companions, models)
        for name in filter(self.is_merged, self.names):
            values = resolved[name] = self.recipe.values(name, depth(name))
            if repr(values) not in tried:
                tried.add(repr(values))
                self._call(name, models, base, companions, values)
        return resolved

    def _call(
        self,
        name: str,
        models: Tensors,
        base: Tensor | None,
        companions: Mapping[str, Tensors],
        values: Mapping[str, Any],
    ) -> Tensor:
        drawn = torch.Generator().manual_seed(derive_seed("merge", self.recipe.seed, name))
        try:
            return self.recipe.method(
                models, base, generator=drawn, companions=companions, **values
            )
        except UserError as error:
            raise MergeRefusedError(f"tensor {name!r}: {error}") from None


class _Widened(Sequence[Tensor]):
    """Tensors on a device and in a wider dtype: on the CPU each is converted when asked for.

    So the wide copies of narrow files are not all in memory at once. What needs no conversion is
    the input itself, not to be changed.
    """

    def __init__(self, inputs: Sequence[Tensor], device: torch.device, dtype: torch.dtype) -> None:
        self._kind = (device, dtype)
        there = device.type != "cpu"  # over a bus once is enough
        self._inputs = [tensor.to(*self._kind) for tensor in inputs] if there else inputs

    def __len__(self) -> int:
        return len(self._inputs)

    def __getitem__(self, index: Any) -> Any:  # noqa: ANN401 - an int; no slices
        return self._inputs[index].to(*self._kind)


def merge_tensors(
    recipe: MergeRecipe,
    models: Mapping[str, Mapping[str, Tensor]],
    *,
    fisher: Sequence[Mapping[str, Tensor]] | None = None,
    device: torch.device | str = "cpu",
    depth: Depth | None = None,
) -> dict[str, Tensor]:
    """Merge state dicts, by the recipe's names of models and base, in memory; see `Merger`.

    `fisher` is of every model in order, where the method wants it. Returned is the merged state
    dict, on the CPU, of tensors of its own.
    """
    sources = {name: tensor_source(name, tensors) for name, tensors in models.items()}
    companions = {}
    if fisher is not None:
        companions["fisher"] = [tensor_source(f"fisher {i}", f) for i, f in enumerate(fisher, 1)]
    merger = Merger(recipe, sources, companions=companions, device=device, depth=depth)
    return {name: merger.tensor(name) for name in merger.names}


def _check_alike(sources: Sequence[Source]) -> None:
    """Check that all sources hold the same tensors, of the same shapes and kinds of numbers."""
    first, *others = sources
    for other in others:
        for some, its in ((first, other), (other, first)):
            lacking = [name for name in some.names if name not in its.kinds]
            if lacking:
                shown = ", ".join(map(repr, lacking[:SHOWN])) + ", ..." * (len(lacking) > SHOWN)
                raise UserError(
                    f"{its.label} lacks {_count(lacking)} of {some.label}: {shown}; only models of "
                    "one architecture can be merged"
                )
    for other in others:
        kinds = [(name, kind, other.kinds[name]) for name, kind in first.kinds.items()]
        differing = [(name, one, two) for name, one, two in kinds if one.shape != two.shape]
        if differing:
            name, one, two = differing[0]
            raise UserError(
                f"{_count(differing)} of {first.label} and {other.label} differ in shape, the "
                f"first is {name!r}: {one.shape} and {two.shape}; models with other heads or image "
                "sizes cannot be merged as they are"
            )
        for name, one, two in kinds:
            if one.dtype.is_floating_point != two.dtype.is_floating_point:
                raise UserError(
                    f"tensor {name!r} is {one.dtype} in {first.label} and {two.dtype} in "
                    f"{other.label}"
                )


def _count(tensors: Sequence[object]) -> str:
    return "1 tensor" if len(tensors) == 1 else f"{len(tensors)} tensors"


def _check_finite(tensor: Tensor, name: str, source: Source) -> None:
    # One sum is quicker than a mask; only where it overflows is every element looked at.
    if not bool(tensor.sum().isfinite() or tensor.isfinite().all()):
        bad = int((~tensor.isfinite()).sum())
        raise UserError(
            f"{source.label}: tensor {name!r} holds NaN or infinity at {bad} of {tensor.numel()} "
            "places; nothing merged with it would work"
        )
