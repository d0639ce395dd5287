"""The model hub: a cache, a server of our own, and what is said where neither answers; uploads."""

import hashlib
import http.server
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from src.config import BackboneConfig, ModelConfig, read_model
from src.errors import UserError
from src.models import hub
from src.models.classifier import build_classifier
from src.models.hub import push_files
from src.models.weights import Start, start_weights
from tests.conftest import REPO
from tests.models.small import same, tensors_of, tiny

TAGGED = "test_efficientnet.r160_in1k"
HEAD = ("classifier",)


@pytest.fixture
def empty_cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> tuple[dict[str, torch.Tensor], bytes]:
    tensors = tensors_of(tiny(1000, seed=1))
    path = tmp_path_factory.mktemp("published") / "w.safetensors"
    save_file(tensors, path)
    return tensors, path.read_bytes()


def fill_cache(cache: Path, data: bytes, name: str = TAGGED) -> None:
    repo = cache / f"models--timm--{name}"
    snapshot = repo / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("0" * 40)
    (snapshot / "model.safetensors").write_bytes(data)


def start(net: torch.nn.Module, name: str = TAGGED) -> Start:
    config = ModelConfig(BackboneConfig(name, pretrained="hub"))
    return start_weights(net, config, HEAD, None, False)


def loaded(published: tuple[dict[str, torch.Tensor], bytes]) -> Start:
    """Start a net, which gets the published weights but for its head."""
    tensors, data = published
    net = tiny(seed=2)
    found = start(net)
    assert (found.source, found.name) == ("hub", TAGGED)
    assert found.sha256 == hashlib.sha256(data).hexdigest()
    assert found.missing == ["classifier.bias", "classifier.weight"]
    for key, value in tensors_of(net).items():
        if not key.startswith("classifier."):
            assert torch.equal(value, tensors[key]), key
    return found


def refusal() -> str:
    net = tiny()
    before = tensors_of(net)
    with pytest.raises(UserError) as caught:
        start(net)
    assert same(tensors_of(net), before)
    for words in ("--weights FILE", "--no-pretrained", "HF cache folder", TAGGED):
        assert words in str(caught.value)
    return str(caught.value)


def online(monkeypatch, port: int) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")


@contextmanager
def serving(answer: Callable[[http.server.BaseHTTPRequestHandler], None]) -> Iterator[int]:
    """Answer all requests; yields the port."""

    methods = {"do_HEAD": answer, "do_GET": answer, "log_message": lambda *_: None}
    handler = type("Handler", (http.server.BaseHTTPRequestHandler,), methods)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.server_port
        server.shutdown()


# --- no answer ---


def test_offline_with_an_empty_cache(empty_cache, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in refusal()


@pytest.mark.parametrize("listens", [False, True])
def test_a_hub_that_refuses_the_connection_or_never_answers(empty_cache, monkeypatch, listens):
    monkeypatch.setattr(hub, "HUB_SECONDS", 1.0)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        if listens:
            silent.listen(8)
        online(monkeypatch, silent.getsockname()[1])
        began = time.monotonic()
        assert "no connection" in refusal()
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("code", [407, 429, 500, 503])
def test_a_hub_or_proxy_that_only_answers_with_errors(empty_cache, monkeypatch, code):
    def answer(request):
        request.send_response(code)
        request.send_header("Content-Length", "0")
        request.end_headers()

    with serving(answer) as port:
        online(monkeypatch, port)
        began = time.monotonic()
        assert f"HTTP {code}" in refusal()
    assert time.monotonic() - began < 10


def test_a_resolver_that_hangs(empty_cache, monkeypatch):
    monkeypatch.setattr(hub, "HUB_SECONDS", 0.5)
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
    began = time.monotonic()
    assert "no connection" in refusal()
    assert time.monotonic() - began < 5
    released.set()


def test_a_backbone_without_published_weights(empty_cache):
    published = {name: timm.get_pretrained_cfg(name) for name in timm.list_models("test_*")}
    without = [name for name, cfg in published.items() if cfg is None or not cfg.hf_hub_id]
    for name in ("compact_net", *without):
        with pytest.raises(UserError, match="no pretrained weights"):
            start(tiny(), name)


# --- the cache ---


def test_the_cache_is_used_offline(empty_cache, published, monkeypatch):
    fill_cache(empty_cache, published[1])
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    loaded(published)


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
def test_a_damaged_file_in_the_cache(empty_cache, tmp_path, published, damage):
    tensors, data = published
    if damage == "truncated":
        data = data[: len(data) // 2]
    else:
        key = "conv_stem.weight"
        odd = tensors[key] * np.nan if damage == "nan" else torch.zeros(1, 2, 3, 4)
        save_file(tensors | {key: odd}, tmp_path / "bad.safetensors")
        data = (tmp_path / "bad.safetensors").read_bytes()
    fill_cache(empty_cache, data)
    net = tiny()
    before = tensors_of(net)
    with pytest.raises(UserError):
        start(net)
    assert same(tensors_of(net), before)


def test_a_download_is_kept_and_then_needs_no_hub(empty_cache, published, monkeypatch):
    data, asked = published[1], []

    def answer(request):
        asked.append(f"{request.command} {request.path}")
        wanted = request.path == f"/timm/{TAGGED}/resolve/main/model.safetensors"
        request.send_response(200 if wanted else 404)
        if wanted:
            request.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            request.send_header("X-Repo-Commit", "1" * 40)
        request.send_header("Content-Length", str(len(data) if wanted else 0))
        request.end_headers()
        if wanted and request.command == "GET":
            request.wfile.write(data)

    with serving(answer) as port:
        online(monkeypatch, port)
        template = constants.ENDPOINT + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        first = loaded(published)
    assert f"GET /timm/{TAGGED}/resolve/main/model.safetensors" in asked
    assert loaded(published) == first  # the server is gone


def test_the_cache_folder_that_the_message_names_is_the_one_that_is_read(tmp_path, published):
    fill_cache(tmp_path / "home" / "hub", published[1])
    code = f"""
from huggingface_hub import try_to_load_from_cache
print(try_to_load_from_cache("timm/{TAGGED}", "model.safetensors"))
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
    assert Path(done.stdout.strip()).read_bytes() == published[1], done.stderr


# --- uploads ---


@pytest.fixture
def sent(monkeypatch):
    calls = []

    class Api:
        def create_repo(self, repo, *, private, exist_ok):
            calls.append((repo, private, exist_ok))

        def create_commit(self, repo, operations, *, commit_message):
            names = {one.path_in_repo: one.path_or_fileobj for one in operations}
            calls.append((repo, names, commit_message))
            return SimpleNamespace(commit_url="https://hub/commit/1")

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    return calls


def test_one_commit_to_a_private_repository(sent, tmp_path):
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(b"abc")
    url = push_files("me/soup", {"fold_0.safetensors": weights}, "# soup\n", "first")
    assert url == "https://hub/commit/1"
    files = {"fold_0.safetensors": str(weights), "README.md": b"# soup\n"}
    assert sent == [("me/soup", True, True), ("me/soup", files, "first")]


def test_what_the_hub_says_is_passed_on(sent, monkeypatch):
    def refuse(*_args, **_rest):
        raise PermissionError("401: no token")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", refuse)
    with pytest.raises(UserError, match=r"cannot be reached \(PermissionError: 401: no token\)"):
        push_files("me/soup", {}, "", "")
    with pytest.raises(UserError, match="want USER/NAME"):
        push_files("soup", {}, "", "")
