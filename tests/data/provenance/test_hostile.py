"""Files that lie, break off, or would make a reader eat, run or fetch something."""

import json
import socket
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from src.data.provenance.finding import MEANINGS, MOST_LETTERS, REASONS, STRENGTHS, clean
from src.data.provenance.opened import READERS
from src.data.provenance.read import provenance_of
from tests.clips import encode
from tests.data.provenance.files import chunk, packet, picture, png, read, said, text, values

MARKUP = '<script>alert("x")</script> {{ 7 * 7 }} ${jndi} \x1b[2J \u202egnp.exe\0end'


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)


def fits_its_contract(found):
    for one in found.findings:
        assert one.means in MEANINGS
        assert one.strength in STRENGTHS
        assert len(one.value) <= MOST_LETTERS
        assert len(one.field) <= 80
        for word in (one.field, one.value):
            assert all(c.isprintable() or c == "\n" for c in word)
    strengths = [STRENGTHS.index(one.strength) for one in found.findings]
    assert strengths == sorted(strengths)
    assert set(found.not_read) <= set(READERS)
    assert all(why.partition(": ")[0] in REASONS for why in found.not_read.values())
    json.dumps(found.record())


def test_markup_and_marks_that_turn_writing_around_stay_text(tmp_path):
    exif = Image.Exif()
    exif[0x010F] = MARKUP.replace("\0", "").encode("ascii", "replace").decode()
    found = read(tmp_path, png(text("Comment", MARKUP)), "a.png")
    fits_its_contract(found)
    (value,) = values(found, field="Comment")
    assert value.startswith('<script>alert("x")</script> {{ 7 * 7 }} ${jndi}')
    assert "\u202e" not in value
    fits_its_contract(read(tmp_path, picture(exif=exif)))


@pytest.mark.parametrize(
    "head",
    [
        '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]>',
        '<!DOCTYPE x SYSTEM "http://127.0.0.1:9/x.dtd">',
        '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>',
    ],
)
def test_xmp_that_declares_anything_is_refused(tmp_path, head):
    data = packet("<xmp:CreatorTool>&b;&a;</xmp:CreatorTool>", head=head)
    found = read(tmp_path, picture(xmp=data))
    assert found.not_read["xmp"].startswith("damaged: refused: it declares")
    assert "root:" not in str(found.record())
    assert said(found, source="xmp") == []
    assert said(found, source="jpeg_tables")


def test_xmp_too_deep_too_many_or_broken_keeps_what_came_before(tmp_path):
    tool = "<xmp:CreatorTool>Tool</xmp:CreatorTool>"
    deep = packet(tool + "<xmp:a>" * 100 + "</xmp:a>" * 100)
    broken = packet(tool + "<xmp:a")
    many = packet(tool + "<xmp:CreatorTool>x</xmp:CreatorTool>" * 20_000)
    for data, why in ((deep, "levels deep"), (broken, "no XML"), (many, "too_large: ")):
        found = read(tmp_path, png(text("XML:com.adobe.xmp", data, b"iTXt")), "a.png")
        assert "Tool" in values(found, field="CreatorTool")
        assert len(found.findings) < 500
        assert why in found.not_read["xmp"]


@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt"])
def test_fifty_megabytes_of_text_take_little(tmp_path, kind):
    data = png(text("parameters", b"cat " * (50 * 2**18), kind), text("Comment", "after"))
    start = time.process_time()
    found = read(tmp_path, data, "a.png")
    assert time.process_time() - start < 5
    fits_its_contract(found)
    assert "after" in values(found, field="Comment")
    (long,) = [one.value for one in said(found, field="parameters") if "more letters" in one.value]
    assert len(long) <= MOST_LETTERS


@pytest.mark.parametrize(
    "bad",
    [
        chunk(b"zTXt", b"key\0\0not deflated"), chunk(b"tEXt", b"no key at all"),
        chunk(b"tEXt", b"\0"), chunk(b"iTXt", b"key\0\1\0\0\0zzzz"), chunk(b"eXIf", b"II*\0junk"),
        chunk(b"zTXt", b"key\0\0" + zlib.compress(b"x" * 99)[:-9]),
        text("Raw profile type exif", "exif\n 4\nzz"), text("prompt", '{"1": {"class_type": 3}}'),
        text("prompt", "[" * 100_000), text("workflow", '{"nodes": [null, 3, {"type": {}}]}'),
        text("workflow", '{"nodes": [{"data": 3}]}'),
        text("parameters", '{"sui_image_params": {}}'),
        text("prompt", '{"1": {"class_type": "KSampler", "inputs": [1]}}'),
        text("Comment", '{"prompt": [[[]]], "steps": {"name": {"x": 1}}}'),
    ],
)  # fmt: skip
def test_broken_texts_do_not_hide_the_others(tmp_path, bad):
    found = read(tmp_path, png(bad, text("Comment", "after")), "a.png")
    fits_its_contract(found)
    assert "after" in values(found, field="Comment")


