"""What containers say of clips, against configurations that FFmpeg wrote (its own words beside)."""

import io
import struct
from pathlib import Path

import pytest

from src.data.audit_codec import read_configuration
from src.data.audit_container import read_other
from src.data.audit_fields import fields_of

WRITTEN = [
    (
        "0164000affe100186764000aacd9447b011000000300100000030320f122596001000668ebe3cb22c0fdf8f800",
        ("100 level 10", "4:2:0 8 bit"),
    ),  # High, yuv420p
    (
        "01f4000affe1001867f4000a9196411ec044000003000400000300c83c48992001000668ebc3c44844fff8f800",
        ("244 level 10", "4:4:4 8 bit"),
    ),  # High 4:4:4 Predictive, yuv444p
    (
        "0142c00affe100176742c00ad9047b011000000300100000030320f122648001000568cb83cb20",
        ("66 level 10", "4:2:0 8 bit"),
    ),  # Constrained Baseline, yuv420p
]


def test_profile_and_pixel_format_of_h264() -> None:
    """Sequence parameter sets of x264: ffprobe calls them as the last column says."""
    for sets, expected in WRITTEN:
        data = bytes.fromhex(sets)
        assert read_configuration("avcC", data) == expected


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("hvcC", b"\1\2" + bytes(10) + bytes([30, 240, 0, 252, 253, 250, 250]),
         ("2 level 30", "4:2:0 10 bit")),
        ("av1C", bytes([0x81, 0x20, 0, 0]), ("1 level 0", "4:4:4 8 bit")),
        ("av1C", bytes([0x81, 0x05, 0x4C, 0]), ("0 level 5", "4:2:0 10 bit")),
        ("vpcC", bytes([1, 0, 0, 0, 0, 31, 0x82, 1, 1, 1]), ("0 level 31", "4:2:0 8 bit")),
        ("avcC", bytes([1, 66, 192, 10, 255, 224]), ("66 level 10", "4:2:0 8 bit")),
        ("avcC", bytes([1, 100, 0, 10, 255, 225, 0, 2, 103, 100]), ("100 level 10", "")),
    ],
)  # fmt: skip
def test_configurations_put_together_by_hand(
    name: str, data: bytes, expected: tuple[str, str]
) -> None:
    assert read_configuration(name, data) == expected


def test_writer_and_sound_of_other_containers() -> None:
    matroska = b"\x1aE\xdf\xa3" + bytes(20) + b"\x4d\x80\x84Lavf" + b"\x57\x41\x83abc"
    assert read_other(io.BytesIO(matroska)) == {"software": "abc", "audio": 0.0}
    assert read_other(io.BytesIO(matroska + b"\x83\x81\x02"))["audio"] == 1
    avi = b"RIFF\0\0\0\0AVI LIST" + b"ISFT" + struct.pack("<I", 5) + b"Lavf\0"
    assert read_other(io.BytesIO(avi)) == {"software": "Lavf", "audio": 0.0}
    assert read_other(io.BytesIO(avi + b"strh\x38\0\0\0auds"))["audio"] == 1
    assert read_other(io.BytesIO(b"FLV\1")) == {}


@pytest.mark.real
def test_real_clips_say_who_encoded_them(shared_data: Path) -> None:
    """As ffprobe and the encoder's own note in the first frame have it."""
    found = {}
    for name in ("real/video.mp4", "real/634.mp4", "fake/brtujopkby.mp4"):
        path = shared_data / "videos" / "train" / name
        found[name] = fields_of(path.parent, path.name, path.name, path.stat().st_size)
    said = [
        [one[key] for key in ("codec profile", "pixel format", "encoder", "B-frames", "handler",
                              "sound codec")]
        for one in found.values() if one
    ]  # fmt: skip
    assert said == [
        ["100 level 40", "4:2:0 8 bit", "x264 core 157", 1, "L-SMASH Video Handler", "mp4a"],
        ["244 level 31", "4:4:4 8 bit", "x264 core 148", 1, "VideoHandler", ""],
        ["100 level 40", "4:2:0 8 bit", "x264 core 157", 1, "VideoHandler", "mp4a"],
    ]
