"""`python -m src evaluate`: the metric table of a model, of a recipe, across data sets."""

import subprocess
import sys

import cv2
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score, roc_auc_score

from src import paths
from src.artifacts.folds import write_folds
from src.artifacts.recipes import read_recipe
from src.cli import evaluate, train, tune
from src.delong import delong
from src.metrics import METRICS, eer_cut, roc, sigmoid
from src.reporting.card_table import cell
from src.reporting.scorecard import Score
from tests.cli.conftest import write_pictures
from tests.ensemble.synthetic import DATA, SCHEME, make_folds, make_oof, oof_path
from tests.shared import tiny_model

pytestmark = pytest.mark.usefixtures("artefact_root")


def scorecard(name="a", other=None, **kwargs):
    path = paths.scorecard_csv(DATA, SCHEME, name, other, **kwargs)
    return pd.read_csv(path, keep_default_na=False, na_values={"score": "", "low": "", "high": ""})


def rewrite(folds):
    path = paths.folds_csv(DATA, SCHEME)
    path.unlink()
    write_folds(path, folds)


def test_a_model_at_one_half(capsys):
    folds = make_folds()
    folds["item_id"] = folds["group"] + "/" + folds["item_id"].str[-8:]
    rewrite(folds)
    logit = make_oof(folds, "a")
    assert evaluate.main(["--model", "a"]) == 0
    out = capsys.readouterr().out
    assert "threshold: 0.5 (no recipe is of this model alone)" in out
    assert all(f"\n{metric} " in out for metric in METRICS)
    table = scorecard()
    items = table[(table["level"] == "item")].set_index("metric")
    prob = sigmoid(logit.loc[folds["item_id"]])
    want = f1_score(folds["label"], prob >= 0.5, average="macro")
    assert items.loc["macro_f1", "score"] == pytest.approx(want, abs=1e-9)
    assert items.loc["auc", "score"] == pytest.approx(roc_auc_score(folds["label"], prob), abs=1e-9)
    low, score, high = items[["low", "score", "high"]].to_numpy()[items.index.get_loc("hter")]
    assert low < score < high
    groups = table[table["level"] == "group"].set_index("metric")
    mean = pd.DataFrame({"p": prob, "y": folds["label"].to_numpy(), "g": folds["group"].to_numpy()})
    mean = mean.groupby("g").mean()
    want = roc_auc_score(mean["y"], mean["p"])
    assert groups.loc["auc", "score"] == pytest.approx(want, abs=1e-9)
    assert set(groups["items"]) == {80}


def test_the_threshold_of_its_own_recipe_and_of_a_named_one(capsys):
    make_oof(make_folds(), "a", shift=1.5)
    assert tune.main(["--strategies", "mean"]) == 0
    capsys.readouterr()
    assert evaluate.main(["--model", "a"]) == 0
    assert "(recipe tuned, fitted on these rows)" in capsys.readouterr().out
    assert evaluate.main(["--recipe", "tuned"]) == 0
    out = capsys.readouterr().out
    scores = read_recipe(paths.recipe_json(DATA, "tuned")).scores
    low, high = scores["interval"]
    assert f"macro_f1: cross-fitted {scores['cross_fitted']:.4f} [{low:.4f}, {high:.4f}]" in out
    assert "But macro_f1, cross-fitted: also by the choice" in out
    assert f"; in-sample {scores['in_sample']:.4f} [" in out
    assert out.index("toy, cross-fitted") < out.index("toy, in-sample")
    one, other = scorecard(), scorecard("tuned", is_recipe=True)
    keys = ["decided", "level", "metric"]
    both = one.merge(other, on=keys, validate="one_to_one")
    assert len(both) == len(one)
    assert np.allclose(both["score_x"], both["score_y"], atol=1e-9)
    found = one[(one["level"] == "item") & (one["metric"] == "macro_f1")].set_index("decided")
    for how, key in (("cross-fitted", "cross_fitted"), ("in-sample", "in_sample")):
        assert found.loc[how, "score"] == pytest.approx(scores[key], abs=1e-12)


