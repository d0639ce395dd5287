"""Strategies: what each promises, greedy selection against a plain loop, calibration before any."""

import warnings

import numpy as np
import pytest

from src import paths
from src.artifacts.recipes import read_recipe, write_recipe
from src.ensemble.align import align
from src.ensemble.calibration import CALIBRATIONS
from src.ensemble.crossfit import cross_rules
from src.ensemble.predictions import fit_threshold
from src.ensemble.rule import VOTING, rule_of, vote
from src.ensemble.search import INCUMBENT, STRATEGIES, Search, calibrate, ladder
from src.ensemble.strategies import greedy_weights
from src.ensemble.tune import tune
from src.errors import UserError
from src.metrics import macro_f1, sigmoid
from src.thresholds import BINS, best_threshold
from tests.ensemble.synthetic import DATA, SCHEME, make_folds, make_oof

RNG = np.random.default_rng(0)
LABEL = RNG.integers(0, 2, 400)
# One good member, one weak, one that is noise.
LOGITS = (2 * LABEL - 1)[:, None] * [2.0, 0.5, 0.0] + RNG.normal(size=(400, 3)) + 0.4
FAR = (2 * LABEL - 1)[:, None] * [2.0, 0.5, 8.0] + RNG.normal(size=(400, 3)) * [1, 1, 9]
QUICK = Search(trials=15, seed=1)
# Multiples of 1/64: sums stay exact, so that both loops see the same ties.
SOME = RNG.integers(0, 2, 200)
PROBS = np.round(
    64 * np.clip(0.5 + (SOME - 0.5) * [[0.4], [0.3], [0.1]] + RNG.normal(size=(3, 200)) / 4, 0, 1)
) / 64  # fmt: skip
READY = [
    (method, name)
    for method in CALIBRATIONS
    for name in STRATEGIES
    if f"{method}-{name}" in set(STRATEGIES)
]


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


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ((3, None, ["stak"]), "unknown strategy 'stak'; did you mean 'stack'"),
        ((1, None, ["stack"]), "strategy 'stack' votes stack and wants 2 or more"),
        ((3, "hard", ["mean"]), "--voting is hard"),
        ((1, "stack"), r"no strategy votes 'stack' with 1 member"),
        ((1, "ranc"), r"unknown voting 'ranc'.*did you mean 'rank'"),
    ],
)
def test_a_ladder_refuses_what_does_not_fit(given, match):
    with pytest.raises(UserError, match=match):
        ladder(*given)


def test_the_incumbent_is_the_mean_at_a_half():
    assert np.array_equal(vote(fit(INCUMBENT), LOGITS).pred, sigmoid(LOGITS).mean(axis=1) >= 0.5)


def test_majority_lets_members_decide_at_their_own_thresholds():
    want = [fit_threshold(LABEL, logit)[0].threshold for logit in LOGITS.T]
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
def test_the_cut_is_the_best_and_order_does_not_matter(name):
    rule, found = fit(name), STRATEGIES.get(name)
    plain = rule.voting == "hard" or name == INCUMBENT or name.endswith("mean-plug-in")
    if not plain:
        assert score(rule) == fit_threshold(LABEL, LOGITS, rule)[1]
    if "bagged" in name:
        return  # it draws rows, and members by place
    rows, columns = RNG.permutation(400), [2, 0, 1]
    again = fit(name, LABEL[rows], LOGITS[rows])
    assert again.weights == pytest.approx(rule.weights, abs=1e-4)
    assert again.thresholds == pytest.approx(rule.thresholds, abs=1e-12)
    assert again.threshold == pytest.approx(rule.threshold, abs=1e-4)
    if not found.sampler:
        again = fit(name, logits=LOGITS[:, columns])
        assert again.weights == pytest.approx(rule.weights[columns], abs=1e-4)
        assert again.thresholds == pytest.approx(rule.thresholds[columns])
        assert again.threshold == pytest.approx(rule.threshold, abs=1e-4)


def test_equal_members_and_one_trial_keep_equal_weights():
    same = np.repeat(LOGITS[:, :1], 3, axis=1)
    assert fit("tpe", logits=same).weights == pytest.approx(np.full(3, 1 / 3))
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


def slow_greedy(label, probs, rounds):
    def best(prob):
        cuts = [*np.arange(BINS + 1) / BINS, 2.0]
        cuts = [c for c in cuts if c in {0.0, 2.0} or (np.abs(prob - c) < 1 / BINS).any()]
        return max(macro_f1(label, prob >= cut) for cut in cuts)

    picks, history = [], []
    for _ in range(rounds):
        scores = [best(probs[[*picks, m]].mean(axis=0)) for m in range(len(probs))]
        top = [m for m in range(len(probs)) if scores[m] >= max(scores) - 1e-12]
        inside = [m for m in top if m in picks]
        picks.append((inside or top)[0])
        history.append((scores[picks[-1]], list(picks)))
    ends = [best_threshold(label, probs[p].mean(axis=0))[1] for _, p in history]
    picks = next(p for s, (_, p) in zip(ends, history, strict=True) if s >= max(ends) - 1e-12)
    return np.bincount(picks, minlength=len(probs)) / len(picks)


