"""Pictures and commands that several tests of the command line share."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
import pytest

from src import bootstrap
from src.cli import parsers
from src.reporting import scorecard
from tests.shared import tiny_model

SCHEME = "sgkf2_s0"
Command = Callable[..., str]


def write_pictures(home: Path, train: int, test: int, rng: np.random.Generator) -> None:
    """Write train/{real,fake}/NN.png and test/NN.png by turns; fakes are brighter."""
    for i in range(train + test):
        low = 60 * (i % 2)
        small = rng.integers(low, low + 190, (8, 8, 3), dtype=np.uint8)
        pixels = cv2.resize(small, (20, 20), interpolation=cv2.INTER_CUBIC)
        folder = home / ("test" if i >= train else f"train/{'fake' if i % 2 else 'real'}")
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"{i:02d}.png"), pixels)


@pytest.fixture(autouse=True)
def quick(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no figures where the test does not ask for `drawn`, and fewer bootstrap samples.

    What is drawn, and the intervals' oracles, are in tests/reporting and tests/test_bootstrap.py.
    """
    if "drawn" not in request.fixturenames:
        request.getfixturevalue("undrawn")
    monkeypatch.setattr(bootstrap, "REPLICATES", bootstrap.FEWEST)
    monkeypatch.setattr(scorecard, "MOST_REPLICATES", scorecard.FEWEST_REPLICATES)


@pytest.fixture
def command(
    tiny: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Command:
    """Return `command("train", "--model", ...)` on the CPU, which returns what was printed."""
    for name in (
        "train",
        "predict",
        "merge",
        "models.card",
        "models.variants",
        "folds",
    ):  # the log goes where pytest looks for it
        monkeypatch.setattr(import_module(f"src.cli.{name}"), "show_log", lambda: None)

    def run(name: str, *words: str, code: int = 0, report: bool = False) -> str:
        extra = ["--data", "tiny"]
        extra += [] if name == "tune" else ["--device", "cpu", "--workers", "0"]
        scheme = [] if "--scheme" in words else ["--scheme", SCHEME]
        train = [*scheme, *([] if report else ["--no-report"])]
        extra += train if name in ("variants", "train") else []
        assert parsers.main(name, [*words, *([] if "--output" in words else extra)]) == code
        captured = capsys.readouterr()
        return captured.err if code else captured.out

    return run


@pytest.fixture
def tiny(artefact_root: Path) -> Path:
    """Write input/tiny and the config `tiny`."""
    write_pictures(artefact_root / "input" / "tiny", 32, 16, np.random.default_rng(0))
    configs = artefact_root / "configs" / "models"
    configs.mkdir(parents=True)
    (configs / "tiny.yaml").write_text(tiny_model())
    return artefact_root
