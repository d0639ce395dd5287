"""What training says of an epoch, and what held-out items may steer."""

import logging
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss

from src import paths
from src.artifacts.runs import was_selected
from src.compute.request import Compute
from src.data.pixels.source import Canvas, PixelSource
from src.errors import UserError
from src.inference.predict import predict_views
from src.metrics import sigmoid
from src.models.checkpoint import load_checkpoint
from src.training import trainer
from src.training.monitor import confidence_note, constant_loss
from src.training.plan import refit_epochs
from src.training.trainer import fit_fold
from tests.jobs import interrupt_at_batch, record_of, with_options

STEADY = {"name": "sgd", "lr": 1e-9, "batch_size": 10, "epochs": 1, "ema_decay": None}


@pytest.fixture
def scripted(monkeypatch):
    """Return a function that sets held-out scores epoch by epoch."""

    def script(**columns):
        rows = iter(zip(*columns.values(), strict=True))
        real = trainer.held_out_scores
        monkeypatch.setattr(
            trainer,
            "held_out_scores",
            lambda *a: {**real(*a), **dict(zip(columns, next(rows), strict=True))},
        )

    return script


def test_an_epoch_tells_loss_and_accuracy_of_both_kinds_of_items(make_job):
    vit = {"embed_dim": 16, "depth": 1, "num_heads": 2, "patch_size": 4, "img_size": 12}
    backbone = {"name": "vit_tiny_patch16_224", "pretrained": "none", "kwargs": vit}
    # Weights that stand still, no BatchNorm, nothing augmented: training sees what prediction does.
    job = make_job(augment="none", backbone=backbone, optim=STEADY, loss={"class_weights": (1, 2)})
    fit_fold(job)
    (entry,) = record_of(job)["history"]
    model, views = load_checkpoint(paths.checkpoint(*job.names), torch.device("cpu"))
    source = PixelSource(job.root, job.table["path"].tolist(), [Canvas.of(model.spec)])
    prob = sigmoid(
        predict_views([model], [views], source, job.train_rows, Compute("cpu")).logits[0]
    )
    label = job.labels[job.train_rows]
    weight = np.where(label == 1, 2.0, 1.0)
    cost = -np.log(np.where(label == 1, prob[:, 0], 1 - prob[:, 0]))
    assert entry["train_loss"] == pytest.approx(np.mean(weight * cost), rel=1e-5)
    assert entry["train_accuracy"] == accuracy_score(label, prob >= 0.5)
    oof = pd.read_csv(paths.oof_csv(*job.names))
    plain = log_loss(oof["label"], sigmoid(oof["logit"]))  # neither weighed nor smoothed
    assert entry["log_loss"] == pytest.approx(plain, abs=1e-6)
    assert record_of(job)["metrics"]["log_loss"] == pytest.approx(plain, abs=1e-9)


def test_a_metric_that_held_out_items_cannot_tell_steers_nothing(make_job):
    job = make_job(selection="best", monitor="auc")
    table = job.table.assign(label=np.where(job.table["fold"] == job.fold, 1, job.table["label"]))
    with pytest.raises(UserError, match=r"only fakes.*take monitor: accuracy or loss"):
        fit_fold(replace(job, table=table))
    assert not paths.checkpoint(*job.names).exists()


@pytest.mark.parametrize(("monitor", "best"), [("loss", 2), ("auc", 1), ("eer", 3)])
def test_the_monitor_chooses_the_epoch_that_is_kept(make_job, scripted, monitor, best):
    scripted(
        log_loss=[0.7, 0.5, 0.5, 0.9],
        macro_f1=[0.5, 0.5, 0.6, 0.6],
        auc=[0.9, 0.9, 0.8, 0.7],
        eer=[0.4, 0.3, 0.2, 0.2],
    )
    job = make_job(selection="best", monitor=monitor, optim={"epochs": 4})
    fit_fold(job)
    record = record_of(job)
    assert (record["epoch"], record["selection"]) == (best, "best")


def test_patience_ends_a_run_whose_last_epoch_is_kept_and_the_run_is_marked(
    make_job, scripted, caplog
):
    scripted(log_loss=[0.7, 0.5, 0.6, 0.55], macro_f1=[0.5, 0.6, 0.7, 0.8])
    caplog.set_level("INFO", "rvf")
    job = make_job(monitor="loss", patience=2, optim={"epochs": 9})
    fit_fold(job)
    record = record_of(job)
    assert (record["epoch"], len(record["history"]), record["selection"]) == (4, 4, "stopped")
    assert was_selected(record)
    assert caplog.text.count("| best log_loss so far") == 2
    assert "the held-out loss was best in epoch 2 (0.5000); the weights of epoch 4" in caplog.text
    assert refit_epochs("tiny", "s", "m", job.config, [0, 1, 2]) == 4


