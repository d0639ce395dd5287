"""One merge, a tensor at a time by name: the same result in any order, in memory or from files.

One tensor of every model, made ready for a method's maths.
"""

from collections.abc import Mapping, Sequence
from typing import Any, overload

import torch
from torch import Tensor

from src.errors import UserError
from src.merging.check import MergeRefusedError, Sameness, check_alike, check_finite
from src.merging.gradients import depth_or_refusal, weights_meant_one_a_model
from src.merging.recipe import Depth, MergeRecipe, Setting, filters_of
from src.merging.sources import DictSource, Source
from src.seeds import derive_seed

COUNTER = "num_batches_tracked"
VARIANCE = "running_var"


class Ready(Sequence[Tensor]):
    """Tensors on a device and in a dtype: on the CPU each is converted when asked for.

    So the wide copies of narrow files are not all in memory at once. What needs no conversion is
    the input itself.

    Attributes:
        kind: device and dtype.

    Args:
        inputs: as read.
        device: where to compute.
        dtype: float32 or float64.
    """

    def __init__(self, inputs: Sequence[Tensor], device: torch.device, dtype: torch.dtype) -> None:
        self.kind = (device, dtype)
        # Over a bus once is enough.
        there = device.type != "cpu"
        self._inputs = [tensor.to(*self.kind) for tensor in inputs] if there else list(inputs)

    def first(self, count: int) -> "Ready":
        """Return the first tensors."""
        return Ready(self._inputs[:count], *self.kind)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._inputs)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> list[Tensor]: ...
    def __getitem__(self, index: int | slice) -> Tensor | list[Tensor]:
        """Return one, or a list of several; not to be changed."""
        if isinstance(index, slice):
            return [tensor.to(*self.kind) for tensor in self._inputs[index]]
        return self._inputs[index].to(*self.kind)


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
        UserError: a source is missing, sources do not go together (`check_alike`), a parameter has
            no value for some tensor or one that the method refuses. Nothing has been read by then.
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
        self.method = recipe.method
        self.models = [sources[one.model] for one in recipe.models]
        self.base = sources[recipe.base_model] if recipe.base_model else None
        self.companions = companions or {}
        self.device = torch.device(device)
        self.notes: list[str] = []
        self._all = [*self.models, *([] if self.base is None else [self.base])]
        further = [source for each in self.companions.values() for source in each]
        self.names = check_alike(self._all)
        self._check_filters()
        _check_companions(self.reference, further)
        self._sameness = Sameness(self._all)
        self.parameters = self._resolved(depth or depth_or_refusal(self.names, self._settings()))
        self.notes += weights_meant_one_a_model(recipe)

    @property
    def reference(self) -> Source:
        """Return what integers, dtypes and metadata are taken from: the base, else a model."""
        return self._all[0] if self.base is None else self.base

    def is_merged(self, name: str) -> bool:
        """Return whether a tensor is merged; one of integers or switches is copied."""
        return self.reference.dtype(name).is_floating_point

    def dtype(self, name: str) -> torch.dtype:
        """Return a tensor's dtype after merging."""
        asked = self.recipe.out_dtype or self.recipe.dtype
        if asked and self.is_merged(name):
            return getattr(torch, asked)
        return self.reference.dtype(name)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape after merging."""
        return self.reference.shape(name)

    def tensor(self, name: str) -> Tensor:
        """Return one merged tensor, on the CPU, a tensor of its own.

        Raises:
            UserError: an input or the result holds NaN or infinity.
        """
        inputs = [source.read(name) for source in self._all]
        self._compare(inputs)
        if not self.is_merged(name):
            self._note_differing(name, inputs)
            return self.reference.read(name).clone()
        if not inputs[0].numel():
            return inputs[0].to(self.dtype(name), copy=True)
        for source, tensor in zip(self._all, inputs, strict=True):
            check_finite(tensor, name, source)
        work = self._work_dtype(name)
        ready = Ready(inputs, self.device, work)
        merged = self._merge(name, ready)
        if name.endswith(VARIANCE):
            smallest = torch.stack(list(ready)).amin(0)
            merged = torch.where(merged < 0, smallest, merged)
        merged = merged.to("cpu", self.dtype(name))
        if not bool(merged.isfinite().all()):
            raise UserError(
                f"{self.recipe.merge_method}: tensor {name!r} became NaN or infinite as "
                f"{str(merged.dtype).removeprefix('torch.')}; use a wider dtype or smaller weights"
            )
        return merged

    def skip(self, name: str) -> None:
        """Take note of a tensor that an interrupted merge has written already."""
        if not self._sameness.decided:
            self._compare([source.read(name) for source in self._all])

    def warnings(self) -> list[str]:
        """Return what a person should hear after all tensors: equal models, copied integers."""
        return [*self._sameness.warnings(self.base), *self.notes]

    def _merge(self, name: str, ready: Ready) -> Tensor:
        base = None if self.base is None else ready[-1]
        seed = derive_seed("merge", self.recipe.seed, name)
        companions = {
            key: Ready([self._finite(name, source) for source in sources], *ready.kind)
            for key, sources in self.companions.items()
        }
        try:
            return self.method(
                ready.first(len(self.models)), base, companions=companions,
                generator=torch.Generator().manual_seed(seed), **self.parameters[name],
            )  # fmt: skip
        except UserError as error:
            raise MergeRefusedError(f"tensor {name!r}: {error}") from None

    def _finite(self, name: str, source: Source) -> Tensor:
        tensor = source.read(name)
        check_finite(tensor, name, source)
        return tensor

    def _settings(self) -> list[tuple[str, Setting]]:
        given = [self.recipe.parameters, *(one.parameters for one in self.recipe.models)]
        return [pair for each in given for pair in each.items()]

    def _work_dtype(self, name: str) -> torch.dtype:
        wide = self.recipe.dtype == "float64"
        wide = wide or any(source.dtype(name) == torch.float64 for source in self._all)
        return torch.float64 if wide else torch.float32

    def _compare(self, inputs: Sequence[Tensor]) -> None:
        if not self._sameness.decided:
            self._sameness.look(inputs)

    def _note_differing(self, name: str, inputs: Sequence[Tensor]) -> None:
        if not name.endswith(COUNTER) and any(not torch.equal(inputs[0], t) for t in inputs[1:]):
            self.notes.append(
                f"{name!r} holds integers that differ between the models: copied from "
                f"{self.reference.label}"
            )

    def _check_filters(self) -> None:
        for name, setting in self._settings():
            for word in filters_of(setting):
                if not any(word in tensor for tensor in self.names):
                    raise UserError(
                        f"parameter {name!r}: no tensor's name contains the filter {word!r}; they "
                        f"are called {self.names[0]!r} ... {self.names[-1]!r}"
                    )

    def _resolved(self, depth: Depth) -> dict[str, dict[str, Any]]:
        """Work out every tensor's parameters, and try each set of them on two numbers."""
        resolved, tried = {}, set()
        pair = torch.ones(2)
        for name in self.names:
            if not self.is_merged(name):
                continue
            values = self.recipe.values(name, depth(name))
            resolved[name] = values
            if repr(values) in tried:
                continue
            tried.add(repr(values))
            try:
                self.method(
                    [pair] * len(self.models), None if self.base is None else pair,
                    companions={key: [pair] * len(self.models) for key in self.companions},
                    generator=torch.Generator(), **values,
                )  # fmt: skip
            except UserError as error:
                raise MergeRefusedError(f"tensor {name!r}: {error}") from None
        return resolved


