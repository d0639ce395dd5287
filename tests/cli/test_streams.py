"""Exit codes tell the truth, whoever reads and whatever runs out."""

import os
import subprocess
import sys

import pytest

from src import paths
from src.cli import parsers
from src.cli.common import run_command
from src.compute.request import Compute
from src.errors import UserError, memory_trouble
from tests.conftest import REPO
from tests.ensemble.synthetic import DATA, make_folds, make_oof

TUNE = [sys.executable, str(REPO / "tune.py"), "--data", DATA, "--strategies", "mean@0.5"]


@pytest.fixture
def tunable(artefact_root):
    folds = make_folds()
    make_oof(folds, "a")
    paths.dataset_dir(DATA).mkdir(parents=True)
    return paths.recipe_json(DATA, "tuned")


@pytest.mark.parametrize("closed", ["pipe", "stdout", "stderr", "both"])
def test_work_is_done_though_nobody_reads(tunable, closed):
    if closed == "pipe":
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run(TUNE, stdout=writer, stderr=subprocess.PIPE, check=False)
        os.close(writer)
        assert done.stderr == b""
    else:
        ends = {"stdout": ">&-", "stderr": "2>&-", "both": ">&- 2>&-"}[closed]
        done = subprocess.run(["sh", "-c", f'"$@" {ends}', "sh", *TUNE], check=False)
    assert done.returncode == 0
    assert tunable.is_file()


@pytest.mark.parametrize("flags", [["-I"], ["-OO"]])
def test_odd_ways_to_start_python(tunable, flags):
    done = subprocess.run([sys.executable, *flags, *TUNE[1:]], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


class CvError(Exception):
    """Stands for OpenCV's, which is no MemoryError."""


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"),
        RuntimeError("can't start new thread"),
        OSError(12, "Cannot allocate memory"),
        BlockingIOError(11, "Resource temporarily unavailable"),
        CvError("(-4:Insufficient memory) Failed to allocate 4 bytes in function 'OutOfMemory'"),
    ],
)
def test_memory_that_ran_out_is_one_message(error, capsys):
    def fail(argv):
        raise error

    assert run_command(fail, []) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert "lower --workers" in told
    assert len(told.splitlines()) == 1


def test_arrow_says_so_too():
    import pyarrow as pa

    with pytest.raises(pa.ArrowMemoryError) as caught:
        pa.allocate_buffer(2**62)
    assert "memory ran out" in (memory_trouble(caught.value) or "")


def test_absurd_numbers_and_devices_are_refused(capsys):
    for flag, value, match in (
        ("--workers", "5000", "want at most 512 processes"),
        ("--workers", "9" * 5000, "want a whole number"),
        ("--max-hours", "9" * 5000, "want hours"),
    ):
        assert parsers.main("train", ["--model", "compact32", flag, value]) == 2
        told = capsys.readouterr().err
        assert match in told
        assert len(told) < 2000
    with pytest.raises(UserError, match="--device meta: not usable here"):
        _ = Compute("meta").chip


def test_a_root_that_is_a_file_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("RVF_ROOT", str(tmp_path / "file" / "deeper"))
    with pytest.raises(UserError, match=r"file is a file; want a folder"):
        paths.check_root()


def test_names_move_no_cursor(capsys):
    def say(_argv):
        print("real/\x1b[2J\x07\x9b\u202egnp.exe \u5317\tx")  # noqa: T201
        raise UserError("fake/\x1b]0;title\x07.png")

    assert run_command(say, []) == 2
    said = capsys.readouterr()
    assert said.out == "real/\\x1b[2J\\x07\\x9b\\u202egnp.exe \u5317\tx\n"
    assert said.err == "error: fake/\\x1b]0;title\\x07.png\n"
