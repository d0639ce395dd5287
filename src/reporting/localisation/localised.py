"""What `python -m src evaluate --by mask` scores: boundary maps of held-out items, and the truth.

The truth is that of masks, or of blends made of held-out real faces.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from src import paths
from src.artifacts.fingerprints import fingerprint_of
from src.artifacts.folds import read_folds
from src.artifacts.runs import has_run, read_run
from src.compute.request import Compute
from src.config import BlendConfig, InputSpec
from src.data.batches.blend import beside_blend, self_blend
from src.data.items.manifest import Dataset
from src.data.pixels.images import Canvas, center_crop
from src.data.pixels.landmarks import Landmarks
from src.data.pixels.masks import MaskReader
from src.data.pixels.source import PixelSource
from src.ensemble.align import finished_folds
from src.ensemble.predictions import Predictions, columns_of
from src.errors import UserError, unknown_name
from src.inference.maps import MapPredictor, Maps
from src.machine import decoding_threads
from src.models.checkpoint import load_checkpoint, read_facts
from src.progress import track
from src.reporting.localisation.pixel_scores import PixelRows, codes_of
from src.seeds import derive_seed
from src.training.auxiliary.localisation import boundary_of

GRID = 64  # cells a side at which map and truth are compared, or the picture's pixels if fewer
MEETS = 0.5  # 4 m (1 - m) of a pixel from which its cell is where two pictures meet
CHANGED = 0.1  # mean share of a cell from which it is manipulated
TRUTHS = ("boundary", "region")
SEED = 0  # of the blends
COLUMNS = ("item_id", "label", "group", "fold", "domain", "kind")  # of `Predictions`

Picture = NDArray[np.uint8]  # RGB (s, s, 3)
Mask = NDArray[np.uint8]  # (s, s)


@dataclass(frozen=True)
class Localised:
    """Held-out items that a model was asked where they were manipulated."""

    rows: Predictions  # of a blend too, called as its real face is
    maps: Maps  # (n, side, side)
    truth: dict[str, NDArray[np.bool_]]  # a name of `TRUTHS` -> (n, side, side)
    source: str  # what the truth is, and of how many
    held: "list[HeldOut]"  # the folds, and which rows are whose
    starts: list[int]

    @property
    def side(self) -> int:
        """Return how many cells a side map and truth have."""
        return self.maps.shape[1]

    @cached_property
    def codes(self) -> NDArray[np.uint16]:
        """Return the maps as (n, cells) numbers of their order."""
        return codes_of(self.maps)

    def of(self, truth: str) -> PixelRows:
        """Return the pixels with one truth."""
        return PixelRows(self.rows, self.codes, self.truth[truth].reshape(len(self.maps), -1))

    def look(self, row: int) -> tuple[Picture, Mask]:
        """Return what the net saw in a row, and its mask."""
        part = int(np.searchsorted(self.starts, row, "right")) - 1
        held = self.held[part]
        return held.finish(row - self.starts[part], held.canvas(row - self.starts[part]))


class HeldOut:
    """What the held-out items of a fold show, with the mask of each.

    Reals have empty ones. Fakes without a mask are left out; with `blend`, all fakes are, and each
    real that shows a face is there a second time, blended.
    """

    def __init__(
        self, dataset: Dataset, rows: Predictions, spec: InputSpec, blend: BlendConfig | None
    ) -> None:
        files = dataset.require_train().set_index("item_id")["path"]
        wanted = rows if blend is None else rows.take(rows.label == 0)
        self.spec, self.blend, self._fakes = spec, blend, int(wanted.label.sum())
        where = [str(files[item]) for item in wanted.item_id]
        self.source = PixelSource(dataset.root, where, [Canvas.of(spec)], frames=spec.frames)
        self.source.find_faces()
        asked = [str(dataset.masks.get(item, "")) for item in wanted.item_id]
        self._masks = MaskReader(self.source, asked if blend is None else [""] * len(asked))
        self._landmarks = Landmarks(paths.landmarks(dataset.name))
        every = np.arange(len(wanted))
        if blend is None:
            self._masks.preload(wanted.label)
            keep = [
                int(item) for item in every
                if wanted.label[item] == 0 or self._masks.read(int(item)) is not None
            ]  # fmt: skip
            self.items, self.rows = np.array(keep, np.int64), wanted.take(np.array(keep, np.intp))
            self.lost = len(wanted) - len(keep)
            return
        lost = {*self._landmarks.find(self.source, every.tolist())}
        for item in np.flatnonzero(self.source.numbers.is_clip):  # some other frame may show one
            shown = self.source.read_or_stop(int(item))[0]
            lost |= set() if self._landmarks.of(shown) is not None else {int(item)}
        faces = np.setdiff1d(every, [*lost])
        self.items, self.lost = np.concatenate([every, faces]), len(lost)
        label = np.repeat([0, 1], [len(every), len(faces)])
        self.rows = replace(wanted.take(self.items), label=label)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def known(self) -> tuple[int, int]:
        """Return how many items are manipulated and known where, and of how many."""
        fakes = int(self.rows.label.sum())
        return fakes, self._fakes if self.blend is None else fakes + self.lost

    def canvas(self, row: int) -> Picture:
        """Return the canvas of a row's file; of a clip that of its middle frame."""
        return self.source.read_or_stop(int(self.items[row]))[0]

    def finish(self, row: int, canvas: Picture) -> tuple[Picture, Mask]:
        """Return what the net sees of a canvas, blended where the row is a blend, and the mask.

        A real beside blends is changed as what surrounds its blend: the seam alone tells them.
        """
        changed, size = bool(self.rows.label[row]), self.spec.image_size
        mask = self._masks.read(int(self.items[row])) if changed else None
        if self.blend is not None:
            rng = np.random.default_rng(derive_seed(SEED, "blend", str(self.rows.item_id[row])))
            marks = self._landmarks.of(canvas) if changed else None
            if marks is None:
                canvas = beside_blend(canvas, rng)
            else:
                canvas, mask = self_blend(canvas, marks, self.blend, rng)
        mask = np.zeros(canvas.shape[:2], np.uint8) if mask is None else mask
        return center_crop(canvas, size), center_crop(mask, size)


