"""Exported files answer as torch does, say what they are of, and nothing leaves the machine."""

import importlib
import json
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from src import paths
from src.artifacts.files import read_json, sha256_file, write_json
from src.artifacts.oof import read_views
from src.cli.export import main
from src.compute.request import Compute
from src.config import parse_model
from src.errors import UserError
from src.inference import export, exported, passes, stored
from src.models.checkpoint import save_checkpoint
from src.models.classifier import build_classifier
from src.training.job import Job
from src.training.trainer import fit_fold
from tests.asked import items_of, parts_of
from tests.models.adapter import KWARGS, TOWER, small_adapter

MakeJob = Callable[..., Job]
WAYS = [("onnx", "fp32", 1e-3), ("openvino", "fp32", 1e-3), ("openvino", "int8", 0.5)]


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every attempt to reach another machine an error."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def job(make_job: MakeJob) -> Job:
    """Train a model of two views, whose head pools by a power mean of normalised features."""
    job = make_job(tta="flip", optim={"epochs": 1}, head={"pool": "gem", "normalize": True})
    fit_fold(job)
    return job


@pytest.fixture
def order(job: Job) -> export.Order:
    """Return what asks for its checkpoint as ONNX."""
    (part,) = parts_of(job)
    return export.Order(part.checkpoint, part.checkpoint_sha256, "onnx", "fp32")


def predict(job: Job, engine: str | None, precision: str = "auto", **more: bool) -> None:
    compute = Compute("cpu", precision, 0, engine, **more)
    passes.predict_parts(parts_of(job), items_of(job), compute)


@pytest.mark.usefixtures("no_network")
def test_every_engine_answers_as_torch_does(job: Job, order: export.Order) -> None:
    (part,), items = parts_of(job), items_of(job)
    predict(job, None, "fp32")
    eager = read_views(part.views)[0]
    held, pixels = export.read_items(order, job.root, job.table, job.table["fold"] == 0, 512)
    assert held.tolist() == job.held_rows.tolist()
    _, calibration = export.read_items(order, job.root, job.table, job.table["fold"] != 0, 16)
    for engine, precision, share in WAYS:
        wanted = replace(order, engine=engine, precision=precision)
        assert not export.is_exported(wanted)
        check = export.export_checkpoint(wanted, pixels, job.labels[held], calibration)
        assert export.is_exported(wanted)
        assert check["items"] == len(held)
        assert check["max_logit_difference"] <= share * check["logit_spread"]
        predict(job, engine, precision)
        views, metadata = read_views(part.views)
        assert (metadata["engine"], metadata["precision"]) == (engine, precision)
        assert views["view"].tolist() == eager["view"].tolist()
        spread = float(eager["logit"].std())
        np.testing.assert_allclose(views["logit"], eager["logit"], rtol=0, atol=share * spread)
        assert stored.stored_predictions(part, items) is not None
        assert stored.stored_predictions(part, items, "auto", "eager") is None
        assert stored.stored_predictions(part, items, "auto", engine) is not None
    with pytest.raises(UserError, match=r"exported in fp32, int8: say which with --precision"):
        predict(job, "openvino")
    assert not export.is_exported(replace(order, sha256="0" * 64))


