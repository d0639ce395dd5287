"""How long a job takes, by what earlier ones took: records of runs, and states of other jobs."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from src import paths
from src.artifacts.runs import read_record
from src.compute.clock import in_words
from src.errors import UserError
from src.launch.child import read_state
from src.training.proposal import OPENING, STARTING

START = STARTING + OPENING  # seconds of a job beside what its record counts


def recorded_seconds(dataset: str, scheme: str, model: str, fold: paths.FoldName) -> float | None:
    """Return the seconds that a run takes, as other folds of its model took; None: none is known.

    Folds of the same scheme come first (a refit has a fold's items more, and takes longer by that);
    then those of other schemes of the data set, and of members that differ in their seed alone.
    """
    home = paths.run_dir(dataset, scheme, model)
    stem = paths.model_slug(model).partition("_s")[0]
    beside = home.parent.parent
    for folders in (
        [home],
        sorted(beside.glob(f"*/{home.name}")),
        sorted(beside.glob(f"*/{stem}")) + sorted(beside.glob(f"*/{stem}_s*")),
    ):
        found = [one for one in _records(folders) if one["fold"] != paths.ALL]
        if found:
            more = len(found[0]["history"]) and fold == paths.ALL
            factor = 1 / (1 - 1 / max(2, _folds(home))) if more else 1.0
            return START + factor * mean(float(one["seconds"]) for one in found)
    return None


def _records(folders: Sequence[Path]) -> Iterator[dict[str, Any]]:
    for folder in folders:
        for path in sorted(folder.glob("fold_*.json")):
            try:
                yield read_record(path)
            except UserError:  # the run's own command says what is wrong with it
                continue


def _folds(home: Path) -> int:
    return len([path for path in home.glob("fold_*.json") if path.stem != "fold_all"])


def last_seconds(state: Path) -> float | None:
    """Return how long a job took the last time that it ended well."""
    found = read_state(state)
    if found is None or found["code"] != 0 or not found.get("ended"):
        return None
    return float(found["ended"]) - float(found["began"])


def cost_line(seconds: Sequence[float | None], at_once: int | None) -> str:
    """Say what jobs take in all, and how long that lasts where some run at once."""
    known = [one for one in seconds if one is not None]
    unknown = len(seconds) - len(known)
    if not seconds:
        return "nothing is left to do"
    if not known:
        return f"{len(seconds)} to do; no record says how long one takes (python -m src plan does)"
    total = sum(known) + unknown * mean(known)
    guess = f" ({unknown} guessed as the mean of the others)" if unknown else ""
    lasts = ""
    if at_once:
        lasts = f", {in_words(max(total / at_once, *known))} with {at_once} at once"
    return f"{len(seconds)} to do, {in_words(total)} of work by records{guess}{lasts}"
