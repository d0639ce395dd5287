"""Weights from elsewhere. Oracles: plain torch and timm, on files made here."""

import argparse
import contextlib
import hashlib
import http.server
import io
import json
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from huggingface_hub import constants
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from src.config import BackboneConfig, ModelConfig, read_model
from src.errors import UserError
from src.models import hub
from src.models.classifier import build_classifier
from src.models.weights import Start, load_weights, start_weights
from src.tensor_files import read_tensors, state_dict_of
from tests.conftest import REPO

TINY = "test_efficientnet"
TAGGED = "test_efficientnet.r160_in1k"
HEAD = ("classifier",)


def tiny(num_classes: int = 1, seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    net = timm.create_model(TINY, num_classes=num_classes)
    for module in net.modules():  # else all running statistics are equal
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)  # type: ignore[arg-type]
    return net


def tensors_of(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in net.state_dict().items()}


def plain_load(path: Path) -> dict:
    return torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251 - the oracle


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return set(first) == set(second) and all(torch.equal(first[k], second[k]) for k in first)


def refusal(path: Path) -> str:
    net = tiny()
    with pytest.raises(UserError) as caught:
        load_weights(net, path, HEAD)
    assert str(path) in str(caught.value)
    return str(caught.value)


# --- formats and wrappers ---

WRAPPED = {
    "plain": lambda t: t,
    "ordered": lambda t: OrderedDict(t),
    "state_dict": lambda t: {"epoch": 3, "state_dict": t, "optimizer": {"lr": 0.1, "steps": [1]}},
    "model": lambda t: {"model": t, "args": argparse.Namespace(lr=0.1, name="x")},
    "model_state_dict": lambda t: {"model_state_dict": t},
    "module": lambda t: {f"module.{k}": v for k, v in t.items()},
    "compiled": lambda t: {f"_orig_mod.{k}": v for k, v in t.items()},
    "both": lambda t: {"state_dict": {f"_orig_mod.module.{k}": v for k, v in t.items()}},
    "ours": lambda t: {f"net.{k}": v for k, v in t.items()},
    "half": lambda t: {k: v.half() if v.is_floating_point() else v for k, v in t.items()},
    "parameters": lambda t: {
        k: torch.nn.Parameter(v) if v.is_floating_point() else v for k, v in t.items()
    },
}


@pytest.mark.parametrize("wrap", WRAPPED, ids=str)
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
def test_every_wrapper_loads_the_same_net(tmp_path, wrap, suffix):
    reference, path = tiny(seed=1), tmp_path / f"weights{suffix}"
    torch.save(WRAPPED[wrap](tensors_of(reference)), path)
    net = tiny(seed=2)
    start = load_weights(net, path, HEAD)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert start == Start("file", path.name, sha256, [], [])
    if wrap == "half":
        plain = tiny(seed=3)
        plain.load_state_dict(WRAPPED["half"](tensors_of(reference)))
        reference = plain
    assert same(tensors_of(net), tensors_of(reference))


