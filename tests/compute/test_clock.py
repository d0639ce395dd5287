"""A stop at any moment: the state is saved where it happens, and the rest gives equal bytes."""

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
import torch

from src import paths
from src.cli.common import run_command
from src.compute import clock as clock_module
from src.compute.clock import Clock, TimeUpError, in_words, process_seconds
from src.errors import UserError
from src.losses import LOSSES
from src.training import resume, trainer
from src.training.job import Job, Options
from src.training.trainer import fit_fold
from tests.conftest import REPO

MakeJob = Callable[..., Job]
STEPS = 7  # 30 rows in batches of 4
EPOCHS = 3
SMALL = {"optim": {"batch_size": 4}, "backbone": {"drop_rate": 0.4}}


def options(max_hours: float | None = None, workers: int = 0) -> Options:
    return Options("cpu", "fp32", workers, clock=Clock(max_hours), cache="none")


def oof_bytes(job: Job) -> bytes:
    return paths.oof_csv(*job.names).read_bytes()


class Counter:
    """The loss, counted; at the batches named it does something else first."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loss, self.calls = LOSSES.get("bce"), 0
        self.at: dict[int, Callable[[], None]] = {}
        monkeypatch.setitem(LOSSES._things, "bce", self)

    def __call__(self, *arguments: object) -> torch.Tensor:
        self.calls += 1
        self.at.get(self.calls, lambda: None)()
        return self.loss(*arguments)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """Hear signals as in a terminal: `nohup` and `&` in a script leave some of them ignored."""
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for number in before:
        signal.signal(number, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


_WHOLE: list[bytes] = []


@pytest.fixture
def whole(make_job: MakeJob) -> bytes:
    """Return the out-of-fold file of a run that nothing stops; trained once."""
    if not _WHOLE:
        job = make_job(model="whole", **SMALL)
        fit_fold(job)
        _WHOLE.append(oof_bytes(job))
    return _WHOLE[0]


@pytest.fixture
def cut(make_job: MakeJob, whole: bytes) -> Job:
    return make_job(model="cut", options=options(), **SMALL)


def rest_of(make_job: MakeJob) -> bytes:
    """Let the cut run go on to its end; returns its out-of-fold file."""
    job = make_job(model="cut", options=options(), **SMALL)
    assert fit_fold(job)
    return oof_bytes(job)


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> Counter:
    return Counter(monkeypatch)


def send(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    ("number", "batch"),
    [(signal.SIGINT, 1), (signal.SIGTERM, STEPS + 3), (signal.SIGHUP, 2 * STEPS)],
)
def test_a_signal_is_obeyed_after_the_step_and_no_batch_is_trained_twice(
    make_job: MakeJob, whole: bytes, cut: Job, counter: Counter, number: int, batch: int
) -> None:
    counter.at = {batch: send(number)}
    with cut.options.clock.running(), pytest.raises(KeyboardInterrupt):
        fit_fold(cut)
    assert counter.calls == batch
    state = torch.load(paths.run_state(*cut.names), weights_only=True)  # noqa: TID251
    epoch, last = divmod(batch - 1, STEPS)
    assert (state["epoch"], state["batch"]) == (epoch, last + 1)
    counter.at = {}
    assert rest_of(make_job) == whole
    assert counter.calls == EPOCHS * STEPS


@pytest.mark.nightly
def test_many_stops_with_workers_accumulation_and_periodic_saves(
    make_job: MakeJob, counter: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps are two batches long, the last of an epoch one."""
    changes = {"optim": {"batch_size": 4, "accumulate": 2}, "backbone": {"drop_rate": 0.4}}
    whole = make_job(model="whole", **changes)
    fit_fold(whole)
    saves: list[int] = []
    save = resume.checkpoint.save_state
    monkeypatch.setattr(resume, "EVERY_SECONDS", 0.0)
    monkeypatch.setattr(resume, "COST_SHARE", 0.0)
    monkeypatch.setattr(
        resume.checkpoint, "save_state", lambda *a: (saves.append(a[1]["batch"]), save(*a))
    )
    for turn in range(20):
        cut = make_job(model="cut", options=options(workers=turn % 2), **changes)
        counter.calls, counter.at = 0, {3: send(signal.SIGTERM)}
        with cut.options.clock.running(), suppress(KeyboardInterrupt):
            fit_fold(cut)
            break
        gc.collect()  # the loader's processes hold the run's lock
    assert turn > 2
    assert set(saves) == {0, 2, 4, 6, 7}
    assert oof_bytes(whole) == oof_bytes(cut)


