"""Maps of nets whose answer is known: where they point, what they leave behind, what is refused."""

import sys

import numpy as np
import pytest
import torch
from torch import nn

from src.errors import UserError
from src.explain.checked import check_maps
from src.explain.feature_maps import last_map
from src.explain.maps import MAPS, kinds_for, usual_kinds
from src.explain.overlay import hottest
from src.models.classifier import Classifier
from tests.explain.corner import CORNER, GRID, SIZE, CornerNet, classifier, noise, rough_corner
from tests.models.adapter import small_adapter
from tests.models.small import clip_vit, tiny, vit

LIBRARY = {"grad_cam", "grad_cam_plus_plus", "hirescam"}


def there(kinds):
    """Leave out what a machine without the library cannot draw."""
    try:
        import pytorch_grad_cam  # noqa: F401
    except ImportError:
        return sorted(set(kinds) - LIBRARY)
    return sorted(kinds)


@pytest.mark.parametrize("sign", [1, -1])
def test_every_map_points_to_the_corner_that_alone_counts_and_is_kept(sign):
    model = classifier(CornerNet(scale=10.0 * sign, bias=0.1 * sign))
    kinds = there(MAPS)
    for found in check_maps(model, "corner", rough_corner(), kinds):
        assert {one.kind for one in found} == set(kinds)
        for one in found:
            if one.kind == "boundary" and sign < 0:
                assert one.withheld == "speaks_of_fakes_only"
                continue
            y, x = np.unravel_index(one.where.argmax(), one.where.shape)
            assert max(y, x) < SIZE * CORNER // GRID, one.kind
            assert one.withheld == "", one.kind
            assert one.lost > float(one.random.mean())
            assert one.where.shape == (SIZE, SIZE)
            assert one.where.min() == 0


def test_a_verdict_that_is_not_the_logits_sign_is_explained_as_it_was_given():
    model = classifier(CornerNet(scale=10.0, bias=-0.1))  # the corner speaks for fake
    kinds = ["occlusion"]
    as_fake, as_real = (
        check_maps(model, "n", rough_corner(1), kinds, fake=[v])[0][0] for v in (1, 0)
    )
    assert as_fake.withheld == ""
    assert as_real.withheld == "flat"  # nothing in the picture speaks for real


def test_hirescam_is_gradient_times_map_also_where_what_follows_works_in_place():
    pytest.importorskip("pytorch_grad_cam")

    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 6, 8, 8), nn.Linear(6, 1)

        def forward(self, x):
            return self.head(torch.sigmoid_(self.conv(x)).square().mean((2, 3)))

    torch.manual_seed(0)
    net = InPlace()
    model, pixels = classifier(net), noise(2)
    found = MAPS.get("hirescam")(model, "n", pixels, np.ones(2, np.float32))
    with torch.enable_grad():
        features = net.conv(model.normalised(torch.from_numpy(pixels))).detach().requires_grad_()
        net.head(torch.sigmoid(features).square().mean((2, 3))).sum().backward()
    want = (features.grad * features.detach()).sum(1).clamp(min=0)
    want = want / want.amax((1, 2), keepdim=True)
    want = (want - want.amin((1, 2), keepdim=True)).numpy()
    np.testing.assert_allclose(found, want / want.max((1, 2), keepdims=True), atol=1e-4)


def test_relevance_is_its_formula():
    net, pixels = vit(depth=2, seed=3), noise(2, 32)
    model = classifier(net, 32)
    found = MAPS.get("relevance")(model, "vit", pixels, np.array([1, -1], np.float32))
    maps: list[torch.Tensor] = []
    for block in net.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_pre_hook(lambda _, given: maps.append(given[0]))
    with torch.enable_grad():
        logit = net(model.normalised(torch.from_numpy(pixels)))[:, 0]
        grads = torch.autograd.grad(logit[0] - logit[1], maps)
    total = torch.eye(17).repeat(2, 1, 1)
    for one, grad in zip(maps, grads, strict=True):
        total += (one * grad).clamp(min=0).mean(1) @ total
    np.testing.assert_allclose(
        found.reshape(2, -1), total[:, 0, 1:].detach().numpy(), atol=1e-5, rtol=1e-4
    )


def mixer() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 8), nn.GELU(), nn.Linear(8, 1))


def timm_net(name: str, **more) -> nn.Module:
    import timm

    torch.manual_seed(0)
    return timm.create_model(name, num_classes=1, **more).eval()


SWIN = {"img_size": 64, "window_size": 4, "embed_dim": 16, "depths": (1, 1), "num_heads": (1, 2)}
NETS = {
    "efficientnet": (tiny, 128, "blocks.3"),
    "resnet": (lambda: timm_net("test_resnet"), 128, "layer3"),
    "convnext": (lambda: timm_net("test_convnext"), 128, "stages.2"),
    "swin, channels last": (lambda: timm_net("swin_tiny_patch4_window7_224", **SWIN), 64, "norm"),
    "ViT that reads its class token": (vit, 32, "blocks.1.norm1"),
    "CLIP's": (clip_vit, 32, "blocks.1.norm1"),
    "ViT of large patches": (
        lambda: vit(img_size=128, patch_size=32), 128, "blocks.1.norm1",
    ),
    "ViT with registers": (lambda: vit(reg_tokens=4), 32, "blocks.1.norm1"),
    "ViT that reads the mean": (
        lambda: vit(class_token=False, global_pool="avg", reg_tokens=4), 32, "blocks",
    ),
}  # fmt: skip


