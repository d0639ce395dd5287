"""predict_ensemble.py on test items that are delivered otherwise, from training to the sidecar."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from src import paths
from src.artifacts.competition import load_of
from src.artifacts.oof import UNREADABLE, read_views, split_delivery
from src.artifacts.recipes import read_recipe, write_recipe
from src.cli.parsers import main
from src.compute.clock import TimeUpError
from src.ensemble.shift.few import first
from src.inference.bundle import collect
from src.metrics import log_odds
from tests.cli.conftest import SCHEME, write_pictures

ON_CPU = ("--device", "cpu", "--workers", "0")
STAGE = {"name": "deliveries", "params": {"levels": ["blur1", "jpeg30"], "seed": 7}}


@pytest.fixture
def tuned(tiny, command):
    """Train two folds of a tiny net and tune; the last test picture cannot be read."""
    (tiny / "input" / "tiny" / "test" / "47.png").write_bytes(b"\x89PNG no picture")
    for fold in "01":
        command("train", "--model", "tiny", "--fold", fold)
    command("tune", "--strategies", "mean@0.5")
    return tiny


def means(seed=None):
    """Return level -> each item's logit, averaged by pandas over views, then over folds."""
    names, found = ("tiny", SCHEME, "tiny"), []
    for fold in (0, 1):
        path = paths.test_views(*names, fold)
        path = path if seed is None else paths.delivered(path, seed)
        found.append(read_views(path)[0])
    table = pd.concat(found)
    table = table[table["view"] != UNREADABLE]
    table["level"] = table["view"].map(lambda view: split_delivery(view)[0])
    per_fold = table.groupby(["level", "item_id", "fold"])["logit"].mean()
    return per_fold.groupby(level=["level", "item_id"]).mean()


def answers():
    path = paths.submission_csv("tiny", "tuned")
    return pd.read_csv(path, index_col=0).iloc[:, 0], json.loads(
        path.with_suffix(".json").read_text()
    )


def test_verdicts_that_flip_are_named_and_answers_stay_the_clean_ones(tuned, command, monkeypatch):
    command("predict")
    before, sidecar = answers()
    assert "deliveries" not in sidecar
    out = command("predict", "--deliveries", "2")
    after, sidecar = answers()
    assert after.equals(before)
    found, lost = sidecar["deliveries"], sidecar["fallback"]["items"]
    assert found["levels"] == list(first(2))
    assert (found["items"], len(lost)) == (15, 1)
    logits, clean = means(seed=found["seed"]), means().loc[""]
    expected = {}
    for item in clean.index:
        moved = [one for one in first(2) if (logits[one, item] >= 0) != (clean[item] >= 0)]
        expected |= {item: moved} if moved else {}
    assert found["flipped"] == expected
    assert f"{15 - len(expected)} of 15 keep their verdict at 2 levels (jpeg70 resize0.5)" in out
    assert "0 of them to predict with" in command("predict", "--deliveries", "2")

    def late(*_):
        raise TimeUpError("time is up after 1 h")

    with monkeypatch.context() as patch:
        patch.setattr("src.inference.deliveries.predict_levels", late)
        out = command("predict", "--deliveries", "3")
    assert "time is up after 1 h: which verdicts flip is not known. The submission stands" in out
    after, sidecar = answers()
    assert after.equals(before)
    assert "deliveries" not in sidecar
    for count in ("0", "9"):
        assert "want 1 to 8" in command("predict", "--deliveries", count, code=2)


def test_a_recipe_that_looks_at_levels_answers_by_their_mean(tuned, command):
    path = paths.recipe_json("tiny", "tuned")
    recipe = read_recipe(path)
    looking = replace(recipe, stages=[STAGE, *recipe.stages])
    write_recipe(path, looking)
    once, thrice = (load_of(one, items=16) for one in (recipe, looking))
    assert (thrice.views, thrice.hours) == (3 * once.views, pytest.approx(3 * once.hours))
    own = tuned / "input" / "tiny" / "dataset.yaml"
    own.write_text("rules: {tta: false}\n")
    assert f"tta ({thrice.views} views)" in command("predict", code=2)
    own.unlink()
    command("predict", "--output-kind", "prob")
    probs, sidecar = answers()
    assert sidecar["deliveries"]["levels"] == ["blur1", "jpeg30"]
    looked = means(seed=7)
    mean = (means().loc[""] + looked["blur1"] + looked["jpeg30"]) / 3
    got = pd.Series(log_odds(probs.to_numpy()), probs.index.astype(str))
    ids = [item for item in mean.index if item in got.index]
    assert len(ids) == 15
    np.testing.assert_allclose(got[ids], mean[ids], atol=1e-6)


def test_a_recipe_that_looks_at_levels_goes_where_others_go(tuned, command, monkeypatch, capsys):
    path = paths.recipe_json("tiny", "tuned")
    recipe = read_recipe(path)
    looking = replace(recipe, stages=[STAGE, *recipe.stages])
    write_recipe(path, looking)
    command("robustness", "--model", "tiny", "--levels", "blur1", "jpeg30", "--seed", "7")
    write_pictures(tuned / "input" / "other", 12, 0, np.random.default_rng(9))
    asked = ["--recipe", "tuned", "--data", "other", "--from", "tiny", *ON_CPU]
    assert main("evaluate", asked) == 0
    assert "12 labelled train items, 2 checkpoint(s)" in capsys.readouterr().out
    for fold in (0, 1):
        views = paths.delivered(paths.cross_views("tiny", SCHEME, "tiny", fold, "other"), 7)
        assert read_views(views)[1]["levels"] == ["blur1", "jpeg30"]

    # A bundle holds all that answers files, and their band, elsewhere.
    for name, file in collect("tuned", looking).files.items():
        (tuned / "elsewhere" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, tuned / "elsewhere" / name)
    monkeypatch.setenv("RVF_ROOT", str(tuned / "elsewhere"))
    folder, out = tuned / "input" / "tiny" / "test", tuned / "out.csv"
    asked = ["--recipe", "tuned", "--input-dir", str(folder), "--output", str(out)]
    assert main("predict", [*asked, "--risk", "0.4", *ON_CPU]) == 0
    said = capsys.readouterr().out
    assert "risk 0.4 with 90% confidence" in said
    assert "keep their verdict at 2 levels (blur1 jpeg30)" in said
