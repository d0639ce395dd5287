"""Small nets and files for the tests of formats."""

from pathlib import Path

import timm
import torch

HEAD = ("head",)
SMALL = {"embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": 32, "patch_size": 8}


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


def images(size: int = 32, count: int = 3) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(9))


def save(content: object, folder: Path, name: str = "w.pth") -> Path:
    torch.save(content, folder / name)
    return folder / name


@torch.no_grad()
def features(net: torch.nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """What enters the head."""
    return net.forward_head(net.forward_features(pixels), pre_logits=True)  # type: ignore[operator]
