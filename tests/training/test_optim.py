"""Optimizers and their groups. Oracles: torch, timm, schedulefree, and MAE's rule for layers."""

import pytest
import timm
import torch
from torch import nn

from src.config import OptimConfig
from src.errors import UserError
from src.training.optim import OPTIMIZERS, build_optimizer, optimizer_mode


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1))


def trained(optimizer: torch.optim.Optimizer, net: nn.Module, steps: int = 5) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    optimizer_mode(optimizer, train=True)
    for _ in range(steps):
        optimizer.zero_grad()
        net(torch.randn(8, 4, generator=generator)).square().mean().backward()
        optimizer.step()
    optimizer_mode(optimizer, train=False)
    return [parameter.detach().clone() for parameter in net.parameters()]


def of_library(name: str, net: nn.Module) -> torch.optim.Optimizer:
    import schedulefree
    from timm.optim import create_optimizer_v2

    decayed = [p for p in net.parameters() if p.ndim > 1]
    groups = [
        {"params": decayed, "weight_decay": 0.1},
        {"params": [p for p in net.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if name == "schedule_free":
        return schedulefree.AdamWScheduleFree(groups, lr=1e-2)
    if name == "lion":
        return create_optimizer_v2(net, "lion", lr=1e-2, weight_decay=0.1)
    if name == "sgd":
        return torch.optim.SGD(groups, lr=1e-2, momentum=0.9, nesterov=True)
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name](groups, lr=1e-2)


@pytest.mark.parametrize("name", OPTIMIZERS.names())
def test_each_optimizer_steps_as_its_library_does(name: str):
    ours, theirs = small_net(), small_net()
    mine = build_optimizer(ours, OptimConfig(name=name, lr=1e-2, weight_decay=0.1))
    assert [group["lr_scale"] for group in mine.param_groups] == [1.0, 1.0]
    for one, other in zip(
        trained(mine, ours), trained(of_library(name, theirs), theirs), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", OPTIMIZERS.names())
def test_each_optimizer_goes_on_exactly_from_its_state(name: str, tmp_path):
    config = OptimConfig(name=name, lr=1e-2)
    whole = small_net()
    wanted = trained(build_optimizer(whole, config), whole, 4)

    net = small_net()
    first = build_optimizer(net, config)
    generator = torch.Generator().manual_seed(1)
    batches = [torch.randn(8, 4, generator=generator) for _ in range(4)]
    for number, inputs in enumerate(batches):
        if number == 2:  # in mid-epoch, so without a switch
            torch.save({"net": net.state_dict(), "optimizer": first.state_dict()}, tmp_path / "s")
            state = torch.load(tmp_path / "s", weights_only=True)  # noqa: TID251
            net = small_net()
            first = build_optimizer(net, config)
            net.load_state_dict(state["net"])
            first.load_state_dict(state["optimizer"])
        optimizer_mode(first, train=True)
        first.zero_grad()
        net(inputs).square().mean().backward()
        first.step()
    optimizer_mode(first, train=False)
    for one, other in zip(net.parameters(), wanted, strict=True):
        assert torch.equal(one, other)


def test_only_schedule_free_has_two_sets_of_weights():
    for name in OPTIMIZERS.names():
        net = small_net()
        optimizer = build_optimizer(net, OptimConfig(name=name))
        used = trained(optimizer, net)
        two = optimizer_mode(optimizer, train=True)
        assert two == (name == "schedule_free")
        same = all(torch.equal(a, b) for a, b in zip(net.parameters(), used, strict=True))
        assert same != two
        optimizer_mode(optimizer, train=True)  # already in: nothing moves
        optimizer_mode(optimizer, train=False)
        for one, other in zip(net.parameters(), used, strict=True):
            torch.testing.assert_close(one.detach(), other)


def test_layer_decay_is_that_of_mae_and_fsfm():
    """Layer 0 is tokens, positions and the patch embedding, block k is k + 1, the head is last."""
    net = timm.create_model("vit_tiny_patch16_224", num_classes=1, depth=3, global_pool="avg")
    optimizer = build_optimizer(net, OptimConfig(layer_decay=0.65, weight_decay=0.05))
    scale = {p: group["lr_scale"] for group in optimizer.param_groups for p in group["params"]}
    decay = {p: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in net.named_parameters():
        layer = 4
        if name.startswith(("cls_token", "pos_embed", "patch_embed")):
            layer = 0
        elif name.startswith("blocks."):
            layer = int(name.split(".")[1]) + 1
        assert scale[parameter] == pytest.approx(0.65 ** (4 - layer)), name
        plain = parameter.ndim == 1 or name in ("pos_embed", "cls_token")
        assert decay[parameter] == (0 if plain else 0.05), name


def test_layer_decay_of_what_is_trained_alone():
    net = timm.create_model("test_efficientnet", num_classes=1)
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name.startswith("classifier"))
    optimizer = build_optimizer(net, OptimConfig(layer_decay=0.5))
    assert {group["lr_scale"] for group in optimizer.param_groups} == {1.0}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 2


def test_layer_decay_of_a_net_without_layers_is_refused():
    with pytest.raises(UserError, match="Sequential does not say what its layers are"):
        build_optimizer(small_net(), OptimConfig(layer_decay=0.7))
