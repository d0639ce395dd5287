"""A clip that is read several times is decoded once, and gives the same frames."""

import numpy as np
import pytest

from src.data.pixels import video
from src.data.pixels.video import keeping_frames, read_clip
from tests.clips import greys_of, write_clip


@pytest.fixture
def passes(monkeypatch):
    count = [0]
    plain = video._one_pass

    def counted(*given):
        count[0] += 1
        return plain(*given)

    monkeypatch.setattr(video, "_one_pass", counted)
    return count


def readings(root, name):
    return [
        read_clip(root, name, 4),
        read_clip(root, name, 4, pick=lambda held: [held - 1]),
        read_clip(root, name, 7, convert=lambda picture, number: (number, picture.copy())),
    ]


@pytest.mark.parametrize(("name", "codec", "share"), [("a.mp4", "mp4v", 1), ("a.avi", "MJPG", 0.6)])
def test_one_pass_serves_all_readings(tmp_path, passes, name, codec, share):
    path = write_clip(tmp_path / name, 24, codec=codec)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    plain = readings(tmp_path, name)
    assert (plain[0].problem == "") == (share == 1)
    each, passes[0] = passes[0] / 3, 0
    with keeping_frames(tmp_path, name, [4, 7]):
        kept = readings(tmp_path, name)
    assert passes[0] == each
    for one, other in zip(plain, kept, strict=True):
        assert one.indices.tolist() == other.indices.tolist()
        assert (one.announced, one.decoded, one.problem) == (
            other.announced, other.decoded, other.problem,
        )  # fmt: skip
    assert greys_of(kept[0]) == greys_of(plain[0])
    assert not kept[0].frames[0].flags.writeable
    assert [n for n, _ in kept[2].frames] == [n for n, _ in plain[2].frames]
    passes[0] = 0
    read_clip(tmp_path, name, 4)
    assert passes[0] == each  # nothing is kept behind it


def test_other_counts_and_frames_that_do_not_fit_are_read_as_ever(tmp_path, passes, monkeypatch):
    write_clip(tmp_path / "a.mp4", 24)
    with keeping_frames(tmp_path, "a.mp4", [4]):
        assert len(read_clip(tmp_path, "a.mp4", 5).frames) == 5
    monkeypatch.setattr(video, "MOST_KEPT", 4 * 32 * 32 * 3 - 1)
    passes[0] = 0
    with keeping_frames(tmp_path, "a.mp4", [4]):
        assert greys_of(read_clip(tmp_path, "a.mp4", 4)) == [3, 9, 15, 21]
        assert np.all(read_clip(tmp_path, "a.mp4", 4).frames[0] > 0)
    assert passes[0] == 2
