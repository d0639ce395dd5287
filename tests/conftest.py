"""What every test may use: a place for artefacts, the commands as subprocesses, tiny images."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported
os.environ["HF_HUB_OFFLINE"] = "1"

import gc
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import settings

REPO = Path(__file__).resolve().parent.parent

pytest_plugins = ["tests.jobs"]
# Of a property that says no number itself; CI tries more.
EXAMPLES = int(os.environ.get("RVF_EXAMPLES", "25"))
settings.register_profile("rvf", deadline=None, derandomize=True, max_examples=EXAMPLES)
settings.load_profile("rvf")
# Python's collector walks through all that torch and timm brought: a tenth of the suite's time.
gc.set_threshold(50_000, 20, 100)
# Whoever starts tests in the background has SIGINT ignored, here and by all that is started.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Leave what is there before the first test out of every later look of the collector."""
    gc.freeze()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real samples, `../shared/data` or RVF_SHARED_DATA."""
    folder = Path(os.environ.get("RVF_SHARED_DATA") or REPO.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there (set RVF_SHARED_DATA)")
    return folder


@pytest.fixture
def artefact_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Move all artefacts, and input/, into a temporary folder and return it."""
    root = tmp_path / "root"
    root.mkdir()
    monkeypatch.setenv("RVF_ROOT", str(root))
    return root


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    """Start Debian's Chromium; skips with the reason where it, or playwright, is not there.

    Of a module: as long as it is there, an event loop runs in this thread, where other tests start
    their own, and no second one can be started.
    """
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("no chromium here: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield started
        started.close()


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let figures be composed and written, but of one grey pixel: for tests that see none.

    Laying out and drawing takes most of the time of a fold's report. Where a folder's conftest.py
    uses this for all its tests, those that see a figure ask for `drawn`.
    """
    from matplotlib.figure import Figure

    pixel = cv2.imencode(".png", np.full((1, 1, 3), 127, np.uint8))[1].tobytes()
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: Path(path).write_bytes(pixel))


@pytest.fixture
def drawn() -> None:
    """Say that this test looks at a figure, which a folder's `undrawn` then leaves alone."""


def run_command(
    script: str,
    *args: str | Path,
    cwd: Path = REPO,
    env: dict[str, str] | None = None,
    timeout: float = 240,
) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own: "tune.py", or "-m", "src", "demo".

    Args:
        script, args: what is typed.
        cwd: from where.
        env: variables to add.
        timeout: in seconds.
    """
    command = script if script.startswith("-") else str(REPO / script)
    return subprocess.run(
        [sys.executable, command, *map(str, args)],
        cwd=cwd, env={**os.environ, **(env or {})}, capture_output=True, text=True,
        timeout=timeout, check=False,
    )  # fmt: skip


@pytest.fixture
def run_cli(artefact_root: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return `run_command`, with artefacts in a temporary folder."""
    return run_command


@pytest.fixture
def make_images() -> Callable[..., list[Path]]:
    """Return `make(folder, count, ...)`, which writes small random images and lists them.

    Keywords: `size` (height, width), `suffix` (".jpg" or ".png"), `stem`, `seed` (the same seed
    gives the same pixels; give folders different seeds, or they hold duplicates).
    """

    def make(
        folder: Path,
        count: int = 4,
        *,
        size: tuple[int, int] = (32, 32),
        suffix: str = ".jpg",
        stem: str = "img",
        seed: int = 0,
    ) -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(seed)
        written = []
        for index in range(count):
            path = folder / f"{stem}_{index:03d}{suffix}"
            pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
            assert cv2.imwrite(str(path), pixels), path
            written.append(path)
        return written

    return make
