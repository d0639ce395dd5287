"""Clips that are damaged, cut off, or whole under a header that misleads; greys tell the frames."""

import struct

import cv2
import numpy as np
import pytest

from src.data import video, video_decoders
from src.data.video import probe, read_frames, spaced
from src.data.video_decoders import UnreadableVideoError
from tests.clips import grey_of, index_first, write_clip

COUNT = 24
WRITTEN = {
    "a.mkv": "mp4v",
    "b.mkv": "MJPG",
    "a.webm": "VP80",
    "a.avi": "MJPG",
    "b.avi": "mp4v",
    "a.flv": "FLV1",
}


def greys(clip):
    return [grey_of(frame) for frame in clip.frames]


def pictures(data):
    """Return where each JPEG of a clip begins."""
    return [at for at in range(len(data)) if data[at : at + 3] == b"\xff\xd8\xff"]


def part(data, share):
    """Return where so much of a file's frames has passed; an AVI begins with 6 kB of header."""
    start = max(data.find(b"movi"), 0)
    return start + round(share * (len(data) - start))


def overwrite(path, numbers):
    """Put zeros in place of the frames of these numbers, JPEGs."""
    data = bytearray(path.read_bytes())
    starts = pictures(data)
    for number in numbers:
        end = data.index(b"\xff\xd9", starts[number]) + 2
        data[starts[number] : end] = bytes(end - starts[number])
    path.write_bytes(data)


@pytest.fixture(params=["opencv", "pyav"])
def decoder(request):
    if request.param == "pyav":
        pytest.importorskip("av")
    return request.param


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
@pytest.mark.parametrize(
    "bad", [[7], [0, 1, 2], [5, 6, 7, 8, 9, 20], [23], [18, 19, 20, 21, 22, 23]]
)
def test_behind_packets_that_cannot_be_decoded_good_ones_are_read(tmp_path, decoder, name, bad):
    path = write_clip(tmp_path / name, COUNT, codec="MJPG")
    overwrite(path, bad)
    good = [number for number in range(COUNT) if number not in bad]
    clip = read_frames(path, 5, decoder=decoder)
    assert clip.decoded == len(good)
    assert clip.indices.tolist() == spaced(len(good), 5).tolist()
    assert greys(clip) == [good[place] for place in spaced(len(good), 5)]
    if bad == [23]:
        assert clip.problem == ""  # as many as containers count wrongly
    else:
        assert clip.problem.startswith(f"decoded {len(good)} of 24 frames")


def test_a_hole_longer_than_any_patience_is_crossed_where_more_must_come(tmp_path):
    path = write_clip(tmp_path / "a.mp4", 100, codec="MJPG", low=30, step=2)
    overwrite(path, range(10, 95))
    clip = read_frames(path, 100)
    shown = [30 + 2 * number for number in (*range(10), *range(95, 100))]
    np.testing.assert_allclose([frame.mean() for frame in clip.frames], shown, atol=3)
    assert clip.problem == "decoded 15 of 100 frames"


def test_where_nothing_can_be_decoded_it_ends(tmp_path):
    path = write_clip(tmp_path / "a.mp4", COUNT, codec="MJPG")
    overwrite(path, range(COUNT))
    with pytest.raises(UnreadableVideoError, match="0 of 24 announced frames"):
        read_frames(path, 4)


def test_a_damaged_clip_gives_what_a_full_decode_gives(tmp_path):
    rng = np.random.default_rng(0)
    path = write_clip(tmp_path / "a.mp4", COUNT, size=(64, 64))
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    for at in rng.integers(start + 60, start + 900, 12):
        data[at] ^= 255
    path.write_bytes(data)
    capture, every, failed = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG), [], 0
    for _ in range(4 * COUNT):
        fine, frame = capture.read()
        failed += not fine and len(every) < COUNT
        if fine:
            every.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
    clip = read_frames(path, 9)
    assert clip.indices.tolist() == spaced(len(every), 9).tolist()
    for frame, index in zip(clip.frames, clip.indices, strict=True):
        np.testing.assert_array_equal(frame, every[index])


