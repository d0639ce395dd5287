"""Prediction against the clock: measured, refused early, fitted; and what is done stays done."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.artifacts.recipes import Member, Recipe
from src.compute.clock import LEAVING_SECONDS, Clock, process_seconds
from src.compute.request import Compute
from src.inference import passes, stored
from src.inference.in_time import (
    LONG_SECONDS,
    MEASURED_SECONDS,
    SAFETY,
    VOTING_SECONDS,
    Pace,
    TooSlowError,
    fitting_parts,
    without,
)
from src.inference.stored import Part, TestItems
from src.training.job import Job
from src.training.trainer import fit_fold


class Left(Clock):
    """A clock on which this many seconds are left, whatever happens."""

    def __init__(self, seconds: float) -> None:
        super().__init__(1.0)
        self.seconds = seconds

    def left(self) -> float:
        return self.seconds


def run_pass(pace: Pace, time: list[float], seconds: list[float], size: int = 10) -> int:
    """Tell of batches that take these seconds; returns how many were told of."""
    for number, taken in enumerate(seconds, 1):
        time[0] += taken
        pace(number * size, len(seconds) * size)
    return len(seconds)


def test_the_verdict_comes_after_the_warm_up_and_names_both_times() -> None:
    time = [0.0]
    pace = Pace(Left(VOTING_SECONDS + 100), now=lambda: time[0])
    with pytest.raises(TooSlowError) as caught:
        run_pass(pace, time, [50.0, 50.0] + [2.0] * 98)
    assert time[0] == 100 + 2 * 4  # four batches measured; the slow first two do not count
    assert caught.value.needed == pytest.approx(SAFETY * 94 * 2)
    assert caught.value.left == 100
    time[0] = 0.0
    assert run_pass(Pace(Left(VOTING_SECONDS + 206), now=lambda: time[0]), time, [2.0] * 100)


def test_quick_batches_are_measured_for_some_seconds() -> None:
    time = [0.0]
    pace = Pace(Left(0.0), now=lambda: time[0])
    with pytest.raises(TooSlowError):
        run_pass(pace, time, [0.01] * 10_000)
    assert time[0] == pytest.approx(MEASURED_SECONDS, abs=0.05)


def test_few_long_batches_get_a_verdict_after_one_of_them() -> None:
    time = [0.0]
    with pytest.raises(TooSlowError) as caught:
        run_pass(Pace(Left(0.0), now=lambda: time[0]), time, [LONG_SECONDS + 1] * 5)
    assert time[0] == 3 * (LONG_SECONDS + 1)
    assert caught.value.needed == pytest.approx(SAFETY * 2 * (LONG_SECONDS + 1))


@pytest.mark.parametrize("count", [1, 2, 3, 6, 20])
def test_the_last_batch_is_never_too_late(count: int) -> None:
    time = [0.0]
    clock = Left(1e9)
    clock.left = lambda: 1e9 if time[0] < 2 * count else 0.0  # type: ignore[method-assign]
    pace = Pace(clock, keep_watching=True, now=lambda: time[0])
    assert run_pass(pace, time, [2.0] * count) == count


def test_a_pass_that_slows_down_is_ended_only_where_members_can_be_dropped() -> None:
    seconds = [1.0] * 50 + [10.0] * 50
    time = [0.0]
    clock = Left(0.0)
    clock.left = lambda: VOTING_SECONDS + 220 - time[0]  # type: ignore[method-assign]
    assert run_pass(Pace(clock, now=lambda: time[0]), time, seconds)
    time[0] = 0.0
    watching = Pace(clock, keep_watching=True, now=lambda: time[0])
    with pytest.raises(TooSlowError):
        run_pass(watching, time, seconds)


def parts_of(folds: dict[str, int]) -> list[Part]:
    return [
        Part(model, fold, Path(f"{model}{fold}"), f"{model}{fold}", Path("v"))
        for model, count in folds.items()
        for fold in range(count)
    ]


def recipe_of(weights: dict[str, float]) -> Recipe:
    members = [Member(model, weight, 0.5, {}) for model, weight in weights.items()]
    return Recipe("d", "s", [0, 1], "", members, [])


def test_members_of_the_lowest_weight_go_first_and_of_equal_ones_the_slower() -> None:
    parts = parts_of({"a": 2, "b": 2, "c": 2})
    recipe = recipe_of({"a": 0.4, "b": 0.3, "c": 0.3})

    def kept(room: float) -> str:
        costs = [{"a": 1.0, "b": 1.0, "c": 2.0}[part.model] for part in parts]
        found = fitting_parts(recipe, parts, costs, room)
        return " ".join(f"{part.model}{part.fold}" for part in found)

    assert kept(8) == "a0 a1 b0 b1 c0 c1"
    assert kept(7.9) == "a0 a1 b0 b1"
    assert kept(3.9) == "a0 a1"
    assert kept(1.9) == "a0"
    assert kept(0.9) == ""


@given(
    st.lists(st.floats(0.1, 10), min_size=1, max_size=12),
    st.lists(st.sampled_from([0.1, 0.2, 0.5]), min_size=4, max_size=4),
    st.floats(0, 100),
)
def test_what_is_kept_fits_and_no_member_of_more_weight_was_dropped_for_one_of_less(
    costs: list[float], weights: list[float], room: float
) -> None:
    names = "abcd"
    parts = [Part(names[i % 4], i // 4, Path("x"), str(i), Path("v")) for i in range(len(costs))]
    weight = dict(zip(names, weights, strict=True))
    kept = fitting_parts(recipe_of(weight), parts, costs, room)
    cost = dict(zip(parts, costs, strict=True))
    assert sum(cost[part] for part in kept) <= room
    gone = {part.model for part in parts} - {part.model for part in kept}
    if kept:
        assert max((weight[m] for m in gone), default=0) <= min(weight[p.model] for p in kept)
    if sum(costs) <= room:
        assert kept == parts


def test_members_without_predictions_weigh_nothing() -> None:
    recipe = recipe_of({"a": 0.6, "b": 0.4})
    assert [m.weight for m in without(recipe, parts_of({"a": 1})).members] == [0.6, 0.0]
    assert without(recipe, parts_of({"a": 1, "b": 2})) == recipe


def test_a_pass_that_is_stopped_goes_on_and_gives_equal_logits(
    make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [make_job(fold=0, tta="flip"), make_job(fold=1, tta="flip")]
    for job in jobs:
        fit_fold(job)
    table = jobs[0].table
    ids = table["item_id"].tolist()
    items = TestItems(jobs[0].root, ids, table["path"].tolist(), "manifest")
    recipe = Recipe("tiny", "s", [0, 1], "", [Member("m", 1.0, 0.5, {})], [])
    parts = stored.needed_parts(recipe)

    def predict(on_batch: Callable[[int, int], None] | None = None) -> list[bytes]:
        passes.predict_parts(parts, items, Compute("cpu", "fp32", 0, batch_size=8), on_batch)
        return [part.views.read_bytes() for part in parts]

    whole = predict()
    for stop in (TooSlowError(9, 1), KeyboardInterrupt()):
        for part in parts:
            part.views.unlink()
        told: list[int] = []

        def ends(done: int, total: int, told: list[int] = told, stop: BaseException = stop) -> None:
            told.append(done)
            if len(told) == 3:
                raise stop

        with pytest.raises(type(stop)):
            predict(ends)
        assert not any(part.views.exists() for part in parts)
        assert predict(ends) == whole
        assert told[3] > told[2]  # goes on after what was done
        assert sorted(set(told)) == sorted(told)


def test_too_slow_in_a_later_pass_names_what_the_earlier_ones_wrote(
    make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [make_job(fold=fold) for fold in range(2)]
    for job in jobs:
        fit_fold(job)
    monkeypatch.setattr(passes, "_room", lambda _: 0)  # a pass each
    table = jobs[0].table
    items = TestItems(jobs[0].root, table["item_id"].tolist(), table["path"].tolist(), "m")
    recipe = Recipe("tiny", "s", [0, 1], "", [Member("m", 1.0, 0.5, {})], [])
    parts = stored.needed_parts(recipe)

    def ends(done: int, total: int) -> None:
        if done == total:
            raise TooSlowError(9, 1)

    with pytest.raises(TooSlowError) as caught:
        passes.predict_parts(parts, items, Compute("cpu", "fp32", 0), ends)
    assert caught.value.finished == parts[:1]
    assert [part.views.exists() for part in parts] == [True, False]


def test_the_clock_keeps_time_for_leaving() -> None:
    clock = Clock(1.0)
    assert clock.left() == pytest.approx(3600 - LEAVING_SECONDS - process_seconds(), abs=0.1)
