"""Whether values over depth mean what was written: a net without known depth, a mistaken list."""

from collections.abc import Iterable, Sequence

from src.errors import UserError
from src.merging.depth import Depth, depth_by_name
from src.merging.recipe import Choice, MergeRecipe, Setting, is_gradient


def depth_or_refusal(names: Sequence[str], settings: Iterable[tuple[str, Setting]]) -> Depth:
    """Return the depths of tensors, told from their names.

    Args:
        names: of all tensors.
        settings: all of a recipe, with the names of their parameters.

    Raises:
        UserError: there is a gradient, and the names tell of fewer than two blocks: it would be
            one value for all.
    """
    depth = depth_by_name(names)
    for name, setting in settings:
        if depth.blocks < 2 and is_gradient(setting):
            raise UserError(
                f"parameter {name!r} has a gradient over depth, and the names of the tensors "
                f"({names[0]!r} ... {names[-1]!r}) show no numbered blocks: give a value, or "
                "`{filter, value}` entries by parts of their names"
            )
    return depth


def weights_meant_one_a_model(recipe: MergeRecipe) -> list[str]:
    """Return a line for a gradient over depth that may have been meant as one value a model."""
    setting = recipe.parameters.get("weight")
    if not isinstance(setting, tuple) or isinstance(setting[0], Choice) or not is_gradient(setting):
        return []
    values = recipe.values("", 0.0)
    divided = values.get("normalize", values.get("normalize_weights", True))
    cancels = divided and not any("weight" in one.parameters for one in recipe.models)
    if not cancels and len(setting) != len(recipe.models):
        return []
    return [
        f"parameter 'weight': {list(setting)} for all models is a gradient over depth, the same "
        f"for each of them{', and divided by its sum it changes nothing' if cancels else ''}; if "
        "one value a model is meant, give each its own under `models`"
    ]
