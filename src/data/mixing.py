"""Mixup and cutmix: batches in which every image is part another one, and its label too."""

import numpy as np
import torch
from torch import Tensor


def mix_batch(
    pixels: Tensor, label: Tensor, mixup: float, cutmix: float, seed: int
) -> tuple[Tensor, Tensor]:
    """Mix every image of a batch with another of it, all in the same proportion.

    Mixup adds them (Zhang et al. 2018, eq. 1), cutmix puts a rectangle of the one into the other
    (Yun et al. 2019, eq. 1 and 2; the share is that of the rectangle after it was cut off at the
    edges). Where both are wanted, each batch takes one, by a coin.

    Args:
        pixels: uint8 (n, s, s, 3).
        label: (n,) of 0/1.
        mixup: alpha of mixup's Beta distribution; 0 has none.
        cutmix: alpha of cutmix's; 0 has none. Not both are 0.
        seed: what the draw follows from.

    Returns:
        Pixels, float32 on the same scale from mixup and uint8 from cutmix; and float32 labels.
    """
    rng = np.random.default_rng(seed)
    cuts = cutmix > 0 and (mixup == 0 or rng.random() < 0.5)
    alpha = cutmix if cuts else mixup
    share = float(rng.beta(alpha, alpha))  # of the image itself
    partner = torch.from_numpy(rng.permutation(len(pixels))).to(pixels.device)
    if cuts:
        pixels, share = _cut(pixels, partner, share, rng)
    else:
        first = pixels.float()
        pixels = first.lerp(first[partner], 1 - share)
    first_label = label.float()
    return pixels, share * first_label + (1 - share) * first_label[partner]


def _cut(
    pixels: Tensor, partner: Tensor, share: float, rng: np.random.Generator
) -> tuple[Tensor, float]:
    """Return images with a rectangle of their partners, and the share that is their own."""
    height, width = pixels.shape[1:3]
    sides = np.array([height, width])
    half = np.rint(sides * np.sqrt(1 - share)).astype(int) // 2
    center = rng.integers(sides)
    top, left = np.clip(center - half, 0, sides)
    bottom, right = np.clip(center + half, 0, sides)
    mixed = pixels.clone()
    mixed[:, top:bottom, left:right] = pixels[partner, top:bottom, left:right]
    return mixed, 1 - float((bottom - top) * (right - left)) / (height * width)
