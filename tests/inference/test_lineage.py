"""What weights were trained on. Oracle: records and fold files written by hand."""

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from src import paths
from src.artifacts.files import sha256_file
from src.artifacts.recipes import Member, Recipe
from src.artifacts.runs import read_record
from src.cli import evaluate, report, tune
from src.data.items.manifest import Dataset
from src.data.layouts.load import load_dataset
from src.errors import UserError
from src.inference.cross_dataset import leave_out_seen, trained_ids
from src.inference.lineage import (
    Training,
    check_own,
    check_unseen,
    origin_of,
    records_of,
    trained_on,
    trained_sets,
)
from src.models.checkpoint import is_ours
from src.training.job import Job
from tests.ensemble.synthetic import DATA, make_folds, make_oof
from tests.ensemble.synthetic import SCHEME as OWN
from tests.records import change_sealed, fold_file, make_record
from tests.soups.test_run import UNIFORM, merge, plan_of

pytestmark = pytest.mark.usefixtures("artefact_root")
SCHEME = "s"
FIRST = "f" * 64
RECIPE = Recipe("a", SCHEME, [0], "", [Member("m", 1.0, 0.5, [0])], [])
PLAIN = ["real/x.png", "real/y.png", "fake/x.png", "fake/y.png"]


def write_set(name: str, yaml: str = "") -> Dataset:
    rng = np.random.default_rng(ord(name[0]))
    for label in ("real", "fake") if "combine" not in yaml else ():
        folder = paths.dataset_dir(name) / "train" / label
        folder.mkdir(parents=True)
        for place in range(3):
            pixels = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
            (folder / f"{name}{place}.png").write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    if yaml:
        paths.dataset_dir(name).mkdir(exist_ok=True)
        (paths.dataset_dir(name) / "dataset.yaml").write_text(yaml)
    return load_dataset(name)


def write_record(
    dataset: str = "a", model: str = "m", sha256: str = "", start: str = "", **more: Any
) -> dict[str, Any]:
    content = {
        "start": start_of(start) if start else {"source": "random", "sha256": ""},
        "checkpoint_sha256": sha256,
        **more,
    }
    return make_record(dataset, SCHEME, model, 0, **content)


def start_of(sha256: str, name: str = "w.safetensors") -> dict[str, Any]:
    """Return what a run that starts from the weights of another says of its start."""
    file = paths.root() / name
    if not file.exists():
        save_file({"w": torch.zeros(1)}, file)
    return {
        "source": "file",
        "name": file.name,
        "sha256": sha256,
        "origin": origin_of(file, sha256, ours=is_ours(file)),
    }


def merged(**ingredient: Any) -> dict[str, Any]:
    """Return what the record of a merge of one ingredient `x` says of it."""
    one = {"name": "x", "dataset": "a", "scheme": SCHEME, "fold": 0, "sha256": "e" * 64}
    path = paths.folds_csv(one["dataset"], SCHEME)
    return {"merged_from": {"ingredients": [one | {"folds_sha256": sha_of(path)} | ingredient]}}


def sha_of(path: Path) -> str:
    return sha256_file(path) if path.is_file() else ""


def check(other: str = "b", **options: bool) -> dict[str, set[str] | None]:
    return trained_sets(records_of(RECIPE, [0]), load_dataset(other), **options)


def refused(text: str, other: str = "b", **options: bool) -> None:
    with pytest.raises(UserError, match=text):
        check(other, **options)


# Another data set


def test_the_fold_file_tells_what_was_trained_on() -> None:
    write_set("b")
    fold_file("a", PLAIN)
    write_record()
    assert check() == {"a": set(PLAIN)}
    fold_file("a", [*PLAIN, "b/fake/b1.png"])
    refused(r"m: .*s\.csv is not the fold file that it was trained with any more")
    write_record()
    refused(r"m was trained on 1 items of b, for example 'fake/b1.png'")
    write_set("d")  # parts in common
    fold_file("a", ["b/fake/b0.png", "c/real/x.png", *PLAIN])
    write_record()
    write_set("both", "combine: [b, d]\n")
    refused(r"1 items of both, for example 'b/fake/b0.png'", "both")


