"""What is opened, what is refused, what is never printed: addresses, files, cameras, servers."""

import http.server
import json
import re
import socket
import threading
import time
from io import StringIO

import av
import numpy as np
import pytest

from src.cli import parsers
from src.cli.files.watch import _is_ours
from src.errors import UserError
from src.evidence.live import sources
from src.evidence.live.address import masked
from src.evidence.live.sources import (
    Address,
    Camera,
    ClipFile,
    LostError,
    source_of,
)
from tests.clips import boxes, encode, grey_of, write_clip
from tests.evidence.conftest import FAKE, REAL, people
from tests.faces_stub import write_film, write_picture


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtsp://user:secret@host:554/a", "rtsp://***@host:554/a"),
        ("rtsp://user:se@cr/et?x#y@host/a", "rtsp://***@host/a"),
        ("https://host/live?token=secret", "https://host/live?***"),
        ("HTTP://user@host/a", "HTTP://***@host/a"),
        ("rtsp://@host/a", "rtsp://***@host/a"),
        ("clip.mp4", "clip.mp4"),
    ],
)
def test_no_secret_of_an_address_is_shown(text, shown):
    assert masked(text) == shown
    assert "secret" not in shown


def test_sources_are_told_apart(tmp_path, monkeypatch):
    clip = write_clip(tmp_path / "a.mp4", 2)
    assert source_of("0", 1).name == "camera 0"
    assert source_of("/dev/video3", 1).name == "camera 3"
    assert isinstance(source_of(str(clip), 1), ClipFile)
    assert isinstance(source_of("rtsp://user:pw@host/a", 1), Address)
    monkeypatch.chdir(tmp_path)
    clip.rename("7")
    assert isinstance(source_of("7", 1), ClipFile)  # a file of that name is there
    for text in ("ftp://user:pw@host/a", "concat://a", "udp://:1", "file:///etc/passwd"):
        with pytest.raises(UserError, match="no kind of address") as refused:
            source_of(text, 1)
        assert "pw" not in str(refused.value)


def test_a_source_that_is_no_clip_is_named_with_what_to_do(tmp_path):
    write_picture(tmp_path / "photo.png", people())
    (tmp_path / "photo.jpg").write_text("text under a picture's name")
    (tmp_path / "notes.mp4").write_text("just words")
    (tmp_path / "list.mp4").write_text("#EXTM3U\n/etc/passwd\n")
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "dots\x1b[2J.txt").write_text("words")
    for name, why in (
        ("photo.png", "a picture, not a clip: python -m src look"),
        ("photo.jpg", "a picture, not a clip"),
        ("notes.mp4", "not a video"),
        ("list.mp4", "a text that may name other files"),
        ("empty.mp4", "it is empty"),
        ("dots\x1b[2J.txt", "not a video"),
        ("none.mp4", "no such file"),
        (".", "a folder"),
    ):
        with pytest.raises(UserError, match=re.escape(why)):
            source_of(str(tmp_path / name), 1).open()
    with pytest.raises(UserError, match="no file that can be read"):
        source_of("/dev/null", 1).open()


def test_frames_of_a_file_come_in_order_with_their_seconds_and_damage_is_survived(tmp_path):
    clip = write_clip(tmp_path / "a.mp4", 20)
    source = source_of(str(clip), 1)
    source.open()
    frames = list(source.frames())
    source.close()
    assert [grey_of(one.draw()) for one in frames] == [*range(20)]
    np.testing.assert_allclose([one.second for one in frames], np.arange(20) / 25, atol=1e-6)
    data = bytearray(clip.read_bytes())
    start, end = boxes(bytes(data))[b"mdat"]
    middle = (start + end) // 2
    data[middle : middle + 60] = bytes(60)
    clip.write_bytes(data)
    source.open()
    assert 0 < len([one for one in source.frames() if one is not None]) <= 20
    source.close()


class Capture:
    """OpenCV's camera, by hand: some pictures, then none."""

    def __init__(self, pictures, opened=True):
        self.pictures, self.opened, self.released = list(pictures), opened, False

    def isOpened(self):  # noqa: N802 - OpenCV's name
        return self.opened

    def set(self, *_):
        return True

    def read(self):
        return (True, self.pictures.pop(0)) if self.pictures else (False, None)

    def release(self):
        self.released = True


def test_a_camera_gives_rgb_and_is_lost_when_it_is_unplugged():
    blue = np.zeros((4, 6, 3), np.uint8)
    blue[..., 0] = 255  # OpenCV's first channel
    capture = Capture([blue])
    camera = Camera(0, lambda _: capture)
    camera.open()
    frames = camera.frames()
    assert next(frames).draw()[0, 0].tolist() == [0, 0, 255]
    with pytest.raises(LostError, match="plugged in"):
        next(frames)
    camera.close()
    assert capture.released
    with pytest.raises(UserError, match="camera 1: there is none"):
        Camera(1, lambda _: Capture([], opened=False)).open()


