"""Values out of range are refused with what was found and what would fit."""

import pytest

from src.config import parse_model
from src.errors import UserError

MINIMAL = {"backbone": {"name": "compact_net", "pretrained": "none"}}


def refusal(content: dict) -> str:
    with pytest.raises(UserError) as caught:
        parse_model(MINIMAL | content, "m.yaml")
    assert str(caught.value).startswith("m.yaml: ")
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"optim": {"lr": 0.0}}, "optim.lr must be > 0 (found 0.0)"),
        ({"optim": {"epochs": 0}}, "optim.epochs must be >= 1 (found 0)"),
        ({"optim": {"decay_rate": 1.0}}, "optim.decay_rate must be < 1 (found 1.0)"),
        ({"optim": {"decay_epochs": 0}}, "optim.decay_epochs must be >= 1 (found 0)"),
        ({"optim": {"layer_decay": 1.5}}, "optim.layer_decay must be <= 1 (found 1.5)"),
        ({"optim": {"sam_rho": 0.0}}, "optim.sam_rho must be > 0 (found 0.0)"),
        ({"optim": {"swa_epochs": 0}}, "optim.swa_epochs must be >= 1 (found 0)"),
        (
            {"optim": {"swa_epochs": 6, "epochs": 5}},
            "optim.swa_epochs must be in 1..5 (optim.epochs)",
        ),
        ({"mixup": -0.1}, "mixup must be >= 0 (found -0.1)"),
        ({"cutmix": -1.0}, "cutmix must be >= 0 (found -1.0)"),
        ({"per_class": 0}, "per_class must be >= 1 (found 0)"),
        ({"loss": {"gamma": -1.0}}, "loss.gamma must be >= 0 (found -1.0)"),
        ({"loss": {"temperature": 0.0}}, "loss.temperature must be > 0 (found 0.0)"),
        ({"loss": {"supcon": -1.0}}, "loss.supcon must be >= 0"),
        ({"loss": {"class_weights": [1.0, 0.0]}}, "loss.class_weights.2 must be > 0 (found 0.0)"),
        ({"head": {"pool": "gen"}}, "head.pool"),
        ({"monitor": "acu", "patience": 1}, "unknown metric 'acu'; did you mean 'auc'"),
        ({"monitor": "recall_fake", "patience": 1}, "says too little alone"),
        ({"transfer": {"lora_r": 0}}, "transfer.lora_r must be >= 1 (found 0)"),
        ({"transfer": {"last_blocks": 0}}, "transfer.last_blocks must be >= 1"),
    ],
)
def test_a_value_out_of_range(content: dict, message: str):
    assert message in refusal(content)


def test_all_that_is_wrong_is_named_at_once():
    found = refusal({"optim": {"lr": 0.0, "epochs": 0}, "mixup": -1.0})
    assert found.count("must be") == 3


FREE = {"name": "schedule_free", "schedule": "constant"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"optim": {"swa_epochs": 2, "ema_decay": 0.9}}, "two means of the weights"),
        ({"optim": {"swa_epochs": 2}, "selection": "best"}, "take selection: last"),
        ({"optim": {"swa_epochs": 2}, "patience": 1}, "patience may end them before"),
        (
            {"monitor": "loss"},
            "monitor: log_loss steers nothing here: give selection: best, patience",
        ),
        ({"optim": FREE | {"ema_decay": 0.9}}, "keeps a mean of the weights itself"),
        ({"optim": FREE | {"swa_epochs": 2}}, "keeps a mean of the weights itself"),
        ({"optim": {"name": "schedule_free"}}, "wants optim.schedule: constant"),
        ({"loss": {"supcon": 0.1}, "mixup": 0.2}, "want labels of 0 or 1"),
        ({"loss": {"alignment": 0.1}, "cutmix": 0.2}, "want labels of 0 or 1"),
        ({"strategy": "feature_extractor", "mixup": 0.2}, "items that stay as they are"),
        ({"strategy": "feature_extractor", "loss": {"uniformity": 0.5}}, "moves no feature"),
    ],
)
def test_values_that_do_not_go_together(content: dict, message: str):
    assert message in refusal(content)


@pytest.mark.parametrize(
    "content",
    [
        {"optim": {"swa_epochs": 10}},
        {"monitor": "loss", "transfer": {"head_patience": 2}, "optim": {"swa_epochs": 1}},
        {"monitor": "auc", "patience": 2},
        {"optim": FREE},
        {"loss": {"uniformity": 0.5}, "mixup": 0.2},
        {
            **{"strategy": "feature_extractor", "mixup": 0.2},
            "transfer": {"cache_features": False},
        },
        {"loss": {"supcon": 0.5, "class_weights": [1.0, 2.0]}, "sampler": "paired"},
        {"optim": {"layer_decay": 1.0, "sam_rho": 0.05, "schedule": "one_cycle"}},
    ],
)
def test_values_that_do(content: dict):
    assert parse_model(MINIMAL | content, "m.yaml").backbone.name == "compact_net"
