"""What is said of any folder's answers: the JSON beside them, and the files left aside."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from src.artifacts.outputs import check_submission
from src.artifacts.submissions import write_answers
from src.data.sources import Listing

SHOWN = 5  # names of files left aside for one reason


def check_folder_output(output: Path, folder: Path) -> None:
    """Raise where a folder's answers must not be written (see `check_output`)."""
    check_submission(output, "answers", read=folder, is_own_place=False)


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


def write_folder_answers(
    output: Path, folder: Path, table: pd.DataFrame, sidecar: Mapping[str, Any]
) -> Path:
    """Write a folder's answers and the JSON beside them; returns the JSON's path.

    What is there is looked at once more: predicting may have taken hours.
    """
    check_folder_output(output, folder)
    write_answers(output, table, {"answers": output.name, **sidecar})
    return output.with_suffix(".json")


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
