"""Which recipe a command works with."""

from pathlib import Path

from src import paths
from src.errors import UserError, unknown_name


def recipe_names(dataset: str) -> list[str]:
    """Return the recipes of a data set, those that a bundle brought included."""
    return sorted({p.stem for home in paths.recipe_dirs(dataset) for p in home.glob("*.json")})


def choose_recipe(dataset: str, wanted: str | None) -> str:
    """Return the recipe to work with: the one named, `tuned`, or the only one.

    Raises:
        UserError: there is none, no such one, or several without `tuned`.
    """
    names = recipe_names(dataset)
    if not names:
        raise UserError(f"{dataset} has no recipe yet: python tune.py makes one")
    if wanted is not None and wanted not in names:
        raise unknown_name("recipe", wanted, names)
    if wanted is not None or len(names) == 1:
        return wanted or names[0]
    if "tuned" in names:
        return "tuned"
    raise UserError(
        f"{dataset} has {len(names)} recipes, say which: --recipe {{{','.join(names)}}}"
    )


def recipe_path(dataset: str, recipe: str) -> Path:
    """Return the file of a recipe, where it is or in a bundle."""
    return paths.readable(paths.recipe_json(dataset, recipe))
