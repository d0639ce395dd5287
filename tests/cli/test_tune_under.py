"""`tune.py --under`, `--also`: what a user sees, and what is refused."""

import json

import pytest

from src import bootstrap, paths
from src.cli.parsers import main as run
from src.cli.tune import main
from tests.ensemble.shift.synthetic import make_member, make_other_scheme
from tests.ensemble.synthetic import DATA, make_folds

OTHER = "clusters4_s42"
WORDS = ["--data", DATA, "--strategies", "mean@0.5", "mean"]
pytestmark = pytest.mark.usefixtures("artefact_root")


@pytest.fixture(autouse=True)
def _few_draws(monkeypatch):
    monkeypatch.setattr(bootstrap, "REPLICATES", 200)


def toy(models="ab", **more):
    folds = make_folds(n=480, groups=160)
    for seed, model in enumerate(models):
        make_member(folds, model, seed=seed, **more)
    return folds


def test_a_recipe_is_chosen_under_shift_shown_and_read_by_other_commands(capsys):
    folds = toy()
    other = make_other_scheme(folds, OTHER, 4)
    for seed, model in enumerate("ab"):
        make_member(other, model, scheme=OTHER, levels={}, seed=seed + 3)
    words = [*WORDS, "--scheme", "sgkf3_s0", "--under", "robustness", "--also", "clusters"]
    assert main([*words, "--recipe", "shifted"]) == 0
    out = capsys.readouterr().out
    assert "on a mixture of 50% clean (1440), 50% robustness (1440)" in out
    for name in ("clean ", "mean transformed ", "worst level ", OTHER):
        assert f"\n{name}" in out
    assert "mean, chosen under shift, gains +" in out
    recipe = json.loads(paths.recipe_json(DATA, "shifted").read_text())
    assert recipe["search"]["under"]["conditions"] == ["robustness"]
    assert [line["name"] for line in recipe["scores"]["under"]["lines"]][-1] == OTHER
    assert run("evaluate", ["--data", DATA, "--recipe", "shifted"]) == 0
    scores = recipe["scores"]
    assert f"cross-fitted {scores['cross_fitted']:.4f}" in capsys.readouterr().out

    assert main([*words[:-3], OTHER, "--clean-share", "0.25", "--recipe", "theirs"]) == 0
    recipe = json.loads(paths.recipe_json(DATA, "theirs").read_text())
    assert recipe["search"]["under"]["rows"] == {"clean": 480, OTHER: 1440}
    capsys.readouterr()
    assert main([*words[:-4], "--also", "robustness", "clusters"]) == 0
    out = capsys.readouterr().out
    assert "shift-chosen" not in out
    recipe = json.loads(paths.recipe_json(DATA, "tuned").read_text())
    assert len(recipe["scores"]["also"]["lines"]) == 7
    assert "under" not in recipe["search"]


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["--under", "robustness"], "b: no predictions of delivered pictures; make them: python "),
        (["--also", "clusters"], "unknown fold scheme 'clusters'"),
        (["--clean-share", "0.5"], "--clean-share 0.5: it goes with --under"),
        (["--under", "robustness", "--clean-share", "1"], "--clean-share 1.0: want 0 or more"),
        (["--also", "clusters", "--levels", "jpeg50"], "--levels goes with --under robustness"),
        (["--under", "sgkf3_s0"], "'sgkf3_s0' is the scheme that is tuned on"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(capsys, words, match):
    folds = toy("a")
    make_member(folds, "b", seed=1, levels={})
    assert main([*WORDS, *words]) == 2
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert match.removeprefix("b: ") in err
    assert not paths.recipe_dir(DATA).exists()


def test_competition_rules_and_other_conditions_are_not_mixed(capsys, tmp_path):
    toy()
    (tmp_path / "rules.yaml").write_text("single_model: true\n")
    words = [*WORDS, "--rules", str(tmp_path / "rules.yaml"), "--under", "robustness"]
    assert main(words) == 2
    assert "do not go with the competition's rules" in capsys.readouterr().err
