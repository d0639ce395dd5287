"""Checkpoints to files that ONNX Runtime and OpenVINO run, each held against eager torch.

int8 is made by these projects' own tools.
"""

import contextlib
import io
import logging
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from src.artifacts.atomic import own_folder
from src.artifacts.files import sha256_file, write_json
from src.data.batches.loader import EvalBatches
from src.data.pixels.source import Canvas, PixelSource
from src.errors import UserError
from src.inference.engines import Eager, Engine
from src.inference.exported import (
    ENGINE_OF,
    INPUT,
    OUTPUT,
    PACKAGES,
    PRECISIONS,
    SCHEMA,
    Order,
    check_exported,
    load_package,
)
from src.metrics import auc, classification_report
from src.models.checkpoint import load_checkpoint, read_input
from src.models.classifier import Classifier
from src.tensor_files import first_line

OPSET = 18
BATCH = 32  # images a pass of calibration and of the check
MAKING = ".making."


def is_exported(order: Order) -> bool:
    """Tell whether the file is there, of these weights, and the one that its record speaks of."""
    try:
        check_exported(order)
    except UserError:
        return False
    return True


def check_order(engine: str, precision: str) -> None:
    """Raise a UserError unless the engine is installed and knows the precision."""
    if precision not in PRECISIONS[engine]:
        raise UserError(f"--engine {engine} knows {', '.join(PRECISIONS[engine])}, not {precision}")
    for name in ("onnx", "onnxscript", PACKAGES[engine]):
        load_package(name)
    if engine == "openvino" and precision == "int8":
        load_package("nncf")


def export_checkpoint(
    order: Order,
    pixels: NDArray[np.uint8],
    labels: NDArray[np.int64],
    calibration: NDArray[np.uint8],
) -> dict[str, Any]:
    """Export a checkpoint, hold the file against eager fp32, and write both file and record.

    Args:
        order: what to export.
        pixels, labels: uint8 (n, s, s, 3) and 0/1 (n,) of items that the checkpoint never saw.
        calibration: uint8 (m, s, s, 3), training items from which int8 takes its ranges.

    Returns:
        The check, see `compare`. The AUC of one class alone is NaN, and null in the record.

    Raises:
        UserError: the exporter does not follow the net, or a logit is not finite.
    """
    cpu = torch.device("cpu")
    model, views = load_checkpoint(order.checkpoint, cpu)
    with own_folder(order.path.parent, MAKING) as folder:
        made = folder / order.path.name
        try:
            plain = replace(order, engine="onnx", precision="fp32")
            known = plain.path if plain != order and is_exported(plain) else None
            write_graph(model, order.engine, order.precision, made, calibration, known)
        except Exception as error:
            raise UserError(
                f"{order.checkpoint} could not be exported to {order.engine} {order.precision} "
                f"({first_line(error)}); predict without --engine"
            ) from error
        engine = ENGINE_OF[order.engine](made, model.spec, order.precision)
        check = compare(run(Eager(model, cpu, "fp32"), pixels), run(engine, pixels), labels)
        del engine  # it may hold the file open
        content = {
            "schema": SCHEMA,
            "checkpoint_sha256": order.sha256,
            "engine": order.engine,
            "precision": order.precision,
            "input": asdict(model.spec),
            "views": views,
            "check": {key: value if np.isfinite(value) else None for key, value in check.items()},
            "versions": {
                name: load_package(name).__version__ for name in ("onnx", PACKAGES[order.engine])
            },
        }
        # The record goes first and comes last: a file without it is one that was not finished.
        record = order.path.with_suffix(".json")
        record.unlink(missing_ok=True)
        written = sorted(made.parent.glob(f"{made.stem}.*"))  # .bin before .xml
        content["files"] = {file.name: sha256_file(file) for file in written}
        for file in written:
            file.replace(order.path.with_name(file.name))
        write_json(record, content, seal=True)
    return check


