"""Odd files of tensors, by both readers. Oracles: plain torch and safetensors."""

import contextlib
import io
import json
import pickle
import re
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from src.errors import UserError
from src.merging.sources import open_source
from src.tensor_files import read_tensors, state_dict_of

TENSORS = {f"layer{i}.weight": torch.full((3, 4), float(i)) for i in range(4)}


def by_models(path: Path) -> dict[str, torch.Tensor]:
    return state_dict_of(read_tensors(path), path)


def by_merging(path: Path) -> dict[str, torch.Tensor]:
    source = open_source(path)
    return {name: source.read(name) for name in source.names}


def refused_alike(path: Path) -> str:
    words = []
    for read in (by_models, by_merging):
        with pytest.raises(UserError) as caught:
            read(path)
        words.append(str(caught.value))
    assert words[0] == words[1]
    assert "\n" not in words[0]
    return words[0]


def itself() -> dict:
    content: dict = {"w": torch.ones(3)}
    content["self"] = content
    return content


def under_a_wrapper() -> dict:
    content: dict = {"w": torch.ones(3)}
    content["state_dict"] = content
    return content


def through_a_list() -> dict:
    content: dict = {"w": torch.ones(3), "log": []}
    content["log"].append(content)
    return content


def many_times() -> dict:
    content: dict = {}
    for _ in range(40):
        content = {"a": content, "b": content}
    return {"w": torch.ones(3), "tree": content}


@pytest.mark.parametrize("make", [itself, under_a_wrapper, through_a_list, many_times])
def test_containers_within_themselves(tmp_path, make):
    torch.save(make(), tmp_path / "a.pth")
    assert "or hold themselves; save the state dict alone" in refused_alike(tmp_path / "a.pth")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: torch.eye(3).to_sparse(), r"is sparse_coo: want .* tensor\.to_dense"),
        (lambda: torch.eye(3).to_sparse_csr(), "is sparse_csr"),
        (lambda: torch.nested.nested_tensor([torch.ones(1), torch.ones(2)]), "is nested"),
        (lambda: torch.empty(3, device="meta"), "has no values"),
        (lambda: torch.ones(1).expand(10**12), r"has the shape \(1000000000000,\), more"),
    ],
)
def test_tensors_without_plain_values(tmp_path, make, kind):
    torch.save({"model": {"w": torch.ones(3), "odd": make()}}, tmp_path / "a.pth")
    message = refused_alike(tmp_path / "a.pth")
    assert re.search(f"tensor 'odd' {kind}", message)


@pytest.mark.parametrize("kept", [None, 8])
@pytest.mark.parametrize("which", ["data/0", "data/1"])
def test_values_that_are_not_in_the_file(tmp_path, kept, which):
    torch.save({"w": torch.ones(300), "v": torch.ones(500)}, tmp_path / "whole.pth")
    with (
        zipfile.ZipFile(tmp_path / "whole.pth") as old,
        zipfile.ZipFile(tmp_path / "a.pth", "w") as new,
    ):
        for name in old.namelist():
            if not name.endswith(which):
                new.writestr(name, old.read(name))
            elif kept is not None:
                new.writestr(name, old.read(name)[:kept])
    for read in (by_models, by_merging):
        with pytest.raises(UserError, match=r"a\.pth: not a readable weights file"):
            read(tmp_path / "a.pth")


def test_arrays_of_numpy_in_place_of_tensors(tmp_path):
    torch.save({"w": torch.ones(2, 3).numpy(), "n": torch.ones(1).numpy()}, tmp_path / "a.pth")
    for read in (by_models, by_merging):
        assert torch.equal(read(tmp_path / "a.pth")["w"], torch.ones(2, 3))


