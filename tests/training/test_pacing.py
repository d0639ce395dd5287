"""`--minutes`: the whole schedule in the time there is, whatever the machine does in it."""

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from src import paths
from src.compute.budget import Budget
from src.errors import UserError
from src.losses import LOSSES
from src.training.job import Job
from src.training.optim import SCHEDULES
from src.training.pacing import Pacer, batches_in
from src.training.plan import refit_paces
from src.training.run import Run
from src.training.trainer import fit_fold
from tests.jobs import interrupt_at_batch, record_of
from tests.records import change_sealed

MakeJob = Callable[..., Job]
Speed = Callable[[float], float]  # the share of the time that has gone -> seconds a batch


class Time:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def budget_of(minutes: float, time: Time, folds: int = 1, used: float = 0.0) -> Budget:
    waiting: set[tuple[str, paths.FoldName]] = {("m", fold) for fold in range(folds)}
    return Budget(minutes, ["m"], [*range(folds)], waiting, used, now=time)


def bare_run(job: Job, steps: int, epochs: int) -> Run:
    """Return a run without a net, that only counts, in its first stage."""
    run = Run(job, None, (), [], "fp32", None, steps)  # type: ignore[arg-type]
    stage = type("Stage", (), {"features": None, "optim": job.config.optim, "untrained": False})
    run.stages, run.pace = [stage], 0.0  # type: ignore[list-item]
    run.schedule = SCHEDULES.get("cosine")(job.config.optim, epochs * steps, steps)
    return run


def walk(run: Run, budget: Budget, time: Time, speed: Speed, look: float) -> Iterator[float]:
    """Train as the trainer does, by the clock; yields the learning rate of each step."""
    pacer = Pacer(run, budget)
    pacer.begin_stage()
    while run.left:
        pacer.begin_epoch()
        while run.batch < run.steps and run.left:
            yield run.schedule.lr(max(0.0, run.position + run.pace - 1))
            time.seconds += speed(time.seconds / budget.total)
            run.advance(1)
            pacer.after_step(1)
        time.seconds += look
        pacer.end_epoch()
        run.batch, run.stage_epoch, run.epoch = 0, run.stage_epoch + 1, run.epoch + 1
    pacer.end_run()


def changing(seed: int) -> Speed:
    """Return a machine that is disturbed: it halts now and then, and others come and go."""
    rng = random.Random(seed)
    loads = [rng.choice([1, 1, 1, 1.5, 2, 4]) for _ in range(8)]
    halts, noise = rng.choice([0.0, 0.002]), rng.random()

    def speed(share: float) -> float:
        load = loads[min(7, int(8 * share))] * (1 + noise * rng.random())
        return 0.2 * load + (20.0 if rng.random() < halts else 0.0)

    return speed


@pytest.mark.parametrize("seed", range(12))
def test_at_any_speed_folds_end_in_time_with_the_schedule_at_its_end(make_job, seed):
    time, folds, minutes = Time(), 5, 12
    job, speed = make_job(optim={"min_lr": 1e-6}), changing(seed)
    budget, made = budget_of(minutes, time, folds), []
    time.seconds = 40.0  # the data set was read
    for fold in range(folds):
        budget.begin(("d", "s", "m", fold), None)
        time.seconds += 3.0
        run = bare_run(job, steps=150, epochs=9)
        rates = list(walk(run, budget, time, speed, look=6.0))
        peak = job.config.optim.lr
        assert max(rates) == pytest.approx(peak, rel=0.02)
        assert rates.index(max(rates)) < 0.25 * len(rates)  # a warmup of half an epoch of nine
        top = rates.index(max(rates))
        assert all(a >= b for a, b in zip(rates[top:], rates[top + 1 :], strict=False))
        assert rates[-1] == pytest.approx(run.schedule.lr(run.schedule.steps - 1), abs=1e-7)
        assert run.position == pytest.approx(run.schedule.steps)
        time.seconds += 14.0  # two looks, and what is written
        made.append(budget.seconds())
        budget.end(("d", "s", "m", fold))
    assert 0.85 * 60 * minutes < time.seconds < 1.1 * 60 * minutes
    assert max(made[1:]) < 1.5 * min(made[1:])


def test_on_a_steady_machine_the_pace_is_steady_and_the_folds_are_alike(make_job):
    time, job = Time(), make_job()
    budget, made = budget_of(20, time, 5), []
    for fold in range(5):
        budget.begin(("d", "s", "m", fold), None)
        time.seconds += 5.0
        run = bare_run(job, steps=175, epochs=9)
        paces = [run.pace for _ in walk(run, budget, time, lambda _: 0.5, look=1.0)]
        assert max(paces) < 1.1 * min(paces[3:])  # the first three are measured
        made.append(run.passes)
        time.seconds += 7.0
        budget.end(("d", "s", "m", fold))
    assert max(made) < 1.15 * min(made)
    assert 0.96 * 1200 < time.seconds < 1.01 * 1200


