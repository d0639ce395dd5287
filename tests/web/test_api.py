"""Requests: what is answered, what is refused, and what every answer says to browsers."""

import asyncio
import errno
import hashlib
import json
import re
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from io import FileIO
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from src.web.app import make_app
from src.web.desk import Desk
from src.web.guard import Entrance
from src.web.history import History
from src.web.intake import fields_of, received
from src.web.refusal import RequestRefusedError
from src.web.uploads import Uploads
from tests.web.fakes import Inside, look

JPEG = b"\xff\xd8\xff\xe0 not much of a picture"
HOSTILE = '"><img src=x onerror=alert(1)>\u202egpj.jpg'
TOKEN = "a token of some length"
PAGE = {"accept": "text/html"}


class Site:
    def __init__(self, folder, *, most_bytes=100_000, **entrance) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.worker, self.history = folder, Inside(), History(3)
        self.uploads = Uploads(folder, 4, most_bytes)
        self.app = make_app(
            Desk([self.worker]), self.uploads, self.history, Entrance(**entrance),
            limits={"seconds": 60.0, "pixels": 1e6},
        )  # fmt: skip
        self.client = TestClient(
            self.app, base_url="http://127.0.0.1:8000", raise_server_exceptions=False,
            follow_redirects=False,
        )  # fmt: skip

    @property
    def is_empty(self) -> bool:
        return not any(self.folder.iterdir()) and self.uploads.count == 0


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path / "uploads")


def form(*files: tuple[str, bytes], field: str = "file", boundary: str = "xXx") -> tuple:
    """Return the body and the headers of a form as a browser writes it."""
    body = b""
    for name, data in files:
        name = name.replace('"', "%22")
        body += f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; '.encode()
        body += f'filename="{name}"\r\nContent-Type: image/jpeg\r\n\r\n'.encode() + data + b"\r\n"
    body += f"--{boundary}--\r\n".encode()
    return body, {"content-type": f"multipart/form-data; boundary={boundary}"}


def test_a_form_and_a_body_are_answered_alike_and_nothing_is_left(site):
    body, headers = form(("a.jpg", JPEG))
    by_form = site.client.post("/api/look", content=body, headers=headers)
    by_body = site.client.post("/api/look?name=a.jpg&pictures=1", content=JPEG)
    assert (by_form.status_code, by_body.status_code) == (200, 200)
    record = by_form.json()
    assert record["file"]["sha256"] == hashlib.sha256(JPEG).hexdigest()
    assert record["schema"] == 1
    assert by_body.json() == {**record, "pictures": {}}
    assert site.worker.seen == [("upload.jpg", "a.jpg")] * 2
    assert site.is_empty
    assert site.history.newest() == []  # of the page alone


@pytest.mark.parametrize(
    "name", [HOSTILE, "../../etc/passwd.jpg", "a\x00b.jpg", "x" * 4000 + ".jpg"]
)
def test_a_name_is_words_for_people_and_nothing_else(site, name):
    answer = site.client.post("/api/look", params={"name": name}, content=JPEG)
    assert answer.json()["file"]["name"] == name[:255]
    assert site.worker.seen[0][0] == "upload.jpg"
    body, headers = form((name.replace("\x00", ""), JPEG))
    page = site.client.post("/look", content=body, headers={**headers, **PAGE})
    assert page.status_code == 200
    assert "<img src=x" not in page.text
    assert "\u202e" not in page.text
    assert site.is_empty


def test_a_file_without_a_known_suffix_is_taken_for_what_its_bytes_are(site):
    clip = b"\0\0\0\x18ftypmp42" + bytes(600)
    for name, data in (("photo", JPEG), ("a.exe", b"\x89PNG\r\n\x1a\n more"), ("", clip)):
        assert site.client.post(f"/api/look?name={name}", content=data).status_code == 200
    assert [path for path, _ in site.worker.seen] == ["upload.jpg", "upload.png", "upload.mp4"]
    for data in (b"PK\x03\x04 a zip", b"#!/bin/sh\necho", b"<svg>"):
        refused = site.client.post("/api/look?name=a.zip", content=data)
        assert refused.status_code == 415
        assert ".jpg, .png" in refused.json()["error"]
    assert len(site.worker.seen) == 3
    assert site.is_empty


