"""`python -m src plan` and `train_folds.py --minutes`, as they are typed."""

import json
import shlex
from pathlib import Path

import pytest

from src import paths
from src.cli import plan
from src.compute import budget
from src.training import rehearsal
from tests.cli.conftest import SCHEME, Command
from tests.records import change_sealed
from tests.training.test_pacing import Slow, Time


def proposed(said: str) -> list[list[str]]:
    """Return the commands of a plan, as words."""
    return [shlex.split(line[line.index("python ") :]) for line in said.splitlines()
            if " python " in line]  # fmt: skip


@pytest.mark.usefixtures("tiny")
def test_what_a_plan_proposes_can_be_typed_and_ends_in_time(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = command("plan", "--minutes", "1.5", "--models", "tiny", "--scheme", SCHEME)
    assert "tiny: 32 labelled items, 50% fake, 16 to predict" in said
    assert "no groups are given" in said
    assert "faces not looked for: pictures are too small for it" in said
    assert not paths.folds_dir("tiny").exists()  # nothing is written
    commands = proposed(said)
    assert [words[1] for words in commands] == [
        "train_folds.py", "tune.py", "predict_ensemble.py"
    ]  # fmt: skip
    for words, given in zip(commands, ("sdw", "s", "dw"), strict=True):  # as it was timed
        assert ("--scheme" in words) == ("s" in given)
        assert ("--device" in words) == ("d" in given)
        assert ("--workers" in words) == ("w" in given)
    time = Time()
    Slow(monkeypatch, time, 4.0)
    monkeypatch.setattr(budget, "process_seconds", time)
    words = commands[0][2:]
    minutes = float(words[words.index("--minutes") + 1])
    assert minutes == 1
    command("train", *words)
    assert 0.8 * 60 * minutes < time.seconds < 1.1 * 60 * minutes
    record = json.loads(paths.run_record("tiny", SCHEME, "tiny", 1).read_text())
    assert record["budget"]["ask"]["folds"] == [0, 1]
    assert "finished already (" in command("train", *words)
    again = command("plan", "--minutes", "5", "--models", "tiny", code=2)
    assert "tiny: all its folds are finished: python tune.py" in again
    made = [0.5, 3.0]
    for fold, epochs in enumerate(made):
        place = paths.run_record("tiny", SCHEME, "tiny", fold)
        change_sealed(place, {"budget": record["budget"] | {"epochs": epochs}})
    assert "tiny: its folds made 0.5 to 3.0 epochs (--minutes)" in command("tune")
    assert "epochs in --minutes 1), skipped" in command("train", "--model", "tiny")


@pytest.mark.parametrize("strategy", ["frozen_prefix", "feature_extractor", "two_stage"])
def test_every_kind_of_stage_is_timed(tiny: Path, command: Command, strategy: str) -> None:
    words = f"strategy: {strategy}, transfer: {{prefix_blocks: 1, full_epochs: 1, last_blocks: 1}}"
    (tiny / "configs" / "models" / "part.yaml").write_text(f"{{extends: tiny, {words}}}")
    said = command("plan", "--minutes", "3", "--models", "part", "--scheme", SCHEME)
    assert any("train_folds.py" in words and "part" in words for words in proposed(said))


@pytest.mark.usefixtures("tiny")
def test_what_cannot_be_planned_is_said(command: Command) -> None:
    both = command("train", "--model", "tiny", "--minutes", "5", "--max-hours", "1", code=2)
    assert "--minutes and --max-hours: give one" in both
    assert "want minutes, such as 20" in command("plan", "--minutes", "-3", code=2)
    assert "the following arguments are required: --minutes" in command("plan", code=2)
    assert "did you mean" in command("plan", "--minutes", "5", "--models", "compact23", code=2)
    short = command("plan", "--minutes", "0.2", "--models", "tiny", code=2)
    assert "0.2 is less than one fold can use: of those timed here tiny is the fastest" in short
    assert not paths.oof_home().exists()
    hub = command("plan", "--minutes", "5", "--models", "effnet_b0", "mobilenetv2_100", code=2)
    assert "effnet_b0: its weights are in no HF cache here" in hub
    assert "mobilenetv2_100: its weights are a file of yours: --weights FILE" in hub
    assert "no model can start here" in hub


@pytest.mark.usefixtures("tiny")
def test_a_busy_machine_is_named(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal.os, "getloadavg", lambda: (64.0, 1.0, 1.0))
    said = command("plan", "--minutes", "5", "--models", "tiny")
    assert "WARNING these timings were disturbed: " in said
    assert "the load average is 64.0, of" in said
    watch = rehearsal.Watch()
    watch.spread, watch.wall, watch.cpu = 2.5, 1.0, 0.2
    assert "differed by a factor of 2.5; only" in watch.disturbed()


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    ("side", "seconds", "cropped", "said"),
    [
        (0.3, 0.01, True, "cropped, a model sees more of them"),
        (0.3, 60.0, False, "too much of 20 min"),
        (0.9, 0.01, False, "they fill the pictures"),
    ],
)
def test_faces_are_cropped_where_that_gains_and_there_is_time(
    command: Command, monkeypatch, side, seconds, cropped, said
) -> None:
    look = plan.Sampled(600, 600, 0.001, 0.9, side, seconds, "")
    monkeypatch.setattr(plan, "_look", lambda _: look)
    found = command("plan", "--minutes", "20", "--models", "tiny")
    assert said in found
    assert ("--set input.crop=face --as tiny_face" in found) == cropped