def test_the_interval_of_tuning_is_of_the_score_that_was_tuned_for_alone(capsys):
    make_oof(make_folds(), "a", shift=1.5)
    assert tune.main(["--strategies", "mean"]) == 0
    scores = read_recipe(paths.recipe_json(DATA, "tuned")).scores
    capsys.readouterr()
    for words in (["--model", "a"], ["--recipe", "tuned"]):
        assert evaluate.main(words) == 0
        assert "by the luck of the rows alone" in capsys.readouterr().out
        name = words[1]
        found = scorecard(name, is_recipe=name == "tuned").query("level == 'item'")
        found = found.set_index(["decided", "metric"])[["low", "high"]]
        assert found.loc["cross-fitted", "macro_f1"].tolist() == pytest.approx(scores["interval"])
        inner = found.loc["in-sample", "macro_f1"]
        assert inner["high"] - inner["low"] < np.ptp(scores["interval"])
    assert evaluate.main(["--recipe", "tuned", "--folds", "0"]) == 0
    out = capsys.readouterr().out
    low, high = scores["interval"]
    words = f"macro_f1 is {scores['cross_fitted']:.4f} [{low:.4f}, {high:.4f}]"
    assert f"tune.py's own cross-fitted {words}: that one is of 240 rows" in out
    assert "also by the choice" not in out


@pytest.mark.parametrize("words", [["--model", "a"], ["--recipe", "tuned"]])
def test_a_metric_that_wants_no_threshold_has_none(capsys, words):
    make_oof(make_folds(), "a", shift=1.5)
    assert tune.main(["--strategies", "mean", "--metric", "auc"]) == 0
    capsys.readouterr()
    assert evaluate.main(words) == 0
    out = capsys.readouterr().out
    assert (
        "threshold: none was fitted, for auc (recipe tuned) wants none: decisions are taken at "
        "0.5; labels"
    ) in out
    assert "fitted on these" not in out


def test_domains_of_one_class_are_named_and_counted(capsys):
    folds = make_folds()
    attack = "m" + (folds["group"].str[-1].astype(int) % 2).astype(str)
    folds["domain"] = np.where(folds["label"] == 0, "", attack)
    rewrite(folds)
    make_oof(folds, "a")
    assert evaluate.main(["--model", "a", "--by", "domain"]) == 0
    out = capsys.readouterr().out
    assert "(none), item level: - (only reals): macro_f1, f1_fake" in out
    assert "m0, item level: - (only fakes): macro_f1, f1_real" in out
    counted = scorecard().query("by == 'domain' and metric == 'auc' and level == 'item'")
    assert counted["items"].sum() == 240
    assert counted["note"].str.startswith("only ").all()
    assert evaluate.main(["--model", "a", "--by", "manipulation", "--only", "m1"]) == 0
    reals = int((folds["label"] == 0).sum())
    assert f"against all {reals} reals" in capsys.readouterr().out
    assert set(scorecard().query("by != ''")["value"]) == {"m1"}
    assert evaluate.main(["--model", "a", "--by", "manipulation"]) == 0
    parts = scorecard().query("by != '' and level == 'item' and metric == 'auc'")["score"]
    out = capsys.readouterr().out
    assert "plain mean over each manipulation that tells it, as papers print it: macro_f1" in out
    assert f"auc {parts.mean():.4f}, ap" in out


def test_leaving_one_domain_out_takes_the_cut_of_the_other_domains():
    folds = make_folds()
    folds["domain"] = [f"camera{fold}" for fold in folds["fold"]]
    rewrite(folds)
    logit = make_oof(folds, "a").loc[folds["item_id"]].to_numpy()
    assert evaluate.main(["--model", "a", "--by", "domain"]) == 0
    table = scorecard().query("by == 'domain' and level == 'item' and metric == 'hter'")
    found = table.set_index("value")["score"]
    label = folds["label"].to_numpy()
    for fold in range(3):
        held = folds["fold"].to_numpy() == fold
        cut = eer_cut(roc(label[~held], logit[~held]))
        want = 1 - balanced_accuracy_score(label[held], logit[held] >= cut)
        assert found[f"camera{fold}"] == pytest.approx(want, abs=1e-9)