@pytest.mark.parametrize("patience", [None, 9])
def test_plateau_listens_to_held_out_items_only_where_they_steer(
    make_job, scripted, caplog, patience
):
    scripted(log_loss=[0.5] * 4)  # stands still, while the training loss falls
    caplog.set_level("INFO", "rvf")
    optim = {"schedule": "plateau", "decay_epochs": 1, "epochs": 4, "warmup_epochs": 0}
    more = {} if patience is None else {"monitor": "loss", "patience": patience}
    fit_fold(make_job(optim=optim, **more))
    assert ("plateau: no gain, lr 0.01 -> 0.001" in caplog.text) == (patience is not None)


def test_a_loss_of_ones_own_that_asks_the_net_itself_has_no_accuracy(make_job):
    class Own(trainer.Trainer):
        """Asks the net past `outputs`."""

        def loss(self, batch):
            return self.run.active(batch)["logit"].square().mean()

    job = make_job(optim={"epochs": 1})
    Own(job).fit()
    (entry,) = record_of(job)["history"]
    assert "train_accuracy" not in entry
    assert np.isfinite(entry["train_loss"])


def test_the_log_of_a_run_is_a_file_that_a_stop_is_told_in(make_job, monkeypatch):
    job = make_job(optim={"epochs": 2})
    log = paths.run_log(*job.names)
    listening = list(logging.getLogger("rvf").handlers)
    with monkeypatch.context() as patch:
        interrupt_at_batch(patch, 5)  # of the second epoch
        with pytest.raises(KeyboardInterrupt):
            fit_fold(job)
    first = log.read_text()
    assert f"=== {job.title}\n" in first
    assert "epoch 1/2: loss" in first
    assert first.splitlines()[-1].endswith("=== interrupted")
    fit_fold(job)
    again = log.read_text()
    assert again.startswith(first)
    assert "resumed after epoch 1 of 2" in again
    assert again.splitlines()[-1].endswith("=== finished")
    (job.root / job.table["path"].iloc[0]).write_bytes(b"")
    with pytest.raises(UserError, match="i000"):
        fit_fold(with_options(job, overwrite=True, cache="none"))
    assert "fold 0, again (--overwrite)" in log.read_text()
    assert "=== error: " in log.read_text().splitlines()[-1]
    assert logging.getLogger("rvf").handlers == listening


def test_a_log_that_cannot_be_written_costs_a_warning_and_no_more(make_job, caplog):
    job = make_job(optim={"epochs": 1})
    paths.run_log(*job.names).mkdir(parents=True)
    assert fit_fold(job)
    assert "fold_0.log: no log is written there (Is a directory)" in caplog.text
    full = make_job(model="full", optim={"epochs": 1})
    paths.run_log(*full.names).parent.mkdir(parents=True)
    paths.run_log(*full.names).symlink_to("/dev/full")
    assert fit_fold(full)
    assert "no log is written there (No space left on device)" in caplog.text


def test_the_predictions_say_why_they_are_not_the_last_epochs(make_job, caplog):
    caplog.set_level("INFO", "rvf")
    plain = make_job(optim={"epochs": 1})
    fit_fold(plain)
    assert "other than the last epoch" not in caplog.text
    swa = {"epochs": 2, "swa_epochs": 2, "ema_decay": None}
    fit_fold(make_job(model="other", tta="flip", optim=swa))
    said = "other than the last epoch: the mean of the weights of 2 epochs, 2 views in place of 1"
    assert said in caplog.text
    assert "held out at 0.5, 1 of 2 views, before the mean of weights: loss" in caplog.text


def test_over_confidence_is_said_with_the_way_out():
    rng = np.random.default_rng(0)
    label = np.repeat([0, 1], [300, 100])
    right = np.where(label == 1, 1.0, -1.0) + rng.standard_normal(400)
    assert constant_loss(label) == pytest.approx(log_loss(label, np.full(400, 0.25)), abs=1e-12)
    assert confidence_note(label, right) == ""
    loud = confidence_note(label, 8 * right)
    assert f"loss of {log_loss(label, sigmoid(8 * right)):.4f} is worse" in loud
    assert f"({constant_loss(label):.4f})" in loud
    assert "tune.py calibrates" in loud
    divisor = float(loud.split("Divided by ")[1].split(",")[0])
    tried = {d: log_loss(label, sigmoid(8 * right / d)) for d in np.arange(1.0, 12.0, 0.1)}
    assert divisor == pytest.approx(min(tried, key=tried.get), abs=0.11)
    assert f"have one of {min(tried.values()):.4f}" in loud
    assert "tell little apart (AUC 0." in confidence_note(label, 5 * rng.standard_normal(400))
