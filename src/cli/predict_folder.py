"""Predict any folder of images with checkpoints alone: no data set, folds or recipe."""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from src.artifacts.files import sha256_file, write_csv
from src.cli.predict_report import print_faceless, print_partial
from src.config import FramesConfig
from src.data.pixels import Canvas, PixelSource
from src.data.sources import kind_of, list_files
from src.errors import UserError
from src.metrics import sigmoid
from src.training.device import choose_device
from src.training.engines import Engine
from src.training.frames import Seen, note_cut, with_everyone
from src.training.memory import keep_freed_memory
from src.training.passes import Way, load_engine, prediction_compute
from src.training.predict import predict_views


def predict_folder(arguments: Namespace) -> None:
    """Write `filename,label,prob` for every image and video under a folder.

    prob is P(fake): the sigmoid of the mean logit over checkpoints and views, of a video pooled
    over its frames. A file that cannot be decoded keeps its row, with label and prob empty.

    Args:
        arguments: as `predict_ensemble.py` parses them.

    Raises:
        UserError: no such folder, nothing in it, a checkpoint that is not one, or checkpoints that
            see other frames of videos.
    """
    folder = arguments.input_dir
    if arguments.output.is_dir() or not arguments.output.resolve().parent.is_dir():
        raise UserError(f"--output {arguments.output}: want a file in a folder that exists")
    if not folder.is_dir():
        raise UserError(f"--input-dir {folder}: no such folder")
    names = sorted(entry.path for entry in list_files(folder).media)
    if not names:
        raise UserError(f"--input-dir {folder}: holds no images and no videos")
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
    source = PixelSource(
        folder,
        names,
        [Canvas.of(engine.spec) for engine in engines],
        frames=_frames(engines, names),
    )
    frames = source.numbers.eval_rows(np.arange(len(names)))
    cut = np.zeros(len(frames.rows), bool)
    logits, there = predict_views(
        engines, [views for _, views in loaded], source, frames.rows, compute, what="predicting",
        cut=cut,
    )  # fmt: skip
    every = np.arange(len(names))
    seen = [
        with_everyone(Seen(frames, table, there, len(names)), engine, views, source, every, compute)
        for table, (engine, views) in zip(logits, loaded, strict=True)
    ]
    readable = seen[0].readable
    pools = [engine.spec.frames.pool for engine in engines]
    pooled = [one.pooled(pool) for one, pool in zip(seen, pools, strict=True)]
    prob = sigmoid(np.mean(pooled, axis=0))
    label = pd.array(prob >= arguments.threshold, dtype="boolean").astype("Int8")
    label[~readable] = pd.NA
    write_csv(arguments.output, pd.DataFrame({"filename": names, "label": label, "prob": prob}))
    lost = [name for name, fine in zip(names, readable, strict=True) if not fine]
    clips = int(source.numbers.is_clip.sum())
    what = f"{len(names) - clips} images" + (f", {clips} videos" if clips else "")
    print(f"{what}, {int(readable.sum())} read, {int(label.sum())} fake")
    if lost:
        print(f"not readable, left empty: {', '.join(lost[:10])}{' ...' if len(lost) > 10 else ''}")
    print_partial(note_cut(source, frames, cut, names))
    faces = {engine.spec.face for engine in engines}
    lost_faces = {place for face in faces for place in source.cuts.faceless(face, names)}
    print_faceless([names[place] for place in sorted(lost_faces)])
    print(f"answers: {arguments.output}")


def _frames(engines: Sequence[Engine], names: Sequence[str]) -> FramesConfig:
    """Return what all checkpoints see of a video."""
    found = [engine.spec.frames for engine in engines]
    ways = {(one.train, one.eval, one.decoder) for one in found}
    if len(ways) > 1 and any(kind_of(name) == "video" for name in names):
        raise UserError(
            f"the checkpoints see other frames of videos ({', '.join(map(str, sorted(ways)))}: "
            "frames.train, frames.eval, frames.decoder): predict with one after the other"
        )
    return found[0]


def _name(checkpoint: Path) -> str:
    return f"{checkpoint.parent.name} {checkpoint.stem.replace('_', ' ', 1)}"


def _sha256(path: Path) -> str:
    return sha256_file(path) if path.is_file() else ""  # loading says what is wrong
