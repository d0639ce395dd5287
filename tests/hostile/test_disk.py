"""Disks that are full or forbidden, clocks that go back, two commands at once, leftovers."""

import io
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from src import paths
from src.artifacts import atomic, files
from src.artifacts.atomic import atomic_path, file_lock, remove_orphans
from src.errors import UserError, disk_trouble
from tests.hostile.conftest import (
    become_nobody,
    in_child,
    leftovers,
    predict,
    train,
    tree,
    tune,
)


def limit(size: int):
    """Return what lets no file of this process grow beyond `size` bytes: a disk that fills up."""

    def set_limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return set_limit


def said(work, before) -> tuple[str, str]:
    """Run a command in a child; returns its exit code or error, and what it wrote to stderr."""
    reading, writing = os.pipe()

    def run() -> object:
        os.dup2(writing, 2)
        sys.stderr = os.fdopen(2, "w")
        sys.stdout = io.StringIO()  # pytest's is a file, which is limited as well
        return work()

    answer = in_child(run, before)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        return answer, pipe.read().decode()


def assert_one_message(answer: str, text: str, *wanted: str) -> None:
    assert answer == "2", answer + text
    assert "Traceback" not in text
    assert text.count("error: ") == 1
    for word in wanted:
        assert word in text, text


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("size", [0, pytest.param(400, marks=pytest.mark.nightly), 3_000])
def test_a_disk_that_fills_up_in_training_ends_with_one_message(toy, artefact_root, size):
    """Wherever it strikes (folds, cache, state, checkpoint), the same command then finishes."""
    train("--fold", "0", "--cache", "none", report=True)
    whole = paths.oof_csv("toy", "sgkf2_s42", "small", 0).read_bytes()
    for folder in ("oof", "checkpoints", "folds", ".cache"):
        subprocess.run(["rm", "-r", str(artefact_root / folder)], check=True)
    answer, text = said(lambda: train("--fold", "0", report=True), limit(size))
    assert_one_message(answer, text)
    assert not paths.run_record("toy", "sgkf2_s42", "small", 0).exists()
    assert not leftovers(artefact_root)
    assert train("--fold", "0", report=True) == 0
    assert paths.oof_csv("toy", "sgkf2_s42", "small", 0).read_bytes() == whole


@pytest.mark.nightly
def test_a_full_disk_keeps_what_is_finished(toy, artefact_root):
    assert [train(), tune(), predict()] == [0, 0, 0]
    before = contents(artefact_root / "oof"), contents(artefact_root / "checkpoints")
    recipe = paths.recipe_json("toy", "tuned").read_bytes()
    submission = paths.submission_csv("toy", "tuned").read_bytes()
    for work in (tune, lambda: predict("--overwrite"), predict):
        answer, text = said(work, limit(20))
        assert_one_message(answer, text, "not written", str(artefact_root))
    assert paths.recipe_json("toy", "tuned").read_bytes() == recipe
    assert paths.submission_csv("toy", "tuned").read_bytes() == submission
    assert (contents(artefact_root / "oof"), contents(artefact_root / "checkpoints")) == before
    assert not leftovers(artefact_root)


@pytest.mark.parametrize("kind", ["torch", "safetensors", "parquet", "text"])
def test_every_writer_names_the_file_it_could_not_write(tmp_path, kind):
    def write() -> None:
        path = tmp_path / "out.bin"
        with atomic_path(path) as temporary:
            if kind == "torch":
                import torch

                torch.save({"a": torch.zeros(100_000)}, temporary)
            elif kind == "safetensors":
                import torch
                from safetensors.torch import save_file

                save_file({"a": torch.zeros(100_000)}, temporary)
            elif kind == "parquet":
                import numpy as np
                import pyarrow as pa
                import pyarrow.parquet as pq

                noise = np.random.default_rng(0).normal(size=100_000)
                pq.write_table(pa.table({"a": noise}), temporary)
            else:
                temporary.write_text("x" * 100_000)

    answer = in_child(write, limit(5000))
    assert answer.startswith(f"UserError: {tmp_path / 'out.bin'}: not written"), answer
    assert not list(tmp_path.iterdir())


def test_what_a_full_disk_is_called():
    for error in (
        OSError(28, "No space left on device"),
        RuntimeError("[enforce fail at inline_container.cc:672] . PytorchStreamWriter failed "
                     "writing file data/0: file write failed"),
        Exception("Error while serializing: I/O error: No space left on device (os error 28)"),
    ):  # fmt: skip
        assert "the disk is full" in (disk_trouble(error) or "")
    assert disk_trouble(ValueError("a bug")) is None
    assert disk_trouble(FileNotFoundError(2, "No such file")) is None


def test_a_full_standard_output_is_no_traceback(toy):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "src", "models"], cwd=paths.REPO, stdout=full,
            stderr=subprocess.PIPE, check=False, timeout=100,
        )  # fmt: skip
    assert b"Traceback" not in done.stderr
    assert b"the disk is full" in done.stderr
    assert done.returncode == 2


# --- no rights


def test_artefact_folders_that_may_not_be_written(open_root):
    before = tree(open_root)
    for work in (lambda: train("--fold", "0"), lambda: train()):
        answer, text = said(work, become_nobody)
        assert_one_message(answer, text, "no access", "RVF_ROOT", str(open_root))
    assert tree(open_root) == before


