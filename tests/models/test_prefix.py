"""A net in two parts gives what it gives whole, over the families of timm."""

import pytest
import torch

from src.config import read_model
from src.errors import UserError
from src.models.anatomy import anatomy_of
from src.models.classifier import build_classifier
from src.models.prefix import Suffix, check_cut, cut_of, entering_at, prefix_state


@pytest.mark.parametrize(
    ("name", "blocks", "cut"),
    [
        ("mobilenetv2_100", 3, "blocks.3"),
        ("timm:resnet18", 1, "layer2"),
        ("timm:vit_tiny_patch16_224", 2, "blocks.2"),
        ("timm:convnext_atto", 1, "stages.1"),
        ("timm:regnety_002", 1, "s2.b1"),
        ("compact32", 2, "stages.2"),
    ],
)
def test_the_parts_of_a_net_make_the_whole(name, blocks, cut):
    torch.manual_seed(0)
    model, native = build_classifier(read_model(name))
    parts = anatomy_of(model.net, native.head)
    assert cut_of(parts, blocks, name) == cut
    check_cut(model, cut, name)
    model.eval()
    size = model.spec.image_size
    pixels = torch.randint(0, 256, (2, size, size, 3), dtype=torch.uint8)
    with torch.inference_mode():
        want = model({"pixels": pixels}, also=("features",))
        entered = entering_at(model.net, cut, model.normalised(pixels))
        got = Suffix(model.net, cut).eval()({"features": entered}, also=("features",))
    for key, value in want.items():
        torch.testing.assert_close(got[key], value, atol=1e-4, rtol=1e-4)
    # Every weight is on one side, and a step behind the cut reaches those of that side alone.
    before = prefix_state(model.net, cut)
    model.train()
    Suffix(model.net, cut)({"features": entered.clone()})["logit"].sum().backward()
    reached = {n for n, w in model.net.named_parameters() if w.grad is not None}
    assert reached == {n for n, _ in model.net.named_parameters()} - before.keys()


@pytest.mark.parametrize("name", ["timm:eva02_tiny_patch14_224", "timm:densenet121"])
def test_a_net_that_cannot_be_cut_is_refused(name):
    model, native = build_classifier(read_model(name, {"input.image_size": 56}))
    with pytest.raises(UserError, match=r"transfer\.freeze"):
        check_cut(model, cut_of(anatomy_of(model.net, native.head), 1, name), name)
