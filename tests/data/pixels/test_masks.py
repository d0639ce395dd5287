"""A mask lies where its picture does, whatever brought both there; bad masks count as none."""

import logging

import cv2
import numpy as np
import pytest
from PIL import Image

from src.config import FaceConfig
from src.data.pixels.images import GEOMETRIES, Canvas
from src.data.pixels.masks import MaskReader, decode_mask, lay_over
from src.data.pixels.reader import ItemReader
from src.errors import UnreadableImageError
from src.faces.crop import Face
from tests.faces_stub import Red, use_red

HEIGHT, WIDTH = 90, 130


class Tilted(Red):
    """Gives a face five points, turned by a fifth, that only its picture tells exactly."""

    def exact(self, picture, face):
        assert picture.shape[2] == 3
        x0, y0, x1, y1 = face.box
        middle, side = (x0 + x1) / 2 + 1j * (y0 + y1) / 2, x1 - x0
        spots = np.array([-0.2 - 0.2j, 0.2 - 0.2j, 0, -0.15 + 0.25j, 0.15 + 0.25j])
        turned = middle + side * spots * np.exp(0.2j)
        return Face(face.box, face.score, tuple((float(p.real), float(p.imag)) for p in turned))


@pytest.fixture
def pair(artefact_root, monkeypatch):
    """A picture whose blue channel is its mask, with a red face; its folder and the mask."""
    use_red(monkeypatch)
    monkeypatch.setattr("src.data.pixels.faces.detector_of", lambda _: Tilted(None))
    root = artefact_root / "input" / "set"
    root.mkdir(parents=True)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[30:48, 50:101] = 255
    mask = cv2.GaussianBlur(mask, (0, 0), 2.0)
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    picture[20:64, 40:84, 0] = 255
    picture[..., 2] = mask
    Image.fromarray(picture).save(root / "x.png")
    Image.fromarray(mask).save(root / "m.png")
    return root, mask


def reader(root, canvas, masks=("m.png",), pictures=("x.png",)):
    return MaskReader(ItemReader(root, list(pictures), [canvas]), list(masks))


@pytest.mark.parametrize("size", [24, 200])
@pytest.mark.parametrize("face", [None, FaceConfig("red"), FaceConfig("red", align=True)])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_a_mask_is_where_its_picture_is(pair, geometry, face, size):
    root, _ = pair
    for interpolation in ("bilinear", "bicubic"):
        source = ItemReader(root, ["x.png"], [Canvas(size, geometry, interpolation, None, face)])
        shown = source.image(0)[0][0][..., 2]
        found = MaskReader(source, ["m.png"]).read(0)
        assert found is not None
        assert found.shape == (size, size)
        assert 0 < (found > 128).mean() < 1
        if interpolation == "bilinear":
            assert np.array_equal(found, shown)
        else:  # which rings: a mask does not
            assert np.abs(found.astype(int) - shown).mean() < 4
            assert ((found > 128) == (shown > 128)).mean() > 0.99


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_a_mask_of_another_size_is_laid_over_its_picture(pair, scale):
    root, mask = pair
    size = round(WIDTH * scale), round(HEIGHT * scale)
    Image.fromarray(cv2.resize(mask, size)).save(root / "other.png")
    canvas = Canvas(64, "native", "bilinear", None, FaceConfig("red"))
    own, other = (reader(root, canvas, [name]).read(0) for name in ("m.png", "other.png"))
    assert own is not None
    assert other is not None
    assert np.abs(own.astype(int) - other).mean() < 2


def test_shapes_within_a_pixel_or_a_hundredth():
    lay_over(np.zeros((99, 100), np.uint8), 500, 500)
    lay_over(np.zeros((10, 14), np.uint8), 33, 45)
    with pytest.raises(UnreadableImageError, match="mask has 100x98 pixels, its picture 500x500"):
        lay_over(np.zeros((98, 100), np.uint8), 500, 500)


def stored(tmp_path, values, name, **more):
    Image.fromarray(values, **more).save(tmp_path / name)
    return decode_mask((tmp_path / name).read_bytes())