REFUSED = {
    "empty": (400, "not one byte", b"", {}),
    "no file": (400, "No file", *form()),
    "another field": (400, "No file", *form(("a.jpg", JPEG), field="other")),
    "two files": (400, "At most 1", *form(("a.jpg", JPEG), ("b.jpg", JPEG))),
    "no end": (400, "could not be read", form(("a.jpg", JPEG))[0][:-9], form()[1]),
    "no boundary": (400, "could not be read", b"x", {"content-type": "multipart/form-data"}),
    "packed": (415, "packed", JPEG, {"content-encoding": "gzip"}),
    "large": (413, "at most 0 MB", bytes(100_001), {}),
    "large in a form": (413, "at most 0 MB", *form(("a.jpg", bytes(100_001)))),
    "large beside": (413, "more than 65 kB beside", *form(("a.jpg", bytes(70_000)), field="other")),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_taken_is_refused_with_words_and_leaves_nothing(site, what):
    status, words, body, headers = REFUSED[what]
    answer = site.client.post("/api/look?name=a.jpg", content=body, headers=headers)
    assert (answer.status_code, words in answer.json()["error"]) == (status, True), answer.text
    page = site.client.post("/look", content=body, headers={**headers, **PAGE})
    assert page.headers["content-type"].startswith("text/html") or what == "two files"
    assert site.is_empty
    korean = site.client.post(
        "/api/look?name=a.jpg", content=body, headers={**headers, "accept-language": "ko"}
    )
    assert re.search("[가-힣]", korean.json()["error"])


def request_of(pieces: Iterator[bytes], headers: dict[str, str], query: str = "") -> Request:
    """Return a request whose body comes in pieces, and has no length."""
    head = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "POST", "headers": head, "query_string": query.encode()}

    async def receive():
        piece = next(pieces, None)
        return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}

    return Request(scope, receive)


def test_a_body_without_a_length_stops_at_the_limit_before_it_is_on_the_disk(site):
    sizes = []

    def endless():
        while True:
            sizes.extend(path.stat().st_size for path in site.folder.rglob("upload*"))
            yield bytes(1000)

    request = request_of(endless(), {}, "name=a.jpg")
    with pytest.raises(RequestRefusedError) as refused:
        asyncio.run(received(request, site.uploads))
    assert refused.value.status == 413
    assert max(sizes) == 100_000
    assert site.is_empty


def test_a_client_that_says_nothing_more_is_given_up(site, monkeypatch):
    monkeypatch.setattr("src.web.intake.IDLE", 0.05)

    async def silent():
        while True:
            if not site.uploads.count:
                return {"type": "http.request", "body": JPEG, "more_body": True}
            await asyncio.sleep(1)

    request = request_of(iter(()), {}, "name=a.jpg")
    request._receive = silent
    with pytest.raises(RequestRefusedError) as refused:
        asyncio.run(received(request, site.uploads))
    assert refused.value.status == 408
    assert site.is_empty


