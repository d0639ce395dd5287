"""Files of weights: what is taken out of them, what is refused."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from src.errors import UserError
from src.merging.sources import open_source
from tests.merging.cases import state


def _write_evil(path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return os.system, ("true",)

    torch.save({"state_dict": {"w": torch.ones(1)}, "more": Evil()}, path)


def _write_program(path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("gone.pth", lambda p: None, "no such weights file"),
        ("a.txt", lambda p: p.write_text("x"), "one of .safetensors"),
        ("a.safetensors", lambda p: p.write_bytes(b"12345678" * 9), "not a readable weights file"),
        ("a.pth", lambda p: p.write_bytes(b"nothing"), "not a readable weights file"),
        ("a.bin", lambda p: torch.save([1], p), "holds a list"),
        ("a.pt", lambda p: torch.save({"epoch": 3}, p), "holds no tensors; its keys are"),
        ("e.pth", _write_evil, "could run code"),
        ("j.pt", _write_program, "a TorchScript archive is a program"),
    ],
)  # fmt: skip
def test_unreadable_files_are_refused(tmp_path, name, make, message):
    make(tmp_path / name)
    with pytest.raises(UserError) as caught:
        open_source(tmp_path / name)
    assert message in str(caught.value)


@pytest.mark.parametrize("legacy", [False, True])
def test_torch_files_are_read_mapped_or_not(tmp_path, legacy):
    path = tmp_path / "a.pth"
    torch.save({"state_dict": state(1)}, path, _use_new_zipfile_serialization=not legacy)
    source = open_source(path)
    assert all(torch.equal(source.read(name), tensor) for name, tensor in state(1).items())


def _saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def _same(path: Path, seed: int) -> bool:
    source, want = open_source(path), state(seed)
    return source.names == list(want) and all(torch.equal(source.read(n), want[n]) for n in want)


OPTIMIZER = {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]}


@pytest.mark.parametrize(
    "content",
    [
        {"net": state(1), "acc": torch.tensor(93.1), "epoch": 3},
        {"network": state(1), "optimizer": OPTIMIZER, "lrSchedulers": [OPTIMIZER]},
        {"weights": state(2), "ema_state_dict": state(1), "fp16_scaler": {"x": torch.ones(1)}},
        {"checkpoint": {"model": state(2), "model_ema": state(1)}},
        {"teacher": state(1), "student": state(2), "dino_loss": {"center": torch.ones(1, 9)}},
        {**state(1), "optimizer": OPTIMIZER, "epoch": torch.tensor(3), "best_acc1": torch.ones(1)},
        {**state(1), "epoch": torch.tensor(3), "arch": "resnet"},
    ],
)  # fmt: skip
def test_the_weights_are_found_among_what_a_script_saved(tmp_path: Path, content: dict) -> None:
    assert _same(_saved(tmp_path / "a.pth", content), 1)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"encoder": state(1), "head": state(2), "scale": torch.ones(())}, "'encoder', 'head'"),
        ({"encoder": state(1), "head": state(2)}, "'encoder', 'head'"),
        ({"model": state(1), "head": {"weight": torch.ones(1, 4)}}, "'head'"),
        ({"model": state(1), "head": {"p": torch.ones(4), "q": torch.ones(4)}}, "'head'"),
        ({"model": state(1), "parts": {"head": {"bias": torch.ones(1)}}}, "'parts'"),
        ({"my_net": state(1), "center": torch.ones(2)}, "'my_net'"),
        ({"best": state(1), "center": torch.ones(2)}, "'best'"),
        ({"my_net": {"state": state(1)}, "center": torch.ones(2)}, "'my_net'"),
        ({"state_dict": {"backbone": state(1), "scale": torch.ones(2)}}, "'backbone'"),
    ],
)  # fmt: skip
def test_a_part_of_a_model_is_not_taken_for_the_whole(tmp_path, content, named) -> None:
    with pytest.raises(UserError, match=f"tensors under {named}; save the state dict alone"):
        open_source(_saved(tmp_path / "a.pth", content))


@pytest.mark.parametrize(
    "beside",
    [
        {"opt": OPTIMIZER},
        {"opt_state": OPTIMIZER["state"][0]},
        {"adam": OPTIMIZER},
        {"worker": {"param_groups": [], "weight": torch.ones(3)}},
        {"worker": {"state": {0: {"weight": torch.ones(3)}}}},
        {"train_losses": [torch.tensor(0.5), torch.tensor(0.4)]},
        {"val_accs": [torch.tensor(0.5)], "val_acc": torch.tensor(0.5)},
        {"accuracies": [torch.ones(2), torch.ones(2)]},
        {"results": {"auc": torch.tensor(0.9), "curve": {"x": torch.ones(2), "y": torch.ones(2)}}},
        {"best_model": state(2)},
        {"copy": {f"module.{key}": value for key, value in state(2).items()}},
        {"best_state_dict": {"weight": torch.ones(2)}},
        {"normalize": {"mean": torch.ones(3), "std": torch.ones(3)}},
        {"extra_state": {"metrics": {"x": torch.tensor(1.0)}, "clock": {"t": torch.ones(2)}}},
        {"message_hub": {"log": torch.tensor(1.0)}, "train_state": {"o": torch.tensor(1.0)}},
    ],
    ids=lambda beside: next(iter(beside)),
)
@pytest.mark.parametrize("wrapper", ["model", "state_dict", ""])
def test_what_is_no_state_dict_may_lie_beside(tmp_path: Path, beside: dict, wrapper: str) -> None:
    content = {wrapper: state(1), **beside} if wrapper else {**state(1), **beside}
    content.pop("val_acc" if not wrapper else "", None)
    assert _same(_saved(tmp_path / "a.pth", content), 1)


def test_a_number_of_the_net_itself_is_no_counter(tmp_path: Path) -> None:
    content = {"step": torch.tensor(3), "logit_scale": torch.ones(()), "w": torch.ones(2)}
    assert open_source(_saved(tmp_path / "a.pth", content)).names == list(content)
    content["args"] = {"lr": 0.1}
    assert open_source(_saved(tmp_path / "b.pth", content)).names == ["logit_scale", "w"]


@pytest.mark.parametrize("prefix", ["module.", "module._orig_mod."])
def test_prefixes_come_off_both_kinds_of_files(tmp_path: Path, prefix: str) -> None:
    named = {prefix + name: tensor for name, tensor in state(1).items()}
    save_file(named, tmp_path / "a.safetensors")
    _saved(tmp_path / "a.pth", named)
    one, other = open_source(tmp_path / "a.safetensors"), open_source(tmp_path / "a.pth")
    assert set(one.names) == set(other.names) == set(state(1))
    assert all(torch.equal(one.read(name), other.read(name)) for name in one.names)
    assert one.kinds["head.weight"].shape == (1, 4)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: torch.ones(3).to(torch.float8_e4m3fn), "float8_e4m3fn"),
        (lambda: torch.ones(3, dtype=torch.complex64), "complex64"),
        (lambda: torch.ones(3, dtype=torch.uint16), "uint16"),
        (lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8), "qint8"),
    ],
)  # fmt: skip
def test_tensors_that_nothing_merges_are_refused(tmp_path: Path, make, kind: str) -> None:
    path = _saved(tmp_path / "a.pth", {"w": torch.ones(3), "odd": make()})
    with pytest.raises(UserError, match=rf"a\.pth: tensor 'odd' is {kind}.*, which nothing merges"):
        open_source(path)
