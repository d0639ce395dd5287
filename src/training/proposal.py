"""Which models, folds and minutes to propose for the time there is: sums of what was timed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from src.compute.clock import in_words
from src.errors import UserError
from src.training.candidates import Prospect
from src.training.rehearsal import Timing

OPENING = 10.0  # seconds of a run that are neither training nor predicting: net, files, a picture
TUNING = 5.0  # seconds of tune.py, and its start
STARTING = 6.0  # seconds until a command has its libraries and its data set
SLACK = 0.05  # of the time, for what nobody foresees
MOST_MEMBERS = 3
ROUND = 0.5  # minutes that are proposed are whole multiples, rounded down


@dataclass(frozen=True)
class DataSize:
    """How many items a data set has."""

    train: int  # labelled
    test: int  # to be predicted
    folds: int
    reading: float  # seconds to open and decode all of them once, and to find their faces
    frames: float = 1.0  # of an item that are looked at where it is predicted: of clips several


@dataclass(frozen=True)
class Option:
    """A candidate, and what it costs here."""

    candidate: Prospect
    timing: Timing
    done: tuple[int, ...] = ()  # folds that are finished already

    def fold_seconds(self, rows: DataSize, share: float, folds: int) -> float:
        """Return the seconds of a fold, all included.

        Args:
            rows: of the data set.
            share: of the config's epochs that it makes.
            folds: that are trained, for they share some of the work.
        """
        timing, held = self.timing, rows.train / rows.folds
        trained, looked = rows.train - held, held * rows.frames * self.timing.look
        seconds = OPENING + timing.views * looked
        for stage in timing.stages:
            seconds += stage.once * rows.train * rows.frames / folds
            if stage.stretches:
                epoch = trained * stage.seconds + looked
                epoch += stage.shared * rows.train / folds
                seconds += share * stage.epochs * epoch
        return seconds

    def folds_in(self, rows: DataSize, share: float, seconds: float) -> int:
        """Return how many more folds can make a share of the epochs, and predict, in some time."""
        for folds in range(self.open_folds(rows), 0, -1):
            each = self.fold_seconds(rows, share, folds) + self.predict_seconds(rows, 1)
            if folds * each <= seconds:
                return folds
        return 0

    def open_folds(self, rows: DataSize) -> int:
        """Return how many folds are not finished."""
        return rows.folds - len(self.done)

    @property
    def stretches(self) -> bool:
        """Whether more time makes more epochs; a head on features computed once has its own."""
        return any(stage.stretches for stage in self.timing.stages)

    def share_in(self, rows: DataSize, seconds: float, folds: int) -> float:
        """Return the share of the config's epochs that each fold makes in some seconds a fold."""
        fixed = self.fold_seconds(rows, 0.0, folds)
        whole = self.fold_seconds(rows, 1.0, folds) - fixed
        return (seconds - fixed) / whole if whole else 1.0

    def predict_seconds(self, rows: DataSize, folds: int) -> float:
        """Return the seconds in which so many folds predict the test items."""
        if not rows.test:
            return 0.0
        return rows.test * rows.frames * self.timing.views * folds * self.timing.look


@dataclass(frozen=True)
class Planned:
    """A model of a plan."""

    option: Option
    minutes: float  # of its training, finding and decoding the items included
    folds: int  # that are trained: the first ones that are not finished
    share: float  # of the config's epochs that each of them makes


@dataclass(frozen=True)
class Proposal:
    """What to do with the time."""

    members: list[Planned]  # the first one's training opens the items, too
    predict: float  # minutes
    tune: float  # minutes

    @property
    def minutes(self) -> float:
        """All of it."""
        return sum(member.minutes for member in self.members) + self.predict + self.tune


def propose(minutes: float, rows: DataSize, options: Sequence[Option]) -> Proposal:
    """Return a plan for some minutes; `options` are in the order in which they are preferred.

    The first one that makes the least it needs on one fold is taken, on as many folds as can have
    that. Where time is left when it makes all epochs of its config on all folds, others that can do
    so join it.

    Raises:
        UserError: no option can be of use in the time.
    """
    left = 60 * minutes * (1 - SLACK) - 2 * STARTING - TUNING - rows.reading
    members: list[Planned] = []
    predict = STARTING
    for option in options:
        least = 1.0 if members else option.candidate.least
        after = option.predict_seconds(rows, 1)
        finished = len(option.done) * after  # those folds predict, too
        folds = option.folds_in(rows, least, left - finished)
        if folds < (option.open_folds(rows) if members else 1):
            continue
        seconds = left - finished - folds * after
        whole = folds * option.fold_seconds(rows, 1.0, folds)
        later = options[options.index(option) + 1 :]
        room = len(members) + 1 < MOST_MEMBERS
        joined = (
            folds == option.open_folds(rows) and room and _one_fits(later, rows, seconds - whole)
        )
        if joined or not option.stretches:
            seconds = min(seconds, whole)
        first = 0.0 if members else rows.reading
        made = max(ROUND, math.floor((seconds + first) / 60 / ROUND) * ROUND)
        if not option.stretches:
            made += ROUND
        share = option.share_in(rows, (60 * made - first) / folds, folds)
        members.append(Planned(option, made, folds, share))
        predict += finished + folds * after
        left -= seconds + finished + folds * after
        if not joined:
            break
    if not members:
        raise UserError(_too_little(minutes, rows, options))
    return Proposal(members, predict / 60, (STARTING + TUNING) / 60)


def _one_fits(options: Sequence[Option], rows: DataSize, seconds: float) -> bool:
    """Tell whether another model can be trained whole, on all folds, in what is left."""
    return any(one.folds_in(rows, 1.0, seconds) == one.open_folds(rows) for one in options)


def _too_little(minutes: float, rows: DataSize, options: Sequence[Option]) -> str:
    """Say what the fastest of the models would need."""
    needs = [
        (one.fold_seconds(rows, one.candidate.least, 1) + one.predict_seconds(rows, 1), one)
        for one in options
    ]
    need, fastest = min(needs, key=lambda pair: pair[0])
    whole = (need + 2 * STARTING + TUNING + rows.reading) / (1 - SLACK)
    return (
        f"--minutes {minutes:g} is less than one fold can use: of those timed here "
        f"{fastest.timing.model} is the fastest, and one fold of it, tuned and predicted with, "
        f"takes {in_words(whole)}: "
        f"python -m src plan --minutes {math.ceil(whole / 60)}"
    )
