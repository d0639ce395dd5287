"""The losses. Oracles: their formulas in NumPy, torch, torchvision and timm."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from src.config import LossConfig
from src.errors import UserError
from src.models.losses import LOSSES, bce, total_loss

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


SOFT = torch.tensor([0.9, 0.0, 0.35, 1.0, 0.5, 0.02])


def loss_of(name: str, label: torch.Tensor, weights=(1.0, 1.0), **settings: float) -> torch.Tensor:
    outputs = {"logit": torch.tensor(LOGIT, dtype=torch.float32)}
    return total_loss(
        {"label": label}, outputs, LossConfig(name=name, **settings), torch.tensor(weights)
    )


@pytest.mark.parametrize("name", LOSSES.names())
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_mixed_label_costs_what_its_parts_cost(name, share):
    settings = {"gamma": 2.0, "gamma_fake": 1.0}
    ends = [loss_of(name, torch.full((6,), value), **settings) for value in (0, 1)]
    mixed = loss_of(name, torch.full((6,), share), **settings)
    torch.testing.assert_close(mixed, (1 - share) * ends[0] + share * ends[1])


@pytest.mark.parametrize("name", LOSSES.names())
def test_class_weights_weigh_the_items_of_a_class(name):
    label = torch.tensor(LABEL)
    parts = [loss_of(name, label, weights) for weights in ((1.0, 1e-9), (1e-9, 1.0))]
    torch.testing.assert_close(loss_of(name, label, (2.0, 3.0)), 2 * parts[0] + 3 * parts[1])


@pytest.mark.parametrize("name", LOSSES.names())
def test_every_loss_has_a_finite_slope_for_sure_items(name):
    logit = torch.tensor([200.0, -200.0, 200.0, -200.0, 0.0], requires_grad=True)
    batch = {"label": torch.tensor([1, 0, 0, 1, 1])}
    settings = LossConfig(name=name, gamma=0.5, gamma_fake=0.5)
    loss = total_loss(batch, {"logit": logit}, settings, torch.ones(2))
    loss.backward()
    assert torch.isfinite(loss)
    assert logit.grad is not None
    assert torch.isfinite(logit.grad).all()
    assert logit.grad[2] > 0 > logit.grad[3]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_soft_bce_weighs_an_item_between_its_classes(smoothing):
    got = loss_of("bce", SOFT, (1.0, 3.0), label_smoothing=smoothing)
    label = SOFT.double().numpy()
    target = label * (1 - smoothing) + smoothing / 2
    losses = target * np.logaddexp(0, -LOGIT) + (1 - target) * np.logaddexp(0, LOGIT)
    assert float(got) == pytest.approx(np.mean((1 - label + 3 * label) * losses), rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_ce_is_bce_without_class_weights(smoothing):
    for label in (torch.tensor(LABEL), SOFT):
        one, other = (loss_of(name, label, label_smoothing=smoothing) for name in ("ce", "bce"))
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_ce_with_class_weights_is_torchs_up_to_its_divisor(smoothing):
    two = torch.stack([torch.zeros(6), torch.tensor(LOGIT, dtype=torch.float32)], 1)
    weights, label = torch.tensor([1.0, 2.0]), torch.tensor(LABEL)
    theirs = functional.cross_entropy(two, label, weights, label_smoothing=smoothing)
    got = loss_of("ce", label, (1.0, 2.0), label_smoothing=smoothing)
    torch.testing.assert_close(got, theirs * weights[label].mean())


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 3.5])
def test_focal_is_torchvisions(gamma):
    from torchvision.ops import sigmoid_focal_loss

    logit, label = torch.tensor(LOGIT), torch.tensor(LABEL, dtype=torch.float64)
    theirs = sigmoid_focal_loss(logit, label, alpha=-1, gamma=gamma, reduction="mean")
    got = loss_of("focal", torch.tensor(LABEL), gamma=gamma)
    assert float(got) == pytest.approx(float(theirs), rel=1e-5)


def test_focal_without_focus_is_bce():
    for label in (torch.tensor(LABEL), SOFT):
        torch.testing.assert_close(loss_of("focal", label, gamma=0.0), loss_of("bce", label))


@pytest.mark.parametrize("gammas", [(4.0, 0.0), (2.0, 1.0), (0.0, 0.0)])
def test_asymmetric_is_timms(gammas):
    from timm.loss import AsymmetricLossMultiLabel

    moderate = [0, 1, 2, 3]  # theirs clamps probabilities at 1e-8
    theirs = AsymmetricLossMultiLabel(
        gamma_neg=gammas[0], gamma_pos=gammas[1], clip=0, disable_torch_grad_focal_loss=False
    )(torch.tensor(LOGIT)[moderate], torch.tensor(LABEL, dtype=torch.float64)[moderate])
    outputs = {"logit": torch.tensor(LOGIT, dtype=torch.float32)[moderate]}
    config = LossConfig(name="asymmetric", gamma=gammas[0], gamma_fake=gammas[1])
    batch = {"label": torch.tensor(LABEL)[moderate]}
    got = total_loss(batch, outputs, config, torch.ones(2))
    assert float(got) == pytest.approx(float(theirs), rel=1e-5)
