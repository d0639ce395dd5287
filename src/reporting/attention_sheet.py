"""The contact sheet of attention: which held-out items, of which fold, beside which other net."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from src import paths
from src.artifacts.files import write_csv
from src.artifacts.folds import read_folds
from src.data.items.files import kind_of
from src.data.items.manifest import Dataset
from src.data.pixels.images import Canvas, center_crop
from src.data.pixels.source import PixelSource
from src.ensemble.align import finished_folds, read_logits
from src.errors import UserError, unknown_name
from src.explain.attention import AttentionMaps, check_looks, look
from src.models.checkpoint import load_checkpoint
from src.models.classifier import Classifier
from src.reporting.attention_maps import agreement_table, draw_looks, layers_of
from src.reporting.contact_sheets import Picture

LOG = logging.getLogger("rvf")
EACH = 3  # surest wrong items, and surest right ones
FRAMES = 3  # of a clip


@dataclass(frozen=True)
class AttentionRequest:
    """What is to be drawn."""

    scheme: str
    against: str | None = None  # another model
    items: Sequence[str] | None = None  # ids; None takes the surest
    fold: int | None = None  # None takes the first that all have finished
    layers: Sequence[int] | None = None  # of the model, from 1; None stands for all
    rollout: bool = False  # through all layers up to each


def draw_attention(
    dataset: Dataset, model: str, asked: AttentionRequest, output: Path | None = None
) -> tuple[Path, pd.DataFrame | None]:
    """Draw where a model looks; returns the picture and, with `against`, the agreement.

    Raises:
        UserError: no finished fold, an item that is not held out in it or that cannot be decoded,
            a layer that is not there, a net without self-attention over all tokens.
    """
    models = [model, *([] if asked.against is None else [asked.against])]
    fold = _fold_of(dataset.name, models, asked)
    nets = [_net(dataset.name, asked.scheme, name, fold) for name in models]
    table = read_folds(paths.folds_csv(dataset.name, asked.scheme))
    logits = read_logits(dataset.name, asked.scheme, model, [fold], table)
    label = table.set_index("item_id")["label"]
    ids = _chosen(logits, label, asked.items, fold)
    rows, seen = pictures_of(dataset, nets, ids, label)
    rolled = asked.rollout
    looks = [
        look(net, name, own, rolled=rolled)
        for net, name, own in zip(nets, models, seen, strict=True)
    ]
    layers = layers_of(looks[0], asked.layers)
    path = output or paths.attention_png(dataset.name, asked.scheme, model, fold)
    how = ", rollout" if rolled else ""
    beside = "" if asked.against is None else f" beside {asked.against}"
    title = f"{model}{beside} on {dataset.name}/{asked.scheme}, held out in fold {fold}{how}"
    pairs = list(zip(looks, seen, strict=True))
    draw_looks(pairs, rows, layers, title, path, dataset.labels.names)
    if asked.against is None:
        return path, None
    _say_sizes(looks)
    found = agreement_table(looks[0], looks[1], layers)
    write_csv(path.with_suffix(".csv"), found)
    return path, found


def _fold_of(dataset: str, models: Sequence[str], asked: AttentionRequest) -> int:
    done = finished_folds(dataset, asked.scheme)
    for name in models:
        if name not in done:
            raise unknown_name("model with a finished fold", name, done, "train_folds.py")
    both = sorted(set.intersection(*(set(done[name]) for name in models)))
    if not both:
        raise UserError(f"{' and '.join(models)} have finished no fold in common")
    if asked.fold is not None and asked.fold not in both:
        raise UserError(
            f"--fold {asked.fold}: {' and '.join(models)} have finished {', '.join(map(str, both))}"
        )
    return both[0] if asked.fold is None else asked.fold


def _net(dataset: str, scheme: str, name: str, fold: int) -> Classifier:
    path = paths.checkpoint(dataset, scheme, name, fold)
    net, _ = load_checkpoint(path, torch.device("cpu"))
    check_looks(net, name)
    return net


def _chosen(
    logits: pd.Series, label: pd.Series, wanted: Sequence[str] | None, fold: int
) -> list[str]:
    """Return ids of items: those wanted, else the surest wrong, then the surest right."""
    for item in wanted or ():
        if item not in logits.index:
            raise unknown_name(f"item of fold {fold}", item, logits.index)
    if wanted:
        return list(dict.fromkeys(wanted))
    margin = (
        (logits * np.where(label[logits.index] == 1, 1, -1)).dropna().sort_values(kind="stable")
    )
    wrong = margin.index[margin.to_numpy() < 0][:EACH].tolist()
    return wrong + margin.index[margin.to_numpy() >= 0][::-1][:EACH].tolist()


def pictures_of(
    dataset: Dataset, nets: Sequence[Classifier], ids: Sequence[str], label: pd.Series
) -> tuple[list[tuple[str, int]], list[list[Picture]]]:
    """Return id (with the frame) and label of every picture, and what each net sees of it.

    Raises:
        UserError: an item cannot be decoded.
    """
    where = dataset.require_train().set_index("item_id")["path"]
    files = [str(where[item]) for item in ids]
    canvases = [Canvas.of(net.spec) for net in nets]
    source = PixelSource(dataset.root, files, canvases, frames=nets[0].spec.frames)
    if any(net.spec.face is not None for net in nets):
        source.find_faces()
    rows: list[tuple[str, int]] = []
    seen: list[list[Picture]] = [[] for _ in nets]
    for number, item in enumerate(ids):
        found = source.numbers.eval_rows(np.array([number]))
        frames = list(source.read_eval(found.rows.tolist()))
        there = [k for k, frame in enumerate(frames) if frame.canvases is not None]
        if not there:
            raise UserError(f"{item} cannot be decoded")
        picks = np.unique(np.linspace(0, len(there) - 1, min(FRAMES, len(there))).round())
        for k in (there[int(pick)] for pick in picks):
            clip = kind_of(files[number]) == "video"
            rows.append((f"{item} f{k:02d}" if clip else item, int(label[item])))
            shown = frames[k].canvases or ()
            for own, net, canvas in zip(seen, nets, canvases, strict=True):
                picture = shown[source.canvases.index(canvas)]  # nets of one canvas share it
                own.append(center_crop(picture, net.spec.image_size))
    return rows, seen


def _say_sizes(looks: Sequence[AttentionMaps]) -> None:
    own, other = (look_.maps[0].shape[1] for look_ in looks)
    if own != other:
        LOG.info(
            "%s has %d tokens and %s %d: its maps are resized", looks[0].name, own, looks[1].name,
            other,
        )  # fmt: skip
