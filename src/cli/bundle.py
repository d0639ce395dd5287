"""`python -m src bundle`: one archive that predicts with a recipe, without internet."""

from collections.abc import Sequence
from pathlib import Path

from src.cli.common import Parser, choose_recipe, recipe_path, run_command, show_log
from src.cli.tune_inputs import choose_tunable

DESCRIPTION = """Pack a recipe with all that it predicts with, for a machine without internet.

  python -m src bundle tuned --data my_competition      bundles/my_competition/tuned.zip

Code, configs, recipe, fold file, out-of-fold CSVs and the checkpoints that the recipe uses;
for members that crop faces, the detector and its weights too.
docs/kaggle.md says how it is used in a Kaggle notebook."""


def make_parser() -> Parser:
    """Return the parser of `python -m src bundle`."""
    parser = Parser(DESCRIPTION, prog="python -m src bundle")
    parser.add_argument("recipe", nargs="?", metavar="RECIPE", help="default: tuned, or the only")
    parser.add_argument("--data", metavar="NAME", help="data set, a folder of input/ (or: demo)")
    parser.add_argument("--output", type=Path, metavar="FILE.zip", help="where to write it")
    return parser


def _run(argv: Sequence[str] | None) -> None:
    arguments = make_parser().parse_args(argv)
    dataset = choose_tunable(arguments.data, None)
    name = choose_recipe(dataset, arguments.recipe)
    show_log()
    from src.artifacts.recipes import read_recipe
    from src.inference.bundle import bundle_output, collect, write_bundle

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


def main(argv: Sequence[str] | None = None) -> int:
    """Run `python -m src bundle`; returns the exit code."""
    return run_command(_run, argv)
