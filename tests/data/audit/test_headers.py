"""Headers of pictures and clips against files whose answers are known."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from src.data.audit.fields import FIELDS, NONE, fields_of
from src.data.audit.pictures import ORDINARY, nearest_quality, read_picture
from src.data.audit.texts import name_fields

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)


def saved(kind: str, pixels: np.ndarray = PIXELS, **options: object) -> io.BytesIO:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)  # type: ignore[arg-type]
    buffer.seek(0)
    return buffer


@pytest.mark.parametrize("quality", [1, 2, 30, 50, 75, 90, 99, 100])
def test_the_quality_of_a_jpeg_is_found_from_its_tables(quality: int) -> None:
    found = read_picture(saved("jpeg", quality=quality))
    assert found is not None
    assert (found.tables.quality, found.tables.name) == (quality, ORDINARY)
    assert (found.tables.chroma_quality, found.tables.number) == (quality, 2)
    assert (found.width, found.height, found.progressive) == (40, 24, 0)


@pytest.mark.parametrize(("code", "name"), [(0, "4:4:4"), (1, "4:2:2"), (2, "4:2:0")])
def test_chroma_and_progressive_are_told(code: int, name: str) -> None:
    found = read_picture(saved("jpeg", subsampling=code, progressive=True))
    assert found is not None
    assert (found.subsampling, found.progressive) == (name, 1)


def test_tables_of_another_maker_have_a_name_of_their_own() -> None:
    odd = [[7 + k % 5 for k in range(64)], [9] * 64]
    found, again = (read_picture(saved("jpeg", qtables=odd)) for _ in range(2))
    assert found is not None
    assert found == again
    assert found.tables.name not in ("", ORDINARY)
    assert found.tables.luma == pytest.approx(np.mean(odd[0]))
    assert nearest_quality(np.array(odd[0]))[1] is False


def test_exif_and_texts_are_read() -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x0131] = "Canon", "EOS 5", "GIMP 2.10"
    found = read_picture(saved("jpeg", exif=exif))
    assert found is not None
    assert (found.exif, found.camera, found.software) == (1, "Canon EOS 5", "GIMP 2.10")
    texts = PngImagePlugin.PngInfo()
    texts.add_text("parameters", "a cat, 20 steps")
    texts.add_text("Software", "NovelAI")
    found = read_picture(saved("png", pnginfo=texts))
    assert found is not None
    assert (found.texts, found.software) == ("Software parameters", "NovelAI")
    assert found.notes == "parameters: a cat, # steps"
    assert (found.tables.quality, found.tables.name, found.subsampling) == (-1, "", "")


def test_no_picture_has_no_header() -> None:
    for data in (b"", b"hello", saved("png").getvalue()[:20], b"\xff\xd8\xff\xe0"):
        assert read_picture(io.BytesIO(data)) is None


def clip(folder: Path, name: str, frames: int = 10, fps: float = 12.5) -> Path:
    path = folder / name
    code = "mp4v" if name.endswith("mp4") else "MJPG"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), fps, (64, 48))
    for number in range(frames):
        writer.write(np.full((48, 64, 3), 20 * number, np.uint8))
    writer.release()
    return path


@pytest.mark.parametrize("name", ["x.mp4", "x.avi"])
def test_a_clip_tells_its_length_and_rate(tmp_path: Path, name: str) -> None:
    path = clip(tmp_path, name)
    size = path.stat().st_size
    found = fields_of(tmp_path, name, f"fake/{name}", size)
    assert found is not None
    assert (found["width"], found["height"], found["frames"]) == (64, 48, 10)
    assert found["seconds"] == pytest.approx(0.8)
    assert found["frames a second"] == pytest.approx(12.5)
    assert found["kbit a second"] == pytest.approx(8e-3 * size / 0.8)
    assert found["audio"] == 0
    assert found["JPEG quality"] == NONE
    assert str(found["codec"]).lower() in ("mp4v", "mjpg")
    assert str(found["software"]).startswith("Lavf") or name == "x.avi"


def test_a_clip_without_its_index_has_no_header(tmp_path: Path) -> None:
    path = clip(tmp_path, "x.mp4")
    data = path.read_bytes()
    path.write_bytes(data[: data.rindex(b"moov") - 4])
    assert fields_of(tmp_path, "x.mp4", "x.mp4", 99) is None


def test_a_name_is_looked_at_without_its_folders() -> None:
    found = name_fields("fake/seq_7/IMG_0042 (3).JPG", "fake/seq_7/IMG_0042 (3).JPG")
    assert found == {
        "extension": ".JPG",
        "name length": 12.0,
        "digits in the name": pytest.approx(5 / 12),
        "number in the name": 3.0,
        "name prefix": "img",
        "name pattern": "IMG_# (#)",
    }
    assert name_fields("portrait", "a/portrait.png")["number in the name"] == NONE
    assert name_fields("portrait", "a/portrait.png")["extension"] == ".png"


def test_every_field_has_a_value_whatever_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(saved("png").getvalue())
    clip(tmp_path, "b.mp4")
    (tmp_path / "c.png").write_bytes((tmp_path / "b.mp4").read_bytes())  # a clip, says its content
    for name, kind in (("a.png", "png"), ("b.mp4", "mp4"), ("c.png", "mp4")):
        found = fields_of(tmp_path, name, name, 1000)
        assert found is not None
        assert found["format"] == kind
        assert set(found) == {field.name for field in FIELDS}
        assert all(isinstance(found[f.name], str) == f.words for f in FIELDS)
