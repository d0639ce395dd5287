"""What a model costs to run: weights, work, file, memory, latency; throughput beside others."""

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from src.artifacts.fingerprints import fingerprint_of
from src.compute.device import choose_device, inference_precision
from src.config import ModelConfig, parse_model
from src.errors import UserError
from src.inference.engines import Eager, Engine
from src.inference.export import write_graph
from src.inference.exported import ENGINE_OF, PRECISIONS, Order, check_exported
from src.models.backbones import build_backbone
from src.models.checkpoint import load_checkpoint, read_facts
from src.models.classifier import Classifier, build_classifier, measure
from src.progress import track
from src.tensor_files import first_line

WARM_CALLS = 20  # of one image, after the first
NO_PIXELS = np.empty((0, 1, 1, 3), np.uint8)


@dataclass(frozen=True)
class Way:
    """A model and how it is run."""

    name: str  # of the model, or of the file
    config: ModelConfig
    checkpoint: Path | None = None  # None: random weights, which cost the same
    engine: str = "eager"  # one of `ENGINES`
    precision: str = "fp32"
    file: Path | None = None  # what the engine runs, of others than eager

    @property
    def title(self) -> str:
        """Return the name, and how it is run where that is not eager fp32."""
        if (self.engine, self.precision) == ("eager", "fp32"):
            return self.name
        return f"{self.name} ({self.engine} {self.precision})"


@dataclass(frozen=True)
class FreshRun:
    """What a process of its own saw that ran one model."""

    load_seconds: float  # from imported libraries to a model that is ready
    first_seconds: float  # the first image after that
    warm_seconds: float  # one image later on, the median
    peak_bytes: int  # of the process; on a GPU what torch held there
    library_bytes: int  # of it before the model was loaded; 0 on a GPU


@dataclass(frozen=True)
class Turns:
    """Throughput of one model, a figure a round."""

    images_per_second: tuple[float, ...]
    # the same over the seconds that the process had its cores, times threads: what other work on
    # the machine takes is not in it; on a GPU it says nothing
    images_per_cpu_second: tuple[float, ...]

    @property
    def median(self) -> float:
        """Return the median, images a second."""
        return float(np.median(self.images_per_second))

    @property
    def spread(self) -> float:
        """Return highest less lowest, as a share of the median."""
        return float(np.ptp(self.images_per_second)) / self.median

    @property
    def share(self) -> float:
        """Return the share of its threads' time that the process had its cores, the median."""
        wall, cpu = np.array(self.images_per_second), np.array(self.images_per_cpu_second)
        return float(np.median(wall / cpu))

    def factor(self, other: "Turns") -> float:
        """Return how many times faster this is, the median over rounds of the same turn."""
        mine, others = np.array(self.images_per_second), np.array(other.images_per_second)
        return float(np.median(mine / others))


@dataclass(frozen=True)
class Cost:
    """All figures of one way."""

    way: Way
    image_size: int  # px
    parameters: int  # of the net, as it is deployed
    macs: float  # multiply-accumulates of one image
    file_bytes: int
    file_kind: str  # `checkpoint`, `exported`, or `weights`: fp32 tensors, no file yet
    fresh: FreshRun
    turns: Turns


def text_tower(width: int = 512, layers: int = 12, embed: int = 512) -> int:
    """Return the weights of a CLIP text tower (Radford et al. 2021) of 49,408 words, 77 places.

    Without the scale of its logits. A deployed classifier needs none of it.
    """
    block = 12 * width**2 + 13 * width  # attention 4 w^2, MLP 8 w^2, biases and two LayerNorms
    return (49408 + 77) * width + layers * block + 2 * width + width * embed


