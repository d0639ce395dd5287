"""Runs as a whole: what they write, that they repeat, resume, skip and refuse."""

import dataclasses

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
from src.compute.request import Compute
from src.data.pixels.source import Canvas, PixelSource
from src.errors import LockedError, UserError
from src.inference.predict import predict_views
from src.losses import LOSSES, Items
from src.models.checkpoint import load_checkpoint
from src.tensor_files import read_tensors
from src.training import resume, trainer
from src.training.job import Options
from src.training.setup import class_weights
from src.training.trainer import fit_fold
from tests.jobs import (
    oof_bytes,
    record_of,
    with_options,
)
from tests.records import change_sealed


def stop_before_the_end(monkeypatch, job):
    """Train all epochs of a job and interrupt what comes then."""

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "finish_run", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fit_fold(job)


def test_a_run_writes_every_artefact_and_is_skipped_until_overwritten(make_job):
    job = make_job(options=Options("cpu", "fp32", 0))
    assert fit_fold(job)
    folds = read_folds(paths.folds_csv("tiny", "s"))
    oof = read_oof(paths.oof_csv(*job.names), folds, 0)
    views, metadata = read_views(paths.oof_views(*job.names))
    record = record_of(job)
    assert sorted(views["item_id"]) == oof["item_id"].tolist()
    assert metadata["checkpoint_sha256"] == sha256_file(paths.checkpoint(*job.names))
    assert record["checkpoint_sha256"] == metadata["checkpoint_sha256"]
    assert [entry["epoch"] for entry in record["history"]] == [1, 2, 3]
    assert record["folds_sha256"] == sha256_file(paths.folds_csv("tiny", "s"))
    score = f1_score(oof["label"], oof["logit"] >= 0, average="macro")
    assert record["metrics"]["macro_f1"] == pytest.approx(score, abs=1e-12)
    assert not paths.run_state(*job.names).exists()
    assert list(paths.tensorboard_dir(*job.names).glob("events.out.*"))
    stamp = paths.run_record(*job.names).stat().st_mtime_ns
    assert not fit_fold(job)
    assert paths.run_record(*job.names).stat().st_mtime_ns == stamp
    assert fit_fold(with_options(job, overwrite=True))
    assert paths.run_record(*job.names).stat().st_mtime_ns > stamp


def test_the_kept_weights_are_the_ema_and_reload_to_equal_logits(make_job):
    job = make_job()
    fit_fold(job)
    model, views = load_checkpoint(paths.checkpoint(*job.names), torch.device("cpu"))
    source = PixelSource(job.root, job.table["path"].tolist(), [Canvas.of(model.spec)])
    looked = predict_views([model], [views], source, job.held_rows, Compute("cpu"))
    oof = pd.read_csv(paths.oof_csv(*job.names)).set_index("item_id")["logit"]
    ids = job.table["item_id"].iloc[job.held_rows]
    np.testing.assert_array_equal(oof.loc[ids].to_numpy(), looked.logits[0].mean(1))


def test_same_seed_twice_gives_equal_bytes_and_another_seed_does_not(make_job):
    first, again, other = make_job(), make_job(model="again"), make_job(model="other", seed=7)
    for job in (first, again, other):
        fit_fold(job)
    assert oof_bytes(first) == oof_bytes(again)
    assert oof_bytes(first) != oof_bytes(other)


def test_a_name_that_holds_predictions_from_elsewhere_is_refused(make_job):
    job = make_job()
    record = paths.extra_record(job.dataset, job.scheme, job.model)
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    with pytest.raises(UserError, match="holds predictions from elsewhere under that name"):
        fit_fold(job)


@pytest.mark.parametrize(
    ("augment", "caches"),
    [("crop_flip", ("none", "ram", "disk", "auto")), ("light", ("none", "ram"))],
)
def test_where_pixels_are_kept_changes_nothing(make_job, augment, caches):
    runs = []
    for cache in caches:
        options = Options("cpu", "fp32", 0, cache=cache, track="none")
        changes = {"augment": {"name": augment, "erase": 0.5}, "optim": {"epochs": 1}}
        job = make_job(model=cache, options=options, **changes)
        fit_fold(job)
        runs.append(oof_bytes(job))
        kept = list(paths.pixel_cache("tiny").rglob("pixels.u8"))
        assert len(kept) == (cache in ("disk", "auto"))  # one for all runs and folds
    assert len(set(runs)) == 1
    plain = make_job(model="plain", **changes | {"augment": augment})
    fit_fold(plain)
    assert oof_bytes(plain) != runs[0]  # without erasing


