"""Predictions that are stopped, or end too late: what is done counts for the same question only."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from src.artifacts.recipes import Member, Recipe
from src.compute.clock import LEAVING_SECONDS, Clock, process_seconds
from src.compute.request import Compute
from src.config import InputSpec
from src.inference import passes
from src.inference.engines import Engine
from src.inference.stored import ItemsToPredict, Part
from src.inference.unfinished import (
    LONG_SECONDS,
    MEASURED_SECONDS,
    SAFETY,
    VOTING_SECONDS,
    Pace,
    Partial,
    TooSlowError,
    fitting_parts,
    without,
)
from src.training.job import Job
from src.training.trainer import fit_fold
from tests.asked import items_of, parts_of


class Left(Clock):
    """A clock on which this many seconds are left at a time, whatever the real one says."""

    def __init__(self, seconds: float | Callable[[], float]) -> None:
        super().__init__(1.0)
        self.seconds = seconds

    def left(self) -> float:
        return self.seconds() if callable(self.seconds) else self.seconds


class Batches:
    """A pass whose batches of ten items take these seconds; counts what it was told of."""

    def __init__(
        self,
        seconds: list[float],
        left: float | Callable[[float], float],
        *,
        keep_watching: bool = False,
    ) -> None:
        self.time = 0.0
        self.seconds = seconds
        clock = Left((lambda: left(self.time)) if callable(left) else left)
        self.pace = Pace(clock, keep_watching=keep_watching, now=lambda: self.time)

    def run(self) -> int:
        for number, taken in enumerate(self.seconds, 1):
            self.time += taken
            self.pace(number * 10, len(self.seconds) * 10)
        return len(self.seconds)

    def refused(self) -> TooSlowError:
        with pytest.raises(TooSlowError) as caught:
            self.run()
        return caught.value


def test_the_verdict_comes_after_the_warm_up_and_names_both_times() -> None:
    made = Batches([50.0, 50.0] + [2.0] * 98, VOTING_SECONDS + 100)
    slow = made.refused()
    assert made.time == 100 + 2 * 4  # four batches measured; the slow first two do not count
    assert slow.needed == pytest.approx(SAFETY * 94 * 2)
    assert slow.left == 100
    assert Batches([2.0] * 100, VOTING_SECONDS + 206).run()


def test_a_verdict_wants_some_seconds_or_one_long_batch() -> None:
    quick = Batches([0.01] * 10_000, 0.0)
    quick.refused()
    assert quick.time == pytest.approx(MEASURED_SECONDS, abs=0.05)
    slow = Batches([LONG_SECONDS + 1] * 5, 0.0)
    assert slow.refused().needed == pytest.approx(SAFETY * 2 * (LONG_SECONDS + 1))
    assert slow.time == 3 * (LONG_SECONDS + 1)


@pytest.mark.parametrize("count", [1, 2, 3, 6, 20])
def test_the_last_batch_is_never_too_late(count: int) -> None:
    made = Batches([2.0] * count, lambda time: 1e9 if time < 2 * count else 0.0, keep_watching=True)
    assert made.run() == count


def test_a_pass_that_slows_down_is_ended_only_where_members_can_be_dropped() -> None:
    def left(time: float) -> float:
        return VOTING_SECONDS + 220 - time

    seconds = [1.0] * 50 + [10.0] * 50
    assert Batches(seconds, left).run()
    Batches(seconds, left, keep_watching=True).refused()


def test_the_clock_keeps_time_for_leaving() -> None:
    clock = Clock(1.0)
    assert clock.left() == pytest.approx(3600 - LEAVING_SECONDS - process_seconds(), abs=0.1)


def part(model: str, fold: int = 0) -> Part:
    return Part(model, fold, Path(f"{model}{fold}"), f"{model}{fold}", Path("v"))


def weighing(weights: dict[str, float]) -> Recipe:
    members = [Member(model, weight, 0.5, [0, 1]) for model, weight in weights.items()]
    return Recipe("d", "s", [0, 1], "", members, [])


def test_members_of_the_lowest_weight_go_first_and_of_equal_ones_the_slower() -> None:
    parts = [part(model, fold) for model in "abc" for fold in range(2)]
    recipe = weighing({"a": 0.4, "b": 0.3, "c": 0.3})
    costs = [1.0, 1.0, 1.0, 1.0, 2.0, 2.0]
    wanted = {8: 6, 7.9: 4, 3.9: 2, 1.9: 1, 0.9: 0}  # room: how many of the first
    assert {r: fitting_parts(recipe, parts, costs, r) for r in wanted} == {
        room: parts[:count] for room, count in wanted.items()
    }


@given(
    st.lists(st.floats(0.1, 10), min_size=1, max_size=12),
    st.lists(st.sampled_from([0.1, 0.2, 0.5]), min_size=4, max_size=4),
    st.floats(0, 100),
)
def test_what_is_kept_fits_and_no_member_of_more_weight_was_dropped_for_one_of_less(
    costs: list[float], weights: list[float], room: float
) -> None:
    parts = [part("abcd"[i % 4], i // 4) for i in range(len(costs))]
    weight = dict(zip("abcd", weights, strict=True))
    kept = fitting_parts(weighing(weight), parts, costs, room)
    cost = dict(zip(parts, costs, strict=True))
    assert sum(cost[one] for one in kept) <= room
    gone = {one.model for one in parts} - {one.model for one in kept}
    if kept:
        assert max((weight[m] for m in gone), default=0) <= min(weight[p.model] for p in kept)
    if sum(costs) <= room:
        assert kept == parts


def test_members_without_predictions_weigh_nothing() -> None:
    recipe = weighing({"a": 0.6, "b": 0.4})
    assert [m.weight for m in without(recipe, [part("a")]).members] == [0.6, 0.0]
    assert without(recipe, [part("a"), part("b", 1)]) == recipe


def test_a_pass_that_is_stopped_goes_on_and_gives_equal_logits(
    make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [make_job(fold=fold, tta="flip", optim={"epochs": 1}) for fold in range(2)]
    assert all(fit_fold(job) for job in jobs)
    items, parts = items_of(jobs[0]), parts_of(*jobs)

    def predict(on_batch: Callable[[int, int], None] | None = None) -> list[bytes]:
        passes.predict_parts(parts, items, Compute("cpu", "fp32", 0, batch_size=8), on_batch)
        return [one.views.read_bytes() for one in parts]

    whole = predict()
    for stop in (TooSlowError(9, 1), KeyboardInterrupt()):
        for one in parts:
            one.views.unlink()
        told: list[int] = []

        def ends(done: int, total: int, told: list[int] = told, stop: BaseException = stop) -> None:
            told.append(done)
            if len(told) == 3:
                raise stop

        with pytest.raises(type(stop)):
            predict(ends)
        assert not any(one.views.exists() for one in parts)
        assert predict(ends) == whole
        assert told[3] > told[2]  # goes on after what was done
        assert sorted(set(told)) == sorted(told)

    # In a later pass it names what the earlier ones wrote.
    monkeypatch.setattr(passes, "_room", lambda _: 0)  # a pass each
    for one in parts:
        one.views.unlink()

    def late(done: int, total: int) -> None:
        if done == total:
            raise TooSlowError(9, 1)

    with pytest.raises(TooSlowError) as caught:
        predict(late)
    assert caught.value.finished == parts[:1]
    assert [one.views.exists() for one in parts] == [True, False]


# Rows of an unfinished pass

ITEMS = ItemsToPredict(Path(), [], [], "")
PARTS, VIEWS = [part("a"), part("b")], [["full"], ["full", "full+flip"]]
TABLE, READABLE = np.arange(30.0).reshape(10, 3), np.arange(10) != 4
Rows = tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]


def partial(mark: str = "x") -> Partial:
    return Partial(PARTS, ITEMS, VIEWS, lambda: [{"items": mark}] * 2)


def save(done: int) -> Partial:
    """Save the first rows of `TABLE`, whatever was saved before."""
    made = partial()
    made.begin(TABLE.copy(), READABLE.copy(), ~READABLE)
    made.done = done
    made.save()
    return made


def begin(mark: str = "x") -> int:
    again, seen, cut = np.full((10, 3), np.nan), np.zeros(10, bool), np.zeros(10, bool)
    done = partial(mark).begin(again, seen, cut)
    np.testing.assert_array_equal(again[:done], TABLE[:done])
    assert np.isnan(again[done:]).all()
    assert seen[:done].tolist() == READABLE[:done].tolist()
    assert cut[:done].tolist() == (~READABLE[:done]).tolist()
    return done


@pytest.mark.usefixtures("artefact_root")
def test_rows_of_other_items_or_precision_or_a_damaged_file_do_not_count() -> None:
    first = save(6)
    assert begin() == 6
    assert begin("other") == 0
    file = first.files[0]
    with np.load(file) as content:
        good = dict(content)
    for kept in ("logits", "readable"):
        for bad in (good[kept][:5], good[kept].astype(np.float32), np.array(1.0)):
            np.savez(file, **{**good, kept: bad})
            assert begin() == 0
    np.savez(file, **good)
    assert begin() == 6
    first.files[1].write_bytes(b"PK damaged")
    assert begin() == 0
    first.discard()
    assert not file.exists()
    partial().save()  # ends before its first batch
    assert not file.exists()


@pytest.mark.usefixtures("artefact_root")
def test_fewer_rows_do_not_replace_more_of_the_same() -> None:
    first = save(8)
    long = first.files[0].read_bytes()
    first.files[1].unlink()
    second = save(3)
    assert first.files[0].read_bytes() == long
    assert begin() == 3
    second.done = 9
    second.save()
    assert begin() == 9


class Deciding:
    """Stands for an engine that its first batch decides, and that remembers."""

    engine = "eager"
    spec = InputSpec(8, 8, "squash", "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

    def __init__(self, precision: str) -> None:
        self.precision = precision

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        raise AssertionError


@pytest.mark.usefixtures("artefact_root")
def test_rows_count_for_the_precision_they_were_made_in(monkeypatch: pytest.MonkeyPatch) -> None:
    remembered = [""]
    resumed: list[tuple[int, float]] = []

    def load_engine(*given: object) -> tuple[Deciding, list[str]]:
        compute = given[3]
        assert isinstance(compute, Compute)
        wanted = compute.precision
        return Deciding(remembered[0] if wanted == "auto" else wanted), ["full"]

    def predict_each(engines: list[Engine], *_: object, partial: Partial, **__: object) -> None:
        table, readable = np.full((128, 1), np.nan), np.zeros(128, bool)
        done = partial.begin(table, readable, np.zeros(128, bool))
        resumed.append((done, float(table[0, 0])))
        if not engines[0].precision:
            engines[0].precision = remembered[0] = "bf16"
        table[done : done + 64] = {"bf16": 16.0, "fp32": 32.0}[engines[0].precision]
        partial.after_batch(done + 64)
        raise KeyboardInterrupt

    monkeypatch.setattr(passes, "load_engine", load_engine)
    monkeypatch.setattr(passes, "read_input", lambda _: (Deciding.spec, ["full"]))
    monkeypatch.setattr(passes, "predict_each", predict_each)
    names = [str(number) for number in range(128)]
    items = ItemsToPredict(Path(), names, names, "manifest")

    def go(precision: str) -> tuple[int, float]:
        with pytest.raises(KeyboardInterrupt):
            passes._one_pass(PARTS[:1], items, Compute("cpu", precision), lambda *_: None)
        return resumed[-1]

    assert go("auto")[0] == 0
    assert go("auto") == (64, 16.0)
    assert go("fp32")[0] == 0
    assert go("fp32") == (64, 32.0)
    remembered[0] = ""
    assert go("auto")[0] == 0
