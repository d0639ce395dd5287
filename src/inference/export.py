"""Checkpoints to files that ONNX Runtime and OpenVINO run, each held against eager torch."""

import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from src import paths
from src.artifacts.files import sha256_file, write_json
from src.data.batches.loader import EvalBatches
from src.data.pixels.source import Canvas, PixelSource
from src.errors import UserError
from src.inference.engines import Eager, Engine
from src.inference.exported import (
    ENGINE_OF,
    PACKAGES,
    PRECISIONS,
    SCHEMA,
    check_exported,
    load_package,
)
from src.inference.exporters import BATCH, write_graph
from src.metrics import auc, classification_report
from src.models.checkpoint import load_checkpoint
from src.tensor_files import first_line

LOG = logging.getLogger("rvf")
MAKING = ".making."


@dataclass(frozen=True)
class Order:
    """What to export."""

    checkpoint: Path  # fold_k.safetensors
    sha256: str  # of it
    engine: str  # onnx or openvino
    precision: str  # one of the engine's

    @property
    def path(self) -> Path:
        """Return the exported file."""
        return paths.exported(self.checkpoint, self.engine, self.precision)


def is_exported(order: Order) -> bool:
    """Tell whether the file is there, of these weights, and the one that its record speaks of."""
    try:
        check_exported(order.path, order.sha256, order.engine, order.precision)
    except UserError:
        return False
    return True


def check_order(engine: str, precision: str) -> None:
    """Raise a UserError unless the engine is installed and knows the precision."""
    if precision not in PRECISIONS[engine]:
        raise UserError(f"--engine {engine} knows {', '.join(PRECISIONS[engine])}, not {precision}")
    for name in ("onnx", "onnxscript", PACKAGES[engine]):
        load_package(name)
    if engine == "openvino" and precision == "int8":
        load_package("nncf")


def export_checkpoint(
    order: Order,
    pixels: NDArray[np.uint8],
    labels: NDArray[np.int64],
    calibration: NDArray[np.uint8],
) -> dict[str, Any]:
    """Export a checkpoint, hold the file against eager fp32, and write both file and record.

    Args:
        order: what to export.
        pixels: uint8 (n, s, s, 3), items that the checkpoint never saw.
        labels: 0/1 (n,) of them.
        calibration: uint8 (m, s, s, 3), training items from which int8 takes its ranges.

    Returns:
        The check: `items`, `auc_eager`, `auc`, `macro_f1_eager`, `macro_f1`, `max_logit_difference`
        and `logit_spread` (standard deviation of eager's logits). The AUC of one class alone is
        NaN, and null in the record.

    Raises:
        UserError: the exporter does not follow the net, or a logit is not finite.
    """
    cpu = torch.device("cpu")
    model, views = load_checkpoint(order.checkpoint, cpu)
    with _own_folder(order.path.parent) as folder:
        made = folder / order.path.name
        try:
            plain = replace(order, engine="onnx", precision="fp32")
            known = plain.path if plain != order and is_exported(plain) else None
            write_graph(model, order.engine, order.precision, made, calibration, known)
        except Exception as error:
            raise UserError(
                f"{order.checkpoint} could not be exported to {order.engine} {order.precision} "
                f"({first_line(error)}); predict without --engine"
            ) from error
        engine = ENGINE_OF[order.engine](made, model.spec, order.precision)
        check = compare(run(Eager(model, cpu, "fp32"), pixels), run(engine, pixels), labels)
        del engine  # it may hold the file open
        content = {
            "schema": SCHEMA,
            "checkpoint_sha256": order.sha256,
            "engine": order.engine,
            "precision": order.precision,
            "input": asdict(model.spec),
            "views": views,
            "check": {key: value if np.isfinite(value) else None for key, value in check.items()},
            "versions": {
                name: load_package(name).__version__ for name in ("onnx", PACKAGES[order.engine])
            },
        }
        # The record goes first and comes last: a file without it is one that was not finished.
        record = order.path.with_suffix(".json")
        record.unlink(missing_ok=True)
        written = sorted(made.parent.glob(f"{made.stem}.*"))  # .bin before .xml
        content["files"] = {file.name: sha256_file(file) for file in written}
        for file in written:
            file.replace(order.path.with_name(file.name))
        write_json(record, content, seal=True)
    return check