def test_a_head_whose_features_took_all_of_the_time_is_trained_all_the_same(make_job):
    time, job = Time(), make_job()
    budget, run = budget_of(1, time), bare_run(job, steps=50, epochs=4)
    run.stages[0].features = "cached"  # type: ignore[misc]
    time.seconds = 65.0  # its features
    rates = list(walk(run, budget, time, lambda _: 0.001, look=0.01))
    assert len(rates) == 200
    assert rates[-1] < 0.01 * max(rates)
    assert time.seconds < 1.1 * budget.total


@pytest.mark.parametrize("start", [0.0, 30.0])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_of_short_epochs_too_little_time_is_refused_as_well(make_job, caplog, steps, start):
    time, job = Time(), make_job()
    budget = budget_of(0.4, time)
    budget.begin(("d", "s", "m", 0), None)
    time.seconds = start  # opened: in its 24 s, or not
    run = bare_run(job, steps=steps, epochs=10)
    with pytest.raises(UserError, match=r"--minutes 0.4: .* Take .*--minutes") as error:
        list(walk(run, budget, time, lambda _: 6.0, look=3.0))
    assert not re.search(r"-\d", str(error.value))  # no negative time
    assert time.seconds == start or time.seconds < 1.2 * budget.total
    assert not caplog.records


def test_a_view_that_serves_all_folds_is_no_training_of_the_one_that_makes_it(make_job):
    time, job = Time(), make_job()
    budget, run = budget_of(10, time, 2), bare_run(job, steps=20, epochs=9)
    budget.begin(("d", "s", "m", 0), None)
    run.stages[0].features = "views"  # type: ignore[misc]
    steps = iter([90.0])
    list(walk(run, budget, time, lambda _: next(steps, 0.5), look=1.0))
    assert run.budget is not None
    view = 90.0 - 0.5
    assert run.budget["trained"] == pytest.approx(time.seconds - view)
    # what is left of the view's time is shared: this fold has half of it
    assert time.seconds - view == pytest.approx((600 - view) / 2, rel=0.08)


