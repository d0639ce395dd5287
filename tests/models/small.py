"""Small nets and files for the tests of models, weights and formats."""

from pathlib import Path

import timm
import torch

HEAD = ("head",)
SMALL = {"embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": 32, "patch_size": 8}


def tiny(num_classes: int = 1, seed: int = 0) -> torch.nn.Module:
    """A small net of convolutions, whose running statistics are not all equal."""
    torch.manual_seed(seed)
    net = timm.create_model("test_efficientnet", num_classes=num_classes)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)  # type: ignore[arg-type]
    return net


def vit(num_classes: int = 1, seed: int = 0, **kwargs: object) -> torch.nn.Module:
    """A plain ViT of width 32, patch 8, 2 blocks, with weights that all count."""
    return stirred("vit_base_patch16_224", num_classes, seed, **kwargs)


def clip_vit(num_classes: int = 1, seed: int = 0, **kwargs: object) -> torch.nn.Module:
    """The same as a CLIP tower, with QuickGELU."""
    return stirred("vit_base_patch32_clip_quickgelu_224", num_classes, seed, **kwargs)


def stirred(name: str, num_classes: int, seed: int, **kwargs: object) -> torch.nn.Module:
    torch.manual_seed(seed)
    net = timm.create_model(name, num_classes=num_classes, **{**SMALL, **kwargs})
    stir(net)
    return net.eval()


def stir(net: torch.nn.Module) -> None:
    """Give every weight a value that is not its neighbour's, norms and biases too."""
    with torch.no_grad():
        for key, value in net.named_parameters():
            offset = 1.0 if value.dim() == 1 and key.endswith("weight") else 0.0
            value.copy_(offset + 0.2 * torch.randn_like(value))


def tensors_of(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in net.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return set(first) == set(second) and all(torch.equal(first[k], second[k]) for k in first)


def images(size: int = 32, count: int = 3) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(9))


def save(content: object, folder: Path, name: str = "w.pth") -> Path:
    torch.save(content, folder / name)
    return folder / name


def plain_load(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251 - the oracle


@torch.no_grad()
def features(net: torch.nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """What enters the head."""
    return net.forward_head(net.forward_features(pixels), pre_logits=True)  # type: ignore[operator]
