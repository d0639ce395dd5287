"""What is said of any folder's answers: the JSON beside them, and the files left aside."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from src.artifacts.files import write_csv, write_json
from src.data.sources import Listing
from src.errors import UserError

SHOWN = 5  # names of files left aside for one reason


def check_folder_output(output: Path) -> None:
    """Raise a UserError where answers cannot be written, or would replace somebody else's JSON."""
    if output.is_dir() or not output.resolve().parent.is_dir():
        raise UserError(f"--output {output}: want a file in a folder that exists")
    sidecar = sidecar_of(output)
    if sidecar == output:
        raise UserError(f"--output {output}: want a .csv; the JSON beside it says what it is of")
    if not sidecar.exists():
        return
    try:
        known = json.loads(sidecar.read_text(encoding="utf-8")).get("answers") == output.name
    except (OSError, ValueError, AttributeError):
        known = False
    if not known:
        raise UserError(
            f"--output {output}: {sidecar} would be written beside it, and one is there that is "
            "of something else; remove it, or take another name"
        )


def sidecar_of(output: Path) -> Path:
    """Return where the JSON beside a folder's answers lies."""
    return output.with_suffix(".json")


def folder_sidecar(
    folder: Path,
    checkpoints: Mapping[str, str],
    threshold: float,
    table: pd.DataFrame,
    lost: Sequence[str],
    listing: Listing,
) -> dict[str, Any]:
    """Return what a folder's answers were made from, with the keys of a submission's sidecar.

    Args:
        folder: that was looked through.
        checkpoints: path -> SHA-256.
        threshold: on P(fake).
        table: the answers, with a column `label`.
        lost: files that could not be decoded.
        listing: of the folder.
    """
    known = table["label"].dropna()
    return {
        "input_dir": str(folder),
        "checkpoints": dict(checkpoints),
        "threshold": threshold,
        "rows": len(table),
        "share_fake": float(known.mean()) if len(known) else None,
        "fallback": {
            "items": list(lost),
            "prob": None,
            "why": "not decodable; label and prob are empty",
        },
        "left_aside": {
            "counts": listing.ignored,
            "files": listing.unread,
            "tables": [entry.logical for entry in listing.tables],
        },
    }


def write_folder_answers(output: Path, table: pd.DataFrame, sidecar: Mapping[str, Any]) -> Path:
    """Write the answers and the JSON beside them, each whole or not at all.

    Returns:
        The JSON's path. It is written last, and an old one removed first: it is there only
        beside the answers that it speaks of.
    """
    path = sidecar_of(output)
    path.unlink(missing_ok=True)
    write_csv(output, table)
    write_json(path, {"schema": 1, "answers": output.name, **sidecar})
    return path


def print_left_aside(listing: Listing) -> None:
    """Print how many files of a folder are passed over, why, and the names of some."""
    named: defaultdict[str, list[str]] = defaultdict(list)
    for path, reason in listing.unread.items():
        named[reason].append(path)
    for reason, count in listing.ignored.items():
        shown = ", ".join(named[reason][:SHOWN]) + (" ..." if len(named[reason]) > SHOWN else "")
        print(f"left aside: {count} x {reason}" + (f": {shown}" if shown else ""))
    if listing.tables:
        tables = [entry.logical for entry in listing.tables]
        more = " ..." if len(tables) > SHOWN else ""
        print(f"left aside: {len(tables)} x table: {', '.join(tables[:SHOWN])}{more}")
