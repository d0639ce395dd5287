"""A command as a process: its log, how it ended, and the signals that must not reach it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from src.launch.child import JobOrder, read_state, run_order

SLEEPER = "import time; print('he' + 're', flush=True); time.sleep(60)"
# Runs an order in a process of its own, which a test can kill.
RUNNER = """
import json, sys
from src.launch.child import JobOrder, run_order
run_order(JobOrder(**json.loads(sys.argv[1])))
"""


def order(home: Path, *words: str, secret: str = "s") -> JobOrder:
    (home / ".token").write_text("s")
    return JobOrder(
        "job", words, sys.executable, str(home), {"GREETING": "hi"}, str(home / "job.log"),
        str(home / "job.json"), str(home / ".token"), secret,
    )  # fmt: skip


def wait_for(path: Path, text: str) -> None:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        if path.exists() and text in path.read_text():
            return
        time.sleep(0.05)
    raise AssertionError(path.read_text() if path.exists() else f"no {path}")


def test_output_code_place_and_variables(tmp_path: Path) -> None:
    code = "import os, sys; print(os.environ['GREETING'], os.getcwd()); print('e', file=sys.stderr)"
    assert run_order(order(tmp_path, "-c", f"{code}; sys.exit(3)")) == ""
    lines = (tmp_path / "job.log").read_text().splitlines()
    assert sorted(lines[1:]) == ["e", f"hi {tmp_path}"]
    state = read_state(tmp_path / "job.json")
    assert state is not None
    assert (state["code"], state["words"][0]) == (3, "-c")
    assert state["began"] <= state["ended"] <= time.time()
    assert list(tmp_path.glob("*.new")) == []


def test_a_machine_that_does_not_see_our_files_says_so(tmp_path: Path) -> None:
    said = run_order(order(tmp_path, "-c", "print('never')", secret="other"))
    assert "no shared file system" in said
    assert not (tmp_path / "job.json").exists()


def test_it_ends_with_who_waits_for_it_and_no_other_signal_reaches_it(tmp_path: Path) -> None:
    import json
    from dataclasses import asdict

    words = [sys.executable, "-c", RUNNER, json.dumps(asdict(order(tmp_path, "-c", SLEEPER)))]
    runner = subprocess.Popen(words)
    try:
        wait_for(tmp_path / "job.log", "here")
        (child,) = [int(one) for one in _children(runner.pid)]
        os.kill(child, signal.SIGUSR2)  # as SLURM sends to all of a job
        time.sleep(0.3)
        assert _lives(child)
        assert os.getpgid(child) != os.getpgid(runner.pid)  # Ctrl-C is for the launcher alone
        runner.kill()
        runner.wait()
        until = time.monotonic() + 20
        while _lives(child) and time.monotonic() < until:
            time.sleep(0.05)
        assert not _lives(child)
    finally:
        runner.kill()


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
