"""A net in memory as OpenVINO runs it, in fp32: no file, no export, the weights of this moment."""

from importlib import metadata
from typing import Any

import torch
from torch import Tensor

from src.artifacts.packages import is_installed
from src.inference.export import Graph, quietly
from src.inference.exported import compile_openvino, load_package, run_openvino
from src.models.classifier import Classifier

PACKAGE = "openvino"
# Pixels that go through a net at once: more images no longer fit the cache (4 of 224 px).
AT_ONCE = 4 * 224 * 224
LEAF_SECONDS, BYTE_SECONDS = 0.01, 1e-8  # of a conversion, as measured of eight nets


def openvino_version() -> str:
    """Return the version of OpenVINO; empty where it is not installed, or merely copied."""
    try:
        return metadata.version(PACKAGE) if is_installed(PACKAGE) else ""
    except metadata.PackageNotFoundError:
        return ""


def conversion_seconds(model: Classifier) -> float:
    """Return about how many CPU seconds it takes to convert a model."""
    leaves = sum(not list(module.children()) for module in model.modules())
    held = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    return LEAF_SECONDS * leaves + BYTE_SECONDS * held


class Converted:
    """A model as OpenVINO follows it, from a trace of two empty images.

    A net that decides by what it sees, or by how many images there are, is traced wrongly without a
    word: whoever takes the engine holds its logits against the net's, on other batches than of two.

    Raises:
        Exception: OpenVINO is damaged, or does not follow the net; it says so in its own ways.
    """

    engine, precision = "openvino", "fp32"

    def __init__(self, model: Classifier) -> None:
        openvino: Any = load_package(PACKAGE)
        self.spec = model.spec
        size = model.spec.image_size
        example = torch.zeros(2, size, size, 3, dtype=torch.uint8)
        # A trace wants tensors that could have gradients, and none that do.
        with quietly(), torch.inference_mode(False), torch.no_grad():
            graph = openvino.convert_model(Graph(model).eval(), example_input=(example,))
            graph.reshape({graph.inputs[0]: openvino.PartialShape([-1, size, size, 3])})
            self.request = compile_openvino(graph, self.precision)
        self.size = max(1, AT_ONCE // size**2)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Map uint8 (n, s, s, 3) to float logits (n,)."""
        return torch.cat([run_openvino(self.request, part) for part in pixels.split(self.size)])
