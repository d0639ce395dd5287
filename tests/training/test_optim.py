"""Optimizers, schedules, BatchNorm. Oracles: torch, timm, schedulefree, and MAE's layers."""

import copy

import pytest
import timm
import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.swa_utils import update_bn

from src.config import InputSpec, OptimConfig
from src.errors import UserError
from src.models.backbones.compact import CompactNet
from src.models.classifier import Classifier
from src.training.optim import (
    OPTIMIZERS,
    SCHEDULES,
    build_optimizer,
    optimizer_mode,
    settle_statistics,
)
from tests.jobs import batches_of


def small_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1))


def inputs_of(count):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(8, 4, generator=generator) for _ in range(count)]


def trained(optimizer, net, inputs):
    optimizer_mode(optimizer, train=True)
    for one in inputs:
        optimizer.zero_grad()
        net(one).square().mean().backward()
        optimizer.step()
    return net


def used(optimizer, net):
    optimizer_mode(optimizer, train=False)
    return [parameter.detach().clone() for parameter in net.parameters()]


def of_library(name, net):
    import schedulefree
    from timm.optim import create_optimizer_v2

    groups = [
        {"params": [p for p in net.parameters() if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in net.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if name == "lion":
        return create_optimizer_v2(net, "lion", lr=1e-2, weight_decay=0.1)
    if name == "sgd":
        return torch.optim.SGD(groups, lr=1e-2, momentum=0.9, nesterov=True)
    makers = {
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "schedule_free": schedulefree.AdamWScheduleFree,
    }
    return makers[name](groups, lr=1e-2)


@pytest.mark.parametrize("name", OPTIMIZERS.names())
def test_each_optimizer_steps_as_its_library_and_goes_on_exactly_from_its_state(name, tmp_path):
    config, inputs = OptimConfig(name=name, lr=1e-2, weight_decay=0.1), inputs_of(4)
    whole, theirs, cut = small_net(), small_net(), small_net()
    mine, other, first = build_optimizer(whole, config), of_library(name, theirs), None
    assert [group["lr_scale"] for group in mine.param_groups] == [1.0, 1.0]
    wanted = used(mine, trained(mine, whole, inputs))
    for one, expected in zip(wanted, used(other, trained(other, theirs, inputs)), strict=True):
        torch.testing.assert_close(one, expected, rtol=1e-6, atol=1e-7)

    first = build_optimizer(cut, config)
    trained(first, cut, inputs[:2])  # stopped in mid-epoch, so without a switch
    torch.save({"net": cut.state_dict(), "optimizer": first.state_dict()}, tmp_path / "s")
    state = torch.load(tmp_path / "s", weights_only=True)  # noqa: TID251
    net = small_net()
    again = build_optimizer(net, config)
    net.load_state_dict(state["net"])
    again.load_state_dict(state["optimizer"])
    for one, expected in zip(used(again, trained(again, net, inputs[2:])), wanted, strict=True):
        assert torch.equal(one, expected)


@pytest.mark.parametrize("name", OPTIMIZERS.names())
def test_only_schedule_free_has_two_sets_of_weights(name):
    net = small_net()
    optimizer = build_optimizer(net, OptimConfig(name=name))
    wanted = used(optimizer, trained(optimizer, net, inputs_of(5)))
    assert optimizer_mode(optimizer, train=True) == (name == "schedule_free")
    same = all(torch.equal(a, b) for a, b in zip(net.parameters(), wanted, strict=True))
    assert same == (name != "schedule_free")
    optimizer_mode(optimizer, train=True)  # already in: nothing moves
    for one, expected in zip(used(optimizer, net), wanted, strict=True):
        torch.testing.assert_close(one, expected)


def test_layer_decay_is_that_of_mae_and_fsfm():
    """Layer 0 is tokens, positions and the patch embedding, block k is k + 1, the head is last."""
    net = timm.create_model("vit_tiny_patch16_224", num_classes=1, depth=3, global_pool="avg")
    optimizer = build_optimizer(net, OptimConfig(layer_decay=0.65, weight_decay=0.05))
    group_of = {p: group for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in net.named_parameters():
        layer = 4
        if name.startswith(("cls_token", "pos_embed", "patch_embed")):
            layer = 0
        elif name.startswith("blocks."):
            layer = int(name.split(".")[1]) + 1
        assert group_of[parameter]["lr_scale"] == pytest.approx(0.65 ** (4 - layer)), name
        plain = parameter.ndim == 1 or name in ("pos_embed", "cls_token")
        assert group_of[parameter]["weight_decay"] == (0 if plain else 0.05), name


def test_layer_decay_of_what_is_trained_alone_and_of_a_net_without_layers():
    net = timm.create_model("test_efficientnet", num_classes=1)
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name.startswith("classifier"))
    optimizer = build_optimizer(net, OptimConfig(layer_decay=0.5))
    assert {group["lr_scale"] for group in optimizer.param_groups} == {1.0}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 2
    with pytest.raises(UserError, match="Sequential does not say what its layers are"):
        build_optimizer(small_net(), OptimConfig(layer_decay=0.7))


STEPS, EACH = 40, 5


def schedule_of(name, steps=STEPS, **settings):
    config = OptimConfig(**{"schedule": name, "lr": 1e-2, "min_lr": 1e-6, **settings})
    return SCHEDULES.get(name)(config, steps, EACH)


def rates(name, steps=STEPS, **settings):
    schedule = schedule_of(name, steps, **settings)
    return [schedule.lr(step) for step in range(steps)]


def plain_optimizer():
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1e-2)


def rates_of_torch(scheduler, steps):
    found = []
    for number in range(steps):
        found.append(scheduler.optimizer.param_groups[0]["lr"])
        scheduler.optimizer.step()
        if number + 1 < steps:
            scheduler.step()
    return found


def test_cosine_is_timms_and_touches_both_ends():
    from timm.scheduler.cosine_lr import CosineLRScheduler

    ours = rates("cosine", warmup_epochs=0)
    theirs = CosineLRScheduler(plain_optimizer(), STEPS, lr_min=1e-6, t_in_epochs=False)
    assert ours == pytest.approx([theirs._get_lr(step)[0] for step in range(STEPS)], rel=1e-9)
    assert ours[0] == 1e-2
    assert schedule_of("cosine").lr(STEPS) == pytest.approx(1e-6)


@pytest.mark.parametrize("name", ["cosine", "constant", "step", "plateau"])
def test_warmup_is_linear_and_ends_at_the_peak(name):
    ours = rates(name, warmup_epochs=1.6, decay_epochs=100)
    assert ours[:9] == pytest.approx([1e-2 * (step + 1) / 9 for step in range(9)])


@pytest.mark.parametrize("name", SCHEDULES.names())
def test_odd_settings_never_raise_the_rate_and_only_plateau_listens(name):
    for steps in (1, 2, 3):  # a warmup longer than the stage
        assert all(0 < rate <= 1e-2 for rate in rates(name, steps, warmup_epochs=100))
    assert max(rates(name, min_lr=1.0)) <= 1e-2
    schedule = schedule_of(name, decay_epochs=1)
    before = [schedule.lr(step) for step in range(STEPS)]
    for _ in range(5):
        schedule.after_epoch(0.5)
    assert ([schedule.lr(step) for step in range(STEPS)] != before) == (name == "plateau")


def test_constant_stays_and_an_unknown_schedule_is_refused():
    assert set(rates("constant", warmup_epochs=0)) == {1e-2}
    with pytest.raises(UserError, match="did you mean 'cosine'"):
        schedule_of("cosin")


def test_step_is_torchs_down_to_the_least():
    ours = rates("step", warmup_epochs=0, decay_epochs=3, decay_rate=0.1, min_lr=1e-9)
    theirs = rates_of_torch(lr_scheduler.StepLR(plain_optimizer(), 3 * EACH, 0.1), STEPS)
    assert ours == pytest.approx(theirs)
    assert min(rates("step", decay_epochs=1, min_lr=1e-4)[5:]) == pytest.approx(1e-4)


@pytest.mark.parametrize("steps", [4, 7, 10, 40, 137])
def test_one_cycle_is_torchs(steps):
    theirs = lr_scheduler.OneCycleLR(
        plain_optimizer(), 1e-2, steps, cycle_momentum=False, final_div_factor=1e-2 / 25 / 1e-6
    )
    ours = rates("one_cycle", steps, warmup_epochs=3)  # which it does not read
    assert ours == pytest.approx(rates_of_torch(theirs, steps), rel=1e-9)


SCORES = [0.5, 0.6, 0.6, 0.59, 0.6, 0.60001, 0.7, 0.7, 0.7, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]


@pytest.mark.parametrize("patience", [1, 2, 3])
@pytest.mark.parametrize("sign", [1, -1])
def test_plateau_is_torchs_and_goes_on_from_its_state(patience, sign):
    settings = {"decay_epochs": patience, "decay_rate": 0.3, "warmup_epochs": 0}
    ours, optimizer = schedule_of("plateau", 80, **settings), plain_optimizer()
    # torch scales its threshold by a negative best in the wrong direction: loss and mode min there.
    mode = "max" if sign > 0 else "min"
    theirs = lr_scheduler.ReduceLROnPlateau(optimizer, mode, 0.3, patience, min_lr=1e-6)
    for epoch, score in enumerate(SCORES):
        assert ours.lr(epoch * EACH) == pytest.approx(optimizer.param_groups[0]["lr"])
        ours.after_epoch(sign * score)
        theirs.step(score)
        resumed = schedule_of("plateau", 80, **settings)
        resumed.load_state_dict(ours.state_dict())
        ours = resumed
    assert ours.lr(79) < 1e-2


SIDE = 8
SPEC = InputSpec(SIDE, SIDE, "squash", "bicubic", (0.5,) * 3, (0.25,) * 3)
CPU = torch.device("cpu")


def model_of(seed=0):
    torch.manual_seed(seed)
    return Classifier(CompactNet(widths=(4, 4, 8)), SPEC)


def test_statistics_are_those_of_torchs_update_bn():
    model, batches = model_of(), batches_of()
    model.train()
    model(batches[0])
    model.eval()
    theirs = copy.deepcopy(model)
    update_bn(batches, theirs)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    before = [m.momentum for m in norms]
    settle_statistics(model, batches, CPU, "fp32")
    wanted = theirs.state_dict()
    for name, got in model.state_dict().items():
        assert torch.equal(got, wanted[name]), name
    assert [m.momentum for m in norms] == before
    assert not any(module.training for module in model.modules())


def test_frozen_layers_keep_what_they_know():
    model = model_of()
    for name, parameter in model.net.named_parameters():
        parameter.requires_grad_(not name.startswith("stem"))
    before = {name: value.clone() for name, value in model.net.state_dict().items()}
    model.train()
    settle_statistics(model, batches_of(), CPU, "fp32")
    after = model.net.state_dict()
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"stages"}
    assert model.net.stem[1].training  # as it was before


def test_a_net_without_batchnorm_reads_no_batch():
    def none():
        pytest.fail("a batch was read")
        yield {}

    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE**2, 1))
    settle_statistics(Classifier(net, SPEC), none(), CPU, "fp32")
