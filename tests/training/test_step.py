"""One optimizer step. Oracles: equations 2 and 3 of the SAM paper by hand, and a whole batch."""

import copy

import pytest
import torch
from torch import nn

from src.config import parse_model
from src.errors import UserError
from src.losses import asked_terms, total_loss
from src.models.classifier import build_classifier
from src.models.strategies import Stage
from src.training.run import Run
from src.training.step import Step, check_step
from tests.jobs import batches_of as pixels_of

SIDE = 12


def config_of(**changes):
    net = {"name": "compact_net", "pretrained": "none", "kwargs": {"widths": [4, 4, 8]}}
    return parse_model({"backbone": net, "input": {"image_size": SIDE}} | changes, "test")


def run_of(config):
    torch.manual_seed(0)
    model, _ = build_classifier(config)
    model.train()
    scaler = torch.amp.grad_scaler.GradScaler("cpu", enabled=False)
    stages = [Stage("all", frozenset(), config.optim)]
    run = Run(None, model, ("head",), stages, "fp32", scaler, steps=1)
    run.optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run.active = model
    return run


def added(run, config, *batches):
    """Return a step to which the gradients of some batches were added."""
    asked = {"also": ("features",)} if asked_terms(config.loss) else {}

    def loss(batch):
        return total_loss(batch, run.active(batch, **asked), config.loss, torch.ones(2))

    step = Step(run, loss, len(batches))
    for batch in batches:
        assert torch.isfinite(step.add(batch))
    return step


def batches_of(count, size=8, side=SIDE):
    labels = {"label": torch.arange(size) % 2, "item": torch.arange(size)}
    return [batch | labels for batch in pixels_of(count, side, size)]


def weights_of(model):
    return [parameter.detach().clone() for parameter in model.parameters()]


@pytest.mark.parametrize("clip", [None, 0.05])
@pytest.mark.parametrize("count", [1, 3])
def test_sam_is_equations_2_and_3(clip, count):
    """w - lr g(w + rho g / |g|), over batches that were added up, clipped behind the second."""
    rho = 0.3
    config = config_of(optim={"sam_rho": rho, "clip_grad": clip, "accumulate": count})
    run, batches = run_of(config), batches_of(count)
    first = copy.deepcopy(run.model)
    start = weights_of(first)

    def slopes(model):
        model.zero_grad()
        for batch in batches:
            loss = total_loss(batch, model(batch), config.loss, torch.ones(2))
            (loss / count).backward()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    slope = slopes(first)
    norm = torch.stack([s.square().sum() for s in slope]).sum().sqrt()
    with torch.no_grad():
        for parameter, s in zip(first.parameters(), slope, strict=True):
            parameter.add_(rho * s / norm)
    sharp = slopes(first)
    if clip is not None:
        size = torch.stack([s.square().sum() for s in sharp]).sum().sqrt()
        assert size > clip
        sharp = [s * clip / size for s in sharp]
    wanted = [w - 0.1 * s for w, s in zip(start, sharp, strict=True)]

    assert added(run, config, *batches).make(0)
    torch.testing.assert_close(weights_of(run.model), wanted, rtol=1e-4, atol=1e-6)


def test_sam_counts_batchnorm_statistics_once():
    config = config_of(optim={"sam_rho": 0.5})
    plain_config = config_of(optim={})
    sharp, plain = run_of(config), run_of(plain_config)
    batch = batches_of(1)[0]
    assert added(sharp, config, batch).make(0)
    added(plain, plain_config, batch)
    buffers = dict(plain.model.named_buffers())
    assert any("running_mean" in name for name in buffers)
    for name, buffer in sharp.model.named_buffers():
        assert torch.equal(buffer, buffers[name]), name
    norms = [m for m in sharp.model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(m.track_running_stats for m in norms)


def test_sam_in_pieces_is_sam_whole_where_no_batchnorm_sees_the_pieces():
    config = config_of(
        optim={"sam_rho": 0.3}, backbone={"name": "test_vit", "pretrained": "none"},
        input={"image_size": 160},
    )  # fmt: skip
    (batch,) = batches_of(1, 4, 160)
    results = []
    for pieces in (0, 2):
        run = run_of(config)
        run.micro_batch = pieces
        assert added(run, config, batch).make(0)
        results.append(weights_of(run.model))
    torch.testing.assert_close(*results, rtol=1e-3, atol=1e-6)


def test_a_neighbourhood_that_is_not_finite_makes_no_step():
    config = config_of(optim={"sam_rho": 1e30})
    run = run_of(config)
    before = weights_of(run.model)
    assert not added(run, config, *batches_of(1)).make(0)
    assert all(map(torch.equal, weights_of(run.model), before))


def test_frozen_weights_stay_where_sam_looks_around():
    config = config_of(optim={"sam_rho": 0.3})
    run = run_of(config)
    for name, parameter in run.model.net.named_parameters():
        parameter.requires_grad_(name.startswith("head"))
    before = {name: p.detach().clone() for name, p in run.model.net.named_parameters()}
    assert added(run, config, *batches_of(1)).make(0)
    moved = {n for n, p in run.model.net.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {"head.weight", "head.bias"}


def test_terms_on_features_reach_the_backbone():
    slopes = []
    for uniformity in (0.0, 5.0):
        config = config_of(loss={"uniformity": uniformity})
        run = run_of(config)
        added(run, config, *batches_of(1))
        slopes.append(run.model.net.stem[0].weight.grad)
    assert (slopes[0] - slopes[1]).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        ({"optim": {"sam_rho": 0.1}}, ("fp16", 0, False), "sam_rho .* --precision bf16"),
        ({"loss": {"supcon": 0.1}}, ("bf16", 8, False), "loss.supcon look at all pairs"),
        ({"loss": {"alignment": 0.1}}, ("bf16", 0, True), "leave --compile out"),
    ],
)
def test_what_a_step_cannot_do_is_refused(changes, arguments, message):
    precision, micro_batch, compiled = arguments
    with pytest.raises(UserError, match=message):
        check_step(config_of(**changes), precision, micro_batch, compiled=compiled)
    check_step(config_of(), precision, micro_batch, compiled=compiled)