@pytest.mark.parametrize("moment", ["saved", "scored"])
def test_a_signal_at_the_end_of_an_epoch_keeps_the_epoch(
    make_job: MakeJob, whole: bytes, cut: Job, counter: Counter,
    monkeypatch: pytest.MonkeyPatch, moment: str,
) -> None:  # fmt: skip
    save = resume.checkpoint.save_state
    with monkeypatch.context() as patch, cut.options.clock.running():
        if moment == "saved":
            patch.setattr(
                resume.checkpoint, "save_state", lambda *a: (send(signal.SIGTERM)(), save(*a))
            )
        else:
            patch.setattr(trainer, "predict_shared", lambda *_, **__: send(signal.SIGTERM)())
        with pytest.raises(KeyboardInterrupt):
            fit_fold(cut)
    assert counter.calls == STEPS
    state = torch.load(paths.run_state(*cut.names), weights_only=True)  # noqa: TID251
    if moment == "saved":
        assert (state["epoch"], state["batch"]) == (1, 0)
    assert rest_of(make_job) == whole
    assert counter.calls == EPOCHS * STEPS


def test_a_limit_that_ends_before_anything_is_refused() -> None:
    with pytest.raises(UserError, match=r"--max-hours 0.002 is 7 s, and 10 of them are kept back"):
        Clock(0.002)


def test_a_second_signal_leaves_at_once(make_job: MakeJob, counter: Counter) -> None:
    job = make_job(options=options(), **SMALL)

    def twice() -> None:
        send(signal.SIGINT)()
        send(signal.SIGINT)()

    counter.at = {3: twice}
    with job.options.clock.running(), pytest.raises(KeyboardInterrupt):
        fit_fold(job)
    assert not paths.run_state(*job.names).exists()


def test_the_limit_stops_in_mid_epoch_and_the_next_call_finishes(
    make_job: MakeJob, whole: bytes, counter: Counter, caplog: pytest.LogCaptureFixture
) -> None:
    limit = (process_seconds() + 1.0 + clock_module.LEAVING_SECONDS) / 3600
    cut = make_job(model="cut", options=options(limit), **SMALL)
    counter.at = {STEPS + 2: lambda: time.sleep(2)}
    with (
        caplog.at_level("INFO", "rvf"),
        cut.options.clock.running(),
        pytest.raises(TimeUpError, match=f"time is up after .*--max-hours {limit:g}"),
    ):
        fit_fold(cut)
    assert "saved in epoch 2 of 3 after batch 2 of 7" in caplog.text
    assert process_seconds() < limit * 3600
    counter.at = {}
    assert rest_of(make_job) == whole


def test_a_fold_whose_first_epoch_would_not_fit_is_not_begun(make_job: MakeJob) -> None:
    first = make_job(options=options(process_seconds() / 3600 + 0.02))
    fit_fold(first)
    clock = first.options.clock
    assert 0 < clock.epoch_seconds < 20
    clock.epoch_seconds = 80.0
    with pytest.raises(TimeUpError, match="fold 1 is not begun: an epoch takes about 80 s, and"):
        fit_fold(make_job(fold=1, options=first.options))
    assert not paths.run_state("tiny", "s", "m", 1).exists()


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (TimeUpError("time is up after 40 s"), 0, "time is up after 40 s; the same command goes"),
        (None, 130, "interrupted; the same command goes on"),
    ],
)
def test_a_command_ends_with_its_exit_code(
    capsys: pytest.CaptureFixture[str], raised: BaseException | None, code: int, said: str
) -> None:
    def command(_: object) -> None:
        if raised is None:
            send(signal.SIGTERM)()
            time.sleep(5)
        else:
            raise raised

    before = signal.getsignal(signal.SIGTERM)
    assert run_command(command, []) == code
    assert said in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_that_the_shell_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Clock().running():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            send(signal.SIGINT)()
    finally:
        signal.signal(signal.SIGINT, before)


def test_time_counts_from_the_start_of_the_process() -> None:
    code = "import time; time.sleep(1); from src.compute import clock; print(clock._age(), end='')"
    code += "; print('', clock.process_seconds())"
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True
    )
    taken = time.monotonic() - began
    for seconds in map(float, done.stdout.split()):
        assert 1.0 <= seconds <= taken + 1.1  # the kernel counts from a whole second


@pytest.mark.parametrize(
    ("seconds", "words"), [(4, "4 s"), (119, "119 s"), (180, "3 min"), (11520, "3.2 h")]
)
def test_lengths_of_time_are_said_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
