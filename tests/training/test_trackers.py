"""Trackers and the epoch's log line; packages that are not installed are stood in for."""

import errno
import os
import sys
import threading
import time
from types import ModuleType, SimpleNamespace

import pytest

from src import paths
from src.cli.train import main
from src.errors import UserError
from src.training import trackers
from src.training.job import Options
from src.training.monitor import epoch_line
from src.training.trackers import QUIET, TRACKERS, Tracked, Tracker, check_tracker
from src.training.trainer import fit_fold
from tests.jobs import record_of

RUN = Tracked(("d", "s", "timm:x", 0), {"optim": {"lr": 1e-3}, "kwargs": {}, "seed": 42})
ENTRY = {"epoch": 2, "stage": "head", "train_loss": 0.5, "train_accuracy": 0.625, "log_loss": 0.7}
ENTRY |= {"items_per_second": 10.0, "macro_f1": 0.75}


@pytest.fixture(autouse=True)
def own_environment(artefact_root, monkeypatch):
    for name in (*QUIET, "WANDB_MODE", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "environ", os.environ.copy())  # the trackers set some


def test_a_tracker_that_is_not_there_is_refused_with_a_way_out(monkeypatch, capsys):
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"--track wandb: .* pip install wandb"):
        check_tracker("wandb")
    assert main(["--model", "nonsense", "--track", "wandb"]) == 2
    assert "pip install wandb" in capsys.readouterr().err
    assert main(["--model", "compact32", "--track", "tensorbord"]) == 2
    assert "unknown tracker 'tensorbord'; did you mean 'tensorboard'" in capsys.readouterr().err


def test_the_folder_of_a_trackers_runs_is_not_the_tracker(monkeypatch, tmp_path):
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    (tmp_path / "wandb").mkdir()
    with pytest.raises(UserError, match="pip install wandb"):
        check_tracker("wandb")


def test_tensorboard_holds_the_numbers_of_each_epoch():
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tracker = TRACKERS.get("tensorboard")(RUN)
    for epoch in (1, 2):
        tracker.log({"loss": 1 / epoch}, epoch)
    tracker.close()
    events = EventAccumulator(str(paths.tensorboard_dir(*RUN.names)))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(1, 1.0), (2, 0.5)]


def test_a_full_disk_is_raised_and_no_thread_prints_a_traceback(monkeypatch, capsys):
    from tensorboard.summary.writer import record_writer

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)
    monkeypatch.setattr(record_writer.RecordWriter, "write", full)

    def log_on():
        tracker = TRACKERS.get("tensorboard")(RUN)
        for epoch in range(100):
            tracker.log({"loss": 1.0}, epoch)
            time.sleep(0.02)

    with pytest.raises(OSError, match="No space left"):
        log_on()
    assert capsys.readouterr().err == ""


def fake_wandb(monkeypatch, calls):
    module = ModuleType("wandb")

    def init(**settings):
        calls.append(("init", settings, os.environ["WANDB_SILENT"]))
        return SimpleNamespace(
            log=lambda scores, step: calls.append(("log", scores, step)),
            finish=lambda: calls.append(("finish",)),
        )

    module.init = init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)


def test_wandb_is_offline_unless_asked_and_goes_on_in_its_run(monkeypatch):
    calls: list = []
    fake_wandb(monkeypatch, calls)
    for mode in (None, "online"):
        if mode:
            monkeypatch.setenv("WANDB_MODE", mode)
        tracker = TRACKERS.get("wandb")(RUN)
        tracker.log({"loss": 0.5}, 3)
        tracker.close()
    (_, first, _), log, done, (_, second, _), *_ = calls
    assert (first["mode"], second["mode"]) == ("offline", "online")
    assert first["id"] == second["id"]
    assert (first["name"], first["group"]) == ("timm:x fold 0", "d/s/timm:x")
    assert first["config"] == RUN.config
    assert first["dir"] == str(paths.run_dir("d", "s", "timm:x"))
    assert os.environ["DO_NOT_TRACK"] == "true"
    assert (log, done) == (("log", {"loss": 0.5}, 3), ("finish",))


def test_an_epoch_is_one_line_and_numbers_alone_are_tracked(make_job, monkeypatch):
    assert epoch_line(ENTRY, 5, 3.0) == (
        "head epoch 2/5: loss 0.5000 accuracy 0.6250 | held out at 0.5: loss 0.7000 macro_f1 "
        "0.7500 | 10 img/s 3 s"
    )
    bare = {"epoch": 3, "train_loss": 0.25, "items_per_second": 10.0}
    assert epoch_line(bare, 5, 3.0) == "epoch 3/5: loss 0.2500 | nothing held out | 10 img/s 3 s"
    seen: list = []
    tracker = Tracker(lambda scores, epoch: seen.append((scores, epoch)), lambda: seen.append("x"))
    monkeypatch.setattr(TRACKERS, "_things", {"mine": lambda run: tracker})
    two_stages = {"strategy": "two_stage", "transfer": {"head_epochs": 1, "last_blocks": 1}}
    options = Options("cpu", "fp32", 0, track="mine")
    job = make_job(options=options, optim={"epochs": 1}, **two_stages)
    assert fit_fold(job)
    history = record_of(job)["history"]
    assert [entry.pop("stage") for entry in history] == ["head", "last 1 blocks"]
    assert seen == [(history[0], 1), (history[1], 2), "x"]
