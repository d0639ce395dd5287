"""SLURM: with commands that only look like it, and (nightly) a real one of one node."""

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from src import paths
from src.errors import UserError
from src.launch.engines import Resources
from src.launch.engines.slurm import Slurm, slurm_minutes
from src.launch.run import Launch
from tests.conftest import REPO
from tests.launch.conftest import MakeTask
from tests.launch.serial import (  # noqa: F401 - fixtures
    FLAGS,
    artefacts,
    check_tuned,
    folds_of,
    serial_root,
    tiny_root,
    trained_root,
)
from tests.launch.slurm_cluster import slurm_conf  # noqa: F401 - a fixture

# `sbatch` that takes MOST jobs at a time and runs each in the background; `squeue` names them.
SBATCH = """#!/bin/bash
cd "$FAKE"
living=$(ls queue | wc -l)
if [ "$living" -ge "$MOST" ]; then
  echo 'sbatch: error: QOSMaxSubmitJobPerUserLimit' >&2
  echo 'sbatch: error: Batch job submission failed: Job violates accounting/QOS policy' >&2
  exit 1
fi
number=$(($(cat count) + 1)); echo $number > count
name=$(sed -n 's/^#SBATCH --job-name=//p' "$1")
echo "$number|$name|RUNNING|node1|None" > queue/$number
cp "$1" script.$number  # as SLURM does: submitit moves it at once
(SLURM_JOB_ID=$number bash script.$number &>> sbatch.log; rm queue/$number) &> /dev/null &
echo "Submitted batch job $number"
"""
SRUN = """#!/bin/bash
while [[ "$1" = -* ]]; do [ "$1" = --output ] && shift; shift; done
exec "$@"
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put commands on the PATH that look like SLURM's; returns the folder of its queue."""
    pytest.importorskip("submitit", reason="submitit is not installed")
    home, programs = tmp_path / "fake", tmp_path / "bin"
    (home / "queue").mkdir(parents=True)
    (home / "count").write_text("0\n")
    programs.mkdir()
    shown = "#!/bin/bash\ncat $FAKE/queue/* 2>/dev/null\nexit 0\n"
    texts = {"sbatch": SBATCH, "srun": SRUN, "squeue": shown, "scancel": "#!/bin/bash\n",
             "scontrol": "#!/bin/bash\n"}  # fmt: skip
    for name, text in texts.items():
        (programs / name).write_text(text)
        (programs / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE", str(home))
    monkeypatch.setenv("MOST", "2")
    monkeypatch.setattr("src.launch.engines.slurm.PAUSES", (0.2, 0.2))
    monkeypatch.setattr(Slurm, "sight_seconds", 0.3)
    return home


def slurm(**asked: str) -> Slurm:
    engine = Slurm(Resources("d", cores=1, slurm=asked))
    engine.check()
    return engine


def test_times_are_read_as_slurm_writes_them() -> None:
    times = {
        "90": 90,
        "90:30": 90,
        "8:00:00": 480,
        "1-0": 1440,
        "2-12:30": 3630,
        "x": None,
        "": None,
    }
    assert {text: slurm_minutes(text) for text in times} == times


def test_a_quota_is_waited_for_and_every_job_is_done_once(
    artefact_root: Path,
    fake: Path,
    tmp_path: Path,
    make_task: MakeTask,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_never_written")
    tasks = [make_task(name) for name in "abc"]
    tasks.append(make_task("bad", "raise ValueError('no such thing')"))
    launch = Launch(tasks, "d", slurm())
    launch.run()
    assert {name: row.state for name, row in launch.rows.items()} == {
        "a": "done", "b": "done", "c": "done", "bad": "failed",
    }  # fmt: skip
    assert launch.rows["bad"].note == "ValueError: no such thing"
    assert {path.read_text() for path in (tmp_path / "left").iterdir()} == {"x"}
    assert (fake / "count").read_text().strip() == "4"
    home = paths.launch_dir("d") / "slurm"
    assert stat.S_IMODE(home.stat().st_mode) == stat.S_IRWXU
    assert not [path for path in home.iterdir() if b"hf_never_written" in path.read_bytes()]


def test_what_slurm_refuses_at_once_is_said_in_its_words(
    artefact_root: Path, fake: Path, make_task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOST", "0")
    with pytest.raises(UserError, match="QOSMaxSubmitJobPerUserLimit; Batch job submission failed"):
        Launch([make_task("a")], "d", slurm()).run()
    with pytest.raises(UserError, match="want 5 minutes or more"):
        slurm(time="00:04:00")


def test_a_node_that_does_not_see_our_files_is_told_from_a_failure(
    artefact_root: Path, fake: Path, make_task: MakeTask
) -> None:
    (fake.parent / "bin" / "srun").write_text("#!/bin/bash\nexit 1\n")
    launch = Launch([make_task("a")], "d", slurm())
    launch.run()
    assert launch.rows["a"].state == "failed"
    assert "no shared file system?" in launch.rows["a"].note


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_real_jobs_leave_what_one_by_one_leaves_though_the_launcher_is_killed(
    serial_root: Path,  # noqa: F811
    tiny_root: Path,  # noqa: F811
    slurm_conf: Path,  # noqa: F811
) -> None:
    words = [sys.executable, "-m", "src", "launch", *FLAGS, "--on", "slurm", "--cpus-per-job", "1"]
    env = {**os.environ, "RVF_ROOT": str(tiny_root), "SLURM_CONF": str(slurm_conf)}
    first = subprocess.Popen(words, cwd=REPO, env=env, stdout=subprocess.DEVNULL)
    home, slurms = tiny_root / "checkpoints" / "tiny", tiny_root / "launches" / "tiny" / "slurm"
    wait(lambda: len(list(home.glob("*/*/fold_?.json"))) >= 2, 200)
    first.send_signal(signal.SIGKILL)
    first.wait()
    said = subprocess.run(words, cwd=REPO, env=env, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout + said.stderr
    assert "6 done" in said.stdout
    assert len(list(slurms.glob("*_submission.sh"))) == 6  # none was handed in twice
    assert artefacts(tiny_root) == folds_of(serial_root)


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_real_slurm_runs_workers_of_one_study(
    serial_root: Path,  # noqa: F811
    trained_root: Path,  # noqa: F811
    slurm_conf: Path,  # noqa: F811
) -> None:
    def launched(*more: str) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "src", "launch", "--data", "tiny", *more]
        words += ["--on", "slurm", "--cpus-per-job", "1"]
        env = {**os.environ, "RVF_ROOT": str(trained_root), "SLURM_CONF": str(slurm_conf)}
        return subprocess.run(words, cwd=REPO, env=env, capture_output=True, text=True, check=False)

    check_tuned(trained_root, serial_root, launched)


@pytest.mark.nightly
def test_real_slurm_queues_a_job_again_whose_time_is_over(
    artefact_root: Path,
    tmp_path: Path,
    slurm_conf: Path,  # noqa: F811
    make_task: MakeTask,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SLURM_CONF", str(slurm_conf))
    saved = tmp_path / "saved"
    code = (
        "import pathlib, signal, sys, time\n"
        f"saved = pathlib.Path({str(saved)!r})\n"
        "def end(*_):\n    saved.touch(); sys.exit(130)\n"
        "signal.signal(signal.SIGTERM, end)\nprint('rea' + 'dy', flush=True)\n"
        "time.sleep(0 if saved.exists() else 100)"
    )
    launch = Launch([make_task("long", code)], "d", slurm())
    log = paths.launch_log("d", "long")

    def warn() -> None:  # as SLURM does before the end
        wait(lambda: log.exists() and "ready" in log.read_text(), 60)
        subprocess.run(["scancel", "--signal=USR2", *list(launch.engine._ids.values())], check=True)

    threading.Thread(target=warn, daemon=True).start()
    launch.run()
    assert launch.rows["long"].state == "done"
    assert log.read_text().count("ready") == 2


@pytest.mark.nightly
def test_ctrl_c_takes_real_jobs_out_of_the_queue(
    artefact_root: Path,
    slurm_conf: Path,  # noqa: F811
    make_task: MakeTask,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SLURM_CONF", str(slurm_conf))
    code = (
        "import signal, sys, time\n"
        "def end(*_):\n    print('sa' + 'ved', flush=True); sys.exit(130)\n"
        "signal.signal(signal.SIGTERM, end)\nprint('rea' + 'dy', flush=True)\ntime.sleep(100)"
    )
    tasks = [make_task(name, code) for name in "abc"]  # two run, one waits
    launch = Launch(tasks, "d", slurm())
    logs = [paths.launch_log("d", name) for name in "abc"]

    def interrupt() -> None:
        wait(lambda: sum(log.exists() and "ready" in log.read_text() for log in logs) == 2, 60)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        launch.run()
    assert sorted(row.state for row in launch.rows.values()) == ["stopped", "stopped", "waiting"]
    assert sum(log.exists() and "saved" in log.read_text() for log in logs) == 2
    asked = subprocess.run(["squeue", "-h"], capture_output=True, text=True, check=True)
    assert asked.stdout == ""


@pytest.mark.nightly
def test_real_slurm_refuses_in_its_own_words(
    artefact_root: Path,
    slurm_conf: Path,  # noqa: F811
    make_task: MakeTask,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SLURM_CONF", str(slurm_conf))
    with pytest.raises(UserError, match=r"takes no job: .*[Ii]nvalid partition"):
        Launch([make_task("a")], "d", slurm(partition="nowhere")).run()


def wait(come: Callable[[], bool], seconds: float) -> None:
    """Wait until something has come about."""
    until = time.monotonic() + seconds
    while not come():
        assert time.monotonic() < until
        time.sleep(0.1)
