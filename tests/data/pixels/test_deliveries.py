"""Levels against formulas and other libraries; where pixels are afterwards; bad names."""

import io

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from src.artifacts.oof import Levels
from src.config import FaceConfig
from src.data.items.dataset_yaml import says_cropped
from src.data.pixels.deliveries import CARD, OPERATIONS, SETS, Level, levels_named
from src.data.pixels.images import Canvas
from src.data.pixels.source import PixelSource
from src.errors import UserError
from tests.faces_stub import RED, picture, use_red, write_film, write_picture

LEVELS = (*CARD, "retouch", *SETS["extreme"], *SETS["gend"], *SETS["treatments"], "chain3")


@pytest.fixture(scope="module")
def photo():
    rng = np.random.default_rng(0)
    soft = cv2.GaussianBlur(rng.integers(0, 256, (60, 90, 3)).astype(np.uint8), (0, 0), 3)
    return cv2.normalize(soft, None, 0, 255, cv2.NORM_MINMAX)


def sent(level, pixels, item="a.png", frame=0, seed=42):
    return Level(level).deliver(pixels, item, frame, seed).pixels


def test_jpeg_is_pillows_at_4_2_0(photo):
    for quality in (90, 70, 50, 30):
        file = io.BytesIO()
        Image.fromarray(photo).save(file, "JPEG", quality=quality, subsampling="4:2:0")
        assert np.array_equal(sent(f"jpeg{quality}", photo), np.asarray(Image.open(file)))


@pytest.mark.parametrize("sigma", ["0.5", "1", "2"])
def test_blur_is_scipys(photo, sigma):
    wanted = ndimage.gaussian_filter(
        photo.astype(float), (float(sigma), float(sigma), 0), mode="mirror"
    )
    assert np.abs(sent(f"blur{sigma}", photo) - wanted).max() <= 1.0


def test_noise_has_the_strength_that_it_says_and_is_a_frames_own():
    grey = np.full((200, 200, 3), 128, np.uint8)
    for sigma in (0.02, 0.05, 0.1):
        drawn = sent(f"noise{sigma}", grey).astype(float) - 128
        assert drawn.std() == pytest.approx(255 * sigma, rel=0.02)
        assert abs(np.corrcoef(drawn[:, :-1].ravel(), drawn[:, 1:].ravel())[0, 1]) < 0.02
    first, second = (sent("noise0.05", grey, frame=k) for k in (0, 1))
    assert not np.array_equal(first, second)


def test_jitter_follows_its_formula_and_is_the_same_for_every_frame_of_an_item(photo):
    one, other = (sent("jitter0.2", photo, frame=k) for k in (0, 5))
    assert np.array_equal(one, other)
    assert not np.array_equal(one, sent("jitter0.2", photo, item="b.png"))
    assert not np.array_equal(one, sent("jitter0.2", photo, seed=43))
    grey = np.full((4, 4, 3), 100, np.uint8)
    lit = {int(sent("jitter0.2", grey, item=str(k))[0, 0, 0]) for k in range(200)}
    # Without contrast or colour only brightness shows.
    assert min(lit) in (80, 81)
    assert max(lit) in (119, 120)


def test_resize_goes_by_area_and_back_by_lines(photo):
    small = photo.reshape(30, 2, 45, 2, 3).mean((1, 3))
    wanted = cv2.resize(np.rint(small).astype(np.uint8), (90, 60))
    assert np.abs(sent("resize0.5", photo).astype(int) - wanted).max() <= 1


@pytest.mark.parametrize("level", LEVELS)
def test_every_level_takes_pictures_of_any_size_and_draws_the_same_again(level):
    for size in ((1, 1), (3, 40), (33, 17)):
        pixels = np.random.default_rng(1).integers(0, 256, (*size, 3)).astype(np.uint8)
        before = pixels.copy()
        got = Level(level).deliver(pixels, "x")
        assert got.pixels.dtype == np.uint8
        assert got.pixels.flags.c_contiguous
        assert np.array_equal(got.pixels, Level(level).deliver(pixels, "x").pixels)
        assert np.array_equal(pixels, before)


