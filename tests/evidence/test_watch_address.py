"""Who is at the other end of an address: certificates are checked, nothing is opened elsewhere."""

import http.server
import re
import shutil
import socket
import ssl
import subprocess
import threading

import numpy as np
import pytest

from src.cli import parsers
from src.errors import UserError
from src.evidence.live.address import check_answer
from src.evidence.live.sources import LostError, source_of
from tests.clips import encode


@pytest.fixture
def certificate(tmp_path):
    """Return a call that makes a certificate of a name, signed by itself: its files."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("openssl is not there to make a certificate")

    def make(name):
        file, key = tmp_path / f"{name}.pem", tmp_path / f"{name}.key"
        words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        words += ["-keyout", str(key), "-out", str(file), "-days", "2", "-subj", f"/CN={name}"]
        words += ["-addext", f"subjectAltName=DNS:{name}"]
        subprocess.run([program, *words], check=True, capture_output=True)
        return file, key

    return make


@pytest.fixture
def served(tmp_path):
    """Return a call that serves a film, or sends on to elsewhere: its port, and what was asked."""
    planes = [np.full((96, 96), 100, np.uint8)] * 12
    film, servers = encode(tmp_path / "film.ts", planes).read_bytes(), []

    def start(status=200, where="", pair=None):
        asked = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                asked.append(str(self.headers.get("Authorization")))
                self.send_response(status)
                if where:
                    self.send_header("Location", where)
                self.send_header("Content-Type", "video/mp2t")
                self.end_headers()
                self.wfile.write(film if status == 200 else b"")

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        server.handle_error = lambda *_: None  # clients that hang up
        if pair is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*pair)
            server.socket = context.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server.server_port, asked

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def frames_of(source):
    """Return how many frames a source gives."""
    count = 0
    source.open()
    try:
        for _ in source.frames():
            count += 1
    except LostError:
        pass
    finally:
        source.close()
    return count


def test_a_certificate_that_nobody_trusts_or_of_another_name_is_refused(
    served, certificate, monkeypatch
):
    own, other = certificate("localhost"), certificate("other.example")
    for pair, trusted, is_fine in ((own, own, True), (own, other, False), (other, other, False)):
        port, asked = served(pair=pair)
        text = f"https://user:secret@localhost:{port}/live"
        monkeypatch.setenv("SSL_CERT_FILE", str(trusted[0]))
        if is_fine:
            assert frames_of(source_of(text, 2)) > 0
            continue
        with pytest.raises(UserError, match=r"not trusted .*--insecure") as refused:
            source_of(text, 2).open()
        assert "secret" not in str(refused.value)
        assert asked == []  # nothing was said before the certificate was checked
        assert frames_of(source_of(text, 2, insecure=True)) > 0


def test_ffmpeg_itself_checks_the_certificate(served, certificate, monkeypatch):
    port, asked = served(pair=certificate("other.example"))
    monkeypatch.setattr("src.evidence.live.sources.check_answer", lambda *_, **__: None)
    for protocol in ("https", "rtsps"):
        with pytest.raises(UserError, match="cannot be watched"):
            source_of(f"{protocol}://user:secret@localhost:{port}/live", 2).open()
    assert asked == []


def test_without_a_check_is_said_first_and_only_where_there_is_one(face_root, tmp_path, capsys):
    words = ["--data", "tiny", "--device", "cpu", "--insecure", "--workers", "0"]
    for text in ("rtsp://host/a", "http://host/a", "0", "film.mp4"):
        assert parsers.main("watch", [text, *words]) == 2
        assert "--insecure is for https:// and rtsps://" in capsys.readouterr().err
    text = "https://user:secret@127.0.0.1:9/a"
    assert parsers.main("watch", [text, *words]) == 2
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("WARNING https://***@127.0.0.1:9/a: its certificate is not looked at")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_server_that_sends_on_is_not_followed(served, status):
    there, asked = served()
    here, _ = served(status, f"http://127.0.0.1:{there}/other?token=secret")
    with pytest.raises(UserError) as refused:
        source_of(f"http://user:secret@127.0.0.1:{here}/live", 2).open()
    assert asked == []
    assert f"sends on to http://127.0.0.1:{there}/other?***, which is not" in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_server_of_rtsp_that_sends_on_is_not_followed():
    heard = []

    def answer(listening):
        client, _ = listening.accept()
        with client, client.makefile("rb") as lines:
            heard.append(b"".join(iter(lines.readline, b"\r\n")).decode())
            client.sendall(
                b"RTSP/1.0 302 Moved\r\nCSeq: 1\r\nLocation: rtsp://127.0.0.1:9/b\r\n\r\n"
            )

    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        threading.Thread(target=answer, args=(listening,), daemon=True).start()
        source = source_of(f"rtsp://user:secret@127.0.0.1:{port}/live?a=b", 2)
        with pytest.raises(UserError, match=re.escape("sends on to rtsp://127.0.0.1:9/b, which")):
            source.open()
    assert [one.splitlines()[0] for one in heard] == [
        f"DESCRIBE rtsp://127.0.0.1:{port}/live?a=b RTSP/1.0"
    ]
    assert "Authorization" not in heard[0]


def test_what_answers_nothing_of_sense_is_left_to_ffmpeg():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        for text in (f"rtsp://127.0.0.1:{port}/a", "rtsp://127.0.0.1:9/a", "rtsp://[bad/a",
                     "https:///a", "http://host:99999/a"):  # fmt: skip
            assert check_answer(text, insecure=False, patience=0.2) is None
