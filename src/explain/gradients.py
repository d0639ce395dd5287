"""The Grad-CAM family, by the library `grad-cam`, on a net's last map of features.

Grad-CAM: Selvaraju et al., ICCV 2017, eq. 1 and 2: a channel counts by the mean of its gradients.
Grad-CAM++: Chattopadhay et al., WACV 2018, eq. 19: by positive gradients, weighted by place.
HiResCAM: Draelos and Carin, arXiv 2011.08891 (2020), sec. 3: every place by its own gradient.
Each shows what is positive for the verdict that is explained.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from src.errors import UserError
from src.explain.feature_maps import last_map
from src.explain.maps import MAPS, Pixels, Towards, batches, chip_of, untouched
from src.models.classifier import Classifier


class Plain(nn.Module):
    """A net as the library calls it: no compiled code, in which its hooks would not run."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, pixels: Tensor) -> Tensor:
        """Map normalised pixels (n, 3, s, s) to logits (n, 1)."""
        return self.net.forward(pixels)


@MAPS.register("grad_cam")
def grad_cam(model: Classifier, name: str, pixels: Pixels, towards: Towards) -> NDArray[np.float32]:
    """Channels of the last map, each weighted by its mean gradient."""
    return _draw("GradCAM", model, name, pixels, towards)


@MAPS.register("grad_cam_plus_plus")
def grad_cam_plus_plus(
    model: Classifier, name: str, pixels: Pixels, towards: Towards
) -> NDArray[np.float32]:
    """The same, each by its positive gradients, more where few places have any."""
    return _draw("GradCAMPlusPlus", model, name, pixels, towards)


@MAPS.register("hirescam")
def hirescam(model: Classifier, name: str, pixels: Pixels, towards: Towards) -> NDArray[np.float32]:
    """The last map times its gradients, summed over channels."""
    return _draw("HiResCAM", model, name, pixels, towards)


def _draw(
    way: str, model: Classifier, name: str, pixels: Pixels, towards: Towards
) -> NDArray[np.float32]:
    """Return maps (n, h, w) of the size that the last map has, 0 to 1 each."""
    # Maps as large as the features: none is enlarged by the library's way and again by ours.
    as_large = {"get_target_width_height": lambda _, __: None}
    kind: Any = type(way, (getattr(_library(), way),), as_large)
    found, done = [], 0
    with untouched(model):
        for batch in batches(pixels, model.spec.image_size):
            given = model.normalised(torch.from_numpy(batch).to(chip_of(model))).requires_grad_()
            where = last_map(model, name, given[:1].detach().clone().requires_grad_())
            signs = towards[done : done + len(batch)].tolist()
            # The library keeps what it sees on a CPU without copying it, so that an activation
            # behind it that works in place writes over it: `on_grid` copies.
            with kind(Plain(model.net), [where.layer], where.on_grid) as cam:
                targets: list[Any] = [lambda out, sign=sign: sign * out.sum() for sign in signs]
                found.append(np.asarray(cam(given, targets), np.float32))
            done += len(batch)
    return np.concatenate(found)


def _library() -> Any:  # noqa: ANN401 - it has no types
    try:
        import pytorch_grad_cam
    except ImportError:
        raise UserError(
            "maps of the Grad-CAM family need the package grad-cam: pip install grad-cam"
        ) from None
    return pytorch_grad_cam
