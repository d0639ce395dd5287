"""Batches on the device: copied ahead, augmented and mixed there where that works on whole batches.

Mixup and cutmix: batches in which every image is part another one, and its label too.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from src.data.batches.augment import beside, read_augment
from src.data.batches.share import Share

Batch = dict[str, Tensor]
WHOLE = slice(None)


def mix_batch(
    pixels: Tensor, label: Tensor, mixup: float, cutmix: float, seed: int, own: slice = WHOLE
) -> tuple[Tensor, Tensor]:
    """Mix every image of a batch with another of it, all in the same proportion.

    Mixup adds them (Zhang et al. 2018, eq. 1), cutmix puts a rectangle of the one into the other
    (Yun et al. 2019, eq. 1 and 2; the share is that of the rectangle after it was cut off at the
    edges). `mixup` and `cutmix` are the alphas of their Beta distributions, 0 has none; where both
    are wanted, each batch takes one, by a coin.

    Of pixels uint8 (n, s, s, 3) and labels (n,) of 0/1 it returns pixels, float32 on the same scale
    from mixup and uint8 from cutmix, and float32 labels; those at the places `own` alone.
    """
    rng = np.random.default_rng(seed)
    cuts = cutmix > 0 and (mixup == 0 or rng.random() < 0.5)
    alpha = cutmix if cuts else mixup
    share = float(rng.beta(alpha, alpha))  # of the image itself
    partner = beside(pixels, torch.from_numpy(rng.permutation(len(pixels))[own]))
    first, other = pixels[own], pixels[partner]
    if cuts:
        mixed, share = _cut(first, other, share, rng)
    else:
        mixed = first.float().lerp(other.float(), 1 - share)
    soft = label.float()
    return mixed, share * soft[own] + (1 - share) * soft[partner]


def _cut(
    pixels: Tensor, other: Tensor, share: float, rng: np.random.Generator
) -> tuple[Tensor, float]:
    """Return images with a rectangle of the others, and the share that is their own."""
    height, width = pixels.shape[1:3]
    sides = np.array([height, width])
    half = np.rint(sides * np.sqrt(1 - share)).astype(int) // 2
    center = rng.integers(sides)
    top, left = np.clip(center - half, 0, sides)
    bottom, right = np.clip(center + half, 0, sides)
    mixed = pixels.clone()
    mixed[:, top:bottom, left:right] = other[:, top:bottom, left:right]
    return mixed, 1 - float((bottom - top) * (right - left)) / (height * width)


def ahead(
    batches: Iterable[Batch], prepare: Callable[[Batch], Batch], device: torch.device
) -> Iterator[Batch]:
    """Yield what `prepare` makes of batches; on a card, while it computes with the one before.

    What `prepare` does there is put on a stream of its own, behind nothing but the batch before
    (the idea of timm's PrefetchLoader, which waits for the step before too); the host waits for
    none of it. Elsewhere one batch is made after the other.
    """
    if device.type != "cuda":
        yield from map(prepare, batches)
        return
    side, ready = torch.cuda.Stream(device), None
    for batch in batches:
        with torch.cuda.stream(side):
            coming = prepare(batch)
        if ready is not None:
            yield ready
        computing = torch.cuda.current_stream(device)
        computing.wait_stream(side)
        for tensor in coming.values():
            tensor.record_stream(computing)  # its memory is free when that stream is done with it
        ready = coming
    if ready is not None:
        yield ready


class DeviceBatches:
    """Batches of `TrainBatches` on the device, where what works on whole batches is done."""

    def __init__(
        self,
        loader: Iterable[Batch],
        augment: str | Mapping[str, Any],
        image_size: int,
        device: torch.device,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        share: Share | None = None,
    ) -> None:
        self.loader = loader
        self.share = share or Share()
        wanted = read_augment(augment)
        self.augment = wanted.preset if wanted.of_batches else None
        self.image_size = image_size
        self.device = device
        self.mixup = mixup
        self.cutmix = cutmix

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches with `pixels` as the net takes them; mixed ones have float labels."""
        return ahead(self.loader, self._prepared, self.device)

    def _prepared(self, batch: Batch) -> Batch:
        # What is drawn stays on the CPU: to read it from a card is to wait for the card.
        drawn = {key: batch[key] for key in ("draw", "mix", "same", "whole") if key in batch}
        moved = {
            key: tensor.to(self.device, non_blocking=True)
            for key, tensor in batch.items()
            if key not in drawn
        }
        whole = int(drawn.get("whole", len(batch["item"])))
        own, spread = self.share.of(whole), self.share.spread
        if "draw" in drawn:
            draw, same = int(drawn["draw"]), drawn.get("same")
            moved["pixels"] = self._augmented(spread(moved["pixels"], whole), draw, same)[own]
            if "mask" in moved:
                layers = spread(moved["mask"], whole)[..., None].expand(-1, -1, -1, 3)
                moved["mask"] = self._augmented(layers, draw, same)[own][..., 0].contiguous()
        if "mix" in drawn:
            pixels = self.share.gather(moved["pixels"], whole)
            label = self.share.gather(moved["label"], whole)
            seed = int(drawn["mix"])
            mixed = mix_batch(pixels, label, self.mixup, self.cutmix, seed, own)
            moved["pixels"], moved["label"] = mixed
        return moved

    def _augmented(self, pixels: Tensor, draw: int, same: Tensor | None) -> Tensor:
        """Return pixels (n, ...) by the preset; where `same` (n,) is equal, by the same draws."""
        if self.augment is None:
            return pixels
        if same is None:
            return self.augment(pixels, self.image_size, torch.Generator().manual_seed(draw))
        # One call for the first picture of every item, one for the second ones ...
        found: list[Tensor] = []
        _, order = same.sort(stable=True)
        counts = torch.bincount(same)
        starts = counts.cumsum(0) - counts
        for rank in range(int(counts.max())):
            places = beside(pixels, order[starts + torch.clamp(counts - 1, max=rank)])
            generator = torch.Generator().manual_seed(draw)
            found.append(self.augment(pixels[places], self.image_size, generator))
        ranks = torch.empty_like(same)
        ranks[order] = torch.arange(len(same)) - starts[same[order]]
        return torch.stack(found)[beside(pixels, ranks), beside(pixels, same)]