def test_neither_workers_nor_a_stop_change_a_run_with_dropout(make_job, monkeypatch):
    """A starting worker pool must not draw from the generator that dropout uses."""
    changes = {"backbone": {"drop_rate": 0.4}, "optim": {"epochs": 2}}
    alone, whole, cut = (
        make_job(model=name, options=Options("cpu", "fp32", workers, cache="none"), **changes)
        for name, workers in (("alone", 0), ("whole", 1), ("cut", 1))
    )
    fit_fold(alone)
    fit_fold(whole)
    save = resume.checkpoint.save_state

    def save_and_stop(*arguments):
        save(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(resume.checkpoint, "save_state", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            fit_fold(cut)
    fit_fold(cut)
    assert oof_bytes(alone) == oof_bytes(whole) == oof_bytes(cut)


def test_an_overwrite_that_cannot_start_destroys_nothing(make_job):
    job = make_job()
    fit_fold(job)
    written = [paths.run_record(*job.names), paths.oof_csv(*job.names)]
    before = [path.read_bytes() for path in written]
    with pytest.raises(UserError, match="fp16 wants a GPU"):
        fit_fold(with_options(job, precision="fp16", overwrite=True))
    assert before == [path.read_bytes() for path in written]


def test_a_half_done_run_keeps_its_precision_and_its_config(make_job, monkeypatch):
    job = make_job()
    stop_before_the_end(monkeypatch, job)
    with pytest.raises(UserError, match=r"begun in fp32.*--overwrite"):
        fit_fold(with_options(job, precision="bf16"))
    with pytest.raises(UserError, match="config has changed"):
        fit_fold(make_job(optim={"weight_decay": 0.5}))
    assert fit_fold(with_options(job, precision="auto"))


def test_what_a_run_started_from_is_recorded_and_not_needed_again(make_job, monkeypatch):
    first = make_job(model="first")
    fit_fold(first)
    file = paths.checkpoint(*first.names)
    wants_file = {"pretrained": "file"}
    plain = make_job(backbone=wants_file)
    stop_before_the_end(monkeypatch, with_options(plain, weights=file))
    assert fit_fold(plain)
    assert oof_bytes(plain) != oof_bytes(first)
    start = record_of(plain)["start"]
    assert (start["name"], start["sha256"]) == ("fold_0.safetensors", sha256_file(file))
    assert (start["missing"], start["unexpected"]) == ([], [])
    assert {"model": "first", "fold": 0, "dataset": "tiny"}.items() <= start["origin"].items()
    assert not fit_fold(plain)
    with pytest.raises(UserError, match="this model starts from a weights file"):
        fit_fold(make_job(fold=1, backbone=wants_file))


def test_a_finished_run_of_something_else_is_never_reused(make_job, tmp_path):
    job = make_job()
    fit_fold(job)
    with pytest.raises(UserError, match=r"config has changed.*--overwrite.*--as"):
        fit_fold(make_job(optim={"lr": 2e-3}))
    other = tmp_path / "start.safetensors"
    other.write_bytes(paths.checkpoint(*job.names).read_bytes())
    with pytest.raises(UserError, match="started from other weights"):
        fit_fold(with_options(job, weights=other))
    table = job.table.assign(bytes=job.table["bytes"] + 1)
    with pytest.raises(UserError, match="files of the data set have changed since"):
        fit_fold(dataclasses.replace(job, table=table))
    change_sealed(paths.run_record(*job.names), {"surprise": 1})
    with pytest.raises(UserError, match="surprise"):
        fit_fold(job)


@pytest.mark.parametrize(
    ("fold", "said"),
    [(0, r"logit of 'i\d{3}\.png' is not finite"), ("all", "is not finite, so no checkpoint")],
)
def test_weights_that_break_after_the_last_step_are_a_users_error(
    make_job, monkeypatch, fold, said
):
    job = make_job(fold, optim={"epochs": 1, "ema_decay": None})
    train = trainer.Trainer.train_batches

    def broken(self):
        loss = train(self)
        next(self.run.model.net.parameters()).data.fill_(float("nan"))
        return loss

    monkeypatch.setattr(trainer.Trainer, "train_batches", broken)
    with pytest.raises(UserError, match=said):
        fit_fold(job)
    assert not paths.oof_csv(*job.names).exists()
    assert not paths.checkpoint(*job.names).exists()


@pytest.mark.parametrize(
    ("rows", "cache", "said"),
    [("held_rows", "none", ": not readable any more; it was when"), ("train_rows", "auto", "")],
)
def test_an_item_that_became_unreadable_is_named(make_job, rows, cache, said):
    job = make_job(options=Options("cpu", "fp32", 0, cache=cache))
    name = job.table["path"].iloc[getattr(job, rows)[2]]
    (job.root / name).write_bytes(b"")
    with pytest.raises(UserError, match=f"{name}{said}"):
        fit_fold(job)
    assert not paths.oof_csv(*job.names).exists()


def test_a_second_process_on_the_same_fold_leaves(make_job):
    job = make_job()
    with file_lock(paths.run_lock(*job.names), "this"), pytest.raises(LockedError, match="fold 0"):
        fit_fold(job)
    assert not paths.run_record(*job.names).exists()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_before_the_step_and_names_the_items(
    make_job, monkeypatch, bad
):
    job = make_job(optim={"epochs": 2})
    loss, calls, steps = LOSSES.get("bce"), [], []
    monkeypatch.setattr(trainer.Step, "make", lambda *_: steps.append(len(calls)) is None)

    def broken(items: Items):
        calls.append(items)
        return loss(items) * (bad if len(calls) == 3 else 1)

    monkeypatch.setitem(LOSSES._things, "bce", broken)
    with pytest.raises(UserError, match=r"loss is (nan|inf).*i\d{3}\.png.*--precision fp32"):
        fit_fold(job)
    assert steps == [1, 2]
    assert not paths.oof_csv(*job.names).exists()


def test_a_gradient_that_is_not_finite_makes_no_step(make_job, monkeypatch):
    seen = []

    def broken(items: Items):
        logit = items.outputs["logit"]
        seen.append(logit.detach())
        return (logit - logit.detach()).abs().sqrt().sum()  # 0, with an infinite slope

    monkeypatch.setitem(LOSSES._things, "bce", broken)
    with pytest.raises(UserError, match=r"gradient is nan.*i\d{3}\.png"):
        fit_fold(make_job(optim={"epochs": 1}))
    assert len(seen) == 1


def test_a_trainer_of_ones_own_overrides_what_it_does_otherwise(make_job):
    class Distilled(trainer.Trainer):
        """Learns what a teacher says, and stops when it has seen enough."""

        def loss(self, batch):
            taught.append(len(batch["item"]))
            logit = self.run.active(batch)["logit"]
            return super().loss(batch) + (logit - 1.0).square().mean()

        def is_over(self):
            return self.run.epoch == 2 or super().is_over()

    plain, other, taught = make_job(), make_job(model="other"), []
    fit_fold(plain)
    Distilled(other).fit()
    assert taught == [8] * 6
    assert len(record_of(other)["history"]) == 2
    assert oof_bytes(plain) != oof_bytes(other)


def test_selection_best_keeps_the_best_epoch_and_says_so(make_job):
    job = make_job(selection="best", patience=2, optim={"epochs": 12})
    fit_fold(job)
    record = record_of(job)
    scores = [entry["macro_f1"] for entry in record["history"]]
    assert record["selection"] == "best"
    assert record["epoch"] == scores.index(max(scores)) + 1
    assert len(scores) <= record["epoch"] + 2
    assert record["metrics"]["macro_f1"] == pytest.approx(max(scores))


def test_flip_tta_pools_two_views(make_job):
    job = make_job(tta="flip", optim={"epochs": 1})
    fit_fold(job)
    views, _ = read_views(paths.oof_views(*job.names))
    assert set(views["view"]) == {"full", "full+flip"}
    oof = pd.read_csv(paths.oof_csv(*job.names)).set_index("item_id")["logit"]
    pooled = views.groupby("item_id")["logit"].mean()
    np.testing.assert_allclose(oof.to_numpy(), pooled.loc[oof.index].to_numpy(), rtol=1e-12)


def test_accumulation_equals_a_larger_batch(make_job):
    """Without BatchNorm two half batches add up to one whole."""
    vit = {"embed_dim": 16, "depth": 1, "num_heads": 2, "patch_size": 4, "img_size": 12}
    optim = {"name": "sgd", "lr": 0.1, "schedule": "constant", "warmup_epochs": 0.0, "epochs": 1}
    found = []
    for size, accumulate in ((10, 1), (5, 2)):
        job = make_job(
            model=f"by_{size}",
            augment="none",
            backbone={"name": "vit_tiny_patch16_224", "pretrained": "none", "kwargs": vit},
            optim=optim | {"batch_size": size, "accumulate": accumulate, "ema_decay": None},
        )
        fit_fold(job)
        found.append(read_tensors(paths.checkpoint(*job.names)))
    torch.testing.assert_close(*found)


def test_class_weights_are_those_of_scikit_learn(make_job):
    from sklearn.utils.class_weight import compute_class_weight

    labels = np.array([0, 1, 1, 1, 1, 0, 1])
    want = compute_class_weight("balanced", classes=np.array([0, 1]), y=labels)
    assert class_weights(make_job(loss={"class_weights": "balanced"}).config, labels) == tuple(want)
    given = make_job(loss={"class_weights": (1.0, 2.0)}).config
    assert class_weights(given, labels) == (1.0, 2.0)
