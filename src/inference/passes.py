"""Predictions of the test items: passes over the items, each with as many models as fit."""

import logging
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import torch

from src.artifacts.oof import write_views
from src.compute.memory import free_bytes, keep_freed_memory
from src.compute.request import Compute
from src.config import READING
from src.data.items.files import kind_of
from src.data.pixels.source import Canvas, PixelSource
from src.errors import UserError
from src.inference.engines import Engine, engine_for
from src.inference.exported import load_exported
from src.inference.frames import Seen, note_cut, warn_of_reading, with_everyone
from src.inference.in_time import TooSlowError
from src.inference.partial import Partial
from src.inference.predict import predict_views
from src.inference.stored import Part, TestItems
from src.models.checkpoint import load_checkpoint, read_input

LOG = logging.getLogger("rvf")
WEIGHT_SHARE = 0.5  # of the free memory for weights; the rest is for activations
COPIES = {"cpu": 2}  # of the weights: on a CPU a trial holds two ways to compute


def predict_parts(
    parts: Sequence[Part],
    items: TestItems,
    compute: Compute,
    on_batch: Callable[[int, int], None] | None = None,
) -> None:
    """Predict the test items with several checkpoints and store the views.

    Checkpoints whose weights fit into memory together share one pass, in which each item is
    decoded once. The predictions of a pass are written when it is done.

    Args:
        parts: the checkpoints.
        items: the items.
        compute: where and how.
        on_batch: told after every batch how many items are done, of how many over all passes; may
            raise to end there.

    Raises:
        UserError: a logit is not finite, memory ran out, or an engine cannot do what is asked.
    """
    keep_freed_memory()
    chip = compute.chip
    clips = [path for path in items.paths if kind_of(path) == "video"]
    parts = _by_frames(parts) if clips else parts
    groups = _groups(parts, chip, alike=bool(clips))
    if len(groups) > 1:
        LOG.info(
            "%d checkpoints %s: %d passes over the items",
            len(parts), "see other frames of clips, or do not fit into memory together"
            if clips else "do not fit into memory together", len(groups),
        )  # fmt: skip
    count = len(items.paths)
    compute = compute.for_items(count)
    for number, group in enumerate(groups):

        def tell(done: int, before: int = number * count) -> None:
            if on_batch is not None:
                on_batch(before + done, len(groups) * count)

        try:
            _one_pass([parts[index] for index in group], items, compute, tell)
        except TooSlowError as slow:
            slow.finished = [parts[index] for earlier in groups[:number] for index in earlier]
            raise


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


def _by_frames(parts: Sequence[Part]) -> list[Part]:
    """Return the checkpoints sorted by the frames they see of a clip: a pass reads one kind."""
    return sorted(parts, key=_frames_of)


def _frames_of(part: Part) -> str:
    frames = read_input(part.checkpoint)[0].frames
    return f"{frames.decoder} {frames.train} {frames.eval}"


def _groups(parts: Sequence[Part], chip: torch.device, *, alike: bool) -> list[list[int]]:
    """Return the places of checkpoints in groups that share a pass; see `grouped`."""
    sizes, room = [_weight_bytes(part, chip) for part in parts], _room(chip)
    groups: list[list[int]] = []
    for _, same in groupby(range(len(parts)), lambda k: _frames_of(parts[k]) if alike else ""):
        places = list(same)
        groups += [[places[k] for k in one] for one in grouped([sizes[p] for p in places], room)]
    return groups


def _weight_bytes(part: Part, chip: torch.device) -> int:
    return part.checkpoint.stat().st_size * COPIES.get(chip.type, 1)


def _room(chip: torch.device) -> int:
    return int(WEIGHT_SHARE * free_bytes(chip))


def load_engine(
    checkpoint: Path, sha256: str, name: str, compute: Compute, n_items: int
) -> tuple[Engine, list[str]]:
    """Return what predicts with a checkpoint, and the views its predictions are made of.

    Args:
        checkpoint: fold_k.safetensors.
        sha256: of it.
        name: "model fold k", for messages.
        compute: where and how.
        n_items: to predict.

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
    return engine_for(model, sha256, name, compute, n_items), views


def _mark(engine: Engine, items: TestItems, compute: Compute) -> dict[str, str] | None:
    if not engine.precision:
        return None  # its first batch will decide
    return {
        "items": items.manifest_sha256,
        "engine": engine.engine,
        "precision": engine.precision,
        "batch_size": str(compute.batch_size),
        "frames": f"{engine.spec.frames!r} {READING}",
    }


def _one_pass(
    parts: Sequence[Part],
    items: TestItems,
    compute: Compute,
    on_batch: Callable[[int], None],
) -> None:
    """Predict with some checkpoints at once; `on_batch` is told how many items are done."""
    loaded = [
        load_engine(
            part.checkpoint, part.checkpoint_sha256, f"{part.model} fold {part.fold}", compute,
            len(items.paths),
        )
        for part in parts
    ]  # fmt: skip
    engines, views = [engine for engine, _ in loaded], [names for _, names in loaded]
    canvases, looks = [Canvas.of(engine.spec) for engine in engines], engines[0].spec.frames
    source = PixelSource(items.root, items.paths, canvases, frames=looks)
    warn_of_reading(engines, source)
    frames = source.numbers.eval_rows(np.arange(len(items.paths)))
    cut = np.zeros(len(frames.rows), bool)

    def marks() -> list[dict[str, str] | None]:
        return [_mark(engine, items, compute) for engine in engines]

    partial = Partial(parts, views, marks, cut)

    def tell(done: int) -> None:
        partial.after_batch(done)
        on_batch(done * len(items.paths) // len(frames.rows))

    try:
        logits, readable = predict_views(
            engines, views, source, frames.rows, compute, what="predicting", on_batch=tell,
            begin=partial.begin, cut=cut,
        )  # fmt: skip
    except (KeyboardInterrupt, TooSlowError):
        partial.save()
        raise
    broken, notes = "", note_cut(source, frames, cut, items.item_ids)
    for part, engine, names, table in zip(parts, engines, views, logits, strict=True):
        seen = Seen(frames, table, readable, len(items.paths))
        every = np.arange(len(items.paths))
        seen = with_everyone(seen, engine, names, source, every, compute)
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
        write_views(part.views, seen.table(items.item_ids, part.fold, names), metadata)
    partial.discard()
    if broken:
        raise UserError(f"{broken} is not finite; predict again with --precision fp32")