@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_greedy_equals_a_plain_loop(rounds):
    found = greedy_weights(SOME, PROBS, rounds=rounds)
    assert found == pytest.approx(slow_greedy(SOME, PROBS, rounds))


def test_a_member_twice_shares_the_weight_of_the_first():
    weights = greedy_weights(SOME, np.concatenate([PROBS, PROBS[:1]]))
    assert weights[3] == 0
    assert weights[:3] == pytest.approx(greedy_weights(SOME, PROBS))


def test_bags_follow_the_seed():
    logits = np.concatenate([PROBS, PROBS + RNG.normal(size=(3, 200)) / 9]).T * 8 - 4
    first, same, other = (
        fit("greedy-bagged", SOME, logits, Search(seed=seed)).weights for seed in (1, 1, 2)
    )
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)
    assert first.sum() == pytest.approx(1)


@pytest.mark.parametrize(("method", "name"), READY)
def test_calibration_first_is_the_strategy_on_calibrated_logits(method, name):
    curves = [CALIBRATIONS.get(method)(LABEL, logit) for logit in FAR.T]
    rows = np.stack([c.logit(logit) for c, logit in zip(curves, FAR.T, strict=True)], axis=1)
    plain, rule = fit(name, logits=rows), fit(f"{method}-{name}", logits=FAR)
    assert rule.curves == tuple(curves)
    assert rule.weights.tolist() == plain.weights.tolist()
    assert rule.threshold == plain.threshold
    for got, want in zip(vote(rule, FAR), vote(plain, rows), strict=True):
        assert np.array_equal(got, want)


def test_every_strategy_that_scale_matters_to_has_one_after_each_calibration():
    plain = {name for _, name in READY}
    assert plain == {name for name in STRATEGIES if STRATEGIES.get(name).scale_matters}
    assert {"greedy", "tpe", "stack", "mean", "log-loss-weights"} < plain
    assert not plain & {"mean@0.5", "best-member", "rank-mean", "platt-mean"}
    assert len(READY) == 3 * len(plain)
    for method, name in READY:
        assert STRATEGIES.get(f"{method}-{name}").rung > STRATEGIES.get(name).rung


def test_a_member_far_out_of_scale_no_longer_drowns_the_others():
    drowned, mended = (
        score(fit(name, logits=FAR), logits=FAR) for name in ("logit-mean", "platt-logit-mean")
    )
    assert mended > drowned + 0.05


def test_a_ladder_is_calibrated_where_that_can_change_anything():
    assert calibrate(["mean@0.5", "best-member", "mean", "greedy"], "platt", 3) == [
        "mean@0.5", "best-member", "platt-mean", "platt-greedy"
    ]  # fmt: skip
    assert calibrate(["mean", "platt-mean"], "platt", 3) == ["platt-mean"]
    assert calibrate(ladder(1), "platt", 1) == ladder(1)
    with pytest.raises(UserError, match="unknown calibration 'plat'; did you mean 'platt'"):
        calibrate(["mean"], "plat", 3)


def test_curves_see_no_part_that_they_are_judged_on_and_the_recipe_keeps_them(artefact_root):
    folds = make_folds()
    make_oof(folds, "a", seed=1)
    make_oof(folds, "b", seed=2, shift=2.0)
    aligned = align(DATA, SCHEME)
    rules = cross_rules(STRATEGIES.get("platt-greedy"), aligned, aligned.fold, QUICK)
    assert sorted(rules) == [0, 1, 2]
    for fold, rule in rules.items():
        rest = aligned.take(aligned.fold != fold)
        fitted = (CALIBRATIONS.get("platt")(rest.label, logit) for logit in rest.logit.T)
        assert rule.curves == tuple(fitted)
    tuned = tune(aligned, names=["isotonic-greedy"], search=QUICK)
    path = paths.recipe_json(DATA, "r")
    write_recipe(path, tuned.recipe)
    recipe = read_recipe(path)
    assert [stage["name"] for stage in recipe.stages] == ["calibration", "voting", "threshold"]
    assert recipe.search["strategy"] == "isotonic-greedy"
    assert score(rule_of(recipe), aligned.label, aligned.logit) == recipe.scores["in_sample"]


@pytest.mark.parametrize("name", ["platt-stack", "platt-stack-free", "isotonic-stack-free"])
def test_members_flattened_to_constants_get_no_weight(name):
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 500)
    backwards = -label[:, None] + rng.normal(size=(500, 3))
    rule = fit(name, label, backwards)
    assert np.isfinite(rule.weights).all()
    assert np.abs(rule.weights).max() <= 1.0
    mixed = np.column_stack([backwards[:, 0], label + rng.normal(size=500)])
    assert fit(name, label, mixed).weights[0] == 0.0
