"""Names of efficientnet_pytorch. Oracle: its forward pass written down on the state dict alone."""

import re

import pytest
import timm
import torch
from torch import Tensor
from torch.nn import functional

from src.config import read_model
from src.errors import UserError
from src.models.classifier import build_classifier
from src.models.packages import package_weights
from src.models.weights import load_weights
from tests.models.small import features, images, plain_load, save

# Tan and Le 2019, table 1: repeats, kernel, stride, expansion, inputs, outputs.
B0 = [
    *[(1, 3, 1, 1, 32, 16), (2, 3, 2, 6, 16, 24), (2, 5, 2, 6, 24, 40), (3, 3, 2, 6, 40, 80)],
    *[(3, 5, 1, 6, 80, 112), (4, 5, 2, 6, 112, 192), (1, 3, 1, 6, 192, 320)],
]
HEAD = ("classifier",)


def flat() -> list[tuple[int, int, int, int, int]]:
    """Kernel, stride, expansion, inputs and outputs of each block."""
    return [
        (kernel, stride if first == 0 else 1, expansion, inputs if first == 0 else outputs, outputs)
        for repeats, kernel, stride, expansion, inputs, outputs in B0
        for first in range(repeats)
    ]


def norm(width: int) -> dict[str, Tensor]:
    return {
        **{"weight": torch.rand(width) + 0.5, "bias": 0.1 * torch.randn(width)},
        **{"running_mean": 0.1 * torch.randn(width), "running_var": torch.rand(width) + 0.5},
        "num_batches_tracked": torch.tensor(3),
    }


