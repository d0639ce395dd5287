"""Scores of pixels: held against scikit-learn and against loops over every pixel and cut."""

import numpy as np
import pytest
from sklearn.metrics import f1_score, jaccard_score, roc_auc_score

from src.ensemble.predictions import Predictions
from src.reporting.localisation.pixel_scores import (
    BINS,
    HALVES,
    OTHERS,
    OWN,
    PixelRows,
    best_cut,
    codes_of,
    count,
    cuts_of_others,
    image_aucs,
    pooled_auc,
    score_pixels,
    value_of,
)


def rows_of(seed: int, n: int = 30, side: int = 6, folds: int = 3) -> tuple[PixelRows, np.ndarray]:
    """Maps that know a little of the truth, with ties and negative values; the maps too."""
    rng = np.random.default_rng(seed)
    label = np.arange(n) % 3 > 0
    truth = (rng.random((n, side, side)) < rng.random((n, 1, 1))) & label[:, None, None]
    maps = np.round(rng.normal(truth * 0.8, 1.0) * 8) / 8
    maps = maps.astype(np.float16)
    items = Predictions(
        item_id=np.array([f"i{k}" for k in range(n)], object), label=label.astype(np.int64),
        group=np.arange(n) // 2, fold=np.arange(n) % folds, domain=np.array([""] * n, object),
        kind=np.array(["image"] * n, object), logit=np.empty((n, 0)),
    )  # fmt: skip
    return PixelRows(items, codes_of(maps), truth.reshape(n, -1)), maps.reshape(n, -1)


def test_codes_keep_the_order_of_all_numbers():
    every = np.arange(BINS, dtype=np.uint16).view(np.float16)
    values = np.sort(every[np.isfinite(every)])
    codes = codes_of(values[:, None])[:, 0]
    assert (np.diff(codes.astype(int)) >= 0).all()
    assert ((np.diff(codes.astype(int)) == 0) == (np.diff(values) == 0)).all()
    assert all(value_of(int(code)) == value for code, value in zip(codes, values, strict=True))


@pytest.mark.parametrize("seed", [0, 1])
def test_pooled_and_mean_auc_are_scikit_learns(seed):
    rows, maps = rows_of(seed)
    want = roc_auc_score(rows.truth.ravel(), maps.ravel())
    assert pooled_auc(count(rows)) == pytest.approx(want, abs=1e-12)
    both = [0 < own.mean() < 1 for own in rows.truth]
    each = [roc_auc_score(rows.truth[k], maps[k]) for k in np.flatnonzero(both)]
    assert image_aucs(rows)[both] == pytest.approx(each, abs=1e-12)
    scores = score_pixels(rows, np.zeros(len(maps), np.uint16))
    assert scores["image_auc"].value == pytest.approx(np.mean(each), abs=1e-12)
    assert scores["pixel_auc"].value == pytest.approx(want, abs=1e-12)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_best_cut_is_that_of_a_search_through_all(seed):
    rows, maps = rows_of(seed)
    found = [
        (jaccard_score(rows.truth.ravel(), maps.ravel() >= cut), cut) for cut in set(maps.ravel())
    ]
    code = best_cut(count(rows))
    called = rows.codes >= code
    assert jaccard_score(rows.truth.ravel(), called.ravel()) == pytest.approx(max(found)[0])
    # It lies midway between the two values that it parts.
    low, high = maps.ravel()[~called.ravel()].max(), maps.ravel()[called.ravel()].min()
    assert value_of(code) == (low + high) / 2


@pytest.mark.parametrize(
    ("maps", "truth", "cut"),
    [
        ([0.1, 0.2, 0.3, 0.4], [1, 0, 1, 1], 0.1),  # all are called so
        ([-2, -1, 1, 3], [0, 0, 1, 1], 0),
        ([-8, -4, -2], [0, 1, 1], -6),
        ([1, 1 + 2**-10], [0, 1], 1 + 2**-10),  # no number between them
        ([-np.inf, 5], [0, 1], 5),
        ([-np.inf, np.inf], [0, 1], np.inf),
        ([-65504, 65504], [0, 1], 0),
        ([1, 2], [0, 0], 1),
    ],
)
def test_the_cut_is_a_number_between_what_it_parts(maps, truth, cut):
    given = np.array(maps, np.float16)
    counts = np.zeros((2, BINS), np.int64)
    for code, so in zip(codes_of(given[:, None])[:, 0], truth, strict=True):
        counts[so, code] += 1
    assert value_of(best_cut(counts)) == np.float16(cut)


def test_cuts_come_from_other_folds_and_scores_stand_there():
    rows, _ = rows_of(3)
    cuts, whose = cuts_of_others(rows)
    assert whose == OTHERS
    for fold in range(3):
        held = rows.items.fold == fold
        assert set(cuts[held]) == {best_cut(count(rows.take(~held)))}
    # A fold's own pixels have no say in its cut.
    turned = PixelRows(
        rows.items, np.where((rows.items.fold == 0)[:, None], 1, rows.codes), rows.truth
    )
    assert (
        cuts_of_others(turned)[0][rows.items.fold == 0].tolist()
        == cuts[rows.items.fold == 0].tolist()
    )
    said, scores = rows.codes >= cuts[:, None], score_pixels(rows, cuts)
    assert scores["iou"].value == pytest.approx(jaccard_score(rows.truth.ravel(), said.ravel()))
    assert scores["f1"].value == pytest.approx(f1_score(rows.truth.ravel(), said.ravel()))
    shown = rows.truth.any(1)
    each = [jaccard_score(t, s) for t, s in zip(rows.truth[shown], said[shown], strict=True)]
    assert scores["image_iou"].value == pytest.approx(np.mean(each))
    real = rows.items.label == 0
    assert scores["false_alarms"].value == pytest.approx(said[real].mean())
    for score in scores.values():
        assert score.low <= score.value <= score.high


def test_of_one_fold_halves_of_the_groups_choose_for_each_other():
    rows, _ = rows_of(4, folds=1)
    cuts, whose = cuts_of_others(rows)
    assert whose == HALVES
    by_group = {int(g): set(cuts[rows.items.group == g]) for g in rows.items.group}
    assert all(len(found) == 1 for found in by_group.values())
    halves = {min(cut): np.isin(rows.items.group, [g for g, c in by_group.items() if c == cut])
              for cut in by_group.values()}  # fmt: skip
    assert len(halves) == 2
    for cut, half in halves.items():
        assert cut == best_cut(count(rows.take(~half)))
    alone = rows.take(rows.items.group == 0)
    assert cuts_of_others(alone)[1] == OWN


def test_nothing_to_tell_is_undefined_and_says_so():
    rows, _ = rows_of(5)
    reals = rows.take(rows.items.label == 0)
    scores = score_pixels(reals, np.full(len(reals.items), 0, np.uint16))
    assert np.isnan(scores["pixel_auc"].value)
    assert scores["pixel_auc"].why
    assert scores["false_alarms"].value == 1.0
    assert scores["iou"].value == 0.0
    fakes = rows.take(rows.items.label == 1)
    assert np.isnan(
        score_pixels(fakes, np.zeros(len(fakes.items), np.uint16))["false_alarms"].value
    )
