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


def test_folds_of_different_scale_are_calibrated_whatever_else_is_scored(capsys):
    folds = make_folds(n=480, groups=160)
    make_member(folds, "a", levels={"jpeg50": (0.0, 1.0)}, own_noise=0, by=(-4.0, 0.0, 4.0))
    other = make_other_scheme(folds, OTHER, 4)
    make_member(other, "a", scheme=OTHER, levels={}, seed=3)
    words = [*WORDS, "--scheme", "sgkf3_s0", "--recipe", "r"]

    def recipe_of(*more):
        assert main([*words, *more]) == 0
        return json.loads(paths.recipe_json(DATA, "r").read_text())

    plain = recipe_of()
    assert "fold_calibration" in [stage["name"] for stage in plain["stages"]]
    also = recipe_of("--also", "robustness", "clusters")
    lines = {line["name"]: line for line in also["scores"].pop("also")["lines"]}
    assert also | {"sha256": ""} == plain | {"sha256": ""}  # which is of the rest
    # A level that changes nothing is worth what clean rows are: each row goes through its curve.
    assert (
        lines["jpeg50"]["scores"] == lines["clean"]["scores"] == [plain["scores"]["cross_fitted"]]
    )
    assert "without its fold calibration" in lines[OTHER]["note"]
    capsys.readouterr()
    under = recipe_of("--under", "robustness", "clusters")
    lines = {line["name"]: line for line in under["scores"]["under"]["lines"]}
    assert lines["clean"]["scores"][0] == plain["scores"]["cross_fitted"]
    assert lines["clean"]["gain"] < 0
    assert lines[OTHER]["gain"] is None
    out = capsys.readouterr().out
    assert f"\n{OTHER}: other nets predicted these rows" in out
    assert "on a mixture no fold is calibrated by itself" in out


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["--under", "robustness"], "b: no predictions of delivered pictures; make them: python "),
        (["--also", "clusters"], "unknown fold scheme 'clusters'"),
        (["--clean-share", "0.5"], "--clean-share 0.5: it goes with --under"),
        (["--under", "robustness", "--clean-share", "1"], "--clean-share 1.0: want 0 or more"),
        (["--also", "clusters", "--levels", "jpeg50"], "--levels goes with --under robustness"),
        (["--under", "sgkf3_s0"], "'sgkf3_s0' is the scheme that is tuned on"),
        (["--also", "robustness", "--levels", "tones"], "--levels tones: a treatment of real"),
        (["--also", "robustness", "--levels", "card"], "--levels card: name single levels"),
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


def test_stored_treatments_alone_are_no_deliveries(capsys):
    folds = make_folds()
    make_member(folds, "a", levels={"tones": (0.0, 1.0)})
    for word in ("--under", "--also"):
        assert main([*WORDS, word, "robustness"]) == 2
        err = capsys.readouterr().err
        assert "only treatments of real ones are predicted" in err
        assert "--model a --scheme sgkf3_s0 --levels card" in err


def test_competition_rules_and_other_conditions_are_not_mixed(capsys, tmp_path):
    toy()
    (tmp_path / "rules.yaml").write_text("single_model: true\n")
    words = [*WORDS, "--rules", str(tmp_path / "rules.yaml"), "--under", "robustness"]
    assert main(words) == 2
    assert "do not go with the competition's rules" in capsys.readouterr().err
