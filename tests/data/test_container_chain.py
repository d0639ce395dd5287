"""Whole files of each container, and the same with something missing or overwritten."""

import cv2
import numpy as np
import pytest

from src.data.container_chain import is_broken
from src.data.mp4_index import shown_frames
from tests.clips import write_clip

WRITTEN = {
    "a.mp4": "mp4v",
    "a.mkv": "mp4v",
    "a.webm": "VP80",
    "a.avi": "MJPG",
    "a.flv": "FLV1",
    "a.wmv": "WMV2",
    "a.mpg": "MPG1",
    "a.ts": "MPG2",
}


def write_noise(path, codec):
    rng = np.random.default_rng(0)
    writer = cv2.VideoWriter(
        str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), 25, (64, 64)
    )
    for _ in range(24):
        writer.write(rng.integers(0, 255, (64, 64, 3), np.uint8))
    writer.release()
    return path


@pytest.fixture(params=WRITTEN)
def whole(request, tmp_path):
    return write_noise(tmp_path / request.param, WRITTEN[request.param])


def test_whole_files_are_whole(whole):
    assert not is_broken(whole)


def test_a_cut_is_found_wherever_it_is(whole):
    data = whole.read_bytes()
    for share in range(30, 100, 5):
        # An odd number of bytes is no whole number of an MPEG stream's packets.
        whole.write_bytes(data[: len(data) * share // 100 | 1])
        assert is_broken(whole), share


def test_a_blank_end_is_found(whole):
    data = whole.read_bytes()
    whole.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    # Zeros within the frames of an MP4 are no matter of its boxes; its index is lost here.
    assert is_broken(whole)


def test_of_other_files_nothing_is_said(tmp_path):
    for content in (b"", b"hello", b"\xff\xd8\xff" * 40):
        (tmp_path / "a").write_bytes(content)
        assert not is_broken(tmp_path / "a")
        assert shown_frames(tmp_path / "a", 100) is None


def test_an_index_says_how_many_frames_are_shown(tmp_path):
    path = write_clip(tmp_path / "a.mp4", 24)
    assert shown_frames(path, 24) == 24
    assert shown_frames(path, 23) is None


def test_no_index_however_broken_is_more_than_not_understood(tmp_path):
    path = write_clip(tmp_path / "a.mp4", 24)
    data = path.read_bytes()
    start = data.index(b"moov") - 4
    for at in range(start, len(data)):
        broken = bytearray(data)
        broken[at] ^= 255
        path.write_bytes(broken)
        assert (shown_frames(path, 1000) or 0) <= 1000
        is_broken(path)