def refused(capsys, *words):
    assert evaluate.main(words) == 2
    return capsys.readouterr().err


def test_mistakes_are_named(capsys):
    make_oof(make_folds(), "a", only=[0])
    for words, said in (
        (["--model", "b"], "unknown model with out-of-fold predictions 'b'"),
        (["--model", "a", "--folds", "2"], "--folds 2: a has predictions of folds 0"),
        (["--model", "a", "--by", "domain", "--only", "x"], "unknown domain 'x'; known: d"),
        (["--model", "a", "--only", "x"], "give --by too"),
        (["--model", "a", "--by", "colour"], "argument --by"),
        (["--recipe", "tuned"], "has no recipe yet"),
        ([], "one of the arguments --model --recipe is required"),
    ):
        assert said in refused(capsys, *words)
    assert evaluate.main(["--model", "a"]) == 0
    assert "(no development rows: no other fold is finished): hter" in capsys.readouterr().out
    oof_path("a", 0).write_text("item_id,fold,label,logit\nx,1,0,nan\n")
    assert f"{oof_path('a', 0)}: row 2: logit is 'nan'" in refused(capsys, "--model", "a")


def test_two_are_held_against_each_other_on_the_same_rows(capsys):
    folds = make_folds()
    one, other = make_oof(folds, "a", noise=2.0), make_oof(folds, "b", noise=0.7, seed=1)
    assert tune.main(["--strategies", "mean"]) == 0
    capsys.readouterr()
    assert evaluate.main(["--model", "a", "--versus", "b"]) == 0
    out = capsys.readouterr().out
    label, group = folds["label"], folds["group"]
    found = delong(label, one.loc[folds["item_id"]], other.loc[folds["item_id"]], group)
    amount = f"{-found.gain:.4f} [{-found.high:.4f}, {-found.low:.4f}] auc"
    assert f"b is better than a by {amount} (DeLong by group, p " in out
    assert " macro_f1 (bootstrap by group, p = " in out
    assert evaluate.main(["--recipe", "tuned", "--versus", "a"]) == 0
    assert "tuned is better than a by 0." in capsys.readouterr().out
    assert "unknown model with out-of-fold predictions 'x'" in refused(
        capsys, "--model", "a", "--versus", "x"
    )


def test_both_are_held_against_the_data_of_the_given_root(monkeypatch, tmp_path):
    folds = make_folds()
    for seed, model in enumerate("ab"):
        make_oof(folds, model, seed=seed)
    roots = []
    monkeypatch.setattr(evaluate, "check_own", lambda *given: roots.append(given[-1]))
    (tmp_path / "elsewhere" / DATA).mkdir(parents=True)
    root = str(tmp_path / "elsewhere")
    assert evaluate.main(["--model", "a", "--versus", "b", "--input-root", root]) == 0
    assert list(map(str, roots)) == [root, root]


def test_a_damaged_recipe_is_named(capsys):
    """Passed over, its threshold would be another one, with exit code 0."""
    make_oof(make_folds(), "a", shift=1.5)
    assert tune.main(["--strategies", "mean"]) == 0
    path = paths.recipe_json(DATA, "tuned")
    path.write_text(path.read_text().replace('"weight": 1', '"weight": 2'))
    capsys.readouterr()
    assert evaluate.main(["--model", "a"]) == 2
    assert "tuned.json: this recipe is not what was written" in capsys.readouterr().err
    path.unlink()
    assert evaluate.main(["--model", "a"]) == 0


def test_an_undefined_score_is_a_dash_and_a_limited_one_has_a_star():
    nan = float("nan")
    assert cell(Score(nan, nan, nan, "only fakes")) == "-"
    assert cell(Score(0.5, nan, nan)) == "0.5000"
    assert cell(Score(0.5, 0.25, 0.75, "few")) == "0.5000* [0.2500, 0.7500]"


def write_set(name, shift, count=24):
    write_pictures(paths.dataset_dir(name), count, 0, np.random.default_rng(shift))