@pytest.mark.parametrize("share", [0.5, 0.85])
@pytest.mark.parametrize("name", WRITTEN)
def test_a_file_that_was_cut_off_is_named(tmp_path, decoder, name, share):
    path = write_clip(tmp_path / name, COUNT, size=(64, 64), codec=WRITTEN[name])
    whole = path.read_bytes()
    assert read_frames(path, 4, decoder=decoder).problem == ""
    path.write_bytes(whole[: part(whole, share)])
    clip = read_frames(path, 4, decoder=decoder)
    assert greys(clip) == clip.indices.tolist() == spaced(clip.decoded, 4).tolist()
    if clip.decoded < COUNT - 2:
        assert clip.problem.startswith(f"decoded {clip.decoded} ")


@pytest.mark.parametrize("name", WRITTEN)
def test_a_file_whose_end_is_blank_is_named(tmp_path, decoder, name):
    path = write_clip(tmp_path / name, COUNT, size=(64, 64), codec=WRITTEN[name])
    whole = path.read_bytes()
    end = part(whole, 0.5)
    path.write_bytes(whole[:end] + bytes(len(whole) - end))
    clip = read_frames(path, 4, decoder=decoder)
    assert clip.decoded < COUNT - 2
    assert clip.problem.startswith(f"decoded {clip.decoded} ")


def lasting(path, seconds):
    """Write another duration, of the longest stream, into a Matroska header."""
    data = bytearray(path.read_bytes())
    at = data.index(b"\x44\x89\x88") + 3
    data[at : at + 8] = struct.pack(">d", 1000 * seconds)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(("name", "codec"), [("a.mkv", "mp4v"), ("a.webm", "VP80")])
def test_sound_that_outlasts_the_picture_is_no_damage(tmp_path, decoder, name, codec):
    path = lasting(write_clip(tmp_path / name, COUNT, codec=codec), 3.0)
    assert probe(path, decoder).announced == 75
    clip = read_frames(path, 4, decoder=decoder)
    assert greys(clip) == clip.indices.tolist() == [3, 9, 15, 21]
    assert (clip.announced, clip.decoded, clip.problem) == (75, COUNT, "")


def test_a_header_that_announces_hours_does_not_keep_the_frames_from_being_read(tmp_path, decoder):
    path = lasting(write_clip(tmp_path / "a.mkv", COUNT), 6 * 3600.0)
    clip = read_frames(path, 4, decoder=decoder)
    assert greys(clip) == [3, 9, 15, 21]
    assert clip.problem == "decoded 24 frames of a clip whose header announces 6.0 hours"


def edited(path, first, count):
    """Let the edit list of an mp4 show `count` frames from the one numbered `first`."""
    data = bytearray(path.read_bytes())
    ticks = struct.unpack_from(">I", data, data.index(b"mdhd") + 16)[0]
    movie = struct.unpack_from(">I", data, data.index(b"mvhd") + 16)[0]
    entry = (count * movie // 25, first * ticks // 25)
    struct.pack_into(">II", data, data.index(b"elst") + 12, *entry)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(("first", "count"), [(0, 24), (5, 19), (0, 10), (5, 10)])
def test_samples_hidden_by_an_edit_list_are_not_missing(
    tmp_path, decoder, monkeypatch, first, count
):
    path = edited(write_clip(tmp_path / "a.mp4", COUNT), first, count)
    opened, open_clip = [], video_decoders.DECODERS.get(decoder)
    monkeypatch.setitem(
        video_decoders.DECODERS._things,
        decoder,
        lambda path: opened.append(path) or open_clip(path),
    )
    clip = read_frames(path, 4, decoder=decoder)
    assert (clip.announced, clip.decoded, clip.problem) == (count, count, "")
    assert greys(clip) == [first + place for place in spaced(count, 4)]
    assert len(opened) == 1  # it is decoded once


def test_a_trim_that_was_cut_off_is_named(tmp_path):
    path = edited(write_clip(tmp_path / "a.mp4", COUNT, size=(64, 64)), 5, 15)
    whole = index_first(path.read_bytes())
    path.write_bytes(whole[: len(whole) * 7 // 10])
    clip = read_frames(path, 4)
    assert clip.problem == f"decoded {clip.decoded} of 15 frames"


def test_a_webm_is_decoded_once_whatever_its_header_announces(tmp_path, monkeypatch):
    path = lasting(write_clip(tmp_path / "a.webm", COUNT, codec="VP80"), 3.0)
    passes, one_pass = [], video._one_pass
    monkeypatch.setattr(video, "_one_pass", lambda *a: passes.append(1) or one_pass(*a))
    read_frames(path, 4)
    assert len(passes) == 1
