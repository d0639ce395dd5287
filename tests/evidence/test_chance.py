"""P(fake) as a frequency: a curve from rows whose true one is known."""

import numpy as np
import pytest

from src.ensemble.predictions import Decided
from src.evidence.chance import chance_of
from src.metrics import sigmoid


def rows(prob, label, group):
    n = len(prob)
    return Decided(
        item_id=np.array([str(k) for k in range(n)], object), fold=np.zeros(n, np.int64),
        label=label, logit=np.zeros(n), group=group, domain=np.full(n, "", object),
        kind=np.full(n, "image", object), prob=prob, pred=(prob >= 0.5).astype(np.int64),
        threshold=np.full(n, 0.5),
    )  # fmt: skip


def test_an_overconfident_answer_becomes_the_frequency_that_it_was_drawn_with():
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 1.5, 6000)
    label = (rng.random(6000) < sigmoid(truth)).astype(np.int64)
    said = sigmoid(3 * truth + 1)  # three times too sure, and moved
    chance = chance_of(rows(said, label, np.arange(6000)))
    for logit in (-2.0, 0.0, 1.0):
        assert chance.of(float(sigmoid(np.array([3 * logit + 1]))[0])) == pytest.approx(
            float(sigmoid(np.array([logit]))[0]), abs=0.03
        )
    assert chance.error < 0.03
    assert chance.share == label.mean()


def test_an_answer_that_tells_nothing_becomes_the_share_of_fakes_and_ends_stay_within():
    rng = np.random.default_rng(1)
    label = (rng.random(4000) < 0.8).astype(np.int64)
    chance = chance_of(rows(rng.random(4000), label, np.arange(4000) // 4))
    assert chance.of(0.99) == pytest.approx(0.8, abs=0.05)
    assert 0 < chance.of(0.0) <= chance.of(1.0) < 1
