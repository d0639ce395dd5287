"""`python -m src bundle`: one archive that predicts with a recipe, without internet."""

from argparse import Namespace
from functools import partial

from src.artifacts.recipes import read_recipe
from src.cli import parsers
from src.cli.common import choose_recipe, choose_tunable, recipe_path, show_log
from src.inference.bundle import bundle_output, collect, write_bundle


def run_bundle(arguments: Namespace) -> None:
    """Do what the flags ask for."""
    dataset = choose_tunable(arguments.data, None)
    name = choose_recipe(dataset, arguments.recipe)
    show_log()
    target = bundle_output(arguments.output, dataset, name)
    contents = collect(name, read_recipe(recipe_path(dataset, name)))
    for kind, (count, size) in contents.sizes().items():
        print(f"{kind:<12} {count:>4} files {_megabytes(size):>12}")
    for note in contents.notes:
        print(note)
    size = write_bundle(target, contents)
    print(f"{target}: {_megabytes(size)}, {len(contents.parts)} checkpoints")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


main = partial(parsers.main, "bundle")
