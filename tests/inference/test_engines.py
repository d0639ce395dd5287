"""Eager inference on a CPU: folded nets, torch.compile; what is remembered of a chip."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from src import paths
from src.artifacts.atomic import own_folder
from src.artifacts.oof import read_views
from src.artifacts.runs import read_record
from src.compute import device
from src.config import parse_model
from src.errors import UserError
from src.inference.engines import Eager, fused
from src.models.classifier import Classifier, build_classifier
from src.training.job import Job, Options
from src.training.trainer import fit_fold

MakeJob = Callable[..., Job]
CPU = torch.device("cpu")
NETS = {
    "compact_net": {"widths": [8, 8, 16]},
    "resnet18": {},
    "mobilenetv3_small_050": {},
    "densenet121": {"growth_rate": 8, "block_config": [2, 2]},
    "vit_tiny_patch16_224": {"img_size": 32, "depth": 2},
}


def warmed(name: str, size: int = 32) -> Classifier:
    """Return a net whose BatchNorm statistics and affine weights are not the initial ones."""
    torch.manual_seed(1)
    content = {
        "backbone": {"name": name, "pretrained": "none", "kwargs": NETS[name]},
        "input": {"image_size": size},
    }
    model, _ = build_classifier(parse_model(content, "test"))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.5)
            for tensor in (module.bias.data, module.running_mean):
                tensor.normal_(0, 0.2)
    head = model.net.get_classifier() if name != "compact_net" else model.net.head
    head.weight.data.normal_(0, 0.5)
    return model.eval()


@pytest.mark.parametrize("name", NETS)
def test_a_folded_net_computes_the_same_and_leaves_the_net_alone(name: str) -> None:
    model = warmed(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    pixels = torch.randint(0, 256, (6, 32, 32, 3), dtype=torch.uint8)
    copied = fused(model.net, 32, plain_attention=True)
    assert copied is not model.net
    norms = [m for m in copied.modules() if isinstance(m, nn.BatchNorm2d)]
    folded = sum(isinstance(m, nn.BatchNorm2d) for m in model.net.modules()) - len(norms)
    assert folded > 0 or name == "vit_tiny_patch16_224"
    with torch.inference_mode():
        want = model({"pixels": pixels})["logit"]
        got = Classifier(copied, model.spec).eval()({"pixels": pixels})["logit"]
    assert float(want.std()) > 1e-3
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key


class Crossed(nn.Module):
    """Its BatchNorm is listed behind one convolution and called behind another."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 1)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 4, 1)
        self.norm.running_mean.fill_(0.7)
        self.norm.running_var.fill_(3.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.second(torch.relu(self.first(x)))).mean((2, 3))[:, :1]


def test_a_net_that_calls_its_layers_in_another_order_is_left_as_it_is() -> None:
    net = Crossed().eval()
    assert fused(net, 8, plain_attention=False) is net


@pytest.fixture
def no_cache_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget the cache folder of another test."""
    device._own_cache.cache_clear()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")
    yield
    device._own_cache.cache_clear()
    torch.compiler.reset()


@pytest.mark.usefixtures("no_cache_left")
def test_a_compiled_run_has_a_folder_of_its_own_and_is_scored_eagerly(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[int] = []

    def backend(graph: torch.fx.GraphModule, _: object) -> Callable[..., object]:
        def run(*inputs: object) -> object:
            ran.append(1)
            return graph(*inputs)

        return run

    monkeypatch.setattr(device, "BACKEND", backend)
    home = paths.compile_cache()
    (gone := home / "of_gone").mkdir(parents=True)
    with own_folder(home, "of_") as in_use:
        gone.mkdir(exist_ok=True)
        job = make_job(options=Options("cpu", "fp32", 0, compile=True), optim={"epochs": 1})
        plain = make_job(model="plain", optim={"epochs": 1})
        fit_fold(job)
        trained = len(ran)
        assert trained > len(job.train_rows) // 8 - 1
        assert not gone.exists()
        assert in_use.exists()
    own = Path(os.environ["TORCHINDUCTOR_CACHE_DIR"])
    assert own.parent == home
    assert read_record(paths.run_record(*job.names))["compiled"] is True
    fit_fold(plain)
    first, second = (read_views(paths.oof_views(*run.names))[0]["logit"] for run in (job, plain))
    np.testing.assert_allclose(first, second, rtol=0, atol=1e-4)
    assert len(ran) == trained


@pytest.mark.usefixtures("no_cache_left")
def test_a_net_that_does_not_compile_is_one_message(
    artefact_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("no C++ compiler\nand a long story")

    monkeypatch.setattr(device, "BACKEND", refuse)
    with pytest.raises(UserError) as caught:
        Eager(warmed("compact_net"), CPU, "fp32", compile_it=True)
    said = str(caught.value)
    assert said.startswith("--compile: torch could not compile this net (")
    assert "go on without --compile" in said
    assert "\n" not in said


@pytest.mark.parametrize("text", ["[]", "null", "[" * 100_000, "damaged"])
def test_damaged_answers_are_not_remembered(tmp_path: Path, text: str) -> None:
    path = tmp_path / "precision.json"
    path.write_text(text)
    assert device.read_known(path) == {}
    path.write_text(
        '{"a": "bf16", "b": "int9", "c": ["fp32"], "d": {}, "e": null, "f": "openvino", '
        '"g": "fp32, from 148 images openvino", "h": "bf16, from 9 images ?", "i": "fp32, from"}'
    )
    assert device.read_known(path) == {
        "a": "bf16", "g": "fp32, from 148 images openvino", "h": "bf16, from 9 images ?",
    }  # fmt: skip


def test_a_cpu_that_emulates_bf16_is_not_timed(monkeypatch):
    monkeypatch.setattr(device, "_probe", lambda *_: pytest.fail("it would take minutes"))
    monkeypatch.setattr(device, "native_bf16", lambda: False)
    asked = (torch.device("cpu"), None, None, 32)
    assert device.training_precision("auto", *asked) == "fp32"
    assert device.training_precision("bf16", *asked) == "bf16"  # whoever asks gets it


def test_a_cpu_that_multiplies_bf16_says_so(monkeypatch):
    for has, want in (({"avx512_bf16": True}, True), ({"avx2": True, "amx_bf16": False}, False)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda has=has: has)
        assert device.native_bf16() is want
