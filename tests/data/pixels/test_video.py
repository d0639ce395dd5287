"""Frames of clips, whose grey level tells their number."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.data.pixels import video, video_packets
from src.data.pixels.frames import spaced
from src.data.pixels.video import middle_frame, read_clip, read_frames
from src.data.pixels.video_decoders import UnreadableVideoError
from src.errors import UserError
from tests.clips import boxes, grey_of, greys_of, index_first, write_clip


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "mp4v"), ("a.avi", "MJPG")])
def test_frames_are_those_of_a_full_decode(tmp_path, name, codec):
    path = write_clip(tmp_path / name, 21, codec=codec, size=(48, 64))
    capture, every = cv2.VideoCapture(str(path)), []
    while (found := capture.read())[0]:
        every.append(cv2.cvtColor(found[1], cv2.COLOR_BGR2RGB))
    assert len(every) == 21
    clip = read_frames(path, 4)
    assert clip.indices.tolist() == [2, 7, 13, 18]  # middles of 0..5.25..10.5..15.75..21
    assert (clip.announced, clip.decoded, clip.problem) == (21, 21, "")
    np.testing.assert_array_equal(clip.frames, [every[index] for index in clip.indices])
    assert greys_of(clip) == clip.indices.tolist()


def test_a_short_clip_gives_each_frame_once(tmp_path):
    path = write_clip(tmp_path / "a.mp4", 3)
    assert read_frames(path, 16).indices.tolist() == [0, 1, 2]
    assert greys_of(read_frames(write_clip(tmp_path / "b.mp4", 1), 16)) == [0]


@given(st.integers(1, 60), st.integers(1, 60))
def test_spaced_is_ascending_without_repeats(total, count):
    places = spaced(total, count)
    assert len(places) == min(total, count)
    assert (np.diff(places) > 0).all()
    assert 0 <= places[0] <= places[-1] < total
    assert spaced(100, 1).tolist() == [50]
    assert spaced(0, 4).size == 0


def test_only_what_is_picked_is_converted(tmp_path):
    path, seen = write_clip(tmp_path / "a.mp4", 20), []

    def convert(frame, number):
        seen.append((grey_of(frame), number))
        return 7

    clip = read_frames(path, 10, pick=lambda n: [0, n - 1], convert=convert)
    assert (clip.frames, clip.indices.tolist(), seen) == ([7, 7], [1, 19], [(1, 1), (19, 19)])


def test_a_clip_that_was_cut_off_is_spaced_over_what_is_left(tmp_path):
    whole = index_first(write_clip(tmp_path / "a.mp4", 24, size=(64, 64)).read_bytes())
    start, end = boxes(whole)[b"mdat"]
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole[: start + (end - start) // 2])
    clip = read_frames(path, 4)
    assert clip.announced == 24
    assert 4 <= clip.decoded < 24
    assert clip.problem == f"decoded {clip.decoded} of 24 frames"
    assert clip.indices.tolist() == spaced(clip.decoded, 4).tolist()
    assert greys_of(clip) == clip.indices.tolist()


@pytest.mark.parametrize("announced", [0, 3, 500])
def test_a_header_that_lies_about_the_number_is_not_believed(tmp_path, monkeypatch, announced):
    info = video_packets.probe_open
    monkeypatch.setattr(
        video_packets, "probe_open", lambda *found: info(*found)._replace(announced=announced)
    )
    clip = read_frames(write_clip(tmp_path / "a.mp4", 20), 4)
    assert clip.indices.tolist() == greys_of(clip) == [2, 7, 12, 17]
    assert (clip.announced, clip.problem) == (20, "")  # an MP4 lists its frames


def test_a_clip_without_end_is_looked_at_for_a_while(tmp_path, monkeypatch):
    monkeypatch.setattr(video, "MAX_DECODED", 8)
    clip = read_frames(write_clip(tmp_path / "a.mp4", 20), 4)
    assert (clip.decoded, clip.problem) == (8, "only its first 8 frames were looked at")


def test_a_header_is_read(tmp_path):
    info = read_frames(write_clip(tmp_path / "a.mp4", 12, size=(24, 40), fps=6), 1).info
    assert info[:2] == (6.0, 2.0)
    assert info[2:6] == ("mp4v", 40, 24, 12)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (lambda _: b"", "empty"),
        (lambda _: b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n", "may name other files"),
        (lambda _: b"ffconcat version 1.0\nfile '/tmp/x.mp4'\n", "may name other files"),
        (lambda _: b"\0" * 400, "not a video"),
        (lambda _: b"hello", "not a video"),
        (lambda clip: clip[:-600], "its index is lost"),
        (lambda clip: clip.replace(b"vide", b"soun"), "it has no video stream|not a video"),
    ],
)
def test_what_is_no_clip_is_said(tmp_path, content, match):
    path = write_clip(tmp_path / "a.mp4", 24)
    path.write_bytes(content(path.read_bytes()))
    with pytest.raises(UnreadableVideoError, match=match):
        read_clip(tmp_path, "a.mp4", 4)


def test_content_counts_and_not_the_name(tmp_path):
    picture = np.full((20, 30, 3), 60, np.uint8)
    (tmp_path / "a.mp4").write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    clip = read_clip(tmp_path, "a.mp4", 4)
    np.testing.assert_array_equal(clip.frames[0], picture)
    assert (len(clip.frames), clip.problem) == (1, "it is an image under a clip's name")
    assert grey_of(middle_frame(write_clip(tmp_path / "b.mp4", 9).read_bytes())) == 4


def test_a_decoder_that_is_not_known(tmp_path):
    with pytest.raises(UserError, match="opencv"):
        read_frames(write_clip(tmp_path / "a.mp4", 3), 1, decoder="opencb")


@pytest.mark.real
def test_real_clips_have_the_frames_that_they_announce(shared_data: Path):
    path = shared_data / "videos" / "train" / "real" / "004.mp4"
    clip = read_frames(path, 3, convert=lambda frame, _: frame.shape)
    assert clip.problem == ""
    assert clip.announced == clip.decoded == 309
    assert set(clip.frames) == {(720, 1280, 3)}
