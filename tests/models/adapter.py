"""A ForensicsAdapter of small dims, and its forward written down anew from the formulas."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from src.config import BackboneConfig
from src.models.backbones import build_backbone
from tests.models.small import stir

SIDE = 16  # pixels of a patch of the side network
TOWER = {"embed_dim": 32, "depth": 4, "num_heads": 4, "img_size": 32, "patch_size": 8}
KWARGS: dict[str, Any] = {
    "tower": "vit_base_patch16_clip_quickgelu_224",
    "tower_kwargs": TOWER,
    "project": 64,
    "queries": 8,
    "side_width": 24,
    "side_depth": 3,
    "side_heads": 3,
    "fusions": [[1, 0], [2, 3]],
    "intra_blocks": [2, 3],
    "mlp_dim": 20,
    "mlp_out_dim": 10,
    "bottleneck_after": 2,
    "bottleneck_dim": 12,
}


def small_adapter(size: int = 64, seed: int = 1, **changes: Any) -> Any:
    """Return the net, every weight and running statistic away from where it starts."""
    torch.manual_seed(seed)
    config = BackboneConfig("forensics_adapter", "none", kwargs={**KWARGS, **changes})
    net, _ = build_backbone(config, size)
    stir(net)
    for module in [*net.pool, *net.mlp]:  # features of length 1 are small
        if isinstance(module, nn.Conv1d | nn.Linear):
            nn.init.normal_(module.weight, std=0.6)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.3, 0.3)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
    return net.eval()


class Formulas:
    """The forward of the published code, step by step, on the weights `w` by name.

    As there, the tower is run twice, the second time with the queries among its tokens, behind a
    mask over all pairs.
    """

    def __init__(self, net: nn.Module, settings: dict[str, Any]) -> None:
        self.w = {key: value.double() for key, value in net.state_dict().items()}
        self.set = settings

    def __call__(self, pixels: Tensor) -> dict[str, Any]:
        x = pixels.double()
        layers = self.plain_tower(x)
        queries, patches, shown = self.side(x, layers)
        maps, bias = self.decode(queries, patches)
        boundary = self.boundary(maps)
        points, hidden = self.interact(layers[0], bias)
        return {
            "logit": self.classify(points), "boundary": boundary,
            "side_patches": shown, "tower_patches": hidden,
        }  # fmt: skip

    def linear(self, x: Tensor, name: str) -> Tensor:
        bias = self.w.get(f"{name}.bias")
        found = torch.einsum("...i,oi->...o", x, self.w[f"{name}.weight"])
        return found if bias is None else found + bias

    def norm(self, x: Tensor, name: str, eps: float) -> Tensor:
        mean = x.mean(-1, keepdim=True)
        scaled = (x - mean) / ((x - mean).square().mean(-1, keepdim=True) + eps).sqrt()
        return scaled * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    def block(
        self, x: Tensor, name: str, heads: int, eps: float, act: Any, mask: Any = 0
    ) -> Tensor:
        y = self.linear(self.norm(x, f"{name}.norm1", eps), f"{name}.attn.qkv")
        n, t, _ = x.shape
        q, k, v = (part.reshape(n, t, heads, -1) for part in y.chunk(3, -1))
        scores = torch.einsum("nihd,njhd->nhij", q, k) / q.shape[-1] ** 0.5 + mask
        shares = scores.exp() / scores.exp().sum(-1, keepdim=True)
        looked = torch.einsum("nhij,njhd->nihd", shares, v).reshape(n, t, -1)
        x = x + self.linear(looked, f"{name}.attn.proj")
        y = act(self.linear(self.norm(x, f"{name}.norm2", eps), f"{name}.mlp.fc1"))
        return x + self.linear(y, f"{name}.mlp.fc2")

    def tower_block(self, x: Tensor, number: int, mask: Any = 0) -> Tensor:
        heads = self.set["tower_kwargs"]["num_heads"]
        name = f"tower.blocks.{number}"
        return self.block(x, name, heads, 1e-5, lambda y: y * torch.sigmoid(1.702 * y), mask)

    def plain_tower(self, x: Tensor) -> list[Tensor]:
        side, patch = self.set["tower_kwargs"]["img_size"], self.set["tower_kwargs"]["patch_size"]
        x = functional.interpolate(x, (side, side), mode="bilinear", align_corners=False)
        cut = functional.unfold(x, patch, stride=patch).mT  # (n, t, 3 * patch^2)
        tokens = cut @ self.w["tower.patch_embed.proj.weight"].flatten(1).T
        tokens = torch.cat([self.w["tower.cls_token"].expand(len(x), -1, -1), tokens], 1)
        found = [self.norm(tokens + self.w["tower.pos_embed"], "tower.norm_pre", 1e-5)]
        for number in range(self.set["tower_kwargs"]["depth"]):
            found.append(self.tower_block(found[-1], number))
        return found

    def side(self, x: Tensor, layers: list[Tensor]) -> tuple[Tensor, Tensor, list[Tensor]]:
        w, count, grid = self.w, self.set["queries"], x.shape[2] // SIDE
        cut = functional.unfold(x, SIDE, stride=SIDE).mT
        tokens = cut @ w["side.patch.weight"].flatten(1).T + w["side.patch.bias"]
        place = w["side.position"].mT.reshape(1, -1, 14, 14)
        place = functional.interpolate(place, (grid, grid), mode="bilinear").flatten(2).mT
        place = torch.cat([w["side.query_position"], place], 1)
        x = torch.cat([w["side.query"].expand(len(x), -1, -1), tokens], 1)
        x = self.norm(x + place, "side.norm", 1e-5)
        fusions, shown = dict(self.set["fusions"]), []
        for number in range(1, self.set["side_depth"] + 1):
            heads = self.set["side_heads"]
            x = self.block(x, f"side.blocks.{number - 1}", heads, 1e-6, functional.gelu)
            if number in fusions:
                given = layers[fusions[number]][:, 1:]
                side = round(given.shape[1] ** 0.5)
                given = given.mT.reshape(len(x), -1, side, side)
                given = functional.interpolate(given, (grid, grid), mode="bilinear").flatten(2).mT
                name = f"side.fusions.{number}"
                added = self.linear(self.norm(given, f"{name}.norm", 1e-6), f"{name}.proj")
                x[:, count:] = x[:, count:] + 0.01 * added
            if number in self.set["intra_blocks"]:
                shown.append(x[:, count:].clone())
            last = x
            x = x + place
        return last[:, :count], last[:, count:], shown

    def decode(self, queries: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        def mlp(x: Tensor, name: str) -> Tensor:
            for number in (0, 2):
                x = self.linear(x, f"decoder.{name}.{number}").clamp(min=0)
            return self.linear(x, f"decoder.{name}.4")

        heads = self.set.get("head_num") or self.set["tower_kwargs"]["num_heads"]
        asked = mlp(queries, "of_query")
        maps = torch.einsum("nqd,ntd->nqt", asked, mlp(patches, "of_map"))
        wide = self.set["mlp_out_dim"]
        keys = mlp(patches, "of_bias")
        bias = torch.stack(
            [
                torch.einsum("nqd,ntd->nqt", asked, keys[..., h * wide : (h + 1) * wide])
                for h in range(heads)
            ],
            1,
        )
        return maps, bias * self.w["decoder.scale.weight"].item() + self.w["decoder.scale.bias"]

    def batch_norm(self, x: Tensor, name: str) -> Tensor:
        def of(part: str) -> Tensor:
            return self.w[f"{name}.{part}"].reshape(1, -1, *[1] * (x.dim() - 2))

        scaled = (x - of("running_mean")) / (of("running_var") + 1e-5).sqrt()
        return scaled * of("weight") + of("bias")

    def boundary(self, maps: Tensor) -> Tensor:
        w, side = self.w, round(maps.shape[2] ** 0.5)
        x = maps.reshape(*maps.shape[:2], side, side)
        for conv, norm in ((0, 1), (3, 4)):
            weight, bias = w[f"boundary.{conv}.weight"], w[f"boundary.{conv}.bias"]
            x = functional.conv2d(x, weight, bias, padding=1)
            x = self.batch_norm(x, f"boundary.{norm}").clamp(min=0)
        x = torch.einsum("nchw,oc->nohw", x, w["boundary.6.weight"][..., 0, 0])
        x = (x + w["boundary.6.bias"].reshape(1, 1, 1, 1))[:, 0]
        stamp = w["boundary.7.weight"][0, 0]
        found = torch.einsum("nij,ab->niajb", x, stamp).reshape(len(x), side * SIDE, side * SIDE)
        return found + w["boundary.7.bias"]

    def interact(self, tokens: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        q, t = self.set["queries"], tokens.shape[1] - 1
        heads, grid = self.set["tower_kwargs"]["num_heads"], round(t**0.5)
        n, h, _, places = bias.shape
        side = round(places**0.5)
        bias = bias.reshape(n * h, q, side, side)
        bias = functional.interpolate(bias, (grid, grid), mode="bilinear").reshape(n, h, q, t)
        mask = torch.zeros(n, heads, q + 1 + t, q + 1 + t, dtype=torch.float64)
        mask[..., :q] = -100
        mask[:, :, range(q), range(q)] = 0
        mask[:, :, :q, q] = -100
        for head in range(heads):
            mask[:, head, :q, q + 1 :] = bias[:, head // (heads // h)]
        x = torch.cat([tokens[:, :1].repeat(1, q, 1), tokens], 1)
        for number in range(self.set["tower_kwargs"]["depth"]):
            x = self.tower_block(x, number, mask)
            if number == self.set["bottleneck_after"] - 1:
                hidden = self.linear(x[:, q + 1 :], "bottleneck.0").clamp(min=0)
                x[:, q + 1 :] = x[:, q + 1 :] + 0.05 * self.linear(hidden, "bottleneck.2")
        return x[:, :q], hidden

    def classify(self, queries: Tensor) -> Tensor:
        x = self.norm(queries, "tower.norm", 1e-5)
        if "tower.fc_norm.weight" in self.w:
            x = self.linear(x, "tower.fc_norm")
        x = x / x.square().sum(-1, keepdim=True).sqrt()
        for conv, norm in ((0, 1), (3, 4), (6, None)):
            weight, bias = self.w[f"pool.{conv}.weight"], self.w[f"pool.{conv}.bias"]
            x = functional.conv1d(x, weight, bias, padding=1)
            x = x if norm is None else self.batch_norm(x, f"pool.{norm}").clamp(min=0)
        x = x[:, 0]
        for number in (0, 2):
            x = self.linear(x, f"mlp.{number}").clamp(min=0)
        return self.linear(x, "head")[:, 0]
