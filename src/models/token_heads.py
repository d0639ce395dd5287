"""Heads on a vision transformer's tokens: its registers, the class tokens of its blocks, or all.

Each has two parts. What has no weights stands where timm pools, and hands on tokens (n, k, d); what
is trained is the net's classifier (`TokenHead`), which makes a logit of them. So nothing that is
trained lies before what a frozen backbone gives, and that can be computed once.
"""

from collections import OrderedDict
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from src.config import HeadConfig
from src.errors import UserError

HEAD_STD = 0.01  # a new head starts near zero, so that first losses do not tear at the net


class TokenHead(nn.Sequential):
    """A net's classifier: `pool` maps tokens (n, k, d) to one vector, `last` that to a logit."""

    pool: nn.Module
    last: nn.Linear

    def __init__(self, pool: nn.Module, width: int, outputs: int) -> None:
        super().__init__(OrderedDict(pool=pool, last=new_linear(width, outputs)))


class RegistersAndMean(nn.Module):
    """The first registers, and the mean of the patches behind all of them, as tokens.

    Args:
        registers: where they begin and end among the tokens.
        prefix: how many tokens are no patches.
    """

    def __init__(self, registers: slice, prefix: int) -> None:
        super().__init__()
        self.registers, self.prefix = registers, prefix

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, tokens, d) to (n, registers + 1, d)."""
        return torch.cat([x[:, self.registers], x[:, self.prefix :].mean(1, keepdim=True)], 1)


class LayerMixture(nn.Module):
    """Class tokens of all blocks, mixed by learned weights.

    RINE's importance estimator (Koutlis and Papadopoulos, ECCV 2024): all tokens pass through one
    projection with ReLU, and each of its channels has a weight for each block, a softmax over the
    blocks. Simpler than theirs: tokens behind each block and the net's last norm (theirs: behind
    the second norm within it), one layer of projection (1 to 4), nothing but the last layer behind
    the mixture (several more), and weights that start equal (at random).
    """

    def __init__(self, blocks: int, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.project = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout))
        self.importance = nn.Parameter(torch.zeros(blocks, hidden))

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (n, blocks, d) to (n, hidden)."""
        return (self.importance.softmax(0) * self.project(tokens)).sum(1)


def new_linear(width: int, outputs: int) -> nn.Linear:
    """Return a last layer that starts near zero."""
    layer = nn.Linear(width, outputs)
    nn.init.normal_(layer.weight, std=HEAD_STD)
    nn.init.zeros_(layer.bias)
    return layer


def set_token_head(net: nn.Module, head: HeadConfig, name: str) -> None:
    """Give a net, called `name` in messages, the head that `head.pool` names, in place.

    Raises:
        UserError: it lacks the tokens; says what would fit.
    """
    _check_tokens(net, head, name)
    transformer: Any = net
    width, outputs = transformer.head.in_features, transformer.head.out_features
    transformer.attn_pool, transformer.global_pool = None, ""  # hands on all tokens
    if head.pool == "registers+patches":
        pool, width = _registers_and_patches(transformer, head, name), head.hidden
    elif head.pool == "layers":
        transformer.forward_features = MethodType(_class_tokens, transformer)
        pool = LayerMixture(len(transformer.blocks), width, head.hidden, head.dropout)
        width = head.hidden
    else:
        pool = _attention(transformer, width, head)
    transformer.head = TokenHead(pool, width, outputs)


def _check_tokens(net: nn.Module, head: HeadConfig, name: str) -> None:
    from timm.models.beit import Beit
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer

    kinds = (VisionTransformer, Eva, Beit)
    asked = f"head.pool: {head.pool}"
    if not isinstance(net, kinds) or not isinstance(net.head, nn.Linear):
        raise UserError(
            f"{asked} wants the tokens of a vision transformer (ViT, CLIP, DINO, SigLIP, PE, "
            f"EVA-02, BEiT), and {name} ({type(net).__name__}) is none; native fits it"
        )
    if isinstance(net, kinds) and getattr(net, "head_dist", None) is not None:
        raise UserError(f"{asked} wants one classifier, and {name} has two; native fits it")
    if head.pool == "registers+patches" and _registers(net) == 0:
        plain = _has_class(net) and isinstance(net.fc_norm, nn.Identity)
        instead = (
            "cls_avg (class token and mean of the patches) or attention" if plain else "attention"
        )
        raise UserError(
            f"{asked} wants register tokens, and {name} has none: take {instead}, or a backbone "
            "that has them (DINOv3, vit_*_reg4_dinov2)"
        )
    if head.pool == "layers" and not _has_class(net):
        raise UserError(
            f"{asked} wants a class token, and {name} has none; attention, avg, max, gem or native "
            "fit it"
        )


def _has_class(net: Any) -> bool:  # noqa: ANN401 - a vision transformer, whichever
    return net.cls_token is not None


def _registers(net: Any) -> int:  # noqa: ANN401
    tokens = getattr(net, "reg_token", None)
    return 0 if tokens is None else int(tokens.shape[1])


def _registers_and_patches(net: Any, head: HeadConfig, name: str) -> nn.Module:  # noqa: ANN401
    count, first = _registers(net), int(_has_class(net))
    taken = head.registers or count
    if taken > count:
        raise UserError(f"head.registers is {taken}, and {name} has {count}")
    net.attn_pool = RegistersAndMean(slice(first, first + taken), net.num_prefix_tokens)
    net.pool_include_prefix = True
    wide = (taken + 1) * net.head.in_features
    return nn.Sequential(
        nn.Flatten(1), nn.Linear(wide, head.hidden), nn.ReLU(), nn.Dropout(head.dropout)
    )


def _attention(net: Any, width: int, head: HeadConfig) -> nn.Module:  # noqa: ANN401
    """Return a pooling of all tokens by one learned query, with as many heads as the net's own."""
    from timm.layers.attention_pool import AttentionPoolLatent

    return AttentionPoolLatent(
        width,
        num_heads=net.blocks[0].attn.num_heads,
        mlp_ratio=(head.hidden + 0.5) / width,  # timm rounds down to `hidden`
        norm_layer=nn.LayerNorm,
        drop=head.dropout,
    )


def _class_tokens(net: Any, x: Tensor, **_: object) -> Tensor:  # noqa: ANN401
    """Return the class token behind each block, through the net's last norm, (n, blocks, d)."""
    seen = net.forward_intermediates(
        x, return_prefix_tokens=True, norm=True, output_fmt="NLC", intermediates_only=True
    )
    return torch.stack([prefix[:, 0] for _, prefix in seen], 1)
