"""Run `tune.py` as a user does, on predictions written to a scratch folder, and weigh it."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from src import paths
from src.artifacts.folds import write_folds
from src.artifacts.oof import write_oof

DATA, SCHEME = "benchmark", "sgkf5_s42"


class Weighed(NamedTuple):
    """What a command took, from its start to its end, and what it printed."""

    wall_s: float
    cpu_s: float
    peak_gib: float
    printed: str


def weigh_tune(found: dict[str, np.ndarray], *words: str) -> Weighed:
    """Write (n,) `label, group, fold` and (n, m) `logits` as files, and run the command on them.

    Args:
        found: a data set.
        words: flags of the command.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        before = os.environ.get("RVF_ROOT")
        os.environ["RVF_ROOT"] = folder
        try:
            _write(found)
            return _run(root / "printed.txt", *words)
        finally:
            del os.environ["RVF_ROOT"]
            os.environ.update({} if before is None else {"RVF_ROOT": before})


def _write(found: dict[str, np.ndarray]) -> None:
    table = pd.DataFrame(
        {
            "item_id": [
                f"{'fake' if label else 'real'}/{i:07d}.jpg"
                for i, label in enumerate(found["label"])
            ],
            "label": found["label"],
            "group": [f"g{group:07d}" for group in found["group"]],
            "domain": "",
            "kind": "image",
            "fold": found["fold"],
        }
    )
    write_folds(paths.folds_csv(DATA, SCHEME), table)
    for column, logit in enumerate(found["logits"].T):
        oof = table.assign(logit=logit)
        for fold in np.unique(found["fold"]):
            path = paths.oof_csv(DATA, SCHEME, f"m{column:02d}", int(fold))
            write_oof(path, oof[oof["fold"] == fold])


def _run(printed: Path, *words: str) -> Weighed:
    start = time.monotonic()
    with printed.open("w") as output:
        command = [sys.executable, str(paths.REPO / "tune.py"), *words]
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
    wall = time.monotonic() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    text = printed.read_text()
    if process.returncode:
        raise RuntimeError(f"tune.py ended with {process.returncode}:\n{text}")
    return Weighed(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 2**20, text)
