"""Losses and terms on features. Oracles: their formulas in NumPy, torch, torchvision and timm."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from src.config import LossConfig, parse_model
from src.errors import UserError
from src.losses import (
    LOSSES,
    TERMS,
    alignment,
    asked_terms,
    supcon,
    total_loss,
    uniformity,
)

LOGIT = np.array([2.0, -1.0, 0.3, -4.0, 90.0, -90.0])
LABEL = np.array([1, 0, 0, 1, 0, 1])
SOFT = torch.tensor([0.9, 0.0, 0.35, 1.0, 0.5, 0.02])


def loss_of(
    name: str, label: object = LABEL, weights=(1.0, 1.0), logit: object = LOGIT, **settings: float
) -> torch.Tensor:
    outputs = {"logit": torch.as_tensor(logit, dtype=torch.float32)}
    config = LossConfig(name=name, **settings)
    return total_loss({"label": torch.as_tensor(label)}, outputs, config, torch.tensor(weights))


@pytest.mark.parametrize("smoothing", [0.0, 0.02, 0.5])
@pytest.mark.parametrize("weights", [(1.0, 1.0), (3.0, 0.6), (0.2, 5.0)])
@pytest.mark.parametrize("label", [torch.tensor(LABEL), SOFT])
def test_bce_is_its_formula_and_weighs_an_item_between_its_classes(smoothing, weights, label):
    soft = label.double().numpy()
    target = soft * (1 - smoothing) + smoothing / 2
    weight = (1 - soft) * weights[0] + soft * weights[1]
    losses = target * np.logaddexp(0, -LOGIT) + (1 - target) * np.logaddexp(0, LOGIT)
    got = loss_of("bce", label, weights, label_smoothing=smoothing)
    assert float(got) == pytest.approx(np.mean(weight * losses), rel=1e-5)


def test_smoothing_is_cross_entropy_with_two_classes_smoothed():
    two = torch.stack([torch.zeros(6, dtype=torch.float64), torch.tensor(LOGIT)], 1)
    wanted = functional.cross_entropy(two, torch.tensor(LABEL), label_smoothing=0.1)
    assert float(loss_of("bce", label_smoothing=0.1)) == pytest.approx(float(wanted), rel=1e-5)


@pytest.mark.parametrize("name", LOSSES.names())
def test_every_loss_is_fp32_with_a_finite_slope_for_sure_items(name):
    logit = torch.tensor([200.0, -200.0, 200.0, -200.0, 0.0], dtype=torch.bfloat16)
    logit.requires_grad_()
    settings = LossConfig(name=name, gamma=0.5, gamma_fake=0.5)
    batch = {"label": torch.tensor([1, 0, 0, 1, 1])}
    loss = total_loss(batch, {"logit": logit}, settings, torch.ones(2))
    assert (loss.dtype, loss.shape) == (torch.float32, ())
    loss.backward()
    assert torch.isfinite(loss)
    assert logit.grad is not None
    assert torch.isfinite(logit.grad).all()
    assert logit.grad[2] > 0 > logit.grad[3]


@pytest.mark.parametrize("name", LOSSES.names())
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_mixed_label_costs_what_its_parts_cost(name, share):
    settings = {"gamma": 2.0, "gamma_fake": 1.0}
    ends = [loss_of(name, torch.full((6,), value), **settings) for value in (0, 1)]
    mixed = loss_of(name, torch.full((6,), share), **settings)
    torch.testing.assert_close(mixed, (1 - share) * ends[0] + share * ends[1])


@pytest.mark.parametrize("name", LOSSES.names())
def test_class_weights_weigh_the_items_of_a_class(name):
    parts = [loss_of(name, LABEL, weights) for weights in ((1.0, 1e-9), (1e-9, 1.0))]
    torch.testing.assert_close(loss_of(name, LABEL, (2.0, 3.0)), 2 * parts[0] + 3 * parts[1])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_ce_is_bce_and_with_class_weights_torchs_up_to_its_divisor(smoothing):
    for label in (LABEL, SOFT):
        one, other = (loss_of(name, label, label_smoothing=smoothing) for name in ("ce", "bce"))
        torch.testing.assert_close(one, other)
    two = torch.stack([torch.zeros(6), torch.tensor(LOGIT, dtype=torch.float32)], 1)
    weights, label = torch.tensor([1.0, 2.0]), torch.tensor(LABEL)
    theirs = functional.cross_entropy(two, label, weights, label_smoothing=smoothing)
    got = loss_of("ce", label, (1.0, 2.0), label_smoothing=smoothing)
    torch.testing.assert_close(got, theirs * weights[label].mean())


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 3.5])
def test_focal_is_torchvisions_and_without_focus_bce(gamma):
    from torchvision.ops import sigmoid_focal_loss

    logit, label = torch.tensor(LOGIT), torch.tensor(LABEL, dtype=torch.float64)
    theirs = sigmoid_focal_loss(logit, label, alpha=-1, gamma=gamma, reduction="mean")
    assert float(loss_of("focal", gamma=gamma)) == pytest.approx(float(theirs), rel=1e-5)
    torch.testing.assert_close(loss_of("focal", SOFT, gamma=0.0), loss_of("bce", SOFT))


@pytest.mark.parametrize("gammas", [(4.0, 0.0), (2.0, 1.0), (0.0, 0.0)])
def test_asymmetric_is_timms(gammas):
    from timm.loss import AsymmetricLossMultiLabel

    logit, label = LOGIT[:4], LABEL[:4]  # theirs clamps probabilities at 1e-8
    theirs = AsymmetricLossMultiLabel(
        gamma_neg=gammas[0], gamma_pos=gammas[1], clip=0, disable_torch_grad_focal_loss=False
    )(torch.tensor(logit), torch.tensor(label, dtype=torch.float64))
    got = loss_of("asymmetric", label, logit=logit, gamma=gammas[0], gamma_fake=gammas[1])
    assert float(got) == pytest.approx(float(theirs), rel=1e-5)


# --- settings ---


def test_unknown_losses_and_settings_out_of_range_are_refused():
    with pytest.raises(UserError, match="did you mean 'bce'"):
        LOSSES.get("bec")
    backbone = {"name": "compact_net"}
    for loss, words in (
        ({"gama": 1.0}, "unknown key in x: 'loss.gama'; did you mean 'loss.gamma'"),
        ({"gamma": -1.0}, r"loss\.gamma must be >= 0"),
        ({"temperature": 0.0}, r"loss\.temperature must be > 0"),
    ):
        with pytest.raises(UserError, match=words):
            parse_model({"backbone": backbone, "loss": loss}, "x")


def test_settings_stand_in_a_record_in_the_order_that_they_always_had():
    config = parse_model({"backbone": {"name": "compact_net"}}, "x")
    assert list(config.as_dict()["loss"].items()) == [
        ("name", "bce"), ("label_smoothing", 0.0), ("class_weights", "none"), ("gamma", 2.0),
        ("gamma_fake", 0.0), ("supcon", 0.0), ("temperature", 0.1), ("uniformity", 0.0),
        ("alignment", 0.0),
    ]  # fmt: skip


# --- terms on features ---

CLASSES = torch.tensor([0, 1, 1, 0, 1, 0, 0])


def with_terms(features: torch.Tensor, **weights: float) -> torch.Tensor:
    """The loss of items of which nothing is known, with terms on their features."""
    batch = {"label": CLASSES[: len(features)]}
    outputs = {"logit": torch.zeros(len(features)), "features": features}
    return total_loss(batch, outputs, LossConfig(**weights), torch.ones(2))


def points_of(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(7, 5, generator=generator), dim=1)


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_supervised_contrastive_is_equation_2(temperature):
    points, label = points_of().double().numpy(), CLASSES.numpy()
    losses = []
    for i in range(7):
        others = [a for a in range(7) if a != i]
        below = sum(math.exp(points[i] @ points[a] / temperature) for a in others)
        shares = [
            math.log(math.exp(points[i] @ points[p] / temperature) / below)
            for p in others
            if label[p] == label[i]
        ]
        losses.append(-sum(shares) / len(shares))
    got = supcon(points_of(), CLASSES, temperature=temperature)
    assert float(got) == pytest.approx(np.mean(losses), rel=1e-5)


def test_an_item_alone_in_its_class_is_no_anchor():
    points = points_of()[:4]
    got = supcon(points, torch.tensor([1, 0, 0, 0]))
    assert torch.isfinite(got)
    assert got != supcon(points, torch.zeros(4, dtype=torch.long))
    assert supcon(points[:2], torch.tensor([0, 1])) == 0


def test_uniformity_is_its_authors_line_and_alignment_the_mean_over_pairs_of_a_label():
    points = points_of()
    theirs = torch.pdist(points).pow(2).mul(-2).exp().mean().log()
    torch.testing.assert_close(uniformity(points, CLASSES), theirs)
    pairs = [(i, j) for i in range(7) for j in range(i) if CLASSES[i] == CLASSES[j]]
    theirs = torch.stack([(points[i] - points[j]).square().sum() for i, j in pairs]).mean()
    torch.testing.assert_close(alignment(points, CLASSES), theirs)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_slopes_are_finite_in_small_batches_and_for_equal_images(count):
    for features in (torch.randn(count, 4), torch.ones(count, 4), torch.zeros(count, 4)):
        features.requires_grad_(True)
        total = with_terms(features, supcon=1.0, uniformity=0.5, alignment=0.1)
        total.backward()
        assert torch.isfinite(total)
        assert features.grad is not None
        assert torch.isfinite(features.grad).all()


def test_terms_are_added_with_their_weights_whatever_the_features_length():
    features = 30 * torch.randn(7, 3, 2, generator=torch.Generator().manual_seed(3))
    points = functional.normalize(features.flatten(1), dim=1)
    config = LossConfig(supcon=0.7, uniformity=0.5, alignment=0.1, temperature=0.2)
    assert asked_terms(config) == list(TERMS)
    assert asked_terms(LossConfig(gamma=3.0)) == []
    batch, logit = {"label": CLASSES}, torch.linspace(-2, 2, 7)
    got = total_loss(batch, {"logit": logit, "features": features}, config, torch.ones(2))
    wanted = (
        functional.binary_cross_entropy_with_logits(logit, CLASSES.float())
        + 0.7 * supcon(points, CLASSES, temperature=0.2)
        + 0.5 * uniformity(points, CLASSES)
        + 0.1 * alignment(points, CLASSES)
    )
    torch.testing.assert_close(got, wanted)


def test_descending_on_it_draws_a_class_together():
    points = torch.nn.Parameter(points_of())
    optimizer = torch.optim.SGD([points], lr=1.0)
    before = float(alignment(points_of(), CLASSES))
    for _ in range(200):
        optimizer.zero_grad()
        with_terms(points, supcon=1.0).backward()
        optimizer.step()
    unit = functional.normalize(points.detach(), dim=1)
    assert float(alignment(unit, CLASSES)) < before / 4
