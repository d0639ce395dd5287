"""Self-blended images. Oracles: the blend's formula, what lies outside a mask, geometry."""

import cv2
import numpy as np
import pytest

from src.config import BlendConfig
from src.data.batches import blend
from src.data.batches.blend import CHIN, FOREHEAD, beside_blend, distract, self_blend

SIDES = (96, 128)  # height, width
HULLS = ("face", "lower", "inner", "wide", "eyes", "nose", "mouth")


def picture():
    small = np.random.default_rng(3).integers(0, 255, (9, 12, 3), np.uint8)
    return cv2.resize(small, SIDES[::-1], interpolation=cv2.INTER_CUBIC)


def marks_of(turn=0.0):
    """468 points of an upright face in the middle, turned by so many radians."""
    rng = np.random.default_rng(1)
    angle, reach = rng.uniform(0, 2 * np.pi, 468), np.sqrt(rng.uniform(0, 1, 468))
    x, y = 22 * reach * np.cos(angle), 30 * reach * np.sin(angle)
    x[[FOREHEAD, CHIN]], y[[FOREHEAD, CHIN]] = 0, (-30, 30)
    parts = {blend.BROWS: -10, blend.EYES: -6, blend.NOSE: 4, blend.MOUTH: 14}
    for part, height in parts.items():
        x[list(part)] = np.linspace(-12, 12, len(part))
        y[list(part)] = height + np.resize([-2, 2], len(part))
    cos, sin = np.cos(turn), np.sin(turn)
    return np.stack([64 + cos * x - sin * y, 48 + sin * x + cos * y], 1)


@pytest.mark.parametrize("hull", HULLS)
def test_a_blend_is_its_formula_and_nothing_outside_its_mask(monkeypatch, hull):
    monkeypatch.setattr(blend, "_change", lambda pixels, rng: 255 - pixels)
    monkeypatch.setattr(blend, "_moved", lambda picture, *_: picture)
    before, asked = picture(), BlendConfig(hulls=(hull,))
    for seed in range(6):
        made, mask = self_blend(before, marks_of(), asked, np.random.default_rng(seed))
        assert made.dtype == mask.dtype == np.uint8
        assert mask.shape == SIDES
        shares = [strength * mask[:, :, None] / 255 for strength in sorted(set(blend.STRENGTHS))]
        source, target = 255.0 - before, before.astype(float)
        ways = [
            share * a + (1 - share) * b
            for share in shares
            for a, b in ((source, target), (target, source))
        ]
        beside = beside_blend(before, np.random.default_rng(seed))
        assert (made == beside)[mask == 0].all()
        # The mask is rounded to a level, so that the formula holds to one of 255.
        off = min(float(np.abs(made - way).max()) for way in ways)
        assert off <= 1.5
        assert mask.max() > 200
        points = blend._hull_points(marks_of(), hull)
        inside = cv2.fillConvexPoly(
            np.zeros(SIDES, np.uint8), cv2.convexHull(np.rint(points).astype(np.int32)), 255
        )
        near = cv2.dilate(inside, np.ones((19, 19)))  # what is bent, and softened
        assert not mask[near == 0].any()
        assert (mask > 0).sum() > 0.15 * (inside > 0).sum()


def test_equal_generators_make_equal_blends_and_others_do_not():
    asked = BlendConfig(hulls=HULLS, poisson=0.5)
    draws = [self_blend(picture(), marks_of(), asked, np.random.default_rng(s)) for s in (4, 4, 5)]
    for one, other in zip(*draws[:2], strict=True):
        assert (one == other).all()
    assert (draws[0][0] != draws[2][0]).any()
    assert (draws[0][1] != draws[2][1]).any()


@pytest.mark.parametrize("turn", [0.0, 0.5, -1.2])
def test_the_lower_face_ends_at_the_brows_however_the_head_is_turned(turn):
    kept = blend._hull_points(marks_of(turn), "lower")
    up = marks_of(turn)[FOREHEAD] - marks_of(turn)[CHIN]
    heights = (kept - marks_of(turn)[CHIN]) @ up / (up @ up)
    assert heights.max() == pytest.approx((30 + 12) / 60)  # brows reach 12 px over the middle


def test_a_poisson_blend_leaves_what_lies_outside_and_keeps_a_copy_that_is_equal(monkeypatch):
    monkeypatch.setattr(blend, "_change", lambda pixels, rng: pixels)
    monkeypatch.setattr(blend, "_moved", lambda picture, *_: picture)
    asked = BlendConfig(poisson=1.0)
    for seed in range(4):
        made, mask = self_blend(picture(), marks_of(), asked, np.random.default_rng(seed))
        assert (made == picture())[mask == 0].all()
        assert np.abs(made.astype(int) - picture()).max() <= 2  # equal gradients, equal picture
    flat = np.full((*SIDES, 3), 90, np.uint8)
    brighter = flat + np.uint8(60)
    cloned = blend._poisson(brighter, flat, np.ones(SIDES, np.float32))
    assert np.abs(cloned.astype(int) - 90).max() <= 1  # a level has no gradient


def test_a_face_at_the_edge_or_without_extent_makes_a_picture_all_the_same():
    for marks in (np.add(marks_of(), (60, 0)), marks_of() * 0 + 5, marks_of() - 500):
        for hull in HULLS:
            asked = BlendConfig(hulls=(hull,), poisson=1.0)
            made, mask = self_blend(picture(), marks, asked, np.random.default_rng(1))
            assert made.shape == (*SIDES, 3)
            assert mask.shape == SIDES


def test_distractors_are_shared_by_a_pair_and_say_what_they_hide():
    first, second = picture(), 255 - picture()
    hidden = 0
    for seed in range(8):
        one, left = distract(first, np.random.default_rng(seed))
        other, same = distract(second, np.random.default_rng(seed))
        assert (left == same).all()
        assert left.min() >= 0
        assert left.max() == 1
        assert (one[left == 1] == first[left == 1]).all()
        # What is drawn is equal on both: their difference shrinks by what is left.
        gap = first.astype(float) - second
        assert np.abs((one.astype(float) - other) - left[:, :, None] * gap).max() <= 4
        hidden += int((left < 1).sum())
    assert hidden > 0
