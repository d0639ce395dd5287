"""The minutes of `--minutes`, shared by the runs of a command."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from src import paths
from src.artifacts.runs import has_run, read_run
from src.compute.clock import process_seconds
from src.errors import UserError

Names = tuple[str, str, str, paths.FoldName]  # (dataset, scheme, model, fold)
LEAVING_SECONDS = 2.0  # until a process that is done has ended
GUESS_SECONDS = 5.0  # to open or close a run, until one was seen; and at most
GUESS_SHARE = 0.01  # this share of the budget


class Budget:
    """The minutes that the runs of a command share; those that are not finished get as much each.

    Args:
        minutes: for all of them, counted from the start of the process.
        models: that the command was asked for.
        folds: likewise.
        waiting: (model, fold) of those that are not finished.
        used: seconds that the same command has used before.
        now: returns the seconds of this process; None for its own clock.
    """

    def __init__(
        self,
        minutes: float,
        models: Sequence[str],
        folds: Sequence[paths.FoldName],
        waiting: set[tuple[str, paths.FoldName]],
        used: float = 0.0,
        now: Callable[[], float] | None = None,
    ) -> None:
        self.ask = {"minutes": minutes, "models": list(models), "folds": list(folds)}
        self.total, self.waiting, self.used = 60 * minutes, waiting, used
        self.now = now or process_seconds
        self.opening = min(GUESS_SECONDS, GUESS_SHARE * self.total)  # from a run to the next
        self.closing: float | None = None  # from the last step of a run to its end; None: not seen
        self.runs = 0  # begun in this process
        self.current: tuple[str, paths.FoldName] = ("", -1)
        self._before = self._since = self._trained_at = 0.0

    @classmethod
    def of(
        cls,
        minutes: float,
        dataset: str,
        scheme: str,
        models: Sequence[str],
        folds: Sequence[paths.FoldName],
        *,
        overwrite: bool,
    ) -> "Budget":
        """Return the budget of a command: what it has used already counts, by the runs' records."""
        budget = cls(minutes, models, folds, set())
        for model in models:
            for fold in folds:
                if overwrite or not has_run(dataset, scheme, model, fold):
                    budget.waiting.add((model, fold))
                    continue
                found = read_run(dataset, scheme, model, fold)["budget"]
                if found is not None and found["ask"] == budget.ask:
                    budget.used += float(found["seconds"])
        return budget

    @property
    def flag(self) -> str:
        """What was typed."""
        return f"--minutes {self.ask['minutes']:g}"

    def begin(self, names: Names, kept: dict[str, Any] | None) -> None:
        """Begin a run, or the rest of one; `kept` is what its state says of its budget.

        Raises:
            UserError: no time is left for it.
        """
        same = kept is not None and kept["ask"] == self.ask
        self._before = float(kept["seconds"]) if same and kept is not None else 0.0
        self.used += self._before
        self.current, self.runs = (names[2], names[3]), self.runs + 1
        self.check_left()

    def check_left(self) -> None:
        """Raise a UserError where no time is left for the current run."""
        if self.left() <= 0:
            raise UserError(self.too_short("no time is left"))

    def end(self, names: Names) -> None:
        """Note that a run is finished, or in other hands."""
        self.waiting.discard((names[2], names[3]))
        if self._trained_at > self._since:
            self.closing = self.now() - self._trained_at
        self._since = self.now()

    def opened(self) -> None:
        """Note that a run has come to its first step. The first one also reads the data set."""
        if self.runs > 1:
            self.opening = self.now() - self._since

    def trained(self) -> None:
        """Note that a run has made its last step."""
        self._trained_at = self.now()

    def seconds(self) -> float:
        """Return the seconds that the current run has taken, in earlier processes too."""
        return self._before + self.now() - self._since

    def left(self) -> float:
        """Return the seconds until the command should have ended."""
        return self.total - LEAVING_SECONDS - self.used - self.now()

    def for_training(self, trained: float, closing: float) -> float:
        """Return the seconds that the current run may go on training.

        So that the others that wait can train as long as it, once they are opened and closed.

        Args:
            trained: seconds that it has trained already.
            closing: seconds that it takes from its last step to its end.
        """
        others = len(self.waiting - {self.current})
        each = trained + self.opening + closing
        return (self.left() - closing - others * each) / (others + 1)

    def too_short(self, why: str, each: float = 0.0) -> str:
        """Say that a run cannot be trained in its time; `each` is the seconds a run would take."""
        model, fold = self.current
        count = len(self.waiting)
        total = self.used + self._since + count * (each + self.opening) + GUESS_SECONDS
        least = max(math.ceil(total / 60), math.floor(self.total / 60) + 1)
        enough = f"--minutes {least}" if each else "more --minutes"
        return (
            f"{self.flag}: {why} for fold {fold} of {model}. Take {enough}"
            f"{', one fold (--fold 0)' if count > 1 else ''}, or a model that is faster: "
            "python -m src plan says which; what is finished stays"
        )