def merge_tensors(
    recipe: MergeRecipe,
    models: Mapping[str, Mapping[str, Tensor]],
    *,
    fisher: Sequence[Mapping[str, Tensor]] | None = None,
    device: torch.device | str = "cpu",
    depth: Depth | None = None,
) -> dict[str, Tensor]:
    """Merge state dicts in memory.

    Args:
        recipe: what to do.
        models: state dicts by the recipe's names of models and base; not changed.
        fisher: of every model in order, where the method wants it.
        device: where to compute.
        depth: see `Merger`.

    Returns:
        The merged state dict, on the CPU, of tensors of its own.

    Raises:
        UserError: see `Merger`.
    """
    sources = {name: DictSource(name, tensors) for name, tensors in models.items()}
    companions: dict[str, list[Source]] = {}
    if fisher is not None:
        companions["fisher"] = [DictSource(f"fisher {i}", f) for i, f in enumerate(fisher, 1)]
    merger = Merger(recipe, sources, companions=companions, device=device, depth=depth)
    return {name: merger.tensor(name) for name in merger.names}


def _check_companions(reference: Source, further: Sequence[Source]) -> None:
    """Check that each further file holds every tensor that is merged, in its shape."""
    for source in further:
        held = set(source.names)
        for name in reference.names:
            if not reference.dtype(name).is_floating_point:
                continue
            if name not in held:
                raise UserError(f"{source.label} lacks tensor {name!r} of {reference.label}")
            if source.shape(name) != reference.shape(name):
                raise UserError(
                    f"{source.label}: tensor {name!r} is {source.shape(name)}, want "
                    f"{reference.shape(name)}"
                )
