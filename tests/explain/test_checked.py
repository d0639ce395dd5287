"""The check: what is deleted, what a random draw is, which maps are withheld; and the colours."""

import json

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from src.explain import checked
from src.explain.checked import check_maps, elsewhere, prepared, verdict_on
from src.explain.hide import shuffled
from src.explain.maps import MAPS, logits_of
from src.explain.overlay import hottest, overlay
from tests.explain.corner import SIZE, CornerNet, classifier, noise, rough_corner
from tests.explain.test_maps import there


def test_a_net_that_looks_at_nothing_has_no_map_that_is_shown():
    model = classifier(CornerNet(scale=0.0, bias=-1.0))
    found = check_maps(model, "blind", noise(), there(MAPS))
    codes = {one.kind: one.withheld for one in found[0]}
    assert codes["occlusion"] == "flat"
    assert codes["rollout"] == "no_better_than_chance"  # it looks, and it does not count
    assert all(one.withheld for row in found for one in row)


def shuffled_by_hand(picture):
    side = SIZE // 16
    order, out = np.random.default_rng(0).permutation(256), np.empty_like(picture)
    for to, of in enumerate(order.tolist()):
        (y, x), (v, u) = divmod(to, 16), divmod(of, 16)
        cell = picture[v * side : (v + 1) * side, u * side : (u + 1) * side]
        out[y * side : (y + 1) * side, x * side : (x + 1) * side] = cell
    return out


@pytest.mark.parametrize(("kind", "by_blur"), [("rollout", True), ("occlusion", False)])
def test_what_is_lost_is_the_logit_of_the_verdict_by_hand(kind, by_blur):
    model, pixels = classifier(CornerNet(10.0)), noise(1)
    one = check_maps(model, "n", pixels, [kind])[0][0]
    region = hottest(one.where)
    assert region.sum() == round(0.2 * SIZE**2)
    left = pixels.copy()
    share = cv2.GaussianBlur(region.astype(float), (0, 0), 0.06 * SIZE)[:, :, None]
    # What a blur has drawn would nearly always pass a check by the same blur.
    blur = cv2.GaussianBlur(pixels[0], (0, 0), 0.2 * SIZE)
    other = blur if by_blur else shuffled_by_hand(pixels[0])
    left[0] = np.rint(other * share + pixels[0] * (1 - share))
    before, after = logits_of(model, [pixels[0], left[0]])
    assert one.lost == pytest.approx(before - after, abs=1e-3)
    again = check_maps(model, "n", pixels, [kind])[0][0]
    np.testing.assert_array_equal(one.random, again.random)
    other = check_maps(model, "n", pixels, [kind], seed=1)[0][0]
    assert not np.array_equal(one.random, other.random)


@pytest.mark.parametrize("size", [5, 75, 224])
def test_a_shuffled_picture_is_as_large_of_its_own_pixels_and_none_stays(size):
    picture = noise(1, size)[0]
    found = shuffled(picture)
    assert found.shape == picture.shape
    assert np.isin(found.reshape(-1, 3), picture.reshape(-1, 3)).all()
    assert (found != picture).any(2).mean() > 0.9


def test_a_draw_is_the_same_region_somewhere_else():
    rng = np.random.default_rng(0)
    region = np.zeros((20, 20), bool)
    region[2:7, 3:12] = True
    draws = [elsewhere(region, rng) for _ in range(300)]
    assert {int(one.sum()) for one in draws} == {45}
    # Rows and columns that are touched, wherever the region leaves a side and comes in again.
    assert {tuple(sorted((one.any(0).sum(), one.any(1).sum()))) for one in draws} == {(5, 9)}
    share = np.mean(draws, 0)  # every pixel is as likely: 45 of 400
    assert abs(share - 45 / 400).max() < 0.1


def test_draws_are_beaten_or_the_map_is_withheld():
    low, high = np.zeros(16, np.float32), np.ones(16, np.float32)
    assert verdict_on(0.5, low) == ""
    assert verdict_on(0.5, high) == "no_better_than_chance"
    # Better than chance, and yet the verdict gains, or loses nothing to speak of.
    assert [verdict_on(lost, low - 1) for lost in (-0.1, 0.0, 0.09)] == ["hardly_any"] * 3
    assert verdict_on(0.11, low - 1) == ""
    assert verdict_on(-0.1, high) == "no_better_than_chance"
    one_lost = low.copy()
    one_lost[3] = 1
    assert verdict_on(0.5, one_lost) == ""
    one_lost[4] = 1
    assert verdict_on(0.5, one_lost) == "no_better_than_chance"
    assert verdict_on(float("nan"), low) == "not_finite"


def test_maps_that_are_none_are_withheld():
    flat, ramp = np.full((4, 4), 3.0, np.float32), np.arange(16, dtype=np.float32).reshape(4, 4)
    assert prepared(flat, 8)[1] == "flat"
    assert prepared(-ramp, 8)[1] == "flat"  # nothing speaks for the verdict
    for bad in (np.nan, np.inf):
        broken = ramp.copy()
        broken[1, 1] = bad
        assert prepared(broken, 8)[1] == "not_finite"
    tiny = prepared(1e-12 * ramp, 8)
    np.testing.assert_allclose(tiny[0], prepared(ramp, 8)[0], atol=1e-6)


def test_a_net_that_answers_nan_has_no_map_that_is_shown():
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return (x.mean((1, 2, 3)) * float("nan") * self.weight)[:, None]

    found = check_maps(classifier(Broken(), 16), "broken", noise(1, 16), ["occlusion"])[0]
    assert found[0].withheld == "not_finite"
    assert json.dumps(found[0].record(), allow_nan=False)


def test_the_surest_map_stands_first_and_a_record_is_json():
    model = classifier(CornerNet(10.0))
    found = check_maps(model, "n", rough_corner(1), ["rollout", "occlusion", "boundary"])[0]
    assert [bool(one.withheld) for one in found] == sorted(bool(one.withheld) for one in found)
    record = json.loads(json.dumps(found[0].record(), allow_nan=False))
    assert record["beats"] == 1
    assert len(record["random"]) == checked.DRAWS
    assert check_maps(model, "n", noise(0), ["occlusion"]) == []


def test_of_equal_pixels_those_near_the_hot_ones_are_taken():
    where = np.zeros((50, 50), np.float32)
    where[40:45, 40:45] = 1
    region = hottest(where)
    assert region.sum() == 500
    assert region[40:45, 40:45].all()
    assert not region[:15, :15].any()


def test_the_picture_is_coloured_where_the_map_is_and_as_it_was_where_it_is_not():
    picture = noise(1)[0]
    where = np.zeros((8, 8), np.float32)
    where[5:, 5:] = 1
    drawn = overlay(picture, where)
    assert drawn.shape == picture.shape
    np.testing.assert_array_equal(drawn[:20, :20], picture[:20, :20])
    changed = np.abs(drawn[56:, 56:].astype(float) - picture[56:, 56:])
    assert changed.mean() > 30