@contextmanager
def _own_folder(home: Path) -> Iterator[Path]:
    """Yield a folder that goes at the end; those of exports that were killed go before.

    An export holds a lock on its folder, which goes with its process.
    """
    home.mkdir(parents=True, exist_ok=True)
    gate = os.open(home, os.O_RDONLY)
    try:
        with suppress(OSError):  # no locks here: nothing is swept
            fcntl.flock(gate, fcntl.LOCK_EX)
            for left in home.glob(f"{MAKING}*"):
                _remove_unlocked(left)
        own = tempfile.mkdtemp(dir=home, prefix=MAKING)
        lock = os.open(own, os.O_RDONLY)
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
    finally:
        os.close(gate)
    try:
        yield Path(own)
    finally:
        shutil.rmtree(own, ignore_errors=True)
        os.close(lock)


def _remove_unlocked(folder: Path) -> None:
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError:
        pass  # being made
    finally:
        os.close(lock)


def run(engine: Engine, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return an engine's logits, float64 (n,), of uint8 (n, s, s, 3)."""
    with torch.inference_mode():
        parts = torch.from_numpy(pixels).split(BATCH)
        return torch.cat([engine(part).float() for part in parts]).double().numpy()


def compare(
    eager: NDArray[np.float64], other: NDArray[np.float64], labels: NDArray[np.int64]
) -> dict[str, float]:
    """Return scores of two sets of logits and how far they are apart: see `export_checkpoint`."""
    for what, logits in (("eager torch", eager), ("the exported file", other)):
        if not np.isfinite(logits).all():
            raise UserError(f"{what} gives a logit that is not finite; nothing was written")
    f1 = [classification_report(labels, logits, 0.5)["macro_f1"] for logits in (eager, other)]
    return {
        "items": len(labels),
        "auc_eager": auc(labels, eager),
        "auc": auc(labels, other),
        "macro_f1_eager": f1[0],
        "macro_f1": f1[1],
        "max_logit_difference": float(np.abs(eager - other).max()),
        "logit_spread": float(eager.std()),
    }


def read_items(
    order: Order, root: Path, table: pd.DataFrame, wanted: NDArray[np.bool_], count: int
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Return items' row numbers, (n,), and their pixels as the checkpoint sees them.

    Args:
        order: names the checkpoint.
        root: folder of the data set.
        table: `path` and `label` by row.
        wanted: bool by row.
        count: at most so many are drawn, always the same ones, and (from 2 on) of both labels
            where both are there.

    Returns:
        int64 (n,) and uint8 (n, s, s, 3).

    Raises:
        UserError: an item cannot be decoded.
    """
    model, _ = load_checkpoint(order.checkpoint, torch.device("cpu"))
    spec = model.spec
    drawn = np.random.default_rng(0).permutation(np.flatnonzero(wanted))
    first = np.unique(table["label"].to_numpy()[drawn], return_index=True)[1]  # of each label
    drawn = np.concatenate([drawn[first], np.delete(drawn, first)])[:count]
    rows = np.sort(drawn).astype(np.int64)
    source = PixelSource(root, table["path"].tolist(), [Canvas.of(spec)])
    frames = source.numbers.eval_rows(rows)  # of a clip its first
    batch = EvalBatches(source, [spec])[frames.rows[frames.frame <= 0].tolist()]
    if not bool(batch["readable"].all()):
        source.read_or_stop(int(rows[int((~batch["readable"]).int().argmax())]))
    return rows, batch["pixels0"].numpy()
