"""Mean and std that came with a file. Oracle: the numbers themselves."""

import dataclasses

import pytest
import torch

from src.config import BackboneConfig, InputConfig, ModelConfig
from src.models.classifier import build_classifier
from src.models.weights import Start, carry_input

MEAN, STD = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]


def model_of(**inputs: object):
    config = ModelConfig(BackboneConfig("compact_net"), InputConfig(image_size=32, **inputs))  # type: ignore[arg-type]
    return build_classifier(config)[0], config


def seen_by(model) -> torch.Tensor:
    seen = []
    model.net.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model({"pixels": torch.full((1, 32, 32, 3), 51, dtype=torch.uint8)})
    return seen[0][0, :, 0, 0]


def test_an_open_config_takes_what_came_with_the_file():
    model, config = model_of()
    carry_input(model, config, Start("file", mean=MEAN, std=STD))
    assert (model.spec.mean, model.spec.std) == (tuple(MEAN), tuple(STD))
    wanted = [(0.2 - mean) / std for mean, std in zip(MEAN, STD, strict=True)]
    torch.testing.assert_close(seen_by(model), torch.tensor(wanted))


def test_a_config_that_says_otherwise_wins_and_the_log_says_so(caplog):
    model, config = model_of(mean=(0.5, 0.5, 0.5))
    caplog.set_level("INFO", "rvf")
    carry_input(model, config, Start("file", "w.pth", mean=MEAN, std=STD))
    assert (model.spec.mean, model.spec.std) == ((0.5, 0.5, 0.5), tuple(STD))
    assert "w.pth was trained with mean 0.1, 0.2, 0.3; the config's mean" in caplog.text
    assert "std" not in caplog.text
    torch.testing.assert_close(seen_by(model)[0], torch.tensor((0.2 - 0.5) / 0.4))


def test_a_config_that_says_the_same_is_no_news(caplog):
    model, config = model_of(mean=tuple(MEAN), std=tuple(STD))
    caplog.set_level("INFO", "rvf")
    carry_input(model, config, Start("file", mean=MEAN, std=STD))
    assert caplog.text == ""


@pytest.mark.parametrize("start", [Start("random"), Start("hub", "x"), Start("file", "w.pth")])
def test_without_mean_and_std_nothing_changes(start):
    model, config = model_of()
    before = dataclasses.asdict(model.spec)
    carry_input(model, config, start)
    assert dataclasses.asdict(model.spec) == before
