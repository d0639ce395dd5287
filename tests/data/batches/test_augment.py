"""Augmentation presets: shape, strictness, randomness that is used."""

import colorsys
import io
import random
import re
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import TypeAdapter
from scipy.stats import binomtest

from src.data.batches.augment import (
    BATCH_PRESETS,
    check_augment,
    draw_boxes,
    make_augment,
    preset_names,
    read_augment,
    shown_augment,
)
from src.data.batches.augment_presets import PRESETS, Recompress
from src.errors import UserError
from src.strict_yaml import Chance, keywords_of
from tests.conftest import REPO

import albumentations as A  # isort: skip - `src` keeps it from asking for its newest version

# What must be likely for a setting to be seen.
CHANCES = {
    **{
        ("crop_zoom", key): {"colour": 1.0}
        for key in ("brightness", "contrast", "saturation", "hue")
    },
    **{("classic", key): {"colour": 1.0} for key in ("saturation", "value", "hue")},
}
CANVAS = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)


def whole(name, images, size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    out = read_augment(name).preset(torch.from_numpy(images), size, generator)
    assert out.dtype == torch.uint8
    return out.numpy()


def draws(name, image, size, n, seed=3):
    transform = make_augment(name, size)
    transform.set_random_seed(seed)
    return np.stack([transform(image=image)["image"] for _ in range(n)])


def as_seen(name, image, size, n, seed=3):
    """Return an image as so many draws of a preset of either kind show it."""
    if read_augment(name).of_batches:
        return whole(name, np.stack([image] * n), size, seed)
    return draws(name, image, size, n, seed)


@pytest.mark.parametrize("name", preset_names())
@pytest.mark.parametrize(
    ("canvas", "size"), [(32, 32), (40, 32), (64, 48), (16, 16), (36, 33), (8, 8)]
)
def test_every_preset_gives_the_size_that_the_net_sees(name, canvas, size):
    image = np.random.default_rng(1).integers(0, 256, (canvas, canvas, 3), dtype=np.uint8)
    before = image.copy()
    out = as_seen(name, image, size, 20)
    assert out.shape == (20, size, size, 3)
    assert out.dtype == np.uint8
    assert np.array_equal(image, before)


def test_every_preset_has_one_name():
    assert preset_names() == sorted({*PRESETS.names(), *BATCH_PRESETS.names()})
    assert [read_augment(name).of_batches for name in ("crop_flip", "standard")] == [True, False]


def test_none_is_the_central_crop():
    assert np.array_equal(whole("none", CANVAS[None], 32)[0], CANVAS[4:36, 4:36])


@pytest.mark.parametrize("name", preset_names())
def test_a_seed_decides_the_draw(name):
    torch.manual_seed(0)
    first = as_seen(name, CANVAS, 32, 4, seed=1)
    torch.manual_seed(1)
    assert np.array_equal(as_seen(name, CANVAS, 32, 4, seed=1), first)
    seen = {as_seen(name, CANVAS, 32, 4, seed).tobytes() for seed in range(8)}
    assert len(seen) == (1 if name == "none" else 8)


def test_each_transform_of_a_preset_draws_for_itself(monkeypatch):
    things = {"two": lambda size: [A.HorizontalFlip(p=0.5), A.OneOf([A.InvertImg(p=1)], p=0.5)]}
    monkeypatch.setattr(PRESETS, "_things", things)
    transform = make_augment("two", 4)
    image = np.zeros((4, 4, 3), np.uint8)
    image[:, :2] = 50
    seen = np.zeros((2, 2), int)
    for seed in range(800):
        transform.set_random_seed(seed)
        out = transform(image=image)["image"][0, :, 0].astype(int)
        inverted = int(out.max() > 100)
        first = out[0] if not inverted else 255 - out[0]
        seen[int(first == 0), inverted] += 1
    assert np.abs(seen - 200).max() < 5 * np.sqrt(800 * 0.25 * 0.75)


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


@pytest.mark.parametrize("name", ["crop_flip", "forensic"])
def test_a_larger_canvas_is_cut_and_mirrored_without_edges(name):
    image = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    if name == "crop_flip":  # which shifts by an eighth at most
        image = np.random.default_rng(0).integers(0, 256, (22, 22, 3), dtype=np.uint8)
    places = range(len(image) - 15)
    windows = [image[top : top + 16, left : left + 16] for top in places for left in places]
    possible = {w.tobytes() for w in windows} | {w[:, ::-1].tobytes() for w in windows}
    seen = {out.tobytes() for out in as_seen(name, image, 16, 300)}
    assert seen <= possible
    assert len(seen) > 0.7 * len(possible)


def test_zoom_flip_cuts_a_box_of_the_stated_area_and_aspect_and_mirrors_half():
    """Of a picture whose values are its places a pixel says where it comes from."""
    side, size, n = 200, 50, 2000
    places = np.arange(side, dtype=np.uint8)
    image = np.stack([*np.meshgrid(places, places), np.zeros((side, side), np.uint8)], -1)
    seen = whole("zoom_flip", np.stack([image] * n), size).astype(float)
    inner = seen[:, 5:-5, 5:-5]  # away from edges, beyond which the last pixel is repeated
    assert np.abs(inner - inner.mean((1, 2), keepdims=True)).max() < side / 2
    across = (inner[:, 0, -1, 0] - inner[:, 0, 0, 0]) / (size - 11) * size / side
    down = (inner[:, -1, 0, 1] - inner[:, 0, 0, 1]) / (size - 11) * size / side
    area, aspect = np.abs(across * down), np.abs(across / down)
    assert (down > 0).all()
    assert binomtest(int((across < 0).sum()), n).pvalue > 1e-4
    assert 0.68 < area.min() < 0.71
    assert 0.97 < area.max() < 1.02
    assert area.mean() == pytest.approx(0.85, abs=0.01)
    assert 0.82 < aspect.min() < 0.87
    assert 1.15 < aspect.max() < 1.22
    for axis, length in ((0, np.abs(across)), (1, down)):
        middle = inner[..., axis].mean((1, 2)) + 0.5
        assert (np.abs(2 * middle - side) <= side * (1 - length) + 3).all()  # inside the picture


def test_zoom_flip_of_all_is_a_bilinear_resize():
    image = cv2.GaussianBlur(
        np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8), (5, 5), 2
    )
    seen = whole({"name": "zoom_flip", "area": 1.0, "flip": 0.0}, image[None], 32)[0].astype(int)
    assert np.abs(seen - cv2.resize(image, (32, 32), interpolation=cv2.INTER_LINEAR)).max() <= 1


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
    for name in ("none", "crop_flip", "light", "classic", "forensic"):
        check_augment(name, "native")
    for name in ("standard", "crop_zoom", "robust", "share", "zoom_flip"):
        with pytest.raises(UserError, match=f"{name} resamples"):
            check_augment(name, "native")


