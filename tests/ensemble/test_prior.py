"""Label shift: estimates against shifts that were made, thresholds against brute force."""

import dataclasses

import numpy as np
import pytest
from sklearn.metrics import f1_score

from src.ensemble.prior import correct, parse_prior
from src.ensemble.rule import Rule, vote
from src.errors import UserError
from src.metrics import sigmoid

RNG = np.random.default_rng(7)
RULE = Rule("soft", np.array([0.5, 0.5]), np.full(2, 0.5), 0.5)


def rows(n, share):
    label = (RNG.random(n) < share).astype(np.int64)
    return label, 1.5 * (2 * label - 1)[:, None] + 1.5 * RNG.normal(size=(n, 2))


LABEL, LOGITS = rows(20_000, 0.5)


@pytest.mark.parametrize("method", ["em", "bbse"])
@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.85])
def test_the_share_of_fakes_is_found_again(method, share):
    _, test_logits = rows(20_000, share)
    found = correct(RULE, LABEL, LOGITS, test_logits, method)
    assert found.test == pytest.approx(share, abs=0.02)
    assert found.train == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("share", [0.05, 0.2, 0.8])
def test_the_moved_threshold_scores_better_on_shifted_rows(share):
    test_label, test_logits = rows(20_000, share)
    moved = correct(RULE, LABEL, LOGITS, test_logits, "em").rule
    scores = [
        f1_score(test_label, vote(rule, test_logits).pred, average="macro")
        for rule in (RULE, moved)
    ]
    assert scores[1] > scores[0] + 0.005


def test_a_given_share_gives_the_best_threshold_of_weighted_rows():
    label, logits = LABEL[:200], LOGITS[:200]
    found = correct(RULE, label, logits, logits, 0.2)
    assert (found.test, found.method) == (0.2, "given")
    prob = sigmoid(logits).mean(axis=1)
    weight = np.where(label == 1, 0.2 / label.mean(), 0.8 / (1 - label.mean()))

    def score(cut):
        return f1_score(label, prob >= cut, average="macro", sample_weight=weight)

    best = max(score(cut) for cut in np.append(prob, 2.0))
    assert score(found.rule.threshold) == pytest.approx(best)


def test_the_share_of_the_training_rows_is_the_exact_threshold_again():
    from src.thresholds import best_threshold, best_threshold_at

    prob = sigmoid(LOGITS).mean(axis=1)
    same = best_threshold_at(LABEL, prob, LABEL.mean())
    assert same == pytest.approx(best_threshold(LABEL, prob))


def test_what_cannot_be_corrected_is_refused():
    hard = dataclasses.replace(RULE, voting="hard")
    with pytest.raises(UserError, match="hard voting"):
        correct(hard, LABEL, LOGITS, LOGITS, "em")
    by = dataclasses.replace(RULE, by="kind", cuts={"video": 0.3})
    with pytest.raises(UserError, match="thresholds by kind"):
        correct(by, LABEL, LOGITS, LOGITS, 0.3)
    with pytest.raises(UserError, match="tells the classes apart too little"):
        correct(RULE, LABEL, RNG.normal(size=LOGITS.shape), LOGITS, "bbse")


@pytest.mark.parametrize("text", ["0", "1", "nan", "EM", "", "1.5"])
def test_parse_prior_refuses(text):
    with pytest.raises(UserError, match="want em, bbse or a share"):
        parse_prior(text)
    assert parse_prior("0.3") == 0.3
    assert parse_prior("bbse") == "bbse"
