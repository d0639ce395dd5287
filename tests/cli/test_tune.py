import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, log_loss, matthews_corrcoef, roc_auc_score

from src import paths
from src.artifacts.folds import write_folds
from src.artifacts.label_names import LabelNames, write_label_names
from src.artifacts.recipes import read_recipe
from src.cli import tune as command
from src.cli.common import choose_tunable
from src.cli.tune import main
from src.ensemble.align import align
from src.ensemble.rule import rule_of, vote
from src.errors import UserError
from tests.conftest import REPO
from tests.ensemble.synthetic import (
    DATA,
    SCHEME,
    edit_csv,
    make_folds,
    make_oof,
    oof_path,
    set_cell,
)
from tests.records import make_record

pytestmark = pytest.mark.usefixtures("artefact_root")
BLOCKED = ["torch", "torchvision", "timm", "albumentations", "cv2"]
TUNE_WITHOUT_TORCH = f"""
import runpy, sys

class Block:  # not None in sys.modules: scipy looks there for a torch that is loaded
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED}:
            raise ImportError(name)

sys.meta_path.insert(0, Block())
sys.argv = ["tune.py", *sys.argv[1:]]
runpy.run_path({str(REPO / "tune.py")!r}, run_name="__main__")
"""


def toy(models=2, **kwargs):
    folds = make_folds()
    for i in range(models):
        make_oof(folds, "abc"[i], seed=i, **kwargs)
    return folds


def recipe_path(name="tuned"):
    return paths.recipe_json(DATA, name)


def nothing_written():
    return not paths.recipe_dir(DATA).exists()