def test_a_read_only_input_trains_and_predicts_elsewhere(open_root, tmp_path, monkeypatch):
    home = open_root / "input"
    out = open_root / "out"
    out.mkdir()
    (open_root / "configs").rename(out / "configs")
    out.chmod(0o777)
    (out / "configs").chmod(0o777)
    for path in (home, *home.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    monkeypatch.setenv("RVF_ROOT", str(out))
    where = ["--input-root", str(home)]
    before = tree(home)
    answer = in_child(
        lambda: [train("--fold", "0", *where), tune(*where), predict(*where)], become_nobody
    )
    assert answer == "[0, 0, 0]", answer
    assert tree(home) == before
    for path in (home, *home.rglob("*")):
        path.chmod(0o755)


# --- leftovers, locks, clocks


def write_and_die(path: Path) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        os._exit(9)


def test_what_a_killed_process_left_is_cleared_by_the_next_writer(tmp_path, monkeypatch):
    path = tmp_path / "x.csv"
    in_child(lambda: write_and_die(path))
    assert len(leftovers(tmp_path)) == 1
    (tmp_path / ".hand.made.tmp").touch()  # not of our naming
    (tmp_path / "other.tmp").touch()
    monkeypatch.setattr(time, "time", lambda: -1e9)  # no clock is asked
    monkeypatch.setattr(atomic, "_SWEPT", set())
    files.write_text(path, "whole")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".hand.made.tmp", "other.tmp", "x.csv"]


def test_a_living_writer_loses_nothing(tmp_path):
    path = tmp_path / "x.csv"
    with atomic_path(path) as temporary:
        assert in_child(lambda: remove_orphans(tmp_path)) == "0"
        temporary.write_text("whole")
        assert remove_orphans(tmp_path) == 0
    assert path.read_text() == "whole"
    assert [p.name for p in tmp_path.iterdir()] == ["x.csv"]


def test_writers_keep_the_file_that_is_locked(toy, monkeypatch):
    """A library that put another file into the temporary's place would lose the lock."""
    move, kept = Path.replace, []

    def replace(temporary: Path, target: Path) -> Path:
        held = {fd.resolve().name for fd in Path("/proc/self/fd").iterdir()}
        kept.append((target.name, temporary.name in held))
        return move(temporary, target)

    monkeypatch.setattr(Path, "replace", replace)
    assert [train("--fold", "0", report=True), tune(), predict()] == [0, 0, 0]
    names = {name for name, _ in kept}
    assert {"fold_0.safetensors", "fold_0.state.pt", "fold_0.csv", "fold_0.json"} <= names
    assert {"tuned.json", "tuned.csv", "fold_0.views.parquet"} <= names
    assert [name for name, held in kept if not held] == []


def test_a_clock_that_goes_back_changes_nothing(toy, artefact_root, monkeypatch):
    train("--fold", "0")
    whole = paths.oof_csv("toy", "sgkf2_s42", "small", 0).read_bytes()
    for path in (toy / "train").rglob("*.png"):  # files of the future, and of before 1970
        os.utime(path, (4e9, 4e9))
    monkeypatch.setattr(time, "time", lambda: 1e6)
    assert train("--fold", "0", "--overwrite") == 0
    assert paths.oof_csv("toy", "sgkf2_s42", "small", 0).read_bytes() == whole
    for path in (toy / "train").rglob("*.png"):
        os.utime(path, (-1e6, -1e6))
    assert train("--fold", "0", "--overwrite") == 0
    assert paths.oof_csv("toy", "sgkf2_s42", "small", 0).read_bytes() == whole
    assert [tune(), predict()] == [0, 0]


def test_a_state_left_beside_a_finished_run_goes(toy, artefact_root):
    train("--fold", "0")
    state = paths.run_state("toy", "sgkf2_s42", "small", 0)
    state.write_bytes(b"killed between the record and this")
    assert train("--fold", "0") == 0
    assert not state.exists()


@pytest.mark.parametrize("step", ["train", "tune", "predict"])
def test_two_at_once_end_with_one_result(toy, artefact_root, step):
    """Two forks of one command at the same time: one result, as of one alone; nobody crashes."""
    work = {"train": lambda: train("--fold", "0"), "tune": tune, "predict": predict}
    order = ["train", "tune", "predict"]
    for earlier in order[: order.index(step)]:
        assert work[earlier]() == 0
    children = []
    for _ in range(2):
        pid = os.fork()
        if pid == 0:
            code = 99
            try:
                code = work[step]()
            finally:
                os._exit(code)
        children.append(pid)
    codes = sorted(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children)
    assert codes in ([0, 0], [0, 2]), codes  # 2: "another process is at work on ..."
    made = {
        "train": paths.oof_csv("toy", "sgkf2_s42", "small", 0),
        "tune": paths.recipe_json("toy", "tuned"),
        "predict": paths.submission_csv("toy", "tuned"),
    }[step]
    together = made.read_bytes()
    made.unlink()
    assert work[step]() == 0
    assert made.read_bytes() == together
    assert not leftovers(artefact_root)
    if step == "tune":
        assert json.loads(together)["members"][0]["model"] == "small"


@pytest.mark.parametrize(
    "text",
    [
        "[enforce fail at inline_container.cc:659] . unexpected pos 64 vs 0",
        "PytorchStreamWriter failed writing file data.pkl: file write failed",
        "basic_ios::clear: iostream error",  # the last bytes of a file
    ],
)
def test_what_torch_says_of_a_full_disk_is_understood(text):
    assert "the disk is full" in (disk_trouble(RuntimeError(text)) or "")


def test_a_lock_that_cannot_be_made_names_itself(open_root):
    answer = in_child(lambda: file_lock(open_root / "x.lock", "x").__enter__(), become_nobody)
    assert answer.startswith("UserError"), answer
    assert "x.lock" in answer


def test_an_interrupted_block_raises_what_it_was(tmp_path):
    with pytest.raises(ZeroDivisionError), atomic_path(tmp_path / "x"):
        1 / 0  # noqa: B018
    with pytest.raises(UserError, match="own words"), atomic_path(tmp_path / "x"):
        raise UserError("own words")
    assert not list(tmp_path.iterdir())