def test_a_file_that_breaks_off_anywhere_says_so_and_no_more(tmp_path):
    exif = Image.Exif()
    exif[0x010F], exif[0x0131] = "Maker", "Tool"
    xmp = packet("", 'xmp:CreatorTool="x"')
    for kind in ("jpeg", "png", "webp", "avif", "tiff", "gif", "bmp"):
        whole = picture(kind, **({"exif": exif, "xmp": xmp} if kind in ("jpeg", "webp") else {}))
        for end in sorted({*range(0, min(64, len(whole)), 7), *range(0, len(whole), 97)}):
            fits_its_contract(read(tmp_path, whole[:end], f"a.{kind}"))


def test_flipped_bytes_break_no_reader(tmp_path):
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + "Steps: 1, x".encode("utf-16-be")
    clip = encode(tmp_path / "a.mp4", [np.full((96, 64), 9, np.uint8)] * 2).read_bytes()
    wholes = {
        "jpg": picture(exif=exif, xmp=packet("", 'xmp:CreatorTool="x"')),
        "png": png(text("parameters", "Steps: 1, x"), text("c", "x", b"zTXt")), "mp4": clip,
        "webp": picture("webp", exif=exif),
    }  # fmt: skip
    rng = np.random.default_rng(0)
    for kind, whole in wholes.items():
        for _ in range(60):
            data = bytearray(whole)
            for at in rng.integers(0, min(len(data), 3000), 3):
                data[at] = rng.integers(0, 256)
            fits_its_contract(read(tmp_path, bytes(data), f"a.{kind}"))


@pytest.mark.parametrize(
    "data",
    [b"", b"hello, this is text\n" * 50, b"\0" * 5000, b"<html></html>", b"PK\3\4" + b"x" * 99],
)  # fmt: skip
def test_what_is_no_picture_is_said_to_be_none(tmp_path, data):
    found = read(tmp_path, data)
    assert found.findings == ()
    assert found.not_read["container"].startswith("unsupported: ")


def test_a_file_that_is_gone_or_a_folder_is_no_error(tmp_path):
    for path in (tmp_path / "gone.jpg", tmp_path):
        found = provenance_of(path)
        assert found.findings == ()
        assert set(found.not_read) == set(READERS)
        assert all(why.startswith("unreadable: ") for why in found.not_read.values())


def test_an_animated_picture_is_read_as_a_picture(tmp_path):
    frames = [Image.new("RGB", (9, 9), (n, 0, 0)) for n in range(3)]
    for kind in ("gif", "webp", "png", "avif"):
        path = tmp_path / f"a.{kind}"
        more = {"comment": b"made by hand"} if kind == "gif" else {}
        frames[0].save(path, save_all=True, append_images=frames[1:], **more)
        found = provenance_of(path)
        assert found.not_read == {}
        if kind == "gif":
            assert values(found, source="comment") == ["made by hand"]


def test_a_picture_of_many_pixels_is_not_decoded(tmp_path):
    data = bytearray(png(text("Comment", "large")))
    at = data.index(b"IHDR")
    data[at + 4 : at + 12] = (30_000).to_bytes(4, "big") * 2
    data[at + 17 : at + 21] = zlib.crc32(data[at : at + 17]).to_bytes(4, "big")
    start = time.process_time()
    found = read(tmp_path, bytes(data), "a.png")
    assert time.process_time() - start < 1
    assert values(found, field="Comment") == ["large"]


def test_a_reader_that_fails_leaves_what_it_had_found(tmp_path, monkeypatch):
    def stumbles(file):
        yield from READERS.get("exif")(file)
        raise KeyError("x")

    monkeypatch.setitem(READERS._things, "xmp", stumbles)
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    found = read(tmp_path, picture(exif=exif))
    assert found.not_read == {"xmp": "damaged: KeyError: 'x'"}
    assert values(found, field="Make") == ["Maker"]


@pytest.mark.parametrize(
    ("value", "most", "wanted"),
    [
        (b"caf\xe9", 9, "café"), ("é".encode(), 9, "é"), ("a\r\nb\rc", 9, "a\nb\nc"), (None, 9, ""),
        ("x" * 100, 40, "x" * 16 + " [... 60 more letters]"), ("a\0b", 9, "a b"),
    ],
)  # fmt: skip
def test_words_are_cleaned_and_cut(value, most, wanted):
    got = clean(value, most)
    assert len(got) <= most
    assert got == wanted or (got.startswith("x") and "more letters]" in got)
