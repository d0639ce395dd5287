"""Which of several versions of weights is taken, by both readers."""

import logging

import pytest
import torch
from safetensors.torch import save_file

from src.errors import UserError
from src.merging.sources import open_source
from src.tensor_files import read_tensors, state_dict_of
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
        ({"model": state(1), "ema": {"shadow": state(2), "decay": 0.9}}, 2, "'ema' the average"),
        ({"model": state(1), "model_ema": {"module": state(2)}}, 2, "'model_ema' the average"),
        ({"net": state(1), "net_ema": state(2)}, 2, "'net_ema' the average"),
        (
            {"net": state(1), "swa_model": prefixed("module.", 2) | {"n_averaged": torch.ones(1)}},
            2, "'swa_model' the average",
        ),
        ({"module": state(2), "epoch": 1}, 2, ""),
        ({"student": state(1), "teacher": state(2)}, 2, "the teacher is taken, the student's aver"),
        (
            {"student": state(1) | {"mask": torch.ones(1)}, "teacher": prefixed("module.", 2)},
            2, "the teacher is taken",
        ),
        (
            {"student": state(1), "teacher": {"b.weight": torch.ones(2)}},
            1, "the student is taken, for its teacher is another net",
        ),
        ({"student": state(1), "optimizer": {}}, 1, ""),
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


# --- weights in parts ---


def parts(**changes: torch.Tensor | None) -> dict[str, torch.Tensor]:
    found = {
        "a.weight_main": torch.ones(3, 2), "a.U_residual": torch.full((3, 1), 2.0),
        "a.S_residual": torch.tensor([10.0]), "a.V_residual": torch.tensor([[1.0, 3.0]]),
        "a.bias": torch.zeros(3), "a.U_r": torch.ones(3, 1), "b.weight_main": torch.ones(1, 1),
    }  # fmt: skip
    found |= {f"a.{name}": value for name, value in changes.items()}
    return {key: value for key, value in found.items() if value is not None}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_both_readers_put_singular_values_back(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    torch.save(parts(), path) if suffix == ".pth" else save_file(parts(), path)
    source, whole = open_source(path), state_dict_of(read_tensors(path), path)
    assert set(source.names) == set(whole) == {"a.weight", "a.bias", "b.weight"}
    for weight in (source.read("a.weight"), whole["a.weight"]):
        assert weight.tolist() == [[21.0, 61.0]] * 3  # 1 + 2 * 10 * 1, 1 + 2 * 10 * 3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"S_residual": None}, "a lacks some of U_residual, S_residual, V_residual"),
        ({"V_residual": torch.ones(1, 5)}, "the parts of a do not fit together"),
    ],
)
def test_parts_that_do_not_belong_together(tmp_path, changes, words):
    torch.save(parts(**changes), tmp_path / "a.pth")
    for read in (lambda path: state_dict_of(read_tensors(path), path), open_source):
        with pytest.raises(UserError, match=words):
            read(tmp_path / "a.pth")