def test_what_counts_at_any_depth(tmp_path):
    grey = np.zeros((4, 6), np.uint8)
    grey[1:3, 2:5] = [[255, 128, 0], [255, 51, 1]]
    assert np.array_equal(stored(tmp_path, grey, "grey.png"), grey)
    binary = (grey > 0).astype(np.uint8)
    for values in (binary, binary > 0, binary.astype(np.float32), binary.astype(np.uint16)):
        name = "m.tif" if values.dtype == np.float32 else "m.png"
        assert np.array_equal(stored(tmp_path, values, name), 255 * binary)
    deep = grey.astype(np.uint16)
    assert np.array_equal(stored(tmp_path, deep, "deep8.png"), grey)
    assert np.array_equal(stored(tmp_path, deep * 257, "deep.png"), grey)
    share = grey.astype(np.float32) / 255
    assert np.array_equal(stored(tmp_path, share, "share.tif"), grey)
    # Any colour counts by its largest channel, what is transparent not at all.
    colour = np.zeros((4, 6, 4), np.uint8)
    colour[..., 2], colour[..., 3] = grey, 255
    colour[0, 0] = (255, 255, 255, 0)
    assert np.array_equal(stored(tmp_path, colour, "colour.png"), grey)
    palette = Image.fromarray(binary, "P")
    palette.putpalette([0, 0, 0, 90, 0, 200])
    palette.save(tmp_path / "p.png")
    assert np.array_equal(decode_mask((tmp_path / "p.png").read_bytes()), 200 * binary)


def test_masks_that_cannot_be_used_count_as_none(pair, caplog, monkeypatch):
    root, mask = pair
    bad = {
        "wide.png": mask[:40], "empty.png": np.zeros_like(mask), "cut.png": mask,
        "index.png": np.minimum(mask, 2), "fine.png": mask, "real.png": mask, "zero.png": 0 * mask,
    }  # fmt: skip
    for name, values in bad.items():
        Image.fromarray(values).save(root / name)
    (root / "cut.png").write_bytes((root / "cut.png").read_bytes()[:200])
    (root / "text.png").write_text("no picture")
    names = [*bad, "text.png", "", ""]
    labels = np.array([1, 1, 1, 1, 1, 0, 0, 1, 1, 0])
    pictures = ["x.png"] * 9 + ["clip.mp4"]
    found = reader(root, Canvas(32, "squash", "bicubic"), [*names[:-1], "m.png"], pictures)
    with caplog.at_level(logging.WARNING):
        found.preload(labels)
    monkeypatch.setattr("src.data.pixels.masks.read_bytes", None)  # all is in memory
    assert [found.read(item) is not None for item in range(10)] == [False] * 4 + [True] + [
        False
    ] * 5
    first, second = (record.getMessage() for record in caplog.records)
    assert "1 reals have one that is not empty" in first
    assert first.endswith("real.png")
    assert "5 of 6 cannot be used, their items count as having none: wide.png" in second
    assert "130x40 pixels, its picture 130x90, of another shape" in second
    assert "empty.png: the mask is empty where the model looks" in second
    assert found.problems[3].startswith(
        "its largest value is 2 of 255: an index mask? 0/1 or 0..255"
    )
    assert sorted(found.problems) == [0, 1, 2, 3, 7]


def test_the_picture_is_turned_upright_first(pair):
    """A JPEG that lies on its side has the shape of its mask once it is upright."""
    root, _ = pair
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    lying = Image.open(root / "x.png").transpose(Image.Transpose.ROTATE_90)
    for name in ("side.jpg", "side.png"):
        lying.save(root / name, exif=exif, quality=95)
        canvas = Canvas(48, "short_side", "bilinear")
        source = ItemReader(root, [name], [canvas])
        found, shown = MaskReader(source, ["m.png"]).read(0), source.image(0)[0][0][..., 2]
        assert found is not None
        assert ((found > 128) == (shown > 128)).mean() > 0.98
