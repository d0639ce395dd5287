"""Predictions of the test items: passes over the items, each with as many models as fit."""

import logging
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import torch

from src.artifacts.oof import MIRRORED, Levels, write_views
from src.compute.memory import free_bytes
from src.compute.request import Compute
from src.config import READING, FramesConfig, InputSpec
from src.data.pixels.frames import FrameNumbers
from src.data.pixels.reader import FaceCuts
from src.data.pixels.source import Canvas, PixelSource
from src.errors import UserError
from src.inference.engines import Engine
from src.inference.exported import load_exported
from src.inference.predict import Seen, predict_each, views_at
from src.inference.stored import ItemsToPredict, Part, add_delivered
from src.inference.trial import Ahead, Trial, engine_for
from src.inference.unfinished import Partial, TooSlowError
from src.machine import keep_freed_memory
from src.models.checkpoint import load_checkpoint, read_input

LOG = logging.getLogger("rvf")
WEIGHT_SHARE = 0.5  # of the free memory for weights; the rest is for activations
COPIES = {"cpu": 2}  # of the weights: on a CPU a trial holds two ways to compute


def predict_parts(
    parts: Sequence[Part],
    items: ItemsToPredict,
    compute: Compute,
    on_batch: Callable[[int, int], None] | None = None,
) -> None:
    """Predict the test items with several checkpoints and store the views.

    Checkpoints whose weights fit into memory together share one pass, in which each item is
    decoded once. The predictions of a pass are written when it is done. `on_batch` is told after
    every batch how many items are done, of how many over all passes, where an item at n levels
    counts n times; it may raise to end there.

    Raises:
        UserError: a logit is not finite, memory ran out, or an engine cannot do what is asked.
    """
    keep_freed_memory()
    clips = FrameNumbers(items.paths, FramesConfig()).has_clips
    passes = _passes(parts, compute.chip, clips=clips)
    if len(passes) > len({part.levels for part in parts}):
        LOG.info(
            "%d checkpoints %s: %d passes over the items",
            len(parts), "see other frames of clips, or do not fit into memory together"
            if clips else "do not fit into memory together", len(passes),
        )  # fmt: skip
    count = len(items.paths)
    compute = compute.for_items(count)
    finished: list[Part] = []
    looks = [count * (1 if one.levels is None else len(one.levels.names)) for one, *_ in passes]
    for number, some in enumerate(passes):

        def tell(done: int, rows: int, number: int = number) -> None:
            if on_batch is not None:
                on_batch(sum(looks[:number]) + done * looks[number] // rows, sum(looks))

        try:
            _one_pass(some, items, compute, tell)
        except TooSlowError as slow:
            slow.finished = finished
            raise
        finished += some


def grouped(sizes: Sequence[int], room: int) -> list[list[int]]:
    """Return the places of `sizes` in groups, in order, each group's sum at most `room`.

    What is larger than the room has a group of its own.
    """
    groups: list[list[int]] = []
    left = 0
    for place, size in enumerate(sizes):
        if not groups or size > left:
            groups.append([])
            left = room
        groups[-1].append(place)
        left -= size
    return groups


def _passes(parts: Sequence[Part], chip: torch.device, *, clips: bool) -> list[list[Part]]:
    """Return the checkpoints of each pass: those that fit, and see the same frames of clips."""
    room, copies = _room(chip), COPIES.get(chip.type, 1)
    passes: list[list[Part]] = []

    def by(part: Part) -> str:
        return f"{_frames_of(part) if clips else ''} {part.levels}"

    for _, same in groupby(sorted(parts, key=by), by):
        alike = list(same)
        sizes = [part.checkpoint.stat().st_size * copies for part in alike]
        passes += [[alike[place] for place in group] for group in grouped(sizes, room)]
    return passes


def _frames_of(part: Part) -> str:
    frames = read_input(part.checkpoint)[0].frames
    return f"{frames.decoder} {frames.train} {frames.eval}"


def _room(chip: torch.device) -> int:
    return int(WEIGHT_SHARE * free_bytes(chip))


def load_engine(
    checkpoint: Path, sha256: str, name: str, compute: Compute, ahead: Ahead
) -> tuple[Engine, list[str]]:
    """Return what predicts so much with a checkpoint, and its predictions' views.

    `name` is "model fold k", for messages.

    Raises:
        UserError: see `load_checkpoint` and `load_exported`; or `--compile` with another engine.
    """
    if compute.engine not in (None, "eager"):
        if compute.compile:
            raise UserError(
                f"--compile is about torch, and --engine {compute.engine} runs without it: leave "
                "one of them out"
            )
        wanted = (compute.engine, compute.precision, compute.chip)
        return load_exported(checkpoint, sha256, *wanted, name)
    model, views = load_checkpoint(checkpoint, compute.chip)
    return engine_for(model, sha256, name, compute, ahead), views


def predict_with(
    loaded: Sequence[tuple[Engine, list[str]]],
    items: ItemsToPredict,
    compute: Compute,
    partial: Partial | None = None,
    levels: Levels | None = None,
    cuts: FaceCuts | None = None,
) -> tuple[list[Seen], dict[str, str], PixelSource]:
    """Predict items with engines, and the views of each, that see the same frames of clips.

    With `levels` the pictures are seen as each of them delivers them, and not as they are; `cuts`
    are given where the faces are known already, or are not to be kept.

    Returns:
        What each engine saw; item_id -> what is wrong, of clips read only in part or named
        otherwise; and the source, which knows the faces.
    """
    engines = [engine for engine, _ in loaded]
    canvases = [Canvas.of(engine.spec) for engine in engines]
    frames = engines[0].spec.frames
    source = PixelSource(items.root, items.paths, canvases, frames=frames, cuts=cuts)
    source = source if levels is None else source.delivering(levels)
    warn_of_reading(engines, source)
    seen, cut = predict_each(
        engines, [views for _, views in loaded], source, np.arange(len(items.paths)), compute,
        what="predicting", partial=partial,
    )  # fmt: skip
    return seen, {str(items.item_ids[k]): source.describe(k) for k in cut.tolist()}, source


def warn_of_reading(engines: Sequence[Engine], source: PixelSource) -> None:
    """Say in one line that models were trained on clips that another reading showed them."""
    old = sum(engine.spec.reading != READING for engine in engines)
    if old and source.numbers.has_clips:
        LOG.warning(
            "%d of %d checkpoints saw clips as an earlier version read them: what is interlaced, "
            "mirrored, HLG, PQ or of wide colours may look different now; train again to be sure",
            old, len(engines),
        )  # fmt: skip


def _one_pass(
    parts: Sequence[Part],
    items: ItemsToPredict,
    compute: Compute,
    on_batch: Callable[[int, int], None],
) -> None:
    """Predict with some checkpoints at once; `on_batch` is told how many rows are done of all."""
    loaded, levels = [_load(part, compute, items) for part in parts], parts[0].levels
    names = [views_at(levels, views) for _, views in loaded]

    def marks() -> list[dict[str, str] | None]:
        return [_mark(engine, items, compute, levels) for engine, _ in loaded]

    partial = Partial(parts, items, names, marks, on_batch)
    for (engine, _), begun in zip(loaded, partial.begun(), strict=True):
        if isinstance(engine, Trial) and begun:
            engine.go_on(begun.get("engine", ""), begun.get("precision", ""))
    try:
        each, notes, source = predict_with(loaded, items, compute, partial, levels)
    except (KeyboardInterrupt, TooSlowError):
        partial.save()
        raise
    broken = ""
    for part, (engine, _), views, seen in zip(parts, loaded, names, each, strict=True):
        bad = seen.there & ~np.isfinite(seen.logits).all(1)
        if bad.any():
            item = items.item_ids[seen.frames.place[bad.argmax()]]
            broken = f"{part.model} fold {part.fold}: the logit of {item!r}"
            continue
        metadata = {
            "checkpoint_sha256": part.checkpoint_sha256,
            "manifest_sha256": items.manifest_sha256,
            "engine": engine.engine,
            "precision": engine.precision or "fp32",  # a trial that saw no batch
            "pool": engine.spec.frames.pool,
        } | ({"partial": notes} if notes else {})
        faceless = [items.item_ids[k] for k in source.cuts.faceless(engine.spec.face, items.paths)]
        metadata |= {"no_face": faceless} if faceless else {}
        metadata |= {"one_view": True} if part.one_view else {}
        table = seen.table(items.item_ids, part.fold, views)
        if levels is None:
            write_views(part.views, table, metadata)
        else:
            add_delivered(part, table, metadata)
    partial.discard()
    if broken:
        raise UserError(f"{broken} is not finite; predict again with --precision fp32")


def _load(part: Part, compute: Compute, items: ItemsToPredict) -> tuple[Engine, list[str]]:
    """Return what predicts with a checkpoint, and the views that are wanted of it."""
    name = f"{part.model} fold {part.fold}"
    spec, views = read_input(part.checkpoint)
    if part.one_view:
        views = [view for view in views if not view.endswith(MIRRORED)]
    looks = len(views_at(part.levels, views))
    ahead = ahead_of(items.paths, spec, looks)
    engine, _ = load_engine(part.checkpoint, part.checkpoint_sha256, name, compute, ahead)
    return engine, views


def ahead_of(names: Sequence[str], spec: InputSpec, looks: int) -> Ahead:
    """Return how much is to be predicted: items, and of each frame so many looks."""
    numbers = FrameNumbers(names, spec.frames)
    rows = len(names)
    if numbers.has_clips:
        rows = len(numbers.eval_rows(np.arange(len(names))).rows)
    return Ahead(len(names), rows * looks)


def _mark(
    engine: Engine, items: ItemsToPredict, compute: Compute, levels: Levels | None
) -> dict[str, str] | None:
    """Return what rows must agree in to count; None as long as a first batch will decide."""
    if not engine.precision:
        return None
    return {
        "items": items.manifest_sha256,
        "engine": engine.engine,
        "precision": engine.precision,
        "batch_size": str(compute.batch_size),
        "frames": f"{engine.spec.frames!r} {READING}",
        "levels": f"{levels}",
    }