@given(st.lists(st.sampled_from(["crop0.8", "long100", "bilinear64", "crop0.5"]), max_size=3))
@settings(max_examples=25, deadline=None)
def test_a_chain_says_where_a_point_of_the_sent_picture_is(steps):
    level = "-".join(["long400", *steps])
    pixels = np.zeros((300, 420, 3), np.uint8)
    pixels[140:170, 190:230] = 255
    got = Level(level).deliver(pixels, "x")
    where = np.argwhere(got.pixels[..., 0] > 127)
    y, x = where.mean(0) + 0.5
    assert x == pytest.approx(210 * got.across - got.left, abs=1.5)
    assert y == pytest.approx(155 * got.down - got.top, abs=1.5)


def test_retouching_is_mild_and_each_treatment_does_something(photo):
    for level in SETS["treatments"]:
        change = np.abs(sent(level, photo).astype(float) - photo).mean()
        assert (0.05 < change < 40) or level == "smooth", level
    skin = np.tile(np.array([200, 150, 130], np.uint8), (40, 40, 1))
    skin = np.clip(skin + np.random.default_rng(0).normal(0, 8, skin.shape), 0, 255)
    skin = skin.astype(np.uint8)
    assert sent("smooth", skin).std((0, 1)).mean() < 0.9 * skin.std((0, 1)).mean()
    sky = np.clip(skin[..., ::-1].astype(int), 0, 255).astype(np.uint8)
    assert np.array_equal(sent("smooth", sky), sky)


def test_names_and_sets(photo):
    assert levels_named(["card", "jpeg50", "retouch"]) == [*CARD, "retouch"]
    assert len(CARD) == 14
    long = Level("long45-jpeg50").deliver(photo, "x")
    assert long.pixels.shape == (30, 45, 3)
    assert (long.across, long.down) == (0.5, 0.5)
    for level in SETS["chains"]:
        Level(level).deliver(photo, "x")
    assert all(OPERATIONS.get(name).about.endswith(".") for name in OPERATIONS)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("jpg50", "did you mean 'jpeg'"),
        ("jpeg0", "jpeg takes 1 to 100, not 0"),
        ("jpeg", "jpeg wants a strength, 1 to 100"),
        ("smooth2", "smooth wants no strength"),
        ("jpeg50+flip", "is no operation with its strength"),
        ("", "is no operation with its strength"),
        ("resize2", "resize takes 0.01 to 0.99"),
    ],
)
def test_a_level_that_is_none_is_refused_in_words(name, words):
    with pytest.raises(UserError) as told:
        levels_named([name])
    assert words in str(told.value)


@pytest.fixture
def faces(artefact_root, monkeypatch):
    use_red(monkeypatch)
    says_cropped.cache_clear()
    folder = artefact_root / "input" / "set"
    write_picture(folder / "one.png", picture((10, 14, 12)))
    write_picture(folder / "none.png", picture())
    write_film(folder / "clip.avi", [picture((10 + k, 14, 12)) for k in range(6)])
    return folder


def test_levels_come_one_after_the_other_and_faces_where_the_delivery_took_them(faces):
    face = Canvas(8, "squash", "bicubic", None, FaceConfig(detector="red", margin=1.0))
    full = Canvas(16, "squash", "bicubic")
    names = ["one.png", "none.png", "clip.avi"]
    source = PixelSource(faces, names, [face, full])
    levels = Levels(("crop0.8", "long32", "jpeg90"), 42)
    found = source.delivering(levels)
    assert found.n_levels == 3
    assert source.n_levels == 1
    for item in (0, 2):
        canvases = found.read(item)
        assert [one.shape[0] for one in canvases] == [8, 16] * 3
        for place in (0, 2, 4):  # of the face: it is still red all over, wherever it is now
            assert np.abs(canvases[place][2:6, 2:6].astype(int) - RED).max() < 60
    lost = found.read(1)
    grey = cv2.resize(picture()[5:43, 6:58], (8, 8))
    assert np.array_equal(lost[0], grey)  # no face: the delivered picture as it is
