"""Any folder's answers: by checkpoints alone, without data set, folds or recipe; or by a recipe."""

import json
from argparse import Namespace
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src.artifacts.answers import Output, hold
from src.artifacts.files import sha256_file
from src.artifacts.outputs import check_submission
from src.artifacts.submissions import write_answers
from src.cli.common import listed, print_not_whole, taken
from src.cli.predict.verdicts import Judged, judge
from src.compute.request import Compute
from src.config import read_model
from src.data.items.files import kind_of
from src.data.items.listing import Listing, list_files
from src.errors import UserError
from src.evidence.verdicts import count_verdicts
from src.inference.engines import Engine
from src.inference.folder import items_of
from src.inference.passes import ahead_of, load_engine, predict_with
from src.inference.predict import VIEWS
from src.inference.stored import ItemsToPredict
from src.inference.trial import engine_for
from src.machine import keep_freed_memory
from src.metrics import log_odds, sigmoid
from src.models.checkpoint import is_ours, read_facts, read_input
from src.models.detector import Origin, load_detector
from src.training.setup import check_names

SAME = 1e-5  # in log odds: what the size of a batch may change
SHOWN = 5  # names of files left aside for one reason


def predict_folder(arguments: Namespace) -> None:
    """Write `filename,label` for every image and video under a folder, and a JSON beside it.

    `--output-kind` writes `filename,prob` or `filename,rank` instead; with `--prob` a further
    column, `prob`, is P(fake): of checkpoints the sigmoid of the mean logit over them and their
    views, of a video pooled over its frames; of a recipe what its rule says, and then `verdict` and
    `reason` follow (`verdicts_of`). Where P(fake) is the same of all files, that is warned of. A
    file that cannot be decoded keeps its row, without an answer. The JSON (`_summary`) names what
    was not judged as a whole file that shows a face, and says who judged, by which threshold.
    """
    folder, path = arguments.input_dir, arguments.output
    if not folder.is_dir() and not folder.is_file():
        raise UserError(f"--input-dir {folder}: no such folder or file")
    place = partial(check_submission, path, "answers", read=folder, is_own_place=False)
    place()
    listing = list_files(folder)
    _print_left_aside(listing)
    items = items_of(folder if folder.is_dir() else folder.parent, listing)
    names = list(items.item_ids)
    if not names:
        raise UserError(f"--input-dir {folder}: holds no images and no videos that are read")
    judged = _judge(arguments, items) if arguments.recipe is None else judge(arguments, items)
    votes = pd.DataFrame({"prob": judged.prob, "pred": judged.pred}, index=names)[judged.readable]
    output: Output = arguments.output_kind or "label"
    answers, held = hold(votes, ("0", "1"), output)
    table = pd.DataFrame({"filename": names, output: answers.reindex(names).to_numpy()})
    if arguments.prob:
        table["prob"] = judged.prob
    if judged.verdicts is not None:
        table[["verdict", "reason"]] = judged.verdicts[["verdict", "reason"]].to_numpy()
    lost = [name for name, fine in zip(names, judged.readable, strict=True) if not fine]
    sidecar = {
        "answers": path.name,
        "input_dir": str(folder),
        **judged.made_from,
        "holds": held.record(),
        **_summary(votes, lost, listing),
        "partial": judged.partial,
        "no_face": judged.no_face,
        "doubts": _doubts(votes["prob"].to_numpy(np.float64)),
    }
    place()  # once more: predicting may have taken hours
    write_answers(path, table, sidecar)
    clips = sum(kind_of(name) == "video" for name in names)
    what = f"{len(names) - clips} images"
    what += f", {clips} videos" if clips else ""
    fakes = f", {int(votes['pred'].sum())} fake" * (output == "label")
    print(f"{what}, {len(votes)} read{fakes}")
    if judged.verdicts is not None:
        print(count_verdicts(judged.verdicts))
    print(f"column {output!r} holds {held}")
    for doubt in sidecar["doubts"]:
        print(f"WARNING {doubt}")
    if lost:
        print(f"not readable, left empty: {listed(lost)}")
    print_not_whole(judged.partial, judged.no_face)
    beside = path.with_suffix(".json")
    print(f"answers: {path}; what they were made from, and every name above: {beside}")


def _judge(arguments: Namespace, items: ItemsToPredict) -> Judged:
    """Predict files with checkpoints."""
    # Of a file that is not there, loading says what is wrong.
    checkpoints = {
        path: sha256_file(path) if path.is_file() else "" for path in arguments.checkpoint
    }
    keep_freed_memory()
    names = items.item_ids
    compute = taken(Compute, arguments).for_items(len(names))
    opened = [
        _open_checkpoint(path, sha256, arguments, compute, names)
        for path, sha256 in checkpoints.items()
    ]
    engines = [one.engine for one in opened]
    _check_frames(engines, names)
    loaded = [(one.engine, one.views) for one in opened]
    seen, partial, source = predict_with(loaded, items, compute)
    pools = [engine.spec.frames.pool for engine in engines]
    pooled = [one.pooled(pool) for one, pool in zip(seen, pools, strict=True)]
    faces = {engine.spec.face for engine in engines}
    faceless = {place for face in faces for place in source.cuts.faceless(face, names)}
    prob, readable = sigmoid(np.mean(pooled, axis=0)), seen[0].readable
    made_from: dict[str, Any] = {
        "checkpoints": {str(path): sha256 for path, sha256 in checkpoints.items()},
        "engines": {
            str(one.path): f"{one.engine.engine} {one.engine.precision or 'fp32'}" for one in opened
        },
        "threshold": arguments.threshold,
    }
    origins = {str(one.path): one.origin for one in opened if one.origin is not None}
    if origins:
        made_from["detectors"] = {path: origin.as_dict() for path, origin in origins.items()}
    pred = (prob >= arguments.threshold).astype(np.int64)
    faceless_names = [names[place] for place in sorted(faceless)]
    return Judged(prob, pred, readable, partial, faceless_names, made_from)