def test_a_full_disk_is_said_and_nothing_is_left(site, monkeypatch):
    def full(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("src.web.uploads.FileIO", type("Full", (FileIO,), {"write": full}))
        answer = site.client.post("/api/look?name=a.jpg", content=JPEG)
    assert answer.status_code == 507
    assert "disk of the server is full" in answer.json()["error"]
    assert site.is_empty
    assert site.client.post("/api/look?name=a.jpg", content=JPEG).status_code == 200


def test_what_the_look_itself_says_is_handed_on(site):
    refused = site.client.post("/api/look?name=a.jpg", content=b"do: refuse")
    assert (refused.status_code, refused.json()) == (422, {"error": "a.jpg: too many pixels"})
    assert site.client.post("/api/look?name=a.jpg", content=b"do: fail").status_code == 500
    body, headers = form(("a.jpg", JPEG), ("b.jpg", b"do: refuse"))
    page = site.client.post("/look", content=body, headers={**headers, **PAGE})
    assert page.text.count("<article") == 1
    assert "b.jpg: b.jpg: too many pixels" in page.text or "too many pixels" in page.text
    assert site.is_empty


def test_every_answer_tells_browsers_to_keep_to_themselves(site):
    answers = [
        site.client.get("/"), site.client.get("/nothing"), site.client.get("/healthz"),
        site.client.get("/static/app.js"), site.client.delete("/"), site.client.get("/docs"),
        site.client.get("/openapi.json"), site.client.post("/api/look?name=a.jpg", content=JPEG),
        site.client.post("/api/look?name=a.jpg", content=b"do: fail"),
        site.client.get("/", headers={"host": "evil.example"}),
    ]  # fmt: skip
    assert [one.status_code for one in answers] == [
        200,
        404,
        200,
        200,
        405,
        404,
        404,
        200,
        500,
        403,
    ]
    for answer in answers:
        policy = answer.headers["content-security-policy"].split("; ")
        assert policy[0] == "default-src 'none'"
        assert {"script-src 'self'", "connect-src 'self'", "frame-ancestors 'none'",
                "base-uri 'none'", "form-action 'self'"} <= set(policy)  # fmt: skip
        assert "unsafe" not in str(policy)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert "set-cookie" not in answer.headers
    assert {one.headers["cache-control"] for one in answers} == {
        "no-store", "max-age=31536000, immutable",
    }  # fmt: skip
    page = answers[0].text
    assert re.findall(r"(?:src|href|action)=\"(?:https?:)?//", page) == []
    assert re.search(r"\son\w+=|\sstyle=|<script(?! src=)", page) is None


def test_an_unknown_error_has_the_headers_too(site, monkeypatch):
    def broken() -> None:
        raise KeyError("x")

    monkeypatch.setattr(site.history, "newest", broken)
    answer = site.client.get("/", headers=PAGE)
    assert answer.status_code == 500
    assert "KeyError" in answer.text
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")


def test_an_error_after_the_answer_has_begun_is_its_last_line(site, monkeypatch):
    monkeypatch.setattr("src.web.pages.render", lambda *_, **__: [][0])
    answer = site.client.post("/look/stream?name=a.jpg", content=JPEG)
    last = answer.text.splitlines()[-1]
    assert json.loads(last) == {
        "state": "failed", "status": 500,
        "error": "An error of this program (IndexError). The terminal of the server has more.",
    }  # fmt: skip
    assert site.is_empty


def test_off_this_machine_a_token_is_asked_for(tmp_path):
    site = Site(tmp_path / "uploads", token=TOKEN, port=8000)
    client = site.client
    asked = client.post("/api/look?name=a.jpg", content=JPEG)
    assert (asked.status_code, asked.headers["www-authenticate"]) == (401, "Bearer")
    for sent in ("Bearer wrong", "Basic abc", f"Bearer {TOKEN}x", "Bearer "):
        headers = {"authorization": sent}
        answer = client.post("/api/look?name=a.jpg", content=JPEG, headers=headers)
        assert answer.status_code == 401
    headers = {"authorization": f"Bearer {TOKEN}"}
    answer = client.post("/api/look?name=a.jpg", content=JPEG, headers=headers)
    assert answer.status_code == 200
    assert client.get("/healthz").status_code == 200
    assert TOKEN not in client.get("/healthz").text

    door = client.get("/", headers=PAGE)
    assert (door.status_code, 'type="password"' in door.text) == (401, True)
    for path in ("/look/abc", "/nothing"):  # nothing is told of what there is
        assert client.get(path).status_code == 401
    wrong = client.post("/enter", data={"token": "wrong"}, headers=PAGE)
    assert (wrong.status_code, "set-cookie" in wrong.headers) == (401, False)
    assert client.get("/?token=wrong", headers=PAGE).status_code == 401
    for entered in (client.post("/enter", data={"token": TOKEN}), client.get(f"/?token={TOKEN}")):
        assert (entered.status_code, "token" in entered.headers["location"]) == (303, False)
        cookie = entered.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=lax" in cookie
        assert TOKEN not in cookie
    assert client.get("/").status_code == 200  # the cookie is held
    client.cookies.clear()
    client.cookies.set("rvf-8000", "0" * 64)
    assert client.get("/").status_code == 401


@pytest.mark.parametrize(
    ("body", "status"),
    [("&".join(f"{c}=1" for c in "abcdefghi"), 400),
     ("token=" + "x" * 5000, 413), ("token=%ff%fe", 401), ("", 401)],
)  # fmt: skip
def test_any_form_at_the_door_has_an_answer_in_words(tmp_path, body, status):
    client = Site(tmp_path / "uploads", token=TOKEN).client
    headers = {"content-type": "application/x-www-form-urlencoded", **PAGE}
    answer = client.post("/enter", content=body, headers=headers)
    assert answer.status_code == status
    assert "ValueError" not in answer.text
    assert "set-cookie" not in answer.headers


def test_who_says_nothing_at_the_door_is_given_up(site, monkeypatch):
    monkeypatch.setattr("src.web.intake.IDLE", 0.05)

    async def silent():
        await asyncio.sleep(5)

    request = request_of(iter(()), {})
    request._receive = silent
    with pytest.raises(RequestRefusedError) as refused:
        asyncio.run(fields_of(request))
    assert refused.value.status == 408


def test_only_its_own_names_and_pages_may_ask(tmp_path):
    site = Site(tmp_path / "uploads", names=("look.example.org",))
    hosts = {
        "127.0.0.1:8000": 200, "localhost:8000": 200, "[::1]:8000": 200, "192.168.1.9:80": 200,
        "look.example.org": 200, "evil.example": 403, "127.0.0.1.evil.example": 403, "": 403,
        "look.example.org.evil": 403, "[::1": 403,
    }  # fmt: skip
    for host, status in hosts.items():
        assert site.client.get("/healthz", headers={"host": host}).status_code == status, host
    origins = {
        "http://127.0.0.1:8000": 200, "https://127.0.0.1:8000": 200, "null": 403,
        "http://evil.example": 403, "http://127.0.0.1:9000": 403,
    }  # fmt: skip
    for origin, status in origins.items():
        headers = {"origin": origin}
        answer = site.client.post("/api/look?name=a.jpg", content=JPEG, headers=headers)
        assert answer.status_code == status, origin
    for place, status in (("same-origin", 303), ("cross-site", 403), ("same-site", 403)):
        answer = site.client.post("/clear", headers={"sec-fetch-site": place})
        assert answer.status_code == status


def test_the_page_keeps_the_newest_answers_until_it_is_told_to_forget(site):
    for number in range(5):
        body, headers = form((f"{number}.jpg", JPEG + bytes([number])))
        site.client.post("/look", content=body, headers=headers)
    names = [one.evidence.file.name for one in site.history.newest()]
    assert names == ["4.jpg", "3.jpg", "2.jpg"]
    page = site.client.get("/", headers={"accept-language": "ko;q=0.9, en;q=0.3"})
    assert 'lang="ko"' in page.text
    key = re.search(r'href="look/(\w+)\?lang=ko"', page.text)[1]
    assert "4.jpg" in site.client.get(f"/look/{key}").text
    site.client.post("/clear")
    assert site.client.get(f"/look/{key}").status_code == 404


def test_the_pictures_of_answers_have_a_limit_together(tmp_path):
    history = History(100, most_bytes=1000)
    path = tmp_path / "a.jpg"
    path.write_bytes(JPEG)
    found = look(path, "a", lambda step: None)
    keys = [history.add(replace(found, pictures={"a": bytes(400)})) for _ in range(4)]
    assert [history.get(key) is not None for key in keys] == [False, False, True, True]
    assert history.bytes == 800


@given(st.binary(max_size=300), st.lists(st.integers(1, 60), min_size=1))
def test_a_form_is_read_the_same_however_it_is_cut(data, cuts):
    body, headers = form(("a.jpg", b"\xff\xd8\xff" + data))

    def pieces():
        place = 0
        while place < len(body):
            for cut in cuts:
                yield body[place : place + cut]
                place += cut

    with tempfile.TemporaryDirectory() as folder:
        uploads = Uploads(Path(folder), 1, 1000)
        (upload,) = asyncio.run(received(request_of(pieces(), headers), uploads))
        assert upload.path.read_bytes() == b"\xff\xd8\xff" + data
        upload.remove()
        assert list(Path(folder).iterdir()) == []
