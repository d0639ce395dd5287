"""Budgeted training: a run makes its whole schedule in the steps that there is time for.

Li, Yumer and Ramanan, ICLR 2020 ("Budgeted Training"): of few steps most is made by a learning rate
that comes to its end with them. So `--minutes` never cuts a schedule off, it changes its pace: how
far along the config's schedule one batch goes. Measured all the time, for machines become slower.
"""

import logging
import math
from collections import deque
from statistics import fmean, median

from src.compute.budget import GUESS_SECONDS, GUESS_SHARE, Budget
from src.compute.clock import in_words
from src.errors import UserError
from src.training.run import Run

LOG = logging.getLogger("rvf")
WINDOW_SHARE = 0.01  # of a run's time: how often its pace is set anew
WINDOWS = 7  # whose median is the speed: a hiccup is no slow machine
FEWEST_STEPS = 20  # of a stage, or an epoch where that is fewer: less is no training
SURE_STEPS = 10  # that are measured before a run is refused: the first ones are slow
HEAD_SHARE = 0.05  # of the minutes, that a head on cached features may take beyond them
FORWARD_SHARE = 0.35  # of a training step, by FLOPs a third: a pass without learning
LOOK_SHARE = 0.25  # likewise, of a prediction, which is computed faster: .15 to .27 on an AVX2 chip
# An epoch of a stage over one that trains the whole net, by what its batches are (`Stage.features`)
STAGE_COSTS = {None: 1.0, "views": 0.6, "augmented": LOOK_SHARE, "cached": 0.02}
MANY_EPOCHS = 3.0  # times the config's: said, for few models gain from it


