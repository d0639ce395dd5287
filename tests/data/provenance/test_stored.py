"""How a JPEG was stored, and what clips carry: tags, texts of generators, XMP."""

import json
import zipfile

import av
import numpy as np
import pytest

from src.data.provenance.read import provenance_of
from tests.clips import encode
from tests.data.provenance.files import TYPES, packet, picture, png, read, said, values
from tests.data.provenance.test_notes import GRAPH

PICTURES = [np.full((96, 64), 20 + number, np.uint8) for number in range(5)]


@pytest.mark.parametrize("quality", [30, 75, 95])
@pytest.mark.parametrize(("code", "chroma"), [(0, "4:4:4"), (2, "4:2:0")])
def test_the_usual_tables_are_named_by_their_quality(tmp_path, quality, code, chroma):
    found = read(tmp_path, picture(quality=quality, subsampling=code, progressive=code == 0))
    how = "progressive" if code == 0 else "baseline"
    (told,) = said(found, field="DQT")
    assert told.value == f"the usual tables of libjpeg at quality {quality}; chroma {chroma}, {how}"
    assert (told.means, told.strength) == ("writer", "hint")


def test_tables_of_their_own_and_of_two_qualities_are_called_so(tmp_path):
    odd = [[7 + k % 5 for k in range(64)], [9] * 64]
    (told,) = said(read(tmp_path, picture(qtables=odd)), field="DQT")
    assert told.means == "own_tables"
    assert told.value.startswith("tables of their own, nearest to libjpeg's of quality ")


def test_segments_of_some_writers_are_named(tmp_path):
    body = b"Ducky\0\1\0\4\0\0\0\x3c\0\0"
    segment = b"\xff\xec" + (len(body) + 2).to_bytes(2, "big") + body
    data = picture()
    found = read(tmp_path, data[:2] + segment + data[2:])
    assert "Save for Web" in values(found, field="APP12 Ducky")[0]


@pytest.mark.parametrize(
    ("data", "name", "fits"),
    [(picture(), "a.jpeg", True), (picture(), "a.png", False), (png(), "a.PNG", True),
     (png(), "a.jpg", False), (picture("tiff"), "a.tif", True), (png(), "a", True)],
)  # fmt: skip
def test_a_name_that_does_not_fit_is_said(tmp_path, data, name, fits):
    assert bool(said(read(tmp_path, data, name), means="renamed")) != fits
    (tmp_path / "upload").write_bytes(data)
    assert bool(said(provenance_of(tmp_path / "upload", name), means="renamed")) != fits


@pytest.mark.parametrize("kind", ["mp4", "mov", "mkv", "avi", "webm"])
def test_a_clip_says_what_wrote_it(tmp_path, kind):
    codec = "libvpx" if kind == "webm" else "libx264"
    path = encode(tmp_path / f"a.{kind}", PICTURES, codec=codec)
    found = read(tmp_path, path.read_bytes(), path.name)
    assert any(value.startswith("Lavf") for value in values(found, means="software"))
    if codec == "libx264":
        assert "x264 core " in values(found, field="encoder of the pictures")[0]


def test_tags_of_phones_and_graphs_in_clips(tmp_path):
    path = tmp_path / "a.mov"
    with av.open(str(path), "w", options={"movflags": "use_metadata_tags"}) as file:
        stream = file.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        file.metadata.update({
            "com.apple.quicktime.make": "Apple", "com.apple.quicktime.model": "iPhone 7",
            "com.apple.quicktime.location.ISO6709": "+48.1+008.2/",
            "comment": json.dumps({"prompt": 1}), "prompt": json.dumps(GRAPH),
            "creation_time": "2026-01-02T03:04:05Z",
        })  # fmt: skip
        for one in PICTURES:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(one, format="yuv420p")))
        file.mux(stream.encode(None))
    found = read(tmp_path, path.read_bytes(), "b.mov")
    assert values(found, means="camera") == ["Apple", "iPhone 7"]
    assert values(found, means="ai_generated") == ["models: sd_xl.safetensors; samplers: euler"]
    assert values(found, means="place") == ["a place is given (not shown)"]
    assert "+48" not in str(found.record())
    assert any(value.startswith("2026-01-02") for value in values(found, means="time"))


def test_xmp_of_a_clip(tmp_path):
    data = packet("", f'Iptc4xmpExt:DigitalSourceType="{TYPES}trainedAlgorithmicMedia"')
    body = bytes.fromhex("be7acfcb97a942e89c71999491e3afac") + data
    box = (len(body) + 8).to_bytes(4, "big") + b"uuid" + body
    path = encode(tmp_path / "a.mp4", PICTURES)
    found = read(tmp_path, path.read_bytes() + box, "b.mp4")
    assert values(found, means="ai_generated") == ["trainedAlgorithmicMedia"]


@pytest.mark.real
def test_real_clips_and_faces_break_no_reader(shared_data, tmp_path):
    clips = sorted((shared_data / "videos").rglob("*.mp4"))
    for path in clips:
        found = provenance_of(path)
        assert found.not_read == {}
        assert any(value.startswith("Lavf") for value in values(found, means="software"))
    with zipfile.ZipFile(shared_data / "liveness" / "replay_b.zip") as file:
        names = [name for name in file.namelist() if name.endswith((".jpg", ".png"))]
        for name in names[::10]:
            assert read(tmp_path, file.read(name), name.rsplit("/", 1)[-1]).not_read == {}
