"""Augmentation presets: shape, strictness, randomness that is used."""

import numpy as np
import pytest

from src.data import augment  # isort: split

import albumentations as A

from src.data.augment import PRESETS, make_augment
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


def test_none_is_the_central_crop():
    out = make_augment("none", 32)(image=CANVAS)["image"]
    assert np.array_equal(out, CANVAS[4:36, 4:36])


@pytest.mark.parametrize("name", sorted(set(PRESETS.names()) - {"none"}))
def test_a_seed_decides_the_draw(name):
    transform, other = make_augment(name, 32), make_augment(name, 32)

    def draw(which, seed: int) -> bytes:
        which.set_random_seed(seed)
        return b"".join(which(image=CANVAS)["image"].tobytes() for _ in range(4))

    assert draw(transform, 1) == draw(transform, 1) == draw(other, 1)
    assert len({draw(transform, seed) for seed in range(8)}) == 8


def test_crop_flip_shows_pixels_of_the_image_only_shifted_or_mirrored():
    size = 32
    image = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    wide = np.pad(image, ((4, 4), (4, 4), (0, 0)), mode="reflect")
    possible = set()
    for top in range(9):
        for left in range(9):
            window = wide[top : top + size, left : left + size]
            possible |= {window.tobytes(), window[:, ::-1].tobytes()}
    transform = make_augment("crop_flip", size)
    seen = set()
    for seed in range(60):
        transform.set_random_seed(seed)
        seen.add(transform(image=image)["image"].tobytes())
    assert seen <= possible
    assert len(seen) > 30


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
        make_augment("standrad", 32)
