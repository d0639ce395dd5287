"""Predict any folder of images with checkpoints alone: no data set, folds or recipe."""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src.artifacts.files import sha256_file
from src.cli.predict_detector import open_checkpoint
from src.cli.printing.predict import (
    check_folder_output,
    folder_sidecar,
    print_faceless,
    print_left_aside,
    print_partial,
    write_folder_answers,
)
from src.compute.memory import keep_freed_memory
from src.compute.request import Compute
from src.data.items.files import kind_of
from src.data.items.listing import list_files
from src.errors import UserError
from src.inference.engines import Engine
from src.inference.passes import look_at
from src.inference.stored import TestItems
from src.metrics import sigmoid
from src.models.detector import Origin


def predict_folder(arguments: Namespace) -> None:
    """Write `filename,label` for every image and video under a folder, and a JSON beside it.

    With `--prob` a third column, `prob`, is P(fake): the sigmoid of the mean logit over checkpoints
    and views, of a video pooled over its frames. A file that cannot be decoded keeps its row, with
    label and prob empty. The JSON (`folder_sidecar`) names what was not judged as a whole file that
    shows a face, and says of detectors from elsewhere what they were taken for.

    Args:
        arguments: as `predict_ensemble.py` parses them.

    Raises:
        UserError: no such folder or file, nothing in it, no place for the answers, a checkpoint
            that is not one, or checkpoints that see other frames of videos.
    """
    folder, output = arguments.input_dir, arguments.output
    if not folder.is_dir() and not folder.is_file():
        raise UserError(f"--input-dir {folder}: no such folder or file")
    check_folder_output(output, folder)
    listing = list_files(folder)
    print_left_aside(listing)
    names = sorted(entry.path for entry in listing.media)
    if not names:
        raise UserError(f"--input-dir {folder}: holds no images and no videos that are read")
    checkpoints = [(path, _sha256(path)) for path in arguments.checkpoint]
    judged = _judge(arguments, names, checkpoints)
    label = pd.array(judged.prob >= arguments.threshold, dtype="boolean").astype("Int8")
    label[~judged.readable] = pd.NA
    table = pd.DataFrame({"filename": names, "label": label, "prob": judged.prob})
    lost = [name for name, fine in zip(names, judged.readable, strict=True) if not fine]
    made_from = {str(path): sha256 for path, sha256 in checkpoints}
    sidecar = folder_sidecar(folder, made_from, arguments.threshold, table, lost, listing)
    sidecar |= {"partial": judged.partial, "no_face": judged.no_face}
    if judged.origins:
        sidecar["detectors"] = {path: origin.as_dict() for path, origin in judged.origins.items()}
    columns = ["filename", "label", *(["prob"] if arguments.prob else [])]
    path = write_folder_answers(output, folder, table[columns], sidecar)
    what = f"{len(names) - judged.clips} images"
    what += f", {judged.clips} videos" if judged.clips else ""
    print(f"{what}, {int(judged.readable.sum())} read, {int(label.sum())} fake")
    if lost:
        print(f"not readable, left empty: {', '.join(lost[:10])}{' ...' if len(lost) > 10 else ''}")
    print_partial(judged.partial)
    print_faceless(judged.no_face)
    print(f"answers: {output}; what they were made from, and every name above: {path}")


class Judged(NamedTuple):
    """What checkpoints say of some files."""

    prob: NDArray[np.float64]  # float64 (n,), P(fake); NaN where not `readable`
    readable: NDArray[np.bool_]  # bool (n,)
    clips: int  # how many are videos
    partial: dict[str, str]  # file -> what is wrong with one read only in part, or named otherwise
    no_face: list[str]  # the files that show no face to a model that crops them
    origins: dict[str, Origin]  # path -> what a checkpoint from elsewhere was taken for


def _judge(
    arguments: Namespace, names: list[str], checkpoints: Sequence[tuple[Path, str]]
) -> Judged:
    """Predict files of a folder with checkpoints (path and SHA-256)."""
    keep_freed_memory()
    compute = Compute.of(arguments).for_items(len(names))
    opened = [
        open_checkpoint(path, sha256, arguments, compute, len(names))
        for path, sha256 in checkpoints
    ]
    engines = [one.engine for one in opened]
    _check_frames(engines, names)
    folder = arguments.input_dir
    items = TestItems(folder if folder.is_dir() else folder.parent, names, names, "")
    loaded = [(one.engine, one.views) for one in opened]
    seen, partial, source = look_at(loaded, items, compute)
    pools = [engine.spec.frames.pool for engine in engines]
    pooled = [one.pooled(pool) for one, pool in zip(seen, pools, strict=True)]
    faces = {engine.spec.face for engine in engines}
    faceless = {place for face in faces for place in source.cuts.faceless(face, names)}
    return Judged(
        sigmoid(np.mean(pooled, axis=0)),
        seen[0].readable,
        int(source.numbers.is_clip.sum()),
        partial,
        [names[place] for place in sorted(faceless)],
        {str(one.path): one.origin for one in opened if one.origin is not None},
    )


def _check_frames(engines: Sequence[Engine], names: Sequence[str]) -> None:
    """Raise where the checkpoints do not all see the same of a video."""
    found = [engine.spec.frames for engine in engines]
    ways = {(one.train, one.eval, one.decoder) for one in found}
    if len(ways) > 1 and any(kind_of(name) == "video" for name in names):
        raise UserError(
            f"the checkpoints see other frames of videos ({', '.join(map(str, sorted(ways)))}: "
            "frames.train, frames.eval, frames.decoder): predict with one after the other"
        )


def _sha256(path: Path) -> str:
    return sha256_file(path) if path.is_file() else ""  # loading says what is wrong
