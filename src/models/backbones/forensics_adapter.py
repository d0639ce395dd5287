"""ForensicsAdapter: a frozen CLIP tower, told by a small net beside it where boundaries lie.

Cui et al., "Forensics Adapter: Adapting CLIP for Generalizable Face Forgery Detection", CVPR 2025.
docs/localisation.md says what is otherwise here than in its published code.
"""

from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Any, cast

import timm
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from timm.layers.attention import Attention
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from src.errors import UserError
from src.models.backbones import BACKBONES, OURS, Native, check_backbone
from src.models.backbones.side_network import (
    PATCH,
    BoundaryHead,
    MaskDecoder,
    SideNetwork,
    on_grid,
)
from src.models.heads import PROJECTION
from src.models.token_heads import HEAD_STD
from src.strict_yaml import STRICT, Chance, Count, Int, Keys, Positive, checked

FAR = -100.0  # added to what a query must not attend to
Layer = Annotated[Int, Field(ge=0)]


@dataclass(frozen=True, config=STRICT)
class AdapterKeys(Keys):
    """What `backbone.kwargs` may hold; defaults are the published ones, of ViT-L/14."""

    tower: str = "vit_large_patch14_clip_quickgelu_224.openai"  # timm's name of a CLIP ViT
    tower_kwargs: dict[str, Any] = field(default_factory=dict)  # of its constructor
    # width of CLIP's projection behind it (512 of ViT-B); None for a tower without
    project: Count | None = 768
    queries: Annotated[Int, Field(ge=4)] = 128
    side_width: Count = 192
    side_depth: Count = 8
    side_heads: Count = 3
    # [block of the side network, from 1; layer of the tower whose patches are added behind it, 0
    # before its first block]
    fusions: tuple[tuple[Count, Layer], ...] = ((1, 1), (2, 8), (3, 15))
    fusion_scale: Positive = 0.01  # what is added is multiplied by
    # blocks of the side network, from 1, whose patches the intra loss looks at
    intra_blocks: tuple[Count, ...] = (4, 5, 6)
    mlp_dim: Count = 256  # hidden width of the mask decoder
    mlp_out_dim: Count = 128  # width of the products that make maps and biases
    # biases a query; each serves as many of the tower's heads. None: one for every head
    head_num: Count | None = None
    bottleneck_after: Count = 7  # block of the tower, from 1, whose patches it adds to
    bottleneck_dim: Count = 192
    bottleneck_scale: Positive = 0.05  # what it adds is multiplied by
    drop_rate: Chance = 0.0  # dropout before the head


