"""Where a picture was manipulated, learned beside the label from masks: ForensicsAdapter's losses.

Cui et al., CVPR 2025, sec. 3.4; formulas and weights are those of the published code, what differs
is in docs/localisation.md. Items without a mask (`has_mask`) take part in the loss on labels alone.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from src.config import LocaliseConfig
from src.models.classifier import Classifier, in_boxes
from src.models.intermediates import check_intermediates
from src.training.auxiliary import Auxiliary, Batch, Shown

TEMPERATURE = 0.5  # that cosines are divided by
SEEN_FROM = 40  # of a mask's 0..255: a pixel above it counts as manipulated
TINY = 1e-12
LEAST_SHARE = 0.1  # of a patch's pixels; a patch with more of them counts as manipulated


class Localisation(Auxiliary):
    """Adds `boundary`, `intra` and `clip` to the loss on labels, each times its weight.

    Args:
        config: `localise` of a model.
        model: whose net shows a boundary map.
        name: of the model.

    Raises:
        UserError: the net shows none.
    """

    def __init__(self, config: LocaliseConfig, model: Classifier, name: str) -> None:
        super().__init__()
        self.config = config
        self.labels = config.labels
        looks = {
            "boundary": config.boundary,
            "side_patches": config.intra,
            "tower_patches": config.clip,
        }
        self.wants = frozenset(what for what, weight in looks.items() if weight)
        check_intermediates(model.net, {"boundary", *self.wants}, model.spec.image_size, name)

    def forward(
        self,
        batch: Batch,
        shown: Shown,
        again: Callable[[Batch], Shown],  # noqa: ARG002 - as `Auxiliary` has it
    ) -> dict[str, Tensor]:
        """Return the terms of a batch with `mask` uint8 (n, s, s) and `has_mask` bool (n,).

        What is blank in a picture counts as left alone.
        """
        config, masked, mask = self.config, batch["has_mask"], batch["mask"]
        if "blank" in batch:  # nothing is seen there
            mask = mask.masked_fill(in_boxes(batch["blank"], mask.shape[1]), 0)
        mask, label = mask[masked], batch["label"][masked]
        found: dict[str, Tensor] = {}
        if config.boundary:
            said = shown["boundary"][masked].float()
            wanted = boundary_of(mask, said.shape[1])
            # Over all items, so that one counts the same however many of its batch have a mask.
            found["boundary"] = (said - wanted).square().mean((1, 2)).sum() / len(masked)
        if config.intra:
            layers = [one[masked].float() for one in shown["side_patches"]]
            found["intra"] = torch.stack([intra(one, mask, label) for one in layers]).sum()
        if config.clip:
            patches = shown["tower_patches"][masked].float()
            found["clip"] = intra(patches, mask, label) + inter(patches, label)
        return {name: getattr(config, name) * term for name, term in found.items()}


def boundary_of(mask: Tensor, size: int) -> Tensor:
    """Return where two pictures meet, 4 m (1 - m), float32 (n, size, size) in 0..1.

    m is the mask, uint8 (n, s, s), over 255 and blurred by 3 x 3 pixels ([1, 2, 1] / 4, as the
    published code), so that one of hard edges has a boundary too. Face X-ray, Li et al., CVPR 2020,
    eq. 2.
    """
    line = torch.tensor([0.25, 0.5, 0.25], device=mask.device)
    share = functional.pad(mask[:, None].float() / 255, (1, 1, 1, 1), mode="reflect")
    share = functional.conv2d(share, (line[:, None] * line)[None, None])
    found = 4 * share * (1 - share)
    if found.shape[2] != size:
        found = functional.interpolate(found, (size, size), mode="area")
    return found[:, 0]


def touched(mask: Tensor, patches: int) -> Tensor:
    """Return which patches were manipulated, bool (n, patches), a square of them a mask (n, s, s).

    More than `LEAST_SHARE` of their pixels are above `SEEN_FROM`.
    """
    side = math.isqrt(patches)
    share = functional.adaptive_avg_pool2d((mask[:, None] > SEEN_FROM).float(), side)
    return share.flatten(1) > LEAST_SHARE


def intra(patches: Tensor, mask: Tensor, label: Tensor) -> Tensor:
    """Return how alike manipulated patches of a fake are to those that were left alone.

    -log(P / (P + N)): P and N are the sums of e^(cosine / `TEMPERATURE`) over the fakes' pairs of
    two patches left alone, and of a manipulated one and one left alone.

    Args:
        patches: float32 (n, t, d).
        mask: of the same items, uint8 (n, s, s).
        label: 0 or 1, (n,).

    Returns:
        float32 (); 0 where no fake shows a patch that was left alone.
    """
    fakes = label == 1
    points = functional.normalize(patches[fakes], dim=2)
    changed = touched(mask[fakes], points.shape[1])
    alike = (points @ points.mT / TEMPERATURE).exp() * (~changed)[:, None]
    positive = (alike * (~changed)[:, :, None]).sum()
    negative = (alike * changed[:, :, None]).sum()
    return torch.log1p(negative / positive.clamp(min=TINY))  # where there is no P, there is no N


def inter(patches: Tensor, label: Tensor) -> Tensor:
    """Return how alike patches of reals are to those of fakes; see `intra` for the form.

    P and N are over pairs within a real, and of a real and a fake; the k-th real is held against
    the k-th fake, as many as there are of both. 0 where a class is absent.
    """
    points = functional.normalize(patches, dim=2)
    reals, fakes = points[label == 0], points[label == 1]
    count = min(len(reals), len(fakes))
    if not count:
        return points.sum() * 0
    reals, fakes = reals[:count], fakes[:count]
    positive = (reals @ reals.mT / TEMPERATURE).exp().sum()
    negative = (reals @ fakes.mT / TEMPERATURE).exp().sum()
    return torch.log1p(negative / positive)