def held_out(
    dataset: str, scheme: str, model: str, folds: Sequence[int] | None
) -> tuple[list[int], Predictions]:
    """Return the folds to look at, those asked for or all finished ones, and their rows.

    Whatever its logits are: maps are looked at, not labels.

    Raises:
        UserError: no such fold is finished, or it was made with another fold file.
    """
    path = paths.folds_csv(dataset, scheme)
    table, done = read_folds(path), finished_folds(dataset, scheme)
    if model not in done:
        raise unknown_name("model with a finished fold", model, done, "train_folds.py")
    wanted = sorted(set(folds or done[model]))
    for fold in wanted:
        if fold not in done[model]:
            have = ", ".join(map(str, done[model]))
            raise UserError(f"--folds {fold}: {model} has predictions of folds {have}")
        run = (dataset, scheme, model, fold)
        if has_run(*run) and read_run(*run)["folds_sha256"] != fingerprint_of(path):
            raise UserError(
                f"{paths.run_record(*run)}: made with another fold file than {path}, so its items "
                "may have been trained on; train it again: --overwrite"
            )
    rows = columns_of(table[table["fold"].isin(wanted)])
    return wanted, Predictions(**rows, logit=np.empty((len(rows["label"]), 0)))


def localise(
    dataset: Dataset,
    scheme: str,
    model: str,
    rows: Predictions,
    compute: Compute,
    *,
    blends: bool,
) -> Localised:
    """Ask each fold's checkpoint where the items that it did not train on were manipulated.

    `rows` are the held-out items of the folds. The truth is the data set's masks, where a fake of
    the rows has one; else, or with `blends`, blends of the real faces, as the model's config makes
    them (else by default), the same ones each time.

    Raises:
        UserError: the net shows no boundary map, no mask can be used, no real shows a face.
    """
    masked = not blends and bool(np.isin(rows.item_id[rows.label == 1], dataset.masks.index).any())
    held, maps, truth = [], [], []
    for fold in np.unique(rows.fold).tolist():
        path = paths.checkpoint(dataset.name, scheme, model, fold)
        net, _ = load_checkpoint(path, compute.chip)
        predict = MapPredictor(net, model, min(GRID, net.spec.image_size), compute)
        asked = None if masked else read_facts(path)[1].blend or BlendConfig()
        held.append(HeldOut(dataset, rows.take(rows.fold == fold), net.spec, asked))
        found = _ask(held[-1], predict, compute.batch_size, f"maps of fold {fold}")
        maps.append(found[0])
        truth.append(found[1])
    fakes, asked_of = (sum(numbers) for numbers in zip(*(one.known for one in held), strict=True))
    _check_known(dataset, fakes, masked=masked)
    columns = {name: np.concatenate([getattr(one.rows, name) for one in held]) for name in COLUMNS}
    columns["logit"] = np.empty((len(columns["label"]), 0))
    reals = sum(len(one) for one in held) - fakes
    return Localised(
        Predictions(**columns),
        np.concatenate(maps),
        {name: np.concatenate([part[name] for part in truth]) for name in TRUTHS},
        _source(dataset, fakes, asked_of, reals, masked=masked, asked=blends),
        held,
        np.cumsum([0, *(len(one) for one in held)])[:-1].tolist(),
    )


