"""The rules of a competition: tuned for, and neither predicted nor bundled against."""

import pytest

from src import paths
from src.artifacts.recipes import read_recipe
from src.cli import evaluate, parsers, predict, tune
from tests.ensemble.synthetic import DATA, SCHEME, make_folds, make_oof
from tests.records import make_record

MILLION = {"parameters": 1_000_000}


@pytest.fixture
def home(artefact_root):
    """Tune two models of three folds each; returns the folder of the data set."""
    folds = make_folds()
    for seed, model in enumerate("ab"):
        make_oof(folds, model, seed=seed)
        for fold in range(3):
            make_record(DATA, SCHEME, model, fold, **MILLION)
    home = artefact_root / "input" / DATA
    home.mkdir(parents=True)
    assert tune.main(["--data", DATA, "--strategies", "mean"]) == 0
    return home


@pytest.mark.parametrize("command", ["predict", "bundle"])
@pytest.mark.parametrize(
    ("rules", "broken"),
    [
        ("{single_model: true}", "single_model (6 files of weights)"),
        ("{max_files: 5, max_params: 7e6}", "max_files (6 files of weights)"),
        ("{max_params: 5e6}", "max_params (6.0 M parameters)"),
    ],
)
def test_a_recipe_that_breaks_a_rule(home, capsys, command, rules, broken):
    (home / "dataset.yaml").write_text(f"rules: {rules}")
    assert parsers.main(command, ["--data", DATA]) == 2
    said = capsys.readouterr().err
    assert "recipe 'tuned' breaks the rules of the competition" in said
    assert broken in said
    assert f"python tune.py --data {DATA} finds what obeys" in said
    assert not paths.bundle_zip(DATA, "tuned").exists()


def test_two_looks_where_one_is_allowed(home, capsys):
    record = make_record(DATA, SCHEME, "a", 0, **MILLION)
    make_record(DATA, SCHEME, "a", 0, **MILLION, config=record["config"] | {"tta": "flip"})
    (home / "dataset.yaml").write_text("rules: {tta: false}")
    assert predict.main(["--data", DATA]) == 2
    assert "tta (2 views)" in capsys.readouterr().err


def test_refits_are_as_many_as_members(home, capsys):
    (home / "dataset.yaml").write_text("rules: {single_model: true}")
    assert predict.main(["--data", DATA, "--refit"]) == 2
    assert "single_model (2 files of weights)" in capsys.readouterr().err


def test_more_hours_than_the_competition_gives(home, capsys):
    (home / "dataset.yaml").write_text("rules: {max_hours: 1}")
    assert predict.main(["--data", DATA, "--max-hours", "2"]) == 2
    assert "--max-hours 2: the rules of the competition give 1" in capsys.readouterr().err


def test_tuning_finds_what_obeys(home, capsys, tmp_path):
    (home / "dataset.yaml").write_text("rules: {single_model: true}")
    words = ["--data", DATA, "--strategies", "mean"]
    assert tune.main(words) == 0
    said = capsys.readouterr().out
    assert "rules: single_model: true" in said
    assert "one model predicts (" in said
    assert "not trained: train_folds.py --model" in said
    assert "without rules" in said
    recipe = read_recipe(paths.recipe_json(DATA, "tuned"))
    assert recipe.ships == "one model"
    assert len(recipe.runs()) == 1
    assert recipe.scores["price"]["error"] > 0
    assert predict.main(["--data", DATA]) == 2  # for want of checkpoints, no longer of rules
    assert "breaks the rules" not in capsys.readouterr().err

    (tmp_path / "own.yaml").write_text("max_files: 6")
    assert tune.main([*words, "--rules", str(tmp_path / "own.yaml")]) == 0
    assert read_recipe(paths.recipe_json(DATA, "tuned")).rules == {"max_files": 6}
    assert tune.main([*words, "--rules", "none"]) == 0
    assert read_recipe(paths.recipe_json(DATA, "tuned")).rules == {}


