"""Which way a CPU predicts: the fastest exact one, remembered, and gone on with."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from src import paths
from src.artifacts.oof import read_views
from src.compute import device
from src.compute.request import Compute
from src.config import parse_model
from src.errors import UserError
from src.inference import passes, trial
from src.inference.converted import Converted, openvino_version
from src.inference.engines import Eager
from src.inference.stored import engines_of
from src.inference.trial import Ahead, FastestWay, Trial, engine_for
from src.models.classifier import Classifier, build_classifier
from src.training.job import Job
from src.training.trainer import fit_fold
from tests.asked import items_of, parts_of

CPU = torch.device("cpu")
MANY = Ahead(5000, 5000)
WAYS = ["fp32", "bf16", "openvino"]
NET = {"name": "compact_net", "pretrained": "none", "kwargs": {"widths": [8, 8, 16]}}
installed = pytest.mark.skipif(not openvino_version(), reason="openvino (extra export) is absent")


def net(seed: int = 1, size: int = 32) -> Classifier:
    """Return a net that tells noise from noise."""
    torch.manual_seed(seed)
    model, _ = build_classifier(
        parse_model({"backbone": NET, "input": {"image_size": size}}, "test")
    )
    model.net.head.weight.data.normal_(0, 3)
    return model.eval()


def noise(count: int, size: int = 32) -> Tensor:
    """Return uint8 (n, s, s, 3), some brighter than others."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(0, 128, (count, size, size, 3), generator=generator)
    return (drawn + torch.arange(count)[:, None, None, None] % 100).byte()


@pytest.mark.parametrize(
    ("bf16", "openvino", "want"),
    [  # how many times faster, and the error
        ((1.5, 0.01), (1.05, 1e-5), "bf16"),
        ((1.2, 0.01), (1.05, 1e-5), "fp32"),  # neither is worth it
        ((3.0, 0.20), (1.05, 1e-5), "fp32"),  # not exact enough
        ((1.5, 0.01), (1.30, 1e-5), "fp32, from 50 images openvino"),  # 1.15 times is no rounding
        ((2.0, 0.01), (1.30, 1e-5), "bf16"),
        ((1.2, 0.01), (2.00, 2e-3), "fp32"),
        ((1.2, 0.01), (2.00, float("nan")), "fp32"),
        ((3.0, float("nan")), (2.00, 1e-5), "fp32, from 23 images openvino"),
    ],
)
@pytest.mark.usefixtures("artefact_root")
def test_the_fastest_way_that_is_exact_by_its_own_rule(
    bf16: tuple[float, float], openvino: tuple[float, float], want: str
) -> None:
    exact = torch.tensor([-2.0, 2.0])  # spread 2
    one = Trial(net(), "0" * 64, "net", WAYS, MANY)
    seconds = {"fp32": 0.1, "bf16": 0.1 / bf16[0], "openvino": 0.1 / openvino[0]}
    found = {"fp32": exact, "bf16": exact + 2 * bf16[1], "openvino": exact + 2 * openvino[1]}
    # 1.15 s of a conversion: 1.15 / (.1 - .1 / 1.3) = 49.8 images, 1.15 / (.1 - .1 / 2) = 23
    assert str(one._choose(FastestWay("fp32"), seconds, found, 1.15)) == want
    assert device.ANSWER.fullmatch(want)
    assert str(FastestWay.parse(want)) == want


def test_logits_that_are_all_alike_are_held_against_a_floor() -> None:
    same = torch.full((8,), 3.0)
    one = Trial(net(), "0" * 64, "net", ["fp32", "openvino"], MANY)
    seconds = {"fp32": 0.1, "openvino": 0.05}
    for error, want in ((1e-5, "openvino"), (1e-4, "fp32")):
        found = {"fp32": same, "openvino": same + error}
        assert one._choose(FastestWay("fp32"), seconds, found, 0.1).way(5000) == want


class Stub:
    """Stands for a converted net, which is off by so much."""

    engine, precision = "openvino", "fp32"
    off, made = 0.0, 0

    def __init__(self, model: Classifier) -> None:
        self.spec, self.eager = model.spec, Eager(model, CPU, "fp32")
        type(self).made += 1

    def __call__(self, pixels: Tensor) -> Tensor:
        """Map uint8 (n, s, s, 3) to logits."""
        return self.eager(pixels) + self.off