@pytest.mark.parametrize("geometry", ["squash", "short_side"])
def test_forensic_wants_pixels_as_they_are(geometry):
    for name in preset_names():
        if name != "forensic":
            check_augment(name, geometry)
    with pytest.raises(UserError, match=r"forensic is for pixels as they are.*take input.geometry"):
        check_augment("forensic", geometry)


def test_classic_flips_half_and_adds_noise_of_old_strength_to_three_tenths():
    n = 600
    calm = {"name": "classic", "colour": 0.0, "exposure": 0.0}
    ramp = np.broadcast_to(np.linspace(60, 190, 32).astype(np.uint8)[None, :, None], (32, 32, 3))
    image = np.ascontiguousarray(ramp)
    out = draws(calm, image, 32, n).astype(float)
    flipped = np.abs(out - image[:, ::-1]).mean((1, 2, 3)) < np.abs(out - image).mean((1, 2, 3))
    assert binomtest(int(flipped.sum()), n, 0.5).pvalue > 1e-4
    noise = np.where(flipped[:, None, None, None], out - image[:, ::-1], out - image).std((1, 2, 3))
    noisy = noise > 0.5
    assert binomtest(int(noisy.sum()), n, 0.3).pvalue > 1e-4
    assert 10**0.5 - 0.5 < noise[noisy].min() < noise[noisy].max() < 50**0.5 + 0.3


def test_standard_turns_by_ten_degrees_at_most_and_erases_a_tenth():
    calm = dict.fromkeys(("brightness", "contrast", "saturation", "hue"), 0.0)
    image = np.full((48, 48, 3), 30, np.uint8)
    image[:, 20:28] = 220  # a vertical bar, whose slope tells the angle
    out = draws({"name": "standard", **calm}, image, 48, 600)
    assert read_augment("standard").erase == 0.1
    rows = (out[:, :, :, 0] > 125).astype(float)
    centre = (rows * np.arange(48)).sum(2) / rows.sum(2)
    slope = np.polyfit(np.arange(10, 38), centre[:, 10:38].T, 1)[0]
    angle = np.degrees(np.arctan(slope))
    assert 9 < np.abs(angle).max() < 10.7
    assert np.abs(angle).mean() == pytest.approx(5, abs=0.6)  # uniform


