"""A backbone, a loss and a strategy, each added in one place as README says, and trained."""

import json

import pytest
import torch
from torch import nn

from src import paths
from src.losses import LOSSES
from src.models.backbones import BACKBONES
from src.models.checkpoint import load_checkpoint
from src.models.strategies import STRATEGIES, Stage
from src.training.trainer import fit_fold


class Patches(nn.Module):
    """A net of one convolution and one linear layer."""

    def __init__(self, num_classes: int = 1, drop_rate: float = 0.0, width: int = 8) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, width, 4, 4)
        self.drop = nn.Dropout(drop_rate)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x):
        """Map (n, 3, h, w) to (n, num_classes)."""
        return self.head(self.drop(self.body(x).relu().mean((2, 3))))


def first_power(items):
    """Return the mean distance between P(fake) and the label."""
    return (items.logit.sigmoid() - items.label).abs().mean()


def head_then_body(parts, config):
    """Train the head, then what lies before it."""
    body = parts.everything - parts.head
    return [
        Stage("head", parts.head, config.optim, features="cached"),
        Stage("body", body, config.optim),
    ]


@pytest.fixture
def added(monkeypatch):
    for registry, name, thing in (
        (BACKBONES, "patches", Patches),
        (LOSSES, "first_power", first_power),
        (STRATEGIES, "head_then_body", head_then_body),
    ):
        monkeypatch.setattr(registry, "_things", dict(registry._things))
        registry.register(name)(thing)


@pytest.mark.usefixtures("added")
def test_a_backbone_a_loss_and_a_strategy_of_ones_own_train_like_any_other(make_job):
    job = make_job(
        backbone={"name": "patches", "kwargs": {"width": 16}},
        loss={"name": "first_power"},
        strategy="head_then_body",
        optim={"epochs": 6, "lr": 0.05, "ema_decay": None},
    )
    assert fit_fold(job)
    record = json.loads(paths.run_record(*job.names).read_text())
    assert [stage["name"] for stage in record["stages"]] == ["head", "body"]
    assert record["stages"][1]["trainable"] == 3 * 4 * 4 * 16 + 16
    losses = [entry["train_loss"] for entry in record["history"]]
    assert losses[-1] < losses[0]
    assert record["metrics"]["auc"] > 0.9  # the fakes of this data set are brighter
    model, _ = load_checkpoint(paths.checkpoint(*job.names), torch.device("cpu"))
    assert isinstance(model.net, Patches)
