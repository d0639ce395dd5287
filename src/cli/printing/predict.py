"""What `predict_ensemble.py` says of a submission: its sidecar, and its last lines.

What is said of any folder's answers: the JSON beside them, and the files left aside.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from src import paths
from src.artifacts.outputs import check_submission
from src.artifacts.submissions import write_answers
from src.cli.common import recipe_path
from src.data.items.listing import Listing


def prevalence_of(dataset: str, scheme: str) -> float:
    """Return the share of fakes among the scored train items."""
    from src.artifacts.folds import read_folds

    folds = read_folds(paths.readable(paths.folds_csv(dataset, scheme)))
    return float(folds.loc[folds["fold"] >= 0, "label"].mean())


def make_sidecar(
    recipe_name: str,
    recipe: Any,  # noqa: ANN401
    parts: Sequence[Any],
    manifest_sha256: str,
    preds: Any,  # noqa: ANN401
    fallback: list[str],
    prevalence: float,
) -> dict[str, Any]:
    """Return what a submission was made from, for the JSON beside it."""
    from src.artifacts.files import sha256_file
    from src.ensemble.extra import is_extra, read_extra_record

    names = [(recipe.dataset, recipe.scheme, m.model) for m in recipe.members if m.weight != 0]
    return {
        "recipe": recipe_name,
        "recipe_sha256": sha256_file(recipe_path(recipe.dataset, recipe_name)),
        "dataset": recipe.dataset,
        "manifest_sha256": manifest_sha256,
        "scheme": recipe.scheme,
        "stages": recipe.stages,
        "members": {member.model: member.weight for member in recipe.members},
        "checkpoints": {f"{part.model} fold {part.fold}": part.checkpoint_sha256 for part in parts},
        "extras": {
            name[2]: read_extra_record(*name)["kept_sha256"] for name in names if is_extra(*name)
        },
        "scores": recipe.scores,
        "rows": len(preds),
        "share_fake": float(preds.mean()),
        "fallback": {
            "items": fallback,
            "prob": prevalence,
            "why": "not decodable; got the share of fakes among the training items",
        },
    }


def print_partial(partial: Mapping[str, str]) -> None:
    """Print the files that were read only in part, or under another kind's name, and why."""
    if partial:
        shown = "; ".join(f"{item}: {why}" for item, why in list(partial.items())[:10])
        more = " ..." if len(partial) > 10 else ""
        print(f"{len(partial)} not read as a whole: {shown}{more}")


def print_faceless(items: Sequence[str]) -> None:
    """Print the items of which the whole picture stood for the face that was not found."""
    if items:
        shown = ", ".join(items[:10]) + (" ..." if len(items) > 10 else "")
        print(f"{len(items)} show no face, so the whole picture was judged: {shown}")


def print_result(
    path: Path,
    votes: Any,  # noqa: ANN401
    fallback: list[str],
    prevalence: float,
    fake: str,
) -> None:
    """Print the shares of fakes by their name, what got the fallback, where the answer lies."""
    share = votes["pred"].mean()
    print(f"{len(votes)} items, {share:.1%} {fake} (training items: {prevalence:.1%})")
    if fallback:
        shown = ", ".join(fallback[:10]) + (" ..." if len(fallback) > 10 else "")
        print(f"{len(fallback)} could not be read and got the fallback: {shown}")
    print(f"submission: {path}")


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