@pytest.fixture
def first(artefact_root: Path) -> None:
    """Write the data sets `a` and `b`, and the record of `first`, trained on `b` from `zero`."""
    write_set("b")
    fold_file("a", PLAIN)
    fold_file("b", PLAIN)
    write_record("b", "zero", "0" * 64)
    write_record("b", "first", FIRST, start="0" * 64)


@pytest.mark.usefixtures("first")
def test_evaluate_and_merge_say_the_same_of_a_start_on_the_other_set() -> None:
    """They said opposite things: `evaluate --from` refused, `merge --holdout` printed a score."""
    write_record(start=FIRST)
    refused(r"first, from which m started, was trained on b: no leaked score")
    # `merge --holdout` hands over the record of the merge, whose ingredient started there.
    soup = write_record(model="soup", **merged(start=start_of(FIRST)))
    with pytest.raises(UserError, match="first, from which soup started, was trained on b"):
        trained_sets([("soup", soup)], load_dataset("b"))
    # What a stage left behind is of its run.
    stage = paths.stage_checkpoint("b", SCHEME, "first", 0, 0)
    stage.write_bytes(b"weights")
    write_record(start=sha_of(stage))
    refused(r"first, from which m started, was trained on b")


@pytest.mark.usefixtures("first")
def test_what_a_start_was_trained_on_outlives_its_run(tmp_path: Path) -> None:
    """Of a run that was deleted, made again or copied here with its record; no name is guessed."""
    (tmp_path / "copy.json").write_bytes(paths.run_record("b", SCHEME, "first", 0).read_bytes())
    shutil.rmtree(paths.checkpoints_home() / "b")
    write_record(start=FIRST)
    check()  # nothing here knows these weights, nor says that they were written here
    make_record("a", SCHEME, "m", 0, start=start_of(FIRST, str(tmp_path / "copy.safetensors")))
    (tmp_path / "copy.json").unlink()
    refused(r"first, from which m started, was trained on b")
    origin = read_record(paths.run_record("a", SCHEME, "m", 0))["start"]["origin"]
    assert (origin["model"], origin["start"]["origin"]["model"]) == ("first", "zero")


@pytest.mark.usefixtures("first")
def test_what_taught_a_model_counts_and_what_taught_that() -> None:
    def taught_by(sha256: str) -> list[dict[str, Any]]:
        return [{key: start_of(sha256)[key] for key in ("name", "sha256", "origin")}]

    write_record("a", "between", "8" * 64, teachers=taught_by(FIRST))
    write_record(teachers=taught_by("8" * 64))
    refused(r"first, which taught m, was trained on b: no leaked score")
    soup = write_record(model="soup", **merged(teachers=taught_by(FIRST)))
    with pytest.raises(UserError, match="first, which taught soup, was trained on b"):
        trained_sets([("soup", soup)], load_dataset("b"))
    # Of weights from elsewhere their user has said that they saw nothing.
    write_record(teachers=[{"name": "clip.bin", "sha256": "7" * 64, "origin": None}])
    check()


def test_ingredients_and_their_starts_count() -> None:
    write_set("b")
    fold_file("a", PLAIN)
    fold_file("cb", ["b/real/b0.png", "c/real/b0.png", "c/fake/b0.png", "c/fake/b1.png"])
    write_record("cb", "first", FIRST)
    write_record(**merged())
    check()
    write_record("a", "second", "9" * 64, start=FIRST)
    write_record(**merged(start=start_of("9" * 64)))
    refused(r"first, from which m started, was trained on 1 items of b")


def test_what_has_no_record_or_no_fold_file_is_refused_and_foreign_weights_are_not() -> None:
    write_set("b")
    fold_file("a", PLAIN)
    refused("m came without a run record, so nothing says whether it was trained on b")
    write_record(start=FIRST)
    check()
    save_file({"w": torch.zeros(1)}, paths.root() / "ours.safetensors", {"rvf": "{}"})
    make_record("a", SCHEME, "m", 0, start=start_of(FIRST, "ours.safetensors"))
    refused(r"ours\.safetensors \(sha256 f+\), from which m started, came without a run record")
    write_record(**merged(dataset=None))
    refused("x, an ingredient of m, came without a run record")
    write_record(**merged(dataset=None, name="start"))
    check()
    write_record(**merged(dataset="z"))
    refused(r"x, an ingredient of m: .*z/s\.csv is not there.*nothing says which rows")
    paths.folds_csv("a", SCHEME).unlink()
    write_record()
    refused(r"m: .*a/s\.csv is not there, the fold file that it was trained with")


