"""A small residual net for 32-64 px images that trains from scratch in CPU minutes."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from src.models.backbones import BACKBONES
from src.models.heads import Pool


class Residual(nn.Module):
    """Two 3x3 convolutions with BatchNorm and a shortcut (He et al. 2016, fig. 2)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        nn.init.zeros_(self.bn2.weight)  # a block starts as the identity
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.AvgPool2d(stride, ceil_mode=True, count_include_pad=False)
                if stride > 1
                else nn.Identity(),
                nn.Conv2d(inputs, outputs, 1, bias=False),
                nn.BatchNorm2d(outputs),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, inputs, h, w) to (n, outputs, h / stride, w / stride)."""
        out = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class HighPass(nn.Module):
    """Append what a 3x3 neighbourhood does not predict: the residual in which generators differ.

    The kernel is the second-order 3x3 "KB" filter of steganalysis (Fridrich and Kodovsky 2012,
    "Rich models", sec. II-A), one per colour channel, fixed.
    """

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        kernel = torch.tensor([[-1.0, 2, -1], [2, -4, 2], [-1, 2, -1]]) / 4
        self.channels = channels
        self.register_buffer("kernel", kernel.repeat(channels, 1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, c, h, w) to (n, 2 c, h, w)."""
        kernel = self.get_buffer("kernel").to(x.dtype)
        residual = nn.functional.conv2d(x, kernel, padding=1, groups=self.channels)
        return torch.cat([x, residual], 1)


@BACKBONES.register("compact_net")
class CompactNet(nn.Module):
    """Stem at full resolution, one residual block a stage, average pooling, one linear head."""

    def __init__(
        self,
        num_classes: int = 1,
        # channels of the stem and of each stage; the first keeps the resolution, each later one
        # halves it
        widths: Sequence[int] = (20, 20, 40, 80, 160),
        high_pass: bool = False,  # feed the net the image and its high-pass residual
        drop_rate: float = 0.0,  # before the head
    ) -> None:
        super().__init__()
        self.high_pass = HighPass() if high_pass else nn.Identity()
        self.stem = nn.Sequential(
            nn.Conv2d(6 if high_pass else 3, widths[0], 3, 1, 1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
        )
        pairs = itertools.pairwise(widths)
        self.stages = nn.Sequential(
            *(Residual(a, b, 1 if i == 0 else 2) for i, (a, b) in enumerate(pairs))
        )
        self.feature_info = [  # as timm's nets have it
            {"module": f"stages.{i}", "num_chs": width, "reduction": 2**i}
            for i, width in enumerate(widths[1:])
        ]
        self.global_pool = Pool("avg")
        self.drop = nn.Dropout(drop_rate)
        self.head = nn.Linear(widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, 3, h, w) to (n, num_classes)."""
        x = self.stages(self.stem(self.high_pass(x)))
        return self.head(self.drop(self.global_pool(x)))

    def get_classifier(self) -> nn.Linear:
        """Return the last layer, as timm's nets do."""
        return self.head

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:  # noqa: ARG002 - as timm asks
        """Say which weights form the stem and the blocks, as timm's nets do."""
        return {"stem": r"^stem", "blocks": r"^stages\.(\d+)"}
