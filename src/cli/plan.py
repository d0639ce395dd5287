"""`python -m src plan`: what to train, tune and predict in the minutes there are."""

import math
import shlex
import time
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from statistics import fmean, median
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src import paths
from src.artifacts.folds import existing_scheme, fold_numbers, read_folds
from src.artifacts.runs import has_run
from src.cli import parsers
from src.cli.common import choose_dataset, print_table, taken
from src.compute.clock import in_words, process_seconds
from src.config import FaceConfig, FramesConfig, read_model
from src.data.folds.scan import look_at, look_at_clip
from src.data.folds.schemes import default_scheme, is_lodo, parse_scheme
from src.data.items.files import read_bytes
from src.data.items.manifest import Dataset
from src.data.layouts.load import load_dataset
from src.data.pixels.images import decode_image
from src.errors import UnreadableImageError, UserError, message_of
from src.faces.detectors import detect_each, detector_of, shrink
from src.machine import cpu_count
from src.training.candidates import (
    SMALL_SIDE,
    Pictures,
    Prospect,
    candidate_of,
    candidates_for,
)
from src.training.job import Job, Options, job_table
from src.training.proposal import DataSize, Option, Planned, Proposal, propose
from src.training.rehearsal import Watch, reachable, rehearse

SAMPLE = 24  # items that are opened
FACES = 8  # of them, in which faces are looked for
SHARE = 0.05  # of the time that is planned for: when it is over, no further model is timed
MOST_SECONDS = 40.0
FEW_MINUTES = 5.0  # below them the cheap candidates are timed first: others could not be used
COMPUTE = ("device", "precision", "workers")
CROP_BELOW = 0.5  # a face's side over the picture's shorter one: below it cropping is proposed
CROP_SHARE = 0.35  # of the time, that finding faces may take


class Sampled(NamedTuple):
    """What a sample of the items showed."""

    width: int  # median, px
    height: int
    seconds: float  # to open one
    faces: float | None  # share of the pictures with one; None: not looked
    face_side: float  # median, of the box over the picture's shorter side
    face_seconds: float  # to find the faces of a picture
    note: str  # why faces were not looked for
    looked: int = 0  # pictures in which they were


def run_plan(arguments: Namespace) -> None:
    """Look, time, propose."""
    name = choose_dataset(arguments.data, arguments.input_root)
    for model in arguments.models or ():
        read_model(model)  # a typo answers before a data set is read
    dataset = load_dataset(name, arguments.input_root)
    dataset.require_train()
    scheme = existing_scheme(name, arguments.scheme)
    table = _table(dataset, scheme, arguments.scheme)
    look = _look(dataset)
    _print_data(dataset, table, look)
    wanted, watch = _wanted(arguments.models, look), Watch()
    options = taken(Options, arguments, track="none", report=False)
    job = Job("", read_model(wanted[0].model), name, "", 0, dataset.root, table, options)
    rows = _rows(dataset, table, look)
    crop = _crop(arguments.minutes, rows, look)
    if crop:
        rows = replace(rows, reading=rows.reading + look.face_seconds * (rows.train + rows.test))
    done = {} if scheme is None else _finished(wanted, name, scheme, table, crop=crop)
    timed, refused = _rehearse_all(wanted, job, watch, arguments.minutes, done)
    if not timed:
        why = "; ".join(f"{model}: {reason}" for model, reason in refused.items())
        raise UserError(f"no model can start here: {why}. Without --models others are tried")
    _print_timings(timed, refused, rows)
    if why := watch.disturbed():
        print(
            f"WARNING these timings were disturbed: {why}. A quiet machine makes more epochs in "
            "the same minutes"
        )
    _print_proposal(propose(arguments.minutes, rows, timed), arguments, name, rows, crop=crop)


