"""Are shards what was written: each file held against its SHA-256, from wherever it lies."""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from src.data.items.shard_home import ShardHome
from src.data.pixels.cache import gb
from src.errors import UserError
from src.progress import track

PIECE = 16 * 2**20  # bytes that are read at once


class Checked(NamedTuple):
    """What was found."""

    files: int  # that were looked at
    bytes: int
    wrong: list[str]  # a line for each file that is not what was written


def check_shards(home: ShardHome) -> Checked:
    """Read all files of a home, and compare sizes and SHA-256 with what `shards.json` says.

    Raises:
        UserError: there is no `shards.json`, or it is damaged; a remote place does not answer.
    """
    about = home.about()
    known = {**about["files"], **about["shards"]}
    total = sum(one["bytes"] for one in known.values())
    wrong: list[str] = []
    done: dict[str, Any] = {"bytes": 0, "name": ""}
    pieces = track(
        _pieces(home, known, wrong, done), "checking", total=-(-total // PIECE) + len(known),
        unit=f"x{PIECE // 2**20} MiB", said=lambda: f"{done['name']}, {gb(done['bytes'])}",
    )  # fmt: skip
    for _ in pieces:
        pass
    return Checked(len(known), done["bytes"], wrong)


def _pieces(
    home: ShardHome, known: Mapping[str, Any], wrong: list[str], done: dict[str, Any]
) -> Iterator[None]:
    for name, facts in known.items():
        done["name"] = name
        try:
            size = home.facts(name)[0]
        except FileNotFoundError:
            wrong.append(f"{name}: not there")
            continue
        except OSError as error:
            wrong.append(f"{name}: {error}")
            continue
        if size != facts["bytes"]:
            wrong.append(f"{name}: {size} bytes in place of {facts['bytes']} (half copied?)")
            continue
        digest = hashlib.sha256()
        try:
            for data in home.pieces(name, size, PIECE):
                digest.update(data)
                done["bytes"] += len(data)
                yield
        except (OSError, UserError) as error:
            wrong.append(f"{name}: {error}")
            continue
        if digest.hexdigest() != facts["sha256"]:
            wrong.append(f"{name}: other bytes than were written (its SHA-256 does not fit)")