@pytest.mark.parametrize(("seconds", "batch"), [(100, 0), (13, 3), (4, 0), (40.5, 9), (1, 9)])
def test_batches_in_is_the_most_that_fit(seconds, batch):
    def cost(batches: int) -> float:
        epochs = -(-(batch + batches) // 10)
        return batches * 1.0 + 3.0 * epochs

    found = batches_in(seconds, 1.0, 3.0, batch, 10)
    fits = [n for n in range(200) if cost(n) <= seconds]
    assert found <= max(fits, default=0)
    # An epoch that would be its evaluation alone is not begun.
    assert cost(found + 1) > seconds or (batch + found) % 10 == 0


class Slow:
    """The loss, each of whose batches takes time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, time: Time, seconds: float = 1.0) -> None:
        loss = LOSSES.get("bce")

        def slow(*arguments: object) -> Any:
            time.seconds += seconds
            return loss(*arguments)  # type: ignore[arg-type]

        monkeypatch.setitem(LOSSES._things, "bce", slow)


TWO = {
    "strategy": "lp_ft",
    "transfer": {"head_epochs": 2, "cache_features": False},
    "optim": {"epochs": 2, "schedule": "one_cycle"},
}
WAYS: dict[str, dict[str, Any]] = {
    "two stages": TWO,
    "a mean of weights": {"optim": {"epochs": 3, "swa_epochs": 1, "ema_decay": None}},
    "added up": {"optim": {"epochs": 3, "accumulate": 2}},
    "block by block": {"transfer": {"unfreeze_every": 1}},
}


@pytest.mark.parametrize("way", WAYS)
def test_a_run_is_as_long_as_its_time_and_its_record_says_so(make_job, monkeypatch, way):
    time = Time()
    Slow(monkeypatch, time, 3.0)
    job = replace(make_job(**WAYS[way]), budget=budget_of(1, time))  # 3 batches an epoch
    assert fit_fold(job)
    record = record_of(job)
    said = record["budget"]
    assert said["ask"] == {"minutes": 1, "models": ["m"], "folds": [0]}
    assert 48 <= time.seconds <= 60
    # BatchNorm of a mean of weights looks at the last batches, and has no loss.
    assert said["epochs"] == pytest.approx(time.seconds / 9)
    assert said["seconds"] == time.seconds
    assert len(record["history"]) == -(-said["epochs"] // 1)
    made = sum(job.config.optim.epochs / stage["pace"] for stage in record["stages"][-1:])
    assert made > 2 if len(record["stages"]) > 1 else made == pytest.approx(said["epochs"])


def test_a_stop_costs_no_time_and_the_same_command_goes_on_in_what_is_left(make_job, monkeypatch):
    seconds = {}
    for cut in (None, 8):
        time = Time()
        job = replace(make_job(), budget=budget_of(1, time))
        if cut is not None:
            with monkeypatch.context() as patch:
                Slow(patch, time, 4.0)
                interrupt_at_batch(patch, cut)
                with pytest.raises(KeyboardInterrupt):
                    fit_fold(job)
            time.seconds = 0.0  # of another process; what the state says counts
            job = replace(make_job(), budget=budget_of(1, time))
        with monkeypatch.context() as patch:
            Slow(patch, time, 4.0)
            assert fit_fold(job)
        seconds[cut] = record_of(job)["budget"]["seconds"]
        assert record_of(job)["stages"][0]["pace"] == pytest.approx(9 / (seconds[cut] / 4), rel=0.1)
        paths.run_record(*job.names).unlink()
    assert all(44 <= one <= 60 for one in seconds.values()), seconds


def test_without_minutes_the_rest_of_a_run_goes_at_the_pace_of_its_config(make_job, monkeypatch):
    time = Time()
    job = replace(make_job(optim={"epochs": 6}), budget=budget_of(0.5, time))
    with monkeypatch.context() as patch:
        Slow(patch, time, 4.0)
        interrupt_at_batch(patch, 4)
        with pytest.raises(KeyboardInterrupt):
            fit_fold(job)
    plain = make_job(optim={"epochs": 6})
    assert fit_fold(plain)
    record = record_of(plain)
    assert record["budget"] is None
    # Two batches were measured, which go nowhere, and one went a third of the way, for there was
    # time for two more; the other 12 of the 18 are made one by one.
    assert record["stages"][0]["pace"] == 18 / 15


def test_too_little_time_is_refused_with_what_is_enough(make_job, monkeypatch):
    time = Time()
    Slow(monkeypatch, time, 4.0)
    job = replace(make_job(), budget=budget_of(0.3, time, folds=2))
    with pytest.raises(
        UserError, match=r"--minutes 0.3: .* fold 0 of m. Take --minutes 1, one fol"
    ):
        fit_fold(job)
    assert not paths.run_state(*job.names).exists()
    late = replace(make_job(), budget=budget_of(1, time, used=90.0))
    with pytest.raises(UserError, match="no time is left for fold 0 of m"):
        fit_fold(late)
    time.seconds = 0.0
    assert fit_fold(replace(make_job(), budget=budget_of(2, time, folds=2)))


def test_what_is_finished_counts_where_the_same_was_asked(make_job, monkeypatch):
    time = Time()
    Slow(monkeypatch, time, 6.0)
    job = replace(make_job(), budget=budget_of(2, time, folds=2))
    assert fit_fold(job)
    taken = record_of(job)["budget"]["seconds"]
    same = Budget.of(2, "tiny", "s", ["m"], [0, 1], overwrite=False)
    assert (same.used, same.waiting) == (taken, {("m", 1)})
    assert not fit_fold(replace(make_job(), budget=same))
    assert Budget.of(3, "tiny", "s", ["m"], [0, 1], overwrite=False).used == 0
    assert Budget.of(2, "tiny", "s", ["m"], [0], overwrite=False).used == 0
    again = Budget.of(2, "tiny", "s", ["m"], [0, 1], overwrite=True)
    assert (again.used, len(again.waiting)) == (0, 2)
    assert not fit_fold(make_job())  # nor without a budget: the record says what it is


def test_a_refit_makes_the_epochs_of_its_folds(make_job):
    folds = [replace(make_job(fold=fold), paces=[pace]) for fold, pace in enumerate([3.0, 1.5])]
    assert all(fit_fold(fold) for fold in folds)
    assert [record_of(fold)["stages"][0]["pace"] for fold in folds] == [3.0, 1.5]
    names = (folds[0].dataset, folds[0].scheme, folds[0].model, folds[0].config)
    paces = refit_paces(*names, [0, 1, 2])
    assert paces == [pytest.approx(2.0)]  # 1 and 2 of the config's 3 epochs: 1.5
    refit = replace(make_job(fold="all"), paces=paces)
    assert fit_fold(refit)
    record = record_of(refit)
    assert len(record["history"]) == 2  # 6 batches an epoch, 9 in all
    assert record["stages"][0]["pace"] == 2.0
    assert not fit_fold(refit)
    with pytest.raises(UserError, match="its folds make another number of epochs now"):
        fit_fold(replace(refit, paces=[0.5]))
    for fold in folds:
        path = paths.run_record(*fold.names)
        change_sealed(path, {"stages": [record["stages"][0] | {"pace": 1.0}]})
    assert refit_paces(*names, [0, 1, 2]) is None


def test_the_mean_of_weights_reaches_as_far_back_along_the_schedule_at_any_pace(
    make_job, monkeypatch
):
    """Half as many steps of decay d^2 forget as much; only the start has a decay of its own."""
    seen = []

    def spy(self, model, step=None):
        seen.append(self.decay)

    monkeypatch.setattr("timm.utils.model_ema.ModelEmaV3.update", spy)
    assert fit_fold(replace(make_job(optim={"epochs": 4, "ema_decay": 0.9}), paces=[2.0]))
    assert seen == [pytest.approx(0.81)] * 6
