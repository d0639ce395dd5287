"""Small random CLIPs, both towers, as they are published."""

from functools import cache
from typing import Any

import torch
from torch import nn

from tests.models.small import stir

WIDTH = 16  # of the space that images and texts share


@cache
def open_clips(*, quick_gelu: bool = True) -> Any:
    """A CLIP of open_clip's, whose names are OpenAI's."""
    from open_clip.model import CLIP

    torch.manual_seed(3)
    vision = {"image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "head_width": 16}
    text = {"width": 16, "heads": 1, "layers": 2}
    net = CLIP(WIDTH, vision, text, quick_gelu=quick_gelu)  # type: ignore[arg-type]
    return _calm(net)


@cache
def hugging_faces() -> Any:
    """A CLIP of transformers'."""
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(4)
    sizes = {"num_hidden_layers": 2, "hidden_act": "quick_gelu"}
    vision = {"hidden_size": 32, "intermediate_size": 128, "num_attention_heads": 2}
    vision |= {"image_size": 32, "patch_size": 8, **sizes}
    text = {"hidden_size": 16, "intermediate_size": 64, "num_attention_heads": 1, **sizes}
    return _calm(CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)))


def _calm(net: nn.Module) -> nn.Module:
    """Give every weight a value of its own, such that logits stay small."""
    stir(net)
    with torch.no_grad():
        net.logit_scale.fill_(1.5)  # type: ignore[operator,union-attr]
    return net.eval()
