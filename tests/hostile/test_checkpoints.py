"""Damaged and dishonest weights. Pickles with code, truncated files, wrong keys and NaN in foreign
weights: tests/models/test_weights.py.
"""

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from src import paths
from src.errors import UserError
from src.models.checkpoint import load_checkpoint, save_state
from src.tensor_files import read_tensors
from tests.hostile.conftest import predict, train, tune

CPU = torch.device("cpu")


_MADE: dict[str, tuple[Path, Path]] = {}
Made = Callable[[str, Callable[[], Path]], Path]


@pytest.fixture
def made_once(toy, artefact_root, tmp_path_factory) -> Made:
    """Return `made_once(name, make)`: what `make` wrote for the first test, or a copy of it."""

    def made(name: str, make: Callable[[], Path]) -> Path:
        if name not in _MADE:
            path, kept = make(), tmp_path_factory.mktemp(name) / "root"
            shutil.copytree(artefact_root, kept)
            _MADE[name] = kept, path.relative_to(artefact_root)
        else:
            shutil.rmtree(artefact_root)  # its pictures are of another time
            shutil.copytree(_MADE[name][0], artefact_root)
        return artefact_root / _MADE[name][1]

    return made


@pytest.fixture
def trained(made_once: Made) -> Path:
    """Return the checkpoint of a finished training."""

    def make() -> Path:
        assert train("--fold", "0") == 0
        return paths.checkpoint("toy", "sgkf2_s42", "small", 0)

    return made_once("trained", make)


def change_header(path: Path, change) -> None:
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def first_tensor(header: dict) -> dict:
    return next(value for key, value in header.items() if key != "__metadata__")


LIES = {
    "offsets beyond the end": lambda h: first_tensor(h).update(data_offsets=[0, 2**40]),
    "offsets that overlap": lambda h: [v.update(data_offsets=[0, 4]) for k, v in h.items()
                                       if k != "__metadata__"],
    "a shape of 2^60": lambda h: first_tensor(h).update(shape=[2**30, 2**30]),
    "another dtype": lambda h: first_tensor(h).update(dtype="F64"),
    "no metadata": lambda h: h.pop("__metadata__"),
    "metadata that are no JSON": lambda h: h["__metadata__"].update(rvf="{"),
    "metadata of another kind": lambda h: h["__metadata__"].update(rvf="[1]"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_a_lying_header_is_refused(trained, lie):
    change_header(trained, LIES[lie])
    with pytest.raises(UserError, match=r"fold_0\.safetensors"):
        load_checkpoint(trained, CPU)


@pytest.mark.parametrize("length", [0, 5, 2**62, 2**64 - 1])
def test_a_header_longer_than_the_file(trained, length):
    trained.write_bytes(struct.pack("<Q", length) + trained.read_bytes()[8:])
    with pytest.raises(UserError, match=r"fold_0\.safetensors"):
        load_checkpoint(trained, CPU)


def edit_metadata(**changes):
    def change(header: dict) -> None:
        record = json.loads(header["__metadata__"]["rvf"])
        for key, value in changes.items():
            part, _, name = key.partition("__")
            record[part] = {**record[part], name: value} if name else value
        header["__metadata__"]["rvf"] = json.dumps(record)

    return change


@pytest.mark.parametrize(
    "changes",
    [
        {"input__image_size": -1}, {"input__canvas": 2}, {"input__canvas": 10**9},
        {"input__geometry": "melt"}, {"input__std": [0, 0, 0]}, {"input__mean": "x"},
        {"input": {}}, {"views": []}, {"views": 3}, {"config": 3}, {"config": {}}, {"format": 99},
        {"config__backbone": {"name": "no_such_net"}},
        {"config__backbone": {"name": "compact_net", "kwargs": {"widths": [4, 4, 16]}}},
    ],
)  # fmt: skip
def test_metadata_that_contradict_the_weights(trained, changes):
    change_header(trained, edit_metadata(**changes))
    with pytest.raises(UserError):
        load_checkpoint(trained, CPU)


def test_nan_in_our_own_weights_is_named_not_predicted_with(trained, tmp_path, toy, capsys):
    data = bytearray(trained.read_bytes())
    data[-4:] = struct.pack("<f", float("nan"))
    trained.write_bytes(data)
    with pytest.raises(UserError, match="holds NaN or infinity"):
        load_checkpoint(trained, CPU)
    from src.cli.predict import main

    out = tmp_path / "out.csv"
    asked = ["--checkpoint", trained, "--input-dir", toy / "test", "--output", out]
    assert main([*map(str, asked), "--device", "cpu"]) == 2
    assert not out.exists()
    assert tune() == 0
    assert predict() == 2  # not the file that the record speaks of
    assert "make fold 0 of small again" in capsys.readouterr().err


# --- the state of a half-done run


def make_state(path: Path) -> dict:
    rng = np.random.default_rng(0)
    state = {"a": torch.tensor(rng.normal(size=1000)), "epoch": 1}
    save_state(path, state)
    return state


def test_a_flipped_bit_in_a_state_is_noticed(tmp_path):
    """torch.load reads on over it, and the run would go on with other weights."""
    path = tmp_path / "s.pt"
    state = make_state(path)
    assert torch.equal(read_tensors(path, sealed=True)["a"], state["a"])
    data = bytearray(path.read_bytes())
    place = data.index(state["a"].numpy().tobytes()[:64]) + 30
    data[place] ^= 1
    path.write_bytes(data)
    assert not torch.equal(read_tensors(path)["a"], state["a"])
    with pytest.raises(UserError, match="checksum"):
        read_tensors(path, sealed=True)


@pytest.fixture
def half_done(made_once: Made) -> Path:
    """Train a fold and put back the state it had before its end."""
    return made_once("half_done", _make_half_done)


def _make_half_done() -> Path:
    path, kept = paths.run_state("toy", "sgkf2_s42", "small", 0), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "unlink", _keeping(path, kept))
        train("--fold", "0")
    path.write_bytes(kept[-1])
    paths.run_record("toy", "sgkf2_s42", "small", 0).unlink()
    return path


def _keeping(path: Path, kept: list[bytes]):
    plain = Path.unlink

    def unlink(self: Path, missing_ok: bool = False) -> None:
        if self == path and self.exists():
            kept.append(self.read_bytes())
        plain(self, missing_ok=missing_ok)

    return unlink


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda s: s.update(precision="fp16"), "begun in fp16, which wants a GPU"),
        (lambda s: s.pop("optimizer"), "not the state of a run"),
        (lambda s: s["model"].popitem(), "does not fit this run"),
        (lambda s: s.update(optimizer={}), "does not fit this run"),
        (lambda s: s.update(identity=7), "does not say what it was trained from"),
        (None, "checksum|not a readable weights file"),
    ],
)
def test_a_state_that_cannot_be_gone_on_from(half_done, capsys, change, match):
    path = half_done
    if change is None:
        path.write_bytes(path.read_bytes()[:-300])
    else:
        state = read_tensors(path)
        change(state)
        save_state(path, state)
    from src.cli.train import main

    asked = ["--data", "toy", "--model", "small", "--fold", "0", "--device", "cpu", "--no-report"]
    assert main(asked) == 2
    err = capsys.readouterr().err
    assert "--overwrite" in err
    assert any(word in err for word in match.split("|")), err
    assert main([*asked, "--overwrite", "--precision", "fp32"]) == 0
