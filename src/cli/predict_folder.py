"""Predict any folder of images with checkpoints alone: no data set, folds or recipe."""

from argparse import Namespace
from pathlib import Path

import numpy as np
import pandas as pd

from src.artifacts.files import sha256_file, write_csv
from src.data.pixels import Canvas, PixelSource
from src.data.sources import kind_of, list_files
from src.errors import UserError
from src.metrics import sigmoid
from src.training.device import choose_device
from src.training.memory import keep_freed_memory
from src.training.passes import Way, load_engine, prediction_compute
from src.training.predict import predict_views


def predict_folder(arguments: Namespace) -> None:
    """Write `filename,label,prob` for every image under a folder.

    prob is P(fake): the sigmoid of the mean logit over checkpoints and views. An image that cannot
    be decoded keeps its row, with label and prob empty.

    Args:
        arguments: as `predict_ensemble.py` parses them.

    Raises:
        UserError: no such folder, no images in it, or a checkpoint that is not one.
    """
    folder = arguments.input_dir
    if arguments.output.is_dir() or not arguments.output.resolve().parent.is_dir():
        raise UserError(f"--output {arguments.output}: want a file in a folder that exists")
    if not folder.is_dir():
        raise UserError(f"--input-dir {folder}: no such folder")
    names = sorted(
        entry.path for entry in list_files(folder).media if kind_of(entry.path) == "image"
    )
    if not names:
        raise UserError(f"--input-dir {folder}: holds no images")
    keep_freed_memory()
    way = Way(
        arguments.device, arguments.precision, arguments.workers, arguments.engine,
        arguments.compile, arguments.auto_batch,
    )  # fmt: skip
    compute = prediction_compute(choose_device(way.device), way, len(names))
    loaded = [
        load_engine(path, _sha256(path), _name(path), way, compute, len(names))
        for path in arguments.checkpoint
    ]
    engines = [engine for engine, _ in loaded]
    source = PixelSource(folder, names, [Canvas.of(engine.spec) for engine in engines])
    logits, readable = predict_views(
        engines, [views for _, views in loaded], source, np.arange(len(names)), compute,
        what="predicting",
    )  # fmt: skip
    prob = sigmoid(np.mean([table.mean(1) for table in logits], axis=0))
    label = pd.array(prob >= arguments.threshold, dtype="boolean").astype("Int8")
    label[~readable] = pd.NA
    write_csv(arguments.output, pd.DataFrame({"filename": names, "label": label, "prob": prob}))
    lost = [name for name, fine in zip(names, readable, strict=True) if not fine]
    print(f"{len(names)} images, {int(readable.sum())} read, {int(label.sum())} fake")
    if lost:
        print(f"not readable, left empty: {', '.join(lost[:10])}{' ...' if len(lost) > 10 else ''}")
    print(f"answers: {arguments.output}")


def _name(checkpoint: Path) -> str:
    return f"{checkpoint.parent.name} {checkpoint.stem.replace('_', ' ', 1)}"


def _sha256(path: Path) -> str:
    return sha256_file(path) if path.is_file() else ""  # loading says what is wrong
