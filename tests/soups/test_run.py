"""Merges as runs. Oracles: copies of a model, weights averaged by hand, the model's own OOF."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from src import paths
from src.artifacts.files import sha256_file
from src.artifacts.folds import read_folds
from src.artifacts.oof import read_oof, read_views
from src.artifacts.runs import read_record
from src.errors import UserError
from src.models.checkpoint import load_checkpoint
from src.soups.ingredients import Place
from src.soups.plan import MergePlan, read_plan
from src.soups.run import Merged, merge_fold
from src.training.job import Job
from src.training.trainer import fit_fold
from tests.records import change_sealed

MakeJob = Callable[..., Job]
OPTIM = {"epochs": 2, "lr": 1e-2}


def copy_run(model: str, new: str, fold: int = 0) -> Path:
    """Give a finished run another name, as if it had been trained twice; returns its weights."""
    for make in (paths.checkpoint, paths.run_record, paths.oof_csv, paths.oof_views):
        source, target = (make("tiny", "s", name, fold) for name in (model, new))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
    change_sealed(paths.run_record("tiny", "s", new, fold), {"model": new})
    return paths.checkpoint("tiny", "s", new, fold)


def change_run(model: str, **record: object) -> None:
    """Change what the record of a run says, with its checkpoint's fingerprint as it is now."""
    names = ("tiny", "s", model, 0)
    sha256 = sha256_file(paths.checkpoint(*names))
    change_sealed(paths.run_record(*names), {"checkpoint_sha256": sha256, **record})


def plan_of(tmp_path: Path, text: str, name: str = "soup") -> MergePlan:
    path = tmp_path / f"{name}.yaml"
    path.write_text(text)
    return read_plan(path)


def merge(plan: MergePlan, job: Job, fold: int | str = 0, **options: object) -> Merged:
    chosen = replace(job.options, **options)  # type: ignore[arg-type]
    return merge_fold(plan, Place("tiny", "s", fold), replace(job, fold=fold, options=chosen))


def oof_of(model: str, fold: int = 0) -> np.ndarray:
    folds = read_folds(paths.folds_csv("tiny", "s"))
    return read_oof(paths.oof_csv("tiny", "s", model, fold), folds, fold)["logit"].to_numpy()


UNIFORM = "merge_method: uniform\nmodels: [a, b]\n"


def test_a_soup_of_copies_predicts_what_the_model_predicts(pair: Job, tmp_path: Path) -> None:
    copy_run("a", "copy")
    merge(plan_of(tmp_path, "merge_method: uniform\nmodels: [a, copy]\n"), pair)
    np.testing.assert_array_equal(oof_of("soup"), oof_of("a"))
    one, two = (load_file(paths.checkpoint("tiny", "s", name, 0)) for name in ("a", "soup"))
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_a_merge_is_a_run_like_any_other(pair: Job, tmp_path: Path) -> None:
    plan = plan_of(tmp_path, UNIFORM)
    assert not merge(plan, pair).skipped
    names = ("tiny", "s", "soup", 0)
    record = read_record(paths.run_record(*names))
    assert record["checkpoint_sha256"] == sha256_file(paths.checkpoint(*names))
    made = [one["sha256"] for one in record["merged_from"]["ingredients"]]
    assert made == [sha256_file(paths.checkpoint("tiny", "s", name, 0)) for name in "ab"]
    assert [one["seed"] for one in record["merged_from"]["ingredients"]] == [42, 42]
    assert record["selection"] == "last"
    views, metadata = read_views(paths.oof_views(*names))
    assert metadata["checkpoint_sha256"] == record["checkpoint_sha256"]
    assert len(views) == len(pair.held_rows)
    model, _ = load_checkpoint(paths.checkpoint(*names), torch.device("cpu"))
    a, b = (load_file(paths.checkpoint("tiny", "s", name, 0)) for name in "ab")
    for name, weight in model.net.named_parameters():
        torch.testing.assert_close(weight.data, (a[name] + b[name]) / 2)
    counter = next(key for key in a if key.endswith("num_batches_tracked"))
    assert a[counter].dtype == model.net.state_dict()[counter].dtype == torch.int64
    assert merge(plan, pair).skipped
    assert not list(paths.merge_parts().glob("*/*"))


