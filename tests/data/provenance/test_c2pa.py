"""C2PA manifests signed here; and a server that would hear any call."""

import sys
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from multiprocessing import get_context

import av
import numpy as np
import pytest

from src.data.provenance.read import ANCHORS, provenance_of
from src.errors import UserError
from tests.clips import encode
from tests.data.provenance.files import picture, read, said, values
from tests.data.provenance.signing import anchors, c2pa, signed


def test_a_signed_picture_says_who_made_it_with_what(tmp_path):
    found = read(tmp_path, signed(picture(), source_type="trainedAlgorithmicMedia"))
    (origin,) = said(found, means="ai_generated")
    assert (origin.source, origin.field) == ("c2pa", "digitalSourceType")
    assert (origin.value, origin.strength) == ("trainedAlgorithmicMedia", "signed_untrusted")
    assert values(found, means="signed_by") == ["Test Camera <b>Inc</b> / Test Camera"]
    assert len(said(found, means="untrusted_signer")) == 1
    assert values(found, field="claim_generator") == ["Test Generator 0.1"]
    assert values(found, means="action") == ["c2pa.created by Test Agent 1.2"]
    assert found.findings[0] == origin


def test_anchors_make_a_signer_trusted_others_do_not(tmp_path, monkeypatch):
    data = signed(picture(), source_type="digitalCapture")
    theirs = anchors(tmp_path, "http://127.0.0.1:9/").rename(tmp_path / "other.pem")
    ours = anchors(tmp_path)
    assert ours.read_text() != theirs.read_text()
    for path, strength in ((ours, "signed"), (theirs, "signed_untrusted")):
        found = read(tmp_path, data, anchors=path)
        assert said(found, means="camera")[0].strength == strength
        assert len(said(found, means="untrusted_signer")) == (strength != "signed")
    monkeypatch.setenv(ANCHORS, str(ours))
    assert said(read(tmp_path, data), means="camera")[0].strength == "signed"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, r"anchors\.pem.*cannot be read"),
        ("no certificate", r"anchors\.pem.*no certificate"),
        ("\xff", r"anchors\.pem.*cannot be read"),
        ("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", "is damaged"),
    ],
)
def test_anchors_that_are_none_are_refused(tmp_path, content, said):
    path = tmp_path / "anchors.pem"
    if content is not None:
        path.write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match=said):
        read(tmp_path, picture(), anchors=path)


def test_the_source_type_of_an_edited_picture_stands_in_its_ancestor(tmp_path):
    first = signed(picture(), source_type="trainedAlgorithmicMedia", agent="Firefly")
    second = signed(picture(quality=50), parents=[first])
    third = signed(picture(quality=40), parents=[second])
    for trusted in (None, anchors(tmp_path)):
        strength = "signed" if trusted else "signed_untrusted"
        found = read(tmp_path, third, anchors=trusted)
        (origin,) = said(found, means="ai_generated")
        assert origin.strength == strength
        assert origin.value == "trainedAlgorithmicMedia (of its ancestor <i>0)"
        assert values(found, means="ai_tool") == ["Firefly 1.2 (of its ancestor <i>0)"]
        assert {one.strength for one in said(found, source="c2pa")} == {strength}


def test_what_is_changed_after_signing_counts_as_stated(tmp_path):
    data = bytearray(signed(picture(), source_type="digitalCapture"))
    data[-60] ^= 1  # a pixel
    found = read(tmp_path, bytes(data), anchors=anchors(tmp_path))
    (broken,) = said(found, means="signature_invalid")
    assert "assertion.dataHash.mismatch" in broken.value
    assert found.findings[0] == broken
    assert {one.strength for one in said(found, source="c2pa")} == {"stated"}


def test_a_spoilt_ancestor_does_not_lend_its_words(tmp_path):
    first = bytearray(signed(picture(), source_type="digitalCapture"))
    first[-60] ^= 1
    found = read(tmp_path, signed(picture(quality=50), parents=[bytes(first)]))
    (origin,) = said(found, means="camera")
    assert (origin.strength, "of its ancestor" in origin.value) == ("stated", True)
    assert said(found, field="signature_info")[0].strength == "signed_untrusted"


@pytest.mark.parametrize(
    ("kind", "mime"),
    [("png", "image/png"), ("webp", "image/webp"), ("avif", "image/avif"), ("tiff", "image/tiff")],
)
def test_other_kinds_of_pictures_are_read(tmp_path, kind, mime):
    data = signed(picture(kind), mime, source_type="digitalCapture")
    found = read(tmp_path, data, f"a.{kind}")
    assert len(said(found, source="c2pa", means="camera")) == 1


def test_a_signed_clip_is_read(tmp_path):
    clip = encode(tmp_path / "a.mp4", [np.full((96, 64), 50, np.uint8)] * 3)
    data = signed(clip.read_bytes(), "video/mp4", source_type="trainedAlgorithmicMedia")
    found = read(tmp_path, data, "b.mp4")
    assert len(said(found, source="c2pa", means="ai_generated")) == 1
    assert av.open(str(tmp_path / "b.mp4")).streams.video


def test_kinds_that_it_does_not_read_are_said(tmp_path):
    found = read(tmp_path, picture("bmp"), "a.bmp")
    assert found.not_read["c2pa"].startswith("unsupported: ")


def test_without_the_package_the_reason_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "c2pa", None)
    found = read(tmp_path, picture())
    assert found.not_read == {"c2pa": "extra_missing: pip install c2pa-python"}
    assert said(found, source="jpeg_tables")


def test_threads_and_forked_processes_read_the_same(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(signed(picture(), source_type="digitalCapture"))
    wanted = provenance_of(path)
    assert said(wanted, source="c2pa")
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(provenance_of, [path] * 40)) == [wanted] * 40
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as processes:
        assert list(processes.map(provenance_of, [path] * 2)) == [wanted] * 2


class Listener:
    """A server on this machine that counts who calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                listener.calls.append(self.path)
                self.send_response(404)
                self.end_headers()

            def do_POST(self) -> None:
                self.do_GET()

            def log_message(self, *args: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def listener():
    found = Listener()
    yield found
    found.close()


def test_a_manifest_that_lies_elsewhere_is_not_fetched(tmp_path, listener):
    path = tmp_path / "a.jpg"
    path.write_bytes(
        signed(picture(), source_type="digitalCapture", remote=f"{listener.address}manifest")
    )
    found = read(tmp_path, path.read_bytes())
    assert found.not_read["c2pa"] == f"not_fetched: {listener.address}manifest"
    assert listener.calls == []
    with pytest.raises(c2pa.C2paError):  # with its own settings it does call
        c2pa.Reader(str(path))
    assert listener.calls == ["/manifest"]


def test_nobody_is_asked_about_a_certificate(tmp_path, listener):
    data = signed(picture(), ocsp=f"{listener.address}ocsp", source_type="digitalCapture")
    found = read(tmp_path, data, anchors=anchors(tmp_path, f"{listener.address}ocsp"))
    assert said(found, means="camera")[0].strength == "signed"
    assert listener.calls == []
    asks = c2pa.Context(c2pa.Settings.from_dict({"verify": {"ocsp_fetch": True}}))
    c2pa.Reader(str(tmp_path / "a.jpg"), context=asks)
    assert len(listener.calls) > 0
