"""Ray: a real cluster of one node, started by the test (nightly), and what is said without one."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from src.errors import UserError
from src.launch.engines import Resources
from src.launch.engines.ray import OnRay, _check_port
from tests.conftest import REPO
from tests.launch.serial import (  # noqa: F401 - fixtures
    FLAGS,
    artefacts,
    check_tuned,
    folds_of,
    serial_root,
    tiny_root,
    trained_root,
)
from tests.launch.test_child import order

QUIET = {"RAY_USAGE_STATS_ENABLED": "0"}


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def test_an_address_at_which_nothing_listens_is_told_at_once() -> None:
    with pytest.raises(OSError, match="refused"):
        _check_port(f"127.0.0.1:{_free_port()}")
    _check_port("auto")


def test_a_node_that_starts_no_process_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a stand-in for Ray: its second node never answers."""
    nodes = [
        {"NodeID": name, "Alive": True, "NodeManagerHostname": name, "NodeManagerAddress": "10.0"}
        for name in ("good", "dumb")
    ]
    look = SimpleNamespace(
        options=lambda scheduling_strategy: SimpleNamespace(
            remote=lambda _: scheduling_strategy  # in place of a reference: the node
        )
    )
    ended: list[str] = []

    def wait(refs: list[str], *, num_returns: int, timeout: float) -> tuple[list[str], list[str]]:
        assert num_returns == len(refs)
        assert timeout > 0
        return ["good"], ["dumb"]

    stand_in = SimpleNamespace(
        nodes=lambda: nodes, wait=wait, cancel=lambda ref, force: ended.append(ref),
    )  # fmt: skip
    scheduling = ModuleType("ray.util.scheduling_strategies")
    vars(scheduling)["NodeAffinitySchedulingStrategy"] = lambda node, soft: node
    for name in ("ray", "ray.util"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, scheduling.__name__, scheduling)
    engine = OnRay(Resources("d"))
    engine._ray = stand_in
    monkeypatch.setattr(engine, "_remote", lambda *_, **__: look)
    with pytest.raises(UserError, match=r"no process begins on dumb \(10\.0\) within"):
        engine._check_files(order(tmp_path, "-c", "pass"))
    assert ended == ["dumb"]


@pytest.fixture
def ray_address() -> Iterator[str]:
    """Start a cluster of one node with two cores; yields its address."""
    pytest.importorskip("ray", reason="ray is not installed")
    home, port = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp")), _free_port()
    words = [
        str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--num-cpus", "2",
        "--num-gpus", "0", "--port", str(port), "--object-store-memory", "80000000",
        "--include-dashboard", "false", "--disable-usage-stats", "--temp-dir", str(home),
        "--node-ip-address", "127.0.0.1",
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
@pytest.mark.timeout(600)
def test_real_tasks_leave_what_one_by_one_leaves(
    serial_root: Path,  # noqa: F811
    tiny_root: Path,  # noqa: F811
    trained_root: Path,  # noqa: F811
    ray_address: str,
) -> None:
    def launch(root: Path, *more: str) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "src", "launch", "--on", "ray", "--ray-address", ray_address]
        words += ["--cpus-per-job", "1", *more]
        env = {**os.environ, "RVF_ROOT": str(root), **QUIET}
        return subprocess.run(words, cwd=REPO, env=env, capture_output=True, text=True, check=False)

    refused = launch(tiny_root, "--models", "a", "--gpus-per-job", "1")
    assert refused.returncode == 2
    assert "no node of this Ray cluster has them (2 cores and 0 GPUs)" in refused.stderr
    said = launch(tiny_root, *FLAGS)
    assert said.returncode == 0, said.stdout + said.stderr
    assert "6 done" in said.stdout
    assert artefacts(tiny_root) == folds_of(serial_root)
    check_tuned(trained_root, serial_root, partial(launch, trained_root, "--data", "tiny"))