def test_robust_leaves_some_images_and_compresses_others_hard():
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    out = draws("robust", image, 32, 300).astype(float)
    gap = np.minimum(
        np.abs(out - image).mean((1, 2, 3)), np.abs(out - image[:, ::-1]).mean((1, 2, 3))
    )
    # none of the five happens to .75 * .7 * .8 * .8 * .4 of the images
    assert binomtest(int((gap == 0).sum()), 300, 0.1344).pvalue > 1e-4
    assert (gap > 10).mean() > 0.1


# --- re-compression ---


def colourful(side=64):
    small = np.random.default_rng(2).choice([0, 255], (32, 32, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC))


def by_pillow(pixels, kind, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return np.asarray(Image.open(file).convert("RGB")).astype(int)


def every_step(steps):
    for step in steps:
        yield step
        yield from every_step(getattr(step, "transforms", ()))


@pytest.mark.parametrize("name", PRESETS.names())
def test_what_presets_store_is_what_pillow_stores(name):
    steps = list(every_step(PRESETS.get(name)(32)))
    assert not any(isinstance(step, A.ImageCompression) for step in steps)
    image = colourful()
    for step in steps:
        if type(step).__name__ == "Recompress":
            for quality in {step.quality[0], 75}:
                found = step.apply(image, [("jpeg", quality, "420")]).astype(int)
                wanted = by_pillow(image, "JPEG", quality=quality, subsampling="4:2:0")
                assert np.abs(found - wanted).mean() <= 3


@pytest.mark.parametrize(
    ("kind", "chroma", "options"),
    [
        ("jpeg", "444", {"subsampling": "4:4:4"}),
        ("jpeg", "422", {"subsampling": "4:2:2"}),
        ("webp", "420", {}),
    ],
)
def test_each_pass_is_a_file_of_its_own(kind, chroma, options):
    image, step = colourful(), Recompress((70, 70), p=1.0)
    once = step.apply(image, [(kind, 70, chroma)])
    assert np.abs(once - by_pillow(image, kind, quality=70, **options)).mean() <= 3
    first = step.apply(image, [("jpeg", 40, "420")])
    twice = step.apply(image, [("jpeg", 40, "420"), (kind, 70, chroma)])
    assert np.array_equal(twice, step.apply(first, [(kind, 70, chroma)]))
    assert np.abs(once - by_pillow(image, "jpeg", quality=70, subsampling="4:2:0")).mean() > 5


def test_passes_kinds_chroma_and_quality_are_drawn_evenly():
    (step,) = [s for s in PRESETS.get("share")(32) if isinstance(s, Recompress)]
    A.Compose([step]).set_random_state(np.random.default_rng(0), random.Random(0))
    drawn = [step.get_params()["passes"] for _ in range(3000)]
    lengths = np.bincount([len(passes) for passes in drawn], minlength=4)
    assert lengths[0] == 0
    assert np.abs(lengths[1:] - 1000).max() < 130
    passes = [one for some in drawn for one in some]
    kinds, qualities, chromas = zip(*passes, strict=True)
    assert binomtest(kinds.count("webp"), len(passes), 0.2).pvalue > 1e-4
    assert (min(qualities), max(qualities)) == (40, 95)
    assert {name: round(chromas.count(name) / len(passes), 1) for name in set(chromas)} == {
        "420": 0.3, "422": 0.3, "444": 0.3,
    }  # fmt: skip


def test_a_preset_is_added_with_one_function(monkeypatch):
    monkeypatch.setattr(PRESETS, "_things", dict(PRESETS._things))

    @PRESETS.register("upside_down")
    def upside_down(size: int) -> list:
        return [A.CenterCrop(size, size), A.VerticalFlip(p=1.0)]

    check_augment("upside_down", "native")
    assert "upside_down" in preset_names()
    assert np.array_equal(draws("upside_down", CANVAS, 32, 1)[0], CANVAS[4:36, 4:36][::-1])


@pytest.mark.parametrize(
    "make",
    [
        lambda: A.Downscale(scale_min=0.5, scale_max=0.9),
        lambda: A.GaussianBlur(blur_limits=(3, 5)),
        lambda: A.GaussNoise(var_limit=(10, 50)),
        lambda: A.HorizontalFlip(always_apply=True),
    ],
)
def test_an_old_or_mistyped_argument_is_not_ignored(monkeypatch, make):
    things = {**PRESETS._things, "old": lambda size: [make()]}
    monkeypatch.setattr(PRESETS, "_things", things)
    with pytest.raises((UserWarning, TypeError, ValueError), match="not valid"):
        make_augment("old", 32)


# --- settings ---


def settings() -> list[tuple[str, str, Any]]:
    """Every setting of every preset with the edges of its range, as pydantic holds it."""
    found = []
    for name in preset_names():
        function = (BATCH_PRESETS if name in list(BATCH_PRESETS) else PRESETS).get(name)
        for key, (kind, default) in (keywords_of(function) | {"erase": (Chance, 0.0)}).items():
            schema = TypeAdapter(kind).json_schema()
            low = schema.get("minimum", schema.get("exclusiveMinimum", 0) or 0.01)
            found.append((name, key, (low, schema.get("maximum", 5), default)))
    return found


def test_every_setting_works_at_the_edges_of_its_range_and_no_further():
    for name, key, (low, high, default) in settings():
        for value in (low, high, default):
            if key != "erase" or value != default:
                assert as_seen({"name": name, key: value}, CANVAS, 32, 3).shape == (3, 32, 32, 3)
        for value in (low - 1, high + 1 if high != 5 else 1.5, "much", True):
            with pytest.raises(UserError, match=f"augment: {name}: {key} must be"):
                read_augment({"name": name, key: value})


def test_every_setting_changes_what_is_drawn_but_erase():
    image = np.random.default_rng(5).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    for name, key, (low, high, default) in settings():
        lifted = {"name": name, **CHANCES.get((name, key), {})}
        before = as_seen(lifted | {key: default}, image, 32, 12)
        after = [as_seen(lifted | {key: value}, image, 32, 12) for value in (low, high)]
        assert any(not np.array_equal(before, one) for one in after) == (key != "erase"), (
            name,
            key,
        )


def test_strengths_are_those_that_are_asked_for():
    grey = np.full((32, 32, 3), 100, np.uint8)
    calm = dict.fromkeys(("rotate", "contrast", "saturation", "hue"), 0.0)
    seen = draws({"name": "standard", **calm, "brightness": 0.5}, grey, 32, 400)[:, 0, 0, 0]
    assert 50 <= seen.min() < 55
    assert 145 < seen.max() <= 150
    red = np.broadcast_to(np.array([200, 40, 40], np.uint8), (8, 8, 3)).copy()
    still = dict.fromkeys(("exposure", "noise", "saturation", "value"), 0.0)
    wanted = {"name": "classic", **still, "colour": 1.0, "hue": 0.1}
    drawn = draws(wanted, red, 8, 400)[:, 0, 0] / 255
    hues = np.array([colorsys.rgb_to_hsv(*pixel)[0] for pixel in drawn])
    turned = np.minimum(hues, 1 - hues)
    assert 0.085 < turned.max() < 0.105


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"name": "standard", "hues": 0.1}, "augment: standard: 'hues'; did you mean 'hue'"),
        ({"name": "classic", "rotate": 5.0}, "unknown key in augment: classic: 'rotate'.*contrast"),
        ({"name": "nothing", "flip": 0.1}, "unknown augmentation preset 'nothing'"),
        ({"name": "none", "flip": 0.1}, "unknown key in augment: none: 'flip'.*known: erase"),
        ({"name": "standard", "hue": 0.7, "erase": -1}, "hue must be <= 0.5 .*erase must be >= 0"),
        ({"name": "share", "passes": 1.5}, "passes must be a whole number"),
    ],
)
def test_a_wrong_setting_is_told_from_the_right_ones(asked, words):
    with pytest.raises(UserError, match=words):
        check_augment(asked, "squash")


def test_the_docs_list_every_setting_with_its_default():
    text = (REPO / "docs" / "augmentation.md").read_text()
    for name in preset_names():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{name}`"))
        listed = dict(re.findall(r"`(\w+): ([\d.]+)`", row))
        keywords = keywords_of(read_augment(name).preset.func)
        own = {key: default for key, (_, default) in keywords.items()}
        own |= {"erase": erase} if (erase := read_augment(name).erase) else {}
        assert listed == {key: f"{round(default, 3):g}" for key, default in own.items()}


def test_what_a_title_says():
    assert shown_augment("light") == "light"
    assert shown_augment({"name": "none", "erase": 0.2, "x": 3}) == "none (erase 0.2, x 3)"


def test_a_preset_without_what_resamples_goes_with_native():
    check_augment({"name": "standard", "rotate": 0}, "native")


def test_unknown_preset():
    with pytest.raises(UserError, match="augmentation preset 'standrad'; did you mean 'standard'"):
        check_augment("standrad", "squash")
