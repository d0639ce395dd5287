"""What a merge must not pass over: leaks through other merges, other files, other preprocessing."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import timm
import torch

from src import paths
from src.artifacts.files import sha256_file
from src.data.layouts import load_dataset
from src.data.manifest import Dataset
from src.errors import UserError
from src.merging.settings import depth_by_name
from src.tensor_files import read_tensors
from src.training.job import Job
from src.training.merge_agree import check_agreement
from src.training.merge_bench import depth_of
from src.training.merge_files import merge_to_file
from src.training.merge_holdout import read_holdout
from src.training.merge_inputs import Ingredient, Place, resolve
from src.training.merge_leaks import trained_on, trained_sets
from src.training.trainer import fit_fold
from tests.records import change_sealed
from tests.training.test_merge_run import (
    OPTIM,
    UNIFORM,
    MakeJob,
    merge,
    oof_of,
    plan_of,
)


def test_what_an_ingredient_of_a_merge_saw_is_seen(
    pair: Job,
    make_job: MakeJob,
    tmp_path: Path,
) -> None:
    merge(plan_of(tmp_path, UNIFORM), pair)
    record = paths.run_record("tiny", "s", "soup", 0)
    content = json.loads(record.read_text())
    for one in content["merged_from"]["ingredients"]:
        assert one["folds_sha256"] == content["folds_sha256"]
    # As if by a file of another fold.
    change_sealed(record, lambda found: found["merged_from"]["ingredients"][0].update(fold=1))
    with pytest.raises(UserError, match=r"soup was trained on 18 of the 18 rows.*leaked"):
        merge(plan_of(tmp_path, "merge_method: uniform\nmodels: [soup, a]\n", "again"), pair)


def fold_file(dataset: str, ids: list[str], folds: list[int] | None = None) -> str:
    """Write a fold file of a data set, of two folds in turn; returns its fingerprint."""
    path = paths.folds_csv(dataset, "s")
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [f"{one},{k // 2 % 2},{one},,image,{folds[k] if folds else k % 2}"
            for k, one in enumerate(ids)]  # fmt: skip
    path.write_text("\n".join(["item_id,label,group,domain,kind,fold", *rows]) + "\n")
    return sha256_file(path)


def run_on(one: Ingredient, dataset: str, sha256: str, fold: int | str = 0) -> Ingredient:
    """Return an ingredient as if its run had been on another data set."""
    record = dict(one.record or {}) | {
        "dataset": dataset, "scheme": "s", "fold": fold, "folds_sha256": sha256
    }  # fmt: skip
    return replace(one, record=record)


@pytest.fixture
def one(pair: Job, tmp_path: Path) -> Ingredient:
    return resolve(plan_of(tmp_path, UNIFORM).recipes, Place("tiny", "s", 0))["a"]


def test_a_part_of_another_data_set_is_known_by_its_name(pair: Job, one: Ingredient) -> None:
    ids = pair.table["item_id"].tolist()
    sha256 = fold_file("both", [f"tiny/{name}" for name in ids])
    found = trained_on(run_on(one, "both", sha256, 1), "tiny", "s", pair.table)
    assert found == set(ids[::2])  # the items of fold 0
    assert trained_on(run_on(one, "both", sha256, "all"), "tiny", "s", pair.table) == set(ids)


def test_a_part_that_two_combined_sets_share_is_seen(one: Ingredient) -> None:
    """AB = A + B and BD = B + D: what was trained on BD saw the rows of B in AB."""
    home = paths.dataset_dir("AB")
    home.mkdir()
    (home / "dataset.yaml").write_text("combine: [A, B]\nextra: [E]\n")
    ours = pd.DataFrame({"item_id": ["A/x", "A/y", "B/x", "B/y", "E/x"], "fold": [0, 1, 0, 1, -1]})
    for name, theirs, seen in (
        ("BD", ["B/x", "D/x", "B/z", "D/y"], {"B/x"}),
        ("B", ["x", "y", "z", "w"], {"B/x", "B/y"}),
        ("D", ["x", "y", "z", "w"], set()),
        ("more", ["x", "y", "z", "E/x"], {"E/x"}),
    ):
        other = run_on(one, name, fold_file(name, theirs), "all")
        assert trained_on(other, "AB", "s", ours) == seen, name


def test_names_of_folders_are_no_parts(one: Ingredient) -> None:
    paths.dataset_dir("P").mkdir()
    ours = pd.DataFrame({"item_id": ["real/x", "fake/x"], "fold": [0, 1]})
    other = run_on(one, "Q", fold_file("Q", ["real/x", "fake/x", "real/y", "fake/y"]), "all")
    assert trained_on(other, "P", "s", ours) == set()


def test_without_the_other_fold_file_nothing_says_what_was_seen(pair: Job, one: Ingredient) -> None:
    elsewhere = run_on(one, "gone", "0" * 64)
    with pytest.raises(UserError, match=r"a: .*gone/s\.csv is not there.*nothing says which rows"):
        trained_on(elsewhere, "tiny", "s", pair.table)
    fold_file("gone", list("abcd"))
    with pytest.raises(UserError, match=r"gone/s\.csv is not the fold file that it was trained"):
        trained_on(elsewhere, "tiny", "s", pair.table)


def write_set(name: str, stems: str, seed: int, yaml: str = "") -> Dataset:
    rng = np.random.default_rng(seed)
    home = paths.dataset_dir(name)
    home.mkdir(parents=True)
    for label in ("real", "fake") if stems else ():
        (home / "train" / label).mkdir(parents=True)
        for stem in stems:
            coarse = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
            pixels = cv2.resize(coarse, (96, 96), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(home / "train" / label / f"{stem}.png"), pixels)
    if yaml:
        (home / "dataset.yaml").write_text(yaml)
    return load_dataset(name)


def record_of(dataset: str, sha256: str, part: dict | None = None) -> dict:
    """Return a record of a run, or of a merge with one ingredient."""
    ingredient = {"name": "x", "scheme": "s", "fold": 0, **(part or {})}
    return {
        "dataset": dataset, "scheme": "s", "fold": 0, "folds_sha256": sha256,
        "merged_from": {"ingredients": [ingredient]} if part else None,
    }  # fmt: skip


@pytest.mark.usefixtures("artefact_root")
def test_a_holdout_that_is_a_part_of_what_an_ingredient_saw_is_refused() -> None:
    mine, _, other = write_set("A", "ab", 0), write_set("B", "ab", 1), write_set("D", "ab", 2)
    both = write_set("BD", "", 0, "combine: [B, D]\n")
    # Sorted, fakes come first: every fold must hold both classes.
    known = {"A": fold_file("A", mine.train["item_id"].tolist()),
             "BD": fold_file("BD", both.train["item_id"].tolist())}  # fmt: skip
    plain = record_of("A", known["A"])
    assert trained_sets([("m", plain)], other) == {"A": set(mine.train["item_id"])}
    through = record_of("A", known["A"], {"dataset": "BD", "folds_sha256": known["BD"]})
    with pytest.raises(
        UserError, match=r"--holdout D: x, an ingredient of m, was trained on 4 .*also in BD"
    ):
        trained_sets([("m", through)], other)
    with pytest.raises(UserError, match="x, an ingredient of m, was trained on it"):
        trained_sets([("m", record_of("A", known["A"], {"dataset": "D"}))], other)
    with pytest.raises(UserError, match="came without a run record"):
        trained_sets([("m", record_of("A", known["A"], {"dataset": None}))], other)
    with pytest.raises(UserError, match=r"E/s\.csv is not there"):
        trained_sets([("m", record_of("E", "0"))], other)


@pytest.mark.usefixtures("artefact_root")
def test_copies_of_what_any_ingredient_saw_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    for name, seed in (("A", 0), ("B", 1), ("D", 2)):
        write_set(name, "abc", seed)
    at = paths.dataset_dir("D") / "train" / "real"
    shutil.copy(paths.dataset_dir("A") / "train/real/a.png", at / "copy.png")
    cv2.imwrite(str(at / "alike.jpg"),
                cv2.imread(str(paths.dataset_dir("B") / "train/fake/b.png")))  # fmt: skip
    other = load_dataset("D")
    known = {name: set(load_dataset(name).train["item_id"]) for name in "AB"}
    with caplog.at_level("INFO", "rvf"):
        found = read_holdout(other, known)
    assert sorted(found.paths) == sorted(
        f"train/{label}/{stem}.png" for label in ("real", "fake") for stem in "abc"
    )
    assert "1 of 8 items were seen in training on A, left out (1 equal files" in caplog.text
    assert "1 of 7 items were seen in training on B, left out (0 equal files" in caplog.text
    assert sorted(read_holdout(other, {"A": known["A"]}).paths) == sorted(
        [*found.paths, "train/real/alike.jpg"]
    )
    with pytest.raises(UserError, match="that is what the models were trained on"):
        read_holdout(other, {"D": set()})


def test_a_file_is_held_against_the_record_beside_it(pair: Job, tmp_path: Path) -> None:
    lone = tmp_path / "lone.safetensors"
    shutil.copy(paths.checkpoint("tiny", "s", "b", 0), lone)
    shutil.copy(paths.run_record("tiny", "s", "a", 0), lone.with_suffix(".json"))
    with pytest.raises(UserError, match=r"not the file that .*lone\.json beside it speaks of"):
        merge(plan_of(tmp_path, f"merge_method: uniform\nmodels: [a, {lone}]\n"), pair)


def test_what_was_chosen_before_is_not_scored_for_another_merge(pair: Job, tmp_path: Path) -> None:
    merge(plan_of(tmp_path, UNIFORM + "select: greedy\n"), pair)
    assert paths.cross_fitted_csv("tiny", "s", "soup", 0).exists()
    merge(plan_of(tmp_path, UNIFORM), pair, overwrite=True)
    assert not paths.cross_fitted_csv("tiny", "s", "soup", 0).exists()


def test_another_encoding_is_refused(pair: Job, tmp_path: Path) -> None:
    found = resolve(plan_of(tmp_path, UNIFORM).recipes, Place("tiny", "s", 0))
    other = replace(found["b"], spec=replace(found["b"].spec, reencode=70))
    with pytest.raises(UserError, match="reencode: None in a, 70 in b"):
        check_agreement([found["a"], other])


def test_random_starts_of_other_seeds_are_none_in_common(
    pair: Job,
    make_job: MakeJob,
    tmp_path: Path,
) -> None:
    assert fit_fold(make_job(model="c", seed=43, optim=OPTIM))
    text = "merge_method: task_arithmetic\nbase_model: start\nmodels: [a, c]\n"
    text += "parameters: {weight: 0.5}\n"
    with pytest.raises(UserError, match=r"c \(seed 43, fold 0\) and a .* other random weights"):
        merge(plan_of(tmp_path, text), pair)


def test_one_init_seed_is_a_start_in_common(pair: Job, make_job: MakeJob, tmp_path: Path) -> None:
    alone = pair.config.start_seed
    assert fit_fold(make_job(model="c", seed=43, init_seed=alone, optim=OPTIM))
    text = "merge_method: task_arithmetic\nbase_model: start\nmodels: [{}]\n"
    text += "parameters: {{weight: 1, lambda: 0}}\nbatchnorm: 0\n"
    found = []
    for name in ("a", "c"):
        merge(plan_of(tmp_path, text.format(name)), pair, overwrite=True)
        found.append(read_tensors(paths.checkpoint("tiny", "s", "soup", 0)))
    assert all(torch.equal(found[0][key], found[1][key]) for key in found[0])


def test_the_way_to_a_base_is_walked_too(pair: Job, tmp_path: Path) -> None:
    text = "merge_method: slerp\nbase_model: a\nmodels: [b]\nparameters: {t: 0.5}\n"
    assert [path.other for path in merge(plan_of(tmp_path, text), pair).paths]


def test_a_filter_that_fits_no_tensor_is_refused(pair: Job, tmp_path: Path) -> None:
    text = "merge_method: linear\nmodels: [a, b]\n"
    text += "parameters: {weight: [{filter: attn, value: 0.1}, {value: 1.0}]}\n"
    with pytest.raises(UserError, match="no tensor's name contains the filter 'attn'"):
        merge(plan_of(tmp_path, text), pair)


def test_a_search_leaves_out_what_is_refused_at_some_depth(pair: Job, tmp_path: Path) -> None:
    text = UNIFORM.replace("uniform", "linear")
    text += "search: {weight: {values: [-1.0, 1.0], each: model, knots: 2}}\ntrials: 16\n"
    merged = merge(plan_of(tmp_path, text), pair)
    assert merged.chosen is not None
    assert len(oof_of("soup")) == 18


@pytest.mark.parametrize("name", ["densenet121", "regnetx_002", "legacy_xception"])
def test_depth_where_names_hardly_tell_it(name: str) -> None:
    net = timm.create_model(name, num_classes=1)
    names = list(net.state_dict())
    depth = depth_of(net, ("classifier", "head.fc", "fc")) or depth_by_name(names)
    found = [depth(one) for one in names]
    assert len(set(found)) > 2
    assert found == sorted(found)
    assert found[-1] == 1


def test_documents_are_merged_into_one_file(pair: Job, tmp_path: Path) -> None:
    a, b = (paths.checkpoint("tiny", "s", name, 0) for name in "ab")
    text = f"name: inner\nmerge_method: uniform\nmodels: [{a}, {b}]\n---\n"
    text += f"merge_method: uniform\nmodels: [inner, {a}]\n"
    report = merge_to_file(plan_of(tmp_path, text), tmp_path / "out.safetensors", "cpu")
    assert report.path.is_file()