# --- what is no file of tensors ---


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_or_empty_file(tmp_path, suffix, kept):
    path = tmp_path / f"w{suffix}"
    save_file(TENSORS, path) if suffix == ".safetensors" else torch.save(TENSORS, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    assert "not a readable weights file, perhaps truncated" in refused_alike(path)


@pytest.mark.parametrize(
    "data",
    [b"<!DOCTYPE html>", b"hello", b"PK\x03\x04", b"\x80\x02}q.", pickle.dumps({"a": 1}), bytes(9)],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_that_is_something_else(tmp_path, data, suffix):
    path = tmp_path / f"w{suffix}"
    path.write_bytes(data)
    with pytest.raises(UserError) as caught:
        by_models(path)
    assert str(path) in str(caught.value)
    assert "weights_only" not in str(caught.value)  # torch's advice to switch the safety off


@pytest.mark.parametrize("content", [torch.ones(3), [torch.ones(3)], None, {}, {"model": {}}, 3])
def test_a_file_without_named_tensors(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(UserError, match="holds"):
        by_models(tmp_path / "w.pth")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_tensor_that_is_not_finite_is_named(tmp_path, value):
    torch.save(TENSORS | {"bn1.weight": torch.tensor([0.0, value])}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"'bn1\.weight' holds NaN or infinity"):
        by_models(tmp_path / "w.pth")


def test_missing_file_and_folder(tmp_path):
    assert "no such weights file" in refused_alike(tmp_path / "none.pth")
    assert "is a folder, want a weights file (there is none in it)" in refused_alike(tmp_path)
    for name in ("model.safetensors", "a.pth", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    assert "(one in it: a.pth, model.safetensors)" in refused_alike(tmp_path)


def checkpoint_bytes(*, zipped: bool) -> bytes:
    file = io.BytesIO()
    tensors = {"a": torch.ones(4), "b": torch.zeros(2, 2)}
    torch.save({"model": tensors}, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


GOOD = {zipped: checkpoint_bytes(zipped=zipped) for zipped in (True, False)}


@given(
    st.booleans(),
    st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 255)), min_size=1, max_size=4),
    st.binary(max_size=40) | st.none(),
)
def test_damaged_bytes_are_a_user_error(tmp_path_factory, zipped, changes, instead):
    data = bytearray(GOOD[zipped])
    for place, value in changes:
        data[place % len(data)] = value
    path = tmp_path_factory.getbasetemp() / "damaged.pth"
    path.write_bytes(data if instead is None else b"\x80\x02" + instead)
    with contextlib.suppress(UserError):
        assert set(by_models(path)) == {"a", "b"}


# --- shards ---


def sharded(folder: Path, suffix: str = ".safetensors") -> Path:
    names = [f"model-0000{i}-of-00002{suffix}" for i in (1, 2)]
    halves = [dict(list(TENSORS.items())[i::2]) for i in (0, 1)]
    for name, half in zip(names, halves, strict=True):
        save_file(half, folder / name) if suffix == ".safetensors" else torch.save(
            half, folder / name
        )
    index = folder / f"model{suffix}.index.json"
    files = {key: name for name, half in zip(names, halves, strict=True) for key in half}
    index.write_text(json.dumps({"metadata": {"total_size": 192}, "weight_map": files}))
    return index


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_an_index_leads_to_its_shards(tmp_path, suffix):
    index = sharded(tmp_path, suffix)
    for read in (by_models, by_merging):
        found = read(index)
        assert set(found) == set(TENSORS)
        assert all(torch.equal(found[key], TENSORS[key]) for key in TENSORS)


def test_a_shard_is_named_as_one_and_the_index_with_it(tmp_path):
    index = sharded(tmp_path)
    shard = tmp_path / "model-00002-of-00002.safetensors"
    message = refused_alike(shard)
    assert "shard 2 of 2, a part of the weights" in message
    assert message.endswith(f"{index}")
    index.unlink()
    assert refused_alike(shard).endswith("(not there yet: it comes with the shards)")
    only = tmp_path / "model-00001-of-00001.safetensors"
    save_file(TENSORS, only)
    assert set(by_models(only)) == set(by_merging(only)) == set(TENSORS)


def test_a_lost_shard_and_a_damaged_index(tmp_path):
    index = sharded(tmp_path)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    assert "its shard model-00002-of-00002.safetensors is not beside it" in refused_alike(index)
    for text in ("{", "[]", '{"weight_map": 3}', '{"weight_map": {"a": "../other.safetensors"}}'):
        index.write_text(text)
        assert str(index) in refused_alike(index)


def test_a_tensor_that_is_in_no_shard(tmp_path):
    index = sharded(tmp_path)
    content = json.loads(index.read_text())
    content["weight_map"]["more.weight"] = "model-00001-of-00002.safetensors"
    index.write_text(json.dumps(content))
    for read in (by_models, by_merging):
        with pytest.raises(UserError, match=r"'more\.weight'"):
            read(index)
