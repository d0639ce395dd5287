"""A launch on this machine with quick jobs: order, failures, stops, and going on."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock

from src import paths
from src.errors import UserError
from src.launch.child import write_state
from src.launch.engines import Resources
from src.launch.engines.local import Local, visible_cards
from src.launch.jobs import Task, carried, shares
from src.launch.run import Launch
from tests.launch.conftest import MakeTask


def local(jobs: int = 2, cards: int | None = 0) -> Local:
    engine = Local(Resources("d", jobs=jobs, cards=cards))
    engine.check()
    return engine


def states(launch: Launch) -> dict[str, str]:
    return {name: row.state for name, row in launch.rows.items()}


def left(home: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted((home / "left").iterdir())}


def test_two_run_at_once_and_a_failure_stops_no_other(
    artefact_root: Path, tmp_path: Path, make_task: MakeTask
) -> None:
    meet = (  # ends once the other one is there as well
        "import pathlib, time\n"
        "home = pathlib.Path({home!r}); (home / '{me}').touch()\n"
        "until = time.monotonic() + 20\n"
        "while not (home / '{other}').exists(): assert time.monotonic() < until; time.sleep(.01)"
    )
    fails = "import sys; print('error: the model m is not there', file=sys.stderr); sys.exit(2)"
    tasks = [
        make_task("a", meet.format(home=str(tmp_path), me="at_a", other="at_b")),
        make_task("b", meet.format(home=str(tmp_path), me="at_b", other="at_a")),
        make_task("c", fails), make_task("d", fails), make_task("e"),
        make_task("later", stage=1),
    ]  # fmt: skip
    launch = Launch(tasks, "d", local())
    launch.run()
    assert states(launch) == {
        "a": "done", "b": "done", "c": "failed", "d": "failed", "e": "done", "later": "waiting",
    }  # fmt: skip
    assert launch.rows["c"].note == "the model m is not there"
    assert left(tmp_path) == {"a": "x", "b": "x", "e": "x"}
    # Mended, the same command does what is left, and nothing twice.
    tasks[2:4] = [make_task("c"), make_task("d")]
    again = Launch(tasks, "d", local())
    again.look()
    assert [name for name, state in states(again).items() if state == "done"] == ["a", "b", "e"]
    again.run()
    assert set(states(again).values()) == {"done"}
    assert left(tmp_path) == dict.fromkeys(["a", "b", "c", "d", "e", "later"], "x")


def test_a_stage_waits_for_the_one_before(
    artefact_root: Path, tmp_path: Path, make_task: MakeTask
) -> None:
    needs = f"import os; assert os.path.exists({str(tmp_path / 'left' / 'first')!r})"
    tasks = [make_task("then", needs, stage=1), make_task("first", "import time; time.sleep(.3)")]
    launch = Launch(tasks, "d", local())
    launch.run()
    assert set(states(launch).values()) == {"done"}


def test_ctrl_c_lets_jobs_save_and_begins_no_more(
    artefact_root: Path, tmp_path: Path, make_task: MakeTask
) -> None:
    saves = (
        "import signal, sys, time\n"
        "def end(*_):\n    print('sa' + 'ved'); sys.exit(130)\n"
        "signal.signal(signal.SIGTERM, end)\nprint('rea' + 'dy', flush=True)\ntime.sleep(60)"
    )
    tasks = [make_task("long", saves), make_task("next")]
    launch = Launch(tasks, "d", local(jobs=1))
    log = paths.launch_log("d", "long")

    def interrupt() -> None:
        while not (log.exists() and "ready" in log.read_text()):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        launch.run()
    assert states(launch) == {"long": "stopped", "next": "waiting"}
    assert "saved" in log.read_text()
    assert left(tmp_path) == {}


def test_what_another_process_works_on_is_waited_for(
    artefact_root: Path, tmp_path: Path, make_task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("src.launch.run.ELSEWHERE_SECONDS", 0.1)
    lock = tmp_path / "run.lock"
    task, other = make_task("held", lock=lock), FileLock(lock, thread_local=False)
    other.acquire()
    launch = Launch([task], "d", local())

    def finish() -> None:  # the other process does the work
        until = time.monotonic() + 20
        while launch.rows["held"].note != "by another process" and time.monotonic() < until:
            time.sleep(0.05)
        (tmp_path / "left" / "held").write_text("theirs")
        other.release()

    thread = threading.Thread(target=finish)
    thread.start()
    launch.run()
    thread.join()
    assert states(launch) == {"held": "done"}
    assert left(tmp_path) == {"held": "theirs"}


def test_a_job_that_ends_well_and_leaves_nothing_is_not_done(
    artefact_root: Path, make_task: MakeTask
) -> None:
    quits = "print('time is up after 9 h; the same command goes on'); raise SystemExit(0)"
    launch = Launch([make_task("slow", quits)], "d", local())
    launch.run()
    assert states(launch) == {"slow": "stopped"}
    assert launch.rows["slow"].note == "time is up after 9 h; the same command goes on"


def test_a_look_says_how_the_last_start_ended_and_a_new_one_begins_afresh(
    artefact_root: Path, tmp_path: Path, make_task: MakeTask
) -> None:
    full = "import sys; print('error: the disk is full', file=sys.stderr); sys.exit(2)"
    later = make_task("later", full, stage=1)
    Launch([later], "d", local()).run()
    tasks = [make_task("first"), later]
    launch = Launch(tasks, "d", local())
    launch.look()
    assert states(launch) == {"first": "waiting", "later": "failed"}
    assert launch.rows["later"].note == "the disk is full"
    # That it failed before keeps no stage from its turn.
    tasks[1] = make_task("later", stage=1)
    launch = Launch(tasks, "d", local())
    launch.look()
    launch.run()
    assert set(states(launch).values()) == {"done"}


def test_a_job_of_which_no_end_is_known_is_told(artefact_root: Path, make_task: MakeTask) -> None:
    launch = Launch([make_task("cut")], "d", local())
    state = {"words": [], "node": "node7", "began": 1.0, "ended": None, "code": None}
    path = paths.launch_state("d", "cut")
    path.parent.mkdir(parents=True)
    write_state(str(path), state)
    launch.look()
    assert states(launch) == {"cut": "waiting"}
    assert launch.rows["cut"].note == "begun on node7, and no end is known"


def test_files_that_a_file_server_shows_late_are_waited_for(
    artefact_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Local, "sight_seconds", 20.0)
    ended: list[float] = []

    def is_done() -> bool:  # 0.7 s after the command was first looked for
        if not paths.launch_log("d", "late").exists():
            return False
        ended.append(time.monotonic())
        return ended[-1] - ended[0] > 0.7

    launch = Launch([Task("late", "late", ("-c", "pass"), 0, is_done)], "d", local())
    launch.run()
    assert states(launch) == {"late": "done"}
    # One whose own words say why is not waited for.
    broken = Task("bad", "bad", ("-c", "raise KeyError(7)"), 0, lambda: False)
    launch, began = Launch([broken], "d", local()), time.monotonic()
    launch.run()
    assert states(launch) == {"bad": "failed"}
    assert time.monotonic() - began < 15


def test_secrets_are_not_written_down_for_jobs() -> None:
    given = {
        "HF_HOME": "/h", "HF_TOKEN": "x", "WANDB_MODE": "offline", "WANDB_API_KEY": "x",
        "RVF_PASSWORD": "x", "HF_CLIENT_SECRET": "x", "PATH": "/bin",
    }  # fmt: skip
    assert carried(given) == {"HF_HOME": "/h", "WANDB_MODE": "offline"}


def test_cards_keep_the_names_that_the_caller_gave_them() -> None:
    assert visible_cards({}, 2) == ["0", "1"]
    assert visible_cards({"CUDA_VISIBLE_DEVICES": "2,3"}, 2) == ["2", "3"]
    assert visible_cards({"CUDA_VISIBLE_DEVICES": "2,-1,3"}, 1) == ["2"]
    assert visible_cards({"CUDA_VISIBLE_DEVICES": ""}, 0) == []


def test_each_job_has_cards_of_its_own(
    artefact_root: Path, tmp_path: Path, make_task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,5,6,7")
    monkeypatch.setattr("src.launch.engines.local._count_cards", lambda: 4)
    say = "import os, time; print('cards', os.environ['CUDA_VISIBLE_DEVICES']); time.sleep(.5)"
    tasks = [make_task("a", say), make_task("b", say)]
    Launch(tasks, "d", local(cards=2)).run()
    said = {paths.launch_log("d", task.key).read_text().splitlines()[1] for task in tasks}
    assert said == {"cards GPU-a,5", "cards 6,7"}
    with pytest.raises(UserError, match=r"3 jobs at once with 2 cards each want 6, and 4 are here"):
        local(jobs=3, cards=2)


def test_cores_are_shared_and_fewer_threads_are_respected() -> None:
    assert shares(4, {})["OMP_NUM_THREADS"] == "4"
    assert shares(4, {"OMP_NUM_THREADS": "1"})["MKL_NUM_THREADS"] == "1"
    assert shares(4, {"OMP_NUM_THREADS": "16"})["OPENBLAS_NUM_THREADS"] == "4"
    assert shares(4, {})["LOKY_MAX_CPU_COUNT"] == "4"
    ranks = shares(8, {}, ranks=4)
    assert (ranks["OMP_NUM_THREADS"], ranks["LOKY_MAX_CPU_COUNT"]) == ("2", "8")
