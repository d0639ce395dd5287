"""Canvases of items: read one by one, or preloaded."""

from types import SimpleNamespace

import numpy as np
import pytest

from src.config import InputSpec
from src.data import images, pixels
from src.data.pixels import Canvas, PixelSource
from src.errors import UserError

SMALL, LARGE = Canvas(16, "squash", "bicubic"), Canvas(24, "short_side", "bilinear")


@pytest.fixture
def folder(tmp_path, make_images):
    make_images(tmp_path, 3, size=(20, 30), suffix=".png", seed=1)
    make_images(tmp_path, 2, size=(40, 17), suffix=".png", stem="tall", seed=2)
    return tmp_path


@pytest.fixture
def names(folder):
    return sorted(path.name for path in folder.glob("*.png"))


@pytest.fixture
def decoded(monkeypatch):
    calls = []
    real = images.decode_image

    def counting(data: bytes):
        calls.append(len(data))
        return real(data)

    monkeypatch.setattr(images, "decode_image", counting)
    return calls


def short_of_memory(monkeypatch, free: int) -> None:
    memory = SimpleNamespace(virtual_memory=lambda: SimpleNamespace(available=free))
    monkeypatch.setattr(pixels, "psutil", memory)


def test_read_is_decode_and_resize(folder, names):
    source = PixelSource(folder, names, [SMALL, LARGE])
    assert len(source) == 5
    for row, name in enumerate(names):
        image = images.decode_image((folder / name).read_bytes())
        small, large = source.read(row)
        assert np.array_equal(small, images.resize_image(image, 16, "squash", "bicubic"))
        assert np.array_equal(large, images.resize_image(image, 24, "short_side", "bilinear"))


def test_equal_canvases_are_made_once(folder, names, decoded):
    source = PixelSource(folder, names, [SMALL, LARGE, SMALL])
    assert source.canvases == [SMALL, LARGE]
    assert len(source.read(0)) == 2
    assert len(decoded) == 1


def test_a_canvas_is_what_a_spec_starts_from():
    spec = InputSpec(224, 256, "short_side", "bilinear", (0, 0, 0), (1, 1, 1))
    assert Canvas.of(spec) == (256, "short_side", "bilinear")


def test_preloaded_pixels_equal_those_read(folder, names, decoded):
    plain = PixelSource(folder, names, [SMALL, LARGE])
    wanted = [plain.read(row) for row in range(len(plain))]
    source = PixelSource(folder, names, [SMALL, LARGE])
    decoded.clear()
    assert source.preload()
    assert len(decoded) == 5
    for row in (4, 0, 3, 0):
        for found, one in zip(source.read(row), wanted[row], strict=True):
            assert found.dtype == np.uint8
            assert np.array_equal(found, one)
    assert len(decoded) == 5  # nothing is decoded again


def test_the_files_are_not_needed_once_preloaded(folder, names):
    source = PixelSource(folder, names, [SMALL])
    before = [source.read(row)[0] for row in range(5)]
    assert source.preload()
    for name in names:
        (folder / name).unlink()
    assert all(np.array_equal(source.read(row)[0], before[row]) for row in range(5))


def test_memory_decides(folder, names, decoded, monkeypatch):
    need = 5 * 3 * (16**2 + 24**2)
    source = PixelSource(folder, names, [SMALL, LARGE])
    short_of_memory(monkeypatch, int(need / pixels.RAM_SHARE) - 10)
    assert not source.preload()
    assert decoded == []
    assert len(source.read(0)) == 2
    assert len(decoded) == 1
    short_of_memory(monkeypatch, int(need / pixels.RAM_SHARE) + 10)
    assert source.preload()


@pytest.mark.parametrize("data", [b"", b"garbage"])
def test_an_unreadable_item(folder, names, data):
    (folder / names[2]).write_bytes(data)
    source = PixelSource(folder, names, [SMALL])
    with pytest.raises(images.UnreadableImageError):
        source.read(2)
    for call in (source.preload, lambda: source.read_or_stop(2)):
        with pytest.raises(UserError, match=names[2]):
            call()
    assert source.read(1)[0].shape == (16, 16, 3)  # the others are there, and not from a half RAM


def test_an_item_that_is_gone_is_named(folder, names):
    (folder / names[1]).unlink()
    source = PixelSource(folder, names, [SMALL])
    with pytest.raises(UserError, match=names[1]):
        source.read(1)


def test_an_empty_source():
    source = PixelSource(pixels.Path(), [], [SMALL])
    assert len(source) == 0
    assert source.preload()
