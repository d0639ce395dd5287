"""Clips that are damaged, cut off, or whole under a header that misleads; greys tell the frames."""

import re
import struct

import av
import cv2
import numpy as np
import pytest

from src.data.pixels import video
from src.data.pixels.frames import spaced
from src.data.pixels.video import read_frames
from src.data.pixels.video_decoders import UnreadableVideoError
from tests.clips import encode, greys_of, index_first, write_clip

COUNT = 24
WRITTEN = {"a.mkv": "mp4v", "b.mkv": "MJPG", "a.webm": "VP80", "a.avi": "MJPG", "b.avi": "mp4v",
           "a.flv": "FLV1"}  # fmt: skip


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
    assert greys_of(clip) == [good[place] for place in spaced(len(good), 5)]
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


@pytest.mark.parametrize("name", WRITTEN)
def test_a_file_that_was_cut_off_or_whose_end_is_blank_is_named(tmp_path, decoder, name):
    path = write_clip(tmp_path / name, COUNT, size=(64, 64), codec=WRITTEN[name])
    whole = path.read_bytes()
    assert read_frames(path, 4, decoder=decoder).problem == ""
    half, most = part(whole, 0.5), part(whole, 0.85)
    for data in (whole[:half], whole[:most], whole[:half] + bytes(len(whole) - half)):
        path.write_bytes(data)
        clip = read_frames(path, 4, decoder=decoder)
        if len(data) < len(whole):
            assert greys_of(clip) == clip.indices.tolist() == spaced(clip.decoded, 4).tolist()
        if clip.decoded < COUNT - 2 or len(data) == len(whole):
            assert clip.problem.startswith(f"decoded {clip.decoded} ")


def lasting(path, seconds):
    """Write another duration, of the longest stream, into a Matroska header."""
    data = bytearray(path.read_bytes())
    at = data.index(b"\x44\x89\x88") + 3
    data[at : at + 8] = struct.pack(">d", 1000 * seconds)
    path.write_bytes(data)
    return path


def grey(count):
    """Pictures whose greys tell their numbers, as those of `write_clip`: luma, then chroma."""
    levels = (16 + (5 + 10 * number) * 219 / 255 for number in range(count))
    return [
        np.concatenate([np.full((32, 32), round(one)), np.full((16, 32), 128)]).astype(np.uint8)
        for one in levels
    ]


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mkv", "libx264"), ("a.mp4", "libx264"), ("a.avi", "mpeg4"), ("a.mpg", "mpeg2video"),
     ("a.ts", "libx264")],
)  # fmt: skip
def test_sound_that_outlasts_the_picture_is_no_damage(tmp_path, decoder, name, codec):
    path = encode(tmp_path / name, grey(COUNT), codec=codec, sound=3)
    clip = read_frames(path, 4, decoder=decoder)
    assert greys_of(clip) == clip.indices.tolist() == [3, 9, 15, 21]
    assert (clip.decoded, clip.problem) == (COUNT, "")


def test_a_header_that_announces_hours_does_not_keep_the_frames_from_being_read(tmp_path, decoder):
    path = lasting(write_clip(tmp_path / "a.mkv", COUNT), 6 * 3600.0)
    clip = read_frames(path, 4, decoder=decoder)
    assert greys_of(clip) == [3, 9, 15, 21]
    assert clip.problem == (
        "decoded 24 of 540000 frames; the file is cut off or its header is wrong"
    )


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
    passes, one_pass = [], video._one_pass
    monkeypatch.setattr(video, "_one_pass", lambda *a: passes.append(1) or one_pass(*a))
    clip = read_frames(path, 4, decoder=decoder)
    assert (clip.announced, clip.decoded, clip.problem) == (count, count, "")
    assert greys_of(clip) == [first + place for place in spaced(count, 4)]
    assert len(passes) == 1  # it is decoded once


def test_a_trim_that_was_cut_off_is_named(tmp_path):
    path = edited(write_clip(tmp_path / "a.mp4", COUNT, size=(64, 64)), 5, 15)
    whole = index_first(path.read_bytes())
    path.write_bytes(whole[: len(whole) * 7 // 10])
    clip = read_frames(path, 4)
    assert clip.problem == f"decoded {clip.decoded} of 15 frames"


def test_a_webm_is_decoded_once_though_it_holds_hidden_frames(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "a.webm", COUNT, codec="VP80")
    passes, one_pass = [], video._one_pass
    monkeypatch.setattr(video, "_one_pass", lambda *a: passes.append(1) or one_pass(*a))
    assert read_frames(path, 4).problem == ""
    assert len(passes) == 1


# Containers, and what is written into each.
CONTAINERS = {
    "a.mp4": ("libx264", {"movflags": "frag_keyframe+empty_moov"}),
    "a.mkv": ("libx264", {}),
    "a.webm": ("libvpx", {"live": "1"}),
    "a.avi": ("mpeg4", {}),
    "a.flv": ("libx264", {}),
    "a.wmv": ("wmv2", {}),
    "a.mpg": ("mpeg2video", {}),
    "a.ts": ("mpeg2video", {}),
}


def noise(count):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (96, 64)).astype(np.uint8) for _ in range(count)]


