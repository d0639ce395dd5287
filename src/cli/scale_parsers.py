"""The flags of the commands that go beyond one machine and one disk."""

import argparse
import re

from src.cli.flags import Parser, add_data, command

_UNITS = {"kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12}


def _read_size(text: str) -> int:
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)\s*([kmgt]b)", text.strip().lower())
    size = float(found[1]) * _UNITS[found[2]] if found else 0
    if size < 1e3:
        raise argparse.ArgumentTypeError(f"want a size such as 1GB or 300MB, found {text[:40]!r}")
    return int(size)


@command("""Pack a data set into tar shards with an index, read in place from anywhere.

  python -m src shards --data D --to /mnt/big/D                 shards of about 1 GB
  python -m src shards --data D --to s3://bucket/D              or any place that fsspec opens
  python -m src shards --check /mnt/big/D                       are all of them what was written?

Then `shards: /mnt/big/D` in input/D/dataset.yaml, or the folder moved into input/, is the data
set: all commands work on it, and `sampler: shards` of a model reads it nearly from start to end.
Stopped, the same command goes on after the last whole shard. See docs/shards.md.""")
def _shards(parser: Parser) -> None:
    add = parser.add_argument
    add_data(parser, scheme=False)
    add("--to", metavar="PLACE", help="folder, or s3://..., gs://..., that the shards come to")
    text = "about how large a shard is (default 1GB)"
    add("--size", type=_read_size, default=10**9, metavar="SIZE", help=text)
    text = "read all shards of a place, and hold them against their SHA-256"
    add("--check", metavar="PLACE", help=text)
