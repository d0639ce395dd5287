"""Small data sets of any layout, written from a list of paths."""

import re
import zipfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import pytest

from src.data.items.manifest import Dataset
from src.data.layouts.load import load_dataset
from src.errors import UserError


def picture(seed: int, size: int = 24) -> bytes:
    """Return a random picture with structure, so that perceptual hashes differ."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    pixels = cv2.resize(small, (size, size), interpolation=cv2.INTER_CUBIC)
    return cv2.imencode(".png", pixels)[1].tobytes()


def expand(*patterns: str) -> list[str]:
    """Return the paths that patterns stand for, as in a shell: `{train,test}/{real,fake}/a.png`."""
    return [
        "".join(parts)
        for pattern in patterns
        for parts in product(*(one.split(",") for one in re.split(r"[{}]", pattern)))
    ]


def refused(match: str) -> AbstractContextManager[pytest.ExceptionInfo[UserError]]:
    """Return `pytest.raises` of what people are told, over several lines."""
    return pytest.raises(UserError, match=f"(?s){match}")


Files = Mapping[str, bytes | str] | list[str]


@pytest.fixture
def make_dataset(artefact_root: Path) -> Callable[..., Path]:
    """Return `make(files, name="toy", zips={})`: paths -> content; None content is a picture."""

    def contents(files: Files) -> dict[str, bytes]:
        if isinstance(files, list):
            # Seeds by position, so that no two pictures are copies.
            return {path: picture(i) for i, path in enumerate(files)}
        return {p: c.encode() if isinstance(c, str) else c for p, c in files.items()}

    def make(
        files: Files,
        texts: Mapping[str, str] | None = None,
        *,
        name: str = "toy",
        zips: Mapping[str, Files] | None = None,
    ) -> Path:
        root = artefact_root / "input" / name
        for path, data in {**contents(files), **contents(texts or {})}.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(data)
        for path, members in (zips or {}).items():
            root.mkdir(parents=True, exist_ok=True)
            with zipfile.ZipFile(root / path, "w") as file:
                for member, data in contents(members).items():
                    file.writestr(member, data)
        return root

    return make


@pytest.fixture
def toy(make_dataset: Callable[..., Path]) -> Callable[..., Dataset]:
    """Return `toy(files, texts, zips={})`, which writes a data set (or more of it) and loads it."""

    def load(*files: Files, **more: Mapping[str, Files]) -> Dataset:
        make_dataset(*files, **more)
        return load_dataset("toy")

    return load
