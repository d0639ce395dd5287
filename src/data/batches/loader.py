"""Batches of uint8 pixels for training (augmented) and for evaluation (never augmented)."""

import atexit
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from weakref import WeakSet

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from src.config import InputSpec
from src.data.batches.augment import draw_boxes, make_augment, read_augment
from src.data.batches.hard_reals import HardReals
from src.data.batches.made import Made, Masked, PseudoFakes
from src.data.batches.samplers import BatchKey
from src.data.batches.share import Share
from src.data.pixels.images import center_crop
from src.data.pixels.source import Canvas, PixelSource
from src.seeds import derive_seed


class TrainBatches(Dataset[dict[str, Tensor]]):
    """Augmented batches; a draw depends on (seed, epoch, batch, place), not on workers or ranks.

    A preset for whole batches is left to `on_device`; `mixes` says that it wants a seed to mix
    images too. `augment` is a config's.
    """

    def __init__(
        self,
        source: PixelSource,
        labels: NDArray[np.int64],
        augment: str | Mapping[str, Any],
        image_size: int,
        seed: int,
        *,
        mixes: bool = False,
    ) -> None:
        self.source = source
        self.labels = torch.tensor(labels)
        wanted = read_augment(augment)
        self.augment = None if wanted.of_batches else make_augment(augment, image_size)
        self.image_size = image_size
        self.seed = seed
        self.erase = wanted.erase
        self.mixes = mixes
        self.canvas = 0  # of the source's canvases, the one that is augmented
        self.views: str | Mapping[str, Any] | None = None  # the preset of `see_twice`
        self.reals: HardReals | None = None  # what some reals are treated by first
        self.fakes: PseudoFakes | None = None  # blends of reals; rows beyond the items are theirs
        self.masked: Masked | None = None  # where items were manipulated, for losses that ask
        self.share = Share()  # of every batch, that is made here

    def see_twice(self, augment: str | Mapping[str, Any]) -> None:
        """Put two more views of each item into every batch, by a preset of their own."""
        self.views = augment

    def __getitem__(self, key: BatchKey) -> dict[str, Tensor]:
        """Return `pixels` uint8 (n, s, s, 3), `label` and `item` (row numbers) int64 (n,).

        Where the preset takes whole batches, `pixels` are canvases and `draw` int64 () is the seed
        for it; with `mixes`, `mix` is one more. With `erase`: `blank` int64 (n, 4), see
        `draw_boxes`. After `see_twice`: `views` uint8 (n, 2, s, s, 3). With `masked`: `mask` uint8
        (n, s, s), 255 where a pixel was replaced, and `has_mask` bool (n,). Of a `share` all
        this is of its places, and `whole` int64 () is how many the batch has.
        """
        if self.fakes is not None or self.masked is not None:
            return self._made(key)
        count, own = len(key.rows), self.share.of(len(key.rows))
        rows = key.rows[own]
        item = torch.tensor(rows)
        batch = {"label": self.labels[item], "item": item}
        # albumentations would repeat one random stream in every worker and every epoch.
        draw = derive_seed(self.seed, "augment", key.epoch, key.number)
        frames = draw_frames(self.seed, key)[own]
        if self.augment is None:
            batch["draw"] = torch.tensor(draw)
            pixels = self.source.stack(rows, frames, self.canvas)
            if self.reals is not None:
                pixels = np.stack(list(self._treated(key, rows, pixels)))
        else:
            canvases = (found[self.canvas] for found in self.source.read_train(rows, frames))
            drawn = []
            for place, canvas in enumerate(self._treated(key, rows, canvases), own.start):
                self.augment.set_random_seed(derive_seed(draw, place))
                drawn.append(self.augment(image=canvas)["image"])
            pixels = np.stack(drawn)
        if self.mixes:
            batch["mix"] = torch.tensor(derive_seed(self.seed, "mix", key.epoch, key.number))
        if self.erase:
            seed = derive_seed(self.seed, "erase", key.epoch, key.number)
            boxes = draw_boxes(count, self.image_size, self.erase, seed)[own]
            batch["blank"] = torch.from_numpy(boxes)
        if self.views is not None:
            batch["views"] = self._views(key, rows, frames, self.views)
        if self.share.ranks > 1:
            batch["whole"] = torch.tensor(count)
        return {"pixels": torch.from_numpy(pixels), **batch}

    def _made(self, key: BatchKey) -> dict[str, Tensor]:
        """Return a batch of blends among items, or with masks.

        An item and its blend share all that is drawn, so that they differ in the blend alone.
        """
        rows, count = np.array(key.rows), len(self.labels)
        _, first, same = np.unique(rows % count, return_index=True, return_inverse=True)
        own = self.share.of(len(rows))  # a blend may be another rank's than its twin
        frames = draw_frames(self.seed, key)[first][same][own]
        items, twins = rows[own] % count, rows[own] >= count
        draw = derive_seed(self.seed, "augment", key.epoch, key.number)
        labels, pictures = self.labels[items].clone(), []
        canvases = (found[self.canvas] for found in self.source.read_train(items.tolist(), frames))
        canvases = self._treated(key, items.tolist(), canvases)
        for place, (item, canvas) in enumerate(zip(items.tolist(), canvases, strict=True)):
            one: Made = Made(canvas, None)
            if self.masked is not None:
                one = Made(canvas, self.masked.of(item, int(labels[place])))
            if self.fakes is not None:
                seed = derive_seed(self.seed, "blend", key.epoch, key.number, item)
                one = self.fakes.make(one, seed, blend=bool(twins[place]))
                labels[place] = max(int(labels[place]), int(one.is_blend))
            if self.augment is not None:
                self.augment.set_random_seed(derive_seed(draw, item))
                one = one.augmented(self.augment)
            pictures.append(one)
        batch = {"label": labels, "item": torch.from_numpy(items)}
        batch["pixels"] = torch.from_numpy(np.stack([one.pixels for one in pictures]))
        if self.augment is None:
            batch |= {"draw": torch.tensor(draw), "same": torch.from_numpy(same)}
        if self.erase:
            seed = derive_seed(self.seed, "erase", key.epoch, key.number)
            boxes = draw_boxes(len(first), self.image_size, self.erase, seed)[same][own]
            batch["blank"] = torch.from_numpy(boxes)
        if self.masked is not None:
            side = pictures[0].pixels.shape[0]
            none = np.zeros((side, side), np.uint8)
            masks = [none if one.mask is None else one.mask for one in pictures]
            batch["mask"] = torch.from_numpy(np.stack(masks))
            batch["has_mask"] = torch.tensor([one.mask is not None for one in pictures])
        if self.views is not None:
            batch["views"] = self._views(key, items.tolist(), frames, self.views)
        if self.share.ranks > 1:
            batch["whole"] = torch.tensor(len(rows))
        return batch

    def _treated(
        self, key: BatchKey, rows: Sequence[int], canvases: Iterable[NDArray[np.uint8]]
    ) -> Iterator[NDArray[np.uint8]]:
        """Yield canvases of items, some reals as `reals` treats them: a blend's as its twin's."""
        for row, canvas in zip(rows, canvases, strict=True):
            if self.reals is None or self.labels[row] != 0:
                yield canvas
                continue
            yield self.reals(canvas, derive_seed(self.seed, "reals", key.epoch, key.number, row))

    def _views(
        self,
        key: BatchKey,
        rows: Sequence[int],
        frames: NDArray[np.float64],
        asked: str | Mapping[str, Any],
    ) -> Tensor:
        """Return two views of each of a batch's own items, uint8 (n, 2, s, s, 3)."""
        canvases, own = self.source.stack(rows, frames, self.canvas), self.share.of(len(key.rows))
        seed, wanted = derive_seed(self.seed, "views", key.epoch, key.number), read_augment(asked)
        if wanted.of_batches:
            draws = torch.Generator().manual_seed(seed)
            both = self.share.spread(torch.from_numpy(canvases), len(key.rows))
            views = [wanted.preset(both, self.image_size, draws) for _ in range(2)]
            return torch.stack(views, 1)[own]
        augment, pairs = make_augment(asked, self.image_size), []
        for place, one in enumerate(canvases, own.start):
            augment.set_random_seed(derive_seed(seed, place))
            pairs.append([augment(image=one)["image"] for _ in range(2)])
        return torch.from_numpy(np.array(pairs))

    def as_they_are(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the middle of items that are not augmented, uint8 (n, s, s, 3)."""
        canvases = self.source.stack(rows.tolist(), canvas=self.canvas)
        return np.stack([center_crop(canvas, self.image_size) for canvas in canvases])


def draw_frames(seed: int, key: BatchKey) -> NDArray[np.float64]:
    """Return what chooses a frame of each clip of a batch, float64 (n,) in [0, 1)."""
    return np.random.default_rng(derive_seed(seed, "frame", key.epoch, key.number)).random(
        len(key.rows)
    )


class EvalBatches(Dataset[dict[str, Tensor]]):
    """The one evaluation transform: canvas, central crop; each item decoded once for all specs."""

    def __init__(self, source: PixelSource, specs: Sequence[InputSpec]) -> None:
        self.source = source
        self.specs = [(source.canvases.index(Canvas.of(spec)), spec.image_size) for spec in specs]

    def __getitem__(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """Return `pixels<k>` uint8 (n, s, s, 3), `item` int64 (n,), `readable`, `cut` bool (n,).

        Of a source that delivers at L levels `pixels<k>` are (L n, s, s, 3), level by level.

        Rows are `FrameNumbers.eval_rows`, and so is `item`: for images the items' own. The pixels
        of an item that cannot be decoded, or of a frame that a clip is too short to have, are
        zeros, and `readable` is False; `cut` is True for frames of a clip read only in part
        (`pixels.Frame`).
        """
        levels, step = self.source.n_levels, len(self.source.canvases)
        shape = (levels, len(rows))
        pixels = [np.zeros((*shape, size, size, 3), np.uint8) for _, size in self.specs]
        readable = torch.ones(len(rows), dtype=torch.bool)
        cut = torch.zeros(len(rows), dtype=torch.bool)
        for place, frame in enumerate(self.source.read_eval(rows)):
            cut[place] = frame.cut
            if frame.canvases is None:
                readable[place] = False
                continue
            for array, (canvas, size) in zip(pixels, self.specs, strict=True):
                for level in range(levels):
                    drawn = frame.canvases[level * step + canvas]
                    array[level, place] = center_crop(drawn, size)
        batch = {
            f"pixels{k}": torch.from_numpy(array.reshape(-1, *array.shape[2:]))
            for k, array in enumerate(pixels)
        }
        return batch | {"item": torch.tensor(list(rows)), "readable": readable, "cut": cut}


class _Loader(DataLoader[dict[str, Tensor]]):
    """A loader whose workers end with an error, even while its traceback holds on to the loader.

    They ignore SIGTERM, so that a Python that exits would wait for them for ever.
    """

    def __iter__(self) -> Iterator[dict[str, Tensor]]:  # type: ignore[override]
        iterator = super().__iter__()
        _AT_WORK.add(self)
        try:
            yield from iterator
        except Exception:
            self.stop()
            raise

    def stop(self) -> None:
        """End the workers, if there are any."""
        stop = getattr(self._iterator, "_shutdown_workers", None)
        self._iterator = None
        if stop is not None:
            stop()


_AT_WORK: "WeakSet[_Loader]" = WeakSet()


@atexit.register
def _stop_all() -> None:
    """End the workers of loaders that something still holds on to when Python exits."""
    for loader in list(_AT_WORK):
        loader.stop()


def make_loader(
    batches: Dataset[dict[str, Tensor]],
    sampler: Sampler[BatchKey] | Sequence[BatchKey] | Sequence[Sequence[int]],
    workers: int,
    *,
    pin: bool,
) -> "DataLoader[dict[str, Tensor]]":
    """Wrap batches that are made whole by the data set itself (`batch_size=None`)."""
    return _Loader(
        batches,
        batch_size=None,
        sampler=sampler,  # type: ignore[arg-type]
        num_workers=workers,
        worker_init_fn=_start_worker if workers else None,
        persistent_workers=workers > 0,
        pin_memory=pin,
        # Else starting workers would draw from the global generator, and dropout with it.
        generator=torch.Generator(),
    )


def _start_worker(_: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # sent to all; the main process ends its workers
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
