"""ForensicsAdapter. Oracle: its formulas, written down anew (`adapter.Formulas`)."""

import pytest
import torch

from src.config import BackboneConfig, parse_model
from src.errors import UserError
from src.models.anatomy import anatomy_of
from src.models.backbones import build_backbone
from src.models.classifier import build_classifier, measure
from src.models.intermediates import check_intermediates, watching
from src.models.strategies import make_stages
from src.training.optim import build_optimizer
from tests.models.adapter import KWARGS, Formulas, small_adapter
from tests.models.small import images, tiny

SHOWN = ("boundary", "side_patches", "tower_patches")


@pytest.mark.parametrize(
    ("size", "changes"),
    [(64, {}), (96, {"head_num": 2}), (32, {"project": None, "fusions": [], "head_num": 1})],
)
def test_every_part_is_its_formula(size, changes):
    net = small_adapter(size, **changes)
    pixels = images(size, 2)
    with torch.no_grad(), watching(net, SHOWN) as seen:
        logit = net(pixels)[:, 0]
    want = Formulas(net, KWARGS | changes)(pixels)
    assert float(want["logit"].std()) > 1e-3
    assert float(want["boundary"].std()) > 1e-3
    assert len(seen["side_patches"]) == len(want["side_patches"]) == 2
    for key, one in (seen | {"logit": logit}).items():
        torch.testing.assert_close(one, _float(want[key]), atol=1e-5, rtol=1e-4)


def _float(found):
    return [one.float() for one in found] if isinstance(found, list) else found.float()


def test_a_picture_has_one_answer_whatever_its_neighbours():
    net, pixels = small_adapter(), images(64, 3)
    with torch.no_grad():
        first, again = net(pixels), net(pixels)
        alone = torch.cat([net(one[None]) for one in pixels.flip(0)]).flip(0)
    assert torch.equal(first, again)
    torch.testing.assert_close(first, alone, atol=1e-6, rtol=1e-5)


def test_fusion_starts_at_zero_and_learns():
    config = BackboneConfig("forensics_adapter", "none", kwargs=KWARGS)
    net, _ = build_backbone(config, 64)
    bare, _ = build_backbone(
        BackboneConfig(config.name, "none", kwargs=KWARGS | {"fusions": []}), 64
    )
    bare.load_state_dict(net.state_dict(), strict=False)
    pixels = images(64, 2)
    assert torch.equal(net.eval()(pixels), bare.eval()(pixels))
    net.train()(pixels).sum().backward()
    assert float(net.side.fusions["2"].proj.weight.grad.abs().max()) > 0


def test_gradients_reach_what_is_trained_and_nothing_in_the_tower():
    net = small_adapter().train()
    stage = make_stages(net, ("head",), _config())[0]
    every = {name for name, _ in net.named_parameters()}
    assert stage.train == {name for name in every if not name.startswith("tower.")}
    for name, weight in net.named_parameters():
        weight.requires_grad_(name in stage.train)
    with watching(net, SHOWN) as seen:
        logit = net(images(64, 4))
    (logit.square().sum() + seen["boundary"].square().sum()).backward()
    moved = {n for n, p in net.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert moved == stage.train


def test_checkpointing_changes_no_gradient():
    found = []
    for enable in (False, True):
        net = small_adapter().train()
        net.set_grad_checkpointing(enable)
        net(images(64, 2)).sum().backward()
        found.append({name: p.grad for name, p in net.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name, grad in found[0].items():
        torch.testing.assert_close(found[1][name], grad, atol=1e-6, rtol=1e-4)


def _config(**backbone: object):
    content = {
        "backbone": {"name": "forensics_adapter", "pretrained": "none", "kwargs": KWARGS},
        "input": {"image_size": 64},
        "transfer": {"freeze": ["tower"]},
        "localise": {},
    }
    content["backbone"] |= backbone
    return parse_model(content, "small")


def test_its_parts_and_what_they_cost():
    model, native = build_classifier(_config())
    assert (native.head, model.spec.mean[0]) == (("head",), 0.48145466)
    parts = anatomy_of(model.net, native.head)
    assert [len(block) for block in parts.blocks] == [12, 12, 12]
    assert {n.split(".")[0] for n in parts.stem} == {"tower", "side"}
    assert {n for n in parts.stem if "block" in n} == {n for n in parts.stem if "tower.blocks" in n}
    assert parts.head == {"head.weight", "head.bias"}
    assert {n.split(".")[0] for n in parts.tail} == {
        *("side", "decoder", "boundary", "bottleneck", "pool", "mlp"),
    }
    scales = build_optimizer(model.net, parse_model({**_config().as_dict(), "optim": {
        "layer_decay": 0.5}}, "small").optim)  # fmt: skip
    of = {id(p): g["lr_scale"] for g in scales.param_groups for p in g["params"]}
    names = {name: of[id(p)] for name, p in model.net.named_parameters()}
    assert (
        names["tower.cls_token"] == names["side.query"] == 0.5 * names["side.blocks.0.norm1.bias"]
    )
    assert names["side.blocks.2.norm1.bias"] == 0.5 * names["head.bias"]
    count, macs, spec = measure(_config())
    assert (count, spec) == (sum(p.numel() for p in model.net.parameters()), model.spec)
    assert macs > 1e6


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"fusions": [[1, 5]]}, "fusions: layer 5 of a tower of 4 blocks"),
        ({"fusions": [[4, 1]]}, "fusions: behind block 4 of a side network of 3"),
        ({"fusions": [[1, 1], [1, 2]]}, "two behind one block"),
        ({"intra_blocks": [4]}, "intra_blocks: 4 of a side network of 3"),
        ({"bottleneck_after": 5}, "bottleneck_after: 5 of a tower of 4"),
        ({"side_heads": 5}, "side_heads: 5 do not divide side_width, 24"),
        ({"head_num": 3}, "head_num: 3 does not divide the tower's 4 heads"),
        ({"queries": 2}, "queries must be >= 4"),
        ({"queries_": 8}, "did you mean 'queries'"),
        ({"tower": "vit_tiny_patch16_224"}, "vit_tiny_patch16_224 is no CLIP ViT"),
        ({"tower": "resnet18", "tower_kwargs": {}}, "resnet18 is no CLIP ViT"),
        ({"tower": "vit_base_patch16_clap_224"}, "vit_base_patch16_clip_224"),
        ({"tower_kwargs": {"num_classes": 3}}, "tower_kwargs may not set num_classes"),
    ],
)
def test_settings_that_do_not_fit_are_told(changes, says):
    with pytest.raises(UserError, match=says):
        build_classifier(_config(kwargs=KWARGS | changes))


def test_other_nets_have_no_boundary():
    with pytest.raises(UserError, match=r"mobile has no boundary map.*forensics_adapter_b16"):
        check_intermediates(tiny(), ["boundary"], 32, "mobile")


def test_a_size_that_is_no_multiple_of_a_patch_names_what_fits():
    config = parse_model({**_config().as_dict(), "input": {"image_size": 100}}, "small")
    with pytest.raises(UserError, match="100 px are no multiple of 16, such as 96 or 112"):
        build_classifier(config)
