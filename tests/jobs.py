"""A tiny data set, fold file and model on which whole runs take a second."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from src import paths
from src.artifacts.folds import read_folds, write_folds
from src.artifacts.runs import read_record
from src.config import parse_model
from src.losses import LOSSES
from src.training.job import Job, Options, job_table
from src.training.trainer import fit_fold

N_ITEMS = 48
TINY: dict[str, Any] = {
    "backbone": {"name": "compact_net", "pretrained": "none", "kwargs": {"widths": [8, 8, 16]}},
    "input": {"image_size": 12, "crop_pct": 0.75, "mean": [0.5] * 3, "std": [0.25] * 3},
    "augment": "crop_flip",
    "optim": {"lr": 1e-2, "epochs": 3, "batch_size": 8, "warmup_epochs": 0.5, "ema_decay": 0.9},
}


def write_items(folder: Path, count: int = N_ITEMS) -> list[str]:
    """Write small images; the fakes (every third) are brighter."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    names = []
    for index in range(count):
        low = 90 if index % 3 == 0 else 0
        pixels = rng.integers(low, low + 160, (16, 16, 3), dtype=np.uint8)
        names.append(f"i{index:03d}.png")
        cv2.imwrite(str(folder / names[-1]), pixels)
    return names


def batches_of(count: int = 3, side: int = 8, size: int = 6) -> list[dict[str, torch.Tensor]]:
    """Return random pixels, the same at every call."""
    generator = torch.Generator().manual_seed(1)
    shape = (size, side, side, 3)
    return [
        {"pixels": torch.randint(256, shape, dtype=torch.uint8, generator=generator)}
        for _ in range(count)
    ]


def oof_bytes(job: Job) -> bytes:
    """Return what a run wrote as out-of-fold predictions."""
    return paths.oof_csv(*job.names).read_bytes()


def record_of(job: Job) -> dict[str, Any]:
    """Return the record of a finished run."""
    return read_record(paths.run_record(*job.names))


def with_options(job: Job, **changes: Any) -> Job:
    """Return a job that is computed otherwise."""
    return replace(job, options=replace(job.options, **changes))


def interrupt_at_batch(monkeypatch: pytest.MonkeyPatch, number: int) -> list[int]:
    """Let the loss raise KeyboardInterrupt at its `number`-th batch; returns the batches seen."""
    loss: Callable[..., torch.Tensor] = LOSSES.get("bce")
    seen: list[int] = []

    def interrupted(*arguments: object) -> torch.Tensor:
        seen.append(len(seen) + 1)
        if len(seen) == number:
            raise KeyboardInterrupt
        return loss(*arguments)

    monkeypatch.setitem(LOSSES._things, "bce", interrupted)
    return seen


@pytest.fixture
def make_job(artefact_root: Path) -> Callable[..., Job]:
    """Return `make_job(fold=0, options=..., **changes)` on one shared data set and fold file."""
    root = paths.dataset_dir("tiny")
    names = write_items(root / "train")
    items = pd.DataFrame({"item_id": names, "path": [f"train/{name}" for name in names]})
    items["bytes"] = [(root / path).stat().st_size for path in items["path"]]
    index = np.arange(len(names))
    folds = pd.DataFrame(
        {
            "item_id": names,
            "label": (index % 3 == 0).astype(int),
            "group": names,
            "domain": "",
            "kind": "image",
            "fold": (index // 3) % 3,
        }
    )
    write_folds(paths.folds_csv("tiny", "s"), folds)

    def make(
        fold: int = 0, options: Options | None = None, model: str = "m", **changes: Any
    ) -> Job:
        content = {
            key: {**value, **changes.get(key, {})} if isinstance(value, dict) else value
            for key, value in TINY.items()
        }
        content |= {k: v for k, v in changes.items() if not isinstance(TINY.get(k), dict)}
        table = job_table(items, read_folds(paths.folds_csv("tiny", "s")))
        config = parse_model(content, "tiny")
        chosen = options or Options(device="cpu", precision="fp32", workers=0, track="none")
        return Job(model, config, "tiny", "s", fold, root, table, chosen)

    return make


@pytest.fixture
def pair(make_job: Callable[..., Job]) -> Job:
    """Train `a` and `b`, the second further from the same seed; returns the job of `a`."""
    optim = {"epochs": 2, "lr": 1e-2}
    jobs = [make_job(model="a", optim=optim), make_job(model="b", optim=optim | {"lr": 5e-3})]
    for job in jobs:
        assert fit_fold(job)
    return jobs[0]
