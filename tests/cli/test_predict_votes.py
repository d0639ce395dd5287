"""`predict_ensemble.py` with members from elsewhere, another prior, and submission files alone."""

import json

import numpy as np
import pandas as pd
import pytest

from src import paths
from src.artifacts.files import sha256_file
from src.artifacts.folds import read_folds
from src.cli.folds import main as make_folds
from src.cli.predict import main as predict
from src.cli.tune import main as tune
from tests.cli.conftest import write_pictures

N_TRAIN, N_TEST = 60, 24
IDS = [f"{i:02d}.png" for i in range(N_TRAIN, N_TRAIN + N_TEST)]
RNG = np.random.default_rng(0)


@pytest.fixture
def toy(artefact_root, tmp_path):
    """Make a data set of noise, folds, and two members as CSVs; returns the folder of CSVs."""
    home = paths.dataset_dir("toy")
    write_pictures(home, N_TRAIN, N_TEST, RNG)
    sample = pd.DataFrame({"filename": IDS[::-1], "label": 0})
    sample.to_csv(home / "sample_submission.csv", index=False)
    assert make_folds(["--data", "toy"]) == 0
    folds = read_folds(next(paths.folds_dir("toy").glob("sgkf*_s42.csv")))
    for seed, name in enumerate("ab"):
        rng = np.random.default_rng(seed)
        logit = 3 * (2 * folds["label"] - 1) + rng.normal(size=len(folds)) * 2
        folds.assign(logit=logit)[["item_id", "logit"]].to_csv(
            tmp_path / f"{name}.csv", index=False
        )
        test = pd.DataFrame({"item_id": IDS, "logit": rng.normal(size=N_TEST) * 3})
        test.to_csv(tmp_path / f"{name}_test.csv", index=False)
    return tmp_path


def extras(folder):
    specs = [f"{name}={folder}/{name}.csv,{folder}/{name}_test.csv" for name in "ab"]
    return [word for spec in specs for word in ("--extra", spec)]


def submission(name="tuned"):
    return pd.read_csv(paths.submission_csv("toy", name), dtype=str)


def sidecar(name="tuned"):
    return json.loads(paths.submission_csv("toy", name).with_suffix(".json").read_text())


def test_members_from_elsewhere_vote_without_any_checkpoint(toy, capsys):
    assert tune(["--data", "toy", "--strategies", "mean@0.5", *extras(toy)]) == 0
    assert predict(["--data", "toy"]) == 0
    out = capsys.readouterr().out
    assert "a: imported, folds 0 1 2 3 4" in out
    assert "WARNING a has no fold column: nothing shows" in out
    assert "0 checkpoints, 0 of them to predict with" in out
    tests = [pd.read_csv(toy / f"{n}_test.csv").set_index("item_id")["logit"] for n in "ab"]
    prob = pd.Series(sum(1 / (1 + np.exp(-t)) for t in tests)) / 2
    want = (prob >= 0.5).astype(int).astype(str)
    found = submission().set_index("filename")["label"]
    assert found.index.tolist() == list(want.index[::-1])
    assert (found == want.loc[found.index]).all()
    assert sidecar()["members"] == {"a": 0.5, "b": 0.5}
    recipe = json.loads(paths.recipe_json("toy", "tuned").read_text())
    assert sidecar()["scores"] == recipe["scores"] != {}
    scheme = sidecar()["scheme"]
    kept = {name: sha256_file(paths.extra_test_csv("toy", scheme, name)) for name in "ab"}
    assert sidecar()["extras"] == kept


def test_one_bad_extra_or_name_keeps_all_out(toy, capsys):
    good = extras(toy)
    for argv, said in (
        ([*good, "--strategies", "maen"], "unknown"),
        ([*good, "--models", "a", "c"], "unknown model with out-of-fold predictions"),
        ([*good, "--extra", f"c={toy}/a_test.csv,{toy}/a_test.csv"], "has no such item"),
    ):
        assert tune(["--data", "toy", *argv]) == 2
        assert said in capsys.readouterr().err
        assert not paths.oof_home().exists()


def test_extra_test_predictions_of_other_ids_are_refused(toy, capsys):
    test = pd.read_csv(toy / "b_test.csv")
    test.iloc[1:].to_csv(toy / "b_test.csv", index=False)
    tune(["--data", "toy", "--strategies", "mean@0.5", *extras(toy)])
    assert predict(["--data", "toy"]) == 2
    error = capsys.readouterr().err
    assert "the test predictions of b lack '60.png' (1 missing, 0 unknown)" in error
    assert not paths.submission_csv("toy", "tuned").exists()


def test_a_prior_moves_the_threshold_and_says_what_it_assumes(toy, capsys):
    tune(["--data", "toy", "--strategies", "mean", *extras(toy)])
    assert predict(["--data", "toy"]) == 0
    before = submission()["label"].astype(int).sum()
    assert predict(["--data", "toy", "--prior", "0.05"]) == 0
    out = capsys.readouterr().out
    assert "prior (given): 5.0% fake among the test items, 50.0% among" in out
    assert "WARNING it assumes" in out
    assert submission()["label"].astype(int).sum() <= before
    assert sidecar()["prior"]["test_share"] == 0.05
    assert predict(["--data", "toy", "--prior", "much"]) == 2
    assert "want em, bbse or a share" in capsys.readouterr().err


