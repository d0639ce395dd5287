"""Files of torchvision's nets. Oracle: those nets themselves, with random weights."""

from functools import partial

import pytest
import timm
import torch
import torchvision.models
from safetensors.torch import save_file
from torchvision.models import ConvNeXt, SwinTransformer, VisionTransformer
from torchvision.models.convnext import CNBlockConfig

from src.config import read_model
from src.errors import UserError
from src.models.classifier import build_classifier
from src.models.detector import turn_head
from src.models.formats.self_supervised import IMAGENET
from src.models.weights import load_weights
from tests.models.small import images, save, tensors_of

CONVOLUTIONS = {
    "mobilenet_v2": "mobilenetv2_100", "mobilenet_v3_large": "mobilenetv3_large_100",
    "mobilenet_v3_small": "mobilenetv3_small_100", "efficientnet_b0": "efficientnet_b0",
    "resnet18": "resnet18",
}  # fmt: skip
# Told apart by shapes alone; EfficientNet-B5 and later and V2 have another eps.
WIDER = {
    "efficientnet_b2": "efficientnet_b2", "efficientnet_b5": "efficientnet_b5",
    "efficientnet_v2_m": "efficientnetv2_m",
}  # fmt: skip
SMALL = {
    "convnext": (
        lambda: ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, 24, 2),
                          CNBlockConfig(24, 32, 1), CNBlockConfig(32, None, 1)], num_classes=2),
        "convnext_tiny", {"depths": (1, 2, 1, 1), "dims": (8, 16, 24, 32)},
    ),
    "swin": (
        lambda: SwinTransformer([4, 4], 8, [1, 2, 1, 1], [1, 1, 2, 2], [7, 7], num_classes=2),
        "swin_tiny_patch4_window7_224",
        {"embed_dim": 8, "depths": (1, 2, 1, 1), "num_heads": (1, 1, 2, 2)},
    ),
    "vit": (
        lambda: VisionTransformer(32, 8, 2, 2, 32, 128, num_classes=2),
        "vit_base_patch16_224",
        {"img_size": 32, "patch_size": 8, "depth": 2, "num_heads": 2, "embed_dim": 32},
    ),
}  # fmt: skip


def theirs(name: str) -> torch.nn.Module:
    torch.manual_seed(1)
    make = SMALL[name][0] if name in SMALL else getattr(torchvision.models, name)
    net = make().eval() if name in SMALL else make(weights=None, num_classes=2).eval()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for value, low in ((module.running_mean, -0.1), (module.running_var, 0.5)):
                torch.nn.init.uniform_(value, low, low + 0.5)  # type: ignore[arg-type]
        if isinstance(module, torch.nn.Linear | torch.nn.LayerNorm):
            torch.nn.init.normal_(module.bias, std=0.1) if module.bias is not None else None
    for key, value in net.named_parameters():
        if key.endswith("layer_scale"):
            torch.nn.init.uniform_(value)
    return net


def ours(name: str, classes: int = 2, **kwargs: object) -> tuple[torch.nn.Module, tuple[str, ...]]:
    torch.manual_seed(2)
    net = timm.create_model(name, num_classes=classes, **kwargs).eval()
    return net, (net.pretrained_cfg["classifier"],)  # type: ignore[index]


@pytest.mark.parametrize("name", [*CONVOLUTIONS, *SMALL])
def test_the_same_logits(tmp_path, name):
    _, timms, kwargs = SMALL.get(name, (None, CONVOLUTIONS.get(name), {}))
    reference, (net, head) = theirs(name), ours(timms, **kwargs)
    # safetensors sorts names by the alphabet, in which 10 comes before 2
    save_file(tensors_of(reference), tmp_path / "w.safetensors")
    start = load_weights(net, tmp_path / "w.safetensors", head)
    assert (start.missing, start.unexpected, start.dropped) == ([], [], [])
    if name != "resnet18":
        assert start.format == "torchvision"
        assert (start.mean, start.std) == (list(IMAGENET[0]), list(IMAGENET[1]))
    size = {"vit": 32, "swin": 224}.get(name, 64)
    with torch.inference_mode():
        wanted, found = reference(images(size, 2)), net(images(size, 2))
    assert float(wanted.std()) > 1e-4
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("name", "timms"), WIDER.items())
def test_wider_and_deeper_nets_are_told_apart(tmp_path, name, timms):
    with torch.device("meta"):
        shapes = getattr(torchvision.models, name)(weights=None).state_dict()
        net, head = ours(timms, 1)
    torch.save({k: torch.ones((), dtype=v.dtype).expand(v.shape) for k, v in shapes.items()},
               tmp_path / "w.pth")  # fmt: skip
    from src.models.formats import Target, WeightsFile
    from src.models.formats.fit import recognise

    source = WeightsFile(tmp_path / "w.pth", torch.load(tmp_path / "w.pth", weights_only=True))  # noqa: TID251
    form, found = recognise(source, Target(net, head))
    assert form == "torchvision"
    own = net.state_dict()
    assert set(found.tensors) == set(own)
    assert {k for k, v in found.tensors.items() if v.shape != own[k].shape} == {
        f"{head[0]}.weight", f"{head[0]}.bias"
    }  # fmt: skip
    variances = {float(v.flatten()[0]) for k, v in found.tensors.items() if "running_var" in k}
    large = name[-1] in "567ml"
    assert [*variances] == pytest.approx([1 + 1e-3 - 1e-5 if large else 1.0], abs=1e-6)


@pytest.mark.parametrize("wrap", ["model.", "backbone."])
def test_within_a_detector_and_with_another_head(tmp_path, wrap):
    reference, (net, head) = theirs("mobilenet_v2"), ours("mobilenetv2_100", 1)
    tensors = {f"{wrap}{key}": value for key, value in tensors_of(reference).items()}
    start = load_weights(net, save({"state_dict": tensors}, tmp_path), head)
    assert start.missing == start.unexpected == ["classifier.bias", "classifier.weight"]
    with torch.inference_mode():
        pooled = reference.features(images(64)).mean((2, 3))  # type: ignore[operator]
        found = net.forward_head(net.forward_features(images(64)), pre_logits=True)  # type: ignore[operator]
    torch.testing.assert_close(found, pooled, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("fake", [0, 1])
def test_a_detector_of_two_classes_that_the_user_tells(tmp_path, fake):
    reference, (net, head) = theirs("mobilenet_v3_small"), ours("mobilenetv3_small_100", 1)
    path = save(tensors_of(reference), tmp_path)
    assert load_weights(net, path, head, partial(turn_head, fake=fake)).fake == fake
    with torch.inference_mode():
        wanted = reference(images(64)).softmax(1)[:, fake]
        torch.testing.assert_close(net(images(64)).sigmoid()[:, 0], wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("model", "why"),
    [("mobilenetv2_100", "pads as TensorFlow does"), ("effnet_b0", "is another net")],
)
def test_the_net_that_the_message_names_takes_them(tmp_path, model, why):
    path = save(tensors_of(theirs("mobilenet_v2")), tmp_path)
    built, native = build_classifier(read_model(model, {"input.image_size": 64}))
    with pytest.raises(UserError, match=f"{why}.*: take --model (timm:mobilenetv2_100)$") as caught:
        load_weights(built.net, path, native.head)
    advised = str(caught.value).rpartition(" ")[2]
    built, native = build_classifier(read_model(advised, {"input.image_size": 64}))
    assert load_weights(built.net, path, native.head).format == "torchvision"