@pytest.mark.parametrize("which", NETS)
def test_every_family_has_a_square_last_map(which):
    make, size, layer = NETS[which]
    model = classifier(make(), size)
    pixels = model.normalised(torch.from_numpy(noise(1, size))).requires_grad_()
    found = last_map(model, which, pixels)
    assert found.path == layer
    seen: list[torch.Tensor] = []
    found.layer.register_forward_hook(lambda _, __, out: seen.append(found.on_grid(out)))
    model.net(pixels)
    n, _, height, width = seen[0].shape
    assert n == 1
    assert height == width >= 4
    why = kinds_for(model, which)
    assert [kind for kind in there(LIBRARY) if why[kind]] == []
    assert why["occlusion"] == ""
    assert (why["rollout"] == "") == ("ViT" in which or "CLIP" in which)
    assert "forensics_adapter" in why["boundary"]


def test_a_net_of_no_maps_says_so_and_names_a_way_out():
    why = kinds_for(classifier(mixer(), 32), "mixer")
    assert {kind for kind, reason in why.items() if not reason} == {"occlusion"}
    if there(LIBRARY):
        assert "occlusion works with every net" in why["grad_cam"]
    assert "take a vision transformer" in why["rollout"]
    with pytest.raises(UserError, match="mixer has no self-attention"):
        check_maps(classifier(mixer(), 32), "mixer", noise(1, 32), ["rollout"])
    with pytest.raises(UserError, match=r"unknown kind of map 'gradcam'.*grad_cam"):
        check_maps(classifier(mixer(), 32), "mixer", noise(1, 32), ["gradcam"])


def test_without_the_library_its_kinds_say_what_to_install_and_others_go_on(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_grad_cam", None)
    why = kinds_for(classifier(CornerNet(10.0)), "corner")
    assert all("pip install grad-cam" in why[kind] for kind in LIBRARY)
    assert [kind for kind in why if not why[kind]] == sorted(set(MAPS) - LIBRARY)


def test_usual_kinds_are_few_and_of_different_ways():
    nets = {"conv": tiny(), "vit": vit(), "adapter": small_adapter(32), "none": mixer()}
    usual = {name: usual_kinds(classifier(net, 32), name) for name, net in nets.items()}
    assert usual["conv"] == [*there({"hirescam"}), "occlusion"]
    assert usual["vit"] == ["rollout", "occlusion"]
    assert usual["adapter"] == ["rollout", "boundary", "occlusion"]
    assert usual["none"] == ["occlusion"]


def test_the_net_that_says_where_has_all_maps():
    model = classifier(small_adapter(64), 64)
    why = kinds_for(model, "adapter")
    assert why["boundary"] == why["rollout"] == ""
    found = check_maps(model, "adapter", noise(1), ["boundary"], fake=[True])[0]
    assert found[0].where.shape == (64, 64)


def hooks_of(model: Classifier) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@pytest.mark.parametrize("frozen", [False, True])
def test_nothing_is_left_behind(frozen):
    for net in (vit(), tiny()):
        model, pixels = classifier(net, 32), noise(2, 32)
        want = model({"pixels": torch.from_numpy(pixels)})["logit"].detach()
        model.train()
        first = next(iter(net.children()))
        first.eval()
        weights = list(net.parameters())
        for place, weight in enumerate(weights):
            weight.requires_grad_(not frozen and place % 2 == 0)
            weight.grad = torch.full_like(weight, place) if weight.requires_grad else None
        before = {key: value.clone() for key, value in net.state_dict().items()}
        with torch.inference_mode():  # whatever the caller is at
            kinds = [kind for kind, why in kinds_for(model, "n").items() if not why]
            assert len(kinds) >= (1 if not there(LIBRARY) else 4)
            check_maps(model, "n", pixels, kinds)
        assert hooks_of(model) == 0
        assert model.training
        assert net.training
        assert not first.training
        for place, weight in enumerate(weights):
            assert weight.requires_grad == (not frozen and place % 2 == 0)
            if weight.requires_grad:
                assert bool((weight.grad == place).all())
            else:
                assert weight.grad is None
        assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
        model.eval()
        assert torch.equal(model({"pixels": torch.from_numpy(pixels)})["logit"], want)


def test_bf16_and_odd_sizes_give_maps_of_numbers():
    model, pixels = classifier(tiny(), 75), noise(2, 75)
    with torch.autocast("cpu", torch.bfloat16):
        found = check_maps(model, "n", pixels, there({"hirescam", "occlusion"}))
    assert all(one.where.shape == (75, 75) for row in found for one in row)
    tried = [one for row in found for one in row if one.withheld != "flat"]
    assert tried
    assert all(np.isfinite(one.lost) for one in tried)
    assert all(hottest(one.where).sum() == round(0.2 * 75 * 75) for one in tried)
