"""The small net beside a CLIP tower: what it makes of pixels, and where it tells the tower to look.

Parts of ForensicsAdapter (Cui et al., CVPR 2025, sec. 3.2 and 3.3), as its published code has them.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional

PATCH = 16  # pixels of a patch's side
PLACES = 14  # of a side of the position embeddings, which are interpolated to what is there
STD = 0.02  # of what is drawn at the start


class Fusion(nn.Module):
    """Brings a layer of the tower to the width and the grid of the side network.

    It starts at zero: the published code draws this layer anew in each forward and never trains it,
    so that its output is noise around zero.
    """

    def __init__(self, inputs: int, outputs: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.norm = nn.LayerNorm(inputs, eps=1e-6)
        self.proj = nn.Linear(inputs, outputs)
        nn.init.zeros_(self.proj.weight)
        nn.init.zeros_(self.proj.bias)

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """Map the tower's patches (n, t, inputs), a square, to (n, h * w, outputs)."""
        return self.scale * self.proj(self.norm(on_grid(tokens, size)))


class SideNetwork(nn.Module):
    """A small vision transformer of patches and learned queries, without a class token.

    Args:
        tower_width: of the tower's tokens.
        width: of its own.
        depth: blocks.
        heads: of each.
        queries: tokens that stand before the patches.
        fusions: (block, layer of the tower) that are added behind that block, from 1.
        fusion_scale: what they are multiplied by.
        shown: blocks, from 1, whose patches `patches` shows.
    """

    def __init__(
        self,
        tower_width: int,
        *,
        width: int,
        depth: int,
        heads: int,
        queries: int,
        fusions: Sequence[tuple[int, int]],
        fusion_scale: float,
        shown: Sequence[int],
    ) -> None:
        super().__init__()
        self.layers, self.shown = dict(fusions), frozenset(shown)
        self.query = nn.Parameter(STD * torch.randn(1, queries, width))
        self.query_position = nn.Parameter(STD * torch.randn(1, queries, width))
        self.position = nn.Parameter(STD * torch.randn(1, PLACES**2, width))
        self.patch = nn.Conv2d(3, width, PATCH, PATCH)
        self.norm = nn.LayerNorm(width)
        norm: Any = partial(nn.LayerNorm, eps=1e-6)
        self.blocks = nn.ModuleList(
            Block(width, heads, qkv_bias=True, norm_layer=norm) for _ in range(depth)
        )
        for layer in self.blocks.modules():
            if isinstance(layer, nn.Linear):  # as timm's vision transformers start
                nn.init.trunc_normal_(layer.weight, std=STD)
                nn.init.zeros_(layer.bias)
        self.fusions = nn.ModuleDict(
            {str(block): Fusion(tower_width, width, fusion_scale) for block in self.layers}
        )
        self.patches = nn.Identity()  # what enters it is shown (`models/intermediates`)

    def forward(self, pixels: Tensor, tower: Mapping[int, Tensor]) -> tuple[Tensor, Tensor]:
        """Map pixels and layers of the tower to what the last block makes of queries and patches.

        Args:
            pixels: normalised, float (n, 3, s, s), s a multiple of `PATCH`.
            tower: the patches (n, t, tower_width) of the layers that are fused, by layer.

        Returns:
            Queries (n, q, width) and patches (n, (s / PATCH)^2, width).
        """
        x = self.patch(pixels)
        size, count = (x.shape[2], x.shape[3]), self.query.shape[1]
        position = torch.cat([self.query_position, on_grid(self.position, size)], 1)
        x = torch.cat([self.query.expand(x.shape[0], -1, -1), x.flatten(2).mT], 1)
        x = self.norm(x + position)
        for number, block in enumerate(self.blocks, 1):
            if number > 1:
                x = x + position  # once more before each block
            x = block(x)
            if number in self.layers:
                added = self.fusions[str(number)](tower[self.layers[number]], size)
                x = torch.cat([x[:, :count], x[:, count:] + added], 1)
            if number in self.shown:
                self.patches(x[:, count:])
        return x[:, :count], x[:, count:]


class MaskDecoder(nn.Module):
    """Products of queries and patches: a map of each query, and a bias of each head of the tower.

    Args:
        width: of queries and patches.
        inner: of the hidden layers.
        outer: of what is multiplied.
        heads: that get a bias of their own.
    """

    def __init__(self, width: int, inner: int, outer: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.of_query = _mlp(width, inner, outer)
        self.of_map = _mlp(width, inner, outer)
        self.of_bias = _mlp(width, inner, outer * heads)
        self.scale = nn.Linear(1, 1)  # of the bias

    def forward(self, queries: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Map (n, q, width) and (n, t, width) to maps (n, q, t) and biases (n, heads, q, t)."""
        asked = self.of_query(queries)
        maps = asked @ self.of_map(patches).mT
        keys = self.of_bias(patches).unflatten(2, (self.heads, -1))
        biases = torch.einsum("nqd,nthd->nhqt", asked, keys)
        return maps, self.scale(biases[..., None]).squeeze(-1)


class BoundaryHead(nn.Sequential):
    """From the queries' maps to the boundary of what was manipulated, for each pixel."""

    def __init__(self, queries: int) -> None:
        super().__init__(
            nn.Conv2d(queries, queries // 2, 3, padding=1),
            nn.BatchNorm2d(queries // 2),
            nn.ReLU(),
            nn.Conv2d(queries // 2, queries // 4, 3, padding=1),
            nn.BatchNorm2d(queries // 4),
            nn.ReLU(),
            nn.Conv2d(queries // 4, 1, 1),
            nn.ConvTranspose2d(1, 1, PATCH, PATCH),
        )

    def forward(self, input: Tensor) -> Tensor:
        """Map (n, queries, t), patches in a square, to (n, s, s), s the side of the pixels."""
        side = math.isqrt(input.shape[2])
        return super().forward(input.unflatten(2, (side, side))).squeeze(1)


def on_grid(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """Return tokens (n, t, d) of a square grid on another one, (n, h * w, d), bilinear."""
    side = math.isqrt(tokens.shape[1])
    if (side, side) == size:
        return tokens
    grid = tokens.mT.unflatten(2, (side, side))
    found = functional.interpolate(grid, size, mode="bilinear", align_corners=False)
    return found.flatten(2).mT


def _mlp(width: int, inner: int, outer: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, inner),
        nn.ReLU(),
        nn.Linear(inner, inner),
        nn.ReLU(),
        nn.Linear(inner, outer),
    )
