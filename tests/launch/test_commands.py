"""When a command beside training is done: by what it leaves, and by what it reads."""

import json
import os
import time
from argparse import Namespace
from pathlib import Path

from src import paths
from src.cli.scale.launch import read_line, with_data
from src.launch.commands import command_tasks, shared_studies


def touch(path: Path, ago: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, (time.time() - ago,) * 2)
    return path


def test_a_command_is_done_until_what_it_reads_is_younger(artefact_root: Path) -> None:
    line = with_data(read_line("tune.py --recipe r"), "d", "s", None)
    (task,) = command_tasks(line, "d", "s", 0)
    oof = touch(paths.oof_csv("d", "s", "m", 0), 100)
    assert not task.is_done()
    recipe = touch(paths.recipe_json("d", "r"), 50)
    assert not task.is_done()  # nobody says that it ended well
    state = paths.launch_state("d", task.key)
    state.parent.mkdir(parents=True)
    ended = {"words": list(task.words), "began": time.time() - 60, "ended": time.time() - 50}
    state.write_text(json.dumps({**ended, "code": 1}))
    assert not task.is_done()
    state.write_text(json.dumps({**ended, "code": 0}))
    assert task.is_done()
    touch(oof, 10)
    assert not task.is_done()
    touch(oof, 100)
    recipe.unlink()
    assert not task.is_done()


def test_workers_of_one_study_are_jobs_of_their_own(artefact_root: Path) -> None:
    line = read_line("tune.py --study sqlite:///s.db --trials 9")
    tasks = command_tasks(line, "d", "s", 1, times=3)
    assert [task.name[-8:] for task in tasks] == ["(1 of 3)", "(2 of 3)", "(3 of 3)"]
    assert len({task.key for task in tasks}) == 3
    assert len({task.words for task in tasks}) == 1
    assert shared_studies([line, read_line("merge x")]) == ["sqlite:///s.db"]


def test_a_merge_reads_its_models_and_leaves_its_own_records(artefact_root: Path) -> None:
    merges = artefact_root / "configs" / "merges"
    merges.mkdir(parents=True)
    (merges / "soup.yaml").write_text(
        "merge_method: linear\nmodels:\n  - {model: a}\n  - {model: b}\n"
    )
    from src.launch.commands import FILES

    ours = [touch(paths.run_record("d", "s", name, 0), 9) for name in ("a", "b")]
    touch(paths.run_record("d", "s", "other", 0), 9)
    flags = Namespace(merges=["soup"], fold=None, output=None)
    reads, leaves = FILES["merge"]("d", "s", flags)
    assert set(reads) == {*ours, merges / "soup.yaml"}
    assert leaves == [paths.run_record("d", "s", "soup", 0)]