class Pacer:
    """Sets the pace of a run, so that each stage's schedule ends when its time does.

    Without a budget it does nothing, and the pace is the config's.
    """

    def __init__(self, run: Run, budget: Budget | None) -> None:
        self.run, self.budget = run, budget
        self._speeds: deque[float] = deque(maxlen=WINDOWS)  # seconds a batch
        self._ends: list[float] = []  # seconds of an epoch that were not steps
        self._said = self._opened = False
        self._mark = self._trained = self._window = self._beside = 0.0
        self._steps = self._batches = 0
        self._fresh = True  # no step of this epoch was made
        self._first = (0.0, 0)  # seconds until a stage's first step was made, and its batches

    def begin_stage(self) -> None:
        """Start the stopwatch: what comes first (features computed once) is over."""
        if self.budget is None:
            return
        if not self._opened:
            kept = self.run.budget
            self._trained = kept["trained"] if kept and kept["ask"] == self.budget.ask else 0.0
            self.budget.opened()
        self._opened, self._said = True, False
        self._speeds.clear()
        self._ends.clear()
        self._steps, self._window, self._batches = 0, 0.0, 0
        self._mark = self.budget.now()
        if not self.run.position and self.run.current.features != "cached":
            self.budget.check_left()
        self._note()

    def begin_epoch(self) -> None:
        """Note that an epoch begins, or the rest of one."""
        self._fresh, self._beside = True, 0.0

    def after_step(self, batches: int) -> None:
        """Take note of a step of so many batches; every now and then the pace is set anew."""
        if self.budget is None:
            return
        self._steps += 1
        taken = self._lap()
        if self._steps == 1:  # allocators and kernels warm up
            self._first = (taken, batches)
            return
        if self._fresh and self._speeds:  # what an epoch begins with is no step
            self._beside = max(0.0, taken - batches * median(self._speeds))
            taken -= self._beside
            if self.run.current.features == "views":  # made for all folds
                self._trained -= self._beside
        self._fresh = False
        self._window, self._batches = self._window + taken, self._batches + batches
        window = WINDOW_SHARE * self.budget.total / max(1, len(self.budget.waiting))
        if self._window >= window or (not self._said and self._steps > 2):
            if not self._speeds:
                self._forget_view(self._window / self._batches)
            self._speeds.append(self._window / self._batches)
            self._window, self._batches = 0.0, 0
            if self.run.left:
                self._plan()

    def end_epoch(self) -> None:
        """Take note of what an epoch took beside its steps: its evaluation above all."""
        if self.budget is None:
            return
        self._ends.append(self._beside + self._lap())
        self._note()

    def end_run(self) -> None:
        """Say what was made of the time."""
        if self.budget is None:
            return
        self.budget.trained()
        self._note()
        LOG.info(
            "%s: %.2f epochs in %s of training; the learning rate came to its end",
            self.budget.flag, self.run.passes, in_words(self._trained),
        )  # fmt: skip

    def _forget_view(self, speed: float) -> None:
        """Count what came before a stage's first step as no training of this fold.

        Args:
            speed: seconds a batch.
        """
        seconds, batches = self._first
        if self.run.current.features == "views":  # made for all folds
            self._trained -= max(0.0, seconds - batches * speed)

    def _lap(self) -> float:
        """Return the seconds since the last lap; they count as training."""
        assert self.budget is not None
        now = self.budget.now()
        taken, self._mark = now - self._mark, now
        self._trained += taken
        return taken

    def _note(self) -> None:
        """Write into the run what its state and its record say of the budget."""
        assert self.budget is not None
        said = {"seconds": self.budget.seconds(), "trained": self._trained}
        self.run.budget = {"ask": self.budget.ask, **said, "epochs": self.run.passes}

    def _plan(self) -> None:
        """Set the pace, by the speed of late and the time that the stage has left."""
        run, budget = self.run, self.budget
        assert budget is not None
        each, evaluation = median(self._speeds), self._evaluation()
        seconds = budget.for_training(self._trained, self._closing()) * self._stage_share()
        rest = run.schedule.steps - run.position
        batches = batches_in(seconds, each, evaluation, run.batch, run.steps)
        if run.current.features == "cached":  # a head alone is soon as good as it gets
            whole = math.ceil(rest) - (0 if run.position else run.stage_batches)
            batches = min(batches, whole)
            # It takes a moment, once its features are there: they are not thrown away for that.
            if whole * each <= HEAD_SHARE * budget.total:
                batches, seconds = whole, max(seconds, whole * each)
        if not self._said and not self._say(seconds, batches, each, evaluation):
            return
        run.pace = rest / max(1, batches)
        self._note()

    def _say(self, seconds: float, batches: int, each: float, evaluation: float) -> bool:
        """Say what the first plan of a stage is; raises a UserError where it holds too little.

        Returns False where that is not sure yet.
        """
        run, budget = self.run, self.budget
        assert budget is not None
        optim, passes = run.current.optim, batches / run.steps
        least = min(run.steps, FEWEST_STEPS * optim.accumulate, run.schedule.steps)
        # Of short epochs those measured may be enough, and yet no step be left for the schedule.
        over = batches < 1 and run.current.features != "cached"
        if not run.position and (over or run.stage_batches + batches < least):
            if self._steps < SURE_STEPS and seconds > 0:
                return False
            epoch = ((run.steps + self._steps) * each + evaluation) / self._stage_share()
            epoch += self._closing()
            why = f"{in_words(max(0.0, seconds))} of training, {batches} batches, are left"
            raise UserError(budget.too_short(why, epoch))
        LOG.info(
            "%s: %s of training for this %s, about %d batches, %.2f epochs; its schedule is that "
            "of %d", budget.flag, in_words(seconds), "stage" if len(run.stages) > 1 else "fold",
            batches, passes, optim.epochs,
        )  # fmt: skip
        self._said = True
        if passes > MANY_EPOCHS * optim.epochs:
            LOG.info(
                "that is %.0f times the config's epochs: a larger model or picture may make more "
                "of it (python -m src plan)", passes / optim.epochs,
            )  # fmt: skip
        return True

    def _stage_share(self) -> float:
        """Return the share of a run's time that the stage has, of what it and later ones want."""
        run = self.run
        costs = [STAGE_COSTS.get(s.features, 1.0) * s.optim.epochs for s in run.stages[run.stage :]]
        costs[0] *= 1 - run.position / run.schedule.steps
        return costs[0] / sum(costs)

    def _evaluation(self) -> float:
        """Return the seconds that an epoch takes beside its steps."""
        return fmean(self._ends) if self._ends else self._look()

    def _look(self) -> float:
        """Return the seconds that one look at the held-out items may take, by a step's."""
        run = self.run
        batches = len(run.job.held_rows) / run.job.config.optim.batch_size
        return LOOK_SHARE * median(self._speeds) * batches

    def _closing(self) -> float:
        """Return the seconds from the last step to the end of the run: its predictions."""
        run, budget = self.run, self.budget
        assert budget is not None
        if budget.closing is not None:
            return budget.closing
        views = 2 if run.job.config.tta == "flip" else 1
        guess = min(GUESS_SECONDS, GUESS_SHARE * budget.total) + views * self._evaluation()
        if run.swa is not None:  # BatchNorm of the mean of weights: an epoch without learning
            guess += FORWARD_SHARE * median(self._speeds) * run.steps
        return guess


def batches_in(seconds: float, each: float, evaluation: float, batch: int, steps: int) -> int:
    """Return how many batches fit into some seconds, with an evaluation where each epoch ends.

    Args:
        seconds: that there are.
        each: that a batch takes.
        evaluation: that the end of an epoch takes, and the end of the stage.
        batch: batches done of the current epoch.
        steps: batches of an epoch.
    """
    rest = (steps - batch) * each + evaluation
    if seconds < rest:
        return max(0, int((seconds - evaluation) / each))
    whole, over = divmod(seconds - rest, steps * each + evaluation)
    return steps - batch + int(whole) * steps + max(0, int((over - evaluation) / each))
