"""Which of several versions of weights is taken, by both readers."""

import logging

import pytest
import torch

from src.merging.sources import open_source
from src.models.tensors import state_dict_of
from src.tensor_files import read_tensors
from src.wrappers import find_weights


def state(value: float) -> dict[str, torch.Tensor]:
    return {"a.weight": torch.full((2, 2), value), "a.bias": torch.full((2,), value)}


def prefixed(prefix: str, value: float) -> dict[str, torch.Tensor]:
    return {prefix + key: tensor for key, tensor in state(value).items()}


@pytest.mark.parametrize(
    ("content", "taken", "said"),
    [
        ({"state_dict": state(1), "state_dict_ema": state(2)}, 2, "'state_dict_ema' the average"),
        ({"model": state(1), "model_ema": prefixed("module.", 2)}, 2, "'model_ema' the average"),
        ({"model": state(1), "ema": {"module": 0, "model": state(2)}}, 2, "'ema' the average"),
        (
            {"model": state(1), "ema": prefixed("module.", 2) | {"n_averaged": torch.tensor(3)}},
            2, "'ema' the average",
        ),
        ({"model": state(1), "ema": {"shadow": state(2)}}, 1, ""),
        ({"model": state(1), "ema": {"a.weight": torch.ones(2, 2)}}, 1, "'ema' are others"),
        ({"model": state(1), "ema": None, "model_ema": {}}, 1, ""),
        ({"checkpoint": {"model": state(1), "model_ema": state(2)}}, 2, "'model_ema' the average"),
        ({"state_dict_ema": state(2), "epoch": 3}, 2, ""),
        (prefixed("module.", 2) | {"n_averaged": torch.tensor(3)}, 2, ""),
    ],
)  # fmt: skip
def test_the_moving_average_is_taken_and_said(tmp_path, caplog, content, taken, said):
    caplog.set_level(logging.INFO, "rvf")
    path = tmp_path / "a.pth"
    torch.save(content, path)
    read = read_tensors(path)
    assert state_dict_of(read, path)["a.bias"].tolist() == [taken, taken]
    assert said in find_weights(read, path).note
    source = open_source(path)
    assert source.read("a.bias").tolist() == [taken, taken]
    assert said in caplog.text
    assert bool(said) == bool(caplog.text)