@BACKBONES.register("forensics_adapter")
class ForensicsAdapter(nn.Module):
    """Copies of CLIP's class token look at the patches that the side network points them to.

    Args:
        kwargs: `AdapterKeys`.

    Raises:
        UserError: a key or value that does not fit, or a tower that is no CLIP ViT.
    """

    native = Native(
        256,
        (0.48145466, 0.4578275, 0.40821073),
        (0.26862954, 0.26130258, 0.27577711),
        ("head",),
    )
    shows = {  # noqa: RUF012 - a constant; `models/intermediates`: name -> module
        "boundary": "boundary",
        "side_patches": "side.patches",
        "tower_patches": "bottleneck.1",
    }
    fresh = ("side.fusions.",)  # layers that start at zero and say nothing until they are trained

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401 - checked here
        super().__init__()
        self.keys = keys = checked(kwargs, AdapterKeys, "backbone.kwargs")
        self.tower = _tower(keys)
        width, heads = self.tower.embed_dim, _attention(self.blocks[0]).num_heads
        _check(keys, len(self.blocks), heads)
        self.side = SideNetwork(
            width,
            width=keys.side_width,
            depth=keys.side_depth,
            heads=keys.side_heads,
            queries=keys.queries,
            fusions=keys.fusions,
            fusion_scale=keys.fusion_scale,
            shown=keys.intra_blocks,
        )
        self.decoder = MaskDecoder(
            keys.side_width, keys.mlp_dim, keys.mlp_out_dim, keys.head_num or heads
        )
        self.boundary = BoundaryHead(keys.queries)
        self.bottleneck = nn.Sequential(
            nn.Linear(width, keys.bottleneck_dim),
            nn.ReLU(),
            nn.Linear(keys.bottleneck_dim, width),
        )
        self.pool = _query_pool(keys.queries)
        seen = keys.project or width
        self.mlp = nn.Sequential(
            nn.Linear(seen, seen // 2), nn.ReLU(), nn.Linear(seen // 2, seen // 4), nn.ReLU()
        )
        self.drop = nn.Dropout(keys.drop_rate)
        # one logit, fake > 0: the difference of the published code's two classes (real, fake)
        self.head = nn.Linear(seen // 4, 1)
        nn.init.normal_(self.head.weight, std=HEAD_STD)
        nn.init.zeros_(self.head.bias)
        # a query does not see the others
        self.register_buffer("apart", FAR * (1 - torch.eye(keys.queries)), persistent=False)
        self.num_prefix_tokens = keys.queries  # of the side network, whose attention maps are shown
        self.grad_checkpointing = False

    @property
    def blocks(self) -> nn.Sequential:
        """The tower's blocks."""
        return cast("nn.Sequential", self.tower.blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised pixels, float (n, 3, s, s), to (n, 1); UserError for an s of no patches.

        The published code runs the tower twice, the second time with the queries among its tokens.
        As no token of the tower attends to a query, the tokens are run alone here, and the queries
        look at the keys and values that are there: the same numbers for less work and memory.
        """
        if x.shape[2] % PATCH:
            below = x.shape[2] // PATCH * PATCH
            near = " or ".join(str(size) for size in (below, below + PATCH) if size)
            raise UserError(f"{x.shape[2]} px are no multiple of {PATCH}, such as {near}")
        tokens = self.embed(x)
        queries = tokens[:, :1].expand(-1, self.keys.queries, -1)
        after, fused = self.keys.bottleneck_after, {layer for _, layer in self.keys.fusions}
        layers, seen = {0: tokens}, []
        for number in range(1, max({after, *fused}) + 1):
            tokens, keys, values = self.run(step, number, tokens)
            if number in {after, *fused}:
                layers[number] = tokens
            if number <= after:
                seen.append((keys, values))
        maps, bias = self.decoder(*self.side(x, {k: v[:, 1:] for k, v in layers.items()}))
        self.boundary(maps)  # for who watches (`models/intermediates`)
        mask = self.mask_of(bias)
        for number, pair in enumerate(seen, 1):
            queries = self.run(ask, number, queries, *pair, mask)
        tokens = self.with_bottleneck(layers[after])
        for number in range(after + 1, len(self.blocks) + 1):
            tokens, keys, values = self.run(step, number, tokens)
            queries = self.run(ask, number, queries, keys, values, mask)
        return self.classify(queries)

    def embed(self, x: Tensor) -> Tensor:
        """Map pixels (n, 3, s, s) to what enters the tower's first block, (n, 1 + t, d)."""
        size = self.tower.patch_embed.img_size
        if x.shape[2:] != size:
            x = functional.interpolate(x, size, mode="bilinear", align_corners=False)
        return self.tower.norm_pre(self.tower._pos_embed(self.tower.patch_embed(x)))

    def with_bottleneck(self, tokens: Tensor) -> Tensor:
        """Add to the patches of (n, 1 + t, d) what the bottleneck makes of them."""
        patches = tokens[:, 1:]
        added = self.keys.bottleneck_scale * self.bottleneck(patches)
        return torch.cat([tokens[:, :1], patches + added], 1)

    def mask_of(self, bias: Tensor) -> Tensor:
        """Map biases (n, h, q, t) to what is added to attention, (n, heads, q, q + patches)."""
        grid, (h, q) = self.tower.patch_embed.grid_size, bias.shape[1:3]
        bias = on_grid(bias.flatten(1, 2).mT, grid).mT.unflatten(1, (h, q))
        bias = bias.repeat_interleave(_attention(self.blocks[0]).num_heads // h, 1)
        apart = self.get_buffer("apart").to(bias.dtype)
        return torch.cat([apart.expand(*bias.shape[:2], -1, -1), bias], 3)

    def classify(self, queries: Tensor) -> Tensor:
        """Map what the last block makes of the queries, (n, q, d), to (n, 1)."""
        points = getattr(self.tower, PROJECTION)(self.tower.norm(queries))
        points = self.pool(functional.normalize(points, dim=2)).squeeze(1)
        return self.head(self.drop(self.mlp(points)))

    def run(self, function: Any, number: int, *inputs: Tensor) -> Any:  # noqa: ANN401
        """Run `step` or `ask` on a block of the tower, from 1."""
        block = self.blocks[number - 1]
        if self.grad_checkpointing and torch.is_grad_enabled():
            return checkpoint(function, block, *inputs, use_reentrant=False)
        return function(block, *inputs)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Have the tower's activations computed again on the way back, as timm's nets do."""
        self.grad_checkpointing = enable

    def get_classifier(self) -> nn.Linear:
        """Return the last layer, as timm's nets do."""
        return self.head

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:  # noqa: ARG002 - as timm asks
        """Say which weights form the stem and the blocks, as timm's nets do."""
        stem = r"^tower\.|^side\.(?:query|position|patch|norm)"
        return {"stem": stem, "blocks": [(r"^side\.blocks\.(\d+)", None)]}


def step(block: Block, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Run a block of the tower on its tokens (n, 1 + t, d).

    Returns:
        The tokens behind it; keys and values of the patches in it, (n, heads, t, d / heads).
    """
    query, key, value = _heads(block, tokens)
    looked = functional.scaled_dot_product_attention(query, key, value)
    return _behind(block, tokens, looked), key[:, :, 1:], value[:, :, 1:]


def ask(block: Block, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """Run a block of the tower on queries (n, q, d), which see themselves and the patches.

    Args:
        block: of the tower.
        queries: before it.
        keys: of the patches; `values` likewise (`step`).
        mask: added to their attention, (n, heads, q, q + t).
    """
    query, key, value = _heads(block, queries)
    looked = functional.scaled_dot_product_attention(
        query, torch.cat([key, keys], 2), torch.cat([value, values], 2), attn_mask=mask
    )
    return _behind(block, queries, looked)


def _attention(block: nn.Module) -> Attention:
    return cast("Attention", block.attn)


def _heads(block: Block, tokens: Tensor) -> tuple[Tensor, ...]:
    attn = _attention(block)
    found = attn.qkv(block.norm1(tokens))
    return found.unflatten(2, (3, attn.num_heads, attn.head_dim)).permute(2, 0, 3, 1, 4).unbind(0)


def _behind(block: Block, tokens: Tensor, looked: Tensor) -> Tensor:
    # Not transposed and flattened: ONNX's exporter fails there, for a mask changes the strides.
    tokens = tokens + _attention(block).proj(torch.cat(looked.unbind(1), 2))
    return tokens + block.mlp(block.norm2(tokens))


def _query_pool(queries: int) -> nn.Sequential:
    """Return what makes one vector of the queries' (n, queries, d), (n, 1, d)."""
    half, quarter = queries // 2, queries // 4
    return nn.Sequential(
        nn.Conv1d(queries, half, 3, padding=1),
        nn.BatchNorm1d(half),
        nn.ReLU(),
        nn.Conv1d(half, quarter, 3, padding=1),
        nn.BatchNorm1d(quarter),
        nn.ReLU(),
        nn.Conv1d(quarter, 1, 3, padding=1),
    )


def _tower(keys: AdapterKeys) -> VisionTransformer:
    """Return a CLIP tower, its projection (`project`) where `models/heads` puts one."""
    check_backbone(keys.tower)
    taken = sorted(set(keys.tower_kwargs) & OURS)
    if taken:
        raise UserError(f"backbone.kwargs.tower_kwargs may not set {', '.join(taken)}")
    tower: Any = timm.create_model(keys.tower, num_classes=0, **keys.tower_kwargs)
    if not _is_clip(tower):
        raise UserError(
            f"backbone.kwargs.tower: {keys.tower} is no CLIP ViT (a class token, a norm before the "
            "first block, plain blocks): take vit_*_clip_*"
        )
    if keys.project is not None:
        layer = nn.Linear(tower.embed_dim, keys.project, bias=False)
        nn.init.normal_(layer.weight, std=tower.embed_dim**-0.5)
        setattr(tower, PROJECTION, layer)
    return tower


def _is_clip(net: nn.Module) -> bool:
    if not isinstance(net, VisionTransformer) or net.cls_token is None or net.reg_token is not None:
        return False
    block = cast("nn.Sequential", net.blocks)[0]
    plain = type(block) is Block and type(block.attn) is Attention
    return plain and isinstance(net.norm_pre, nn.LayerNorm) and isinstance(block.ls1, nn.Identity)


def _check(keys: AdapterKeys, depth: int, heads: int) -> None:
    """Raise a UserError for numbers that do not go together with each other or with the tower."""
    blocks, layers = [block for block, _ in keys.fusions], [layer for _, layer in keys.fusions]
    fine: Mapping[str, bool] = {
        f"fusions: layer {max(layers, default=0)} of a tower of {depth} blocks": (
            max(layers, default=0) <= depth
        ),
        f"fusions: behind block {max(blocks, default=0)} of a side network of {keys.side_depth}": (
            max(blocks, default=0) <= keys.side_depth
        ),
        "fusions: two behind one block": len(set(blocks)) == len(blocks),
        f"intra_blocks: {max(keys.intra_blocks, default=0)} of a side network of "
        f"{keys.side_depth} blocks": max(keys.intra_blocks, default=0) <= keys.side_depth,
        f"bottleneck_after: {keys.bottleneck_after} of a tower of {depth} blocks": (
            keys.bottleneck_after <= depth
        ),
        f"side_heads: {keys.side_heads} do not divide side_width, {keys.side_width}": (
            keys.side_width % keys.side_heads == 0
        ),
        f"head_num: {keys.head_num} does not divide the tower's {heads} heads": (
            heads % (keys.head_num or heads) == 0
        ),
    }
    broken = [text for text, holds in fine.items() if not holds]
    if broken:
        raise UserError(f"backbone.kwargs: {'; '.join(broken)}")
