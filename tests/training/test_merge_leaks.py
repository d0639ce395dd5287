"""What a merge must not pass over: leaks through other merges, other files, other preprocessing."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch

from src import paths
from src.artifacts.files import sha256_file, write_json
from src.errors import UserError
from src.merging.settings import depth_by_name
from src.models.tensors import read_tensors
from src.training.job import Job
from src.training.merge_agree import check_agreement, trained_on
from src.training.merge_bench import depth_of
from src.training.merge_files import merge_to_file
from src.training.merge_inputs import Ingredient, Place, resolve
from src.training.trainer import fit_fold
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
    content["merged_from"]["ingredients"][0]["fold"] = 1  # as if by a file of another fold
    write_json(record, content)
    with pytest.raises(UserError, match=r"soup was trained on 18 of the 18 rows.*leaked"):
        merge(plan_of(tmp_path, "merge_method: uniform\nmodels: [soup, a]\n", "again"), pair)


def test_a_part_of_another_data_set_is_known_by_its_name(pair: Job, tmp_path: Path) -> None:
    found = resolve(plan_of(tmp_path, UNIFORM).recipes, Place("tiny", "s", 0))["a"]
    held = set(pair.table["item_id"].to_numpy()[pair.held_rows])
    folds = paths.folds_csv("both", "s")
    folds.parent.mkdir(parents=True)
    text = paths.folds_csv("tiny", "s").read_text().splitlines()
    folds.write_text("\n".join([text[0], *(f"tiny/{line}" for line in text[1:])]) + "\n")
    record = dict(found.record or {}) | {
        "dataset": "both", "fold": 1, "folds_sha256": sha256_file(folds)
    }  # fmt: skip
    elsewhere = Ingredient(**{**vars(found), "record": record})
    assert held <= trained_on(elsewhere, "tiny", "s", pair.table)


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
def test_depth_where_names_do_not_tell_it(name: str) -> None:
    net = timm.create_model(name, num_classes=1)
    names = list(net.state_dict())
    assert len({depth_by_name(names)(one) for one in names}) <= 2
    depth = depth_of(net, ("classifier", "head.fc", "fc"))
    assert depth is not None
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
