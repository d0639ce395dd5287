"""Exported files answer as torch does, say what they are of, and nothing leaves the machine."""

import fcntl
import importlib
import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from src import paths
from src.artifacts.files import read_json, write_json
from src.artifacts.oof import read_views
from src.artifacts.recipes import Member, Recipe
from src.compute.request import Compute
from src.errors import UserError
from src.inference import export, exported, passes, stored
from src.training.job import Job
from src.training.trainer import fit_fold

MakeJob = Callable[..., Job]
WAYS = [("onnx", "fp32", 1e-3), ("openvino", "fp32", 1e-3), ("openvino", "int8", 0.5)]


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every attempt to reach another machine an error."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def trained(make_job: MakeJob, **changes: object) -> tuple[Job, export.Order]:
    job = make_job(**changes)
    fit_fold(job)
    part = part_of(job)
    return job, export.Order(part.checkpoint, part.checkpoint_sha256, "onnx", "fp32")


def part_of(job: Job) -> stored.Part:
    recipe = Recipe("tiny", "s", [0], "", [Member(job.model, 1.0, 0.5, {})], [])
    return stored.needed_parts(recipe)[0]


def items_of(job: Job) -> stored.TestItems:
    table = job.table
    return stored.TestItems(job.root, table["item_id"].tolist(), table["path"].tolist(), "m")


@pytest.mark.usefixtures("no_network")
def test_every_engine_answers_as_torch_does(make_job: MakeJob) -> None:
    job, first = trained(make_job, tta="flip")
    part, items = part_of(job), items_of(job)
    passes.predict_parts([part], items, Compute("cpu", "fp32", 0))
    eager = read_views(part.views)[0]
    held, pixels = export.read_items(first, job.root, job.table, job.table["fold"] == 0, 512)
    assert held.tolist() == job.held_rows.tolist()
    _, calibration = export.read_items(first, job.root, job.table, job.table["fold"] != 0, 16)
    for engine, precision, share in WAYS:
        order = export.Order(first.checkpoint, first.sha256, engine, precision)
        assert not export.is_exported(order)
        check = export.export_checkpoint(order, pixels, job.labels[held], calibration)
        assert export.is_exported(order)
        assert check["items"] == len(held)
        assert check["max_logit_difference"] <= share * check["logit_spread"]
        passes.predict_parts([part], items, Compute("cpu", precision, 0, engine=engine))
        views, metadata = read_views(part.views)
        assert (metadata["engine"], metadata["precision"]) == (engine, precision)
        assert views["view"].tolist() == eager["view"].tolist()
        spread = float(eager["logit"].std())
        np.testing.assert_allclose(views["logit"], eager["logit"], rtol=0, atol=share * spread)
        assert stored.stored_predictions(part, items) is not None
        assert stored.stored_predictions(part, items, "auto", "eager") is None
        assert stored.stored_predictions(part, items, "auto", engine) is not None
    with pytest.raises(UserError, match=r"exported in fp32, int8: say which with --precision"):
        passes.predict_parts([part], items, Compute("cpu", "auto", 0, engine="openvino"))
    changed = export.Order(first.checkpoint, "0" * 64, "onnx", "fp32")
    assert not export.is_exported(changed)


def test_a_file_of_other_weights_is_refused(make_job: MakeJob) -> None:
    job, order = trained(make_job)
    part, items = part_of(job), items_of(job)
    with pytest.raises(UserError, match=r"no onnx file yet: python -m src export m --fold 0"):
        passes.predict_parts([part], items, Compute("cpu", "auto", 0, engine="onnx"))
    order.path.parent.mkdir()
    order.path.write_bytes(b"")
    content = {"schema": exported.SCHEMA, "checkpoint_sha256": "0" * 64}
    write_json(order.path.with_suffix(".json"), content, seal=True)
    with pytest.raises(UserError, match=r"exported from other weights.*--overwrite"):
        passes.predict_parts([part], items, Compute("cpu", "auto", 0, engine="onnx"))
    assert not export.is_exported(order)


def test_a_record_that_is_lacking_or_damaged_says_how_to_make_it(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, order = trained(make_job)
    part, items = part_of(job), items_of(job)
    order.path.parent.mkdir()
    order.path.write_bytes(b"")
    with pytest.raises(UserError, match=r"no onnx file yet: python -m src export m --fold 0"):
        passes.predict_parts([part], items, Compute("cpu", "auto", 0, engine="onnx"))
    for text in ("{", "[]", '{"schema": 1}'):
        order.path.with_suffix(".json").write_text(text)
        with pytest.raises(UserError, match=r"--fold 0 --engine onnx --precision fp32 --o"):
            passes.predict_parts([part], items, Compute("cpu", "auto", 0, engine="onnx"))
        assert not export.is_exported(order)


def test_engines_other_than_torch_are_not_compiled(make_job: MakeJob) -> None:
    job, _ = trained(make_job)
    with pytest.raises(UserError, match=r"--compile is about torch, and --engine onnx"):
        passes.predict_parts(
            [part_of(job)],
            items_of(job),
            Compute("cpu", "auto", 0, engine="onnx", compile=True),
        )


def test_the_items_of_the_check_are_of_both_labels(make_job: MakeJob) -> None:
    job, order = trained(make_job)
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


def test_a_check_of_one_label_has_no_auc_and_killed_exports_are_swept(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, order = trained(make_job)
    monkeypatch.setattr(export, "write_graph", write_something)
    monkeypatch.setitem(exported.ENGINE_OF, "onnx", Stub)
    home = order.path.parent
    for name in ("killed", "living"):
        (home / f"{export.MAKING}{name}").mkdir(parents=True)
    lock = os.open(home / f"{export.MAKING}living", os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    pixels = np.zeros((2, 12, 12, 3), np.uint8)
    check = export.export_checkpoint(order, pixels, np.array([1, 1]), pixels)
    os.close(lock)
    assert np.isnan(check["auc"])
    record = json.loads(order.path.with_suffix(".json").read_text())
    assert record["check"]["auc"] is record["check"]["auc_eager"] is None
    assert [path.name for path in home.glob(f"{export.MAKING}*")] == [f"{export.MAKING}living"]


def test_what_fails_leaves_nothing_behind(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, order = trained(make_job)

    def fail(*_: object) -> None:
        raise RuntimeError("no such operator\nmore")

    monkeypatch.setattr(export, "write_graph", fail)
    pixels, labels = np.zeros((2, 12, 12, 3), np.uint8), np.array([0, 1])
    with pytest.raises(UserError, match=r"could not be exported to onnx fp32.*no such operator"):
        export.export_checkpoint(order, pixels, labels, pixels)
    assert list(order.path.parent.iterdir()) == []


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


def test_makers_of_the_engines_are_not_called() -> None:
    exported.load_package("openvino")
    with pytest.raises(ImportError):
        importlib.import_module("openvino_telemetry")


def test_the_command_exports_and_predicts_by_name(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from src.cli.export import main

    job, order = trained(make_job)

    class Data:
        root = job.root
        train = job.table

    monkeypatch.setattr("src.data.layouts.load.load_dataset", lambda *_: Data())
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

    def __call__(self, pixels):
        import torch

        return torch.zeros(len(pixels))
