import warnings

import numpy as np
import pytest

from src.ensemble.rule import VOTING, vote
from src.ensemble.search import INCUMBENT, STRATEGIES, Search, ladder
from src.errors import UserError
from src.metrics import macro_f1, sigmoid
from src.thresholds import best_threshold

RNG = np.random.default_rng(0)
LABEL = RNG.integers(0, 2, 400)
# One good member, one weak, one that is noise.
LOGITS = (2 * LABEL - 1)[:, None] * [2.0, 0.5, 0.0] + RNG.normal(size=(400, 3)) + 0.4
QUICK = Search(trials=25, seed=1)


def fit(name, label=LABEL, logits=LOGITS, search=QUICK):
    return STRATEGIES.get(name).fit(label, logits, search)


def score(rule, label=LABEL, logits=LOGITS):
    return macro_f1(label, vote(rule, logits).pred)


def test_the_ladders_go_from_simple_to_complex():
    assert ladder(3)[0] == INCUMBENT
    assert ladder(1) == [INCUMBENT, "mean", "mean-plug-in"]
    assert ladder(3, "hard") == ["majority@0.5", "majority", "weighted-majority"]
    assert ladder(1, "hard") == ["majority@0.5", "majority"]
    assert ladder(3, names=["stack", INCUMBENT]) == [INCUMBENT, "stack"]
    rungs = [STRATEGIES.get(name).rung for name in ladder(20)]
    assert rungs == sorted(rungs)
    assert {STRATEGIES.get(name).voting for name in STRATEGIES} == set(VOTING)


def test_a_ladder_refuses_what_does_not_fit():
    with pytest.raises(UserError, match="unknown strategy 'stak'; did you mean 'stack'"):
        ladder(3, names=["stak"])
    with pytest.raises(UserError, match="strategy 'stack' votes stack and wants 2 or more"):
        ladder(1, names=["stack"])
    with pytest.raises(UserError, match="--voting is hard"):
        ladder(3, "hard", ["mean"])
    with pytest.raises(UserError, match=r"no strategy votes 'stack' with 1 member"):
        ladder(1, "stack")


def test_the_incumbent_is_the_mean_at_a_half():
    rule = fit(INCUMBENT)
    assert np.array_equal(vote(rule, LOGITS).pred, sigmoid(LOGITS).mean(axis=1) >= 0.5)


def test_mean_has_the_exact_threshold():
    assert score(fit("mean")) == best_threshold(LABEL, vote(fit(INCUMBENT), LOGITS).prob)[1]


def test_majority_lets_members_decide_at_their_own_thresholds():
    want = [best_threshold(LABEL, sigmoid(logit))[0] for logit in LOGITS.T]
    assert fit("majority").thresholds.tolist() == want


@pytest.mark.parametrize("name", [n for n in ladder(3) if STRATEGIES.get(n).rung >= 7])
def test_searches_gain_in_sample_and_favour_the_good_member(name):
    rule = fit(name)
    if not VOTING.get(rule.voting).free:
        assert rule.weights.sum() == pytest.approx(1)
        assert (rule.weights >= 0).all()
    assert rule.weights.argmax() == 0
    assert score(rule) > score(fit("majority" if rule.voting == "hard" else "mean"))


@pytest.mark.parametrize("name", STRATEGIES.names())
def test_what_a_strategy_says_in_sample_is_the_best_cut_of_its_votes(name):
    rule = fit(name)
    if rule.voting == "hard" or name == INCUMBENT or name.endswith("mean-plug-in"):
        return
    assert score(rule) == best_threshold(LABEL, vote(rule, LOGITS).prob)[1]


@pytest.mark.parametrize("name", [n for n in STRATEGIES if "bagged" not in n])
def test_order_of_rows_does_not_matter(name):
    rows = RNG.permutation(400)
    want, got = fit(name), fit(name, LABEL[rows], LOGITS[rows])
    assert got.weights == pytest.approx(want.weights, abs=1e-4)
    assert got.thresholds == pytest.approx(want.thresholds, abs=1e-12)
    assert got.threshold == pytest.approx(want.threshold, abs=1e-4)


@pytest.mark.parametrize("name", [n for n in STRATEGIES if not STRATEGIES.get(n).sampler])
def test_order_of_members_does_not_matter(name):
    columns = [2, 0, 1]
    if "bagged" in name:
        return  # it draws members by place
    want, got = fit(name), fit(name, logits=LOGITS[:, columns])
    assert got.weights == pytest.approx(want.weights[columns], abs=1e-4)
    assert got.thresholds == pytest.approx(want.thresholds[columns])
    assert got.threshold == pytest.approx(want.threshold, abs=1e-4)


def test_equal_members_keep_equal_weights():
    same = np.repeat(LOGITS[:, :1], 3, axis=1)
    assert fit("tpe", logits=same).weights == pytest.approx(np.full(3, 1 / 3))


def test_one_trial_is_the_equal_weights():
    assert fit("tpe", search=Search(trials=1)).weights == pytest.approx(np.full(3, 1 / 3))


def test_seed_and_trials_count():
    calls = []
    first = fit("weighted-majority", search=Search(20, 5, lambda: calls.append(1)))
    assert len(calls) == 20
    assert np.array_equal(first.weights, fit("weighted-majority", search=Search(20, 5)).weights)
    other = fit("weighted-majority", search=Search(20, 6))
    assert not np.array_equal(first.weights, other.weights)


def test_a_search_says_nothing(capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit("tpe")
    assert capfd.readouterr() == ("", "")