def test_safetensors_and_the_old_zipless_format(tmp_path):
    reference = tiny(seed=1)
    save_file(tensors_of(reference), tmp_path / "w.safetensors")
    torch.save(tensors_of(reference), tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    for name in ("w.safetensors", "w.pth"):
        net = tiny(seed=2)
        assert load_weights(net, tmp_path / name, HEAD).missing == []
        assert same(tensors_of(net), tensors_of(reference))


def test_outputs_after_loading_equal_plain_torch(tmp_path):
    torch.save({"state_dict": tensors_of(tiny(seed=1))}, tmp_path / "w.pth")
    plain = timm.create_model(TINY, num_classes=1)
    plain.load_state_dict(plain_load(tmp_path / "w.pth")["state_dict"])
    net = tiny(seed=2)
    images = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(net.eval()(images), plain.eval()(images))
    load_weights(net, tmp_path / "w.pth", HEAD)
    assert torch.equal(net.eval()(images), plain.eval()(images))


def test_an_index_of_shards_and_what_identifies_it(tmp_path):
    reference, index = tiny(seed=1), tmp_path / "model.safetensors.index.json"
    items, names = list(tensors_of(reference).items()), ["a.safetensors", "b.safetensors"]
    for first, name in enumerate(names):
        save_file(dict(items[first::2]), tmp_path / name)
    places = {key: names[place % 2] for place, (key, _) in enumerate(items)}
    index.write_text(json.dumps({"weight_map": places}))
    net = tiny(seed=2)
    start = load_weights(net, index, HEAD)
    assert start.missing == []
    assert same(tensors_of(net), tensors_of(reference))
    items[0][1].add_(1)
    save_file(dict(items[0::2]), tmp_path / "a.safetensors")
    assert load_weights(net, index, HEAD).sha256 != start.sha256


def test_the_moving_average_is_taken_and_the_log_says_so(tmp_path, caplog):
    caplog.set_level("INFO", "rvf")
    plain, average = tensors_of(tiny(seed=1)), tensors_of(tiny(seed=3))
    torch.save({"state_dict": plain, "state_dict_ema": average}, tmp_path / "w.pth")
    net = tiny(seed=2)
    load_weights(net, tmp_path / "w.pth", HEAD)
    assert same(tensors_of(net), average)
    assert "w.pth: of 'state_dict' and its moving average 'state_dict_ema'" in caplog.text


# --- heads, missing and unexpected keys ---


def test_a_head_of_another_size_is_replaced_and_reported(tmp_path):
    reference = tiny(1001, seed=1)
    torch.save(tensors_of(reference), tmp_path / "w.pth")
    net = tiny(seed=2)
    before = tensors_of(net)
    start = load_weights(net, tmp_path / "w.pth", HEAD)
    assert start.missing == ["classifier.bias", "classifier.weight"]
    assert start.unexpected == ["classifier.bias", "classifier.weight"]
    for key, value in tensors_of(net).items():
        wanted = before[key] if key.startswith("classifier.") else reference.state_dict()[key]
        assert torch.equal(value, wanted), key
    images = torch.randn(2, 3, 48, 48)
    with torch.inference_mode():
        features = [n.eval().forward_features(images) for n in (net, reference)]  # type: ignore[operator]
    assert torch.equal(*features)


def test_a_head_of_the_same_size_is_kept(tmp_path):
    reference = tiny(1, seed=1)
    torch.save(tensors_of(reference), tmp_path / "w.pth")
    net = tiny(seed=2)
    assert not torch.equal(net.classifier.weight, reference.classifier.weight)  # type: ignore[arg-type, union-attr]
    start = load_weights(net, tmp_path / "w.pth", HEAD)
    assert (start.missing, start.unexpected) == ([], [])
    assert torch.equal(net.classifier.weight, reference.classifier.weight)  # type: ignore[arg-type, union-attr]


def test_a_missing_head_and_extra_keys_are_reported_exactly(tmp_path):
    tensors = tensors_of(tiny(seed=1))
    del tensors["classifier.weight"], tensors["classifier.bias"]
    tensors |= {"decoder.weight": torch.ones(3), "aux": torch.ones(1), "fc.bias": torch.ones(2)}
    torch.save(tensors, tmp_path / "w.pth")
    start = load_weights(tiny(), tmp_path / "w.pth", HEAD)
    assert start.missing == ["classifier.bias", "classifier.weight"]
    assert start.unexpected == ["aux", "decoder.weight", "fc.bias"]


def test_old_checkpoints_lack_the_batchnorm_counters(tmp_path):
    tensors = tensors_of(tiny(seed=1))
    tensors = {k: v for k, v in tensors.items() if not k.endswith("num_batches_tracked")}
    torch.save(tensors, tmp_path / "w.pth")
    assert load_weights(tiny(), tmp_path / "w.pth", HEAD).missing == []


def test_both_heads_of_a_distilled_net_are_replaced(tmp_path):
    name = "deit_tiny_distilled_patch16_224"
    small = {"depth": 1, "embed_dim": 24, "num_heads": 1}
    reference = timm.create_model(name, num_classes=7, **small)
    torch.save(reference.state_dict(), tmp_path / "w.pth")
    net = timm.create_model(name, num_classes=1, **small)
    start = load_weights(net, tmp_path / "w.pth", ("head", "head_dist"))
    assert start.missing == ["head.bias", "head.weight", "head_dist.bias", "head_dist.weight"]
    assert torch.equal(net.cls_token, reference.cls_token)  # type: ignore[arg-type]


def test_a_key_that_only_begins_like_the_head_is_not_the_head(tmp_path):
    class Net(torch.nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.head = torch.nn.Linear(2, 1)
            self.header = torch.nn.Linear(width, 2)

    torch.save(Net(5).state_dict(), tmp_path / "w.pth")
    with pytest.raises(UserError, match="another architecture"):
        load_weights(Net(3), tmp_path / "w.pth", ("head",))


# --- what is refused ---


def test_weights_of_another_architecture(tmp_path):
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "other.pth")
    assert "another architecture" in refusal(tmp_path / "other.pth")
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "linear.pth")
    message = refusal(tmp_path / "linear.pth")
    assert "are missing" in message
    assert "conv_stem.weight" in message
    assert "['bias', 'weight']" in message


