"""Terms on features. Oracles: their formulas as loops, and torch.pdist."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from src.config import LossConfig
from src.models.feature_terms import (
    alignment,
    feature_terms,
    supervised_contrastive,
    uniformity,
    wants_features,
)
from src.models.losses import total_loss

LABEL = torch.tensor([0, 1, 1, 0, 1, 0, 0])


def points_of(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(7, 5, generator=generator), dim=1)


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_supervised_contrastive_is_equation_2(temperature):
    points, label = points_of().double().numpy(), LABEL.numpy()
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
    got = supervised_contrastive(points_of(), LABEL, temperature)
    assert float(got) == pytest.approx(np.mean(losses), rel=1e-5)


def test_an_item_alone_in_its_class_is_no_anchor():
    label = torch.tensor([1, 0, 0, 0])
    points = points_of()[:4]
    all_zero = supervised_contrastive(points, torch.zeros(4, dtype=torch.long), 0.1)
    got = supervised_contrastive(points, label, 0.1)
    assert torch.isfinite(got)
    assert got != all_zero
    assert supervised_contrastive(points[:2], torch.tensor([0, 1]), 0.1) == 0


def test_uniformity_is_its_authors_line():
    points = points_of()
    theirs = torch.pdist(points).pow(2).mul(-2).exp().mean().log()
    torch.testing.assert_close(uniformity(points), theirs)


def test_alignment_is_the_mean_over_pairs_of_a_label():
    points = points_of()
    pairs = [(i, j) for i in range(7) for j in range(i) if LABEL[i] == LABEL[j]]
    theirs = torch.stack([(points[i] - points[j]).square().sum() for i, j in pairs]).mean()
    torch.testing.assert_close(alignment(points, LABEL), theirs)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_slopes_are_finite_in_small_batches_and_for_equal_images(count):
    for features in (torch.randn(count, 4), torch.ones(count, 4), torch.zeros(count, 4)):
        features.requires_grad_(True)
        config = LossConfig(supcon=1.0, uniformity=0.5, alignment=0.1)
        total = feature_terms({"label": LABEL[:count]}, {"features": features}, config)
        assert total is not None
        total.backward()
        assert torch.isfinite(total)
        assert features.grad is not None
        assert torch.isfinite(features.grad).all()


def test_terms_are_added_with_their_weights_whatever_the_features_length():
    features = 30 * torch.randn(7, 3, 2, generator=torch.Generator().manual_seed(3))
    points = functional.normalize(features.flatten(1), dim=1)
    config = LossConfig(supcon=0.7, uniformity=0.5, alignment=0.1, temperature=0.2)
    batch, logit = {"label": LABEL}, torch.linspace(-2, 2, 7)
    got = total_loss(batch, {"logit": logit, "features": features}, config, torch.ones(2))
    wanted = (
        functional.binary_cross_entropy_with_logits(logit, LABEL.float())
        + 0.7 * supervised_contrastive(points, LABEL, 0.2)
        + 0.5 * uniformity(points)
        + 0.1 * alignment(points, LABEL)
    )
    torch.testing.assert_close(got, wanted)


def test_features_are_wanted_by_terms_alone():
    assert not wants_features(LossConfig(gamma=3.0))
    for name in ("supcon", "uniformity", "alignment"):
        assert wants_features(LossConfig(**{name: 0.1}))


def test_descending_on_it_draws_a_class_together():
    points = torch.nn.Parameter(points_of())
    optimizer = torch.optim.SGD([points], lr=1.0)
    before = float(alignment(points_of(), LABEL))
    config = LossConfig(supcon=1.0)
    for _ in range(200):
        optimizer.zero_grad()
        loss = feature_terms({"label": LABEL}, {"features": points}, config)
        assert loss is not None
        loss.backward()
        optimizer.step()
    unit = functional.normalize(points.detach(), dim=1)
    assert float(alignment(unit, LABEL)) < before / 4