def way_of(what: str, config: Callable[[str], ModelConfig]) -> Way:
    """Return what a name or a file stands for: a config, a checkpoint, an exported file.

    Raises:
        UserError: no such file, or one that is none of these; whatever `config` raises of a name.
    """
    path = Path(what)
    if path.suffix not in (".safetensors", ".onnx", ".xml"):
        return Way(what, config(what))
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if path.suffix == ".safetensors":
        return Way(_label(path), read_facts(path)[1], path)
    parts = path.stem.rsplit(".", 2)  # see `paths.exported`
    checkpoint = path.parent.parent / f"{parts[0]}.safetensors"
    known = len(parts) == 3 and parts[2] in PRECISIONS.get(parts[1], ())
    if not known or not checkpoint.is_file():
        raise UserError(
            f"{path}: want a file that python -m src export wrote, with its checkpoint in the "
            "folder above"
        )
    way = Way(_label(checkpoint), read_facts(checkpoint)[1], checkpoint, parts[1], parts[2], path)
    check_exported(Order(checkpoint, fingerprint_of(checkpoint), way.engine, way.precision))
    return way


def _label(checkpoint: Path) -> str:
    return f"{checkpoint.parent.name} {checkpoint.stem}"


def run_as(way: Way, engine: str, precision: str, device: torch.device) -> Way:
    """Return a way with another engine; an exported file is the one it is.

    Raises:
        UserError: a precision that the engine lacks.
    """
    if way.file is not None:
        return way
    if engine == "eager":
        if precision == "int8":
            raise UserError("--precision int8 wants --engine onnx or openvino")
        return replace(way, precision=inference_precision(device, precision))
    if device.type != "cpu":
        raise UserError(f"--engine {engine} runs on the CPU here; add --device cpu")
    precision = "fp32" if precision == "auto" else precision
    if precision not in PRECISIONS[engine]:
        raise UserError(f"--engine {engine} knows {', '.join(PRECISIONS[engine])}, not {precision}")
    way = replace(way, engine=engine, precision=precision)
    if way.checkpoint is None:
        return way
    order = Order(way.checkpoint, fingerprint_of(way.checkpoint), engine, precision)
    if not order.path.is_file():
        return way
    check_exported(order)
    return replace(way, file=order.path)


def with_file(way: Way, folder: Path) -> Way:
    """Return a way whose engine has its file: exported already, or now into a folder.

    Raises:
        UserError: int8, which wants images to take its ranges from, or a net that the exporter
            does not follow.
    """
    if way.engine == "eager" or way.file is not None:
        return way
    if way.precision == "int8":
        raise UserError(f"{way.name} has no {way.engine} int8 file: python -m src export makes one")
    suffix = {"onnx": "onnx", "openvino": "xml"}[way.engine]
    folder.mkdir(parents=True)
    path = folder / f"net.{suffix}"
    try:
        write_graph(_net(way, torch.device("cpu")), way.engine, way.precision, path, NO_PIXELS)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{way.name} could not be exported to {way.engine} {way.precision} "
            f"({first_line(error)}); leave it out, or --engine eager"
        ) from error
    return replace(way, file=path)


def _net(way: Way, device: torch.device) -> Classifier:
    if way.checkpoint is not None:
        return load_checkpoint(way.checkpoint, device)[0]
    return build_classifier(way.config)[0].to(device).eval()


def open_engine(way: Way, device: torch.device) -> Engine:
    """Return what runs a way; engines take as many threads as torch has."""
    if way.engine == "eager":
        return Eager(_net(way, device), device, way.precision)
    assert way.file is not None
    spec = read_facts(way.checkpoint)[2] if way.checkpoint else measure(way.config)[2]
    return ENGINE_OF[way.engine](way.file, spec, way.precision)


def count_bytes(way: Way, made: Path) -> tuple[int, str]:
    """Return the size of what is shipped, in bytes, and what that is; see `Cost`.

    `made` is the folder of files that were exported for the measurement alone.
    """
    if way.file is not None and made not in way.file.parents:
        files = [way.file, way.file.with_suffix(".bin")]
        return sum(file.stat().st_size for file in files if file.is_file()), "exported"
    if way.checkpoint is not None:
        return way.checkpoint.stat().st_size, "checkpoint"
    with torch.device("meta"):
        net, _ = build_backbone(way.config.backbone, way.config.input.image_size, way.config.head)
    return sum(t.numel() * t.element_size() for t in net.state_dict().values()), "weights"


