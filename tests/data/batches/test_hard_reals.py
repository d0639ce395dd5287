"""`augment_real`: reals alone are treated, before any preset, and the same draw comes again."""

import numpy as np
import pytest

from src.config import parse_model
from src.data.batches.hard_reals import HardReals
from src.data.batches.loader import TrainBatches
from src.data.batches.samplers import BatchKey
from src.data.pixels.source import Canvas, PixelSource
from src.errors import UserError

LABELS = np.array([0, 1, 0, 1, 0, 0])
KEY = BatchKey(3, 1, (0, 1, 2, 3, 4, 5))


@pytest.fixture
def source(tmp_path, make_images):
    files = make_images(tmp_path, len(LABELS), size=(30, 30), suffix=".png")
    canvas = Canvas(24, "squash", "bicubic")
    return PixelSource(tmp_path, sorted(path.name for path in files), [canvas])


def pixels(source, augment, reals, key=KEY):
    batches = TrainBatches(source, LABELS, augment, 20, 7)
    batches.reals = HardReals.of(reals)
    return batches[key]["pixels"].numpy()


@pytest.mark.parametrize("augment", ["none", "light"])
def test_reals_are_treated_and_fakes_are_not(source, augment):
    plain = pixels(source, augment, None)
    hard = pixels(source, augment, {"name": "tones", "share": 1.0})
    differs = (plain != hard).any((1, 2, 3))
    assert differs.tolist() == (LABELS == 0).tolist()
    assert np.array_equal(hard, pixels(source, augment, {"name": "tones", "share": 1.0}))
    other = pixels(source, augment, {"name": "tones", "share": 1.0}, KEY._replace(epoch=4))
    assert augment != "none" or (other != hard).any((1, 2, 3)).tolist() == differs.tolist()
    assert np.array_equal(plain, pixels(source, augment, {"name": "tones", "share": 0.0}))


def test_so_many_are_treated_as_the_share_says():
    grey = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    for share in (0.3, 0.5):
        treat = HardReals("sharpen", share)
        changed = sum(not np.array_equal(treat(grey, seed), grey) for seed in range(2000))
        assert changed / 2000 == pytest.approx(share, abs=0.04)
    assert HardReals.of("retouch") == HardReals("retouch", 0.5)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("jpeg50", "treatment of real pictures"),
        ("retuch", "did you mean 'retouch'"),
        ({"name": "retouch", "share": 2}, "augment_real: retouch"),
        ({"name": "retouch", "hue": 0.1}, "hue"),
    ],
)
def test_what_is_no_treatment_is_refused(asked, words):
    with pytest.raises(UserError) as told:
        HardReals.of(asked)
    assert words in str(told.value)


def test_a_config_takes_it_by_name_and_not_where_no_picture_is_augmented():
    net = {"backbone": {"name": "compact_net", "pretrained": "none"}}
    assert parse_model(net, "m").augment_real is None
    assert parse_model(net | {"augment_real": {"name": "retouch"}}, "m").augment_real == "retouch"
    with pytest.raises(UserError, match="leave augment_real out"):
        parse_model(net | {"augment_real": "retouch", "strategy": "feature_extractor"}, "m")
    with pytest.raises(UserError, match="name what is done to reals"):
        parse_model(net | {"augment_real": {"share": 0.3}}, "m")