def test_statistics_are_estimated_anew_on_training_items(pair: Job, tmp_path: Path) -> None:
    merge(plan_of(tmp_path, UNIFORM + "batchnorm: 20\n", "few"), pair)
    merge(plan_of(tmp_path, UNIFORM + "batchnorm: 0\n", "none"), pair)
    few, none, a, b = (
        load_file(paths.checkpoint("tiny", "s", name, 0)) for name in ("few", "none", "a", "b")
    )
    means = [key for key in few if key.endswith("running_mean")]
    for key in means:
        torch.testing.assert_close(none[key], (a[key] + b[key]) / 2)
        assert not torch.allclose(few[key], none[key], rtol=1e-3)


def test_merging_again_wants_overwrite_where_something_changed(pair: Job, tmp_path: Path) -> None:
    merge(plan_of(tmp_path, UNIFORM), pair)
    changed = plan_of(tmp_path, UNIFORM + "batchnorm: 16\n")
    with pytest.raises(UserError, match=r"other ingredients or settings.*--overwrite"):
        merge(changed, pair)
    assert not merge(changed, pair, overwrite=True).skipped
    assert read_record(paths.run_record("tiny", "s", "soup", 0))["merged_from"]["batchnorm"] == 16


def test_a_merge_may_be_an_ingredient_and_stages_refer_to_each_other(
    pair: Job, tmp_path: Path
) -> None:
    merge(plan_of(tmp_path, UNIFORM + "batchnorm: 0\n"), pair)
    text = "merge_method: slerp\nbase_model: a\nmodels: [soup]\nparameters: {t: 1}\nbatchnorm: 0\n"
    merge(plan_of(tmp_path, text, "again"), pair)
    np.testing.assert_allclose(oof_of("again"), oof_of("soup"), atol=1e-4)
    stages = f"name: inner\n{UNIFORM}---\nmerge_method: linear\nbatchnorm: 0\nmodels:\n"
    stages += "- {model: inner, parameters: {weight: 1}}\n- {model: a, parameters: {weight: 0}}\n"
    merge(plan_of(tmp_path, stages, "staged"), pair)
    np.testing.assert_allclose(oof_of("staged"), oof_of("soup"), atol=1e-4)


def test_the_start_of_a_run_is_made_again(pair: Job, tmp_path: Path) -> None:
    text = "merge_method: wise_ft\nbase_model: start\nmodels: [a]\nparameters: {alpha: %s}\n"
    merge(plan_of(tmp_path, text % 1 + "batchnorm: 0\n", "one"), pair)
    np.testing.assert_allclose(oof_of("one"), oof_of("a"), atol=1e-4)
    merge(plan_of(tmp_path, text % 0 + "batchnorm: 0\n", "zero"), pair)
    fresh = load_file(paths.checkpoint("tiny", "s", "zero", 0))
    assert torch.equal(fresh["head.bias"], torch.zeros(1)) or float(fresh["head.bias"].abs()) < 1
    assert float(fresh["stem.1.weight"].sub(1).abs().max()) == 0  # as BatchNorm begins


def test_the_order_of_models_changes_nothing(pair: Job, make_job: MakeJob, tmp_path: Path) -> None:
    assert fit_fold(make_job(model="c", seed=7, init_seed=42, optim=OPTIM))
    for name, models in (("one", "a, c"), ("two", "c, a")):
        text = f"merge_method: uniform\nmodels: [{models}]\nbatchnorm: 10\n"
        merge(plan_of(tmp_path, text, name), pair)
    np.testing.assert_allclose(oof_of("one"), oof_of("two"), atol=1e-5)


# --- killed while an earlier merge of that name is replaced ---


