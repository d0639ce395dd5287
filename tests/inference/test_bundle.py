"""What is packed is what prediction would take: anything else is refused, and named."""

import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from src import paths
from src.artifacts.recipes import read_recipe, write_recipe
from src.cli import export, parsers, tune
from tests.ensemble.synthetic import DATA, SCHEME, make_folds

pytestmark = pytest.mark.usefixtures("artefact_root")


@pytest.fixture
def names(tmp_path):
    """Tune on two members from elsewhere, of which a bundle brings no checkpoints."""
    folds = make_folds()
    paths.oof_dir(DATA, SCHEME, "one").parent.mkdir(parents=True)
    words = ["--data", DATA, "--strategies", "mean"]
    for seed, name in enumerate(("one", "two")):
        logits = np.random.default_rng(seed).normal(size=len(folds)) + folds["label"]
        folds[["item_id", "fold"]].assign(logit=logits).to_csv(tmp_path / name, index=False)
        (tmp_path / "test").write_text("item_id,prob\nt1,0.2\nt2,0.7\n")
        words += ["--extra", f"{name}={tmp_path / name},{tmp_path / 'test'}"]
    assert tune.main(words) == 0
    return DATA, SCHEME, "two"


def target():
    return paths.bundle_zip(DATA, "tuned")


def test_a_good_recipe_is_packed(names):
    assert parsers.main("bundle", ["--data", DATA]) == 0
    with zipfile.ZipFile(target()) as archive:
        assert f"rvf/oof/{DATA}/{SCHEME}/two/extra_test.csv" in archive.namelist()


@pytest.mark.parametrize("way", ["gone", "edited"])
def test_test_predictions_from_elsewhere_are_those_that_were_imported(names, capsys, way):
    file = paths.extra_test_csv(*names)
    if way == "gone":
        file.unlink()
    else:
        file.write_text(file.read_text().replace("t1", "t3"))
    assert parsers.main("bundle", ["--data", DATA]) == 2
    assert f"{file} is not the file that was imported" in capsys.readouterr().err
    assert not target().exists()


def test_a_recipe_that_this_version_cannot_follow(names, capsys):
    path = paths.recipe_json(DATA, "tuned")
    recipe = read_recipe(path)
    write_recipe(path, replace(recipe, stages=[*recipe.stages, {"name": "magic", "params": {}}]))
    assert parsers.main("bundle", ["--data", DATA]) == 2
    assert "magic" in capsys.readouterr().err
    assert not target().exists()


def test_what_changes_while_it_is_packed(names, capsys, monkeypatch):
    collect = export.collect

    def then_edit(*args):
        found = collect(*args)
        file = paths.oof_csv(*names, 0)
        file.write_bytes(file.read_bytes().replace(b"1", b"2", 1))
        return found

    monkeypatch.setattr(export, "collect", then_edit)
    assert parsers.main("bundle", ["--data", DATA]) == 2
    assert "fold_0.csv was changed while it was packed" in capsys.readouterr().err
    assert not target().exists()


def test_a_member_that_weighs_nothing_needs_no_test_predictions(names):
    path = paths.recipe_json(DATA, "tuned")
    recipe = read_recipe(path)
    one, two = recipe.members
    write_recipe(path, replace(recipe, members=[one, replace(two, weight=0.0)]))
    paths.extra_test_csv(*names).unlink()
    assert parsers.main("bundle", ["--data", DATA]) == 0
    with zipfile.ZipFile(target()) as archive:
        table = json.loads(archive.read("rvf/bundle.json"))
    assert f"oof/{DATA}/{SCHEME}/two/extra.json" in table["files"]