def make_file() -> dict[str, Tensor]:
    torch.manual_seed(3)
    out: dict[str, Tensor] = {}

    def conv(name: str, *shape: int, bias: bool = False) -> None:
        out[f"{name}.weight"] = torch.randn(shape) * (2 / torch.tensor(shape[1:]).prod()) ** 0.5
        if bias:
            out[f"{name}.bias"] = 0.1 * torch.randn(shape[0])

    def bn(name: str, width: int) -> None:
        out.update({f"{name}.{key}": value for key, value in norm(width).items()})

    conv("_conv_stem", 32, 3, 3, 3)
    bn("_bn0", 32)
    for index, (kernel, _, expansion, inputs, outputs) in enumerate(flat()):
        name, wide = f"_blocks.{index}", inputs * expansion
        if expansion > 1:
            conv(f"{name}._expand_conv", wide, inputs, 1, 1)
            bn(f"{name}._bn0", wide)
        conv(f"{name}._depthwise_conv", wide, 1, kernel, kernel)
        bn(f"{name}._bn1", wide)
        conv(f"{name}._se_reduce", inputs // 4, wide, 1, 1, bias=True)
        conv(f"{name}._se_expand", wide, inputs // 4, 1, 1, bias=True)
        conv(f"{name}._project_conv", outputs, wide, 1, 1)
        bn(f"{name}._bn2", outputs)
    conv("_conv_head", 1280, 320, 1, 1)
    bn("_bn1", 1280)
    return out


def run(t: dict[str, Tensor], x: Tensor) -> Tensor:
    """Pooled features (n, 1280) of an efficientnet_pytorch state dict, of B0 or of Lite0.

    Lite0 is B0 without squeezing, with ReLU6 in place of SiLU.
    """
    lite = "_blocks.0._se_reduce.weight" not in t
    bend = functional.relu6 if lite else functional.silu

    def conv(x: Tensor, name: str, stride: int = 1, groups: int = 1) -> Tensor:
        weight, side = t[f"{name}.weight"], x.shape[-1]
        kernel = weight.shape[-1]
        need = max((-(-side // stride) - 1) * stride + kernel - side, 0)  # TensorFlow's "same"
        x = functional.pad(x, [need // 2, need - need // 2] * 2)
        return functional.conv2d(x, weight, t.get(f"{name}.bias"), stride, 0, 1, groups)

    def bn(x: Tensor, name: str) -> Tensor:
        keys = ("running_mean", "running_var", "weight", "bias")
        return functional.batch_norm(x, *(t[f"{name}.{key}"] for key in keys), eps=1e-3)

    x = bend(bn(conv(x, "_conv_stem", 2), "_bn0"))
    for index, (_, stride, expansion, inputs, outputs) in enumerate(flat()):
        name, kept = f"_blocks.{index}", x
        if expansion > 1:
            x = bend(bn(conv(x, f"{name}._expand_conv"), f"{name}._bn0"))
        x = bend(bn(conv(x, f"{name}._depthwise_conv", stride, x.shape[1]), f"{name}._bn1"))
        if not lite:
            gate = bend(conv(x.mean((2, 3), keepdim=True), f"{name}._se_reduce"))
            x = x * torch.sigmoid(conv(gate, f"{name}._se_expand"))
        x = bn(conv(x, f"{name}._project_conv"), f"{name}._bn2")
        x = x + kept if stride == 1 and inputs == outputs else x
    return bend(bn(conv(x, "_conv_head"), "_bn1")).mean((2, 3))


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    return make_file()


def tf_net() -> torch.nn.Module:
    torch.manual_seed(4)
    return timm.create_model("tf_efficientnet_b0", num_classes=1).eval()


def test_a_file_of_the_package(tensors, tmp_path):
    head = {"net._fc.weight": torch.randn(2, 1280), "net._fc.bias": torch.randn(2)}
    path = save({"model": {f"net.{k}": v for k, v in tensors.items()} | head}, tmp_path)
    net = tf_net()
    start = load_weights(net, path, HEAD)
    assert (start.format, start.dropped) == ("efficientnet_pytorch", [])
    assert start.missing == start.unexpected == ["classifier.bias", "classifier.weight"]
    with torch.no_grad():
        pooled = net.forward_head(net.forward_features(images(48)), pre_logits=True)  # type: ignore[operator]
        wanted = run(tensors, images(48))
    assert float(wanted.std()) > 0.01
    torch.testing.assert_close(pooled, wanted, atol=1e-5, rtol=1e-4)


def test_deepfakebenchs_detector_keeps_its_head(tensors, tmp_path, caplog):
    torch.manual_seed(5)
    last = torch.nn.Linear(1280, 2)  # real, fake
    detector = {f"module.backbone.efficientnet.{k}": v for k, v in tensors.items()}
    detector |= {f"module.backbone.last_layer.{k}": v for k, v in last.state_dict().items()}
    net = tf_net()
    caplog.set_level("INFO", "rvf")
    start = load_weights(net, save(detector, tmp_path), HEAD)
    assert (start.missing, start.unexpected, start.dropped) == ([], [], [])
    assert start.mean == start.std == [0.5, 0.5, 0.5]
    assert "pads nothing" in caplog.text
    with torch.no_grad():
        wanted = last(run(tensors, images(48))).softmax(1)[:, 1]
        prob = torch.sigmoid(net(images(48))[:, 0])
    torch.testing.assert_close(prob, wanted, atol=1e-5, rtol=1e-4)


def test_googles_lite0_as_it_lies_in_its_package():
    path, _ = package_weights("tf_efficientnet_lite0")
    net = timm.create_model("tf_efficientnet_lite0", num_classes=1000).eval()
    start = load_weights(net, path, HEAD)
    assert (start.missing, start.unexpected, start.dropped) == ([], [], [])
    own = plain_load(path)
    pooled = run(own, images(64))
    torch.testing.assert_close(features(net, images(64)), pooled, atol=1e-5, rtol=1e-4)
    with torch.inference_mode():
        wanted = functional.linear(pooled, own["_fc.weight"], own["_fc.bias"])
        torch.testing.assert_close(net(images(64)), wanted, atol=1e-4, rtol=1e-4)
        # Why the plain net is refused: it takes every key, and computes something else.
        plain = timm.create_model("efficientnet_lite0", num_classes=1000).eval()
        plain.load_state_dict(net.state_dict())
        assert float((plain(images(64)) - wanted).abs().max()) > 1


@pytest.mark.parametrize(
    ("lite", "backbone", "advised"),
    [
        (False, "efficientnet_b0", "timm:tf_efficientnet_b0"),
        (False, "efficientnet_b4", "effnet_b4_tf"),
        (False, "efficientnet_lite0", "effnet_b4_tf"),
        (True, "efficientnet_lite0", "effnet_lite0"),
        (True, "efficientnet_lite1", "effnet_lite1"),
        (True, "mobilenetv2_100", "effnet_lite0"),
    ],
)
def test_nets_that_pad_otherwise_refuse_it_and_name_the_one_that_does_not(
    tensors, tmp_path, lite, backbone, advised
):
    path = save({k: v for k, v in tensors.items() if not (lite and "_se_" in k)}, tmp_path)
    with torch.device("meta"):
        net = timm.create_model(backbone, num_classes=1)
    with pytest.raises(UserError, match=r"other arithmetic.*tf_efficientnet") as caught:
        load_weights(net, path, HEAD)
    assert advised in re.split(r"[ ,()]+", str(caught.value).rpartition("take ")[2])
    if backbone.endswith(("_b0", "_lite0")) and backbone.endswith("lite0") == lite:
        built, native = build_classifier(read_model(advised, {"input.image_size": 32}))
        assert load_weights(built.net, path, native.head).format == "efficientnet_pytorch"