def _table(dataset: Dataset, scheme: str | None, asked: str | None) -> pd.DataFrame:
    """Return the training rows with their folds; where none are made yet, dealt out in turn."""
    if scheme is not None:
        return job_table(dataset.train, read_folds(paths.folds_csv(dataset.name, scheme)))
    numbers = parse_scheme(dataset, asked or default_scheme(dataset))
    if numbers is not None:
        count = numbers[0]
    elif is_lodo(asked or ""):
        count = dataset.train.loc[dataset.train["label"] == 1, "domain"].nunique()
    else:  # given folds
        count = dataset.given_folds.nunique() if dataset.given_folds is not None else 1
    items = dataset.train[["item_id", "path", "bytes", "label", "group"]].reset_index(drop=True)
    items["label"] = items["label"].astype("int64")
    return items.assign(fold=np.arange(len(items)) % max(1, count))


def _look(dataset: Dataset) -> Sampled:
    """Open a sample of the labelled items, evenly spaced, and look for faces in some."""
    train = dataset.train
    rows = np.unique(np.linspace(0, len(train) - 1, SAMPLE).astype(int))
    sample = train.iloc[rows]
    sizes, taken, begun = [], [], time.monotonic()
    for path, kind in zip(sample["path"], sample["kind"], strict=True):
        began = time.monotonic()
        opened = (look_at_clip if kind == "video" else look_at)(dataset.root, path)
        taken.append(time.monotonic() - began)  # of the first one, with loading libraries
        if opened.width:
            sizes.append((opened.width, opened.height))
        if time.monotonic() - begun > MOST_SECONDS / 8 and sizes:
            break
    if not sizes:
        raise UserError(
            f"none of {len(sample)} items can be opened: python -m src data --data {dataset.name}"
        )
    seconds = fmean(taken[1:] or taken)
    width, height = (int(median(side)) for side in zip(*sizes, strict=True))
    if min(width, height) <= SMALL_SIDE:
        return Sampled(width, height, seconds, None, 0.0, 0.0, "pictures are too small for it")
    pictures = sample[sample["kind"] == "image"]["path"].tolist()[:: max(1, SAMPLE // FACES)]
    return _look_for_faces(dataset, pictures, Sampled(width, height, seconds, None, 0.0, 0.0, ""))


def _look_for_faces(dataset: Dataset, pictures: list[str], look: Sampled) -> Sampled:
    """Say how many of some pictures show a face, how large, and how long to find it takes."""
    if not pictures:
        return look._replace(note="clips: python -m src faces looks into them")
    try:
        detector = detector_of(FaceConfig())
        read = list(_decoded(dataset, pictures))
        if not read:
            return look._replace(note="none of the pictures that were tried can be read")
        shrunk = [shrink(picture, detector) for picture in read]
        detect_each(detector, shrunk[:1])  # loads the net
        began = time.monotonic()
        found = detect_each(detector, shrunk)
    except UserError as error:
        return look._replace(note=str(error).splitlines()[0])
    seconds = (time.monotonic() - began) / len(read)
    sides = [
        max(max(f.box[2] - f.box[0], f.box[3] - f.box[1]) for f in faces) / min(one.shape[:2])
        for faces, one in zip(found, read, strict=True)
        if faces
    ]
    side = median(sides) if sides else 0.0
    return look._replace(
        faces=len(sides) / len(read), face_side=side, face_seconds=seconds, looked=len(read)
    )


def _decoded(dataset: Dataset, pictures: Iterable[str]) -> Iterable[NDArray[np.uint8]]:
    """Yield those pictures that can be read."""
    for path in pictures:
        with suppress(UnreadableImageError, UserError):
            yield decode_image(read_bytes(dataset.root, path))


def _rows(dataset: Dataset, table: pd.DataFrame, look: Sampled) -> DataSize:
    """Return how many items there are, and what reading all of them once takes."""
    count = len(table) + len(dataset.test)
    # Folds open every file, and training decodes it once more; what is remembered is less.
    known = paths.manifest_cache(dataset.name).exists()
    reading = look.seconds * (0.5 * len(table) if known else count) / cpu_count()
    folds = table.loc[table["fold"] >= 0, "fold"].nunique()
    clips = float((dataset.items["kind"] == "video").mean())
    frames = 1 + clips * (FramesConfig().eval - 1)
    return DataSize(len(table), len(dataset.test), folds, reading, frames)


def _wanted(models: Sequence[str] | None, look: Sampled) -> list[Prospect]:
    """Return the candidates, the best first."""
    pictures: Pictures = "small" if min(look.width, look.height) <= SMALL_SIDE else "large"
    if models:
        return [candidate_of(model, pictures) for model in dict.fromkeys(models)]
    return list(candidates_for(pictures))


def _trained_as(model: str, *, crop: bool) -> str:
    """Return the name that a model is trained under."""
    return f"{model.replace(':', '_')}_face" if crop else model


def _finished(
    wanted: Sequence[Prospect], name: str, scheme: str, table: pd.DataFrame, *, crop: bool
) -> dict[str, tuple[int, ...]]:
    """Return the folds of each candidate that are finished."""
    done = {}
    for one in wanted:
        names = (name, scheme, _trained_as(one.model, crop=crop))
        done[one.model] = tuple(fold for fold in fold_numbers(table) if has_run(*names, fold))
        if 0 < len(done[one.model]) < len(fold_numbers(table)):
            print(f"{names[2]}: finished folds: {', '.join(map(str, done[one.model]))}")
    return done


def _rehearse_all(
    wanted: Sequence[Prospect],
    job: Job,
    watch: Watch,
    minutes: float,
    done: Mapping[str, tuple[int, ...]],
) -> tuple[list[Option], dict[str, str]]:
    """Time the candidates that can start here; returns them, and why others cannot."""
    timed: list[Option] = []
    refused: dict[str, str] = {}
    asked, folds = job.options.weights, len(fold_numbers(job.table))
    until = min(MOST_SECONDS, SHARE * 60 * minutes)
    for candidate in wanted if minutes >= FEW_MINUTES else reversed(wanted):
        name, settings = candidate.model, read_model(candidate.model)
        kind, finished = settings.backbone.pretrained, done.get(name, ())
        given = asked if kind in ("file", "hub") or len(wanted) == 1 else None
        if len(finished) == folds:
            refused[name] = f"all its folds are finished: python tune.py --data {job.dataset}"
        elif kind == "file" and given is None:
            refused[name] = "its weights are a file of yours: --weights FILE"
        elif given is None and not reachable(settings):
            refused[name] = "its weights are in no HF cache here (HF_HOME), and none are downloaded"
        elif process_seconds() > until and timed:
            refused[name] = "not timed, for a plan takes little of the time"
        else:
            options = replace(job.options, weights=given)
            try:
                timing = rehearse(replace(job, model=name, config=settings, options=options), watch)
            except UserError as error:
                refused[name] = message_of(error)
            else:
                timed.append(Option(candidate, timing, finished))
    return sorted(timed, key=lambda option: wanted.index(option.candidate)), refused


def _print_data(dataset: Dataset, table: pd.DataFrame, look: Sampled) -> None:
    """Print what was seen of the data."""
    groups = table["group"][table["group"] != ""]
    print(
        f"{dataset.name}: {len(table)} labelled items, {table['label'].mean():.0%} fake, "
        f"{len(dataset.test)} to predict; {look.width}x{look.height} px (median of a sample)"
    )
    if groups.empty:
        print(
            "no groups are given: look-alikes are found when the folds are made, but pictures of "
            "one person or video that do not look alike may stand on both sides, and scores be too "
            "good (docs/inputs.md)"
        )
    else:
        print(f"{groups.nunique()} groups, which folds keep together")
    if look.note:
        print(f"faces not looked for: {look.note}")
    elif look.faces is not None:
        side = f", {min(1.0, look.face_side):.0%} of the shorter side" if look.faces else ""
        print(f"a face in {look.faces * look.looked:.0f} of {look.looked} pictures{side}")


def _print_timings(timed: Sequence[Option], refused: Mapping[str, str], rows: DataSize) -> None:
    """Print what each candidate costs, and what it is worth."""
    table = [
        ["model", "px", "start", "ms to train", "to look", "its config", "a fold", "what is known"]
    ]
    for option in timed:
        timing = option.timing
        epochs = sum(stage.epochs for stage in timing.stages)
        table.append([
            timing.model, str(timing.image_size), timing.start,
            " ".join(f"{1000 * stage.seconds:.1f}" for stage in timing.stages),
            f"{1000 * timing.look:.1f}", f"{epochs} epochs",
            f"{option.fold_seconds(rows, 1, rows.folds) / 60:.1f} min", option.candidate.why,
        ])  # fmt: skip
    print_table(table)
    for model, why in refused.items():
        print(f"{model}: {why}")


def _crop(minutes: float, rows: DataSize, look: Sampled) -> bool:
    """Tell whether faces should be cropped, and say why, or why not."""
    if look.faces is None or look.faces < 0.5:
        return False
    if look.face_side >= CROP_BELOW:
        print("they fill the pictures: nothing to crop")
        return False
    seconds = look.face_seconds * (rows.train + rows.test)
    if seconds > CROP_SHARE * 60 * minutes:
        print(
            f"cropping them would show a model more of them; to find all takes "
            f"{in_words(seconds)} here, too much of {minutes:g} min. With more time: "
            "python -m src faces, then --set input.crop=face --as NAME_face"
        )
        return False
    print("cropped, a model sees more of them: input.crop=face")
    return True


def _print_proposal(
    proposal: Proposal, asked: Namespace, name: str, rows: DataSize, *, crop: bool
) -> None:
    """Print the steps, with their minutes and commands."""
    table = [["minutes", "step", "type"]]
    for member in proposal.members:
        table += _training(member, asked, name, rows, crop=crop)
    tune = _typed("tune.py", *_passed_on(asked, name, "scheme"))
    table.append([f"{proposal.tune:.1f}", "tune", tune])
    if rows.test:
        step = f"predict {rows.test} items"
        predict = _typed("predict_ensemble.py", *_passed_on(asked, name, *COMPUTE))
        table.append([f"{proposal.predict:.1f}", step, predict])
    print()
    print_table([*table, [f"{proposal.minutes:.1f}", "in all", ""]])


def _passed_on(asked: Namespace, name: str, *flags: str) -> list[str]:
    """Return what says which data, and those of some flags that this command was given."""
    words = ["--data", name]
    for flag in ("input_root", *flags):
        value = getattr(asked, flag)
        if value not in (None, "auto"):
            words += [f"--{flag.replace('_', '-')}", str(value)]
    return words


def _training(
    member: Planned, asked: Namespace, name: str, rows: DataSize, *, crop: bool
) -> list[list[str]]:
    """Return the lines of a member's training: one for all folds, or one a fold."""
    timing, model = member.option.timing, member.option.timing.model
    words = ["--model", model, *_passed_on(asked, name, "scheme", *COMPUTE)]
    if asked.weights is not None and timing.start == "file":
        words += ["--weights", str(asked.weights)]
    if crop:
        words += ["--set", "input.crop=face", "--as", _trained_as(model, crop=True)]
    epochs = [f"{member.share * stage.epochs:.1f} of {stage.epochs}" for stage in timing.stages]
    what = f"{model}, {timing.image_size} px, {' and '.join(epochs)} epochs each"
    if member.folds == rows.folds:
        step = f"train {member.folds} folds of {what}"
        time = ["--minutes", f"{member.minutes:g}"]
        return [[f"{member.minutes:.1f}", step, _typed("train_folds.py", *words, *time)]]
    done = member.option.done
    lines, numbers = [], [fold for fold in range(rows.folds) if fold not in done]
    each = (60 * member.minutes - rows.reading) / member.folds
    for fold in numbers[: member.folds]:
        minutes = math.floor((each + (0 if lines else rows.reading)) / 6) / 10
        time = ["--fold", str(fold), "--minutes", f"{minutes:g}"]
        step = f"train fold {fold} of {what}"
        lines.append([f"{minutes:.1f}", step, _typed("train_folds.py", *words, *time)])
    return lines


def _typed(script: str, *words: str) -> str:
    return shlex.join(["python", script, *words])


main = partial(parsers.main, "plan")
