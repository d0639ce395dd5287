"""A stream of a camera of the network, by a server of forty lines: RTSP 1.0, RTP inside its TCP."""

import re
import socket
import struct
import threading
from contextlib import suppress
from itertools import takewhile

import av
import numpy as np
import pytest

from src.evidence.live.sources import LostError, source_of

SIZE = 64, 96  # height, width
COUNT = 40
SDP = """v=0
o=- 0 0 IN IP4 127.0.0.1
s=-
c=IN IP4 0.0.0.0
t=0 0
m=video 0 RTP/AVP 96
a=rtpmap:96 H264/90000
a=fmtp:96 packetization-mode=1
a=control:track1
"""


def packets():
    """Return a film as RTP packets; its frames become brighter."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as heard:
        heard.bind(("127.0.0.1", 0))
        heard.settimeout(0.5)
        address, found = f"rtp://127.0.0.1:{heard.getsockname()[1]}", []
        with av.open(address, "w", format="rtp") as file:
            stream = file.add_stream("libx264", rate=25, options={"tune": "zerolatency", "g": "10"})
            stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
            for number in range(COUNT):
                pixels = np.full((*SIZE, 3), 40 + 4 * number, np.uint8)
                file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            file.mux(stream.encode(None))
        try:
            while True:
                found.append(heard.recv(2000))
        except TimeoutError:
            return found


def serve(listening, asked, media):
    """Answer one client who only asks, then one to whom the film is sent; hang up."""
    for _ in range(2):
        with suppress(ConnectionError):  # who only asks hangs up
            _answer(listening.accept()[0], asked, media)


def _answer(client, asked, media):
    with client, client.makefile("rb") as lines:
        while True:
            head = b"".join(takewhile(lambda line: line != b"\r\n", lines)).decode()
            if not head:
                return
            method = head.split()[0]
            asked.append(head)
            number = re.search(r"CSeq: (\d+)", head)[1]
            more = {
                "OPTIONS": "Public: OPTIONS, DESCRIBE, SETUP, PLAY\r\n",
                "DESCRIBE": f"Content-Type: application/sdp\r\nContent-Length: {len(SDP)}\r\n",
                "SETUP": "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n",
            }.get(method, "Session: 1\r\n")
            body = SDP if method == "DESCRIBE" else ""
            client.sendall(f"RTSP/1.0 200 OK\r\nCSeq: {number}\r\n{more}\r\n{body}".encode())
            if method == "PLAY":
                for one in media:
                    client.sendall(struct.pack(">cBH", b"$", 0, len(one)) + one)
                return


def test_a_stream_by_rtsp_is_watched_to_its_end_and_then_lost():
    media, asked = packets(), []
    assert len(media) >= COUNT
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        thread = threading.Thread(target=serve, args=(listening, asked, media), daemon=True)
        thread.start()
        source = source_of(f"rtsp://user:secret@127.0.0.1:{port}/live", 2.0)
        assert source.name == f"rtsp://***@127.0.0.1:{port}/live"
        source.open()
        assert source.comes_back
        frames = []
        with pytest.raises(LostError):
            frames.extend(source.frames())
        source.close()
        thread.join(5)
    assert {one.size for one in frames} == {SIZE}
    greys = [float(one.draw().mean()) for one in frames]
    assert len(greys) >= COUNT - 12  # the stream is looked into before it begins
    assert (np.diff(greys) > 0).all()
    methods = ["DESCRIBE", "OPTIONS", "DESCRIBE", "SETUP", "PLAY"]
    assert [one.split()[0] for one in asked][:5] == methods
    assert "RTP/AVP/TCP" in asked[3]
