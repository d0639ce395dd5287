"""`python -m src launch` as it is typed: what is refused before anything begins, and the plan."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from src import paths
from src.artifacts.atomic import file_lock
from src.cli import parsers
from src.cli.scale import launch as module
from src.cli.scale.launch import flags_of, read_line
from src.errors import UserError
from tests.cli.conftest import Command
from tests.conftest import REPO
from tests.launch.serial import FLAGS, SCHEME, artefacts, serial_root, tiny_root  # noqa: F401

Typed = Callable[..., str]


@pytest.fixture
def launch(tiny: Path, capsys: pytest.CaptureFixture[str]) -> Typed:
    """Return `launch("--models", ...)`, which returns what it printed."""

    def run(*words: str, code: int = 0) -> str:
        assert parsers.main("launch", ["--data", "tiny", *words]) == code
        said = capsys.readouterr()
        return said.err if code else said.out

    return run


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--models", "tiny", "--epoch", "3"], "unknown argument '--epoch'"),
        (["--models", "tinny"], "unknown model 'tinny'; did you mean 'tiny'"),
        (["--models", "tiny", "--on", "slrum"], "unknown engine 'slrum'; did you mean 'slurm'"),
        (["--models", "tiny", "--folds", "one"], "--folds one: want numbers, all or refit"),
        (["--models", "tiny", "--folds", "7"], "there is no fold 7"),
        (["--models", "tiny", "--set", "optim.lr=1"], "--set and --as go together"),
        (["--models", "tiny", "--jobs", "0"], "--jobs 0: want 1 or more"),
        (["--models", "tiny", "--gpus-per-job", "9"], "want 9, and 0 are here"),
        (["--models", "tiny", "--device", "cuda:1"], "cards are handed out"),
        (["--models", "tiny", "--slurm", "qos=x"], "--slurm is for --on slurm"),
        (["--models", "tiny", "--detach"], "end with the launcher"),
        (["--models", "tiny", "--track", "nowhere"], "nowhere"),
        (["--models", "tiny", "--minutes", "5", "--max-hours", "1"], "give one"),
        (["--run", "tune.py --trails 3"], "did you mean '--trials'"),
        (["--run", "train_folds.py --model tiny"], "--models, --folds"),
        (["--run", "rm -rf x"], "unknown command 'rm'"),
        (["--run", "tune.py", "--times", "3"], "of a tune.py with --study"),
        ([], "nothing to do"),
    ],
)
def test_a_mistake_is_one_message_and_nothing_begins(
    launch: Typed, words: list[str], said: str, artefact_root: Path
) -> None:
    assert said in launch(*words, code=2)
    assert not paths.launch_dir("tiny").exists()


def test_a_missing_engine_says_what_to_install(
    launch: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--models", "tiny", "--track", "none", "--on"]
    monkeypatch.setenv("PATH", "/nowhere")
    assert "sbatch, squeue" in launch(*words, "slurm", code=2)
    monkeypatch.setattr("src.launch.engines.slurm.shutil.which", lambda name: name)
    # As of a folder that is called so, which is no package.
    monkeypatch.setattr("src.artifacts.packages.util.find_spec", lambda n: ModuleSpec(n, None))
    assert "pip install submitit" in launch(*words, "slurm", code=2)
    assert "pip install ray" in launch(*words, "ray", code=2)


def test_a_dry_run_shows_what_is_done_and_what_the_rest_costs(
    command: Command, launch: Typed
) -> None:
    command("train", "--model", "tiny", "--fold", "0", "--scheme", "sgkf2_s0")
    words = ["--models", "tiny", "--seeds", "2", "--folds", "all", "refit", "--then", "tune.py"]
    said = launch(*words, "--dry-run", "--jobs", "2", "--device", "cpu")
    rows = [line.split("  ")[0] for line in said.splitlines()]
    jobs = ["tiny fold 0", "tiny fold 1", "tiny_s43 fold 0", "tiny_s43 fold 1"]
    jobs += ["tiny fold all", "tiny_s43 fold all", "tune.py"]
    assert [row for row in rows if row in jobs] == jobs
    assert "1 done, 6 waiting" in said
    assert "6 to do, " in said
    assert "with 2 at once" in said
    assert not paths.run_dir("tiny", "sgkf2_s0", "tiny_s43").exists()
    # Of another config than what lies there: said now, and not by a job.
    config = paths.root() / "configs/models/tiny.yaml"
    config.write_text(config.read_text().replace("lr: 1e-2", "lr: 2e-2"))
    assert "the model's config has changed since" in launch("--models", "tiny", code=2)


def test_a_dry_run_writes_nothing(launch: Typed, artefact_root: Path) -> None:
    def files() -> set[Path]:
        return {path for path in artefact_root.rglob("*") if path.is_file()}

    words = ["--models", "tiny", "--set", "optim.lr=1e-3", "--as", "slow", "--seeds", "2"]
    words += ["--folds", "all", "refit", "--device", "cpu", "--dry-run"]
    before = files()
    said = launch(*words, "--scheme", "sgkf3_s0")
    new = [path for path in files() - before if "manifest" not in path.parts]
    assert new == []
    assert not list((artefact_root / ".cache/manifest").glob("*.parquet"))  # no file was opened
    assert "would be written: configs of slow, slow_s43" in said
    assert "would be made: the folds sgkf3_s0 of tiny" in said
    assert "8 waiting" in said
    assert "--as tiny: " in launch(*words[:4], "--as", "tiny", "--dry-run", code=2)
    for scheme, folds in {"clusters8x2_s1": 2, "sgkf4_s1_unscanned": 4}.items():
        told = launch("--models", "tiny", "--scheme", scheme, "--device", "cpu", "--dry-run")
        assert f"{folds} waiting" in told


def test_a_look_takes_no_record_away(command: Command, launch: Typed) -> None:
    """Another machine may have written more than this one sees yet."""
    command("train", "--model", "tiny", "--fold", "0", "--scheme", "sgkf2_s0")
    names = ("tiny", "sgkf2_s0", "tiny", 0)
    away = paths.checkpoint(*names).rename(paths.root() / "not_seen_yet")
    assert "2 waiting" in launch("--models", "tiny", "--device", "cpu", "--dry-run")
    away.rename(paths.checkpoint(*names))
    assert "1 done, 1 waiting" in launch("--models", "tiny", "--device", "cpu", "--dry-run")


def test_overwrite_takes_nothing_away_where_one_fold_is_in_work(
    command: Command, launch: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("src.artifacts.atomic.PATIENCE", 0.3)
    command("train", "--model", "tiny", "--fold", "0", "--scheme", "sgkf2_s0")
    with file_lock(paths.run_lock("tiny", "sgkf2_s0", "tiny", 1), "it"):
        said = launch("--models", "tiny", "--device", "cpu", "--overwrite", code=2)
    assert "another process is at work on" in said
    assert paths.run_record("tiny", "sgkf2_s0", "tiny", 0).is_file()


@pytest.mark.parametrize("cards", [1, 4])
def test_several_cards_of_a_job_are_ranks_of_its_fold(tiny: Path, cards: int) -> None:
    words = ["--data", "tiny", "--models", "tiny", "--gpus-per-job", str(cards), "--dry-run"]
    given = parsers.make_parser("launch").parse_args(words)
    tasks, _ = module._tasks(module._wanted(given), given, "tiny")
    for task in tasks:
        read = parsers.make_parser("train").parse_args(task.words[1:])
        assert (read.ddp, task.ranks) == (4 if cards == 4 else None, cards)


def test_flags_of_training_reach_every_job_as_they_were_typed(tmp_path: Path) -> None:
    parser = parsers.make_parser("launch")
    words = ["--models", "a", "--workers", "0", "--no-report", "--max-hours", "2", "--compile"]
    words += ["--weights", "w.pth", "--scheme", "s", "--overwrite"]
    given = flags_of(parser.parse_args(words))
    assert sorted(given) == sorted([
        "--workers", "0", "--no-report", "--max-hours", "2.0", "--compile",
        "--weights", str(Path("w.pth").absolute()),
    ])  # fmt: skip
    parsers.make_parser("train").parse_args(["--model", "a", *given])


def test_commands_are_read_as_they_are_typed() -> None:
    assert read_line("python tune.py --trials 3").words == (str(REPO / "tune.py"), "--trials", "3")
    merged = read_line("python -m src merge my_soup")
    assert (merged.name, merged.words) == ("merge", ("-m", "src", "merge", "my_soup"))
    with pytest.raises(UserError, match="unknown command 'serve'"):
        read_line("serve")


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_two_at_once_then_killed_then_again_leaves_what_one_by_one_leaves(
    serial_root: Path,  # noqa: F811
    tiny_root: Path,  # noqa: F811
) -> None:
    """SIGKILL of the launcher in the middle: the same command repeats nothing that is finished."""
    words = [sys.executable, "-m", "src", "launch", *FLAGS, "--jobs", "2", "--then", "tune.py"]
    env = {**os.environ, "RVF_ROOT": str(tiny_root)}
    first = subprocess.Popen(words, cwd=REPO, env=env, stdout=subprocess.DEVNULL)
    home = tiny_root / "checkpoints" / "tiny" / SCHEME
    until = time.monotonic() + 200
    while len(list(home.glob("*/fold_*.json"))) < 2 and time.monotonic() < until:
        time.sleep(0.1)
    first.send_signal(signal.SIGKILL)
    first.wait()
    done = {path: path.stat().st_mtime_ns for path in home.glob("*/fold_*.json")}
    assert 2 <= len(done) < 6
    said = subprocess.run(words, cwd=REPO, env=env, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout + said.stderr
    assert "7 done" in said.stdout
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert artefacts(tiny_root) == artefacts(serial_root)


@pytest.mark.nightly
def test_a_fold_that_fails_says_why_once(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Weights that do not fit are found out by the jobs, which say the same."""
    (tiny / "configs/models/bad.yaml").write_text(
        (tiny / "configs/models/tiny.yaml")
        .read_text()
        .replace("pretrained: none", "pretrained: file")
    )
    save_file({"nothing.weight": torch.zeros(2)}, tiny / "w.safetensors")
    flags = ["--device", "cpu", "--workers", "0", "--no-report", "--scheme", "sgkf2_s0"]
    flags += ["--weights", str(tiny / "w.safetensors"), "--data", "tiny", "--jobs", "1"]
    assert parsers.main("launch", ["--models", "bad", *flags]) == 2
    said = capsys.readouterr()
    table = said.out[said.out.rindex("job ") :].splitlines()
    assert table[1].startswith("bad fold 0  failed")
    assert "w.safetensors" in table[1]
    assert table[2].endswith("as bad fold 0")
    assert "2 of 2 jobs failed" in said.err
    assert "Traceback" not in said.out + said.err
