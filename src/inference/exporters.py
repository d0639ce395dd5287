"""Writes models as ONNX and OpenVINO graphs, int8 through these projects' own tools."""

import contextlib
import io
import logging
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from src.inference.exported import INPUT, OUTPUT, load_package
from src.models.classifier import Classifier

OPSET = 18
BATCH = 32  # images a pass of calibration and of the check


class _Graph(nn.Module):
    """uint8 (n, s, s, 3) in, float (n,) out: preprocessing is part of the file."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        return self.model({INPUT: pixels})[OUTPUT]


def write_graph(
    model: Classifier,
    engine: str,
    precision: str,
    path: Path,
    calibration: NDArray[np.uint8],
    known: Path | None = None,
) -> None:
    """Write a model as a file of an engine; OpenVINO's .xml gets a .bin beside it.

    Args:
        model: in eval mode, on the CPU.
        engine: onnx or openvino.
        precision: fp32, bf16 or int8; for bf16 the file is the same as for fp32.
        path: where to.
        calibration: uint8 (m, s, s, 3), images from which int8 takes its ranges.
        known: the same model as ONNX in fp32, where that was exported already.

    Raises:
        Exception: whatever an exporter makes of a net that it does not follow.
    """
    with _quietly():
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
def _quietly() -> Iterator[None]:
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


def _write_onnx(model: Classifier, path: Path) -> None:
    size = model.spec.image_size
    pixels = torch.zeros(2, size, size, 3, dtype=torch.uint8)  # one would fix the batch's length
    torch.onnx.export(
        _Graph(model).eval(),
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
