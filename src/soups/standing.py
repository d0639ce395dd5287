"""What held-out rows have had a say in, and hence which scores on them count."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src import paths
from src.artifacts.files import sha256_file
from src.artifacts.runs import has_run, ingredients_of, read_run
from src.inference.lineage import share_items

Run = Mapping[str, Any]


@dataclass(frozen=True)
class Standing:
    """What a run's held-out rows decided."""

    chosen: bool = False  # which merge it is; its score is that of what either half chose
    epoch: bool = False  # an epoch of it, or of an ingredient: its score is flattered
    unscored: str = ""  # why no score of it counts; empty where one does


def standing_of(dataset: str, scheme: str, model: str, fold: paths.FoldName) -> Standing:
    """Tell from the record of a finished run what its held-out rows decided.

    Raises:
        UserError: the record is missing or damaged.
    """
    record = read_run(dataset, scheme, model, fold)
    merged = record["merged_from"]
    if merged is None:
        return Standing(epoch=record["selection"] == "best")
    chosen = bool(merged.get("chosen"))
    flattered = record["selection"] == "best"
    parts = ingredients_of(record)
    epoch = any(_chose_epoch(one, flattered=flattered) and _on(one, record) for one in parts)
    again = [
        str(one["name"])
        for one in parts
        if _was_chosen(one, flattered=flattered) and _on(one, record)
    ]
    if again:
        reason = f"{again[0]} among its ingredients was itself chosen on these rows"
        return Standing(chosen, epoch, reason)
    file = paths.cross_fitted_csv(dataset, scheme, model, fold)
    if chosen and not (file.is_file() and merged.get("cross_fitted_sha256") == sha256_file(file)):
        reason = f"nothing says that {file} is of this merge; merge it again with --overwrite"
        return Standing(chosen, epoch, reason)
    return Standing(chosen, epoch)


def had_a_say(ingredients: Iterable[Run], place: Run, input_root: Path | None = None) -> bool:
    """Tell whether rows of a data set chose an ingredient, its epoch, or one that it is made of.

    Args:
        ingredients: run records.
        place: `dataset` and `scheme` of the rows.
        input_root: folder of data sets, instead of `input/`.
    """
    return any(
        run.get("selection") == "best" and _on(run, place, input_root)
        for record in ingredients
        for run in (record, *ingredients_of(record))
    )


def _on(one: Run, place: Run, input_root: Path | None = None) -> bool:
    """Tell whether what chose an ingredient can have been the rows of a place."""
    return bool(one.get("dataset")) and share_items(place, one, input_root)


def _was_chosen(one: Run, *, flattered: bool) -> bool:
    """Tell whether an ingredient is a merge that was chosen; older records do not say so.

    Args:
        one: as the record of a merge has it.
        flattered: whether that merge is marked as `selection: best`, for some reason.
    """
    if "chosen" in one or "ingredients" not in one:
        return bool(one.get("chosen"))
    record = _record_of(one)
    return flattered if record is None else bool(record["merged_from"].get("chosen"))


def _chose_epoch(one: Run, *, flattered: bool) -> bool:
    if one.get("ingredients"):
        return False  # a merge, whose own ingredients are asked
    if "selection" in one:
        return one["selection"] == "best"
    record = _record_of(one)
    return flattered if record is None else record["selection"] == "best"


def _record_of(one: Run) -> dict[str, Any] | None:
    """Return the record of an ingredient's run, where that is still the run that was merged."""
    dataset, scheme, model, fold = (one[key] for key in ("dataset", "scheme", "model", "fold"))
    there = has_run(dataset, scheme, model, fold)
    record = read_run(dataset, scheme, model, fold) if there else None
    same = record is not None and record["checkpoint_sha256"] == one.get("sha256")
    return record if same else None
