"""The server under load, killed, and what it costs beyond the forward pass.

    python benchmarks/serve.py            all of it, on loopback, minutes on a core

A recipe of two untrained `mobilenetv2_100` (folds, 128 px, each picture and its mirror) looks at
pictures of one megapixel and at clips of two seconds.
"""

import argparse
import hashlib
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import psutil

os.environ["OMP_NUM_THREADS"] = "1"  # before torch
os.environ["HF_HUB_OFFLINE"] = "1"
REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))

SIDE = 1000  # px, of a picture of one megapixel
SMALL = 320  # px, of a clip's frame
MODEL, DATA = "bench_mobilenet", "bench"
FEW = ("--deliveries", "0", "--no-maps")


def pictures() -> list[np.ndarray]:
    """Return two photographs that scikit-learn ships, BGR."""
    from sklearn.datasets import load_sample_image

    return [load_sample_image(name)[..., ::-1] for name in ("china.jpg", "flower.jpg")]


def large(number: int) -> bytes:
    """Return a JPEG of one megapixel, another one for each number."""
    rng = np.random.default_rng(number)
    photo = pictures()[number % 2]
    top, left = rng.integers(0, photo.shape[0] - 400), rng.integers(0, photo.shape[1] - 400)
    cut = cv2.resize(photo[top : top + 400, left : left + 400], (SIDE, SIDE))
    noisy = np.clip(cut + rng.normal(0, 4, cut.shape), 0, 255).astype(np.uint8)
    return cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def clip(folder: Path, number: int) -> bytes:
    """Return an MP4 of two seconds."""
    path = folder / f"{number}.mp4"
    code = cv2.VideoWriter.fourcc(*"mp4v")
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, code, 25.0, (SMALL, SMALL))
    photo = pictures()[number % 2]
    for place in range(50):
        left = (number * 7 + place) % (photo.shape[1] - SMALL)
        writer.write(np.ascontiguousarray(photo[:SMALL, left : left + SMALL]))
    writer.release()
    return path.read_bytes()


