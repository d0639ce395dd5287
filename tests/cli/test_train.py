"""Seeds, refit and pseudo-labels through the commands' own main functions."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from src import paths
from src.artifacts.folds import read_folds
from src.artifacts.oof import read_oof, read_views
from src.config import read_model
from tests.cli.conftest import SCHEME, Command


def names(model: str, fold: int | str = 0) -> tuple[str, str, str, int | str]:
    return "tiny", SCHEME, model, fold


def test_seeds_are_members_that_differ_only_in_their_seed(command: Command) -> None:
    command("train", "--model", "tiny", "--fold", "0")
    alone = paths.oof_csv(*names("tiny")).read_bytes()
    paths.run_record(*names("tiny")).unlink()  # trained again below
    command("train", "--model", "tiny", "--fold", "0", "--seeds", "3")
    oof = [paths.oof_csv(*names(m)).read_bytes() for m in ("tiny", "tiny_s43", "tiny_s44")]
    assert oof[0] == alone
    assert len(set(oof)) == 3
    configs = [read_model(m).as_dict() for m in ("tiny", "tiny_s43", "tiny_s44")]
    assert [config.pop("seed") for config in configs] == [42, 43, 44]
    assert configs[0] == configs[1] == configs[2]
    again = command("train", "--model", "tiny", "--fold", "0", "--seeds", "3")
    assert again.count("finished already") == 3
    assert "3 member(s)" in command("tune", "--trials", "3")


def test_seeds_never_take_over_a_name(command: Command, tiny: Path) -> None:
    (tiny / "configs/models/tiny_s43.yaml").write_text("extends: tiny\noptim: {lr: 0.1}\n")
    assert "tiny_s43" in command("train", "--model", "tiny", "--seeds", "2", code=2)
    assert "want 1 or more" in command("train", "--model", "tiny", "--seeds", "0", code=2)
    assert not paths.run_dir("tiny", SCHEME, "tiny").exists()


def test_a_refit_predicts_in_place_of_the_folds(command: Command) -> None:
    command("train", "--model", "tiny")
    command("tune")
    command("predict")
    refused = command("predict", "--refit", code=2)
    assert "train_folds.py --model tiny --fold all --data tiny" in refused
    assert "predict_ensemble.py --refit" in command("train", "--model", "tiny", "--fold", "all")
    recipe = paths.recipe_json("tiny", "tuned")
    before = recipe.read_bytes()
    command("tune")
    assert recipe.read_bytes() == before  # a refit is no fold
    out = command("predict", "--refit")
    assert "1 checkpoints, 1 of them to predict with" in out
    assert "refit: weights and thresholds are the recipe's" in out
    views, _ = read_views(paths.test_views(*names("tiny", "all")))
    sidecar = json.loads(
        paths.submission_csv("tiny", "tuned_refit").with_suffix(".json").read_text()
    )
    assert list(sidecar["checkpoints"]) == ["tiny fold all"]
    assert "tuned on the members' folds" in sidecar["refit"]
    threshold = json.loads(before)["stages"][1]["params"]["value"]
    prob = 1 / (1 + np.exp(-views.set_index("item_id")["logit"]))
    answers = pd.read_csv(paths.submission_csv("tiny", "tuned_refit")).set_index("filename")
    assert (answers["label"] == (prob >= threshold).loc[answers.index]).all()
    assert "refit" not in json.loads(
        paths.submission_csv("tiny", "tuned").with_suffix(".json").read_text()
    )
    recipe.with_stem("tuned_refit").write_bytes(before)
    assert "under another name" in command("predict", "--refit", "--recipe", "tuned", code=2)


def test_pseudo_labels_train_a_variant_fold_by_fold(command: Command) -> None:
    pseudo = ["--set", "pseudo.recipe=tuned", "--set", "pseudo.confidence=0.51", "--as", "tiny_pl"]
    assert "tune.py --data tiny" in command("train", "--model", "tiny", *pseudo, code=2)
    command("train", "--model", "tiny")
    command("tune")
    assert "predict_ensemble.py" in command("train", "--model", "tiny", *pseudo, code=2)
    command("predict")
    command("train", "--model", "tiny", *pseudo)
    folds = read_folds(paths.folds_csv("tiny", SCHEME))
    for fold in (0, 1):
        read_oof(paths.oof_csv(*names("tiny_pl", fold)), folds, fold)  # exactly the fold's ids
        record = json.loads(paths.run_record(*names("tiny_pl", fold)).read_text())
        assert list(record["pseudo"]["views"]) == [f"tiny fold {fold}"]
        assert sum(record["pseudo"]["added"].values()) > 0
    assert command("train", "--model", "tiny_pl").count("finished already") == 2
    command("train", "--model", "tiny_pl", "--fold", "all")
    command("tune", "--recipe", "both", "--trials", "3")
    command("predict", "--recipe", "both")
    command("tune", "--voting", "hard", "--models", "tiny")
    refused = command("train", "--model", "tiny_pl", code=2)
    assert "its pseudo-labels have changed since" in refused


def test_a_refused_command_keeps_no_variant(command: Command, tiny: Path) -> None:
    new = tiny / "configs" / "models" / "new.yaml"
    change = ("--model", "tiny", "--as", "new", "--set")
    command("train", *change, "optim.lr=1e-3", "--fold", "99", code=2)
    command("train", *change, "optim.lr=1e-3", "--weights", "/no/such.safetensors", code=2)
    assert not new.exists()
    command("train", *change, "optim.lr=2e-3", "--fold", "0")
    assert read_model("new").optim.lr == 2e-3