class KilledError(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize(
    "where", ["checkpoint.save_checkpoint", "write_predictions", "write_record"]
)
def test_killed_while_it_is_written_nothing_of_the_earlier_merge_stays(
    pair: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    merge(plan_of(tmp_path, UNIFORM + "select: greedy\n"), pair)
    names = ("tiny", "s", "soup", 0)

    def kill(*_: object) -> None:
        raise KilledError

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
    plan = plan_of(tmp_path, UNIFORM + "select: greedy\n")
    merge(plan, pair)
    home = paths.oof_dir("tiny", "s", "soup")
    kept = {path: path.read_bytes() for path in home.iterdir()}

    def kill(*_: object) -> None:
        raise KilledError

    monkeypatch.setattr("src.soups.run._write", kill)
    with pytest.raises(KilledError):
        merge(plan_of(tmp_path, UNIFORM + "select: greedy\nmetric: auc\n"), pair, overwrite=True)
    assert {path: path.read_bytes() for path in home.iterdir()} == kept
    assert merge(plan, pair).skipped


# --- what is refused ---


def test_other_frames_poolings_and_views_are_refused_in_either_order(
    pair: Job, tmp_path: Path
) -> None:
    with_metadata("b", lambda data: data["input"]["frames"].update(eval=2, pool="max"))
    with_metadata("b", lambda data: data["config"].update(tta="flip"))
    with_metadata("b", lambda data: data.update(views=["full", "full+flip"]))
    for models, text in (
        ("a, b", r"eval: 16 in a, 2 in b.*pool: mean_prob in a, max in b.*tta: none in a, flip"),
        ("b, a", r"eval: 2 in b, 16 in a.*pool: max in b, mean_prob in a.*tta: flip in b, none"),
    ):
        with pytest.raises(UserError, match="(?s)cannot be merged.*" + text):
            merge(plan_of(tmp_path, f"merge_method: uniform\nmodels: [{models}]\n"), pair)


def test_an_ingredient_that_saw_the_scored_rows_is_refused(
    pair: Job, make_job: MakeJob, tmp_path: Path
) -> None:
    fit_fold(make_job(fold=1, model="b", optim=OPTIM | {"lr": 5e-3}))
    plan = plan_of(tmp_path, "merge_method: uniform\nmodels: [a, b@fold_1]\n")
    with pytest.raises(UserError, match=r"b@fold_1 was trained on 18 of the 18 rows.*leaked"):
        merge(plan, pair)
    assert not paths.oof_csv("tiny", "s", "soup", 0).exists()
    assert not merge(plan_of(tmp_path, "merge_method: uniform\nmodels: [a@fold_0, b@fold_1]\n"),
                     pair, "all").skipped  # fmt: skip
    assert paths.checkpoint("tiny", "s", "soup", "all").exists()
    assert not paths.oof_dir("tiny", "s", "soup").exists()


def test_a_file_of_unknown_upbringing_is_refused(pair: Job, tmp_path: Path) -> None:
    lone = tmp_path / "lone.safetensors"
    shutil.copy(paths.checkpoint("tiny", "s", "b", 0), lone)
    with pytest.raises(UserError, match="nothing says whether it was trained on the 18 rows"):
        merge(plan_of(tmp_path, f"merge_method: uniform\nmodels: [a, {lone}]\n"), pair)


def test_other_folds_than_now_are_refused(pair: Job, tmp_path: Path) -> None:
    change_run("b", folds_sha256="0" * 64)
    with pytest.raises(UserError, match=r"b: .* not the fold file that it was trained with"):
        merge(plan_of(tmp_path, UNIFORM), pair)


def with_metadata(model: str, change: Callable[[dict], None]) -> None:
    from safetensors import safe_open

    path = paths.checkpoint("tiny", "s", model, 0)
    with safe_open(path, "pt") as file:
        metadata = json.loads(file.metadata()["rvf"])
    change(metadata)
    save_file(load_file(path), path, {"rvf": json.dumps(metadata)})
    change_run(model)


def test_another_normalisation_is_refused_with_the_difference(pair: Job, tmp_path: Path) -> None:
    with_metadata("b", lambda data: data["input"].update(mean=[0.5, 0.4, 0.5]))
    with pytest.raises(UserError, match=r"mean: \(0.5, 0.5, 0.5\) in a, \(0.5, 0.4, 0.5\) in b"):
        merge(plan_of(tmp_path, UNIFORM), pair)


def test_another_label_order_and_crop_are_refused_together(pair: Job, tmp_path: Path) -> None:
    with_metadata("b", lambda data: data.update(label_order="logit > 0 is real"))
    with_metadata("b", lambda data: data["input"].update(canvas=20))
    with pytest.raises(UserError, match=r"(?s)label order: .* is real in b.*canvas: 16 in a, 20"):
        merge(plan_of(tmp_path, UNIFORM), pair)


def test_another_architecture_is_refused(pair: Job, make_job: MakeJob, tmp_path: Path) -> None:
    fit_fold(make_job(model="wide", backbone={"kwargs": {"widths": [8, 8, 24]}}, optim=OPTIM))
    with pytest.raises(UserError, match=r"backbone.kwargs: .*16.* in a, .*24.* in wide"):
        merge(plan_of(tmp_path, "merge_method: uniform\nmodels: [a, wide]\n"), pair)


def test_a_missing_run_and_a_changed_checkpoint_are_named(pair: Job, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train it: python train_folds.py --model c --fold 0"):
        merge(plan_of(tmp_path, "merge_method: uniform\nmodels: [a, c]\n"), pair)
    path = paths.checkpoint("tiny", "s", "b", 0)
    save_file(load_file(path), path, {"rvf": "{}"})
    with pytest.raises(UserError, match="not the file that its run record speaks of"):
        merge(plan_of(tmp_path, UNIFORM), pair)


def test_names_of_merges_are_their_own(pair: Job, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="effnet_b0 is the name of a model"):
        merge(plan_of(tmp_path, UNIFORM, "effnet_b0"), pair)
    with pytest.raises(UserError, match="a was trained; give the merge's file another name"):
        merge(plan_of(tmp_path, "merge_method: uniform\nmodels: [a, b]\n", "a"), pair)
    with pytest.raises(UserError, match="want a file name of letters"):
        plan_of(tmp_path, UNIFORM, "..hidden")


def test_a_merge_is_not_taken_for_a_trained_run(pair: Job, tmp_path: Path) -> None:
    merge(plan_of(tmp_path, UNIFORM), pair)
    with pytest.raises(UserError, match="it was merged from others, not trained"):
        fit_fold(replace(pair, model="soup"))


def test_what_started_elsewhere_has_no_common_start(
    pair: Job, make_job: MakeJob, tmp_path: Path
) -> None:
    record = read_record(paths.run_record("tiny", "s", "b", 0))
    change_run("b", start=record["start"] | {"source": "file", "sha256": "1" * 64, "name": "x.pth"})
    text = "merge_method: task_arithmetic\nbase_model: start\nmodels: [a, b]\n"
    with pytest.raises(UserError, match=r"b started from file 'x.pth'.*no start in common"):
        merge(plan_of(tmp_path, text + "parameters: {weight: 0.5}\n"), pair)


def test_position_embeddings_of_another_size_are_resized_on_request(
    make_job: MakeJob, tmp_path: Path
) -> None:
    for name, size in (("small", 32), ("large", 48)):
        job = make_job(
            model=name, backbone={"name": "test_vit", "kwargs": {}},
            input={"image_size": size, "crop_pct": 1.0}, optim={"epochs": 1},
        )  # fmt: skip
        fit_fold(job)
    text = "merge_method: linear\nmodels:\n- {model: small, parameters: {weight: %s}}\n"
    text += "- {model: large, parameters: {weight: %s}}\n"
    with pytest.raises(UserError, match=r"(?s)image size: 32 in small, 48 in large.*resize_pos_em"):
        merge(plan_of(tmp_path, text % (1, 0), "no"), job)
    merge(plan_of(tmp_path, text % (0, 1) + "resize_pos_embed: true\n", "all_large"), job)
    from timm.layers.pos_embed import resample_abs_pos_embed

    large = load_file(paths.checkpoint("tiny", "s", "large", 0))
    merged = load_file(paths.checkpoint("tiny", "s", "all_large", 0))
    wanted = resample_abs_pos_embed(large["pos_embed"], [2, 2], num_prefix_tokens=1)
    torch.testing.assert_close(merged["pos_embed"], wanted)
    torch.testing.assert_close(
        merged["blocks.0.attn.qkv.weight"], large["blocks.0.attn.qkv.weight"]
    )
    model, _ = load_checkpoint(paths.checkpoint("tiny", "s", "all_large", 0), torch.device("cpu"))
    assert model.spec.image_size == 32


@pytest.mark.parametrize(("head", "drawn"), [(False, True), (True, False)])
def test_heads_drawn_from_other_seeds_are_no_start_in_common(
    pair: Job, make_job: MakeJob, tmp_path: Path, head: bool, drawn: bool
) -> None:
    tensors = load_file(paths.checkpoint("tiny", "s", "a", 0))
    file = tmp_path / "start.safetensors"
    save_file({k: v for k, v in tensors.items() if head or not k.startswith("head.")}, file)
    options = replace(pair.options, weights=file)
    for name, seed, init in (("c", 1, None), ("d", 2, None), ("e", 3, 1)):
        assert fit_fold(make_job(model=name, seed=seed, init_seed=init, options=options,
                                 optim={"epochs": 1}))  # fmt: skip
    text = "merge_method: task_arithmetic\nbase_model: start\nmodels: [c, %s]\n"
    text += "parameters: {weight: 0.5}\n"
    place = Place("tiny", "s", 0, weights=file)
    if drawn:
        with pytest.raises(UserError, match=r"d \(seed 2, fold 0\) and c .* other random heads"):
            merge_fold(plan_of(tmp_path, text % "d"), place, pair)
    else:
        assert not merge_fold(plan_of(tmp_path, text % "d"), place, pair).skipped
    assert not merge_fold(plan_of(tmp_path, text % "e", "same"), place, pair).skipped
