"""The mean of the last weights. Oracles: a mean by hand, and torch's own update_bn."""

import copy

import pytest
import torch
from torch.optim.swa_utils import update_bn

from src.config import InputSpec
from src.models.backbones.compact import CompactNet
from src.models.classifier import Classifier
from src.training.optim import WeightMean, settle_statistics
from tests.jobs import batches_of

SIDE = 8
SPEC = InputSpec(SIDE, SIDE, "squash", "bicubic", (0.5,) * 3, (0.25,) * 3)
CPU = torch.device("cpu")


def model_of(seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    return Classifier(CompactNet(widths=(4, 4, 8)), SPEC)


def test_it_is_the_plain_mean_of_the_last_epochs_also_when_it_goes_on_from_a_state(tmp_path):
    seen = [model_of(seed) for seed in range(5)]
    mean = WeightMean(seen[0], first=2)
    for epoch, model in enumerate(seen, 1):
        mean.after_epoch(model, epoch)
        torch.save(mean.state(), tmp_path / "state.pt")
        mean = WeightMean(model_of(9), first=2)
        mean.restore(torch.load(tmp_path / "state.pt", weights_only=True))  # noqa: TID251
    for name, got in mean.model.net.named_parameters():
        wanted = torch.stack([model.net.get_parameter(name) for model in seen[2:]]).mean(0)
        torch.testing.assert_close(got, wanted)


def test_statistics_are_those_of_torchs_update_bn():
    model, batches = model_of(), batches_of()
    model.train()
    for batch in batches[:1]:
        model(batch)
    model.eval()
    theirs = copy.deepcopy(model)
    update_bn(batches, theirs)
    before = [m.momentum for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    settle_statistics(model, batches, CPU, "fp32")
    wanted = theirs.state_dict()
    for name, got in model.state_dict().items():
        assert torch.equal(got, wanted[name]), name
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert [m.momentum for m in norms] == before
    assert not any(module.training for module in model.modules())


def test_frozen_layers_keep_what_they_know():
    model, batches = model_of(), batches_of()
    for name, parameter in model.net.named_parameters():
        parameter.requires_grad_(not name.startswith("stem"))
    before = {name: value.clone() for name, value in model.net.state_dict().items()}
    model.train()
    settle_statistics(model, batches, CPU, "fp32")
    after = model.net.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any(name.startswith("stages") for name in changed)
    assert not any(name.startswith("stem") for name in changed)
    assert model.net.stem[1].training  # as it was before


def test_a_net_without_batchnorm_reads_no_batch():
    def none():
        pytest.fail("a batch was read")
        yield {}

    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * SIDE**2, 1))
    settle_statistics(Classifier(net, SPEC), none(), CPU, "fp32")