def train(root: Path) -> None:
    """Train two folds of an untrained net for one epoch, and tune."""
    home = root / "input" / DATA / "train"
    for number in range(40):
        photo = pictures()[number // 2 % 2]
        rng = np.random.default_rng(number)
        top, left = rng.integers(0, photo.shape[0] - 160), rng.integers(0, photo.shape[1] - 160)
        cut = photo[top : top + 160, left : left + 160]
        name = ("real", "fake")[number % 2]
        (home / name).mkdir(parents=True, exist_ok=True)
        shown = cv2.GaussianBlur(cut, (5, 5), 0) if name == "fake" else cut
        cv2.imwrite(str(home / name / f"{number:02d}.png"), shown)
    here = ["--data", DATA]
    model = ["--model", "mobilenetv2_100", "--as", MODEL, "--no-pretrained"]
    model += [
        "--set",
        "optim.epochs=1",
        "--set",
        "optim.batch_size=8",
        "--scheme",
        "sgkf2_s0",
        "--no-report",
    ]
    for fold in "01":
        python("train_folds.py", *model, *here, "--fold", fold, "--device", "cpu", "--workers", "0")
    python("tune.py", "--strategies", "mean", *here)


def python(*words: str) -> None:
    """Run a command; what it prints is shown where it fails."""
    done = subprocess.run([sys.executable, *words], cwd=REPO, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)


class Server:
    """`python -m src serve` in a process of its own."""

    def __init__(self, *flags: str) -> None:
        words = ["-m", "src", "serve", "--data", DATA, "--device", "cpu", "--workers", "0"]
        self.process = subprocess.Popen(
            [sys.executable, *words, "--port", "0", "--risk", "0", *flags],
            cwd=REPO, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        while line and not line.startswith("open "):
            line = self.process.stdout.readline()
        self.port = int(line.split(":")[2].split("/")[0])

    def all(self) -> list[psutil.Process]:
        """Return the server and what it has started."""
        own = psutil.Process(self.process.pid)
        return [own, *own.children(recursive=True)]

    def memory(self) -> float:
        """Return the resident memory of them, MiB."""
        return sum(one.memory_info().rss for one in self.all()) / 2**20

    def cpu(self) -> float:
        """Return the CPU seconds of them."""
        return sum(sum(one.cpu_times()[:2]) for one in self.all())

    def ask(self, body: bytes, name: str) -> tuple[int, dict]:
        """Return status and answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        try:
            connection.request("POST", f"/api/look?name={name}", body)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def end(self, number: int = signal.SIGTERM) -> None:
        """Stop it."""
        self.process.send_signal(number)
        self.process.wait(60)


def load(folder: Path, uploads: int, clients: int, flags: tuple[str, ...]) -> None:
    """Send many uploads at once; every answer must be of its own file."""
    server = Server(*flags)
    files = [large(number) for number in range(20)] + [clip(folder, n) for n in range(4)]
    for number in range(24):
        server.ask(files[number], f"{number}.{'jpg' if number < 20 else 'mp4'}")
    before, cpu, began = server.memory(), server.cpu(), time.monotonic()
    lost, mixed = [], []

    def one(number: int) -> None:
        """Ask for a file that nobody else has."""
        film = number % 10 == 9
        body = clip(folder, number) if film else large(100 + number)
        name = f"upload {number}.{'mp4' if film else 'jpg'}"
        status, said = server.ask(body, name.replace(" ", "%20"))
        if status != 200:
            lost.append((number, status, said))
            return
        is_own = said["file"]["sha256"] == hashlib.sha256(body).hexdigest()
        if not is_own or said["file"]["name"] != name:
            mixed.append(number)

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(one, range(uploads)))
    wall = time.monotonic() - began
    spent = server.cpu() - cpu
    time.sleep(2)
    after = server.memory()
    server.end()
    print(
        f"{uploads} uploads (1 in 10 a clip) by {clients} clients in {wall:.0f} s, {spent:.0f} CPU "
        f"s of the server; memory {before:.0f} MiB after warm-up, {after:.0f} after"
    )
    report(not lost, f"{len(lost)} lost {lost[:2]}", "0")
    report(not mixed, f"{len(mixed)} mixed up", "0")
    report(after <= 1.1 * before, f"memory {after / before:.3f} of its start", "at most 1.1")


def kill(folder: Path) -> None:
    """Kill a server while uploads are with it; the next start must leave none of them."""
    server = Server(*FEW)
    bodies = [large(number) for number in range(4)]
    asked = [threading.Thread(target=_quietly, args=(server, body)) for body in bodies]
    for thread in asked:
        thread.start()
    until = time.monotonic() + 30
    while len(list(folder.rglob("upload.*"))) < 2 and time.monotonic() < until:
        time.sleep(0.002)
    server.end(signal.SIGKILL)
    left = len(list(folder.rglob("upload.*")))
    for thread in asked:
        thread.join()
    server = Server(*FEW)
    now = len(list(folder.rglob("upload.*")))
    server.end()
    rest = list(folder.glob("*rvf-uploads-*"))
    report(left > 0 and not now and not rest, f"kill -9 left {left} uploads, {now} after the next "
           f"start, {len(rest)} folders after its end", "0 and 0")  # fmt: skip


def _quietly(server: Server, body: bytes) -> None:
    try:
        server.ask(body, "a.jpg")
    except (OSError, http.client.HTTPException):
        return


def beyond(rounds: int, *flags: str) -> tuple[float, float, float]:
    """Return CPU seconds a request, of the nets' forward passes alone, and of a look without them.

    The first is of the server's processes; the others of a recipe in this process that looks at the
    same pictures by the same flags.
    """
    bodies = [large(number) for number in range(rounds + 2)]
    server = Server(*flags)
    for body in bodies[:2]:
        server.ask(body, "a.jpg")
    began = server.cpu()
    for body in bodies[2:]:
        assert server.ask(body, "a.jpg")[0] == 200
    request = (server.cpu() - began) / rounds
    server.end()
    forward, look = _inside(bodies, flags)
    return request, forward, look - forward


def _inside(bodies: list[bytes], flags: tuple[str, ...]) -> tuple[float, float]:
    from src.cli.files.serve import load as load_recipe
    from src.cli.parsers import make_parser
    from src.models.classifier import Classifier

    words = ["--data", DATA, "--device", "cpu", "--workers", "0", "--risk", "0", *flags]
    look, _ = load_recipe(make_parser("serve").parse_args(words))
    spent = [0.0]
    forward = Classifier.forward

    def timed(self, *args, **kwargs):  # noqa: ANN001, ANN002, ANN003, ANN202
        began = time.process_time()
        try:
            return forward(self, *args, **kwargs)
        finally:
            spent[0] += time.process_time() - began

    Classifier.forward = timed
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "upload.jpg"
            for place, body in enumerate(bodies):
                if place == 2:  # warm
                    spent[0], began = 0.0, time.process_time()
                path.write_bytes(body)
                look(path, "a.jpg", lambda _: None)
    finally:
        Classifier.forward = forward
    count = len(bodies) - 2
    return spent[0] / count, (time.process_time() - began) / count


def report(is_met: bool, figure: str, target: str) -> None:
    """Print a line a target."""
    print(f"{'ok   ' if is_met else 'short'} {figure} (target {target})", flush=True)


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--uploads", type=int, default=200)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=10, help="requests whose CPU is measured")
    text = "no maps and no deliveries under load"
    parser.add_argument("--few", action="store_true", help=text)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        uploads = root / "tmp"
        uploads.mkdir()
        os.environ |= {"RVF_ROOT": str(root / "rvf"), "TMPDIR": str(uploads)}
        tempfile.tempdir = None
        train(root / "rvf")
        load(root, asked.uploads, asked.clients, FEW if asked.few else ())
        kill(uploads)
        for what, flags in (("nothing but the verdict and the file's own words", FEW),
                            ("2 deliveries too", ("--no-maps",)), ("and maps", ())):  # fmt: skip
            request, forward, rest = beyond(asked.rounds, *flags)
            print(
                f"a megapixel, {what}: {request:.3f} CPU s a request; looked at without a server "
                f"{forward + rest:.3f}, of which forward passes {forward:.3f}"
            )
            report(request - forward < 1, f"{request - forward:.3f} CPU s beyond the forward pass",
                   "under 1")  # fmt: skip


if __name__ == "__main__":
    main()
