"""Exported files: ONNX Runtime and OpenVINO as engines of `predict_views`."""

import importlib
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from src import paths
from src.artifacts.files import read_json
from src.artifacts.fingerprints import fingerprint_of
from src.artifacts.packages import is_installed
from src.config import InputSpec
from src.errors import UserError
from src.machine import cpu_count
from src.models.checkpoint import read_input

SCHEMA = 1
PACKAGES = {"onnx": "onnxruntime", "openvino": "openvino"}
PRECISIONS = {"onnx": ("fp32", "int8"), "openvino": ("fp32", "bf16", "int8")}
INPUT, OUTPUT = "pixels", "logit"
DYNAMIC = b"DynamicQuantizeLinear"


@dataclass(frozen=True)
class Order:
    """A file to be exported, or exported."""

    checkpoint: Path  # fold_k.safetensors
    sha256: str  # of it
    engine: str  # onnx or openvino
    precision: str  # one of the engine's

    @property
    def path(self) -> Path:
        """Return the exported file."""
        return paths.exported(self.checkpoint, self.engine, self.precision)


def load_package(name: str) -> Any:  # noqa: ANN401 - a module
    """Import a package of the `export` extra.

    Raises:
        UserError: it is not installed.
    """
    # OpenVINO and NNCF would call their makers; without this package they do not.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    # NNCF makes torch look for a CUDA compiler, and torch warns that there is none.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    try:
        if not is_installed(name.partition(".")[0]):
            raise ImportError(f"No module named {name!r}")
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"{name} is not installed ({error}); it comes with the export extra: "
            "uv sync --extra export, or pip install onnx onnxruntime onnxscript openvino nncf"
        ) from None


def load_exported(
    checkpoint: Path, sha256: str, engine: str, precision: str, device: torch.device, name: str
) -> tuple["OnnxEngine | OpenVinoEngine", list[str]]:
    """Open the exported file of a checkpoint; returns the engine and its predictions' views.

    The precision `auto` takes the only one that was exported; `name` is "model fold k".

    Raises:
        UserError: not exported (a file without its JSON was not finished), exported from other
            weights, several precisions and none named, or a device other than the CPU.
    """
    if device.type != "cpu":
        raise UserError(f"--engine {engine} runs on the CPU here; add --device cpu")
    if precision not in ("auto", *PRECISIONS[engine]):
        raise UserError(f"--engine {engine} knows {', '.join(PRECISIONS[engine])}, not {precision}")
    orders = {p: Order(checkpoint, sha256, engine, p) for p in PRECISIONS[engine]}
    files = {p: order.path for p, order in orders.items()}
    found = [p for p in files if files[p].is_file() and files[p].with_suffix(".json").is_file()]
    wanted = found if precision == "auto" else [p for p in found if p == precision]
    model, _, fold = name.partition(" fold ")
    make = f"python -m src export {model} --fold {fold} --engine {engine}"
    if not wanted:
        also = "" if precision == "auto" else f" --precision {precision}"
        raise UserError(f"{name} has no {engine} file yet: {make}{also}")
    if len(wanted) > 1:
        raise UserError(f"{name} was exported in {', '.join(wanted)}: say which with --precision")
    try:
        check_exported(orders[wanted[0]])
    except UserError as error:
        raise UserError(f"{error}: {make} --precision {wanted[0]} --overwrite") from None
    spec, views = read_input(checkpoint)  # they travel with the weights; the JSON repeats them
    return ENGINE_OF[engine](files[wanted[0]], spec, wanted[0]), views


def check_exported(order: Order) -> None:
    """Hold an exported file against the record beside it.

    Raises:
        UserError: no record, a damaged one, one of other weights, another engine or precision, or
            files that are gone or not those it speaks of.
    """
    path = order.path
    info = read_json(path.with_suffix(".json"), schema=SCHEMA, what="export record", sealed=True)
    if info.get("checkpoint_sha256") != order.sha256:
        raise UserError(f"{path} was exported from other weights than the checkpoint holds now")
    if (info.get("engine"), info.get("precision")) != (order.engine, order.precision):
        raise UserError(f"{path}: its record is of another file")
    for name, expected in info["files"].items():
        file = path.with_name(name)
        if not file.is_file() or fingerprint_of(file) != expected:
            raise UserError(f"{file}: not the file that was exported")


class OnnxEngine:
    """ONNX Runtime on the CPU, with as many threads as torch has, of an .onnx file."""

    engine = "onnx"

    def __init__(self, path: Path, spec: InputSpec, precision: str) -> None:
        runtime = load_package(PACKAGES[self.engine])
        self.spec, self.precision = spec, precision
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        _refuse_dynamic(path)
        try:
            self.session = runtime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise UserError(f"{path}: not a usable ONNX file ({error}); export it again") from error

    def __call__(self, pixels: Tensor) -> Tensor:
        """Map uint8 (n, s, s, 3) to float logits (n,)."""
        return torch.from_numpy(self.session.run([OUTPUT], {INPUT: pixels.numpy()})[0])


def _refuse_dynamic(path: Path) -> None:
    """Raise where activations are quantised by a scale of each batch; the graph says so."""
    if DYNAMIC in path.read_bytes():  # the name of the operator, as it stands in the file
        raise UserError(
            f"{path}: dynamically quantised ({DYNAMIC.decode()}): its scales are of each batch, so "
            "that an item's logit depends on its neighbours; only static int8 is run: "
            "python -m src export MODEL --engine onnx --precision int8"
        )


class OpenVinoEngine:
    """OpenVINO on the CPU, with as many threads as torch has, of an .xml file with its .bin.

    fp32 and bf16 differ in how the same file is run.
    """

    engine = "openvino"

    def __init__(self, path: Path, spec: InputSpec, precision: str) -> None:
        openvino = load_package("openvino")
        self.spec, self.precision = spec, precision
        try:
            self.request = compile_openvino(openvino.Core().read_model(path), precision)
        except Exception as error:
            raise UserError(
                f"{path}: not a usable OpenVINO file ({error}); export it again"
            ) from error

    def __call__(self, pixels: Tensor) -> Tensor:
        """Map uint8 (n, s, s, 3) to float logits (n,)."""
        return run_openvino(self.request, pixels)


def compile_openvino(graph: Any, precision: str) -> Any:  # noqa: ANN401 - OpenVINO's
    """Return what runs OpenVINO's form of a net on the CPU, in fp32 unless bf16 is asked for.

    On as many threads as torch has, none of them bound to a core: two processes that bind
    themselves take the same ones.
    """
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": min(torch.get_num_threads(), cpu_count()),
        "ENABLE_CPU_PINNING": False,
        # Left open it would be bf16 wherever the CPU has it.
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
    }
    return load_package("openvino").Core().compile_model(graph, "CPU", settings)


def run_openvino(request: Any, pixels: Tensor) -> Tensor:  # noqa: ANN401 - OpenVINO's
    """Map uint8 (n, s, s, 3) to float logits (n,)."""
    logits = request(np.ascontiguousarray(pixels.numpy()))[0]
    return torch.from_numpy(np.array(logits, np.float32))


ENGINE_OF: dict[str, type[OnnxEngine] | type[OpenVinoEngine]] = {
    "onnx": OnnxEngine,
    "openvino": OpenVinoEngine,
}