def _check_frames(engines: Sequence[Engine], names: Sequence[str]) -> None:
    """Raise where the checkpoints do not all see the same of a video."""
    found = [engine.spec.frames for engine in engines]
    ways = {(one.train, one.eval, one.decoder) for one in found}
    if len(ways) > 1 and any(kind_of(name) == "video" for name in names):
        raise UserError(
            f"the checkpoints see other frames of videos ({', '.join(map(str, sorted(ways)))}: "
            "frames.train, frames.eval, frames.decoder): predict with one after the other"
        )


class Opened(NamedTuple):
    """A checkpoint that is ready: what runs it, the views it takes, and where it comes from.

    `origin` is None for a checkpoint of this repo, whose file says all of that itself.
    """

    path: Path
    engine: Engine
    views: list[str]
    origin: Origin | None


def _open_checkpoint(
    path: Path, sha256: str, arguments: Namespace, compute: Compute, files: Sequence[str]
) -> Opened:
    """Return what predicts with a checkpoint; says in print what a foreign one was taken for.

    Raises a UserError for a checkpoint of ours that is another model than `--model`, or whose head
    `--fake-index` contradicts; for an engine that runs exported files alone.
    """
    name, model = f"{path.parent.name} {path.stem.replace('_', ' ', 1)}", arguments.model
    if model is None or is_ours(path):
        if model is not None:
            _check_ours(path, model, arguments.fake_index)
        spec, views = read_input(path)
        ahead = ahead_of(files, spec, len(views))
        return Opened(path, *load_engine(path, sha256, name, compute, ahead), None)
    if compute.engine not in (None, "eager"):
        raise UserError(
            f"--engine {compute.engine} runs what python -m src export wrote of a run; leave it "
            "out with --model"
        )
    config = read_model(model)
    check_names(config)
    classifier, origin = load_detector(path, model, config, arguments.fake_index)
    print(f"{origin.describe()}: {arguments.threshold} is taken")
    views = list(VIEWS[config.tta])
    ahead = ahead_of(files, classifier.spec, len(views))
    engine = engine_for(classifier.to(compute.chip), sha256, name, compute, ahead)
    return Opened(path, engine, views, origin)


def _check_ours(path: Path, model: str, fake: int | None) -> None:
    # As JSON, for a checkpoint's metadata make tuples of a config's lists.
    held, asked = (
        f"{one.name} {json.dumps(one.kwargs, sort_keys=True)}".removesuffix(" {}")
        for one in (read_facts(path)[1].backbone, read_model(model).backbone)
    )
    if held != asked:
        raise UserError(
            f"{path}: is a checkpoint of this repo, of the backbone {held}, and --model {model} is "
            f"{asked}; leave --model out"
        )
    if fake == 0:
        raise UserError(
            f"{path}: --fake-index 0 contradicts the file, a checkpoint of this repo, in which a "
            "positive logit is fake; leave --fake-index out"
        )


def _doubts(prob: NDArray[np.float64]) -> list[str]:
    """Say so where several files, read (n,), all have the same P(fake)."""
    if len(prob) < 2 or np.ptp(log_odds(prob)) > SAME:
        return []
    return [
        f"P(fake) is {prob[0]:.6g} of all {len(prob)} files: unless they are copies of one, this "
        "detector tells nothing apart; look at its weights and at what it sees of a file"
    ]


def _summary(votes: pd.DataFrame, lost: Sequence[str], listing: Listing) -> dict[str, Any]:
    """Return what is said of the answers in the JSON beside them, as in a submission's sidecar."""
    return {
        "rows": len(votes) + len(lost),
        "share_fake": float(votes["pred"].mean()) if len(votes) else None,
        "fallback": {
            "items": list(lost),
            "prob": None,
            "why": "not decodable; without an answer",
        },
        "left_aside": {
            "counts": listing.ignored,
            "files": listing.unread,
            "tables": [entry.logical for entry in listing.tables],
        },
    }


def _print_left_aside(listing: Listing) -> None:
    """Print how many files of a folder are passed over, why, and the names of some."""
    named: defaultdict[str, list[str]] = defaultdict(list)
    for path, reason in listing.unread.items():
        named[reason].append(path)
    for reason, count in listing.ignored.items():
        shown = listed(named[reason], SHOWN)
        print(f"left aside: {count} x {reason}" + (f": {shown}" if shown else ""))
    if listing.tables:
        tables = [entry.logical for entry in listing.tables]
        print(f"left aside: {len(tables)} x table: {listed(tables, SHOWN)}")