def votes(folder, name, labels):
    table = pd.DataFrame({"filename": IDS, "label": labels})
    table.to_csv(folder / f"{name}.csv", index=False)
    return str(folder / f"{name}.csv")


def test_files_alone_are_voted_on_and_checked_against_the_sample(toy, capsys):
    answers = RNG.integers(0, 2, (3, N_TEST))
    files = [votes(toy, f"v{k}", answer) for k, answer in enumerate(answers)]
    assert predict(["--vote", *files, "--data", "toy"]) == 0
    found = submission("voted")
    assert found["filename"].tolist() == IDS[::-1]
    want = (answers.sum(axis=0) >= 2).astype(int)[::-1]
    assert found["label"].astype(int).tolist() == want.tolist()
    assert [entry["file"] for entry in sidecar("voted")["voted"]] == ["v0.csv", "v1.csv", "v2.csv"]
    output = toy / "out.csv"
    assert (
        predict(["--vote", *files, "--vote-weights", "5", "1", "1", "--output", str(output)]) == 0
    )
    assert pd.read_csv(output)["label"].tolist() == answers[0].tolist()
    assert "3 files, 24 items" in capsys.readouterr().out
    huge = ["--vote-weights", *["1e308"] * 3]  # weights of any size count
    assert predict(["--vote", *files, *huge, "--output", str(output)]) == 0
    assert pd.read_csv(output)["label"].tolist() == (answers.sum(axis=0) >= 2).astype(int).tolist()


def test_votes_that_cannot_be_counted_write_nothing(toy, capsys):
    files = [votes(toy, f"v{k}", [k] * N_TEST) for k in range(2)]
    for argv, match in (
        ([], "--vote wants --output CSV, or --data NAME"),
        (["--data", "toy", "--recipe", "tuned"], "--vote and --recipe do not go together"),
        (["--output", "/no/such/folder/x.csv"], "want a file in a folder that exists"),
        (["--output", "out.JSON"], "want a name that ends with .csv"),
        (["--data", "toy", "--refit"], "--vote and --refit do not go together"),
        (["--data", "toy", "--overwrite"], "--vote and --overwrite do not go together"),
        (["--data", "toy", "--threshold", "0.4"], "--vote and --threshold do not go"),
        (["--output", files[0]], "is one of the files that vote"),
        (["--data", "toy", "--vote-weights", "1"], "2 files and 1 weights"),
    ):
        assert predict(["--vote", *files, *argv]) == 2
        assert match in capsys.readouterr().err
        assert not paths.submission_csv("toy", "voted").exists()
    assert predict(["--vote-weights", "1", "--data", "toy"]) == 2
    assert "--vote-weights wants --vote" in capsys.readouterr().err
    for file in files:  # of other ids than the sample
        pd.DataFrame({"filename": ["zz.png"], "label": [1]}).to_csv(file, index=False)
    assert predict(["--vote", *files, "--data", "toy"]) == 2
    assert "lack id '60.png' of the sample submission of toy" in capsys.readouterr().err


def test_a_refused_extra_is_taken_back(toy, capsys):
    pd.read_csv(toy / "a.csv").to_csv(toy / "b.csv", index=False)
    assert tune(["--data", "toy", *extras(toy)]) == 2
    err = capsys.readouterr().err
    assert "equal those of" in err
    assert "taken back: a b" in err
    assert not list(paths.oof_home().rglob("*.csv"))


def test_doubts_about_an_extra_stay_with_its_recipes(toy, capsys):
    assert tune(["--data", "toy", "--strategies", "mean@0.5", *extras(toy)]) == 0
    capsys.readouterr()
    assert tune(["--data", "toy", "--strategies", "mean@0.5"]) == 0
    out = capsys.readouterr().out
    assert "folds not known" in out
    assert "nothing shows that a, b predicted on these folds" in out


def test_an_answer_replaces_no_file_that_no_vote_has_written(toy, capsys):
    files = [votes(toy, f"v{k}", [k] * N_TEST) for k in range(2)]
    train = toy / "mine.csv"
    train.write_text("a,b\n1,2\n")
    assert predict(["--vote", *files, "--output", str(train)]) == 2
    assert "mine.csv is there, and not as this command wrote it" in capsys.readouterr().err
    assert train.read_text() == "a,b\n1,2\n"
    for _ in range(2):
        assert predict(["--vote", *files, "--output", str(toy / "again.csv")]) == 0
    (toy / "again.csv").write_text("filename,label\nmine,1\n")
    assert predict(["--vote", *files, "--output", str(toy / "again.csv")]) == 2
    inside = paths.dataset_dir("toy") / "labels.csv"
    assert predict(["--vote", *files, "--data", "toy", "--output", str(inside)]) == 2
    assert "which is read" in capsys.readouterr().err
    assert not inside.exists()
