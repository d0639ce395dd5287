"""`python -m src shards`: a data set as tar shards, and whether shards are what was written."""

from argparse import Namespace
from functools import partial

from src.cli import parsers
from src.cli.common import choose_dataset, print_first, show_log
from src.data.items.shard_home import home_at
from src.data.layouts.load import load_dataset
from src.data.pixels.cache import gb
from src.data.shards.check import check_shards
from src.data.shards.write import Packed, pack
from src.errors import UserError


def run_shards(arguments: Namespace) -> None:
    """Do what the flags ask for."""
    if (arguments.to is None) == (arguments.check is None):
        raise UserError("say where the shards come to (--to), or which to check (--check)")
    show_log()
    if arguments.check is not None:
        check(arguments.check)
        return
    name = choose_dataset(arguments.data, arguments.input_root)
    dataset = load_dataset(name, arguments.input_root)
    _print_packed(pack(dataset, home_at(arguments.to), arguments.size))


def check(place: str) -> None:
    """Print whether all files of a place are what was written.

    Raises:
        UserError: some are not.
    """
    home = home_at(place)
    found = check_shards(home)
    if found.wrong:
        print_first(found.wrong)
        raise UserError(
            f"{home.place}: {len(found.wrong)} of {found.files} files are not what was written; "
            "copy these again, or pack them again"
        )
    print(f"{home.place}: {found.files} files of {gb(found.bytes)} are what was written")


def _print_packed(packed: Packed) -> None:
    there = packed.shards - packed.written
    print(
        f"{packed.items} items in {packed.shards} shards of {gb(packed.bytes)}: "
        f"{packed.home.place}" + f" ({there} were there)" * bool(there)
    )
    print(f"next: `shards: {packed.home.place}` in the dataset.yaml of a folder of input/")


main = partial(parsers.main, "shards")
