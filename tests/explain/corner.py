"""Nets whose logit is of one corner alone, by construction; and pictures for them."""

import numpy as np
import torch
from torch import nn

from src.config import InputSpec
from src.models.classifier import Classifier

SIZE, GRID, CORNER = 64, 8, 3  # px a side; cells a side; cells a side of the corner


class Energy(nn.Module):
    """How rough each cell of the corner is, (n, 1, 8, 8), zero elsewhere: blurred it is not."""

    def __init__(self) -> None:
        super().__init__()
        corner = torch.zeros(1, 1, GRID, GRID)
        corner[:, :, :CORNER, :CORNER] = 1
        self.register_buffer("corner", corner)

    def forward(self, x):
        rough = (x[..., 1:] - x[..., :-1]).square().mean(1, keepdim=True)
        rough = nn.functional.pad(rough, (0, 1))
        return nn.functional.avg_pool2d(rough, x.shape[-1] // GRID) * self.corner


class Attention(nn.Module):
    """One head whose class token looks at the corner."""

    def __init__(self) -> None:
        super().__init__()
        self.fused_attn = True
        self.attn_drop = nn.Dropout(0.5)
        look = torch.zeros(GRID, GRID)
        look[:CORNER, :CORNER] = 5
        self.register_buffer("look", torch.cat([torch.zeros(1), look.flatten()]))

    def forward(self, tokens):
        n, t, _ = tokens.shape
        maps = (self.get_buffer("look") + tokens.mT).softmax(2).expand(n, t, t)[:, None]
        return self.attn_drop(maps)[:, 0] @ tokens


class CornerNet(nn.Module):
    """`scale` times the corner's energy, as the class token sees it, less `bias`."""

    shows = {"boundary": "boundary"}  # noqa: RUF012

    def __init__(self, scale: float = 1.0, bias: float = 0.0) -> None:
        super().__init__()
        self.energy, self.attn, self.boundary = Energy(), Attention(), nn.Identity()
        self.norm = nn.BatchNorm1d(1)  # that training mode would have change the logit
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 1))
        self.scale = nn.Parameter(torch.tensor(scale))
        self.bias, self.num_prefix_tokens = bias, 1

    def forward(self, x):
        found = self.energy(x)
        self.boundary(found[:, 0])
        tokens = torch.cat([self.cls_token.expand(len(x), 1, 1), found.flatten(2).mT], 1)
        return self.scale * self.norm(self.attn(tokens)[:, 0]) - self.bias


def classifier(net: nn.Module, size: int = SIZE) -> Classifier:
    spec = InputSpec(size, size, "short_side", "bicubic", (0.5,) * 3, (0.5,) * 3)
    return Classifier(net, spec).eval()


def rough_corner(count: int = 3) -> np.ndarray:
    """Return noise that is twice as strong in the corner: its cells are no others, shuffled."""
    pixels = noise(count).astype(np.float64)
    edge = CORNER * SIZE // GRID
    faint = (pixels + 127) / 2
    faint[:, :edge, :edge] = pixels[:, :edge, :edge]
    return np.rint(faint).astype(np.uint8)


def noise(count: int = 3, size: int = SIZE, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
