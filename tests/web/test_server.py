"""The queue, the processes behind it, the private folder, and how a server ends."""

import fcntl
import hashlib
import http.client
import json
import os
import signal
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from src.cli import parsers
from src.cli.files.serve import Serving, serve
from src.errors import UserError
from src.web import desk as desks
from src.web.refusal import RequestRefusedError
from src.web.uploads import LOCK, PREFIX, private_folder, remove_leftovers
from src.web.worker import Worker
from tests.web import fakes
from tests.web.conftest import serving
from tests.web.fakes import Inside, Served

JPEG = b"\xff\xd8\xff\xe0 not much of a picture"


def eventually(holds, seconds=10.0):
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.02)


def post(port, body=JPEG, path="/api/look?name=a.jpg"):
    """Return status, headers and JSON; of the stream the list of its lines."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("POST", path, body)
        answer = connection.getresponse()
        lines = [json.loads(line) for line in answer.read().splitlines()]
    finally:
        connection.close()
    return answer.status, answer.headers, lines if "stream" in path else lines[0]


def healthy(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        ready = json.loads(answer.read())["ready"]
    finally:
        connection.close()
    assert answer.status == (200 if ready else 503)
    return ready


def test_the_queue_is_served_in_order_and_what_does_not_fit_is_told_when_to_come_again(tmp_path):
    worker = Inside()
    worker.gate.clear()
    with serving([worker], tmp_path, most=4) as site, ThreadPoolExecutor(4) as pool:
        asked = []
        for number in range(4):
            path = f"/look/stream?name={number}.jpg"
            asked.append(pool.submit(post, site.port, JPEG + bytes([number]), path))
            eventually(lambda count=number + 1: site.uploads.count == count)
        status, headers, said = post(site.port)
        assert (status, headers["retry-after"]) == (429, "5")
        assert "All 4 places are taken" in said["error"]
        worker.gate.set()
        lines = [one.result()[2] for one in asked]
        assert [name for _, name in worker.seen] == [f"{number}.jpg" for number in range(4)]
        places = [[line["place"] for line in some if "place" in line] for some in lines]
        assert places[3] == sorted(places[3], reverse=True)
        assert places[3][0] == 3
        for some in lines:
            assert some[-1]["state"] == "done"
            assert {"state": "looking", "step": "verdict"} in some or len(some) >= 2
        assert site.uploads.count == 0
        assert post(site.port)[0] == 200
    assert list(tmp_path.iterdir()) == []


def test_a_client_that_goes_away_leaves_its_place_and_nothing_else(tmp_path):
    worker = Inside()
    worker.gate.clear()
    with serving([worker], tmp_path) as site:
        head = "POST {} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {}\r\n\r\n"

        def begin(path, announced):
            before = site.uploads.count
            client = socket.create_connection(("127.0.0.1", site.port))
            client.sendall(head.format(path, announced).encode() + JPEG + bytes(600))
            eventually(lambda: site.uploads.count == before + 1)
            return client

        size = len(JPEG) + 600
        looked = begin("/api/look?name=first.jpg", size)
        eventually(lambda: worker.seen)
        waiting = begin("/look/stream?name=second.jpg", size)
        also = begin("/api/look?name=third.jpg", size)
        sending = begin("/api/look?name=fourth.jpg", 2_000_000)
        eventually(lambda: len(list(tmp_path.rglob("upload.jpg"))) == 4)
        for client, left in ((sending, 3), (waiting, 2), (also, 1), (looked, 0)):
            client.close()
            eventually(lambda left=left: site.uploads.count == left)
        assert [name for _, name in worker.seen] == ["first.jpg"]
        assert list(tmp_path.iterdir()) == []
        worker.gate.set()
        assert post(site.port)[0] == 200


def test_a_client_that_sends_too_much_hears_so(tmp_path):
    with serving([Inside()], tmp_path) as site:
        status, _, said = post(site.port, bytes(9_000_000))
        assert (status, "at most 3 MB" in said["error"]) == (413, True)
        client = http.client.HTTPConnection("127.0.0.1", site.port, timeout=30)
        pieces = (bytes(100_000) for _ in range(60))
        client.request("POST", "/api/look?name=a.jpg", pieces, encode_chunked=True,
                       headers={"Transfer-Encoding": "chunked"})  # fmt: skip
        assert client.getresponse().status == 413
        client.close()
    assert list(tmp_path.iterdir()) == []


def test_what_has_too_many_pixels_or_seconds_is_refused_with_the_limit(address, tmp_path):
    port = int(address.rpartition(":")[2])
    cv2.imwrite(str(tmp_path / "wide.png"), np.zeros((1000, 1001), np.uint8))
    film = cv2.VideoWriter(
        str(tmp_path / "long.mp4"), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), 1.0, (64, 48)
    )
    for _ in range(62):
        film.write(np.zeros((48, 64, 3), np.uint8))
    film.release()
    for name, words in (("wide.png", "at most 1,000,000 are"), ("long.mp4", "at most 60 are")):
        path = f"/api/look?name={name}"
        status, _, said = post(port, (tmp_path / name).read_bytes(), path)
        assert (status, words in said["error"]) == (422, True), said


def test_two_at_once_are_never_mixed(tmp_path):
    workers = [Worker(fakes.make, 30) for _ in range(2)]
    for worker in workers:
        worker.start()
    with serving(workers, tmp_path, most=8) as site:

        def ask(number):
            body = JPEG + os.urandom(1000 + 100 * number)
            status, _, said = post(site.port, body, f"/api/look?name={number}.jpg")
            sha256 = hashlib.sha256(body).hexdigest()
            return (status, said["file"]["sha256"], said["file"]["name"]) == (
                200, sha256, f"{number}.jpg")  # fmt: skip

        with ThreadPoolExecutor(6) as pool:
            assert all(pool.map(ask, range(60)))
        assert len({worker.pid for worker in workers}) == 2
        assert site.desk.answered == 60
    eventually(lambda: not any(worker.ready for worker in workers))


def test_a_file_that_ends_its_process_or_takes_too_long_costs_the_next_one_nothing(tmp_path):
    worker = Worker(fakes.make, 1.5)
    worker.start()
    with serving([worker], tmp_path) as site:
        first = worker.pid
        status, _, said = post(site.port, b"do: die")
        assert (status, "signal 9" in said["error"]) == (503, True)
        eventually(lambda: healthy(site.port))  # no file came
        assert post(site.port)[0] == 200
        second = worker.pid
        status, _, said = post(site.port, b"do: sleep 30")
        assert (status, "more than 2 seconds" in said["error"]) == (422, True)
        eventually(lambda: healthy(site.port))  # no file came
        assert post(site.port)[0] == 200
        assert len({first, second, worker.pid}) == 3
        assert post(site.port, b"do: fail")[0] == 500
        lines = post(site.port, b"do: refuse", "/look/stream?name=a.jpg")[2]
        assert lines[-1] == {"state": "failed", "status": 422, "error": "a.jpg: too many pixels"}
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_ends_while_it_has_nothing_to_do_is_started_by_who_asks_for_its_health(
    tmp_path,
):
    worker = Worker(fakes.make, 30)
    worker.start()
    with serving([worker], tmp_path) as site:
        os.kill(worker.pid, signal.SIGKILL)
        eventually(lambda: not worker.ready)
        assert not healthy(site.port)
        eventually(lambda: healthy(site.port))
        assert post(site.port)[0] == 200


def test_a_recipe_whose_checkpoints_are_gone_is_a_mistake_that_says_so():
    with pytest.raises(UserError, match=r"^tiny fold 0: its checkpoint is gone; train it again$"):
        Worker(fakes.make_nothing, 30).start()


def test_a_worker_that_cannot_be_started_again_is_said(tmp_path):
    worker = Worker(fakes.make_nothing, 30)
    with pytest.raises(RequestRefusedError) as refused:
        worker.look(tmp_path / "a.jpg", "a", lambda step: None, threading.Event())
    assert (refused.value.status, refused.value.key) == (503, "not_ready")


@pytest.mark.nightly
def test_killed_it_leaves_nothing_behind_at_the_next_start(tmp_path):
    killed = Served(tmp_path)
    asked = threading.Thread(target=_quietly, args=(killed, b"do: sleep 30"))
    asked.start()
    eventually(lambda: list(tmp_path.rglob("upload.jpg")))
    worker = _children(killed.process.pid)
    assert killed.end(signal.SIGKILL)[0] == -signal.SIGKILL
    asked.join()
    assert len(list(tmp_path.glob(f"{PREFIX}*"))) == 1  # nobody could remove it
    eventually(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in worker))  # noqa: PTH110
    other = Served(tmp_path)
    assert len(list(tmp_path.glob(f"{PREFIX}*"))) == 1  # its own
    assert not list(tmp_path.rglob("upload.jpg"))
    assert other.ask("POST", "/api/look?name=a.jpg", JPEG)[0] == 200
    code, out, err = other.end(signal.SIGINT)
    assert (code, "Traceback" in err) == (130, False)
    assert "1 files were looked at, none is kept" in out
    assert not list(tmp_path.glob(f"*{PREFIX}*"))


def _children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:  # noqa: PTH123
        return file.read().split()


def _quietly(served, body):
    with pytest.raises((OSError, http.client.HTTPException)):
        served.ask("POST", "/api/look?name=a.jpg", body)


@pytest.mark.nightly
def test_a_stop_empties_the_queue_and_waits_no_longer_than_it_says(tmp_path):
    served = Served(tmp_path)
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(served.ask, "POST", "/api/look?name=a.jpg", b"do: sleep 60")
                 for _ in range(2)]  # fmt: skip
        eventually(lambda: served.ask("GET", "/healthz")[1]["queue"]["waiting"] == 1)
        began = time.monotonic()
        code, _, err = served.end(signal.SIGTERM)
        assert time.monotonic() - began < desks.GRACE + 8
        assert (code, "Traceback" in err) == (130, False), err
        for one in asked:
            assert one.result()[0] == 503
            assert "stopping" in one.result()[1]["error"]
    assert not list(tmp_path.glob(f"*{PREFIX}*"))


def test_ctrl_c_while_the_recipe_is_loaded_is_no_traceback(tmp_path):
    served = Served(tmp_path, "make_slowly")
    eventually(lambda: len(_children(served.process.pid)) == 2, 30)  # the looker, and a tracker
    time.sleep(1.0)
    code, _, err = served.end(signal.SIGINT)
    assert (code, "Traceback" in err) == (130, False), err
    assert not list(tmp_path.glob(f"*{PREFIX}*"))


def test_a_port_in_use_is_named_with_another_one():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"^port {port} of 127.0.0.1 is in use.*--port"):
            serve(Serving(port=port), fakes.make)
    with pytest.raises(UserError, match="no address of this machine"):
        serve(Serving(host="203.0.113.7", port=0), fakes.make)


def test_flags_that_make_no_sense_are_mistakes(artefact_root, capsys):
    wrong = {"--port": "70000", "--most-mb": "0", "--jobs": "0", "--queue": "-1",
             "--token": "short", "--language": "xx", "--timeout": "nan"}  # fmt: skip
    for flag, value in wrong.items():
        assert parsers.main("serve", [flag, value]) == 2
        assert flag.strip("-") in capsys.readouterr().err


def test_a_missing_extra_is_said(artefact_root, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert parsers.main("serve", []) == 2
    assert "pip install fastapi uvicorn python-multipart" in capsys.readouterr().err


def test_leftovers_are_removed_and_what_is_in_use_is_not(tmp_path):
    dead = tmp_path / f"{PREFIX}dead"
    (dead / "abc").mkdir(parents=True)
    (dead / "abc" / "upload.jpg").write_bytes(JPEG)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept.jpg").write_bytes(JPEG)
    (tmp_path / f"{PREFIX}link").symlink_to(elsewhere)
    with private_folder(tmp_path) as first:
        assert not dead.exists()
        assert first.stat().st_mode & 0o777 == 0o700
        with private_folder(tmp_path) as second:
            assert first.is_dir()
            assert remove_leftovers(tmp_path) == 0
            with (second / LOCK).open() as file, pytest.raises(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert not first.exists()
    assert not second.exists()
    assert (elsewhere / "kept.jpg").is_file()
