"""Headers of pictures and clips against files whose answers are known."""

import io

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from src.data.audit.fields import FIELDS, NONE, fields_of
from src.data.audit.headers import ORDINARY, name_fields, picture_fields
from tests.clips import encode, write_clip

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
PICTURES = [np.full((96, 64), 20 + number, np.uint8) for number in range(30)]


def saved(kind, **options):
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, kind, **options)
    buffer.seek(0)
    return buffer


def of_picture(kind, **options):
    found = picture_fields(saved(kind, **options))
    assert found is not None
    return found


def of_file(path, item_id="x"):
    return fields_of(path.parent, path.name, item_id, path.stat().st_size)


@pytest.mark.parametrize("quality", [1, 2, 30, 50, 75, 90, 99, 100])
def test_the_quality_of_a_jpeg_is_found_from_its_tables(quality):
    found = of_picture("jpeg", quality=quality)
    assert (found["JPEG quality"], found["JPEG chroma quality"]) == (quality, quality)
    assert (found["JPEG tables"], found["JPEG progressive"]) == (ORDINARY, 0)
    assert (found["width"], found["height"]) == (40, 24)


@pytest.mark.parametrize(("code", "name"), [(0, "4:4:4"), (1, "4:2:2"), (2, "4:2:0")])
def test_chroma_and_progressive_are_told(code, name):
    found = of_picture("jpeg", subsampling=code, progressive=True)
    assert (found["JPEG chroma"], found["JPEG progressive"]) == (name, 1)


def test_tables_of_another_maker_have_a_name_of_their_own():
    odd = [[7 + k % 5 for k in range(64)], [9] * 64]
    found = of_picture("jpeg", qtables=odd)
    assert found == of_picture("jpeg", qtables=odd)
    assert found["JPEG tables"] not in ("", ORDINARY)


def test_exif_and_texts_are_read():
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x0131] = "Canon", "EOS 5", "GIMP 2.10"
    found = of_picture("jpeg", exif=exif)
    assert (found["camera"], found["software"]) == ("Canon EOS 5", "GIMP 2.10")
    assert found["EXIF tags"] == "Make Model Software"
    assert found["parts of the file"] == "APP0(JFIF) APP1(Exif)"
    texts = PngImagePlugin.PngInfo()
    texts.add_text("parameters", "a cat, 20 steps")
    texts.add_text("Software", "NovelAI")
    found = of_picture("png", pnginfo=texts)
    assert (found["parts of the file"], found["software"]) == ("Software parameters", "NovelAI")
    assert found["notes"] == "parameters: a cat, # steps"
    assert not any(name.startswith("JPEG") for name in found)


def test_no_picture_has_no_header():
    for data in (b"", b"hello", saved("png").getvalue()[:20], b"\xff\xd8\xff\xe0"):
        assert picture_fields(io.BytesIO(data)) is None


def test_an_mp4_tells_how_it_was_written(tmp_path):
    params = "keyint=10:scenecut=0"
    found = of_file(encode(tmp_path / "a.mp4", PICTURES, params, sound=1, brand="mp42"))
    assert (found["codec"], found["pixel format"]) == ("avc1", "yuv420p")
    assert found["codec profile"].startswith("High 4:4:4 Predictive level ")  # no loss
    assert "x264 core " in found["encoder"]
    assert (found["frames"], found["frames between keys"]) == (30, 10)
    assert (found["container brand"], found["handler"]) == ("mp42", "VideoHandler")
    assert found["sound codec"] == "mp4a"
    assert found["software"].startswith("Lavf")


@pytest.mark.parametrize(("name", "kind"), [("a.mkv", "matroska"), ("a.avi", "avi")])
def test_other_containers_tell_it_too(tmp_path, name, kind):
    found = of_file(encode(tmp_path / name, PICTURES, codec="mpeg4", sound=1))
    assert (found["format"], found["pixel format"]) == (kind, "yuv420p")
    assert found["sound codec"] != ""
    assert found["seconds"] == pytest.approx(1.2, abs=0.1)
    assert found["software"].startswith("Lavf")
    assert found["frames between keys"] == NONE