def test_runs_without_torch_from_any_folder(artefact_root, tmp_path):
    toy()
    done = subprocess.run(
        [sys.executable, "-c", TUNE_WITHOUT_TORCH, "--trials", "5"],
        cwd=tmp_path,
        env={**os.environ, "RVF_ROOT": str(artefact_root), "PYTHONPATH": str(REPO)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "searching: 40 trials in all\n"
    assert recipe_path().exists()
    assert "next: python predict_ensemble.py --data toy\n" in done.stdout


def test_prints_members_candidates_verdict_and_what_comes_next(capsys):
    folds = toy()
    make_oof(folds, "d", only=[0, 1], seed=5)
    write_label_names(DATA, LabelNames(("live",), ("spoof",)))
    assert main(["--data", DATA, "--trials", "5", "--recipe", "mine"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"% spoof\nlabels: 0 -> live, 1 -> spoof\n", out)
    assert "toy/sgkf3_s0: folds 0 1 2 of 3, 3 member(s), 240 items in 80 groups" in out
    assert re.search(r"\nd +0 1 +162 ", out)
    for word in ("mean@0.5", "cma-es (5 trials)", "in-sample", "cross-fitted", "optimism",
                 "95 % interval", "chosen", "correlation of logits"):  # fmt: skip
        assert word in out
    assert f"wrote {recipe_path('mine')}" in out
    assert out.endswith("next: python predict_ensemble.py --data toy --recipe mine\n")


def test_one_fold_of_one_model_is_enough(capsys):
    make_oof(make_folds(), "a", only=[0])
    assert main([]) == 0
    recipe = json.loads(recipe_path().read_text())
    assert recipe["folds"] == [0]
    assert [member["weight"] for member in recipe["members"]] == [1.0]
    assert "1 member(s)" in capsys.readouterr().out


def test_tuning_again_replaces_the_recipe_and_says_so(capsys):
    toy(1)
    assert main([]) == 0
    first = recipe_path().read_bytes()
    assert main([]) == 0
    assert f"replaced {recipe_path()}" in capsys.readouterr().out
    assert recipe_path().read_bytes() == first
    assert main(["--voting", "hard"]) == 0
    assert json.loads(recipe_path().read_text())["stages"][0]["params"] == {"rule": "hard"}


def test_strategies_are_listed_and_chosen(capsys):
    toy(3)
    assert main(["--list"]) == 0
    shown = capsys.readouterr().out
    assert "stack-free" in shown
    assert "isotonic-mean" in shown
    assert main(["--strategies", "mean@0.5", "isotonic-mean", "--recipe", "iso"]) == 0
    recipe = json.loads(recipe_path("iso").read_text())
    assert [c["name"] for c in recipe["scores"]["candidates"]] == ["mean@0.5", "isotonic-mean"]
    main(["--strategies", "platt-mean", "--recipe", "platt"])
    stages = json.loads(recipe_path("platt").read_text())["stages"]
    assert [stage["name"] for stage in stages] == ["calibration", "voting", "threshold"]
    assert set(stages[0]["params"]["curves"]) == {"a", "b", "c"}


def test_calibration_comes_before_any_strategy(capsys):
    toy(3)
    words = ["--strategies", "mean@0.5", "greedy", "tpe", "--trials", "5", "--calibrate", "platt"]
    assert main(words) == 0
    recipe = json.loads(recipe_path().read_text())
    names = [candidate["name"] for candidate in recipe["scores"]["candidates"]]
    assert names == ["mean@0.5", "platt-greedy", "platt-tpe"]
    assert "platt-tpe (5 trials)" in capsys.readouterr().out
    assert main(["--calibrate", "plat", "--recipe", "other"]) == 2
    assert "unknown calibration 'plat'; did you mean 'platt'" in capsys.readouterr().err
    assert not recipe_path("other").exists()


def test_scores_by_kind_and_domain_are_printed_and_kept(capsys):
    rng = np.random.default_rng(0)
    folds = make_folds()
    paths.folds_csv(DATA, SCHEME).unlink()
    domain = np.where(rng.random(len(folds)) < 0.4, "dfdc", "cifake").astype(object)
    domain[(folds["label"] == 1).to_numpy().nonzero()[0][:7]] = "web"
    write_folds(paths.folds_csv(DATA, SCHEME), folds.assign(domain=domain))
    make_oof(folds, "a")
    assert main(["--data", DATA]) == 0
    out = capsys.readouterr().out
    parts = json.loads(recipe_path().read_text())["scores"]["breakdown"]
    assert list(parts) == ["domain"]
    table = out[out.index("by domain, cross-fitted, at its threshold") :].splitlines()
    assert table[1].split() == ["domain", "items", "fake", "macro-F1", "F1", "real", "F1", "fake",
                                "AUC"]  # fmt: skip
    assert [line.split()[0] for line in table[2:5]] == ["cifake", "dfdc", "web"]
    assert table[4].split()[1:5] == ["7", "7", "-", "-"]
    assert table[4].endswith("only fake")
    assert f"{parts['domain'][1]['macro_f1']:.4f}" in table[3]


def test_members_from_elsewhere_listed_in_a_yaml(tmp_path, capsys):
    folds = toy(1)
    prob = np.random.default_rng(3).random(len(folds))
    folds[["item_id"]].assign(prob=prob).to_csv(tmp_path / "o.csv", index=False)
    (tmp_path / "t.csv").write_text("item_id,prob\nt1,0.5\n")
    (tmp_path / "x.yaml").write_text("one: {oof: o.csv, test: t.csv}\n")
    assert main(["--extra", str(tmp_path / "x.yaml"), "--strategies", "mean"]) == 0
    members = json.loads(recipe_path().read_text())["members"]
    assert [member["model"] for member in members] == ["a", "one"]
    assert "one: imported, folds 0 1 2" in capsys.readouterr().out
    (tmp_path / "x.yaml").write_text("two: {oof: o.csv, tests: t.csv}\n")
    assert main(["--extra", str(tmp_path / "x.yaml")]) == 2
    assert "did you mean 'two.test'" in capsys.readouterr().err


@pytest.mark.usefixtures("drawn")
def test_plots_of_the_searches(capsys):
    toy(2)
    assert main(["--strategies", "tpe", "--trials", "6", "--plots"]) == 0
    plots = sorted(paths.study_plots_dir(DATA, "tuned").glob("*.png"))
    names = ["optimization_history", "param_importances", "slice"]
    assert [plot.name for plot in plots] == [f"tpe.{name}.png" for name in names]
    assert all(plot.read_bytes().startswith(b"\x89PNG") for plot in plots)
    assert str(plots[0]) in capsys.readouterr().out


def test_members_can_be_chosen(capsys):
    toy(3)
    assert main(["--models", "c", "a", "--trials", "2"]) == 0
    members = json.loads(recipe_path().read_text())["members"]
    assert [member["model"] for member in members] == ["a", "c"]


def test_selected_on_members_are_marked(capsys):
    toy(1)
    make_record(DATA, SCHEME, "a", 0, selection="best")
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert "selected-on: the epoch (or the merge) was chosen by its score" in printed


def test_shows_a_bar_where_somebody_watches(artefact_root):
    toy()
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    done = subprocess.run(
        [sys.executable, str(REPO / "tune.py"), "--trials", "5"],
        env={**os.environ, "RVF_ROOT": str(artefact_root)},
        stdout=subprocess.DEVNULL,
        stderr=slave,
        timeout=120,
        check=False,
    )
    shown = os.read(master, 10_000)
    os.close(slave)
    os.close(master)
    assert done.returncode == 0
    assert b"searching" in shown
    assert b"/40" in shown


def test_without_input_the_one_data_set_with_predictions_is_taken(artefact_root):
    toy(1)
    assert choose_tunable(None, None) == DATA
    assert choose_tunable(DATA, None) == DATA
    (artefact_root / "input" / "other").mkdir(parents=True)
    assert choose_tunable(None, None) == "other"  # input/ decides
    (artefact_root / "input" / "third").mkdir()
    assert choose_tunable(None, None) == DATA
    with pytest.raises(UserError, match="unknown data set 'tox'"):
        choose_tunable("tox", None)
    (artefact_root / "oof" / "fourth").mkdir()
    with pytest.raises(UserError, match="say which"):
        choose_tunable(None, None)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (set_cell("item_id", "elsewhere/1.jpg"), "row 2: item_id 'elsewhere/1.jpg' is not in fold"),
        (set_cell("logit", "nan", 3), "row 5: logit is 'nan'"),
        (set_cell("logit", "inf", 3), "row 5: logit is 'inf'"),
        (lambda t: t.assign(item_id=[t["item_id"][0], *t["item_id"][:-1]]), "stands already in"),
        (lambda t: t.assign(label=(1 - t["label"].astype(int)).astype(str)), "row 2: label is"),
        (lambda t: t.assign(logit="1.5"), "logits are 1.5"),
        (lambda t: t[:-3], "3 of the"),
    ],
)
def test_bad_predictions_name_the_file_and_write_nothing(capsys, change, match):
    toy()
    edit_csv(oof_path("b", 1), change)
    assert main(["--data", DATA]) == 2
    captured = capsys.readouterr()
    assert match in captured.err
    assert str(oof_path("b", 1)) in captured.err
    assert nothing_written()


def test_a_typo_is_an_error_that_lists_what_exists(capsys):
    toy()
    for argv, match in (
        (["--models", "a", "z"], "unknown model with out-of-fold predictions 'z'"),
        (["--data", "tox"], "unknown data set 'tox'"),
        (["--scheme", "sgkf9"], "unknown fold scheme 'sgkf9'; did you mean 'sgkf3_s0'?"),
        (["--voting", "ranc"], "unknown voting 'ranc'"),
        (["--trials", "0"], "--trials 0: want 1 or more"),
        (["--trials", "many"], "invalid int value: 'many'"),
        (["--seed", "-1"], "--seed -1"),
        (["--recipe", "../x"], "--recipe '../x': want a plain name"),
        (["--recipe", ""], "--recipe '': want a plain name"),
        (["--model", "a"], "unknown argument '--model'; did you mean '--models'"),
    ):
        assert main(argv) == 2
        assert match in capsys.readouterr().err
    assert nothing_written()


def test_nothing_trained_says_which_command_to_run(capsys, artefact_root):
    assert main([]) == 2
    assert "holds no data set" in capsys.readouterr().err
    (artefact_root / "input" / DATA).mkdir(parents=True)
    assert main([]) == 2
    assert "run python train_folds.py --data toy --model" in capsys.readouterr().err
    make_folds()
    assert main([]) == 2
    assert "python train_folds.py --data toy --model" in capsys.readouterr().err
    assert nothing_written()


def test_an_extra_that_another_tune_brings_is_left_alone(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("src.artifacts.atomic.PATIENCE", 0.0)
    folds = toy()
    home = paths.oof_dir(DATA, SCHEME, "theirs")

    def bring(seed):
        logits = np.random.default_rng(seed).normal(size=len(folds)) + folds["label"]
        oof = folds[["item_id", "fold"]].assign(logit=logits)
        oof.to_csv(tmp_path / "oof.csv", index=False)
        (tmp_path / "test.csv").write_text("item_id,prob\nt1,0.2\n")
        return main(["--extra", f"theirs={tmp_path}/oof.csv,{tmp_path}/test.csv", "--trials", "3"])

    outcomes = []

    def meanwhile(*args, **kwargs):
        monkeypatch.setattr(command, "tune", real)
        kept = {path.name: path.read_bytes() for path in home.iterdir()}
        outcomes.append(bring(2))  # another command, while this one is searching
        assert {path.name: path.read_bytes() for path in home.iterdir()} == kept
        return real(*args, **kwargs)

    real = command.tune
    monkeypatch.setattr(command, "tune", meanwhile)
    assert bring(1) == 0
    assert outcomes == [2]
    assert "another process is at work on" in capsys.readouterr().err
    assert main(["--trials", "3"]) == 0
    assert bring(2) == 0  # once nobody is at it, a second import replaces the first


@pytest.mark.parametrize(
    ("metric", "oracle", "higher"),
    [
        ("auc", lambda y, prob, _: roc_auc_score(y, prob), True),
        ("log_loss", lambda y, prob, _: log_loss(y, prob), False),
        ("balanced_accuracy", lambda y, _, pred: balanced_accuracy_score(y, pred), True),
        ("mcc", lambda y, _, pred: matthews_corrcoef(y, pred), True),
    ],
)
def test_another_metric_is_tuned_for(metric, oracle, higher, capsys):
    toy(3, shift=1.0)
    main(["--data", DATA, "--metric", metric, "--trials", "5"])
    out = capsys.readouterr().out
    recipe = read_recipe(recipe_path())
    aligned = align(DATA, SCHEME)
    votes = vote(rule_of(recipe), aligned.logit)
    assert recipe.metric == metric
    assert recipe.scores["in_sample"] == pytest.approx(oracle(aligned.label, *votes), abs=1e-9)
    plain = recipe.scores["candidates"][0]
    assert plain["name"] == ("mean@0.5" if "accuracy" in metric or metric == "mcc" else "mean")
    gain = recipe.scores["cross_fitted"] - plain["cross_fitted"]
    assert (gain if higher else -gain) >= 0  # shifted logits: what is fitted is worth something
    if metric in ("auc", "log_loss"):
        assert recipe.stage("threshold") == {"value": 0.5}
        assert "no threshold" in out
        assert "majority" not in out
    assert ("less is better" in out) is not higher


def test_the_metric_of_a_data_set_is_its_yamls(capsys):
    toy()
    yaml = paths.dataset_yaml(DATA)
    yaml.parent.mkdir(parents=True, exist_ok=True)
    yaml.write_text("metric: AUROC\n")
    main(["--data", DATA])
    assert read_recipe(recipe_path()).metric == "auc"
    main(["--data", DATA, "--metric", "ap"])
    assert "dataset.yaml says auc" in capsys.readouterr().out
    assert read_recipe(recipe_path()).metric == "ap"


@pytest.mark.parametrize(
    ("metric", "says"),
    [
        ("auk", "did you mean"),
        ("recall_fake", "tuned for"),
        ("tpr@fpr=0.01%", "the limit allows no error"),
    ],
)
def test_a_metric_that_cannot_be_tuned_for_is_refused(metric, says, capsys):
    toy()
    assert main(["--data", DATA, "--metric", metric]) == 2
    assert says in capsys.readouterr().err
    nothing_written()
