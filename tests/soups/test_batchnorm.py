"""BatchNorm of merged weights. Oracles: a pass by hand, torch's update_bn."""

import copy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import update_bn

from src.config import InputSpec
from src.models.backbones.compact import CompactNet
from src.models.classifier import Classifier
from src.soups import batchnorm
from src.soups.batchnorm import (
    estimate_statistics,
    has_batchnorm,
    shared_layers,
    take_statistics,
    training_batches,
    twins_of,
)
from tests.jobs import batches_of

SIDE = 8
SPEC = InputSpec(SIDE, SIDE, "squash", "bicubic", (0.5,) * 3, (0.25,) * 3)
CPU = torch.device("cpu")


def model_of(seed: int = 0, **kwargs: float) -> Classifier:
    torch.manual_seed(seed)
    return Classifier(CompactNet(widths=(4, 4, 8), **kwargs), SPEC)


def test_the_first_layer_equals_a_pass_by_hand_and_all_equal_torchs():
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


def test_dropout_is_not_at_work():
    with_drop, without = model_of(drop_rate=0.9), model_of()
    for model in (with_drop, without):
        estimate_statistics(model, batches_of(), CPU)
    for name, value in without.state_dict().items():
        assert torch.equal(with_drop.state_dict()[name], value)


def test_layers_that_are_kept_keep_what_they_know():
    model = model_of()
    before = copy.deepcopy(model.state_dict())
    estimate_statistics(model, batches_of(), CPU, keep=["stem.1"])
    after = model.state_dict()
    assert torch.equal(after["net.stem.1.running_mean"], before["net.stem.1.running_mean"])
    changed = [k for k in before if not torch.equal(before[k], after[k])]
    assert any(k.endswith("running_var") for k in changed)


def test_statistics_equal_in_all_files_are_found(tmp_path: Path):
    one, two = model_of(), model_of()
    two.net.stem[1].running_var += 1
    files = []
    for number, model in enumerate((one, two)):
        files.append(tmp_path / f"{number}.safetensors")
        save_file(model.net.state_dict(), files[-1])
    norms = {name for name, m in one.net.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert shared_layers(one.net, files) == norms - {"stem.1"}
    assert shared_layers(one.net, files[:1]) == norms


def test_a_net_without_batchnorm_reads_no_batch():
    def none():
        pytest.fail("a batch was read")
        yield {}

    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE**2, 1))
    assert not has_batchnorm(net)
    assert estimate_statistics(Classifier(net, SPEC), none(), CPU) == 0


class OneFrame:
    """Stands for a source of images, a frame each."""

    class numbers:  # noqa: N801
        @staticmethod
        def eval_rows(rows):
            return SimpleNamespace(rows=rows)


@pytest.mark.parametrize(
    ("items", "sizes"), [(1, [1]), (64, [64]), (65, [33, 32]), (130, [44, 43, 43]), (128, [64, 64])]
)
def test_no_batch_is_a_small_rest(monkeypatch, items, sizes):
    def batches(_source, _specs):
        class Batches:
            def __getitem__(self, rows):
                return {
                    "readable": torch.ones(len(rows), dtype=bool),
                    "pixels0": torch.tensor(rows),
                }

        return Batches()

    monkeypatch.setattr(batchnorm, "EvalBatches", batches)
    found = training_batches(OneFrame(), SimpleNamespace(spec=SPEC), np.arange(200), items, 0)
    assert [len(batch["pixels"]) for batch in found] == sizes
    assert len(torch.cat([batch["pixels"] for batch in found]).unique()) == items


def test_weights_of_one_file_are_known_whatever_their_statistics(tmp_path: Path):
    one, two = model_of(), model_of(1)
    files = []
    for number, model in enumerate((one, two)):
        files.append(tmp_path / f"{number}.safetensors")
        save_file(model.net.state_dict(), files[-1])
    merged = {
        key: value + 1 if "running" in key else value * (1 + 1e-7)
        if value.is_floating_point() else value
        for key, value in two.net.state_dict().items()
    }  # fmt: skip
    assert twins_of(one.net, merged, files) == files[1:]
    moved = merged | {"head.weight": merged["head.weight"] + 1e-3}
    assert twins_of(one.net, moved, files) == []
    estimate_statistics(two, batches_of(), CPU)
    save_file(two.net.state_dict(), files[1])
    take_statistics(one.net, files[1])
    theirs = two.net.state_dict()
    for key, value in one.net.state_dict().items():
        if "running" in key:
            assert torch.equal(value, theirs[key])
    assert not torch.equal(one.net.state_dict()["head.weight"], theirs["head.weight"])
