"""Where the attention of a net looks: layer by layer, rolled out, or weighed by gradients.

A map is what the class token attends to among the patches, heads averaged; of a net without class
token the mean over all patches' queries.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from src.explain.maps import MAPS, Pixels, Towards, chip_of, untouched
from src.models.classifier import Classifier
from src.models.intermediates import check_intermediates, patches_of, prefix_tokens, watching

AT_ONCE = 8  # images that a net looks at
KIND = "mean_attention"


@dataclass(frozen=True)
class AttentionMaps:
    """Where a net looks in some images."""

    name: str  # of the net
    maps: list[Tensor]  # a layer: float (n, t, t), heads averaged, or their rollout
    prefix: int  # first tokens that are no patches
    has_class: bool  # whether the first token is a class token

    def at(self, layer: int) -> Tensor:
        """Return the map of a layer (from 0), float (n, side, side)."""
        return patch_maps(self.maps[layer], self.prefix, has_class=self.has_class)


def patch_maps(maps: Tensor, prefix: int, *, has_class: bool) -> Tensor:
    """Return (n, side, side) of (n, t, t): what the class token, or the mean patch, attends to."""
    rows = maps[:, 0] if has_class else maps[:, prefix:].mean(1)
    side = patches_of(maps.shape[1], prefix)
    return rows[:, prefix:].reshape(-1, side, side)


def rollout(maps: Sequence[Tensor]) -> list[Tensor]:
    """Return attention to the input through all layers up to each, (n, t, t) a layer.

    Abnar & Zuidema, Quantifying Attention Flow in Transformers, ACL 2020, sec. 3: with A' = (A + I)
    / 2 for the residual connection, of rows that sum to 1, the product A'_l ... A'_1.
    """
    found: list[Tensor] = []
    for one in maps:
        own = one.double()
        own = own + torch.eye(own.shape[-1], dtype=own.dtype, device=own.device)
        own = own / own.sum(-1, keepdim=True)
        found.append(own @ found[-1] if found else own)
    return found


def look(
    model: Classifier, name: str, pictures: Sequence[Pixels], *, rolled: bool
) -> AttentionMaps:
    """Return where a model looks in pictures, uint8 (s, s, 3) each, as its net takes them.

    Raises:
        UserError: the net has no self-attention over all tokens.
    """
    found: list[list[Tensor]] = []
    for start in range(0, len(pictures), AT_ONCE):
        pixels = torch.from_numpy(np.stack(pictures[start : start + AT_ONCE])).to(chip_of(model))
        with torch.inference_mode():
            found.append([one.cpu() for one in model({"pixels": pixels}, also=(KIND,))[KIND]])
    maps = [torch.cat(parts).float() for parts in zip(*found, strict=True)]
    has_class = _has_class(model)
    maps = rollout(maps) if rolled else maps
    return AttentionMaps(name, maps, prefix_tokens(model.net), has_class)


def check_looks(model: Classifier, name: str) -> None:
    """Raise a UserError, by name, for a net without self-attention over all tokens."""
    check_intermediates(model.net, [KIND], model.spec.image_size, name)


@MAPS.register("rollout")
def rolled(model: Classifier, name: str, pixels: Pixels, _: Towards) -> NDArray[np.float32]:
    """Attention to the input through all layers, float (n, side, side), whatever the verdict."""
    check_looks(model, name)
    return look(model, name, list(pixels), rolled=True).at(-1).float().numpy()


@MAPS.register("relevance")
def relevance(
    model: Classifier, name: str, pixels: Pixels, towards: Towards
) -> NDArray[np.float32]:
    """Rollout of what attention does for the verdict, float (n, side, side).

    Chefer, Gur and Wolf, "Generic Attention-model Explainability", ICCV 2021, eq. 5 and 6: with
    A' the mean over heads of the positive part of attention times its gradient, R = R + A' R.
    """
    check_looks(model, name)
    has_class, prefix = _has_class(model), prefix_tokens(model.net)
    found = []
    with untouched(model):
        for start in range(0, len(pixels), AT_ONCE):
            batch = torch.from_numpy(pixels[start : start + AT_ONCE]).to(chip_of(model))
            signs = torch.from_numpy(towards[start : start + AT_ONCE]).to(chip_of(model))
            given = model.normalised(batch).requires_grad_()
            with watching(model.net, ["attention"], name) as seen:
                logit = model.net.forward(given).squeeze(1)
            # Maps that no picture changes have no gradient, and lead nowhere.
            maps = [one for one in seen["attention"] if one.requires_grad]
            grads = (
                torch.autograd.grad((signs * logit).sum(), maps, allow_unused=True) if maps else ()
            )
            own = torch.eye(seen["attention"][0].shape[-1], device=given.device)
            total = own.repeat(len(batch), 1, 1)
            for one, grad in zip(maps, grads, strict=True):
                if grad is not None:  # None: no way leads from it to the logit
                    used = (one.detach().float() * grad.float()).clamp(min=0).mean(1)
                    total = total + used @ total
            # A token is not explained by itself.
            found.append(patch_maps(total - own, prefix, has_class=has_class).cpu().numpy())
    return np.concatenate(found)


def _has_class(model: Classifier) -> bool:
    return getattr(model.net, "cls_token", None) is not None
