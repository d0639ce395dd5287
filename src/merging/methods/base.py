"""What a merge method is, and the registry of all.

A method sees one tensor of every model at a time (and of the base, and of what else it asks for)
and returns the merged one. It changes none of them, and knows neither names nor files.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import torch
from torch import Tensor

from src.errors import UserError, unknown_name
from src.registry import Registry

# A stack [M, *shape] or a list of M tensors of that shape: a list needs no copy of mapped files.
Tensors = Tensor | Sequence[Tensor]
Value = float | int | bool
METHODS: "Registry[Method]" = Registry("merge method")


@dataclass(frozen=True)
class Parameter:
    """A parameter of a method."""

    name: str  # as recipes write it; `lambda` reaches the function as `lambda_`
    # None where it must be given; a bool makes it a switch, an int a whole number
    default: Value | None = None
    per_model: bool = False  # one value a model (else one for all)
    low: float = -math.inf  # the smallest value allowed
    high: float = math.inf  # the largest
    open_low: bool = False  # `low` itself is not allowed

    @property
    def argument(self) -> str:
        """Return the name of the function's argument."""
        return "lambda_" if self.name == "lambda" else self.name

    def checked(self, value: Any, whose: str = "") -> Value:  # noqa: ANN401 - what a user wrote
        """Return a value of the right kind; raises UserError for another, or one out of bounds."""
        what = f"parameter {self.name!r}{whose}"
        if isinstance(self.default, bool):
            if not isinstance(value, bool):
                raise UserError(f"{what}: want true or false, found {value!r}")
            return value
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(f"{what}: want a number, found {value!r}")
        low_ok = value > self.low if self.open_low else value >= self.low
        if not (math.isfinite(value) and low_ok and value <= self.high):
            raise UserError(f"{what}: {value!r} is not {self._bounds()}")
        if isinstance(self.default, int):
            if value != int(value):
                raise UserError(f"{what}: want a whole number, found {value!r}")
            return int(value)
        return float(value)

    def _bounds(self) -> str:
        if math.isinf(self.low) and math.isinf(self.high):
            return "a finite number"
        above = f"{'above' if self.open_low else 'at least'} {self.low:g}"
        below = f"at most {self.high:g}"
        return " and ".join([above] * (self.low > -math.inf) + [below] * (self.high < math.inf))


@dataclass(frozen=True)
class Method:
    """A merge method: its function, and what it wants."""

    name: str  # as recipes write it (mergekit's, where it has the method)
    # `run(models, base, **values) -> Tensor`, pure; called through `__call__`, which checks
    run: Callable[..., Tensor]
    parameters: tuple[Parameter, ...] = ()  # in order
    # whether the models' common ancestor is used
    base: Literal["no", "optional", "required"] = "no"
    # fewest and most models beside the base (None: any number)
    models: tuple[int, int | None] = (2, None)
    # the order of the models changes nothing (their parameters moving with them)
    symmetric: bool = True
    random: bool = False  # draws random numbers; `run` then takes a `generator`
    # further tensors a model, of the same shape, by name (`fisher`)
    companions: tuple[str, ...] = ()

    def parameter(self, name: str) -> Parameter:
        """Return a parameter; raises UserError for an unknown name, with the nearest known one."""
        known = {parameter.name: parameter for parameter in self.parameters}
        if name not in known:
            raise unknown_name(f"parameter of {self.name}", name, known)
        return known[name]

    def check_models(self, count: int, has_base: bool) -> None:
        """Raise a UserError unless the method works on so many models, with or without a base."""
        low, high = self.models
        if self.base == "required" and not has_base:
            raise UserError(
                f"{self.name} merges what models learnt beyond a common base: give `base_model`, "
                "the weights that they were all fine-tuned from"
            )
        if self.base == "no" and has_base:
            raise UserError(f"{self.name} uses no base: take `base_model` out, or list it as model")
        if count < low or (high is not None and count > high):
            want = (
                str(low) if low == high else f"{low} or more" if high is None else f"{low}-{high}"
            )
            beside = " beside the base" if has_base else ""
            raise UserError(f"{self.name} wants {want} models{beside}, found {count}")

    def values(self, given: Mapping[str, Any], count: int) -> dict[str, Any]:
        """Return all arguments of the function for `count` models, checked, defaults filled in.

        Values are given by parameter; of one that is per model, a single value or one a model.

        Raises:
            UserError: unknown name, required one not given, a value of a wrong kind or range.
        """
        for name in given:
            self.parameter(name)
        arguments: dict[str, Any] = {}
        for parameter in self.parameters:
            value = given.get(parameter.name, parameter.default)
            if value is None:
                raise UserError(f"{self.name} needs parameter {parameter.name!r}")
            if not parameter.per_model:
                arguments[parameter.argument] = parameter.checked(value)
                continue
            each = list(value) if isinstance(value, Sequence) else [value] * count
            if len(each) != count:
                raise UserError(
                    f"parameter {parameter.name!r}: {len(each)} values for {count} models"
                )
            arguments[parameter.argument] = tuple(
                parameter.checked(one, f" of model {index}") for index, one in enumerate(each, 1)
            )
        return arguments

    def __call__(
        self,
        models: Tensors,
        base: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
        companions: Mapping[str, Tensors] | None = None,
        **given: Any,  # noqa: ANN401 - checked one by one
    ) -> Tensor:
        """Merge one tensor.

        Args:
            models: float32 or float64 [M, *shape], or a list of M such tensors; not changed.
            base: [*shape], the same dtype, where the method has one.
            generator: of a random method; on the CPU, whatever the tensors' device.
            companions: further tensors a model, where the method has them.
            **given: parameters by their names in recipes (`lambda` as `**{"lambda": 0.5}`).

        Returns:
            The merged tensor, [*shape], the same dtype; a tensor of its own.

        Raises:
            UserError: a wrong number of models, no base, a wrong parameter.
            ValueError: shapes or dtypes differ, or a random method got no generator.
        """
        self.check_models(len(models), base is not None)
        _check_alike(models, base)
        arguments = self.values(given, len(models))
        if self.random:
            if generator is None:
                raise ValueError(f"{self.name} draws random numbers: give a generator")
            arguments["generator"] = generator
        for name in self.companions:
            if companions is None or name not in companions:
                raise UserError(f"{self.name} needs {name!r} tensors of every model")
            if len(companions[name]) != len(models):
                raise UserError(f"{len(companions[name])} {name!r} tensors, {len(models)} models")
            _check_alike(companions[name], models[0])
            arguments[name] = companions[name]
        return self.run(models, base, **arguments)


def _check_alike(models: Tensors, base: Tensor | None) -> None:
    shape, dtype = models[0].shape, models[0].dtype
    if not dtype.is_floating_point:
        raise ValueError(f"cannot merge {dtype}: copy it")
    # One at a time: a model may be widened when it is asked for.
    for tensor in chain(models, () if base is None else (base,)):
        if tensor.shape != shape or tensor.dtype != dtype:
            raise ValueError(f"{tensor.dtype} {tuple(tensor.shape)} beside {dtype} {tuple(shape)}")


def method(
    name: str,
    *parameters: Parameter,
    **wants: Any,  # noqa: ANN401 - the further fields of `Method`
) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Return a decorator that registers a function as a method; `wants`: fields of `Method`."""

    def add(run: Callable[..., Tensor]) -> Callable[..., Tensor]:
        METHODS.register(name)(Method(name, run, parameters, **wants))
        return run

    return add