@pytest.mark.parametrize("refit", [False, True])
def test_what_was_chosen_under_rules_is_evaluated_cross_fitted(artefact_root, capsys, refit):
    """Also where some part of the rows had chosen another of the models."""
    home = artefact_root / "input" / DATA
    home.mkdir(parents=True)
    (home / "dataset.yaml").write_text("rules: {single_model: true}")
    folds = make_folds()
    for seed, model in enumerate("abcd"):
        make_oof(folds, model, seed=seed, noise=1.5)
        for fold in [*range(3), *["all"] * refit]:
            make_record(DATA, SCHEME, model, fold, **MILLION)
    assert tune.main(["--data", DATA, "--strategies", "mean"]) == 0
    recipe = read_recipe(paths.recipe_json(DATA, "tuned"))
    assert len(recipe.runs()) == 1
    chosen = {m for rule in recipe.crossfit.values() for m, w in rule.weights.items() if w}
    assert len(chosen) > 1
    capsys.readouterr()
    assert evaluate.main(["--data", DATA, "--recipe", "tuned"]) == 0
    said = capsys.readouterr().out
    low, high = recipe.scores["interval"]
    stated = f"{recipe.scores['cross_fitted']:.4f} [{low:.4f}, {high:.4f}]"
    assert f"macro_f1: cross-fitted {stated} (each part" in said
    (model,) = {member.model for member, _ in recipe.runs()}
    assert evaluate.main(["--data", DATA, "--model", model]) == 0
    said = capsys.readouterr().out
    assert f"tune.py's own cross-fitted macro_f1 is {stated}: there other models decided" in said


def test_nothing_obeys(home, capsys):
    before = paths.recipe_json(DATA, "tuned").read_bytes()
    (home / "dataset.yaml").write_text("rules: {max_params: 5e5}")
    assert tune.main(["--data", DATA, "--strategies", "mean"]) == 2
    said = capsys.readouterr()
    assert "breaks max_params (1.0 M parameters)" in said.out  # the table comes first
    assert "nothing that is trained obeys the rules (max_params: 500000)" in said.err
    assert "The nearest is one model (" in said.err
    assert paths.recipe_json(DATA, "tuned").read_bytes() == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rules: {single_modle: true}", "did you mean 'rules.single_model'?"),
        ("rules: {max_hours: 0}", "rules.max_hours must be > 0"),
    ],
)
def test_a_rule_that_there_is_not(home, capsys, text, said):
    (home / "dataset.yaml").write_text(text)
    assert tune.main(["--data", DATA]) == 2
    assert said in capsys.readouterr().err


def test_hours_of_the_test_items_that_are_here(home, make_images, capsys):
    for model in "ab":
        for fold in range(3):  # an hour an item and net
            make_record(DATA, SCHEME, model, fold, **MILLION, items_per_second=1 / (3 * 3600))
    (home / "dataset.yaml").write_text("rules: {max_hours: 17}")
    assert parsers.main("bundle", ["--data", DATA]) == 2  # for want of checkpoints
    said = capsys.readouterr()
    assert "max_hours: 17 h, and how long prediction takes is not known: the test" in said.out
    assert "breaks the rules" not in said.err
    for seed, folder in enumerate(("train/real", "train/fake", "test")):
        make_images(home / folder, 3, seed=seed)
    assert parsers.main("bundle", ["--data", DATA]) == 2
    said = capsys.readouterr()
    assert "max_hours: about 18 of 17 h for 3 test items, at a third of a" in said.out
    assert "max_hours (about 18 h)" in said.err


def test_fitting_into_no_limit(home, capsys):
    assert predict.main(["--data", DATA, "--fit-in-time"]) == 2
    assert "--fit-in-time wants --max-hours H too (or max_hours" in capsys.readouterr().err
    (home / "dataset.yaml").write_text("rules: {max_hours: 1}")
    assert predict.main(["--data", DATA, "--fit-in-time"]) == 2  # for want of checkpoints
    said = capsys.readouterr()
    assert "--max-hours 1, which the rules of the competition give" in said.out
    assert "--fit-in-time" not in said.err