def test_the_same_architecture_in_another_width(tmp_path):
    tensors = tensors_of(tiny())
    tensors["conv_stem.weight"] = torch.zeros(99, 3, 3, 3)
    torch.save(tensors, tmp_path / "wide.pth")
    message = refusal(tmp_path / "wide.pth")
    assert "conv_stem.weight" in message
    assert "(99, 3, 3, 3)" in message
    assert "another architecture" in message


class Runs:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_never_run(tmp_path, zipped):
    ran, path = tmp_path / "ran", tmp_path / "evil.pth"
    evil = {"model": tensors_of(tiny()), "x": Runs(f"touch {ran}")}
    torch.save(evil, path, _use_new_zipfile_serialization=zipped)
    message = refusal(path)
    assert "refused" in message
    assert "posix.system" in message
    assert ".safetensors" in message
    assert "weights_only" not in message
    assert not ran.exists()


def test_that_pickle_would_have_run_code(tmp_path):
    pickle.loads(pickle.dumps(Runs(f"touch {tmp_path / 'ran'}")))
    assert (tmp_path / "ran").exists()


def test_a_pickled_module_is_refused(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    assert "torch.nn.modules.linear.Linear" in refusal(tmp_path / "module.pth")


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_or_empty_file(tmp_path, suffix, kept):
    path = tmp_path / f"w{suffix}"
    if suffix == ".safetensors":
        save_file(tensors_of(tiny()), path)
    else:
        torch.save(tensors_of(tiny()), path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    assert "not a readable weights file, perhaps truncated" in refusal(path)


@pytest.mark.parametrize(
    "data",
    [b"<!DOCTYPE html>", b"hello", b"PK\x03\x04", b"\x80\x02}q.", pickle.dumps({"a": 1}), bytes(9)],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_that_is_something_else(tmp_path, data, suffix):
    path = tmp_path / f"w{suffix}"
    path.write_bytes(data)
    message = refusal(path)
    assert "weights_only" not in message  # torch's advice to switch the safety off


@pytest.mark.parametrize("content", [torch.ones(3), [torch.ones(3)], None, {}, {"model": {}}, 3])
def test_a_file_without_named_tensors(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    assert "holds" in refusal(tmp_path / "w.pth")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_tensor_that_is_not_finite_is_named(tmp_path, value):
    tensors = tensors_of(tiny())
    tensors["bn1.weight"][2] = value
    save_file(tensors, tmp_path / "w.safetensors")
    assert "'bn1.weight' holds NaN or infinity" in refusal(tmp_path / "w.safetensors")


def test_missing_file_and_folder(tmp_path):
    assert "no such weights file" in refusal(tmp_path / "none.pth")
    assert "is a folder, want a weights file (there is none in it)" in refusal(tmp_path)
    for name in ("model.safetensors", "a.pth", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    assert "(one in it: a.pth, model.safetensors)" in refusal(tmp_path)


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
        assert set(state_dict_of(read_tensors(path), path)) == {"a", "b"}


# --- where a run starts from ---


def config_of(pretrained: str, name: str = TINY) -> ModelConfig:
    return ModelConfig(BackboneConfig(name, pretrained=pretrained))  # type: ignore[arg-type]


def test_the_flags_contradict_each_other(tmp_path):
    with pytest.raises(UserError, match="contradict"):
        start_weights(tiny(), config_of("hub"), HEAD, tmp_path / "w.pth", True)


def test_a_model_that_wants_a_file_says_so():
    net = tiny()
    before = tensors_of(net)
    with pytest.raises(UserError) as caught:
        start_weights(net, config_of("file"), HEAD, None, False)
    for way in ("--weights FILE", "--no-pretrained", f"--model timm:{TINY}"):
        assert way in str(caught.value)
    assert same(tensors_of(net), before)


@pytest.mark.parametrize(("wanted", "flag"), [("none", False), ("hub", True), ("file", True)])
def test_a_random_start_is_asked_for(wanted, flag):
    net = tiny()
    before = tensors_of(net)
    assert start_weights(net, config_of(wanted), HEAD, None, flag) == Start("random")
    assert same(tensors_of(net), before)


@pytest.mark.parametrize("wanted", ["none", "hub", "file"])
def test_a_weights_file_goes_before_what_the_config_wants(tmp_path, wanted):
    reference = tiny(seed=1)
    torch.save(tensors_of(reference), tmp_path / "w.pth")
    net = tiny(seed=2)
    start = start_weights(net, config_of(wanted), HEAD, tmp_path / "w.pth", False)
    assert (start.source, start.name) == ("file", "w.pth")
    assert same(tensors_of(net), tensors_of(reference))


# --- the hub ---


@pytest.fixture
def empty_cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def fill_cache(cache: Path, data: bytes, name: str = TAGGED) -> None:
    repo = cache / f"models--timm--{name}"
    snapshot = repo / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("0" * 40)
    (snapshot / "model.safetensors").write_bytes(data)


def published_bytes(tmp_path: Path) -> tuple[torch.nn.Module, bytes]:
    reference = tiny(1000, seed=1)
    save_file(tensors_of(reference), tmp_path / "published.safetensors")
    return reference, (tmp_path / "published.safetensors").read_bytes()


def hub_refusal() -> tuple[str, float]:
    net = tiny()
    before = tensors_of(net)
    began = time.monotonic()
    with pytest.raises(UserError) as caught:
        start_weights(net, config_of("hub", TAGGED), HEAD, None, False)
    seconds = time.monotonic() - began
    assert same(tensors_of(net), before)
    for way in ("--weights FILE", "--no-pretrained", "HF cache folder"):
        assert way in str(caught.value)
    assert TAGGED in str(caught.value)
    return str(caught.value), seconds


def online(monkeypatch, port: int) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")


def test_offline_with_an_empty_cache(empty_cache, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    message, seconds = hub_refusal()
    assert "HF_HUB_OFFLINE is set" in message
    assert seconds < 5


def test_a_hub_that_refuses_the_connection(empty_cache, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    online(monkeypatch, port)
    message, seconds = hub_refusal()
    assert "no connection" in message
    assert seconds < 10


def test_a_hub_that_never_answers(empty_cache, monkeypatch):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        online(monkeypatch, silent.getsockname()[1])
        message, seconds = hub_refusal()
    assert "no connection" in message
    assert seconds < 10


@pytest.mark.parametrize("code", [407, 429, 500, 503])
def test_a_hub_or_proxy_that_only_answers_with_errors(empty_cache, monkeypatch, code):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        online(monkeypatch, server.server_port)
        message, seconds = hub_refusal()
        server.shutdown()
    assert f"HTTP {code}" in message
    assert seconds < 10


def test_a_resolver_that_hangs(empty_cache, monkeypatch):
    monkeypatch.setattr(hub, "HUB_SECONDS", 1.0)
    released = threading.Event()
    real = socket.getaddrinfo

    def hang(host, *args, **kwargs):
        if b"hub.invalid" in (host if isinstance(host, bytes) else str(host).encode()):
            released.wait(60)
            raise OSError("no such host")
        return real(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    online(monkeypatch, 1)
    monkeypatch.setattr(constants, "ENDPOINT", "http://hub.invalid")
    message, seconds = hub_refusal()
    released.set()
    assert "no connection" in message
    assert seconds < 5


def test_the_cache_is_used_offline(empty_cache, tmp_path, monkeypatch):
    reference, data = published_bytes(tmp_path)
    fill_cache(empty_cache, data)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    net = tiny(seed=2)
    start = start_weights(net, config_of("hub", TAGGED), HEAD, None, False)
    assert (start.source, start.name) == ("hub", TAGGED)
    assert start.sha256 == hashlib.sha256(data).hexdigest()
    assert start.missing == ["classifier.bias", "classifier.weight"]
    for key, value in tensors_of(net).items():
        if not key.startswith("classifier."):
            assert torch.equal(value, reference.state_dict()[key]), key


def test_a_vit_from_the_cache_at_another_size(empty_cache, tmp_path):
    torch.manual_seed(1)
    reference = timm.create_model("test_vit.r160_in1k")
    save_file(tensors_of(reference), tmp_path / "w.safetensors")
    fill_cache(empty_cache, (tmp_path / "w.safetensors").read_bytes(), "test_vit.r160_in1k")
    settings = read_model("timm:test_vit.r160_in1k", {"input.image_size": 64})
    model, native = build_classifier(settings)
    start_weights(model.net, settings, native.head, None, False)
    overlay = {"file": str(tmp_path / "w.safetensors")}
    resized = timm.create_model(
        "test_vit.r160_in1k", True, num_classes=0, img_size=64, pretrained_cfg_overlay=overlay
    )
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        ours = model.net.eval().forward_features(images)  # type: ignore[operator]
        theirs = resized.eval().forward_features(images)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    grid = dict(model.net.named_parameters())["pos_embed"]
    assert grid.shape == (1, (64 // 16) ** 2 + 1, 64)
    assert torch.equal(grid, dict(resized.named_parameters())["pos_embed"])


@pytest.mark.parametrize("damage", ["truncated", "nan", "other"])
def test_a_damaged_file_in_the_cache(empty_cache, tmp_path, damage):
    reference, data = published_bytes(tmp_path)
    if damage == "truncated":
        data = data[: len(data) // 2]
    else:
        tensors = tensors_of(reference)
        key = "conv_stem.weight"
        tensors[key] = tensors[key] * np.nan if damage == "nan" else torch.zeros(1, 2, 3, 4)
        save_file(tensors, tmp_path / "bad.safetensors")
        data = (tmp_path / "bad.safetensors").read_bytes()
    fill_cache(empty_cache, data)
    net = tiny()
    before = tensors_of(net)
    with pytest.raises(UserError):
        start_weights(net, config_of("hub", TAGGED), HEAD, None, False)
    assert same(tensors_of(net), before)


def test_a_backbone_without_published_weights(empty_cache):
    published = {name: timm.get_pretrained_cfg(name) for name in timm.list_models("test_*")}
    without = [name for name, cfg in published.items() if cfg is None or not cfg.hf_hub_id]
    for name in ("compact_net", *without):
        with pytest.raises(UserError, match="no pretrained weights"):
            start_weights(tiny(), config_of("hub", name), HEAD, None, False)


def test_a_download_is_kept_and_then_needs_no_hub(empty_cache, tmp_path, monkeypatch):
    reference, data = published_bytes(tmp_path)
    asked: list[str] = []

    class Hub(http.server.BaseHTTPRequestHandler):
        def do_GET(self, *, body: bool = True):
            asked.append(f"{self.command} {self.path}")
            wanted = self.path == f"/timm/{TAGGED}/resolve/main/model.safetensors"
            self.send_response(200 if wanted else 404)
            if wanted:
                self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
                self.send_header("X-Repo-Commit", "1" * 40)
            self.send_header("Content-Length", str(len(data) if wanted else 0))
            self.end_headers()
            if wanted and body:
                self.wfile.write(data)

        def do_HEAD(self):
            self.do_GET(body=False)

        def log_message(self, *args):
            pass

    def start() -> tuple[Start, dict[str, torch.Tensor]]:
        net = tiny(seed=2)
        return start_weights(net, config_of("hub", TAGGED), HEAD, None, False), tensors_of(net)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        online(monkeypatch, server.server_port)
        template = constants.ENDPOINT + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        first, tensors = start()
        server.shutdown()
    assert f"GET /timm/{TAGGED}/resolve/main/model.safetensors" in asked
    assert (first.source, first.name) == ("hub", TAGGED)
    assert first.sha256 == hashlib.sha256(data).hexdigest()
    for key, value in tensors.items():
        if not key.startswith("classifier."):
            assert torch.equal(value, reference.state_dict()[key]), key
    assert start()[0] == first  # the server is gone


def test_the_cache_folder_that_the_message_names_is_the_one_that_is_read(tmp_path):
    _, data = published_bytes(tmp_path)
    fill_cache(tmp_path / "home" / "hub", data)
    code = f"""
from src.artifacts.files import sha256_file
from src.models.hub import _hub_file
print(sha256_file(_hub_file("timm/{TAGGED}", "{TAGGED}")))
"""
    env = {k: v for k, v in os.environ.items() if k not in ("HF_HUB_CACHE", "HF_HUB_OFFLINE")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPO,
        env=env | {"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.strip() == hashlib.sha256(data).hexdigest(), done.stderr


# --- the real file ---


@pytest.fixture
def real_weights(shared_data) -> Path:
    path = shared_data.parent / "weights" / "mobilenetv2_100.imagenet1001.pth"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    return path


@pytest.mark.real
def test_the_real_checkpoint_loads_into_its_config(real_weights):
    settings = read_model("mobilenetv2_100")
    model, native = build_classifier(settings)
    start = start_weights(model.net, settings, native.head, real_weights, False)
    assert start.missing == start.unexpected == ["classifier.bias", "classifier.weight"]
    assert len(start.sha256) == 64
    theirs = timm.create_model("mobilenetv2_100", num_classes=1001, pad_type="same")
    content = plain_load(real_weights)
    theirs.load_state_dict(content)
    images = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        ours = model.net.eval().forward_features(images)  # type: ignore[operator]
        wanted = theirs.eval().forward_features(images)
    assert float(wanted.abs().max()) > 0
    torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.real
def test_the_real_checkpoints_own_head_is_kept_where_it_fits(real_weights):
    net = timm.create_model("mobilenetv2_100", num_classes=1001, pad_type="same")
    start = load_weights(net, real_weights, HEAD)
    assert (start.missing, start.unexpected) == ([], [])
    content = plain_load(real_weights)
    assert torch.equal(net.classifier.weight, content["classifier.weight"])  # type: ignore[union-attr]


def test_weights_of_a_deeper_net_are_refused(tmp_path):
    options = {"img_size": 32, "embed_dim": 48, "num_heads": 3, "num_classes": 0}
    deep, flat = (
        timm.create_model("vit_tiny_patch16_224", depth=depth, **options) for depth in (4, 2)
    )
    path = tmp_path / "deep.pth"
    torch.save(deep.state_dict(), path)
    with pytest.raises(UserError, match=r"24 tensors are of blocks .* 'blocks\.2\.norm1\.weight'"):
        load_weights(flat, path, ("head",))


@pytest.mark.parametrize("dtype", [torch.int8, torch.complex64])
def test_tensors_that_are_no_floats_are_refused(tmp_path, dtype):
    net = timm.create_model("resnet10t", num_classes=1)
    path = tmp_path / "quantised.pth"
    torch.save({k: (v * 100).to(dtype) for k, v in net.state_dict().items()}, path)
    with pytest.raises(UserError, match=r"is (int8|complex64), want floating point"):
        load_weights(net, path, ("fc",))


@pytest.mark.parametrize("keys", [("model", "state_dict"), ("checkpoint", "model"), ("net",)])
def test_wrappers_in_wrappers(tmp_path, keys):
    net = timm.create_model("resnet10t", num_classes=1)
    content = net.state_dict()
    for key in reversed(keys):
        content = {key: content, "epoch": 3}
    torch.save(content, tmp_path / "nested.pth")
    assert load_weights(net, tmp_path / "nested.pth", ("fc",)).missing == []