def test_a_holdout_that_is_a_part_of_what_an_ingredient_saw_is_refused() -> None:
    mine, _, other = write_set("a"), write_set("b"), write_set("d")
    both = write_set("bd", "combine: [b, d]\n")
    # Sorted, fakes come first: every fold must hold both classes.
    fold_file("a", mine.train["item_id"].tolist(), [0, 0, 1, 0, 0, 1])
    known = fold_file("bd", both.train["item_id"].tolist())
    write_record()
    assert check("d") == {"a": set(mine.train["item_id"])}
    write_record(**merged(dataset="bd", folds_sha256=known))
    refused(r"x, an ingredient of m, was trained on 6 items of d, .*folds/bd/s\.csv", "d")
    write_record(**merged(dataset="d"))
    refused("x, an ingredient of m, was trained on d", "d")
    assert other.name == "d"


def test_pseudo_labelled_test_items_are_not_scored() -> None:
    write_set("a")
    fold_file("a", PLAIN)
    write_record()
    assert check("a", own=True) == {"a": set(PLAIN)}
    change_sealed(paths.run_record("a", SCHEME, "m", 0), {"pseudo": {"added": {"real": 3}}})
    said = r"m was trained on test items of a with pseudo-labels: their score"
    refused(said, "a", own=True)
    # Through weights that it started from, and through an ingredient.
    write_record(model="first", sha256=FIRST, pseudo={"added": {"real": 3}})
    write_record(start=FIRST)
    refused(f"first, from which {said}".replace("which m", "which m started,"), "a", own=True)
    write_record(**merged(pseudo={"added": {"real": 3}}))
    refused("x, an ingredient of m, was trained on test items of a", "a", own=True)
    # Of a set that another one holds.
    write_set("b")
    write_set("ab", "combine: [a, b]\n")
    write_record(pseudo={"added": {"real": 3}})
    assert check() == {"a": None}  # copies of its test items are looked for in `b` too
    refused(r"m was trained on test items of a with pseudo-labels: their \(of a in ab\)", "ab")


# Held-out rows of one's own


def test_what_an_ingredient_of_a_merge_saw_is_seen(pair: Job, tmp_path: Path) -> None:
    merge(plan_of(tmp_path, UNIFORM), pair)
    record = paths.run_record("tiny", "s", "soup", 0)
    content = json.loads(record.read_text())
    for one in content["merged_from"]["ingredients"]:
        assert one["folds_sha256"] == content["folds_sha256"]
        assert one["start"]["source"] == "random"
    # As if by a file of another fold.
    change_sealed(record, lambda found: found["merged_from"]["ingredients"][0].update(fold=1))
    said = r"a, an ingredient of soup, was trained on 18 of the 18 rows.*leaked.*A merge of fold K"
    with pytest.raises(UserError, match=said):
        merge(plan_of(tmp_path, "merge_method: uniform\nmodels: [soup, a]\n", "again"), pair)
    with pytest.raises(UserError, match=said):  # nor is the first one scored by itself
        check_own("tiny", "s", ["soup"], [0])


def run_on(dataset: str, sha256: str, fold: int | str = 0) -> Training:
    run = {"dataset": dataset, "scheme": "s", "fold": fold, "folds_sha256": sha256}
    return Training("a", run)


AB = ["A/x", "A/y", "B/x", "B/y", "E/x"]


@pytest.mark.parametrize(
    ("ours", "other", "theirs", "fold", "seen"),
    [
        (PLAIN, "both", [f"tiny/{name}" for name in PLAIN], 1, set(PLAIN[::2])),  # fold 0
        (PLAIN, "both", [f"tiny/{name}" for name in PLAIN], "all", set(PLAIN)),
        # AB = A + B (and extra E), BD = B + D: what was trained on BD saw the rows of B in AB.
        (AB, "BD", ["B/x", "D/x", "B/z", "D/y"], "all", {"B/x"}),
        (AB, "B", ["x", "y", "z", "w"], "all", {"B/x", "B/y"}),
        (AB, "D", ["x", "y", "z", "w"], "all", set()),
        (AB, "more", ["x", "y", "z", "E/x"], "all", {"E/x"}),
        # Names of folders are no parts.
        (PLAIN, "Q", PLAIN, "all", set()),
    ],
)
def test_a_part_that_two_sets_share_is_seen(
    ours: list[str], other: str, theirs: list[str], fold: int | str, seen: set[str]
) -> None:
    name = "AB" if ours == AB else "tiny"
    home = paths.dataset_dir(name)
    home.mkdir(parents=True)
    if ours == AB:
        (home / "dataset.yaml").write_text("combine: [A, B]\nextra: [E]\n")
    table = pd.DataFrame({"item_id": ours, "fold": range(len(ours))})
    assert trained_on(run_on(other, fold_file(other, theirs), fold), name, "s", table) == seen


