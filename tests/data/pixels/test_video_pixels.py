"""Colours, fields and display matrices of clips, in both decoders.

The oracles: the planes that were encoded without loss, converted by the published matrices; arrays
turned by hand; and the ffmpeg program, where it is installed.
"""

import shutil
import struct
import subprocess

import av
import numpy as np
import pytest

from src.data.pixels.formats import is_clip
from src.data.pixels.video import read_clip, read_frames
from tests.clips import encode, write_clip

HEIGHT, WIDTH = 64, 96
# Red and blue of each matrix: their shares of luma (ITU-R BT.601, BT.709, BT.2020).
SHARES = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}
HLG = "colormatrix=bt2020nc:transfer=arib-std-b67:colorprim=bt2020"
PQ = "colormatrix=bt2020nc:transfer=smpte2084:colorprim=bt2020"
FFMPEG = shutil.which("ffmpeg")


def planes():
    """A ramp of luma and two of chroma: (3 / 2 height, width)."""
    luma = np.linspace(50, 190, WIDTH)[None].repeat(HEIGHT, 0)
    red = np.linspace(100, 150, WIDTH // 2)[None].repeat(HEIGHT // 2, 0)
    blue = np.linspace(140, 110, HEIGHT // 2)[:, None].repeat(WIDTH // 2, 1)
    both = np.concatenate([blue.ravel(), red.ravel()]).reshape(-1, WIDTH)
    return np.concatenate([luma, both]).round().astype(np.uint8)


def converted(stored, matrix, *, full=False):
    """Convert 4:2:0 planes by the definition: uint8 RGB (HEIGHT, WIDTH, 3)."""
    luma = stored[:HEIGHT].astype(float)
    blue, red = stored[HEIGHT:].reshape(2, HEIGHT // 2, WIDTH // 2).astype(float) - 128
    blue, red = (one.repeat(2, 0).repeat(2, 1) / (255 if full else 224) for one in (blue, red))
    luma = luma / 255 if full else (luma - 16) / 219
    of_red, of_blue = SHARES[matrix]
    red, blue = luma + 2 * (1 - of_red) * red, luma + 2 * (1 - of_blue) * blue
    green = (luma - of_red * red - of_blue * blue) / (1 - of_red - of_blue)
    return (255 * np.stack([red, green, blue], 2)).clip(0, 255)


@pytest.fixture(params=["pyav", "opencv"])
def decoder(request):
    return request.param


@pytest.mark.parametrize(
    ("params", "matrix"),
    [
        ("", "bt601"),
        ("tff=1", "bt601"),
        ("bff=1:colormatrix=bt709", "bt709"),
        ("colormatrix=bt709", "bt709"),
        ("fullrange=on:colormatrix=bt709", "bt709"),
        ("colormatrix=bt709:transfer=bt709:colorprim=smpte432", "bt709"),
        (HLG, "bt2020"),
        (PQ, "bt2020"),
        ("colormatrix=bt2020c", "bt2020"),
        ("colormatrix=YCgCo", "bt601"),
        ("colormatrix=ictcp", "bt601"),
        ("colormatrix=chroma-derived-nc", "bt601"),
        ("transfer=log100", "bt601"),
    ],
)
def test_matrix_and_range_are_the_only_conversion(tmp_path, decoder, params, matrix):
    stored = planes()
    path = encode(tmp_path / "a.mp4", [stored] * 3, params)
    other = write_clip(tmp_path / "b.mp4", 3, size=(HEIGHT, WIDTH))  # what stale memory would hold
    found = []
    for _ in range(3):
        found.append(np.stack(read_frames(path, 3, decoder=decoder).frames))
        read_frames(other, 3, decoder=decoder)
    assert found[0].tobytes() == found[1].tobytes() == found[2].tobytes()
    away = np.abs(found[0] - converted(stored, matrix, full="fullrange" in params))
    assert np.median(away) <= 2
    assert away.mean() <= 3
    if FFMPEG:
        command = [FFMPEG, "-v", "error", "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
        raw = subprocess.run(command, capture_output=True, check=True).stdout
        independent = np.frombuffer(raw, np.uint8).reshape(3, HEIGHT, WIDTH, 3)
        assert np.median(np.abs(found[0] - independent.astype(float))) <= 2


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ("colormatrix=bt709:transfer=bt709:colorprim=bt709", ""),
        (HLG, "its colours are HLG, not converted to standard range"),
        (PQ, "its colours are PQ, not converted to standard range"),
        ("colormatrix=YCgCo", "its colours are YCgCo, read as BT.601"),
    ],
)
def test_colours_that_are_not_converted_are_named(tmp_path, params, said):
    assert read_frames(encode(tmp_path / "a.mp4", [planes()], params), 1).info.colours == said


@pytest.mark.parametrize(
    "layout", ["yuv410p", "yuv411p", "yuv420p", "yuv422p", "yuv444p", "gray", "yuv420p10le"]
)
def test_pixel_formats_come_out_alike_in_both_decoders(tmp_path, layout):
    ramp = np.indices((HEIGHT, WIDTH)).sum(0)[..., None] * [1, 2, 3] % 256
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, layout
        for number in range(3):
            rolled = np.roll(ramp, 5 * number, 1).astype(np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(rolled).reformat(format=layout)))
        file.mux(stream.encode(None))
    one, other = (read_frames(path, 3, decoder=name).frames for name in ("pyav", "opencv"))
    assert len(one) == 3
    assert np.array_equal(one, other)


def test_fields_that_begin_in_the_middle_are_noticed(tmp_path, decoder):
    """The first frames are progressive, the last are not: joined MPEG streams."""
    stored = planes()
    darker = np.concatenate([stored[:HEIGHT] - 30, stored[HEIGHT:]])
    first = encode(tmp_path / "a.ts", [stored] * 12, "keyint=4").read_bytes()
    path = tmp_path / "c.ts"
    path.write_bytes(first + encode(tmp_path / "b.ts", [darker] * 12, "tff=1").read_bytes())
    frames = np.stack(read_frames(path, 24, decoder=decoder).frames)
    wanted = np.stack([converted(one, "bt601") for one in [stored] * 12 + [darker] * 12])
    assert np.median(np.abs(frames - wanted), (1, 2, 3)).max() <= 2


# a, b, c, d of a display matrix, and what it makes of rows 12, 34: by hand.
TURNS = {
    (1, 0, 0, 1): [[1, 2], [3, 4]],
    (-1, 0, 0, 1): [[2, 1], [4, 3]],
    (1, 0, 0, -1): [[3, 4], [1, 2]],
    (-1, 0, 0, -1): [[4, 3], [2, 1]],
    (0, 1, -1, 0): [[3, 1], [4, 2]],
    (0, -1, 1, 0): [[2, 4], [1, 3]],
    (0, 1, 1, 0): [[1, 3], [2, 4]],
    (0, -1, -1, 0): [[4, 2], [3, 1]],
    (0, 0, 0, 0): [[1, 2], [3, 4]],
}


@pytest.mark.parametrize("matrix", TURNS)
def test_display_matrices_are_applied(tmp_path, decoder, matrix):
    luma = np.kron(np.array([[1, 2], [3, 4]]), np.full((HEIGHT // 2, WIDTH // 2), 45))
    stored = np.concatenate([luma, np.full((HEIGHT // 2, WIDTH), 128)]).astype(np.uint8)
    path = encode(tmp_path / "a.mp4", [stored] * 3)
    data = bytearray(path.read_bytes())
    a, b, c, d = (number << 16 for number in matrix)
    # The matrix of a track header, version 0, begins 40 bytes after its version.
    struct.pack_into(">9i", data, data.index(b"tkhd") + 44, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    frame = read_frames(path, 1, decoder=decoder).frames[0]
    high, wide = frame.shape[0] // 2, frame.shape[1] // 2
    assert (high > wide) == bool(matrix[1])
    corners = [[frame[y, x].mean() for x in (5, wide + 5)] for y in (5, high + 5)]
    # 45 times the number is its luma, of 16 to 235.
    wanted = (45 * np.array(TURNS[matrix]) - 16) * 255 / 219
    np.testing.assert_allclose(corners, wanted, atol=2)


@pytest.mark.parametrize("brand", [b"heic", b"heix", b"hevc", b"heis", b"mif1", b"msf1", b"avif"])
def test_stills_in_the_boxes_of_an_mp4_are_no_clips(brand):
    assert not is_clip(b"\0\0\0\x18ftyp" + brand + bytes(500))
    assert is_clip(b"\0\0\0\x18ftypisom" + bytes(500))


def test_no_line_of_a_library_appears(tmp_path, capfd):
    encode(tmp_path / "a.mp4", [planes()] * 3, "tff=1")
    data = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "b.mp4").write_bytes(data.replace(data[60:90], bytes(30)))
    for name in ("a.mp4", "b.mp4"):
        for one in ("pyav", "opencv"):
            read_clip(tmp_path, name, 2, decoder=one)
    assert capfd.readouterr() == ("", "")
