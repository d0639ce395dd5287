"""What a merge must not pass over: copies in a holdout, other files, starts and preprocessing."""

import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import timm
import torch

from src import paths
from src.data.layouts.load import load_dataset
from src.errors import UserError
from src.merging.depth import DepthByName
from src.soups.agree import check_agreement
from src.soups.bench import depth_of
from src.soups.files import merge_to_file
from src.soups.holdout import read_holdout
from src.soups.ingredients import Place, resolve
from src.tensor_files import read_tensors
from src.training.job import Job
from src.training.trainer import fit_fold
from tests.soups.test_run import (
    OPTIM,
    UNIFORM,
    MakeJob,
    merge,
    oof_of,
    plan_of,
)


def write_set(name: str, stems: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    home = paths.dataset_dir(name)
    home.mkdir(parents=True)
    for label in ("real", "fake"):
        (home / "train" / label).mkdir(parents=True)
        for stem in stems:
            coarse = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
            pixels = cv2.resize(coarse, (96, 96), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(home / "train" / label / f"{stem}.png"), pixels)


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
    depth = depth_of(net, ("classifier", "head.fc", "fc")) or DepthByName(names)
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
