"""Pooling of frames against hand-worked cases and SciPy."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from scipy.stats import trim_mean

from src.ensemble.pooling import POOLING, pool_frames, pool_table
from src.ensemble.vote import pool_views
from src.errors import UserError

FRAMES = np.random.default_rng(0).normal(0.0, 2.0, 20)
ORACLES = {
    "mean_prob": lambda x: logit(expit(x).mean()),
    "mean_logit": np.mean,
    "top_k_mean": lambda x: np.sort(x)[::-1][:5].mean(),
    "top_k_median": lambda x: np.median(sorted(x, reverse=True)[:5]),
    "trimmed_mean": lambda x: trim_mean(x, 0.2),
    "max": max,
    "median": np.median,
}


def test_every_pooling_has_an_oracle():
    assert sorted(POOLING) == sorted(ORACLES)


@pytest.mark.parametrize("name", sorted(ORACLES))
def test_poolings_equal_their_oracles(name):
    pool = POOLING.get(name)
    assert pool(FRAMES) == pytest.approx(ORACLES[name](FRAMES), abs=1e-12)
    assert pool(FRAMES[::-1].copy()) == pytest.approx(pool(FRAMES), abs=1e-12)
    assert pool(np.array([1.0, 1.0, 1.0])) == pytest.approx(1.0, abs=1e-12)
    low, high = pool(np.array([-900.0, -800.0])), pool(np.array([800.0, 900.0]))
    assert -900 <= low <= -800
    assert 800 <= high <= 900


def test_the_median_of_the_four_highest_of_16_is_not_moved_by_one_of_them():
    frames = np.array([*np.linspace(-3, -1, 12), 0.5, 1.0, 2.0, 90.0])
    assert POOLING.get("top_k_median")(frames) == 1.5  # between 1.0 and 2.0
    assert POOLING.get("top_k_mean")(frames) == 23.375


@pytest.mark.parametrize("name", sorted(ORACLES))
def test_an_item_of_one_frame_keeps_its_logit_bit_for_bit(name):
    logits = np.array([0.1 + 0.2, *FRAMES[:3], -1e-9])
    pooled = pool_frames(logits, np.array([0, 1, 1, 1, 3]), 4, name)
    assert pooled[0] == 0.1 + 0.2
    assert pooled[3] == -1e-9
    assert np.isnan(pooled[2])
    assert pooled[1] == POOLING.get(name)(FRAMES[:3])


def test_views_of_a_frame_are_averaged_before_frames_are_pooled():
    table = pd.DataFrame(
        [("v", "f00", 0.0), ("v", "f00+flip", 4.0), ("v", "f01", 3.0), ("v", "f01+flip", 3.0),
         ("i", "full", 1.0), ("i", "full+flip", 2.0)],
        columns=["item_id", "view", "logit"],
    )  # fmt: skip
    assert pool_table(table, "max").to_dict() == {"i": 1.5, "v": 3.0}
    assert pool_table(table, "mean_logit").to_dict() == {"i": 1.5, "v": 2.5}
    views = table.assign(fold=0)
    views = pd.concat([views, views.assign(fold=1, logit=views["logit"] + 1)], ignore_index=True)
    assert pool_views(views, "max").to_dict() == {"i": 2.0, "v": 3.5}


def test_an_unknown_pooling():
    with pytest.raises(UserError, match="median"):
        pool_frames(FRAMES, np.zeros(20, np.int64), 1, "medain")