def test_sound_of_an_unknown_codec_is_none(tmp_path):
    data = encode(tmp_path / "a.avi", PICTURES[:2], codec="mpeg4", sound=1).read_bytes()
    at = data.index(b"strf", data.index(b"auds")) + 8  # the number of its format
    path = tmp_path / "b.avi"
    path.write_bytes(data[:at] + b"\x99\x99" + data[at + 2 :])
    assert of_file(path)["sound codec"] == ""


@pytest.mark.parametrize(("name", "codec"), [("x.mp4", "mp4v"), ("x.avi", "MJPG")])
def test_a_clip_tells_its_length_and_rate(tmp_path, name, codec):
    path = write_clip(tmp_path / name, 10, size=(48, 64), fps=12.5, codec=codec)
    found = of_file(path)
    assert (found["width"], found["height"], found["frames"]) == (64, 48, 10)
    assert found["seconds"] == pytest.approx(0.8)
    assert found["frames a second"] == pytest.approx(12.5)
    assert found["kbit a second"] == pytest.approx(8e-3 * path.stat().st_size / 0.8)
    assert (found["sound codec"], found["JPEG quality"]) == ("", NONE)
    assert found["codec"].lower() == codec.lower()


def test_no_bytes_break_the_reader(tmp_path):
    data = encode(tmp_path / "a.mp4", PICTURES[:2]).read_bytes()
    start, path = data.index(b"moov") - 4, tmp_path / "b.mp4"
    for at in np.random.default_rng(0).integers(start, len(data), 60):
        path.write_bytes(data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :])
        of_file(path)
    nested = b"".join((8 * level).to_bytes(4, "big") + b"moov" for level in range(2_000, 0, -1))
    path.write_bytes(data + nested)
    assert of_file(path)["frames"] == 2
    path.write_bytes(data[:start])  # its index is lost
    assert of_file(path) is None


def test_a_name_is_looked_at_without_its_folders():
    assert name_fields("fake/seq_7/IMG_0042 (3).JPG", "fake/seq_7/IMG_0042 (3).JPG") == {
        "extension": ".JPG", "name length": 12.0, "number in the name": 3.0,
        "name pattern": "IMG_# (#)",
    }  # fmt: skip
    found = name_fields("portrait", "a/portrait.png")
    assert (found["number in the name"], found["extension"]) == (NONE, ".png")


def test_every_field_has_a_value_whatever_the_file(tmp_path):
    (tmp_path / "a.png").write_bytes(saved("png").getvalue())
    write_clip(tmp_path / "b.mp4", 3)
    (tmp_path / "c.png").write_bytes((tmp_path / "b.mp4").read_bytes())  # a clip, says its content
    for name, kind in (("a.png", "png"), ("b.mp4", "mp4"), ("c.png", "mp4")):
        found = of_file(tmp_path / name)
        assert found["format"] == kind
        assert set(found) == {field.name for field in FIELDS}
        assert all(isinstance(found[f.name], str) == f.words for f in FIELDS)


@pytest.mark.real
def test_real_clips_say_who_encoded_them(shared_data):
    """As ffprobe and the encoder's own note in the first frame have it."""
    said = []
    for name in ("real/video.mp4", "real/634.mp4", "fake/brtujopkby.mp4"):
        one = of_file(shared_data / "videos" / "train" / name)
        said.append([one[k] for k in ("codec profile", "pixel format", "encoder", "handler",
                                      "sound codec")])  # fmt: skip
    assert said == [
        ["High level 40", "yuv420p", "x264 core 157", "L-SMASH Video Handler", "mp4a"],
        ["High 4:4:4 Predictive level 31", "yuv444p", "x264 core 148", "VideoHandler", ""],
        ["High level 40", "yuv420p", "x264 core 157", "VideoHandler", "mp4a"],
    ]
