"""Where to compute, in which arithmetic, and through torch.compile or not."""

import atexit
import json
import os
import platform
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache
from pathlib import Path

import torch

from src import paths
from src.artifacts.atomic import file_lock, own_folder
from src.artifacts.files import sha256_json, write_json
from src.compute import ranks
from src.config import BackboneConfig
from src.errors import UserError
from src.machine import keep_freed_memory
from src.models.classifier import Classifier
from src.tensor_files import first_line

PROBE_STEPS = 3
PROBE_IMAGES = 32
PROBE_FIRST = 2
PROBE_SECONDS = 1.0  # of a step
PROBE_GAIN = 1.1  # bf16 must be this much faster on the CPU to be worth its rounding
BACKEND = "inductor"
# What is remembered of a chip: a precision, and of a prediction from how many images on another way
# is faster, or is worth trying (`inference/trial`).
ANSWER = re.compile(r"(fp32|bf16)(, from (\d+) images (openvino|\?))?")
_folders = ExitStack()  # of compilations, open for as long as this process lives
atexit.register(_folders.close)


def choose_device(wanted: str) -> torch.device:
    """Return the device for `--device` (`auto` takes a GPU where there is one).

    Of several ranks on a machine each has a card of its own: the one of its number, or the only one
    that a scheduler lets it see. torchrun's ranks all see the same.
    """
    if ranks.count() > 1 and wanted in ("auto", "cuda") and torch.cuda.is_available():
        cards, local = torch.cuda.device_count(), ranks.local()
        if cards == 1 and not ranks.by_torchrun():
            local = 0
        if local >= cards:
            raise UserError(
                f"{ranks.host()}: {ranks.neighbours()} ranks and {cards} cards on this machine, "
                f"one a rank: --ddp {cards}, or --nproc_per_node {cards}"
            )
        wanted = f"cuda:{local}"
    if wanted == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(wanted)
        if torch.ones(1, device=device).sum().item() != 1:  # `meta` computes nothing
            raise RuntimeError("it does not compute")
    except (RuntimeError, AssertionError, NotImplementedError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"--device {wanted[:40]}: not usable here ({reason}); try cpu") from None
    if device.type == "cuda":  # else pinned memory and probes would take the first card
        torch.cuda.set_device(device)
    return device


def device_name(device: torch.device) -> str:
    """Return the name of the chip that computes."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({platform.processor() or platform.machine()})"


def card_id(device: torch.device) -> str:
    """Return what no other card in the world is called; "" for what is no card of NVIDIA's."""
    if device.type != "cuda":
        return ""
    return str(getattr(torch.cuda.get_device_properties(device), "uuid", ""))


def chip_name(device: torch.device) -> str:
    """Return the name of the chip in full, as it goes beside measured figures."""
    cpuinfo = Path("/proc/cpuinfo")
    if device.type != "cpu" or not cpuinfo.is_file():
        return device_name(device)
    names = re.findall(r"^model name\s*: (.*)$", cpuinfo.read_text(), re.MULTILINE)
    return names[0] if names else device_name(device)


def set_deterministic(device: torch.device) -> None:
    """Make runs repeatable on the CPU; on a GPU prefer speed. Keeps freed memory for reuse."""
    keep_freed_memory()
    torch.use_deterministic_algorithms(device.type == "cpu", warn_only=True)
    # Filling fresh memory with NaN costs time and decides nothing.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = device.type == "cuda"


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Return the autocast context of a precision (`fp32` is a context that does nothing)."""
    dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None)


def inference_precision(device: torch.device, wanted: str) -> str:
    """Return the precision for out-of-fold and test predictions: exact on the CPU."""
    if wanted != "auto":
        return wanted
    return _gpu_precision() if device.type == "cuda" else "fp32"


def _gpu_precision() -> str:
    # A T4 emulates bf16, far slower than its fp16.
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def training_precision(
    wanted: str,
    device: torch.device,
    model: Classifier,
    backbone: BackboneConfig,
    batch_size: int,
) -> str:
    """Return the precision to train in.

    On a CPU that computes in bf16 `auto` times a few steps in it and in fp32 once (`remembered`).
    """
    if wanted == "fp16" and device.type != "cuda":
        raise UserError("--precision fp16 wants a GPU; on a CPU use fp32, bf16 or auto")
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return _gpu_precision()
    if device.type != "cpu" or not native_bf16():
        return "fp32"
    return remembered(precision_key(model, backbone, batch_size), lambda: _probe(model, batch_size))


def native_bf16() -> bool:
    """Tell whether this CPU multiplies bf16 in hardware; others emulate it, far slower than fp32.

    As AVX512-BF16, AMX, or the bf16 of ARM.
    """
    if not torch.backends.mkldnn.is_available():
        return False
    return any(there for name, there in torch.cpu.get_capabilities().items() if "bf16" in name)


def precision_key(model: Classifier, backbone: BackboneConfig, batch_size: int) -> list[object]:
    """Return what the precision of a training on a CPU is remembered under."""
    return [[backbone.name, backbone.kwargs, model.spec.image_size, batch_size], this_machine()]


def this_machine() -> list[str | int]:
    """Return what a measured speed is true of."""
    return [platform.node(), torch.__version__, torch.get_num_threads()]


def remembered(
    what: object,
    decide: Callable[[], str] | None = None,
    settles: Callable[[str], bool] = bool,
) -> str:
    """Return the `ANSWER` for `what` on this machine, decided once: a repeat gives equal bytes.

    Without `decide`, "" where nothing is remembered. What is remembered and does not settle the
    question is decided again.
    """
    path, key = paths.precision_cache(), sha256_json(what)[:16]
    if decide is None:
        return read_known(path).get(key, "")
    with file_lock(path.with_suffix(".lock"), "the precision probe", wait=True):
        known = read_known(path)
        if not settles(known.get(key, "")):
            known[key] = decide()
            write_json(path, known)
    return known[key]


def read_known(path: Path) -> dict[str, str]:
    """Return the remembered answers; none where the file is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(content, dict):
        return {}
    return {
        key: answer
        for key, answer in content.items()
        if isinstance(answer, str) and ANSWER.fullmatch(answer)
    }