@pytest.fixture
def serve():
    """Return a call that serves by a function of the request, and gives the address."""
    servers = []

    def start(answer):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                answer(self)

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://user:secret@127.0.0.1:{server.server_port}/live"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def stream(tmp_path, *sizes, count=12):
    """Return films of grey of some sizes (height, width), one behind the other, as MPEG-TS."""
    data = b""
    for k, (height, width) in enumerate(sizes):
        planes = [np.full((height * 3 // 2, width), 100 + k, np.uint8)] * count
        data += encode(tmp_path / f"{k}.ts", planes).read_bytes()
    return data


def answer_with(data, *, wait=0.0, length=False):
    def answer(handler):
        handler.send_response(200)
        handler.send_header("Content-Type", "video/mp2t")
        if length:
            handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)
        handler.wfile.flush()
        time.sleep(wait)

    return answer


def test_a_stream_changes_its_size_midway_and_ends_as_one_that_may_come_back(tmp_path, serve):
    address = serve(answer_with(stream(tmp_path, (64, 96), (48, 64))))
    source = source_of(address, 2.0)
    source.open()
    sizes = []
    with pytest.raises(LostError):
        sizes.extend(one.size for one in source.frames() if one is not None)
    source.close()
    assert set(sizes) == {(64, 96), (48, 64)}
    assert source.is_live
    assert source.comes_back


def test_a_stream_that_stalls_is_lost_after_its_time_out(tmp_path, serve):
    source = source_of(serve(answer_with(stream(tmp_path, (64, 96)), wait=3.0)), 0.5)
    source.open()
    began = time.monotonic()
    with pytest.raises(LostError, match="no answer"):
        list(source.frames())
    assert time.monotonic() - began < 2.5
    source.close()


def test_a_playlist_fetches_nothing_and_no_secret_is_in_the_refusal(tmp_path, serve):
    asked = []

    def answer(handler):
        asked.append(handler.path)
        handler.send_response(200)
        handler.send_header("Content-Type", "application/vnd.apple.mpegurl")
        handler.end_headers()
        handler.wfile.write(
            b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n/other.ts\n#EXT-X-ENDLIST\n"
        )

    with pytest.raises(UserError, match=r"not followed") as refused:
        source_of(serve(answer) + "?list.m3u8", 1.0).open()
    assert set(asked) == {"/live?list.m3u8"}
    assert "secret" not in str(refused.value)
    assert "list.m3u8?" not in str(refused.value)


def test_an_address_where_nothing_answers_is_a_users_mistake_without_its_password(serve):
    for text in ("rtsp://user:secret@127.0.0.1:9/a", "http://user:secret@127.0.0.1:9/a",
                 "rtsp://user:secret@[bad/a"):  # fmt: skip
        with pytest.raises(UserError, match="cannot be watched") as refused:
            source_of(text, 0.5).open()
        assert "secret" not in str(refused.value)


def test_the_command_writes_lines_of_json_that_a_program_can_read(
    face_root, face_looker, tmp_path, capsys
):
    face_looker()  # registers the detector
    clip, out = tmp_path / "a.mp4", tmp_path / "a.jsonl"
    write_film(clip, [people((4, 4, 40, REAL), (60, 10, 30, FAKE))] * 25)
    words = [str(clip), "--data", "tiny", "--risk", "0", "--device", "cpu", "--workers", "0"]
    assert parsers.main("watch", [*words, "--json", "--output", str(out)]) == 0
    printed = capsys.readouterr().out
    lines = [json.loads(line) for line in StringIO(printed)]
    assert printed == out.read_text()
    assert [line["type"] for line in lines] == ["state"] * 5 + ["summary"]
    assert [face["verdict"]["said"] for face in lines[4]["faces"]] == ["real", "fake"]
    assert lines[-1]["ended"] == "end"
    assert parsers.main("watch", [*words, "--output", str(out)]) == 0  # over its own
    assert "#2: 00:00.0 to 00:00.8, 5 frames, last fake" in capsys.readouterr().out
    out.write_text("somebody else's\n")
    assert parsers.main("watch", [*words, "--output", str(out)]) == 2
    assert "not as this command wrote it" in capsys.readouterr().err
    assert out.read_text() == "somebody else's\n"
    assert not _is_ours(clip)


def test_ctrl_c_leaves_a_summary_and_ends_with_130(
    face_root, face_looker, tmp_path, capsys, monkeypatch
):
    face_looker()
    clip = tmp_path / "a.mp4"
    write_film(clip, [people((4, 4, 40, REAL))] * 25)
    taken = []

    def caught(frames, stream):
        for one in original(frames, stream):
            taken.append(one)
            if len(taken) == 12:
                raise KeyboardInterrupt
            yield one

    original = sources._caught
    monkeypatch.setattr(sources, "_caught", caught)
    words = [str(clip), "--data", "tiny", "--risk", "0", "--device", "cpu", "--workers", "0"]
    assert parsers.main("watch", words) == 130
    printed = capsys.readouterr()
    assert "stopped after" in printed.out
    assert printed.err == "stopped: nothing is watched any more\n"


@pytest.mark.parametrize("more", [[], ["--serve", "--port", "PORT"]], ids=["address", "port"])
def test_what_never_began_has_no_summary(face_root, face_looker, tmp_path, capsys, more):
    """Nothing answers; or the source is there and the page's port is not free."""
    face_looker()
    clip = tmp_path / "a.mp4"
    write_film(clip, [people((4, 4, 40, REAL))] * 5)
    words = ["--data", "tiny", "--risk", "0", "--device", "cpu", "--workers", "0", "--json"]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        more = [port if word == "PORT" else word for word in more]
        source = str(clip) if more else "http://user:secret@127.0.0.1:9/a"
        assert parsers.main("watch", [source, *words, *more]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("error: ") == 1
    assert "after 0.0 s" not in printed.err


def test_av_still_says_what_is_relied_on():
    assert issubclass(av.error.ExitError, av.error.FFmpegError)
