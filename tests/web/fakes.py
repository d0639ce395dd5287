"""What stands in for a recipe, and a client for servers in processes of their own."""

import hashlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from src.compute.request import Compute
from src.errors import UserError
from src.evidence.evidence import FileEvidence, FileFacts, Verdict
from src.web.worker import About, DroppedError
from tests.conftest import REPO

ABOUT = About("tuned", "tiny", ("tiny",))
CPU = Compute(device="cpu", workers=0, precision="fp32")


def look(path: Path, name: str, on_step) -> FileEvidence:
    """Say what lies at the path; the content `do: WORD` asks for trouble."""
    data = path.read_bytes()
    on_step("reading")
    word = data[4:].decode().strip() if data.startswith(b"do: ") else ""
    if word == "refuse":
        raise UserError(f"{name}: too many pixels")
    if word == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "fail":
        raise KeyError("a fault")
    if word.startswith("sleep"):
        time.sleep(float(word.split()[1]))
    on_step("verdict")
    sha256 = hashlib.sha256(data).hexdigest()
    prob = int(sha256[:4], 16) / 0xFFFF
    said = "fake" if prob >= 0.5 else "real"
    return FileEvidence(
        FileFacts(name, "image", len(data), sha256),
        Verdict(
            said=said, prob=prob, threshold=0.5, leans=said, chance=None, chance_error=None,
            chance_share=None, reasons=(), details={}, recipe="tuned", dataset="tiny",
            models=("tiny",), risk=None, no_risk="not_asked",
        ),
    )  # fmt: skip


def make():
    """Return what a worker looks with."""
    return look, ABOUT


def make_slowly():
    """Take long to load."""
    time.sleep(60)


def make_nothing():
    """Fail as a recipe does whose checkpoints are gone."""
    raise UserError("tiny fold 0: its checkpoint is gone; train it again")


def make_faces(root: Path):
    """Return what looks by the recipe of `face_root`."""
    os.environ["RVF_ROOT"] = str(root)
    from src import paths
    from src.evidence.looker import Looker, Looking
    from src.faces.detectors import DETECTORS
    from tests.faces_stub import Red

    if "red" not in DETECTORS._things:
        DETECTORS._things["red"] = Red
    asked = Looking(risk=0, deliveries=1, most_seconds=60, most_pixels=1_000_000)
    return Looker("tuned", paths.recipe_json("tiny", "tuned"), CPU, asked).look, ABOUT


class Served:
    """`serve` with a fake recipe, in a process of its own."""

    def __init__(self, tmp: Path, maker: str = "make", **asked) -> None:
        asked = {"port": 0, **asked}
        code = (
            "import sys; from src.cli.common import run_command\n"
            "from src.cli.files.serve import *\n"
            f"import tests.web.fakes as fakes\nif __name__ == '__main__':\n"
            f"    sys.exit(run_command(lambda _: serve(Serving(**{asked!r}), fakes.{maker}), []))"
        )
        script = tmp / "served.py"
        script.write_text(code)
        env = {**os.environ, "TMPDIR": str(tmp), "PYTHONPATH": str(REPO)}
        self.process = subprocess.Popen(
            [sys.executable, str(script)], cwd=REPO, env=env, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        line = "" if maker == "make_slowly" else self.process.stdout.readline()
        self.port = int(line.split(":")[2].split("/")[0]) if line.startswith("open") else 0

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str):
        """Return the status and what the JSON says."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def end(self, number: int = signal.SIGINT) -> tuple[int, str, str]:
        """Send a signal, Ctrl-C to all as a terminal does; returns exit code, what was written."""
        send = os.killpg if number == signal.SIGINT else os.kill
        send(self.process.pid, number)
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err


class Inside:
    """A worker without a process: what it looks at waits while `gate` is closed."""

    seconds, about = 60.0, ABOUT

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.ready = True
        self.seen: list[tuple[str, str]] = []  # (name of the file on disk, name for people)

    def look(self, path: Path, name: str, on_step, dropped) -> FileEvidence:
        self.seen.append((path.name, name))
        on_step("reading")
        while not self.gate.wait(0.01):
            if dropped.is_set():
                raise DroppedError
        return look(path, name, on_step)

    def stop(self) -> None:
        self.ready = False
        self.gate.set()