@pytest.mark.nightly
@pytest.mark.usefixtures("no_network")
def test_a_net_whose_attention_has_a_learned_bias_answers_alike(tmp_path: Path) -> None:
    """ForensicsAdapter's, on batches of 32 and of one."""
    small = {
        "tower_kwargs": {**TOWER, "depth": 1}, "side_depth": 1, "fusions": [[1, 0]],
        "intra_blocks": [1], "bottleneck_after": 1,
    }  # fmt: skip
    backbone = {"name": "forensics_adapter", "pretrained": "none", "kwargs": {**KWARGS, **small}}
    config = parse_model({"backbone": backbone, "input": {"image_size": 64}}, "small")
    model, _ = build_classifier(config)
    model.net.load_state_dict(small_adapter(**small).state_dict())
    path = tmp_path / "fold_0.safetensors"
    save_checkpoint(path, model, config.as_dict(), ["full"])
    shape = (export.BATCH + 1, 64, 64, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    for engine in ("onnx", "openvino"):  # the second one starts from the first one's file
        order = export.Order(path, sha256_file(path), engine, "fp32")
        check = export.export_checkpoint(order, pixels, np.arange(len(pixels)) % 2, pixels)
        assert check["logit_spread"] > 0.01
        assert check["max_logit_difference"] <= 1e-3 * check["logit_spread"]


def test_a_file_without_its_record_or_of_other_weights_is_refused(
    job: Job, order: export.Order
) -> None:
    record = order.path.with_suffix(".json")
    none_yet = r"no onnx file yet: python -m src export m --fold 0"
    with pytest.raises(UserError, match=none_yet):
        predict(job, "onnx")
    order.path.parent.mkdir()
    order.path.write_bytes(b"")
    with pytest.raises(UserError, match=none_yet):
        predict(job, "onnx")
    for text in ("{", "[]", '{"schema": 1}'):
        record.write_text(text)
        with pytest.raises(UserError, match=r"--fold 0 --engine onnx --precision fp32 --o"):
            predict(job, "onnx")
        assert not export.is_exported(order)
    content = {"schema": exported.SCHEMA, "checkpoint_sha256": "0" * 64}
    write_json(record, content, seal=True)
    with pytest.raises(UserError, match=r"exported from other weights.*--overwrite"):
        predict(job, "onnx")
    assert not export.is_exported(order)
    with pytest.raises(UserError, match=r"--compile is about torch, and --engine onnx"):
        predict(job, "onnx", compile=True)


def test_the_items_of_the_check_are_of_both_labels(job: Job, order: export.Order) -> None:
    for fold in range(3):
        for count in (2, 3, 5):
            rows, pixels = export.read_items(
                order, job.root, job.table, (job.table["fold"] == fold).to_numpy(), count
            )
            assert set(job.labels[rows]) == {0, 1}
            assert len(rows) == len(pixels) == count
    reals = (job.table["label"] == 0).to_numpy()
    rows, _ = export.read_items(order, job.root, job.table, reals, 4)
    assert len(rows) == 4
    assert reals[rows].all()


def test_a_check_of_one_label_has_no_auc_and_what_fails_leaves_nothing_behind(
    order: export.Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no such operator\nmore")

    monkeypatch.setattr(export, "write_graph", fail)
    pixels, labels = np.zeros((2, 12, 12, 3), np.uint8), np.array([1, 1])
    with pytest.raises(UserError, match=r"could not be exported to onnx fp32.*no such operator"):
        export.export_checkpoint(order, pixels, labels, pixels)
    assert list(order.path.parent.iterdir()) == []
    monkeypatch.setattr(export, "write_graph", write_something)
    monkeypatch.setitem(exported.ENGINE_OF, "onnx", Stub)
    killed = order.path.parent / f"{export.MAKING}killed"
    killed.mkdir()
    check = export.export_checkpoint(order, pixels, labels, pixels)
    assert np.isnan(check["auc"])
    record = json.loads(order.path.with_suffix(".json").read_text())
    assert record["check"]["auc"] is record["check"]["auc_eager"] is None
    assert not killed.exists()


@pytest.mark.parametrize(
    ("engine", "precision", "said"),
    [("onnx", "bf16", "knows fp32, int8, not bf16"), ("openvino", "fp16", "knows fp32, bf16")],
)
def test_a_precision_that_an_engine_does_not_know(engine: str, precision: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        export.check_order(engine, precision)


def test_a_missing_package_is_named_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"onnxruntime is not installed.*uv sync --extra export"):
        exported.load_package("onnxruntime")


def test_a_folder_of_a_packages_name_is_no_package(tmp_path, monkeypatch) -> None:
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    (tmp_path / "onnxruntime").mkdir()
    with pytest.raises(UserError, match="onnxruntime is not installed"):
        exported.load_package("onnxruntime")


def test_makers_of_the_engines_are_not_called() -> None:
    exported.load_package("openvino")
    with pytest.raises(ImportError):
        importlib.import_module("openvino_telemetry")


def test_the_command_exports_and_predicts_by_name(
    job: Job,
    order: export.Order,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Data:
        root = job.root
        train = job.table

    monkeypatch.setattr("src.cli.export.load_dataset", lambda *_: Data())
    monkeypatch.setattr("src.inference.export.write_graph", write_something)
    monkeypatch.setitem(exported.ENGINE_OF, "onnx", Stub)
    assert main(["m", "--data", "tiny"]) == 0
    said = capsys.readouterr().out
    assert f"m fold 0: onnx fp32 -> {order.path}" in said
    assert f"on {len(job.held_rows)} held-out items: AUC 0.5000 (eager" in said
    record = read_json(order.path.with_suffix(".json"), schema=1, what="record")
    assert record["checkpoint_sha256"] == order.sha256
    assert main(["m", "--data", "tiny"]) == 0
    assert "exported already" in capsys.readouterr().out
    assert main(["m", "--data", "tiny", "--fold", "2"]) == 2
    assert "no checkpoint (there are: 0)" in capsys.readouterr().err
    assert main(["other", "--data", "tiny"]) == 2
    assert paths.exported(order.checkpoint, "onnx", "fp32") == order.path


def write_something(*arguments: object) -> None:
    path = arguments[3]
    assert isinstance(path, Path)
    path.write_bytes(b"graph")


class Stub:
    def __init__(self, *_: object) -> None: ...

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(pixels))
