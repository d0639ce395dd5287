"""DeLong's test against a published example, its definition, and resampling."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from src.delong import delong, placements
from src.metrics import auc

# Albumin, total protein, K-G score and outcome of 43 patients: the data of DeLong, DeLong &
# Clarke-Pearson 1988 as far as they are complete, as printed in SAS/STAT's User's Guide, the
# LOGISTIC procedure, example "Comparing Receiver Operating Characteristic Curves".
PATIENTS = """
3.0 5.8 10 0  3.2 6.3 5 1  3.9 6.8 3 1  2.8 4.8 6 0  3.2 5.8 3 1  0.9 4.0 5 0  2.5 5.7 8 0
1.6 5.6 5 1  3.8 5.7 5 1  3.7 6.7 6 1  3.2 5.4 4 1  3.8 6.6 6 1  4.1 6.6 5 1  3.6 5.7 5 1
4.3 7.0 4 1  3.6 6.7 4 0  2.3 4.4 6 1  4.2 7.6 4 0  4.0 6.6 6 0  3.5 5.8 6 1  3.8 6.8 7 1
3.0 4.7 8 0  4.5 7.4 5 1  3.7 7.4 5 1  3.1 6.6 6 1  4.1 8.2 6 1  4.3 7.0 5 1  4.3 6.5 4 1
3.2 5.1 5 1  2.6 4.7 6 1  3.3 6.8 6 0  1.7 4.0 7 0  3.7 6.1 5 1  3.3 6.3 7 1  4.2 7.7 6 1
3.5 6.2 5 1  2.9 5.7 9 0  2.1 4.8 7 1  2.8 6.2 8 0  4.0 7.0 7 1  3.3 5.7 6 1  3.7 6.9 5 1
3.6 6.6 5 1"""


def test_the_published_example():
    """Estimates, errors, limits and p are those that SAS/STAT prints, to its four digits."""
    albumin, protein, kg, label = np.array(PATIENTS.split(), float).reshape(-1, 4).T
    alone = np.arange(label.size)
    found = delong(label, albumin, -kg, alone)
    printed = [0.0108, 0.0953, -0.1761, 0.1976, 0.9102]
    assert [found.gain, *found[2:]] == pytest.approx(printed, abs=5e-5)
    found = delong(label, protein, -kg, alone)
    printed = [-0.0780, 0.1046, -0.2830, 0.1271, 0.4561]
    assert [found.gain, *found[2:]] == pytest.approx(printed, abs=5e-5)
    found = delong(label, albumin, np.zeros(label.size), alone)  # a constant has no variance
    assert (found.gain + 0.5, found.error) == pytest.approx((0.7366, 0.0927), abs=5e-5)


def by_definition(label, one, other, group):
    """Obuchowski 1997 in plain loops: sums of each group's components, and their covariances."""
    fakes, reals = np.flatnonzero(label == 1), np.flatnonzero(label == 0)

    def components(score):
        above = (score[fakes][:, None] > score[reals]) + 0.5 * (
            score[fakes][:, None] == score[reals]
        )
        area = above.mean()
        v10, v01 = (
            dict(zip(fakes, above.mean(1), strict=True)),
            dict(zip(reals, above.mean(0), strict=True)),
        )
        names = sorted(set(group))
        x = np.array([sum(v10[i] - area for i in fakes if group[i] == g) for g in names])
        y = np.array([sum(v01[i] - area for i in reals if group[i] == g) for g in names])
        return area, x, y

    m, n = len(fakes), len(reals)
    i10, i01, i = len(set(group[fakes])), len(set(group[reals])), len(set(group))
    first, second = components(one), components(other)

    def cov(a, b):
        s10 = i10 / ((i10 - 1) * m) * (a[1] @ b[1])
        s01 = i01 / ((i01 - 1) * n) * (a[2] @ b[2])
        s11 = i / (i - 1) * (a[1] @ b[2] + b[1] @ a[2])
        return s10 / m + s01 / n + s11 / (m * n)

    variance = cov(first, first) + cov(second, second) - 2 * cov(first, second)
    return first[0] - second[0], variance


@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.integers(0, 4), st.integers(0, 4), st.integers(0, 5)),
        min_size=4, max_size=30,
    )
)  # fmt: skip
def test_it_is_the_definition_with_ties_and_groups(rows):
    label, one, other, group = np.array(rows).T
    found = delong(label, one, other, group)
    if len(set(label)) < 2:
        assert math.isnan(found.gain)
        assert found.why in ("only fakes", "only reals")
        return
    assert found.gain == pytest.approx(auc(label, one) - auc(label, other), abs=1e-12)
    if min(len(set(group[label == k])) for k in (0, 1)) < 2:
        assert found.why.endswith("are one group")
        return
    gain, variance = by_definition(label, one, other, group)
    assert found.gain == pytest.approx(gain, abs=1e-12)
    if found.why:
        assert variance <= 1e-12
        assert math.isnan(found.p)
    else:
        assert found.error**2 == pytest.approx(variance, abs=1e-12)
        assert found.p == pytest.approx(math.erfc(abs(gain / math.sqrt(2 * variance))), abs=1e-9)
    turned = delong(label, other, one, group)
    assert (turned.gain, turned.error) == pytest.approx(
        (-found.gain, found.error), abs=1e-12, nan_ok=True
    )


def test_equal_orders_and_equal_areas_of_one_are_not_tested():
    label = np.array([0, 0, 0, 1, 1, 1])
    score, alone = np.array([1.0, 4, 2, 3, 5, 6]), np.arange(6)
    for one, other in ((score, np.exp(score)), (label, label + 2.0), (label, -label)):
        found = delong(label, one, other, alone)
        assert math.isnan(found.p)
        assert "no variance" in found.why
    assert delong([0, 0, 1], [1, 2, 3], [3, 2, 1], [0, 1, 2]).why == "all fakes are one group"


def test_a_worse_score_is_not_turned_round():
    label = np.arange(40) % 2
    score = np.random.default_rng(0).normal(size=40) - label
    found = delong(label, score, np.zeros(40), np.arange(40))
    assert found.gain == pytest.approx(roc_auc_score(label, score) - 0.5)
    assert found.gain < 0


def test_groups_are_seen_by_it_as_by_drawing_them():
    """Frames of a video say the same: as sure as 60 videos are, not as 480 frames would be."""
    rng = np.random.default_rng(3)
    group = np.repeat(np.arange(60), 8)
    label = (group % 2).astype(int)
    one, other = (label + rng.normal(size=60)[group] + 0.3 * rng.normal(size=480) for _ in range(2))
    found = delong(label, one, other, group)
    rows = [np.flatnonzero(group == g) for g in range(60)]
    draws = []
    for _ in range(400):
        drawn = [g for k in (0, 1) for g in rng.choice(np.arange(k, 60, 2), 30)]
        some = np.concatenate([rows[g] for g in drawn])
        draws.append(auc(label[some], one[some]) - auc(label[some], other[some]))
    assert found.error == pytest.approx(np.std(draws), rel=0.15)
    assert delong(label, one, other, np.arange(480)).error < 0.5 * found.error


def test_placements_average_to_the_area():
    label = np.array([0, 1, 0, 1, 1, 0])
    score = [0.1, 0.1, 0.4, 0.35, 0.9, 0.9]
    found = placements(label, score)
    assert found.tolist() == pytest.approx([5 / 6, 1 / 6, 1 / 3, 1 / 3, 5 / 6, 1 / 6])