@pytest.mark.parametrize("has_code", [False, True])
def test_a_folder_called_openvino_is_not_the_package(tmp_path, monkeypatch, has_code):
    """Exported files may lie in one; one with code may have been copied, and has no version."""
    monkeypatch.delitem(sys.modules, "openvino", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    (tmp_path / "openvino").mkdir()
    if has_code:
        (tmp_path / "openvino" / "__init__.py").touch()
    assert openvino_version() == ""


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> type[Stub]:
    """Let OpenVINO be there, be faster than torch, and be worth it at once."""

    class Own(Stub):
        pass

    monkeypatch.setattr(trial, "Converted", Own)
    monkeypatch.setattr(trial, "openvino_version", lambda: "1.0")
    monkeypatch.setattr(trial, "TRIAL_IMAGES", 1)
    monkeypatch.setattr(trial, "conversion_seconds", lambda _: 0.0)
    monkeypatch.setattr(device, "native_bf16", lambda: False)
    monkeypatch.setitem(trial.GAIN, "openvino", 0.0)
    choose = Trial._choose

    def faster(
        self: Trial, tried: FastestWay, seconds: dict[str, float], found: dict, _: float
    ) -> FastestWay:
        given = seconds | ({"openvino": seconds["fp32"] / 2} if "openvino" in seconds else {})
        return choose(self, tried, given, found, 0.0)

    monkeypatch.setattr(Trial, "_choose", faster)
    return Own


Predict = Callable[..., tuple[list[float], dict]]


@pytest.fixture
def predict(make_job: Callable[..., Job]) -> Predict:
    """Train a net; returns what predicts with it, and what the predictions say of themselves."""
    job = make_job(optim={"epochs": 1})
    fit_fold(job)
    (part,) = parts_of(job)

    def run(compute: Compute | None = None, rows: slice = slice(None)) -> tuple[list[float], dict]:
        some = items_of(job, rows)
        passes.predict_parts([part], some, compute or Compute("cpu", workers=0))
        views, metadata = read_views(part.views)
        assert engines_of([part]) == {"m fold 0": f"{metadata['engine']} {metadata['precision']}"}
        return views["logit"].tolist(), metadata  # as the sidecar of a submission names them

    return run


def test_what_was_decided_is_remembered_and_a_repeat_is_equal(
    predict: Predict, stub: type[Stub], monkeypatch: pytest.MonkeyPatch
) -> None:
    stub.off = 2.0**-20
    first, said = predict()
    assert (said["engine"], said["precision"]) == ("openvino", "fp32")
    plain, eagerly = predict(Compute("cpu", workers=0, engine="eager"))
    assert (eagerly["engine"], eagerly["precision"]) == ("eager", "fp32")
    assert first != plain
    np.testing.assert_allclose(first, plain, rtol=0, atol=2.0**-19)
    monkeypatch.setattr(Trial, "_decide", None)  # nothing is tried again
    assert predict()[0] == first
    (answer,) = json.loads(paths.precision_cache().read_text()).values()
    assert answer == "fp32, from 0 images openvino"


def test_an_engine_with_another_answer_is_refused(
    predict: Predict, stub: type[Stub], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="rvf")
    stub.off = 0.1
    first, said = predict()
    assert stub.made == 1
    assert said["engine"] == "eager"
    assert first == predict(Compute("cpu", workers=0, engine="eager"))[0]
    assert "predicting with eager fp32" in caplog.text
    predict()
    assert stub.made == 1  # a net that was refused is not converted again


def test_a_net_that_cannot_be_converted_is_predicted_eagerly_with_one_line(
    predict: Predict, stub: type[Stub], monkeypatch, caplog
) -> None:
    caplog.set_level("INFO", logger="rvf")

    def fail(_: Classifier) -> None:
        raise RuntimeError("no rule for aten::odd\nand a long story")

    monkeypatch.setattr(trial, "Converted", fail)
    first, said = predict()
    assert said["engine"] == "eager"
    lines = [line for line in caplog.text.splitlines() if "aten::odd" in line]
    assert len(lines) == 1
    assert "long story" not in caplog.text
    assert first == predict()[0]


@pytest.mark.usefixtures("artefact_root")
def test_few_items_are_not_worth_a_conversion_and_more_are_tried_later(
    stub: type[Stub], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, pixels = net(), noise(16)
    monkeypatch.setattr(trial, "conversion_seconds", lambda _: 1.0)
    few = Trial(model, "0" * 64, "net", ["fp32", "openvino"], Ahead(200, 200))
    with torch.inference_mode():
        few(pixels)
        assert (few.engine, stub.made) == ("eager", 0)
        known = FastestWay.parse(device.remembered(few._case))
        assert known.large == "?"
        assert known.way(known.least - 1) == "fp32"
        again = Trial(model, "0" * 64, "net", ["fp32", "openvino"], Ahead(200, 200))
        assert again.precision == "fp32"  # known before anything is looked at
        monkeypatch.setattr(trial, "conversion_seconds", lambda _: 0.0)
        many = Trial(model, "0" * 64, "net", ["fp32", "openvino"], Ahead(known.least, known.least))
        assert many.precision == ""
        many(pixels)
    assert (many.engine, stub.made) == ("openvino", 1)


def test_where_nothing_is_to_be_tried_the_engine_is_eager(
    artefact_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = net()

    def chosen(ahead: Ahead = MANY, wanted: str = "auto", **how: str) -> list[str]:
        compute = Compute("cpu", wanted, **how)
        engine = engine_for(model, "0" * 64, "net", compute, ahead)
        return engine.ways if isinstance(engine, Trial) else [f"{engine.engine} {engine.precision}"]

    for native, version, want in (
        (True, "1", WAYS), (False, "1", ["fp32", "openvino"]), (True, "", ["fp32", "bf16"]),
        (False, "", ["eager fp32"]),
    ):  # fmt: skip
        monkeypatch.setattr(device, "native_bf16", lambda native=native: native)
        monkeypatch.setattr(trial, "openvino_version", lambda version=version: version)
        assert chosen() == want
    monkeypatch.setattr(device, "native_bf16", lambda: True)
    monkeypatch.setattr(trial, "openvino_version", lambda: "1")
    assert chosen(engine="eager") == ["fp32", "bf16"]
    assert chosen(wanted="fp32") == ["fp32", "openvino"]
    assert chosen(wanted="fp32", engine="eager") == ["eager fp32"]
    assert chosen(wanted="bf16") == ["eager bf16"]
    assert chosen(Ahead(999, 1998)) == ["fp32", "openvino"]
    assert chosen(Ahead(50, 99)) == ["eager fp32"]
    with pytest.raises(UserError, match="int8 wants --engine"):
        chosen(wanted="int8")


def test_a_pass_that_was_stopped_goes_on_with_the_engine_it_began_with(
    predict: Predict, stub: type[Stub], monkeypatch: pytest.MonkeyPatch
) -> None:
    compute = Compute("cpu", workers=0, batch_size=8)
    whole = predict(compute)[0]
    after = passes.Partial.after_batch

    def stop(self: passes.Partial, done: int) -> None:
        after(self, done)
        if done >= 16:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(passes.Partial, "after_batch", stop)
        with pytest.raises(KeyboardInterrupt):
            predict(compute)
    # On another number of threads, say, nothing is remembered, and a trial would say otherwise.
    paths.precision_cache().unlink()
    monkeypatch.setattr(Trial, "_decide", lambda *_: FastestWay("fp32"))
    counted: list[int] = []
    call = stub.__call__
    monkeypatch.setattr(stub, "__call__", lambda s, p: counted.append(len(p)) or call(s, p))
    again, said = predict(compute)
    assert said["engine"] == "openvino"
    assert again == whole
    assert sum(counted) == len(whole) - 16  # the first two batches are not predicted again


@installed
@pytest.mark.usefixtures("artefact_root")
def test_a_converted_net_computes_the_same_on_any_number_of_images() -> None:
    model = net(2)
    converted, pixels = Converted(model), noise(37)
    with torch.inference_mode():
        want = model({"pixels": pixels})["logit"]
        for count in (1, 2, 37):
            torch.testing.assert_close(
                converted(pixels[:count]), want[:count], rtol=1e-5, atol=1e-5
            )
        small = Converted(model)
        small.size = 4
        torch.testing.assert_close(small(pixels), want, rtol=1e-5, atol=1e-5)
    assert float(want.std()) > 0.1
    names = ("INFERENCE_PRECISION_HINT", "INFERENCE_NUM_THREADS", "ENABLE_CPU_PINNING")
    held = [converted.request.get_property(name) for name in names]
    assert str(held[0].to_string()).lower() in ("f32", "float32")
    assert held[1:] == [torch.get_num_threads(), False]


class Counting(nn.Module):
    """Its answer hangs on how many images there are, by Python's own numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.mean((2, 3))) + (1.0 if len(x) > 2 else 0.0)


@installed
@pytest.mark.usefixtures("artefact_root")
def test_a_net_that_a_trace_does_not_catch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "conversion_seconds", lambda _: 0.0)
    monkeypatch.setitem(trial.GAIN, "openvino", 0.0)
    model = Classifier(Counting(), net().spec).eval()
    pixels = noise(16)
    one = Trial(model, "0" * 64, "net", ["fp32", "openvino"], MANY)
    with torch.inference_mode():
        torch.testing.assert_close(one(pixels), model({"pixels": pixels})["logit"])
    assert one.engine == "eager"


@installed
def test_processes_that_decode_work_beside_openvino(
    predict: Predict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "TRIAL_IMAGES", 1)
    monkeypatch.setattr(trial, "conversion_seconds", lambda _: 0.0)
    monkeypatch.setattr(device, "native_bf16", lambda: False)
    monkeypatch.setitem(trial.GAIN, "openvino", 0.0)
    monkeypatch.setattr(Trial, "_choose", lambda *_: FastestWay("fp32", 1, "openvino"))
    first, said = predict(Compute("cpu", workers=0, batch_size=8))
    assert said["engine"] == "openvino"
    again = predict(Compute("cpu", workers=2, batch_size=8))  # forked from a process that has it
    assert again[0] == first
    exact = predict(Compute("cpu", workers=0, engine="eager"))[0]
    np.testing.assert_allclose(first, exact, rtol=0, atol=1e-4)


@pytest.mark.usefixtures("artefact_root")
def test_copies_that_look_otherwise_share_what_was_decided(stub: type[Stub]) -> None:
    import copy

    one = Trial(net(), "0" * 64, "net", ["fp32", "openvino"], trial.LASTING)
    other = copy.copy(one)
    other.spec = replace(one.spec, frames=replace(one.spec.frames, eval=3))
    with torch.inference_mode():
        other(noise(2))
        assert (one.engine, stub.made) == ("openvino", 1)
        one(noise(2))
    assert stub.made == 1
