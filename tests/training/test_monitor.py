"""What training says of an epoch, and what held-out items may steer."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss

from src import paths
from src.artifacts.runs import was_selected
from src.compute.request import Compute
from src.data.pixels.source import Canvas, PixelSource
from src.inference.predict import predict_views
from src.metrics import sigmoid
from src.models.checkpoint import load_checkpoint
from src.training import trainer
from src.training.plan import refit_epochs
from src.training.trainer import fit_fold
from tests.jobs import record_of

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


@pytest.mark.parametrize(
    ("monitor", "best"),
    [("loss", 2), ("macro_f1", 3), ("auc", 1), ("accuracy", 4), ("eer", 3)],
)
def test_the_monitor_chooses_the_epoch_that_is_kept(make_job, scripted, monitor, best):
    scripted(
        log_loss=[0.7, 0.5, 0.5, 0.9],
        macro_f1=[0.5, 0.5, 0.6, 0.6],
        auc=[0.9, 0.9, 0.8, 0.7],
        accuracy=[0.1, 0.2, 0.3, 0.4],
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
