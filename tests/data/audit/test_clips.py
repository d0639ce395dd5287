"""What containers say of clips, against what was asked of their writers."""

from pathlib import Path

import numpy as np
import pytest

from src.data.audit.fields import NONE, fields_of
from tests.clips import encode

PICTURES = [np.full((96, 64), 20 + number, np.uint8) for number in range(30)]


def fields(path: Path) -> dict:
    found = fields_of(path.parent, path.name, path.name, path.stat().st_size)
    assert found is not None
    return found


def test_an_mp4_tells_how_it_was_written(tmp_path: Path) -> None:
    params = "keyint=10:scenecut=0"
    found = fields(encode(tmp_path / "a.mp4", PICTURES, params, sound=1, brand="mp42"))
    assert (found["codec"], found["pixel format"]) == ("avc1", "yuv420p")
    assert str(found["codec profile"]).startswith("High 4:4:4 Predictive level ")  # no loss
    assert "x264 core " in str(found["encoder"])
    assert (found["frames"], found["frames between keys"]) == (30, 10)
    assert (found["container brand"], found["handler"]) == ("mp42", "VideoHandler")
    assert (found["audio"], found["sound codec"]) == (1, "mp4a")
    assert str(found["software"]).startswith("Lavf")
    found = fields(encode(tmp_path / "b.mp4", PICTURES, "bframes=0"))
    assert (found["B-frames"], found["audio"]) == (0, 0)


@pytest.mark.parametrize(("name", "kind"), [("a.mkv", "matroska"), ("a.avi", "avi")])
def test_other_containers_tell_it_too(tmp_path: Path, name: str, kind: str) -> None:
    found = fields(encode(tmp_path / name, PICTURES, codec="mpeg4", sound=1))
    assert (found["format"], found["pixel format"], found["audio"]) == (kind, "yuv420p", 1)
    assert found["seconds"] == pytest.approx(1.2, abs=0.1)
    assert str(found["software"]).startswith("Lavf")
    assert found["frames between keys"] == NONE


def test_no_bytes_break_the_reader(tmp_path: Path) -> None:
    data = encode(tmp_path / "a.mp4", PICTURES[:2]).read_bytes()
    start = data.index(b"moov") - 4
    rng = np.random.default_rng(0)
    for at in rng.integers(start, len(data), 60):
        (tmp_path / "b.mp4").write_bytes(data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :])
        fields_of(tmp_path, "b.mp4", "b.mp4", len(data))
    nested = b"".join((8 * level).to_bytes(4, "big") + b"moov" for level in range(2_000, 0, -1))
    (tmp_path / "c.mp4").write_bytes(data + nested)
    assert fields(tmp_path / "c.mp4")["frames"] == 2


@pytest.mark.real
def test_real_clips_say_who_encoded_them(shared_data: Path) -> None:
    """As ffprobe and the encoder's own note in the first frame have it."""
    said = []
    for name in ("real/video.mp4", "real/634.mp4", "fake/brtujopkby.mp4"):
        one = fields(shared_data / "videos" / "train" / name)
        said.append([one[key] for key in ("codec profile", "pixel format", "encoder", "B-frames",
                                          "handler", "sound codec")])  # fmt: skip
    assert said == [
        ["High level 40", "yuv420p", "x264 core 157", 1, "L-SMASH Video Handler", "mp4a"],
        ["High 4:4:4 Predictive level 31", "yuv444p", "x264 core 148", 1, "VideoHandler", ""],
        ["High level 40", "yuv420p", "x264 core 157", 1, "VideoHandler", "mp4a"],
    ]