def peak_memory() -> int:
    """Return the most bytes that this process held at once.

    Not `ru_maxrss`, in which a child begins at what its parent had.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        lines = status.read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def run_fresh(way: Way, device: str, batch: int, threads: int) -> FreshRun:
    """Run a model in a process of its own, one image at a time, then in batches."""
    context = multiprocessing.get_context("spawn")
    sent = vars(way) | {"config": asdict(way.config)}  # a model can't be pickled
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_run_here, sent, device, batch, threads).result()


def _run_here(sent: dict[str, Any], device: str, batch: int, threads: int) -> FreshRun:
    way = Way(**{**sent, "config": parse_model(sent["config"], sent["name"])})
    torch.set_num_threads(threads)
    chip = choose_device(device)
    on_gpu = chip.type == "cuda"
    before = 0 if on_gpu else peak_memory()
    start = time.perf_counter()
    engine = open_engine(way, chip)
    loaded = time.perf_counter() - start
    seconds = [_timed(engine, _pixels(engine, 1, chip), chip)[0] for _ in range(1 + WARM_CALLS)]
    for _ in range(2):
        _timed(engine, _pixels(engine, batch, chip), chip)
    peak = torch.cuda.max_memory_allocated(chip) if on_gpu else peak_memory()
    return FreshRun(loaded, seconds[0], float(np.median(seconds[1:])), peak, before)


def _pixels(engine: Engine, count: int, device: torch.device) -> torch.Tensor:
    size = engine.spec.image_size
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, size, size, 3), generator=generator).byte().to(device)


def _timed(engine: Engine, pixels: torch.Tensor, device: torch.device) -> tuple[float, float]:
    """Return the seconds that a call took, by the clock and of the CPU."""
    wall, cpu = time.perf_counter(), time.process_time()
    with torch.inference_mode():
        engine(pixels)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - wall, time.process_time() - cpu


def time_in_turns(
    engines: Sequence[Engine],
    device: torch.device,
    *,
    batch: int,
    threads: int,
    rounds: int,
    seconds: float,
) -> list[Turns]:
    """Measure throughput: in each round every engine has one turn, of about so many seconds.

    Other work on the machine meets all of them alike; every other round goes backwards.
    """
    pixels = [_pixels(engine, batch, device) for engine in engines]
    calls = []
    for engine, images in zip(engines, pixels, strict=True):
        _timed(engine, images, device)
        calls.append(max(1, round(seconds / max(1e-6, _timed(engine, images, device)[0]))))
    found: list[list[tuple[float, float]]] = [[] for _ in engines]
    for number in track(range(rounds), "throughput", unit="round"):
        order = range(len(engines)) if number % 2 == 0 else reversed(range(len(engines)))
        for one in order:
            turn = [_timed(engines[one], pixels[one], device) for _ in range(calls[one])]
            wall, cpu = np.sum(turn, 0)
            images = batch * calls[one]
            found[one].append((images / wall, images / max(cpu / threads, 1e-9)))
    return [Turns(*zip(*one, strict=True)) for one in found]


def measure_ways(
    ways: Sequence[Way],
    folder: Path,
    *,
    device: str,
    batch: int,
    threads: int,
    rounds: int,
    seconds: float,
) -> list[Cost]:
    """Measure several ways side by side.

    Args:
        ways: what to measure.
        folder: an empty one, for files that are exported for this alone.
        device: as `choose_device` takes it.
        batch: images a forward pass, of throughput and of the peak memory.
        threads: of torch, and of the engines.
        rounds, seconds: see `time_in_turns`.

    Raises:
        UserError: a net that cannot be built, loaded or exported.
    """
    chip, before = choose_device(device), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        counted = [measure(way.config) for way in ways]
        ready = [with_file(way, folder / str(n)) for n, way in enumerate(ways)]
        fresh = [
            run_fresh(way, device, batch, threads)
            for way in track(ready, "in a process of its own", unit="model")
        ]
        engines = [open_engine(way, chip) for way in ready]
        turns = time_in_turns(
            engines, chip, batch=batch, threads=threads, rounds=rounds, seconds=seconds
        )
    finally:
        torch.set_num_threads(before)
    return [
        Cost(way, spec.image_size, parameters, macs, *count_bytes(way, folder), run, turn)
        for way, (parameters, macs, spec), run, turn in zip(
            ready, counted, fresh, turns, strict=True
        )
    ]


def load_average() -> float:
    """Return the machine's load of the last minute, NaN where it does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
