"""Where merges are tried; BatchNorm of merged weights. Oracles: a pass by hand, torch's own."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from src.config import InputSpec
from src.merging.sources import tensor_source
from src.models.backbones.compact import CompactNet
from src.models.classifier import Classifier
from src.soups import bench as module
from src.soups.bench import (
    depth_of,
    estimate_statistics,
    layers_of,
    shared_layers,
    take_statistics,
    training_batches,
    twins_of,
    weighted,
)
from src.training.job import Job
from tests.jobs import batches_of
from tests.soups.runs import bench_of

SIDE = 8
SPEC = InputSpec(SIDE, SIDE, "squash", "bicubic", (0.5,) * 3, (0.25,) * 3)
CPU = torch.device("cpu")


def model_of(seed: int = 0, **kwargs: float) -> Classifier:
    torch.manual_seed(seed)
    return Classifier(CompactNet(widths=(4, 4, 8), **kwargs), SPEC)


def test_weights_of_an_average_by_hand(pair: Job) -> None:
    bench = bench_of(pair, "a b")
    bench.put(weighted(["a", "b"], [0.25, 0.75]))
    for name, weight in bench.model.net.named_parameters():
        wanted = 0.25 * bench.state("a")[name] + 0.75 * bench.state("b")[name]
        torch.testing.assert_close(weight.data, wanted)


@pytest.mark.parametrize("name", ["densenet121", "regnetx_002", "legacy_xception"])
def test_depth_where_names_hardly_tell_it(name: str) -> None:
    with torch.device("meta"):
        net = timm.create_model(name, num_classes=1)
    depth = depth_of(net, ("classifier", "head.fc", "fc"))
    found = [depth(one) for one in net.state_dict()]
    assert len(set(found)) > 2
    assert found == sorted(found)
    assert found[-1] == 1


def test_a_net_whose_names_tell_no_depth_is_asked_for_its_blocks() -> None:
    net = nn.Sequential()
    for name in ("first", "second", "third"):
        net.add_module(name, nn.Linear(2, 2))
    net.add_module("head", nn.Linear(2, 1))
    depth = depth_of(net, ("head",))
    names = ("first", "second", "third", "head")
    assert [depth(f"{name}.weight") for name in names] == [0, 0.5, 1, 1]


def test_the_first_layer_equals_a_pass_by_hand_and_all_equal_torchs() -> None:
    model, batches = model_of(), batches_of()
    theirs = copy.deepcopy(model)
    layer = model.net.stem[1]
    with torch.no_grad():
        seen = [model.net.stem[0](model.normalised(batch["pixels"])) for batch in batches]
    means = torch.stack([x.mean((0, 2, 3)) for x in seen]).mean(0)
    variances = torch.stack([x.transpose(0, 1).flatten(1).var(1) for x in seen]).mean(0)
    count = estimate_statistics(model, batches, CPU)
    torch.testing.assert_close(layer.running_mean, means)
    torch.testing.assert_close(layer.running_var, variances)
    assert count == sum(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    theirs.train()
    update_bn(batches, theirs)
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value)
    assert layer.momentum == 0.1
    assert not any(module.training for module in model.modules())


def test_dropout_is_not_at_work() -> None:
    with_drop, without = model_of(drop_rate=0.9), model_of()
    for model in (with_drop, without):
        estimate_statistics(model, batches_of(), CPU)
    for name, value in without.state_dict().items():
        assert torch.equal(with_drop.state_dict()[name], value)


def test_layers_that_are_kept_keep_what_they_know() -> None:
    model = model_of()
    before = copy.deepcopy(model.state_dict())
    estimate_statistics(model, batches_of(), CPU, keep=["stem.1"])
    after = model.state_dict()
    assert torch.equal(after["net.stem.1.running_mean"], before["net.stem.1.running_mean"])
    changed = [k for k in before if not torch.equal(before[k], after[k])]
    assert any(k.endswith("running_var") for k in changed)


def test_statistics_equal_in_all_files_are_found() -> None:
    one, two = model_of(), model_of()
    two.net.stem[1].running_var += 1
    files = [tensor_source("x", model.net.state_dict()) for model in (one, two)]
    norms = {name for name, m in one.net.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert shared_layers(one.net, files) == norms - {"stem.1"}
    assert shared_layers(one.net, files[:1]) == norms


def test_a_net_without_batchnorm_reads_no_batch() -> None:
    def none():
        pytest.fail("a batch was read")
        yield {}

    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE**2, 1))
    assert not layers_of(net)
    assert estimate_statistics(Classifier(net, SPEC), none(), CPU) == 0


@pytest.mark.parametrize(
    ("items", "sizes"), [(1, [1]), (64, [64]), (65, [33, 32]), (130, [44, 43, 43]), (128, [64, 64])]
)
def test_no_batch_is_a_small_rest(monkeypatch, items: int, sizes: list[int]) -> None:
    class Batches:
        def __getitem__(self, rows):
            return {"readable": torch.ones(len(rows)).bool(), "pixels0": torch.tensor(rows)}

    monkeypatch.setattr(module, "EvalBatches", lambda *_: Batches())
    numbers = SimpleNamespace(eval_rows=lambda rows: SimpleNamespace(rows=rows))
    source, model = SimpleNamespace(numbers=numbers), SimpleNamespace(spec=SPEC)
    found = training_batches(source, model, np.arange(200), items, 0)
    assert [len(batch["pixels"]) for batch in found] == sizes
    assert len(torch.cat([batch["pixels"] for batch in found]).unique()) == items


def test_weights_of_one_file_are_known_whatever_their_statistics() -> None:
    one, two = model_of(), model_of(1)
    files = [tensor_source("x", model.net.state_dict()) for model in (one, two)]
    merged = {
        key: value + 1 if "running" in key else value * (1 + 1e-7)
        if value.is_floating_point() else value
        for key, value in two.net.state_dict().items()
    }  # fmt: skip
    assert twins_of(one.net, merged, files) == files[1:]
    moved = merged | {"head.weight": merged["head.weight"] + 1e-3}
    assert twins_of(one.net, moved, files) == []
    estimate_statistics(two, batches_of(), CPU)
    take_statistics(one.net, files[1])
    theirs = two.net.state_dict()
    for key, value in one.net.state_dict().items():
        if "running" in key:
            assert torch.equal(value, theirs[key])
    assert not torch.equal(one.net.state_dict()["head.weight"], theirs["head.weight"])
