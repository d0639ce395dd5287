"""P(fake) as a frequency, and the risk at which verdicts are sure, on rows whose truth is known."""

import numpy as np
import pytest

from src.ensemble.predictions import Decided
from src.ensemble.shift.risk import NEVER, RISK
from src.evidence.chance import chance_of
from src.evidence.risk import Grounds
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


def sides(wrong_real, wrong_fake, n=400):
    """Return rows of n verdicts a word, of which shares are wrong, evenly at all distances."""
    far = np.linspace(0.001, 0.499, n)
    prob = np.concatenate([0.5 - far, 0.5 + far])
    wrong = np.concatenate([
        np.diff(np.floor(share * np.arange(n + 1))) > 0 for share in (wrong_real, wrong_fake)
    ])  # fmt: skip
    label = np.where(wrong, prob < 0.5, prob >= 0.5).astype(np.int64)
    return Grounds(rows(prob, label, np.arange(2 * n)), 0.5, [])


@pytest.mark.parametrize(
    ("real", "fake", "risk", "both"),
    [
        (0.0, 0.0, (RISK, RISK), True),
        (0.0, 0.05, (0.06, 0.2), True),
        (0.0, 0.4, (RISK, RISK), False),
    ],
)
def test_the_risk_is_the_lowest_at_which_both_words_can_be_sure_else_one(real, fake, risk, both):
    band = sides(real, fake).band(None).band
    assert risk[0] <= band.risk <= risk[1]
    assert band.real < NEVER
    assert (band.fake < NEVER) == both
