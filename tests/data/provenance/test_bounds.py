"""Small files that would unpack, claim or repeat themselves to fill memory and time."""

import time
import tracemalloc
import zlib

import numpy as np
import pytest

from src.data.provenance.jpeg_segments import read_jpeg
from src.data.provenance.opened import OpenedFile
from src.data.provenance.png_chunks import MOST_BYTES, MOST_KEPT
from tests.clips import encode
from tests.data.provenance.files import chunk, packet, picture, png, read, said, text, values

MB = 2**20
XMP_BOX = b"uuid" + bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
EXTENSION = b"http://ns.adobe.com/xmp/extension/\0"
FIRST = text("Software", "first")


def measured(folder, data, name="a.png"):
    """Return what is read of a file, the most megabytes that it took, and its seconds."""
    tracemalloc.start()
    start = time.process_time()
    try:
        found = read(folder, data, name)
        return found, tracemalloc.get_traced_memory()[1] / MB, time.process_time() - start
    finally:
        tracemalloc.stop()


def xmp(data: bytes) -> bytes:
    return text("XML:com.adobe.xmp", data, b"iTXt")


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2, "big") + body


def jpeg(*segments: bytes) -> bytes:
    data = picture()
    return data[:2] + b"".join(segments) + data[2:]


BROKEN = chunk(b"zTXt", b"key\0\0" + zlib.compress(b"x" * (MOST_BYTES - MB))[:-4] + b"zzzz")
MANY = {
    "long": text("Comment", b"x" * MOST_BYTES, b"zTXt") * 60,
    "words": text("Software", b"ab " * (MOST_BYTES // 3), b"zTXt") * 60,
    "wide": text("Comment", "😀".encode() + b"x" * (MOST_BYTES - 9), b"zTXt") * 60,
    "xmp": text("XML:com.adobe.xmp", b" " * MOST_BYTES, b"zTXt") * 60,
    "profiles": text("Raw profile type xmp", b"\nxmp\n 1\n" + b"61" * (4 * MB - 9), b"zTXt") * 60,
    "broken": BROKEN * 300,
    "short": text("Comment", "x") * 3000,
}


@pytest.mark.parametrize("what", MANY)
def test_texts_of_a_png_have_one_room_together(tmp_path, what):
    found, most, seconds = measured(tmp_path, png(FIRST, MANY[what]))
    assert values(found, field="Software")[0] == "first"
    assert found.not_read["png_text"].startswith("too_large: ")
    assert found.not_read["xmp"].startswith("too_large: ")
    assert most < 4 * MOST_KEPT / MB
    assert seconds < 5


def test_more_texts_than_are_shown_are_said_to_be_more(tmp_path):
    found = read(tmp_path, png(*(text("Comment", f"{k}") for k in range(70))), "a.png")
    assert len(values(found, field="Comment")) == 60
    assert found.not_read["png_text"] == "too_large: 70 texts; the first 60 are read"


def test_what_stands_behind_thousands_of_pixel_chunks_is_read(tmp_path):
    data = png(chunk(b"IDAT", b"") * 20_000, behind=text("Comment", "last"))
    assert values(read(tmp_path, data, "a.png"), field="Comment") == ["last"]


@pytest.mark.parametrize(
    "graph",
    [
        b'{"a":[' + b"{}," * (2 * MB) + b"{}]}",
        b'{"1":{"class_type":"' + b"x" * MB + b'","inputs":{'
        + b",".join(b'"%d":"a"' % k for k in range(50_000)) + b"}}}",
        b'{"nodes":[{"type":' + b"[" * 900 + b"]" * 900 + b"}]}",
        b'{"AIGC":{"Label":' + b"[" * 900 + b"]" * 900 + b"}}",
        b"Steps: 1," + b" " * 200_000 + b"x",
    ],
)  # fmt: skip
def test_graphs_and_settings_take_little(tmp_path, graph):
    found, most, seconds = measured(tmp_path, png(text("prompt", graph, b"zTXt") * 4))
    assert said(found, field="prompt")
    assert "png_text" not in found.not_read
    assert (most < 100, seconds < 5) == (True, True)


TOOL = packet("<xmp:CreatorTool>Tool</xmp:CreatorTool>")
NAMES = b" ".join(b'a:b%d=""' % k for k in range(4000))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b'<x xmlns:a="' + b"u" * 100_000 + b'">' + b"<a:b>1</a:b>" * 4000 + b"</x>", None),
        (b'<x xmlns:a="' + b"u" * 100_000 + b'" ' + NAMES + b"/>", None),
        (b"<x " + b" ".join(b'a%d=""' % k for k in range(200_000)) + b"/>", "attributes"),
        (b"<x>" + b"<a/>" * MB + b"</x>", "more properties"),
    ],
)
def test_xmp_of_few_bytes_and_many_names_takes_little(tmp_path, data, why):
    found, most, seconds = measured(tmp_path, png(xmp(TOOL), xmp(data)))
    assert values(found, field="CreatorTool") == ["Tool"]
    assert (why in found.not_read["xmp"]) if why else found.not_read == {}
    assert most < 60
    assert seconds < 5


def test_the_length_that_an_extension_claims_is_not_taken_on_trust(tmp_path):
    claims = [
        segment(0xE1, EXTENSION + b"%032d" % k + MOST_BYTES.to_bytes(4, "big") + b"\0\0\0\0x")
        for k in range(9)
    ]
    found, most, _ = measured(tmp_path, jpeg(*claims), "a.jpg")
    assert found.not_read == {}
    assert most < 5


@pytest.mark.parametrize(
    ("marker", "mark"), [(0xE1, b"Exif\0\0"), (0xED, b"Photoshop 3.0\0"), (0xFE, b"")]
)
def test_many_segments_of_a_jpeg_are_bounded_together(tmp_path, marker, mark):
    one = segment(marker, mark + b"x" * 8000)
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg(one * (MOST_KEPT // 8000 + 9)))
    start = time.process_time()
    with path.open("rb") as file:
        found = read_jpeg(file)
    assert time.process_time() - start < 2
    assert found.problem.startswith("too_large: ")
    assert sum(map(len, (found.exif, found.resources, *found.comments))) <= MOST_KEPT


def test_boxes_of_a_clip_are_bounded_together(tmp_path):
    clip = encode(tmp_path / "b.mp4", [np.full((96, 64), 9, np.uint8)] * 2).read_bytes()
    short = (23).to_bytes(4, "big") + XMP_BOX[:15]  # too short for what it says it is
    rest = (40 * MB).to_bytes(4, "big") + b"free" + bytes(40 * MB - 8)
    large = (MOST_BYTES + 24).to_bytes(4, "big") + XMP_BOX + b" " * MOST_BYTES
    for tail, packets in ((short + rest, 0), (large * 6, 4)):
        path = tmp_path / "a.mp4"
        path.write_bytes(clip + tail)
        tracemalloc.start()
        found = OpenedFile(path).notes.xmp
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len([one for one in found if one]) == packets
        assert most < 1.5 * MOST_KEPT