def train_net():
    """Train `net` on every fold of `one`."""
    model = paths.config_dirs("models")[0] / "net.yaml"
    model.parent.mkdir(parents=True)
    model.write_text(tiny_model())
    words = ["--data", "one", "--model", "net", "--scheme", "sgkf2_s0"]
    assert train.main([*words, "--device", "cpu", "--workers", "0"]) == 0


def test_trained_on_a_tested_on_b(capsys):
    write_set("one", 0)
    write_set("two", 1)
    (paths.dataset_dir("two") / "train/real/00.png").write_bytes(b"torn")
    train_net()
    assert tune.main(["--data", "one", "--strategies", "mean"]) == 0
    capsys.readouterr()

    err = refused(capsys, "--model", "net", "--data", "two")
    assert "python -m src evaluate --model net --data two --from one" in err
    assert evaluate.main(["--model", "net", "--data", "two", "--from", "one"]) == 0
    out = capsys.readouterr().out
    assert "two: 24 labelled train items, 2 checkpoint(s) predicted them" in out
    assert "not readable, so not scored: 1 item(s): real/00.png" in out
    assert "in-domain (one)" in out
    assert "cross-domain (two)" in out
    assert "all thresholds carried over from there" in out
    table = pd.read_csv(paths.scorecard_csv("one", "sgkf2_s0", "net", "two"))
    assert set(zip(table["data"], table["items"], strict=True)) == {("one", 24), ("two", 23)}
    hter = table[table["metric"] == "hter"].set_index("data")["score"]
    assert hter.notna().all()  # cuts of `one` on both

    assert evaluate.main(["--recipe", "tuned", "--data", "two", "--from", "one"]) == 0
    assert "0 checkpoint(s) predicted them" in capsys.readouterr().out
    err = refused(capsys, "--model", "net", "--data", "one", "--from", "one")
    assert "one data set: drop --from" in err
    (paths.dataset_dir("one") / "dataset.yaml").write_text("extra: [two]\n")
    err = refused(capsys, "--model", "net", "--data", "two", "--from", "one")
    assert "both hold the items of two (`extra:` in dataset.yaml)" in err
    (paths.dataset_dir("one") / "dataset.yaml").unlink()
    (paths.dataset_dir("both")).mkdir()
    (paths.dataset_dir("both") / "dataset.yaml").write_text("combine: [one, two]\n")
    err = refused(capsys, "--model", "net", "--data", "both", "--from", "one")
    assert "both hold the items of one (`combine:` in dataset.yaml)" in err


def test_own_test_items_and_what_was_seen_in_training(capsys):
    write_set("one", 0)
    home = paths.dataset_dir("one")
    for label in ("real", "fake"):
        (home / "test" / label).mkdir(parents=True)
        for file in (home / "train" / label).iterdir():
            pixels = cv2.imread(str(file))
            fresh = int(file.stem) < 12  # the others are copies of train items
            rng = np.random.default_rng(int(file.stem))
            pixels = rng.integers(0, 255, pixels.shape, dtype=np.uint8) if fresh else pixels
            cv2.imwrite(str(home / "test" / label / f"t{file.stem}.png"), pixels)
    train_net()
    capsys.readouterr()
    assert evaluate.main(["--data", "one", "--model", "net", "--split", "test"]) == 0
    said = capsys.readouterr()
    assert "test items (one)" in said.out
    assert "12 of 24 items were seen in training on one and are not scored (12 equal" in said.out
    table = pd.read_csv(paths.scorecard_csv("one", "sgkf2_s0", "net", "one", split="test"))
    assert set(zip(table["data"], table["items"], strict=True)) == {("one", 24), ("one test", 12)}
    err = refused(capsys, "--model", "net", "--data", "one", "--split", "train")
    assert "goes with --from" in err


def test_own_predictions_are_scored_without_torch():
    make_oof(make_folds(), "a")
    code = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "torchvision", "timm", "cv2", "matplotlib"}:
            raise ImportError(name)
sys.meta_path.insert(0, Block())
from src.cli.evaluate import main
sys.exit(main(["--model", "a"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=paths.REPO,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "scorecard: " in done.stdout
