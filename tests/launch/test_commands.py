"""When a command beside training is done: by what it leaves, and by what it reads."""

import json
import os
import time
from argparse import Namespace
from pathlib import Path

import pytest

from src import paths
from src.cli.scale.launch import read_line, with_data
from src.launch.commands import CommandLine, command_tasks, shared_studies
from src.launch.jobs import Task


def touch(path: Path, ago: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, (time.time() - ago,) * 2)
    return path


def end_well(task: Task, began: float = 60, ended: float = 50) -> None:
    """Note that a command began and ended well so many seconds ago."""
    state = paths.launch_state("d", task.key)
    state.parent.mkdir(parents=True, exist_ok=True)
    now = time.time()
    told = {"words": list(task.words), "began": now - began, "ended": now - ended, "code": 0}
    state.write_text(json.dumps(told))


def task_of(text: str) -> tuple[Task, CommandLine]:
    line = with_data(read_line(text), "d", "s", None)
    (task,) = command_tasks(line, "d", "s", 0)
    return task, line


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
    touch(oof, 55)  # while it ran
    assert not task.is_done()
    assert task.has_left is not None
    assert task.has_left()  # but it did its work
    touch(oof, 100)
    touch(recipe, 20)  # by another command
    assert not task.is_done()
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
    ours = [touch(paths.run_record("d", "s", name, 0), 100) for name in ("a", "b")]
    touch(paths.run_record("d", "s", "other", 0), 9)
    soup = touch(paths.run_record("d", "s", "soup", 0), 50)
    touch(merges / "soup.yaml", 100)
    for text in ("merge soup", f"merge soup --output {artefact_root / 'x.safetensors'}"):
        touch(artefact_root / "x.safetensors", 50)
        task, _ = task_of(text)
        end_well(task)
        assert task.is_done()
        touch(ours[1], 10)
        assert not task.is_done()
        touch(ours[1], 100)
    soup.unlink()
    (one, other) = (task_of(text)[0] for text in ("merge soup", "merge soup --holdout other"))
    end_well(one)
    end_well(other)
    assert not one.is_done()  # what it leaves is gone
    assert not other.is_done()  # what it reads is not known here


@pytest.mark.parametrize(
    "text",
    ["export m", "report m", "evaluate --model m --split test", "robustness --list", "folds"],
)
def test_a_command_of_which_it_is_not_known_what_it_reads_is_typed_again(
    text: str, artefact_root: Path
) -> None:
    task, _ = task_of(text)
    end_well(task)
    assert not task.is_done()
    assert task.has_left is not None
    assert task.has_left()


def test_a_prediction_reads_its_pictures_its_recipe_and_its_members(
    artefact_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Namespace(scheme="s", members=[Namespace(model="m")])
    monkeypatch.setattr("src.launch.commands.read_recipe", lambda _: recipe)
    out = touch(artefact_root / "out.csv", 50)
    tests = touch(artefact_root / "input" / "d" / "test" / "1.png", 100).parent
    pictures = touch(artefact_root / "new" / "deep" / "1.png", 100)
    inside = touch(artefact_root / "new" / "out.csv", 50)  # among what it reads
    for folder in (tests, tests.parent, pictures.parent):
        touch(folder, 100)
    touch(inside.parent, 50)
    reads = [
        touch(paths.checkpoint("d", "s", "m", 0), 100),
        touch(paths.run_record("d", "s", "m", 0), 100),
        touch(paths.recipe_json("d", "tuned"), 100),
    ]
    touch(paths.submission_csv("d", "tuned"), 50)
    for text, seen in {
        "predict_ensemble.py": tests,
        f"predict_ensemble.py --input-dir {pictures.parent} --output {out}": pictures,
        f"predict_ensemble.py --input-dir {pictures.parent.parent} --output {inside} "
        f"--checkpoint {reads[0]}": pictures.parent,
    }.items():
        task, line = task_of(text)
        end_well(task)
        assert task.is_done(), text
        for path in [*reads[: 1 if line.flags.checkpoint else 3], seen]:
            touch(path, 10)
            assert not task.is_done(), (text, path)
            touch(path, 100)
