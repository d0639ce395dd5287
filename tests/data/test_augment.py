"""Augmentation presets: shape, strictness, randomness that is used."""

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from src.data import augment  # isort: split

import albumentations as A

from src.data.augment import (
    BATCH_PRESETS,
    PRESETS,
    check_augment,
    draw_boxes,
    make_augment,
    preset_names,
    takes_batches,
)
from src.errors import UserError

CANVAS = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", PRESETS.names())
@pytest.mark.parametrize(("canvas", "size"), [(32, 32), (40, 32), (64, 48), (16, 16), (36, 33)])
def test_every_preset_gives_the_size_that_the_net_sees(name, canvas, size):
    image = np.random.default_rng(1).integers(0, 256, (canvas, canvas, 3), dtype=np.uint8)
    before = image.copy()
    transform = make_augment(name, size)
    for seed in range(20):
        transform.set_random_seed(seed)
        out = transform(image=image)["image"]
        assert out.shape == (size, size, 3)
        assert out.dtype == np.uint8
    assert np.array_equal(image, before)


def whole(name: str, images: np.ndarray, size: int, seed: int = 0) -> np.ndarray:
    generator = torch.Generator().manual_seed(seed)
    out = BATCH_PRESETS.get(name)(torch.from_numpy(images), size, generator)
    assert out.dtype == torch.uint8
    return out.numpy()


@pytest.mark.parametrize("name", BATCH_PRESETS.names())
@pytest.mark.parametrize(
    ("canvas", "size"), [(32, 32), (40, 32), (64, 48), (16, 16), (36, 33), (8, 8)]
)
def test_every_whole_batch_preset_gives_the_size_that_the_net_sees(name, canvas, size):
    images = np.random.default_rng(1).integers(0, 256, (5, canvas, canvas, 3), dtype=np.uint8)
    before = images.copy()
    for seed in range(5):
        assert whole(name, images, size, seed).shape == (5, size, size, 3)
    assert np.array_equal(images, before)


def test_every_preset_has_one_name():
    assert (
        len(set(preset_names()))
        == len(preset_names())
        == len(PRESETS.names()) + len(BATCH_PRESETS.names())
    )
    assert [takes_batches(name) for name in ("crop_flip", "standard")] == [True, False]


def test_none_is_the_central_crop():
    assert np.array_equal(whole("none", CANVAS[None], 32)[0], CANVAS[4:36, 4:36])


@pytest.mark.parametrize("name", PRESETS.names())
def test_a_seed_decides_the_draw(name):
    transform, other = make_augment(name, 32), make_augment(name, 32)

    def draw(which, seed: int) -> bytes:
        which.set_random_seed(seed)
        return b"".join(which(image=CANVAS)["image"].tobytes() for _ in range(4))

    assert draw(transform, 1) == draw(transform, 1) == draw(other, 1)
    assert len({draw(transform, seed) for seed in range(8)}) == 8


def test_crop_flip_shows_pixels_of_the_image_only_shifted_or_mirrored():
    size, n = 32, 3000
    image = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    wide = np.pad(image, ((4, 4), (4, 4), (0, 0)), mode="reflect")
    possible = {}
    for top in range(9):
        for left in range(9):
            window = wide[top : top + size, left : left + size]
            possible[window.tobytes()] = (top, left, False)
            possible[window[:, ::-1].tobytes()] = (top, left, True)
    drawn = [possible[out.tobytes()] for out in whole("crop_flip", np.stack([image] * n), size)]
    assert {place[:2] for place in drawn} == {place[:2] for place in possible.values()}
    assert binomtest(sum(flip for *_, flip in drawn), n).pvalue > 1e-4
    for axis in (0, 1):
        counts = np.bincount([place[axis] for place in drawn], minlength=9)
        assert np.abs(counts - n / 9).max() < 5 * np.sqrt(n / 9)


def test_crop_flip_of_a_larger_canvas_cuts_it_without_edges():
    image = np.random.default_rng(0).integers(0, 256, (44, 44, 3), dtype=np.uint8)
    windows = [image[top : top + 32, left : left + 32] for top in range(13) for left in range(13)]
    possible = {w.tobytes() for w in windows} | {w[:, ::-1].tobytes() for w in windows}
    seen = {out.tobytes() for out in whole("crop_flip", np.stack([image] * 200), 32)}
    assert seen <= possible
    assert len(seen) > 100


def test_whole_batch_draws_follow_from_the_generator_alone():
    images = np.stack([CANVAS] * 8)
    torch.manual_seed(0)
    first = whole("crop_flip", images, 32, 5)
    torch.manual_seed(1)
    assert np.array_equal(whole("crop_flip", images, 32, 5), first)
    assert not np.array_equal(whole("crop_flip", images, 32, 6), first)


@pytest.mark.parametrize("size", [8, 32, 33])
def test_erased_boxes_lie_inside_and_have_the_stated_area(size):
    boxes = draw_boxes(4000, size, 0.3, seed=1)
    top, bottom, left, right = boxes.T
    erased = bottom > top
    assert ((boxes >= 0) & (boxes <= size)).all()
    assert (right[erased] > left[erased]).all()
    assert (boxes[~erased] == 0).all()
    assert binomtest(int(erased.sum()), 4000, 0.3).pvalue > 1e-4
    share = ((bottom - top) * (right - left))[erased] / size**2
    assert share.max() <= 1 / 3 + 2 / size
    assert 0.1 < share.mean() < 0.2
    assert not draw_boxes(100, size, 0.0, seed=1).any()
    assert (draw_boxes(100, size, 1.0, seed=1)[:, 1] > 0).all()


def test_native_pixels_are_never_resampled():
    for name in preset_names():
        check_augment(name, "squash")
    for name in ("none", "crop_flip", "light"):
        check_augment(name, "native")
    with pytest.raises(UserError, match="standard resamples"):
        check_augment("standard", "native")


@pytest.mark.parametrize(
    "make",
    [
        lambda: A.ImageCompression(quality_lower=50, quality_upper=100),
        lambda: A.GaussianBlur(blur_limits=(3, 5)),
        lambda: A.GaussNoise(var_limit=(10, 50)),
        lambda: A.HorizontalFlip(always_apply=True),
    ],
)
def test_an_old_or_mistyped_argument_is_not_ignored(monkeypatch, make):
    things = {**augment.PRESETS._things, "old": lambda size: [make()]}
    monkeypatch.setattr(augment.PRESETS, "_things", things)
    with pytest.raises((UserWarning, TypeError, ValueError), match="not valid"):
        make_augment("old", 32)


def test_unknown_preset():
    with pytest.raises(UserError, match="augmentation preset 'standrad'; did you mean 'standard'"):
        check_augment("standrad", "squash")