def test_without_the_other_fold_file_nothing_says_what_was_seen() -> None:
    table = pd.DataFrame({"item_id": PLAIN, "fold": [0, 1, 0, 1]})
    elsewhere = run_on("gone", "0" * 64)
    with pytest.raises(UserError, match=r"a: .*gone/s\.csv is not there.*nothing says which rows"):
        trained_on(elsewhere, "tiny", "s", table)
    fold_file("gone", list("abcd"))
    with pytest.raises(UserError, match=r"gone/s\.csv is not the fold file that it was trained"):
        trained_on(elsewhere, "tiny", "s", table)
    with pytest.raises(UserError, match="came without a run record, so nothing says"):
        check_unseen([("lone", None)], ("tiny", "s", 0), table)


def test_held_out_rows_that_a_start_saw_are_not_scored(capsys: pytest.CaptureFixture[str]) -> None:
    """Fold 0 that started from a model of fold 1: its predictions of fold 0 are no test."""
    folds = make_folds()
    for seed, model in enumerate("mn"):
        make_oof(folds, model, seed=seed)
    paths.dataset_dir(DATA).mkdir(parents=True)
    for fold in (0, 1, 2):
        make_record(DATA, OWN, "first", fold, checkpoint_sha256=FIRST[fold:])
    make_record(DATA, OWN, "m", 1, start=start_of(FIRST[1:]))
    check_own(DATA, OWN, ["m", "n"], [0, 1, 2])  # fold 1 from a fold 1: it saw none of them
    make_record(DATA, OWN, "m", 0, start=start_of(FIRST[1:]))
    said = "first, from which m started, was trained on"
    for run, words in (
        (tune, ["--strategies", "mean"]),
        (evaluate, ["--model", "m"]),
        (report, ["m"]),
    ):
        assert run.main([*words, "--data", DATA]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert "Train m from weights that did not see them" in error
    assert evaluate.main(["--model", "n"]) == 0


# Copies


def test_copies_are_left_out_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    write_set("a")
    write_set("b")
    home = paths.dataset_dir("b") / "train"
    for place, label in enumerate(("real", "real", "fake")):
        other = paths.dataset_dir("a") / "train" / label / f"a{place}.png"
        (home / label / f"copy{place}.png").write_bytes(other.read_bytes())
    fold_file("a", load_dataset("a").train["item_id"].tolist(), [0, 0, 1, 0, 0, 1])
    dataset, ids = load_dataset("b"), trained_ids("a", SCHEME)
    kept = leave_out_seen("a", ids, dataset, dataset.train, None, SCHEME)
    assert not kept["item_id"].str.contains("copy").any()
    assert len(kept) == 6
    assert "b: 3 of 9 items were seen in training on a and are not scored (3 equal" in caplog.text
    assert "train/fake/copy2.png is akin to train/fake/a2.png of a); to score them" in caplog.text
    # Where nothing of a class is left, there is nothing to score.
    fakes = dataset.train[dataset.train["item_id"].str.contains("copy|fake")]
    fakes = fakes[~fakes["item_id"].str.fullmatch("fake/b.*")]
    with pytest.raises(UserError, match="3 of 3 items were seen in training on a"):
        leave_out_seen("a", ids, dataset, fakes, None, SCHEME)


def test_a_data_set_that_is_gone_is_said(caplog: pytest.LogCaptureFixture) -> None:
    dataset = write_set("b")
    assert len(leave_out_seen("a", {"x"}, dataset, dataset.train, None, SCHEME)) == 6
    assert "copies of items of a are not looked for" in caplog.text
