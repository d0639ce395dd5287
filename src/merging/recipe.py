"""A merge as written down: which models, by which method, with which settings of each tensor."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from src.errors import UserError
from src.merging.methods import METHODS, Method
from src.merging.settings import Setting, value_at


@dataclass(frozen=True)
class Ingredient:
    """A model of a merge.

    Attributes:
        model: as written.
        parameters: its own settings, before those of the recipe.
        companions: further files of the model by what the method calls them (`fisher`).
    """

    model: str
    parameters: Mapping[str, Setting] = field(default_factory=dict)
    companions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class MergeRecipe:
    """One merge.

    Attributes:
        merge_method: a registered method.
        models: without the base.
        base_model: as written; empty where there is none.
        parameters: settings for all models.
        dtype: of the maths and the output; empty keeps the output's like the inputs' (maths is
            float32 at least).
        out_dtype: of the output, where it differs.
        seed: of random methods.
        name: by which other documents of the file refer to the result; empty for the last.
        more: the caller's keys, as read.
    """

    merge_method: str
    models: tuple[Ingredient, ...]
    base_model: str = ""
    parameters: Mapping[str, Setting] = field(default_factory=dict)
    dtype: str = ""
    out_dtype: str = ""
    seed: int = 0
    name: str = ""
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def method(self) -> Method:
        """Return the registered method."""
        return METHODS.get(self.merge_method)

    @property
    def sources(self) -> list[str]:
        """Return the names of all models, the base last, each once."""
        base = [self.base_model] if self.base_model else []
        return list(dict.fromkeys([one.model for one in self.models] + base))

    def values(self, tensor: str, depth: float) -> dict[str, Any]:
        """Return the method's parameters for one tensor; per-model ones as lists.

        A model's own setting comes before the recipe's, and that before the method's default.

        Args:
            tensor: its name.
            depth: 0 to 1.

        Raises:
            UserError: a parameter without default has no value for this tensor.
        """
        found: dict[str, Any] = {}
        for parameter in self.method.parameters:
            common = self.parameters.get(parameter.name)
            value = None if common is None else value_at(common, tensor, depth)
            value = parameter.default if value is None else value
            if not parameter.per_model:
                each = [value]
            else:
                own = [one.parameters.get(parameter.name) for one in self.models]
                each = [None if o is None else value_at(o, tensor, depth) for o in own]
                each = [value if one is None else one for one in each]
            if None in each:
                whose = f" of {self.models[each.index(None)].model}" if parameter.per_model else ""
                raise UserError(
                    f"{self.merge_method} needs parameter {parameter.name!r}{whose}, and for "
                    f"tensor {tensor!r} there is no value"
                )
            found[parameter.name] = each if parameter.per_model else each[0]
        return found

    def with_parameters(self, **changes: Setting) -> "MergeRecipe":
        """Return a copy with other settings for all models, for a search over them."""
        return replace(self, parameters={**self.parameters, **changes})

    def as_dict(self) -> dict[str, Any]:
        """Return plain containers, the same for recipes that mean the same; part of records."""
        return {key: value for key, value in asdict(self).items() if key != "more"}
