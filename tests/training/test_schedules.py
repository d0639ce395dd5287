"""Learning rates. Oracles: torch's and timm's schedulers, stepped beside ours."""

import pytest
import torch

from src.config import OptimConfig
from src.errors import UserError
from src.training.optim import SCHEDULES, make_schedule

STEPS, EACH = 40, 5


def config_of(name: str, **settings: float) -> OptimConfig:
    return OptimConfig(**{"schedule": name, "lr": 1e-2, "min_lr": 1e-6, **settings})  # type: ignore[arg-type]


def rates(config: OptimConfig, steps: int = STEPS) -> list[float]:
    schedule = make_schedule(config, steps, EACH)
    return [schedule.lr(step) for step in range(steps)]


def plain_optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-2)


def test_cosine_is_timms_and_touches_both_ends():
    from timm.scheduler.cosine_lr import CosineLRScheduler

    ours = rates(config_of("cosine", warmup_epochs=0))
    theirs = CosineLRScheduler(plain_optimizer(), STEPS, lr_min=1e-6, t_in_epochs=False)
    assert ours == pytest.approx([theirs._get_lr(step)[0] for step in range(STEPS)], rel=1e-9)
    assert ours[0] == 1e-2
    assert make_schedule(config_of("cosine"), STEPS, EACH).lr(STEPS) == pytest.approx(1e-6)


@pytest.mark.parametrize("name", ["cosine", "constant", "step", "plateau"])
def test_warmup_is_linear_and_ends_at_the_peak(name: str):
    ours = rates(config_of(name, warmup_epochs=1.6, decay_epochs=100))
    assert ours[:8] == pytest.approx([1e-2 * (step + 1) / 9 for step in range(8)])
    assert ours[8] == pytest.approx(1e-2)


@pytest.mark.parametrize("name", SCHEDULES.names())
def test_a_warmup_longer_than_the_stage_and_a_stage_of_one_step(name: str):
    for steps in (1, 2, 3):
        ours = rates(config_of(name, warmup_epochs=100), steps)
        assert all(0 < rate <= 1e-2 for rate in ours)


@pytest.mark.parametrize("name", SCHEDULES.names())
def test_min_lr_above_lr_never_raises_it(name: str):
    assert max(rates(config_of(name, min_lr=1.0))) <= 1e-2


def test_constant_stays():
    assert set(rates(config_of("constant", warmup_epochs=0))) == {1e-2}


def test_step_is_torchs_down_to_the_least():
    ours = rates(config_of("step", warmup_epochs=0, decay_epochs=3, decay_rate=0.1, min_lr=1e-9))
    optimizer = plain_optimizer()
    theirs = torch.optim.lr_scheduler.StepLR(optimizer, 3 * EACH, 0.1)
    for rate in ours:
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
    assert min(rates(config_of("step", decay_epochs=1, min_lr=1e-4))[5:]) == pytest.approx(1e-4)


@pytest.mark.parametrize("steps", [4, 7, 10, 40, 137])
def test_one_cycle_is_torchs(steps: int):
    ours = rates(config_of("one_cycle", warmup_epochs=3), steps)  # which it does not read
    optimizer = plain_optimizer()
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 1e-2, steps, cycle_momentum=False, final_div_factor=1e-2 / 25 / 1e-6
    )
    for number, rate in enumerate(ours):
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        if number + 1 < steps:
            theirs.step()


SCORES = [0.5, 0.6, 0.6, 0.59, 0.6, 0.60001, 0.7, 0.7, 0.7, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]


@pytest.mark.parametrize("patience", [1, 2, 3])
@pytest.mark.parametrize("sign", [1, -1])
def test_plateau_is_torchs_and_goes_on_from_its_state(patience: int, sign: int):
    config = config_of("plateau", decay_epochs=patience, decay_rate=0.3, warmup_epochs=0)
    ours, optimizer = make_schedule(config, 80, EACH), plain_optimizer()
    # torch scales its threshold by a negative best in the wrong direction: loss and mode min there.
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, "max" if sign > 0 else "min", 0.3, patience, min_lr=1e-6
    )
    for epoch, score in enumerate(SCORES):
        assert ours.lr(epoch * EACH) == pytest.approx(optimizer.param_groups[0]["lr"])
        ours.after_epoch(sign * score)
        theirs.step(score)
        resumed = make_schedule(config, 80, EACH)
        resumed.restore(ours.state())
        ours = resumed
    assert ours.lr(79) < 1e-2


def test_only_plateau_listens():
    for name in SCHEDULES.names():
        schedule = make_schedule(config_of(name, decay_epochs=1), STEPS, EACH)
        before = [schedule.lr(step) for step in range(STEPS)]
        for _ in range(5):
            schedule.after_epoch(0.5)
        after = [schedule.lr(step) for step in range(STEPS)]
        assert (after != before) == (name == "plateau")


def test_an_unknown_schedule():
    with pytest.raises(UserError, match="did you mean 'cosine'"):
        make_schedule(config_of("cosin"), STEPS, EACH)
