"""One chain of fingerprints: whatever is exchanged, put back, removed or changed is refused.

A finished run of two models (folds, checkpoints, predictions, recipe, export, submission) is spoilt
in one place; then every command gives the answer that it gave before, or refuses by name.
"""

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from src.artifacts.files import sha256_file
from tests.hostile.conftest import COMPUTE, write_model

SCHEME, MODELS = "sgkf2_s42", ("small", "other")
SHARES = (0.0, 0.1, 0.37, 0.64, 0.98)
TRIES = int(os.environ.get("RVF_CHAIN", "8"))
Spoil = Callable[[Path], None]


def command(name: str, *words: str) -> int:
    """Type a command in this process; returns its exit code."""
    from src.cli import parsers

    return parsers.main(name, ["--data", "toy", *words])


COMMANDS: dict[str, Callable[[], int]] = {
    "predict": lambda: command("predict", *COMPUTE),
    "exported": lambda: command(
        "predict", "--device", "cpu", "--workers", "0", "--engine", "onnx", "--recipe", "one"
    ),
    "tune": lambda: command("tune"),
    "bundle": lambda: command("bundle", "tuned"),
    "export": lambda: command("export", "small", "--items", "4"),
    "evaluate": lambda: command("evaluate", "--model", "small"),
}


def answer(root: Path, name: str) -> str:
    """Return what a command answered, as far as it must not change."""
    home = {
        "predict": root / "submissions/toy/tuned.csv",
        "exported": root / "submissions/toy/one.csv",
        "tune": root / "recipes/toy/tuned.json",
        "bundle": root / "bundles/toy/tuned.zip",
        "export": root / f"checkpoints/toy/{SCHEME}/small/export/fold_0.onnx.fp32.onnx",
        "evaluate": root / f"reports/toy/{SCHEME}/small/scorecard.csv",
    }[name]
    return sha256_file(home)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Do the whole job once; yields the artefact root."""
    import cv2
    import numpy as np

    root = tmp_path_factory.mktemp("chain")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RVF_ROOT", str(root))
        rng = np.random.default_rng(0)
        for split, kind, count in (("train", "real", 6), ("train", "fake", 6), ("test", "", 4)):
            folder = root / "input/toy" / split / kind
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (20, 20, 3), np.uint8)
                cv2.imwrite(str(folder / f"{number}.png"), pixels)
        (root / "input/toy/dataset.yaml").write_text("n_folds: 2\n")
        write_model(root)
        (root / "configs/models/other.yaml").write_text("extends: small\nseed: 7\n")
        for model in MODELS:
            assert command("train", "--model", model, "--no-report", *COMPUTE) == 0
        assert command("export", "small", "--items", "4") == 0
        assert command("tune", "--models", "small", "--recipe", "one") == 0
        for name in ("tune", "predict", "exported", "bundle", "evaluate"):
            assert COMMANDS[name]() == 0
        yield root


def artefacts(root: Path) -> list[Path]:
    """Return every file of the chain, relative to the root."""
    found = [
        path.relative_to(root)
        for home in ("folds", "checkpoints", "oof", "recipes", "submissions")
        for path in sorted((root / home).rglob("*"))
        if path.is_file() and path.suffix in (".csv", ".json", ".safetensors", ".parquet", ".onnx")
    ]
    return [path for path in found if not path.name.endswith("excluded.csv")]


def spoils(root: Path) -> list[tuple[str, Spoil]]:
    """Return every way to spoil one artefact: gone, one byte changed, another's in its place."""
    ways: list[tuple[str, Spoil]] = []
    files = artefacts(root)
    for file in files:
        if file.parts[0] != "recipes":  # which recipes there are is the user's choice
            ways.append((f"{file} gone", partial(remove, file)))
        ways += [(f"{file} changed at {share}", partial(flip, file, share)) for share in SHARES]
        alike = [one for one in files if one != file and one.suffixes == file.suffixes]
        ways += [(f"{one} over {file}", partial(put, one, file)) for one in alike]
    for one, other in ((0, 1), (1, 0)):  # a whole run of another fold, record and all
        ways.append((f"run {one} over {other}", partial(whole_run, one, other)))
    ways.append(("runs of other over those of small", other_checkpoints))
    return ways


def remove(file: Path, root: Path) -> None:
    (root / file).unlink()


def put(one: Path, file: Path, root: Path) -> None:
    shutil.copy(root / one, root / file)


def flip(file: Path, share: float, root: Path) -> None:
    content = bytearray((root / file).read_bytes())
    content[int(share * len(content))] ^= 1
    (root / file).write_bytes(bytes(content))


def whole_run(one: int, other: int, root: Path) -> None:
    home = root / "checkpoints/toy" / SCHEME / "small"
    for suffix in (".json", ".safetensors"):
        shutil.copy(home / f"fold_{one}{suffix}", home / f"fold_{other}{suffix}")


def other_checkpoints(root: Path) -> None:
    home = root / "checkpoints/toy" / SCHEME
    shutil.copytree(home / "other", home / "small", dirs_exist_ok=True)


def drawn(root: Path) -> list[tuple[str, Spoil]]:
    """Return some of the ways: each kind of file, and the whole runs, then random ones."""
    every = spoils(root)
    rng = random.Random(0)
    whole, single = every[-3:], every[:-3]
    return whole + rng.sample(single, min(TRIES, len(single)))


@pytest.mark.nightly
def test_every_command_answers_as_before_or_refuses(
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("RVF_ROOT", str(finished))
    want = {name: answer(finished, name) for name in COMMANDS}
    members = recipe_of(finished)
    wrong = []
    for number, (what, spoil) in enumerate(drawn(finished)):
        root = tmp_path / str(number)
        shutil.copytree(finished, root)
        monkeypatch.setenv("RVF_ROOT", str(root))
        spoil(root)
        for name, run in COMMANDS.items():
            code = run()
            told = capsys.readouterr()
            if code == 2 and told.err.startswith("error: ") and "Traceback" not in told.err:
                continue
            same = code == 0 and (
                recipe_of(root) == members if name == "tune" else answer(root, name) == want[name]
            )
            if not same:
                wrong.append((what, name, code, told.err[-300:]))
        shutil.rmtree(root)
    assert not wrong


def recipe_of(root: Path) -> object:
    """Return what tuning found, without the fingerprints of what it was found on."""
    found = json.loads((root / "recipes/toy/tuned.json").read_text())
    members = [(m["model"], m["weight"], m["threshold"]) for m in found["members"]]
    return members, found["stages"], found["scores"]["in_sample"], found["scores"]["cross_fitted"]