@pytest.mark.parametrize("name", CONTAINERS)
def test_cuts_and_holes_of_each_container_are_told_and_whole_ones_are_not(tmp_path, name):
    codec, options = CONTAINERS[name]
    path = encode(tmp_path / name, noise(40), codec=codec, **options)
    whole = path.read_bytes()
    clip = read_frames(path, 4)
    assert (clip.decoded, clip.problem) == (40, "")
    size = len(whole)
    hole = whole[: size // 2] + bytes(size // 10) + whole[size // 2 + size // 10 :]
    for data in (whole[: 45 * size // 100 | 1], hole, whole[: size // 2] + bytes(size // 2)):
        path.write_bytes(data)
        assert read_frames(path, 4).problem


def rewritten(path, name, keep):
    """Write the packets of a clip anew, those for which `keep` of their number is true."""
    out = path.with_name(name)
    with av.open(str(path)) as file, av.open(str(out), "w") as made:
        stream = made.add_stream_from_template(file.streams.video[0])
        for number, packet in enumerate(p for p in file.demux(video=0) if p.size):
            if keep(number):
                packet.stream = stream
                made.mux(packet)
    return out


@pytest.mark.parametrize("params", ["bframes=0:keyint=25", "bframes=3"])
@pytest.mark.parametrize("sound", [0, 4])
def test_a_hole_in_an_mpeg_stream_is_told_and_frames_left_out_are_not(tmp_path, params, sound):
    path = encode(tmp_path / "a.ts", noise(100), params, sound=sound)
    whole = path.read_bytes()
    assert read_frames(path, 4).problem == ""
    for data in (len(whole) // 8, len(whole) // 16):
        half = len(whole) // 2
        path.write_bytes(whole[:half] + bytes(data) + whole[half + data :])
        clip = read_frames(path, 4)
        assert clip.decoded < 97
        found = re.fullmatch(r"decoded (\d+) of (\d+) frames", clip.problem)
        assert int(found[1]) == clip.decoded
        assert abs(int(found[2]) - 100) <= 2


@pytest.mark.parametrize("sound", [0, 4])
def test_frames_that_a_recording_left_out_are_no_hole(tmp_path, sound):
    path = encode(tmp_path / "a.ts", noise(100), "bframes=0:keyint=1", sound=sound)
    gone = np.random.default_rng(0).permutation(100)[:8]
    for keep in (lambda n: n not in gone, lambda n: n < 40 or n > 60, lambda n: n % 3):
        assert read_frames(rewritten(path, "b.ts", keep), 4).problem == ""


@pytest.mark.parametrize("name", ["a.mkv", "a.flv"])
def test_of_a_clip_cut_off_no_frames_are_counted_that_are_sound(tmp_path, name):
    path = encode(tmp_path / name, noise(100), sound=8)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 99 // 100])
    clip = read_frames(path, 4)
    assert clip.problem == "decoded 100 frames; the file is cut off or damaged"
    path.write_bytes(whole[: len(whole) // 2])
    clip = read_frames(path, 4)
    of = r" of (99|100)" if name == "a.mkv" else ""
    assert re.match(rf"decoded {clip.decoded}{of} frames; the file is cut off", clip.problem)


def test_pictures_are_damaged_where_bytes_are_and_joined_files_are_not(tmp_path):
    stream = encode(tmp_path / "a.ts", noise(40)).read_bytes()
    (tmp_path / "b.ts").write_bytes(stream + stream)
    clip = read_frames(tmp_path / "b.ts", 4)
    assert (clip.decoded, clip.problem) == (80, "")  # their counters begin anew
    path = encode(tmp_path / "a.mp4", noise(40), "keyint=10")
    data = bytearray(path.read_bytes())
    for at in np.random.default_rng(0).integers(len(data) // 4, len(data) * 3 // 4, 30):
        data[at] ^= 255
    path.write_bytes(data)
    first, second = read_frames(path, 4), read_frames(path, 4)
    assert "of them damaged" in first.problem
    assert first.problem == second.problem
    assert np.array_equal(first.frames, second.frames)
