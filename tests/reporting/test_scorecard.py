"""The metric table: every value against scikit-learn, intervals, what is undefined and why."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn import metrics as sk

from src.ensemble.predictions import Decided
from src.metrics import DECISIONS, METRICS, eer_cut, metric, roc, sigmoid
from src.reporting.evaluated import (
    clips_of,
    decide_by_others,
    levels_of,
    parts,
    pool_groups,
)
from src.reporting.scorecard import Scorer, score_rows

EXACT = 1e-9


def make_rows(n=240, seed=0, groups=60, threshold=0.45, folds=3):
    rng = np.random.default_rng(seed)
    group = np.arange(n) % groups
    label = (group % 5 < 2).astype(np.int64)
    logit = rng.normal(size=n) * 1.5 + 2 * label - 1
    prob = sigmoid(logit)
    attack = np.array(["print", "replay", ""], dtype=object)[group % 3]
    return Decided(
        item_id=np.array([f"{g}/x.png" for g in group], dtype=object),
        label=label,
        prob=prob,
        logit=logit,
        threshold=np.full(n, threshold),
        pred=(prob >= threshold).astype(np.int64),
        group=group,
        fold=group % folds,
        domain=attack,
        kind=np.full(n, "image", dtype=object),
    )


def test_every_metric_equals_its_oracle():
    rows = decide_by_others(make_rows())
    found = {key: score.value for key, score in score_rows(rows).scores.items()}
    y, pred, p = rows.label, rows.pred, rows.prob
    fpr, tpr, _ = sk.roc_curve(y, p, drop_intermediate=False)
    real_fpr, real_tpr, _ = sk.roc_curve(1 - y, -p, drop_intermediate=False)
    fakes = {kind: y[rows.domain == kind] == 1 for kind in ("print", "replay", "")}
    missed = {k: 1 - pred[rows.domain == k][fake].mean() for k, fake in fakes.items()}
    bpcer = pred[y == 0].mean()
    want = {
        "macro_f1": sk.f1_score(y, pred, average="macro"),
        "f1_real": sk.f1_score(y, pred, pos_label=0),
        "f1_fake": sk.f1_score(y, pred),
        "precision_real": sk.precision_score(y, pred, pos_label=0),
        "precision_fake": sk.precision_score(y, pred),
        "recall_real": sk.recall_score(y, pred, pos_label=0),
        "recall_fake": sk.recall_score(y, pred),
        "accuracy": sk.accuracy_score(y, pred),
        "balanced_accuracy": sk.balanced_accuracy_score(y, pred),
        "auc": sk.roc_auc_score(y, p),
        "ap": sk.average_precision_score(y, p),
        "apcer": max(missed.values()),
        "apcer[print]": missed["print"],
        "apcer[replay]": missed["replay"],
        "apcer[(none)]": missed[""],
        "bpcer": bpcer,
        "acer": (max(missed.values()) + bpcer) / 2,
        "tpr@fpr=1%": tpr[fpr <= 0.01][-1],
        "tpr@fpr=0.1%": tpr[fpr <= 0.001][-1],
        "tnr@fnr=1%": real_tpr[real_fpr <= 0.01][-1],
        "mcc": sk.matthews_corrcoef(y, pred),
        "log_loss": sk.log_loss(y, p),
        "brier": sk.brier_score_loss(y, p),
        "hter": 1 - sk.balanced_accuracy_score(y, rows.dev),
        "hter_test_eer": 1 - sk.balanced_accuracy_score(y, rows.logit >= eer_cut(roc(y, p_cut(p)))),
    }
    assert set(METRICS) - set(want) == {"eer", "ece"}  # held against theirs in test_metrics
    assert {key: found[key] for key in want} == pytest.approx(want, abs=EXACT)


def p_cut(prob):
    return np.log(prob) - np.log1p(-prob)


def test_hter_cuts_come_from_the_other_folds():
    rows = make_rows()
    decided = decide_by_others(rows)
    assert decided.dev is not None
    for fold in range(3):
        held = rows.fold == fold
        cut = eer_cut(roc(rows.label[~held], rows.logit[~held]))
        assert (decided.dev[held] == (rows.logit[held] >= cut)).all()
    moved = replace(rows, logit=np.where(rows.fold == 0, rows.logit + 9, rows.logit))
    again = decide_by_others(moved)
    assert again.dev is not None
    held = rows.fold == 0
    assert again.dev[held].all()  # its own logits do not move its cut


def test_hter_of_a_chosen_fold_still_uses_the_rest():
    rows = make_rows()
    chosen, whole = levels_of(rows, folds=[1])["item"], decide_by_others(rows)
    assert chosen.dev is not None
    assert whole.dev is not None
    assert set(chosen.fold) == {1}
    assert (chosen.dev == whole.dev[rows.fold == 1]).all()


def test_without_development_rows_hter_says_so():
    one = make_rows(folds=1)
    score = score_rows(decide_by_others(one)).scores["hter"]
    assert np.isnan(score.value)
    assert "no development rows" in score.why
    other = make_rows(seed=4)
    carried = decide_by_others(one, other)
    assert carried.dev is not None
    assert (carried.dev == (one.logit >= eer_cut(roc(other.label, other.logit)))).all()
    only_fakes = other.take(other.label == 1)
    assert decide_by_others(one, only_fakes).dev is None


def test_pooling_takes_the_mean_prob_of_a_group_and_label():
    rows = make_rows()
    pooled = pool_groups(rows)
    assert len(pooled) == 60
    place = int(np.flatnonzero(pooled.group == 7)[0])
    want = rows.prob[rows.group == 7].mean()
    assert pooled.prob[place] == pytest.approx(want, abs=EXACT)
    assert pooled.pred[place] == (want >= 0.45)
    assert sigmoid(pooled.logit) == pytest.approx(pooled.prob, abs=EXACT)


def test_pooling_keeps_labels_and_domains_of_one_group_apart_and_lone_items_exact():
    rows = make_rows(n=6, groups=6)
    groups = np.array([0, 0, 0, 0, 1, 1])
    both = replace(rows, item_id=rows.item_id[[0] * 6], group=groups,
                   label=np.array([0, 0, 1, 1, 0, 1]),
                   domain=np.array(["a", "a", "a", "b", "a", "a"], dtype=object),
                   fold=np.zeros(6, dtype=np.int64), logit=np.full(6, 40.0),
                   prob=np.full(6, 1.0))  # fmt: skip
    pooled = pool_groups(both)
    cells = sorted(zip(pooled.group, pooled.label, pooled.domain, strict=True))
    assert cells == [(0, 0, "a"), (0, 1, "a"), (0, 1, "b"), (1, 0, "a"), (1, 1, "a")]
    assert np.count_nonzero(pooled.logit == 40.0) == 4  # the pooled pair alone goes through probs


def test_a_clip_is_narrower_than_a_group_of_several_videos():
    ids = ["real/000/1.png", "real/000/2.png", "real/003/1.png", "fake/000_003/1.png",
           "fake/a_frame_01.jpg", "fake/a_frame02.jpg", "fake/b_frame1.jpg",
           "fake/x.jpg", "fake/y.jpg", "fake/z.jpg", "fake/v.mp4", "fake/w.mp4"]  # fmt: skip
    group = np.array([0] * 7 + [1, 1, 2, 3, 3])
    kind = np.array(["image"] * 10 + ["video"] * 2, dtype=object)
    rows = make_rows(n=12, groups=12)
    code = clips_of(replace(rows, item_id=np.array(ids, dtype=object), group=group, kind=kind))
    assert [code.tolist().index(c) for c in code] == [0, 0, 2, 3, 4, 4, 6, 7, 7, 9, 10, 11]


def test_no_group_level_where_every_item_is_alone():
    assert list(levels_of(make_rows(n=60, groups=60))) == ["item"]
    assert list(levels_of(make_rows())) == ["item", "group"]


def test_a_manipulation_stands_against_all_reals_where_it_has_none():
    rows = make_rows()
    domain = np.where(rows.label == 1, rows.domain, "")
    rows = replace(rows, domain=domain)
    found = {value: (mask, note) for value, mask, note in parts(rows, "manipulation")}
    assert sorted(found) == ["(none)", "print", "replay"]
    mask, note = found["print"]
    reals = int((rows.label == 0).sum())
    assert note == f"against all {reals} reals"
    assert set(domain[mask & (rows.label == 1)]) == {"print"}
    assert (mask & (rows.label == 0)).sum() == reals
    assert found["(none)"][1] == f"against its own {reals} reals"
    assert {value for value, _, _ in parts(rows, "domain")} == {"(none)", "print", "replay"}


@pytest.mark.parametrize(("label", "why"), [(0, "only reals"), (1, "only fakes")])
def test_one_class_leaves_what_it_can_say(label, why):
    rows = decide_by_others(make_rows())
    part = rows.take(rows.label == label)
    found = score_rows(part).scores
    kept = {key for key, score in found.items() if not np.isnan(score.value)}
    own = {0: {"f1_real", "precision_real", "recall_real", "bpcer"},
           1: {"f1_fake", "precision_fake", "recall_fake", "apcer", "apcer[print]",
               "apcer[replay]", "apcer[(none)]"}}[label]  # fmt: skip
    assert kept == own | {"accuracy", "log_loss", "brier", "ece"}
    assert {score.why for score in found.values() if np.isnan(score.value)} == {why}


def test_one_item_has_no_scores():
    found = score_rows(make_rows().take(np.arange(1)))
    assert found.items == 1
    assert all(np.isnan(s.value) and s.why == "one item only" for s in found.scores.values())


def test_no_interval_below_ten_groups():
    rows = decide_by_others(make_rows(groups=9, n=240))
    card = score_rows(rows)
    assert card.notes == ["no interval: 9 groups are fewer than 10"]
    assert all(np.isnan(score.low) for score in card.scores.values())


def test_a_limit_too_strict_for_the_reals_is_marked():
    found = score_rows(decide_by_others(make_rows())).scores
    assert "144 reals" in found["tpr@fpr=0.1%"].why
    assert found["tpr@fpr=1%"].why == ""
    assert found["tnr@fnr=1%"].why.startswith("96 fakes")


def test_intervals_agree_with_drawing_groups_one_by_one():
    rows = decide_by_others(make_rows(n=300, groups=100))
    found = score_rows(rows, seed=1).scores
    rng = np.random.default_rng(5)
    rows_of = [np.flatnonzero(rows.group == g) for g in range(100)]
    pure = [[g for g in range(100) if rows.label[rows_of[g][0]] == k] for k in (0, 1)]
    draws = []
    for _ in range(1000):
        groups = [g for some in pure for g in rng.choice(some, len(some))]
        draws.append(Scorer(rows.take(np.concatenate([rows_of[g] for g in groups])))())
    for key in ("macro_f1", "auc", "eer", "hter", "acer", "log_loss", "ap"):
        low, high = np.quantile([d[key] for d in draws], [0.025, 0.975])
        assert found[key].low == pytest.approx(low, abs=0.02), key
        assert found[key].high == pytest.approx(high, abs=0.02), key
        assert found[key].low <= found[key].value <= found[key].high, key


def test_a_metric_is_one_function_and_stands_in_the_table(monkeypatch):
    monkeypatch.setattr(METRICS, "_things", dict(METRICS._things))

    @metric("youden", DECISIONS)
    def youden(c):
        return c.tp / (c.tp + c.fn) - c.fp / (c.fp + c.tn)

    rows = make_rows()
    found = score_rows(rows).scores["youden"]
    want = sk.balanced_accuracy_score(rows.label, rows.pred, adjusted=True)
    assert found.value == pytest.approx(want)
    assert found.low < found.value < found.high


def test_weights_are_copies_of_rows():
    rows = decide_by_others(make_rows())
    copies = np.random.default_rng(2).integers(0, 4, len(rows))
    want = Scorer(rows.take(np.repeat(np.arange(len(rows)), copies)))()
    got = Scorer(rows)(copies)
    del want["hter_test_eer"], got["hter_test_eer"]  # its cut stays that of the rows themselves
    assert got == pytest.approx(want, abs=EXACT)