def bf16_gain(run: Callable[[str, int], object], rounds: int) -> float:
    """Return how many times faster `run(precision, round)` is in bf16 than in fp32, in CPU seconds.

    They take turns, for the machine may be shared; round 0 pays for set-up and does not count.
    """
    least = {"fp32": float("inf"), "bf16": float("inf")}
    for number in range(rounds + 1):
        for precision in least:
            start = time.process_time()
            run(precision, number)
            if number:
                least[precision] = min(least[precision], time.process_time() - start)
    return least["fp32"] / max(least["bf16"], 1e-9)


def _probe(model: Classifier, batch_size: int) -> str:
    """Time training steps; of a large net on few images, so that it ends in seconds."""
    with untouched(model):
        warm = [_step_seconds(model, PROBE_FIRST, precision) for precision in ("fp32", "bf16")]
        fitting = int(PROBE_SECONDS * PROBE_FIRST / max(max(warm), 1e-9))
        images = min(batch_size, PROBE_IMAGES, max(PROBE_FIRST, fitting))
        gain = bf16_gain(lambda precision, _: _step_seconds(model, images, precision), PROBE_STEPS)
    return "bf16" if gain > PROBE_GAIN else "fp32"


def _step_seconds(model: Classifier, images: int, precision: str) -> float:
    """Return the CPU seconds of a forward and a backward pass."""
    size = model.spec.image_size
    batch = {"pixels": torch.zeros(images, size, size, 3, dtype=torch.uint8)}
    start = time.process_time()
    with autocast(torch.device("cpu"), precision):
        loss = model(batch)["logit"].float().square().mean()
    loss.backward()
    return time.process_time() - start


@contextmanager
def untouched(model: Classifier) -> Iterator[None]:
    """Put a model into training mode for the block; its weights and the random state come back."""
    state = {key: value.clone() for key, value in model.state_dict().items()}
    rng = torch.get_rng_state()
    model.train()
    try:
        yield
    finally:
        model.load_state_dict(state)
        model.zero_grad(set_to_none=True)
        torch.set_rng_state(rng)


def compile_model(
    model: Classifier,
    device: torch.device,
    precision: str,
    what: str,
    *,
    backward: bool = False,
) -> None:
    """Compile a model's net in place, and try it once; its state dict keeps its keys.

    The model is on the device, in the mode in which it will be used; of a backward pass, gradients
    are left behind. Raises a UserError that names `what` where torch cannot compile it (no C++
    compiler, or a net that it does not follow).
    """
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = _own_cache()
    size = model.spec.image_size
    pixels = torch.zeros(2, size, size, 3, dtype=torch.uint8, device=device)
    try:
        model.net.compile(backend=BACKEND)
        with torch.set_grad_enabled(backward), autocast(device, precision):
            logit = model({"pixels": pixels})["logit"]
        if backward:
            logit.float().sum().backward()
    except Exception as error:
        model.net._compiled_call_impl = None
        raise UserError(
            f"--compile: torch could not compile {what} ({first_line(error)}); go on without "
            "--compile, or install a C++ compiler (g++) if it speaks of one"
        ) from error


@cache
def _own_cache() -> str:
    """Return this process's folder of compilations.

    A compilation that is killed leaves half-written libraries behind, on which every later one of
    the same net would fail.
    """
    return str(_folders.enter_context(own_folder(paths.compile_cache(), "of_")))


def eagerly() -> AbstractContextManager[object]:
    """Return a context in which compiled nets run as if they were not: predictions of record."""
    return torch.compiler.set_stance("force_eager")
