"""Values beside weights. Oracle: the values themselves; of what is refused, a mark that stays."""

import argparse
import datetime
import decimal
import os
import pathlib
import pickle
import sys
import types
from collections import Counter, OrderedDict, defaultdict, deque
from fractions import Fraction

import numpy as np
import pytest
import torch

from src.errors import UserError
from src.merging.sources import open_source
from src.tensor_files import read_tensors, state_dict_of

UTC = datetime.UTC
VALUES = {
    "float64": np.float64(0.25), "float32": np.float32(0.25), "int64": np.int64(-3),
    "bool": np.bool_(True), "text": np.str_("abc"), "array": np.arange(6.0).reshape(2, 3),
    "columns": np.asfortranarray(np.arange(6).reshape(2, 3)), "swapped": np.arange(3, dtype=">i4"),
    "words": np.array(["a", "bc"]), "path": pathlib.Path("a/b.pth"),
    "other path": pathlib.PureWindowsPath("c:/x"), "date": datetime.date(2026, 1, 2),
    "moment": datetime.datetime(2026, 1, 2, 3, tzinfo=UTC), "span": datetime.timedelta(hours=1.5),
    "decimal": decimal.Decimal("1.50"), "fraction": Fraction(1, 3), "counter": Counter("aab"),
    "default": defaultdict(list, {"auc": [0.5, np.float64(0.7)]}), "ordered": OrderedDict(a=1),
    "arguments": argparse.Namespace(lr=0.1, out=pathlib.Path("x")), "set": {1, 2},
    "simple": types.SimpleNamespace(a=1), "frozen": frozenset({1}), "complex": 1 + 2j,
    "size": torch.Size([1, 2]), "device": torch.device("cpu"), "dtype": torch.float16,
    "bytes": b"ab", "random state": np.random.RandomState(0).get_state()[1],
}  # fmt: skip


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("zipped", [True, False])
def test_what_training_scripts_keep_beside_weights(tmp_path, name, zipped):
    value, path = VALUES[name], tmp_path / "a.pth"
    content = {"model": {"w": torch.ones(2)}, "best": value, "log": [{"x": value}]}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    read = read_tensors(path)
    for found in (read["best"], read["log"][0]["x"]):
        assert np.array_equal(found, value) if isinstance(value, np.ndarray) else found == value
    assert torch.equal(state_dict_of(read, path)["w"], torch.ones(2))
    assert open_source(path).names == ["w"]


def test_a_deque_is_read_as_a_list(tmp_path):
    torch.save({"w": torch.ones(2), "last": deque([1, 2], maxlen=5)}, tmp_path / "a.pth")
    assert read_tensors(tmp_path / "a.pth")["last"] == [1, 2]


@pytest.mark.parametrize("name", ["easydict.EasyDict", "yacs.config.CfgNode"])
def test_settings_of_packages_that_are_not_here(tmp_path, monkeypatch, name):
    module, _, kind = name.rpartition(".")
    settings = type(kind, (dict,), {"__module__": module})
    for part in {module.partition(".")[0], module}:
        monkeypatch.setitem(sys.modules, part, types.ModuleType(part))
    setattr(sys.modules[module], kind, settings)
    config = settings(lr=0.1)
    config.frozen = True
    torch.save({"w": torch.ones(2), "config": config}, tmp_path / "a.pth")
    monkeypatch.undo()
    assert read_tensors(tmp_path / "a.pth")["config"] == {"lr": 0.1}


RAN: list[str] = []


def mark(*_: object) -> None:
    RAN.append("ran")


class Calls:
    """Calls something when it is unpickled."""

    def __init__(self, function, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Own:
    pass


def with_factory() -> defaultdict:
    return defaultdict(mark, {"a": 1})


REFUSED = {
    "a function of the file's": (lambda: Calls(mark), "mark"),
    "one within an array": (lambda: np.array([Calls(mark)], dtype=object), "numpy.dtype"),
    "one that fills a dict": (with_factory, "mark"),
    "one in the arguments": (lambda: argparse.Namespace(f=Calls(mark)), "mark"),
    "a command": (lambda: Calls(os.system, "true"), "posix.system"),
    "eval": (lambda: Calls(eval, f"__import__('{__name__}').mark()"), "eval"),
    "getattr": (lambda: Calls(getattr, argparse.Namespace(), "x"), "getattr"),
    "a class of the user's": (Own, "Own"),
    "several fields": (lambda: np.zeros(2, dtype=[("a", "f4"), ("b", "i4")]), "numpy.dtype"),
    "a module": (lambda: torch.nn.Linear(1, 1), "Linear"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("zipped", [True, False])
def test_what_could_run_code_is_refused_by_both_readers_alike(tmp_path, name, zipped):
    make, named = REFUSED[name]
    content = {"model": {"w": torch.ones(2)}, "x": make()}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    words = []
    for read in (read_tensors, open_source):
        with pytest.raises(UserError, match="could run code") as caught:
            read(tmp_path / "a.pth")
        words.append(str(caught.value))
    assert words[0] == words[1]
    assert named in words[0]
    assert "ask its author for a .safetensors file" in words[0]
    assert RAN == []


def test_those_marks_would_have_been_left():
    pickle.loads(pickle.dumps(Calls(mark)))
    assert RAN.pop() == "ran"


@pytest.mark.parametrize("state", [(1, (9,)), (1, (1, 2)), (0, (2,))])
def test_an_array_cannot_be_larger_than_its_bytes(tmp_path, state):
    kind, shape = state

    class Lying:
        def __reduce__(self):
            dtype = np.dtype("f8") if kind else np.dtype("f4")
            make = np._core.multiarray._reconstruct  # type: ignore[attr-defined]
            return make, (np.ndarray, (0,), b"b"), (1, shape, dtype, False, bytes(8 if kind else 4))

    torch.save({"w": torch.ones(2), "x": Lying()}, tmp_path / "a.pth")
    with pytest.raises(UserError, match="not a readable weights file"):
        read_tensors(tmp_path / "a.pth")
