"""Runs as a whole: what they write, that they repeat, resume, skip and refuse."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import f1_score

from src import paths
from src.artifacts.atomic import file_lock
from src.artifacts.files import sha256_file
from src.artifacts.folds import read_folds
from src.artifacts.oof import read_oof, read_views
from src.artifacts.runs import read_record
from src.compute.request import Compute
from src.errors import LockedError, UserError
from src.losses import LOSSES, Items
from src.models.checkpoint import load_checkpoint
from src.tensor_files import read_tensors
from src.training import resume, trainer
from src.training.begin import class_weights
from src.training.job import Job, Options
from src.training.trainer import fit_fold
from tests.jobs import break_weights_after_an_epoch, interrupt_at_batch
from tests.records import change_sealed

MakeJob = Callable[..., Job]


def oof_bytes(job: Job) -> bytes:
    return paths.oof_csv(*job.names).read_bytes()


def test_a_run_writes_every_artefact_and_deletes_its_state(make_job: MakeJob) -> None:
    job = make_job()
    assert fit_fold(job)
    folds = read_folds(paths.folds_csv("tiny", "s"))
    oof = read_oof(paths.oof_csv(*job.names), folds, 0)
    views, metadata = read_views(paths.oof_views(*job.names))
    record = read_record(paths.run_record(*job.names))
    assert sorted(views["item_id"]) == oof["item_id"].tolist()
    assert metadata["checkpoint_sha256"] == sha256_file(paths.checkpoint(*job.names))
    assert record["checkpoint_sha256"] == metadata["checkpoint_sha256"]
    assert [entry["epoch"] for entry in record["history"]] == [1, 2, 3]
    assert record["folds_sha256"] == sha256_file(paths.folds_csv("tiny", "s"))
    score = f1_score(oof["label"], oof["logit"] >= 0, average="macro")
    assert record["metrics"]["macro_f1"] == pytest.approx(score, abs=1e-12)
    assert not paths.run_state(*job.names).exists()
    assert list(paths.tensorboard_dir(*job.names).glob("events.out.*"))


def test_the_kept_weights_are_the_ema_and_reload_to_equal_logits(make_job: MakeJob) -> None:
    job = make_job()
    fit_fold(job)
    model, views = load_checkpoint(paths.checkpoint(*job.names), torch.device("cpu"))
    from src.data.pixels.source import Canvas, PixelSource
    from src.inference.predict import predict_views

    source = PixelSource(job.root, job.table["path"].tolist(), [Canvas.of(model.spec)])
    looked = predict_views([model], [views], source, job.held_rows, Compute("cpu"))
    oof = pd.read_csv(paths.oof_csv(*job.names)).set_index("item_id")["logit"]
    ids = job.table["item_id"].iloc[job.held_rows]
    np.testing.assert_array_equal(oof.loc[ids].to_numpy(), looked.logits[0].mean(1))


def test_same_seed_twice_gives_equal_bytes_and_another_seed_does_not(make_job: MakeJob) -> None:
    first, again, other = make_job(), make_job(model="again"), make_job(model="other", seed=7)
    for job in (first, again, other):
        fit_fold(job)
    assert oof_bytes(first) == oof_bytes(again)
    assert oof_bytes(first) != oof_bytes(other)


def test_a_name_that_holds_predictions_from_elsewhere_is_refused(make_job: MakeJob) -> None:
    job = make_job()
    record = paths.extra_record(job.dataset, job.scheme, job.model)
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    with pytest.raises(UserError, match="holds predictions from elsewhere under that name"):
        fit_fold(job)


def test_workers_change_nothing(make_job: MakeJob) -> None:
    alone = make_job()
    fit_fold(alone)
    helped = make_job(model="helped", options=Options("cpu", "fp32", workers=2, cache="none"))
    fit_fold(helped)
    assert oof_bytes(alone) == oof_bytes(helped)


@pytest.mark.parametrize("augment", ["crop_flip", "light"])
def test_where_pixels_are_kept_changes_nothing(make_job: MakeJob, augment: str) -> None:
    runs = []
    for cache in ("none", "ram", "disk", "auto"):
        options = Options("cpu", "fp32", 0, cache=cache)
        job = make_job(model=cache, options=options, augment=augment, erase=0.5)
        fit_fold(job)
        runs.append(oof_bytes(job))
        kept = list(paths.pixel_cache("tiny").rglob("pixels.u8"))
        assert len(kept) == (cache in ("disk", "auto"))  # one for all runs and folds
    assert runs == [runs[0]] * 4
    plain = make_job(model="plain", augment=augment)
    fit_fold(plain)
    assert oof_bytes(plain) != runs[0]  # without erasing


@pytest.mark.parametrize("stop_in_epoch", [1, 2])
def test_interrupted_in_mid_epoch_it_resumes_to_equal_bytes(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, stop_in_epoch: int
) -> None:
    whole = make_job()
    fit_fold(whole)
    cut = make_job(model="cut")
    seen = interrupt_at_batch(monkeypatch, stop_in_epoch * 3 + 2)  # three batches an epoch
    with pytest.raises(KeyboardInterrupt):
        fit_fold(cut)
    assert paths.run_state(*cut.names).exists()
    assert not paths.run_record(*cut.names).exists()
    fit_fold(cut)
    assert oof_bytes(whole) == oof_bytes(cut)
    assert len(seen) == stop_in_epoch * 3 + 2 + (3 - stop_in_epoch) * 3  # finished epochs stay done


def test_a_resumed_run_with_dropout_and_workers_gives_equal_bytes(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A starting worker pool must not draw from the generator that dropout uses."""
    backbone = {"drop_rate": 0.4}
    runs = {
        name: make_job(
            model=name, backbone=backbone, options=Options("cpu", "fp32", workers, cache="none")
        )
        for name, workers in (("alone", 0), ("whole", 1), ("cut", 1))
    }
    fit_fold(runs["alone"])
    fit_fold(runs["whole"])
    save = resume.checkpoint.save_state

    def save_and_stop(*arguments: object) -> None:
        save(*arguments)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(resume.checkpoint, "save_state", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            fit_fold(runs["cut"])
    fit_fold(runs["cut"])
    assert oof_bytes(runs["alone"]) == oof_bytes(runs["whole"]) == oof_bytes(runs["cut"])


def test_an_overwrite_that_cannot_start_destroys_nothing(make_job: MakeJob) -> None:
    job = make_job()
    fit_fold(job)
    written = [paths.run_record(*job.names), paths.oof_csv(*job.names)]
    before = [path.read_bytes() for path in written]
    bad = Options("cpu", "fp16", 0, overwrite=True)
    with pytest.raises(UserError, match="fp16 wants a GPU"):
        fit_fold(dataclasses.replace(job, options=bad))
    assert before == [path.read_bytes() for path in written]


def test_a_half_done_run_keeps_its_precision(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "finish_run", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            fit_fold(make_job())
    with pytest.raises(UserError, match=r"begun in fp32.*--overwrite"):
        fit_fold(make_job(options=Options("cpu", "bf16", 0)))
    assert fit_fold(make_job(options=Options("cpu", "auto", 0)))


def test_finished_and_half_done_runs_need_no_weights_file_again(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_job(model="first")
    fit_fold(first)
    options = Options("cpu", "fp32", 0, weights=paths.checkpoint(*first.names))
    wants_file = {"pretrained": "file"}
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "finish_run", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            fit_fold(make_job(options=options, backbone=wants_file))
    plain = make_job(backbone=wants_file)
    assert fit_fold(plain)
    start = read_record(paths.run_record(*plain.names))["start"]
    assert start["name"] == "fold_0.safetensors"
    assert {"model": "first", "fold": 0, "dataset": "tiny"}.items() <= start["origin"].items()
    assert not fit_fold(plain)
    with pytest.raises(UserError, match="this model starts from a weights file"):
        fit_fold(make_job(fold=1, backbone=wants_file))


def test_weights_that_break_after_the_last_step_are_a_users_error(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(optim={"epochs": 1, "ema_decay": None})
    break_weights_after_an_epoch(monkeypatch)
    with pytest.raises(UserError, match=r"logit of 'i\d{3}\.png' is not finite"):
        fit_fold(job)
    assert not paths.oof_csv(*job.names).exists()


def test_a_held_out_item_that_became_unreadable_is_named(make_job: MakeJob) -> None:
    job = make_job(options=Options("cpu", "fp32", 0, cache="none"))
    name = job.table["path"].iloc[job.held_rows[2]]
    (job.root / name).write_bytes(b"")
    with pytest.raises(UserError, match=rf"{name}: not readable any more"):
        fit_fold(job)


def test_a_finished_run_is_skipped_and_overwrite_trains_it_again(make_job: MakeJob) -> None:
    job = make_job()
    assert fit_fold(job)
    stamp = paths.run_record(*job.names).stat().st_mtime_ns
    assert not fit_fold(job)
    assert paths.run_record(*job.names).stat().st_mtime_ns == stamp
    again = dataclasses.replace(job, options=dataclasses.replace(job.options, overwrite=True))
    assert fit_fold(again)
    assert paths.run_record(*job.names).stat().st_mtime_ns > stamp


def test_a_finished_run_of_another_config_is_never_reused(make_job: MakeJob) -> None:
    fit_fold(make_job())
    with pytest.raises(UserError, match=r"config has changed.*--overwrite.*--as"):
        fit_fold(make_job(optim={"lr": 2e-3}))


def test_a_half_done_run_of_another_config_is_not_resumed(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "finish_run", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            fit_fold(make_job())
    with pytest.raises(UserError, match="config has changed"):
        fit_fold(make_job(optim={"weight_decay": 0.5}))


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_run_that_started_from_other_weights_is_never_reused(
    make_job: MakeJob, tmp_path: Path
) -> None:
    job = make_job()
    fit_fold(job)
    other = tmp_path / "start.safetensors"
    other.write_bytes(paths.checkpoint(*job.names).read_bytes())
    options = dataclasses.replace(job.options, weights=other)
    with pytest.raises(UserError, match="started from other weights"):
        fit_fold(dataclasses.replace(job, options=options))


def test_weights_of_a_run_are_a_start_and_recorded(make_job: MakeJob, tmp_path: Path) -> None:
    first = make_job()
    fit_fold(first)
    file = paths.checkpoint(*first.names)
    second = make_job(model="second", options=Options("cpu", "fp32", 0, weights=file))
    fit_fold(second)
    start = read_record(paths.run_record(*second.names))["start"]
    assert start["sha256"] == sha256_file(file)
    assert (start["missing"], start["unexpected"]) == ([], [])
    assert oof_bytes(first) != oof_bytes(second)


def test_a_second_process_on_the_same_fold_leaves(make_job: MakeJob) -> None:
    job = make_job()
    with file_lock(paths.run_lock(*job.names), "this"), pytest.raises(LockedError, match="fold 0"):
        fit_fold(job)
    assert not paths.run_record(*job.names).exists()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_before_the_step_and_names_the_items(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, bad: float
) -> None:
    job = make_job(optim={"epochs": 2})
    loss, calls, steps = LOSSES.get("bce"), 0, []
    monkeypatch.setattr(trainer.Step, "make", lambda *_: steps.append(calls) is None)

    def broken(items: Items) -> torch.Tensor:
        nonlocal calls
        calls += 1
        value = loss(items)
        return value * bad if calls == 3 else value

    monkeypatch.setitem(LOSSES._things, "bce", broken)
    with pytest.raises(UserError, match=r"loss is (nan|inf).*i\d{3}\.png.*--precision fp32"):
        fit_fold(job)
    assert steps == [1, 2]
    assert not paths.oof_csv(*job.names).exists()


def test_a_gradient_that_is_not_finite_makes_no_step(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(optim={"epochs": 1})
    seen: list[torch.Tensor] = []

    def broken(items: Items) -> torch.Tensor:
        logit = items.outputs["logit"]
        seen.append(logit.detach())
        return (logit - logit.detach()).abs().sqrt().sum()  # 0, with an infinite slope

    monkeypatch.setitem(LOSSES._things, "bce", broken)
    with pytest.raises(UserError, match=r"gradient is nan.*i\d{3}\.png"):
        fit_fold(job)
    assert len(seen) == 1


def test_selection_best_keeps_the_best_epoch_and_says_so(make_job: MakeJob) -> None:
    job = make_job(selection="best", patience=2, optim={"epochs": 12})
    fit_fold(job)
    record = read_record(paths.run_record(*job.names))
    scores = [entry["macro_f1"] for entry in record["history"]]
    assert record["selection"] == "best"
    assert record["epoch"] == scores.index(max(scores)) + 1
    assert len(scores) <= record["epoch"] + 2
    assert record["metrics"]["macro_f1"] == pytest.approx(max(scores))


def test_flip_tta_pools_two_views(make_job: MakeJob) -> None:
    job = make_job(tta="flip")
    fit_fold(job)
    views, _ = read_views(paths.oof_views(*job.names))
    assert set(views["view"]) == {"full", "full+flip"}
    oof = pd.read_csv(paths.oof_csv(*job.names)).set_index("item_id")["logit"]
    pooled = views.groupby("item_id")["logit"].mean()
    np.testing.assert_allclose(oof.to_numpy(), pooled.loc[oof.index].to_numpy(), rtol=1e-12)


def test_accumulation_equals_a_larger_batch(make_job: MakeJob) -> None:
    """Without BatchNorm two half batches add up to one whole."""
    optim = {"name": "sgd", "lr": 0.1, "schedule": "constant", "warmup_epochs": 0.0, "epochs": 1}
    vit = {"name": "vit_tiny_patch16_224", "kwargs": {"embed_dim": 16, "depth": 1, "num_heads": 2}}
    vit["kwargs"] |= {"patch_size": 4, "img_size": 12}
    found = []
    for size, accumulate in ((10, 1), (5, 2)):
        job = make_job(
            model=f"by_{size}",
            augment="none",
            backbone=vit | {"pretrained": "none"},
            optim=optim | {"batch_size": size, "accumulate": accumulate, "ema_decay": None},
        )
        fit_fold(job)
        found.append(read_tensors(paths.checkpoint(*job.names)))
    torch.testing.assert_close(*found)


def test_class_weights_are_those_of_scikit_learn(make_job: MakeJob) -> None:
    from sklearn.utils.class_weight import compute_class_weight

    labels = np.array([0, 1, 1, 1, 1, 0, 1])
    want = compute_class_weight("balanced", classes=np.array([0, 1]), y=labels)
    assert class_weights(make_job(loss={"class_weights": "balanced"}).config, labels) == tuple(want)
    given = make_job(loss={"class_weights": (1.0, 2.0)}).config
    assert class_weights(given, labels) == (1.0, 2.0)


def test_a_damaged_record_is_refused_by_name(make_job: MakeJob) -> None:
    job = make_job()
    fit_fold(job)
    change_sealed(paths.run_record(*job.names), {"surprise": 1})
    with pytest.raises(UserError, match="surprise"):
        fit_fold(job)


def test_an_item_that_became_unreadable_is_named(make_job: MakeJob) -> None:
    job = make_job()
    (job.root / "train" / "i004.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"train/i004\.png"):
        fit_fold(job)
    assert not paths.oof_csv(*job.names).exists()


def test_a_data_set_that_changed_is_not_mixed_with_finished_folds(make_job: MakeJob) -> None:
    job = make_job()
    fit_fold(job)
    table = job.table.assign(bytes=job.table["bytes"] + 1)
    with pytest.raises(UserError, match="files of the data set have changed since"):
        fit_fold(dataclasses.replace(job, table=table))
