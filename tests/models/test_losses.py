"""The loss. Oracles: its formula in NumPy, and torch."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from src.config import LossConfig
from src.errors import UserError
from src.models.losses import LOSSES, bce

LOGIT = np.array([2.0, -1.0, 0.3, -4.0, 90.0, -90.0])
LABEL = np.array([1, 0, 0, 1, 0, 1])


def ours(smoothing: float = 0.0, weights: tuple[float, float] = (1.0, 1.0)) -> float:
    batch = {"label": torch.tensor(LABEL)}
    outputs = {"logit": torch.tensor(LOGIT, dtype=torch.float32)}
    return float(bce(batch, outputs, LossConfig(label_smoothing=smoothing), torch.tensor(weights)))


def by_hand(smoothing: float, weights: tuple[float, float]) -> float:
    target = np.where(LABEL == 1, 1 - smoothing / 2, smoothing / 2)
    weight = np.where(LABEL == 1, weights[1], weights[0])
    log_p = -np.logaddexp(0, -LOGIT)
    log_q = -np.logaddexp(0, LOGIT)
    return float(np.mean(-weight * (target * log_p + (1 - target) * log_q)))


@pytest.mark.parametrize("smoothing", [0.0, 0.02, 0.5])
@pytest.mark.parametrize("weights", [(1.0, 1.0), (3.0, 0.6), (0.2, 5.0)])
def test_bce_equals_its_formula(smoothing, weights):
    assert ours(smoothing, weights) == pytest.approx(by_hand(smoothing, weights), rel=1e-5)


def test_bce_equals_torch():
    logit, label = torch.tensor(LOGIT), torch.tensor(LABEL, dtype=torch.float64)
    wanted = functional.binary_cross_entropy_with_logits(logit, label)
    assert ours() == pytest.approx(float(wanted), rel=1e-6)


def test_smoothing_is_cross_entropy_with_two_classes_smoothed():
    two = torch.stack([torch.zeros(6, dtype=torch.float64), torch.tensor(LOGIT)], 1)
    wanted = functional.cross_entropy(two, torch.tensor(LABEL), label_smoothing=0.1)
    assert ours(0.1) == pytest.approx(float(wanted), rel=1e-5)


def test_the_loss_is_fp32_whatever_the_logit_is():
    batch = {"label": torch.tensor([1, 0])}
    logit = torch.tensor([3.0, -2.0], dtype=torch.bfloat16, requires_grad=True)
    loss = bce(batch, {"logit": logit}, LossConfig(), torch.ones(2))
    assert loss.dtype == torch.float32
    assert loss.shape == ()
    loss.backward()
    assert logit.grad is not None
    assert logit.grad[0] < 0 < logit.grad[1]


def test_unknown_loss():
    with pytest.raises(UserError, match="did you mean 'bce'"):
        LOSSES.get("bec")
