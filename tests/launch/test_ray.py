"""Ray: a real cluster of one node, started by the test (nightly), and what is said without one."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from src.launch.engines.ray import _check_port
from tests.conftest import REPO
from tests.launch.serial import FLAGS, artefacts, serial, tiny_root  # noqa: F401 - fixtures

QUIET = {"RAY_USAGE_STATS_ENABLED": "0"}
Typed = Callable[..., subprocess.CompletedProcess[str]]


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def test_an_address_at_which_nothing_listens_is_told_at_once() -> None:
    with pytest.raises(OSError, match="refused"):
        _check_port(f"127.0.0.1:{_free_port()}")
    _check_port("auto")


@pytest.fixture
def ray_address() -> Iterator[str]:
    """Start a cluster of one node with two cores; yields its address."""
    pytest.importorskip("ray", reason="ray is not installed")
    home, port = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp")), _free_port()
    words = [
        str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--num-cpus", "2",
        "--num-gpus", "0", "--port", str(port), "--object-store-memory", "80000000",
        "--include-dashboard", "false", "--disable-usage-stats", "--temp-dir", str(home),
    ]  # fmt: skip
    log = (home / "said").open("w")
    cluster = subprocess.Popen(words, stdout=log, stderr=log, env={**os.environ, **QUIET})
    try:
        until = time.monotonic() + 120
        while "Ray runtime started" not in (home / "said").read_text():
            assert cluster.poll() is None, (home / "said").read_text()
            assert time.monotonic() < until
            time.sleep(0.3)
        yield f"127.0.0.1:{port}"
    finally:
        cluster.send_signal(signal.SIGTERM)
        cluster.wait(60)
        log.close()
        shutil.rmtree(home, ignore_errors=True)


@pytest.mark.nightly
def test_real_tasks_leave_what_one_by_one_leaves(
    serial: dict[str, bytes],  # noqa: F811
    tiny_root: Path,  # noqa: F811
    ray_address: str,
) -> None:
    def launch(*more: str) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "src", "launch", *FLAGS, "--on", "ray"]
        words += ["--ray-address", ray_address, "--cpus-per-job", "1", *more]
        env = {**os.environ, "RVF_ROOT": str(tiny_root), **QUIET}
        return subprocess.run(words, cwd=REPO, env=env, capture_output=True, text=True, check=False)

    # FLAGS say `--device cpu`, with which a card contradicts itself: the last one counts.
    refused = launch("--device", "auto", "--gpus-per-job", "1")
    assert refused.returncode == 2
    assert "no node of this Ray cluster has them (2 cores and 0 GPUs)" in refused.stderr
    study = f"tune.py --recipe shared --study {tiny_root / 's.journal'} --strategies tpe --trials 8"
    then = ["--then", "tune.py", "--times", "2", "--then", study]
    said = launch(*then)
    assert said.returncode == 0, said.stdout + said.stderr
    assert "9 done" in said.stdout
    left = artefacts(tiny_root)
    assert left.pop("recipes/tiny/shared.json")
    assert left == serial
    again = launch(*then)
    assert again.returncode == 0
    assert "nothing is left to do" in again.stdout
