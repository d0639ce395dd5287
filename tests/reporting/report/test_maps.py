"""When maps are drawn, when an older sheet is shown, and whose maps a recipe shows."""

import os

import pandas as pd
import pytest

from src import paths
from src.data.layouts.load import load_dataset
from src.errors import UserError
from src.reporting.map_sheet import COLUMNS
from src.reporting.report import maps
from src.reporting.report.subjects import recipe_subject, subject_of_runs
from src.reporting.runs import collect_runs
from tests.reporting.conftest import predict, run_record, write_recipe_of

pytestmark = pytest.mark.usefixtures("toy", "coarse")


@pytest.fixture
def drawn(monkeypatch):
    """Let a sheet be two lines, one map kept and one withheld; returns the models drawn."""
    done = []

    def draw(runs, _dataset, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\x89PNG")
        rows = [["real/i00.png", 0, 0.9, 1, 0, "grad_cam", 1.0, 0.1, 1.0, ""],
                ["real/i00.png", 0, 0.9, 1, 0, "occlusion", 0.1, 0.1, 0.5, "flat"]]  # fmt: skip
        pd.DataFrame(rows, columns=COLUMNS).to_csv(path.with_suffix(".csv"), index=False)
        done.append(runs.model)
        return path

    monkeypatch.setattr(maps, "draw_mapped", draw)
    return done


def test_a_sheet_is_drawn_on_demand_and_shown_until_a_run_changes(drawn):
    predict("m")
    run_record("m", 0)
    one, dataset = subject_of_runs(collect_runs("toy", "s", "m")), load_dataset("toy")
    (words,) = maps.map_blocks(one, [one], dataset, draw=False)
    assert words.text == maps.LOST
    paths.checkpoint("toy", "s", "m", 0).write_bytes(b"a net")
    (missing,) = maps.map_blocks(one, [one], dataset, draw=False)
    assert missing.command == "python -m src report m --data toy --scheme s --maps"
    (picture,) = maps.map_blocks(one, [one], dataset, draw=True)
    assert "1 items with 2 maps" in picture.alt
    assert "1 passed" in picture.alt
    (again,) = maps.map_blocks(one, [one], None, draw=False)
    assert again.path == picture.path
    maps.map_blocks(one, [one], dataset, draw=True)
    assert drawn == ["m"]
    later = picture.path.stat().st_mtime + 10
    os.utime(paths.run_record("toy", "s", "m", 0), (later, later))
    assert isinstance(maps.map_blocks(one, [one], dataset, draw=False)[0], type(missing))


def test_a_recipe_shows_its_heaviest_member_and_what_cannot_be_drawn_is_said(drawn, monkeypatch):
    predict("m")
    predict("x", seed=2)
    write_recipe_of("tuned", "m", weight=0.3, other="x")
    models = [subject_of_runs(collect_runs("toy", "s", name)) for name in ("m", "x")]
    recipe = recipe_subject("toy", "s", paths.recipe_json("toy", "tuned"))
    for name in ("m", "x"):
        net = paths.checkpoint("toy", "s", name, 0)
        net.parent.mkdir(parents=True, exist_ok=True)
        net.write_bytes(b"a net")
    words, picture = maps.map_blocks(recipe, models, load_dataset("toy"), draw=True)
    assert drawn == ["x"]
    assert "Of x" in words.text
    assert picture.path.parent == paths.report_dir("toy", "s", "x")

    def fails(*_):
        raise UserError("the checkpoint is damaged")

    monkeypatch.setattr(maps, "draw_mapped", fails)
    (words,) = maps.map_blocks(models[0], models, load_dataset("toy"), draw=True)
    assert words.text == "No maps: the checkpoint is damaged"
    monkeypatch.setattr(maps, "draw_mapped", lambda *_: None)
    (words,) = maps.map_blocks(models[0], models, load_dataset("toy"), draw=True)
    assert "no checkpoint" in words.text
