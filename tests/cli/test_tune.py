import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest

from src import paths
from src.cli.tune import choose_tunable, main
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

pytestmark = pytest.mark.usefixtures("artefact_root")
BLOCKED = ["torch", "torchvision", "timm", "albumentations", "cv2"]
TUNE_WITHOUT_TORCH = f"""
import runpy, sys
for name in {BLOCKED}:
    sys.modules[name] = None  # importing it raises ImportError
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
    assert done.stderr == "searching: 20 trials in all\n"
    assert recipe_path().exists()
    assert "next: python predict_ensemble.py --data toy\n" in done.stdout


def test_help_needs_neither_numpy_nor_pandas(run_cli):
    done = run_cli("tune.py", "--help", timeout=30)
    assert done.returncode == 0
    assert "--voting" in done.stdout
    code = "import sys, src.cli.tune; print({'numpy', 'pandas', 'optuna'} & set(sys.modules))"
    lean = subprocess.run(
        [sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True
    )
    assert lean.stdout == "set()\n"


def test_prints_members_candidates_verdict_and_what_comes_next(capsys):
    folds = toy()
    make_oof(folds, "d", only=[0, 1])
    assert main(["--data", DATA, "--trials", "5", "--recipe", "mine"]) == 0
    out = capsys.readouterr().out
    assert "toy/sgkf3_s0: folds 0 1 of 3, 3 member(s), 162 items in 54 groups" in out
    for model in ("a", "b"):
        assert f"left out: fold 2 of {model} (not finished by d)" in out
    for word in ("mean@0.5", "weights", "in-sample", "cross-fitted", "95 % interval", "chosen"):
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


def test_members_can_be_chosen(capsys):
    toy(3)
    assert main(["--models", "c", "a", "--trials", "2"]) == 0
    members = json.loads(recipe_path().read_text())["members"]
    assert [member["model"] for member in members] == ["a", "c"]


def test_selected_on_members_are_marked(capsys):
    toy(1)
    record = paths.run_record(DATA, SCHEME, "a", 0)
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"schema": 1, "selection": "best"}))
    assert main([]) == 0
    assert "selected-on: the epoch was chosen by its score" in capsys.readouterr().out


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
    assert b"/20" in shown


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


@pytest.mark.parametrize(
    ("argv", "match"),
    [
        (["--models", "a", "z"], "unknown model with out-of-fold predictions 'z'"),
        (["--data", "tox"], "unknown data set 'tox'"),
        (["--scheme", "sgkf9"], "unknown fold scheme 'sgkf9'; did you mean 'sgkf3_s0'?"),
        (["--voting", "rank"], "unknown voting 'rank'"),
        (["--trials", "0"], "--trials 0: want 1 or more"),
        (["--trials", "many"], "invalid int value: 'many'"),
        (["--seed", "-1"], "--seed -1"),
        (["--recipe", "../x"], "--recipe '../x': want a plain name"),
        (["--recipe", ""], "--recipe '': want a plain name"),
        (["--model", "a"], "unknown argument '--model'; did you mean '--models'"),
    ],
)
def test_a_typo_is_an_error_that_lists_what_exists(capsys, argv, match):
    toy()
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert match in captured.err
    assert nothing_written()


def test_a_missing_fold_says_who_has_what(capsys):
    folds = make_folds()
    make_oof(folds, "a", only=[0])
    make_oof(folds, "b", only=[1])
    assert main(["--models", "a", "b"]) == 2
    assert "a has fold 0; b has fold 1. Train the missing folds" in capsys.readouterr().err
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
