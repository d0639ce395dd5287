"""Batches with pseudo-fakes and masks: what a pair shares, and what a mask goes along with."""

import cv2
import numpy as np
import pytest
import torch

from src.config import BlendConfig
from src.data.batches.loader import TrainBatches
from src.data.batches.made import Masked, PseudoFakes
from src.data.batches.on_device import DeviceBatches
from src.data.batches.samplers import BatchKey, EpochPool, EpochSampler
from src.data.pixels.source import Canvas, PixelSource

COUNT, SIDE = 6, 40
LABELS = np.array([0, 0, 1] * 2)


class Fixed:
    """Landmarks of any picture: an ellipse; none of those of which `lost` says so."""

    def __init__(self, lost=lambda canvas: False):
        self.lost = lost

    def of(self, canvas):
        angle = np.linspace(0, 2 * np.pi, 468)
        marks = np.stack([20 + 10 * np.sin(angle), 20 + 12 * np.cos(angle)], 1)
        return None if self.lost(canvas) else marks


@pytest.fixture
def source(tmp_path, make_images):
    make_images(tmp_path, COUNT, size=(SIDE, SIDE), suffix=".png")
    names = sorted(path.name for path in tmp_path.glob("*.png"))
    return PixelSource(tmp_path, names, [Canvas(SIDE, "squash", "bicubic")])


def batches_of(source, augment, asked=None, landmarks=None):
    batches = TrainBatches(source, LABELS, augment, 32, 1)
    batches.fakes = PseudoFakes(asked or BlendConfig(hulls=("face",)), landmarks or Fixed())
    batches.masked = Masked(SIDE)
    return batches


def on_device(batches, augment, key):
    return next(iter(DeviceBatches([batches[key]], augment, 32, torch.device("cpu"))))


STEADY = {"name": "standard", "contrast": 0.0}  # which is about a picture's own mean


@pytest.mark.parametrize("augment", [STEADY, "light", "none", "crop_flip"])
def test_a_real_and_its_blend_differ_in_the_blend_alone(source, augment):
    batches = batches_of(source, augment)
    found = on_device(batches, augment, BatchKey(0, 0, (0, 6, 4, 10, 2)))
    assert found["label"].tolist() == [0, 1, 0, 1, 1]
    assert found["item"].tolist() == [0, 0, 4, 4, 2]
    assert found["has_mask"].tolist() == [True, True, True, True, False]
    pixels, mask = found["pixels"].numpy().astype(int), found["mask"].numpy()
    assert mask.shape == (5, 32, 32)
    assert not mask[[0, 2, 4]].any()
    for real, fake in ((0, 1), (2, 3)):
        differ = np.abs(pixels[real] - pixels[fake]).max(2)
        far = cv2.dilate(mask[fake], np.ones((3, 3))) == 0  # turned pixels are interpolated
        if augment in ("none", "crop_flip"):
            assert not differ[mask[fake] == 0].any()
        elif augment == STEADY:
            assert differ[far].mean() < 0.1
        assert differ.max() > 20
        if "blank" in found:
            assert (found["blank"][real] == found["blank"][fake]).all()
    again = on_device(batches, augment, BatchKey(0, 0, (10, 2, 0, 4, 6)))
    if augment != "crop_flip":  # of the item, not of its place
        assert (again["mask"][0] == found["mask"][3]).all()
    other = on_device(batches, augment, BatchKey(1, 0, (0, 6, 4, 10, 2)))
    assert (other["mask"][1] != found["mask"][1]).any()  # new in every epoch


@pytest.mark.parametrize("augment", ["crop_zoom", "standard", "crop_flip"])
def test_a_mask_goes_where_its_picture_goes(source, augment, monkeypatch):
    """A blend that is its own mask, in red: what crops, turns or flips one does the other."""

    def as_mask(pixels, marks, asked, rng):
        mask = np.zeros(pixels.shape[:2], np.uint8)
        mask[8:22, 12:19] = 255
        red = np.zeros_like(pixels)
        red[:, :, 0] = mask
        return red, mask

    monkeypatch.setattr("src.data.batches.made.self_blend", as_mask)
    asked = {"name": augment} | ({"erase": 0.0} if augment == "standard" else {})
    if augment == "crop_zoom":
        asked |= {"jpeg": 0.0, "blur": 0.0, "colour": 0.0}
    if augment == "standard":
        asked |= {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
    rows = tuple(range(6, 12))
    for epoch in range(4):
        found = on_device(batches_of(source, asked), asked, BatchKey(epoch, 0, rows))
        seen, mask = found["pixels"][..., 0].numpy() > 127, found["mask"].numpy() > 127
        assert (seen != mask).mean() < 0.03  # edges: a picture is interpolated, a mask is not
        assert (seen & mask).any((1, 2)).all()


def test_a_real_without_a_face_stays_a_real(source):
    first = source.read(0)[0]
    landmarks = Fixed(lost=lambda canvas: (canvas == first).all())
    found = batches_of(source, "light", landmarks=landmarks)[BatchKey(0, 0, (0, 6, 7))]
    assert found["label"].tolist() == [0, 0, 1]
    assert not found["mask"][:2].any()
    assert (found["pixels"][0] == found["pixels"][1]).all()


def test_distractors_stand_on_both_of_a_pair(source):
    asked = BlendConfig(hulls=("eyes",), distractors=1.0)
    plain = batches_of(source, "none", BlendConfig(hulls=("eyes",)))
    for epoch in range(3):
        key = BatchKey(epoch, 0, (0, 6))
        bare, drawn = (
            on_device(b, "none", key) for b in (plain, batches_of(source, "none", asked))
        )
        on_real = (bare["pixels"][0] != drawn["pixels"][0]).any(-1)
        differ = (drawn["pixels"][0] != drawn["pixels"][1]).any(-1)
        assert on_real.any()
        assert not differ[bare["mask"][1] == 0].any()
        assert (drawn["mask"][1] <= bare["mask"][1]).all()


def test_pairs_stand_side_by_side_in_the_paired_order():
    rows = np.array([3, 7, 9, 13, 17, 19])
    labels = np.array([0, 0, 0, 1, 1, 1])
    pool = EpochPool(rows, labels, 2, groups=rows % 10)
    for epoch in range(3):
        sampler = EpochSampler(pool, "paired", seed=2)
        sampler.epoch = epoch
        assert {tuple(sorted(key.rows)) for key in sampler} == {(3, 13), (7, 17), (9, 19)}
