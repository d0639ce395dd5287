"""Merges as runs. Oracles: copies of a model, weights averaged by hand, the model's own OOF."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from timm.layers.pos_embed import resample_abs_pos_embed

from src import paths
from src.artifacts.files import sha256_file
from src.artifacts.oof import read_views
from src.errors import UserError
from src.models.checkpoint import load_checkpoint
from src.soups.ingredients import check_agreement, resolve
from src.training.job import Job
from src.training.trainer import fit_fold
from tests.soups.conftest import MakeJob
from tests.soups.runs import (
    GREEDY,
    NAMES,
    UNIFORM,
    change_metadata,
    change_run,
    copy_run,
    file_of,
    merge,
    oof_of,
    plan_of,
    record_of,
    weights_of,
)


def test_a_soup_of_copies_predicts_what_the_model_predicts(pair: Job, tmp_path: Path) -> None:
    copy_run("a", "copy")
    merge(plan_of(tmp_path, "merge_method: uniform\nmodels: [a, copy]\n"), pair)
    np.testing.assert_array_equal(oof_of("soup"), oof_of("a"))
    one, two = weights_of("a"), weights_of("soup")
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_a_merge_is_a_run_like_any_other(pair: Job, tmp_path: Path) -> None:
    plan = plan_of(tmp_path, UNIFORM)
    assert not merge(plan, pair).skipped
    names = (*NAMES, "soup", 0)
    record = record_of()
    assert record["checkpoint_sha256"] == sha256_file(paths.checkpoint(*names))
    made = record["merged_from"]["ingredients"]
    assert [one["sha256"] for one in made] == [
        sha256_file(paths.checkpoint(*NAMES, name, 0)) for name in "ab"
    ]
    assert [one["seed"] for one in made] == [42, 42]
    assert record["selection"] == "last"
    views, metadata = read_views(paths.oof_views(*names))
    assert metadata["checkpoint_sha256"] == record["checkpoint_sha256"]
    assert len(views) == len(pair.held_rows)
    model, _ = load_checkpoint(paths.checkpoint(*names), torch.device("cpu"))
    a, b = weights_of("a"), weights_of("b")
    for name, weight in model.net.named_parameters():
        torch.testing.assert_close(weight.data, (a[name] + b[name]) / 2)
    counter = next(key for key in a if key.endswith("num_batches_tracked"))
    assert a[counter].dtype == model.net.state_dict()[counter].dtype == torch.int64
    assert merge(plan, pair).skipped
    assert not list(paths.merge_parts().glob("*/*"))
    with pytest.raises(UserError, match="it was merged from others, not trained"):
        fit_fold(replace(pair, model="soup"))


def test_statistics_are_estimated_anew_on_training_items(pair: Job, tmp_path: Path) -> None:
    merge(plan_of(tmp_path, UNIFORM + "batchnorm: 20\n", "few"), pair)
    merge(plan_of(tmp_path, UNIFORM + "batchnorm: 0\n", "none"), pair)
    few, none, a, b = map(weights_of, ("few", "none", "a", "b"))
    for key in (key for key in few if key.endswith("running_mean")):
        torch.testing.assert_close(none[key], (a[key] + b[key]) / 2)
        assert not torch.allclose(few[key], none[key], rtol=1e-3)


@pytest.mark.parametrize(("t", "name"), [(0.0, "a"), (1.0, "b")])
def test_a_merge_that_gives_one_model_back_keeps_its_statistics(
    pair: Job, tmp_path: Path, t: float, name: str
) -> None:
    text = f"merge_method: slerp\nbase_model: a\nmodels: [b]\nparameters: {{t: {t}}}\n"
    merge(plan_of(tmp_path, text), pair)
    np.testing.assert_allclose(oof_of("soup"), oof_of(name), atol=1e-5)


def test_merging_again_wants_overwrite_where_something_changed(pair: Job, tmp_path: Path) -> None:
    merge(plan_of(tmp_path, GREEDY), pair)
    assert paths.cross_fitted_csv(*NAMES, "soup", 0).exists()
    changed = plan_of(tmp_path, UNIFORM + "batchnorm: 16\n")
    with pytest.raises(UserError, match=r"other ingredients or settings.*--overwrite"):
        merge(changed, pair)
    assert not merge(changed, pair, overwrite=True).skipped
    assert record_of()["merged_from"]["batchnorm"] == 16
    # What was chosen before is not scored for another merge.
    assert not paths.cross_fitted_csv(*NAMES, "soup", 0).exists()


def test_a_merge_may_be_an_ingredient_and_stages_refer_to_each_other(
    pair: Job, tmp_path: Path
) -> None:
    merge(plan_of(tmp_path, UNIFORM + "batchnorm: 0\n"), pair)
    text = "merge_method: slerp\nbase_model: a\nmodels: [soup]\nparameters: {t: 1}\nbatchnorm: 0\n"
    merge(plan_of(tmp_path, text, "again"), pair)
    stages = f"name: inner\n{UNIFORM}---\nmerge_method: linear\nbatchnorm: 0\nmodels:\n"
    stages += "- {model: inner, parameters: {weight: 1}}\n- {model: a, parameters: {weight: 0}}\n"
    merge(plan_of(tmp_path, stages, "staged"), pair)
    for name in ("again", "staged"):
        np.testing.assert_allclose(oof_of(name), oof_of("soup"), atol=1e-4)


def test_the_order_of_models_changes_nothing(trio: Job, tmp_path: Path) -> None:
    for name, models in (("one", "a, far"), ("two", "far, a")):
        text = f"merge_method: uniform\nmodels: [{models}]\nbatchnorm: 10\n"
        merge(plan_of(tmp_path, text, name), trio)
    np.testing.assert_allclose(oof_of("one"), oof_of("two"), atol=1e-5)


# --- killed while an earlier merge of that name is replaced ---


class KilledError(Exception):
    """Stands for a kill."""


def kill(*_: object) -> None:
    raise KilledError


@pytest.mark.parametrize(
    "where", ["checkpoint.save_checkpoint", "write_predictions", "write_record"]
)
def test_killed_while_it_is_written_nothing_of_the_earlier_merge_stays(
    pair: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    merge(plan_of(tmp_path, GREEDY), pair)
    names = (*NAMES, "soup", 0)
    other = plan_of(tmp_path, UNIFORM.replace("[a, b]", "[b]") + "batchnorm: 16\n")
    with monkeypatch.context() as patch:
        patch.setattr(f"src.soups.run.{where}", kill)
        with pytest.raises(KilledError):
            merge(other, pair, overwrite=True)
    assert not paths.run_record(*names).exists()
    assert not paths.cross_fitted_csv(*names).exists()
    if where != "write_record":  # then all is of the new merge, but for the record that is missing
        assert not paths.oof_csv(*names).exists()
        assert not paths.oof_views(*names).exists()
    assert not merge(other, pair).skipped
    np.testing.assert_allclose(oof_of("soup"), oof_of("b"), atol=1e-5)


def test_killed_before_it_is_written_the_earlier_merge_stays_whole(
    pair: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(tmp_path, GREEDY)
    merge(plan, pair)
    kept = {path: path.read_bytes() for path in paths.oof_dir(*NAMES, "soup").iterdir()}
    monkeypatch.setattr("src.soups.run._write", kill)
    with pytest.raises(KilledError):
        merge(plan_of(tmp_path, GREEDY + "metric: auc\n"), pair, overwrite=True)
    assert {path: path.read_bytes() for path in kept} == kept
    assert merge(plan, pair).skipped


# --- what is refused ---


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data["input"].update(mean=[0.5, 0.4, 0.5]),
         r"mean: \(0.5, 0.5, 0.5\) in a, \(0.5, 0.4, 0.5\) in b"),
        (lambda data: (data.update(label_order="logit > 0 is real"),
                       data["input"].update(canvas=20)),
         r"(?s)label order: .* is real in b.*canvas: 16 in a, 20"),
        (lambda data: data["config"]["backbone"]["kwargs"].update(widths=[8, 8, 24]),
         r"backbone.kwargs: .*16.* in a, .*24.* in b"),
        (lambda data: (data["input"]["frames"].update(eval=2, pool="max"),
                       data["config"].update(tta="flip"),
                       data.update(views=["full", "full+flip"])),
         r"(?s)cannot be merged.*eval: 16 in a, 2 in b.*pool: mean_prob in a, max in b.*tta: none"),
    ],
    ids=["normalisation", "labels and crop", "architecture", "frames and views"],
)  # fmt: skip
def test_models_that_see_or_answer_otherwise_are_refused_with_the_difference(
    pair: Job, tmp_path: Path, change, said: str
) -> None:
    change_metadata("b", change)
    with pytest.raises(UserError, match=said):
        merge(plan_of(tmp_path, UNIFORM), pair)
    with pytest.raises(UserError, match="cannot be merged"):
        merge(plan_of(tmp_path, "merge_method: uniform\nmodels: [b, a]\n"), pair)


def test_another_encoding_is_refused(pair: Job, tmp_path: Path) -> None:
    found = resolve(plan_of(tmp_path, UNIFORM).recipes, pair)
    other = replace(found["b"], spec=replace(found["b"].spec, reencode=70))
    with pytest.raises(UserError, match="reencode: None in a, 70 in b"):
        check_agreement([found["a"], other])


def test_an_ingredient_that_saw_the_scored_rows_is_refused(
    pair: Job, make_job: MakeJob, tmp_path: Path
) -> None:
    fit_fold(make_job(fold=1, model="b", optim={"epochs": 1}))
    plan = plan_of(tmp_path, "merge_method: uniform\nmodels: [a, b@fold_1]\n")
    with pytest.raises(UserError, match=r"b@fold_1 was trained on 18 of the 18 rows.*leaked"):
        merge(plan, pair)
    assert not paths.oof_csv(*NAMES, "soup", 0).exists()
    across = plan_of(tmp_path, "merge_method: uniform\nmodels: [a@fold_0, b@fold_1]\n")
    assert not merge(across, pair, "all").skipped
    assert paths.checkpoint(*NAMES, "soup", "all").exists()
    assert not paths.oof_dir(*NAMES, "soup").exists()
    text = "merge_method: uniform\nmodels: [a@fold_0, b@fold_1]\nselect: greedy\n"
    with pytest.raises(UserError, match=r"nothing is held out in --fold all"):
        merge(plan_of(tmp_path, text), pair, "all")


def test_runs_and_files_that_are_not_what_they_should_be_are_named(
    pair: Job, tmp_path: Path
) -> None:
    lone = file_of("b", tmp_path, alone=True)
    of_files = f"merge_method: uniform\nmodels: [a, {lone}]\n"
    with pytest.raises(UserError, match="nothing says whether it was trained on the 18 rows"):
        merge(plan_of(tmp_path, of_files), pair)
    record = paths.run_record(*NAMES, "a", 0)
    lone.with_suffix(".json").write_bytes(record.read_bytes())
    with pytest.raises(UserError, match=r"not the file that .*b\.json beside it speaks of"):
        merge(plan_of(tmp_path, of_files), pair)
    with pytest.raises(UserError, match=r"train it: python train_folds.py --model c --fold 0"):
        merge(plan_of(tmp_path, "merge_method: uniform\nmodels: [a, c]\n"), pair)
    change_run("b", folds_sha256="0" * 64)
    with pytest.raises(UserError, match=r"b: .* not the fold file that it was trained with"):
        merge(plan_of(tmp_path, UNIFORM), pair)
    path = paths.checkpoint(*NAMES, "b", 0)
    save_file(load_file(path), path, {"rvf": "{}"})
    with pytest.raises(UserError, match="not the file that its run record speaks of"):
        merge(plan_of(tmp_path, UNIFORM), pair)


def test_names_of_merges_are_their_own(pair: Job, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="effnet_b0 is the name of a model"):
        merge(plan_of(tmp_path, UNIFORM, "effnet_b0"), pair)
    with pytest.raises(UserError, match="a was trained; give the merge's file another name"):
        merge(plan_of(tmp_path, UNIFORM, "a"), pair)
    with pytest.raises(UserError, match="want a file name of letters"):
        plan_of(tmp_path, UNIFORM, "..hidden")


def test_a_filter_that_fits_no_tensor_is_refused(pair: Job, tmp_path: Path) -> None:
    text = "merge_method: linear\nmodels: [a, b]\n"
    text += "parameters: {weight: [{filter: attn, value: 0.1}, {value: 1.0}]}\n"
    with pytest.raises(UserError, match="no tensor's name contains the filter 'attn'"):
        merge(plan_of(tmp_path, text), pair)


# --- what the models started from ---

ARITHMETIC = "merge_method: task_arithmetic\nbase_model: start\nmodels: [%s]\n"
HALF = ARITHMETIC + "parameters: {weight: 0.5}\n"


def test_the_start_of_a_run_is_made_again(pair: Job, tmp_path: Path) -> None:
    text = "merge_method: wise_ft\nbase_model: start\nmodels: [a]\nparameters: {alpha: %s}\n"
    merge(plan_of(tmp_path, text % 1 + "batchnorm: 0\n", "one"), pair)
    np.testing.assert_allclose(oof_of("one"), oof_of("a"), atol=1e-4)
    merge(plan_of(tmp_path, text % 0 + "batchnorm: 0\n", "zero"), pair)
    fresh = weights_of("zero")
    assert float(fresh["head.bias"].abs()) < 1
    assert float(fresh["stem.1.weight"].sub(1).abs().max()) == 0  # as BatchNorm begins


def test_starts_that_are_not_in_common_are_refused(trio: Job, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"far \(seed 9, fold 0\) and a .* other random weights"):
        merge(plan_of(tmp_path, HALF % "a, far"), trio)
    start = record_of("b")["start"] | {"source": "file", "sha256": "1" * 64, "name": "x.pth"}
    change_run("b", start=start)
    with pytest.raises(UserError, match=r"b started from file 'x.pth'.*no start in common"):
        merge(plan_of(tmp_path, HALF % "a, b"), trio)


def test_one_init_seed_is_a_start_in_common(pair: Job, make_job: MakeJob, tmp_path: Path) -> None:
    same = pair.config.start_seed
    assert fit_fold(make_job(model="c", seed=43, init_seed=same, optim={"epochs": 1}))
    found = []
    for name in ("a", "c"):
        text = ARITHMETIC % name + "parameters: {weight: 1, lambda: 0}\nbatchnorm: 0\n"
        merge(plan_of(tmp_path, text), pair, overwrite=True)
        found.append(weights_of("soup"))
    assert all(torch.equal(found[0][key], found[1][key]) for key in found[0])


@pytest.mark.parametrize("head", [False, True])
def test_heads_drawn_from_other_seeds_are_no_start_in_common(
    pair: Job, make_job: MakeJob, tmp_path: Path, head: bool
) -> None:
    file = tmp_path / "start.safetensors"
    tensors = weights_of("a").items()
    save_file({k: v for k, v in tensors if head or not k.startswith("head.")}, file)
    options = replace(pair.options, weights=file)
    seeds = [("c", 1, None), ("d", 2, None), *([] if head else [("e", 3, 1)])]
    for name, seed, init in seeds:
        job = make_job(model=name, seed=seed, init_seed=init, options=options, optim={"epochs": 1})
        assert fit_fold(job)
    if head:
        assert not merge(plan_of(tmp_path, HALF % "c, d"), pair, weights=file).skipped
        return
    with pytest.raises(UserError, match=r"d \(seed 2, fold 0\) and c .* other random heads"):
        merge(plan_of(tmp_path, HALF % "c, d"), pair, weights=file)
    assert not merge(plan_of(tmp_path, HALF % "c, e", "same"), pair, weights=file).skipped


def test_position_embeddings_of_another_size_are_resized_on_request(
    make_job: MakeJob, tmp_path: Path
) -> None:
    for name, size in (("small", 32), ("large", 48)):
        job = make_job(
            model=name, backbone={"name": "test_vit", "kwargs": {}},
            input={"image_size": size, "crop_pct": 1.0}, optim={"epochs": 1},
        )  # fmt: skip
        fit_fold(job)
    text = "merge_method: linear\nmodels:\n- {model: small, parameters: {weight: 0}}\n"
    text += "- {model: large, parameters: {weight: 1}}\n"
    with pytest.raises(UserError, match=r"(?s)image size: 32 in small, 48 in large.*resize_pos_em"):
        merge(plan_of(tmp_path, text), job)
    merge(plan_of(tmp_path, text + "resize_pos_embed: true\n"), job)
    large, merged = weights_of("large"), weights_of("soup")
    wanted = resample_abs_pos_embed(large["pos_embed"], [2, 2], num_prefix_tokens=1)
    torch.testing.assert_close(merged["pos_embed"], wanted)
    torch.testing.assert_close(
        merged["blocks.0.attn.qkv.weight"], large["blocks.0.attn.qkv.weight"]
    )
    model, _ = load_checkpoint(paths.checkpoint(*NAMES, "soup", 0), torch.device("cpu"))
    assert model.spec.image_size == 32