def truths_of(masks: NDArray[np.uint8], side: int) -> dict[str, NDArray[np.bool_]]:
    """Return which cells (n, side, side) are so, of masks (n, s, s), by the names of `TRUTHS`.

    `boundary`: some pixel of the cell has 4 m (1 - m) of `MEETS` or more, m its share in 0..1;
    `region`: more than `CHANGED` of the cell was replaced.
    """
    given = torch.from_numpy(masks)
    edge = functional.adaptive_max_pool2d(boundary_of(given, masks.shape[1]), side)
    share = functional.adaptive_avg_pool2d(given.float() / 255, side)
    return {"boundary": (edge >= MEETS).numpy(), "region": (share > CHANGED).numpy()}


def _ask(
    held: HeldOut, predict: MapPredictor, at_once: int, what: str
) -> tuple[Maps, dict[str, NDArray[np.bool_]]]:
    maps: list[Maps] = []
    truth: dict[str, list[NDArray[np.bool_]]] = {name: [] for name in TRUTHS}
    starts = range(0, len(held), at_once)
    with decoding_threads() as pool:
        for start in track(starts, what, unit="batch"):
            part = range(start, min(start + at_once, len(held)))
            # Blends are made one after the other: their generator is not for several threads.
            seen = [*map(held.finish, part, pool.map(held.canvas, part))]
            maps.append(predict(np.stack([pixels for pixels, _ in seen])))
            for name, cells in truths_of(np.stack([m for _, m in seen]), predict.side).items():
                truth[name].append(cells)
    return np.concatenate(maps), {name: np.concatenate(parts) for name, parts in truth.items()}


def _check_known(dataset: Dataset, fakes: int, *, masked: bool) -> None:
    if fakes:
        return
    why = "none of the held-out reals shows a face that could be blended"
    if masked:
        why = "no mask of a held-out fake can be used (the log says why)"
    way = "; --blends makes blends of the real faces instead" if masked else ""
    raise UserError(f"--by mask: {dataset.name}: {why}{way}")


def _source(dataset: Dataset, fakes: int, of: int, reals: int, *, masked: bool, asked: bool) -> str:
    if masked:
        return (
            f"masks of {fakes:,} of {of:,} held-out fakes (the others are not scored); {reals:,} "
            "reals, untouched all over"
        )
    why = "--blends" if asked else f"{dataset.name} has no masks of these fakes"
    lost = f", {of - fakes:,} show no face" * (of > fakes)
    return (
        f"blends of {fakes:,} of {of:,} held-out real faces, seed {SEED} ({why}){lost}; beside "
        f"them the {reals:,} reals, changed as a whole and blended nowhere"
    )