def run(engine: Engine, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return an engine's logits, float64 (n,), of uint8 (n, s, s, 3)."""
    with torch.inference_mode():
        parts = torch.from_numpy(pixels).split(BATCH)
        return torch.cat([engine(part).float() for part in parts]).double().numpy()


def compare(
    eager: NDArray[np.float64], other: NDArray[np.float64], labels: NDArray[np.int64]
) -> dict[str, float]:
    """Return scores of two sets of logits and how far they are apart.

    `items`, `auc_eager`, `auc`, `macro_f1_eager`, `macro_f1` (at 0.5), `max_logit_difference` and
    `logit_spread`, the standard deviation of eager's logits.
    """
    for what, logits in (("eager torch", eager), ("the exported file", other)):
        if not np.isfinite(logits).all():
            raise UserError(f"{what} gives a logit that is not finite; nothing was written")
    f1 = [classification_report(labels, logits, 0.5)["macro_f1"] for logits in (eager, other)]
    return {
        "items": len(labels),
        "auc_eager": auc(labels, eager),
        "auc": auc(labels, other),
        "macro_f1_eager": f1[0],
        "macro_f1": f1[1],
        "max_logit_difference": float(np.abs(eager - other).max()),
        "logit_spread": float(eager.std()),
    }


def read_items(
    order: Order, root: Path, table: pd.DataFrame, wanted: NDArray[np.bool_], count: int
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Draw items of a data set; return their rows, int64 (n,), and pixels, uint8 (n, s, s, 3).

    At most so many of the `wanted` rows of the table (`path`, `label`), always the same ones and
    (from 2 on) of both labels where both are there; the pixels are as the checkpoint sees them.

    Raises:
        UserError: an item cannot be decoded.
    """
    spec, _ = read_input(order.checkpoint)
    drawn = np.random.default_rng(0).permutation(np.flatnonzero(wanted))
    first = np.unique(table["label"].to_numpy()[drawn], return_index=True)[1]  # of each label
    drawn = np.concatenate([drawn[first], np.delete(drawn, first)])[:count]
    rows = np.sort(drawn).astype(np.int64)
    source = PixelSource(root, table["path"].tolist(), [Canvas.of(spec)])
    frames = source.numbers.eval_rows(rows)  # of a clip its first
    batch = EvalBatches(source, [spec])[frames.rows[frames.frame <= 0].tolist()]
    if not bool(batch["readable"].all()):
        source.read_or_stop(int(rows[int((~batch["readable"]).int().argmax())]))
    return rows, batch["pixels0"].numpy()


class Graph(nn.Module):
    """A model as exporters follow it: one tensor in, one out, preprocessing between them."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        """Map uint8 (n, s, s, 3) to float logits (n,)."""
        return self.model({INPUT: pixels})[OUTPUT]


def write_graph(
    model: Classifier,
    engine: str,
    precision: str,
    path: Path,
    calibration: NDArray[np.uint8],
    known: Path | None = None,
) -> None:
    """Write a model, in eval mode on the CPU, as a file of an engine.

    OpenVINO's .xml gets a .bin beside it, which for bf16 is the same as for fp32. `calibration`,
    uint8 (m, s, s, 3), gives int8 its ranges; `known` is the same model as ONNX in fp32, where that
    was exported already.

    Raises:
        Exception: whatever an exporter makes of a net that it does not follow.
    """
    with quietly():
        onnx_path = path.with_name("graph.onnx")
        if known is not None:
            shutil.copyfile(known, onnx_path)
        else:
            _write_onnx(model, onnx_path)
        if engine == "onnx" and precision == "int8":
            _quantise_onnx(onnx_path, path, calibration)
            onnx_path.unlink()
        elif engine == "onnx":
            onnx_path.rename(path)
        else:
            _write_openvino(onnx_path, path, precision, calibration, model)
            onnx_path.unlink()


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Exporters print progress and warn of their own insides; errors still pass."""
    names = ("", "torch.onnx", "nncf", "onnxscript")  # ONNX Runtime speaks through the root
    levels = [(log, log.level) for log in map(logging.getLogger, names)]
    try:
        for log, _ in levels:
            log.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for log, level in levels:
            log.setLevel(level)


@torch.no_grad()  # attention with a learned bias is traced as another kernel where it has gradients
def _write_onnx(model: Classifier, path: Path) -> None:
    size = model.spec.image_size
    pixels = torch.zeros(2, size, size, 3, dtype=torch.uint8)  # one would fix the batch's length
    torch.onnx.export(
        Graph(model).eval(),
        (pixels,),
        str(path),
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes={"pixels": {0: torch.export.Dim("n", min=1)}},
        opset_version=OPSET,
        dynamo=True,
        external_data=False,
        verbose=False,
    )


def _write_openvino(
    onnx_path: Path, path: Path, precision: str, calibration: NDArray[np.uint8], model: Classifier
) -> None:
    openvino = load_package("openvino")
    graph = openvino.Core().read_model(onnx_path)  # convert_model would ask its maker's server
    if precision == "int8":
        nncf = load_package("nncf")
        batches = [calibration[i : i + BATCH] for i in range(0, len(calibration), BATCH)]
        transformer = any(hasattr(module, "fused_attn") for module in model.modules())
        graph = nncf.quantize(
            graph,
            nncf.Dataset(batches),
            subset_size=len(batches),
            preset=nncf.QuantizationPreset.MIXED,
            model_type=nncf.ModelType.TRANSFORMER if transformer else None,
        )
    openvino.save_model(graph, path, compress_to_fp16=False)


def _quantise_onnx(source: Path, path: Path, calibration: NDArray[np.uint8]) -> None:
    quantization = load_package("onnxruntime.quantization")
    shape_inference = load_package("onnxruntime.quantization.shape_inference")
    prepared = source.with_name("prepared.onnx")
    shape_inference.quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
    quantization.quantize_static(
        str(prepared),
        str(path),
        _Reader(calibration),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
    )
    prepared.unlink()


class _Reader:
    """Gives ONNX Runtime its calibration batches, one at a call, then None."""

    def __init__(self, calibration: NDArray[np.uint8]) -> None:
        self.parts = iter([{INPUT: calibration[i : i + 1]} for i in range(len(calibration))])

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        return next(self.parts, None)
