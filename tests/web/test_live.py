"""The page of a live source: it shows what was said last, as text, and moves by itself."""

import socket
import threading
import time
from functools import partial

import numpy as np
import pytest
import uvicorn
from fastapi.testclient import TestClient

from src.evidence.live.loop import _snapshot
from src.evidence.live.state import LiveEvent, LiveFace, LiveState, Rolling, Summary
from src.web.guard import Entrance
from src.web.live import NewestState, make_live_app
from tests.web.test_browser import faults

HOSTILE = 'rtsp://***@host/"><img src=x onerror=alert(1)>\u202egnp'
PICTURE = np.full((90, 160, 3), 90, np.uint8)


def state(frame=7, **more):
    """Return a state of three people: fake, unsure and out of sight, not judged."""
    box = (10.0, 10.0, 50.0, 50.0)
    faces = (
        LiveFace(1, box, True, 0.0, Rolling("fake", "fake", 0.91, 0.5, 20)),
        LiveFace(2, box, False, 3.2, Rolling("unsure", "real", 0.44, 0.5, 2, ("few frames",))),
        LiveFace(9, box, True, 65.0, None),
    )
    known = {"faces": faces, "picture": None, "no_verdict": ""} | more
    return LiveState(
        frame, 66.4, 160, 90, 0.1234, known["faces"], known["picture"], known["no_verdict"], 400,
        80, 3, 2, 0, {}, partial(_snapshot, PICTURE, known["faces"]),
    )  # fmt: skip


@pytest.fixture
def newest():
    return NewestState(HOSTILE, "tuned")


def client(newest, **entrance):
    return TestClient(make_live_app(newest, Entrance(**entrance)), base_url="http://127.0.0.1")


def test_the_page_shows_the_last_state_as_text(newest):
    with client(newest) as web:
        page = web.get("/").text
        assert "Waiting for the first frame" in page
        assert web.get("/live/frame.jpg").status_code == 204
        assert web.get("/live/record").json() is None
        newest.put(state())
        newest.tell(LiveEvent("stalled", 61.0, "no matter"))
        answer = web.get("/live")
        for wanted in ("fake", "0.910", "leans to real", "not judged", "01:06.4", "123 ms",
                       "80 of 400", "No frame comes"):  # fmt: skip
            assert wanted in answer.text
        assert "<img src=x" not in answer.text
        assert "\u202e" not in answer.text
        assert "script-src 'self'" in answer.headers["content-security-policy"]
        assert web.get("/live/frame.jpg").content.startswith(b"\xff\xd8")
        found = web.get("/live/state?lang=ko").json()
        assert found["frame"] == 7
        assert found["spoken"] == "1: 가짜"
        assert "보이지 않음" in found["html"]
        assert web.get("/live/record").json()["faces"][0]["number"] == 1


def test_whole_pictures_no_face_and_the_end(newest):
    with client(newest) as web:
        newest.put(state(faces=(), picture=Rolling("real", "real", 0.1, 0.5, 9)))
        assert web.get("/live/state").json()["spoken"] == "real"
        newest.put(state(faces=(), no_verdict="no_face"))
        assert "No face is in the picture" in web.get("/live").text
        assert web.get("/healthz").status_code == 200
        newest.end(Summary("x", ended="lost"))
        found = web.get("/live/state").json()
        assert found["ended"]
        assert "did not come back" in found["html"]
        newest.end(Summary("x", ended="stopped"), "<b>a net failed</b>")
        assert "&lt;b&gt;a net failed" in web.get("/live").text
        assert web.get("/healthz").status_code == 503


def test_others_need_the_token(newest):
    token = "sixteen letters at least"
    with client(newest, token=token) as web:
        assert [web.get(f"/live{path}").status_code for path in ("", "/state", "/frame.jpg")] == [
            401, 401, 401,
        ]  # fmt: skip
        assert web.get(f"/?token={token}").status_code == 200
        assert web.get("/live").status_code == 200
    with client(newest) as web:
        assert web.get("/live", headers={"Host": "evil.example"}).status_code == 403


@pytest.fixture
def address(newest):
    """Serve it; the fixture that opens pages asks for this one."""
    app = make_live_app(newest, Entrance())
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, log_level="error", ws="none"))
    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    until = time.monotonic() + 30
    while not server.started and time.monotonic() < until:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join(30)


def test_in_a_browser_it_moves_by_itself(newest, open_page):
    page = open_page()
    page.get_by_text("Waiting for the first frame").wait_for()
    newest.put(state())
    page.get_by_role("row", name="1 fake 0.910 20").wait_for()
    picture = page.get_by_alt_text("The newest frame")
    picture.wait_for()
    page.wait_for_function("() => document.getElementById('frame').naturalWidth === 160")
    newest.put(state(8, faces=(LiveFace(3, (0.0, 0.0, 9.0, 9.0), True, 0.0,
                                        Rolling("real", "real", 0.02, 0.5, 25)),)))  # fmt: skip
    page.get_by_role("row", name="3 real 0.020 25").wait_for()
    assert page.get_by_role("status").inner_text() == "3: real"
    newest.end(Summary("x", ended="end"))
    page.get_by_text("The source has ended", exact=False).first.wait_for()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_no_serious_fault_and_a_phone_scrolls_one_way(newest, open_page, dark):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    newest.put(state())
    newest.tell(LiveEvent("lost", 61.0, ""))
    page = open_page(dark=dark, phone=True)
    page.get_by_role("row", name="1 fake 0.910 20").wait_for()
    assert faults(axe, page) == []
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    plain = open_page(script=False)
    plain.get_by_role("row", name="1 fake 0.910 20").wait_for()
