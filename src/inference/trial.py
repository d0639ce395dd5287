"""Which way a model predicts on a CPU: the fastest that is exact enough, tried on the first batch.

Eager torch in fp32, eager torch in bf16 on chips that have it, OpenVINO in fp32 where it is
installed. The answer is remembered by checkpoint, machine, threads and versions, so that a repeat
gives the same bytes.
"""

import logging
import time
from dataclasses import dataclass, field
from math import ceil
from typing import NamedTuple

import torch
from torch import Tensor

from src.compute import device as devices
from src.compute.request import Compute
from src.config import InputSpec
from src.errors import UserError
from src.inference.converted import Converted, conversion_seconds, openvino_version
from src.inference.engines import Eager, Engine
from src.models.classifier import Classifier
from src.tensor_files import first_line

LOG = logging.getLogger("rvf")
CPU = torch.device("cpu")
OPENVINO = "openvino"
WAYS = {  # engine and precision of each
    "fp32": ("eager", "fp32"),
    "bf16": ("eager", "bf16"),
    OPENVINO: ("openvino", "fp32"),
}
TRIAL_ITEMS = 1000  # from so many on bf16 is tried, and all is timed twice
TRIAL_IMAGES = 100  # fewer are predicted in fp32: nothing is gained that pays for any trial
GAIN = {"bf16": 1.3, OPENVINO: 1.1}  # how many times faster than the fastest exact way it must be
ERROR = {"bf16": 0.05, OPENVINO: 1e-3}  # of the standard deviation of the first batch's logits
LEAST_SPREAD = 0.05  # of logits; what tells nothing apart would have none
MORE = {  # what is said of an answer, by `FastestWay.large`; `%.0s` takes the number away
    "": "%.0s",
    "?": " (OpenVINO is tried from %d images on)",
    OPENVINO: " (OpenVINO is worth its start from %d images on)",
}
EXPECTED_GAIN = 1.25  # of OpenVINO, before it is tried
WARM = 5  # images of the first call, which is not timed


class Ahead(NamedTuple):
    """How much will be predicted."""

    items: int
    images: int  # what nets look at: frames, views and levels of the items, each counted
    few_at_once: bool = False  # whether a look at a time, as files and frames come in


LASTING = Ahead(1, 100_000, few_at_once=True)  # what looks for as long as it is asked


class FastestWay(NamedTuple):
    """What was found out; written as `devices.ANSWER`."""

    small: str  # the way of few images
    least: int = 0  # the number from which on ...
    large: str = ""  # ... this way is faster, its start included; `?` where that is worth a trial

    def __str__(self) -> str:
        more = f", from {self.least} images {self.large}" if self.large else ""
        return self.small + more

    @classmethod
    def parse(cls, text: str) -> "FastestWay":
        """Return what a remembered answer says."""
        small, _, rest = text.partition(", from ")
        least, _, large = rest.partition(" images ")
        return cls(small, int(least or 0), large)

    def way(self, images: int) -> str:
        """Return the way of so many images; empty where that is to be tried."""
        if not self.large or images < self.least:
            return self.small
        return "" if self.large == "?" else self.large


@dataclass
class _State:
    """What a trial and its copies share."""

    model: Classifier | None  # until the first batch
    engines: dict[str, Engine] = field(default_factory=dict)
    way: str = ""  # the one that is taken


class Trial:
    """A model that predicts on a CPU by one of several ways; the first batch decides which.

    Args:
        model: in eval mode.
        sha256: of its checkpoint.
        what: its name, for the log.
        ways: of `WAYS`, fp32 first.
        ahead: what will be predicted.
        compile_it: eager ways through torch.compile.
    """

    def __init__(
        self,
        model: Classifier,
        sha256: str,
        what: str,
        ways: list[str],
        ahead: Ahead,
        *,
        compile_it: bool = False,
    ) -> None:
        self.spec: InputSpec = model.spec
        self.what, self.ways, self.ahead, self.compile_it = what, ways, ahead, compile_it
        version = openvino_version() if OPENVINO in ways else ""
        here = [*devices.this_machine(), compile_it]
        self._case = ["inference", sha256, here, ways, version, ahead.few_at_once]
        self._state = _State(model)
        if known := devices.remembered(self._case):
            self._take(FastestWay.parse(known).way(ahead.images))

    @property
    def engine(self) -> str:
        """One of `ENGINES`."""
        return WAYS[self._state.way or "fp32"][0]

    @property
    def precision(self) -> str:
        """fp32 or bf16; empty as long as it is not decided."""
        return WAYS[self._state.way][1] if self._state.way else ""

    def go_on(self, engine: str, precision: str) -> None:
        """Predict as other items of the same pass were, whatever a trial would say."""
        ways = [way for way in self.ways if WAYS[way] == (engine, precision)]
        if ways and self._state.model is not None:
            self._take(ways[0])

    def __call__(self, pixels: Tensor) -> Tensor:
        """Map uint8 (n, s, s, 3) to float logits (n,)."""
        found: dict[str, Tensor] = {}
        state = self._state
        if not state.way:
            images = self.ahead.images
            answer = devices.remembered(
                self._case,
                lambda: str(self._decide(pixels, found)),
                lambda known: bool(known) and bool(FastestWay.parse(known).way(images)),
            )
            self._take(FastestWay.parse(answer).way(images) or "fp32")
        state.model = None  # what engines need of it, they hold
        if state.way in found:  # this very batch, by the way that is taken
            return found[state.way]
        return state.engines[state.way](pixels)

    def _take(self, way: str) -> None:
        """Go this way from now on, or in fp32 where there is none such; "" is not decided."""
        if not way:
            return
        if not self._ready(way):
            way = "fp32"
            self._ready(way)
        self._state.way = way
        self._state.engines = {way: self._state.engines[way]}

    def _ready(self, way: str) -> bool:
        """Make the engine of a way; False where there is none such of this model."""
        engines, model = self._state.engines, self._state.model
        if way in engines:
            return True
        assert model is not None
        if way != OPENVINO:
            engines[way] = Eager(model, CPU, WAYS[way][1], compile_it=self.compile_it)
            return True
        try:
            engines[way] = Converted(model)
        except Exception as error:  # noqa: BLE001 - converters fail in their own ways
            self._say("not with OpenVINO, which does not follow this net (%s)", first_line(error))
            return False
        return True

    def _decide(self, pixels: Tensor, found: dict[str, Tensor]) -> FastestWay:
        """Try the ways on a batch, whose logits by each are left in `found`."""
        seconds = self._timed(["fp32"], pixels, found)
        model, few = self._state.model, self.ahead.few_at_once
        assert model is not None
        threads, start = torch.get_num_threads(), 0.0
        others = [way for way in self.ways if way != "fp32"]
        tried = FastestWay("fp32")
        if OPENVINO in others:
            # All threads wait for a conversion, which runs on one.
            gain = seconds["fp32"] * (1 - 1 / EXPECTED_GAIN)
            least = ceil(threads * conversion_seconds(model) / gain)
            if self.ahead.images < least:
                others.remove(OPENVINO)
                tried = FastestWay("fp32", least, "?")
            else:
                before = time.process_time()
                if not self._ready(OPENVINO):
                    others.remove(OPENVINO)
                start = threads * (time.process_time() - before)
        twice = few or self.ahead.items >= TRIAL_ITEMS
        for number in range(1 + twice if others else 0):
            names = others if number == 0 else ["fp32", *others]
            for way, taken in self._timed(names, pixels, found).items():
                seconds[way] = min(taken, seconds.get(way, taken))
        return self._choose(tried, seconds, found, start)

    def _timed(self, ways: list[str], pixels: Tensor, found: dict[str, Tensor]) -> dict[str, float]:
        """Return the CPU seconds an image of each way, whose logits are left in `found`."""
        seconds = {}
        for way in ways:
            self._ready(way)
            engine = self._state.engines[way]
            if way not in found:
                engine(pixels[:WARM])
            start = time.process_time()
            found[way] = engine(pixels)
            seconds[way] = max(time.process_time() - start, 1e-9) / len(pixels)
        return seconds

    def _choose(
        self, tried: FastestWay, seconds: dict[str, float], found: dict[str, Tensor], start: float
    ) -> FastestWay:
        """Return the fastest way that is exact enough.

        Args:
            tried: the answer where fp32 is taken.
            seconds: of an image, by way.
            found: logits (n,), by way.
            start: seconds that OpenVINO cost before its first image.
        """
        exact = found["fp32"]
        spread = float(exact.std(correction=0).clamp_min(LEAST_SPREAD))
        answer, fastest = tried, seconds["fp32"]
        for way in (OPENVINO, "bf16"):  # the exact one first: rounding must be worth it beside it
            if way not in seconds:
                continue
            gain = fastest / seconds[way]
            error = float((found[way] - exact).abs().max()) / spread
            taken = gain >= GAIN[way] and error <= ERROR[way]
            if taken and way == OPENVINO:
                saved = seconds["fp32"] - seconds[way]
                answer, fastest = FastestWay("fp32", ceil(start / saved), OPENVINO), seconds[way]
            elif taken:
                answer = FastestWay(way, tried.least, tried.large)
            self._say(
                "%s: %.2f times faster, logits differ by at most %.1g of their spread on the first "
                "%d images (taken at %.1f times and %g)",
                " ".join(WAYS[way]), gain, error, len(exact), GAIN[way], ERROR[way],
            )  # fmt: skip
        way = answer.way(self.ahead.images) or "fp32"
        self._say("predicting with %s%s", " ".join(WAYS[way]), MORE[answer.large] % answer.least)
        return answer

    def _say(self, text: str, *values: object) -> None:
        """Log a line; what looks at files and streams has other things to say."""
        level = logging.DEBUG if self.ahead.few_at_once else logging.INFO
        LOG.log(level, f"%s: {text}", self.what, *values)


def engine_for(model: Classifier, sha256: str, name: str, compute: Compute, ahead: Ahead) -> Engine:
    """Return what predicts test items with a model, which is on the device already.

    Eager torch; on a CPU another way where that is faster and exact enough. `sha256` is the
    checkpoint's, `name` is for the log.

    Raises:
        UserError: int8, which only exported files have.
    """
    chip, wanted = compute.chip, compute.precision
    if wanted == "int8":
        raise UserError("--precision int8 wants --engine onnx or openvino")
    ways = ways_of(compute, ahead)
    if len(ways) > 1:
        return Trial(model, sha256, name, ways, ahead, compile_it=compute.compile)
    precision = devices.inference_precision(chip, wanted)
    return Eager(model, chip, precision, compile_it=compute.compile)


def ways_of(compute: Compute, ahead: Ahead) -> list[str]:
    """Return the ways that are tried, fp32 first; one alone where nothing is to be tried."""
    if compute.chip.type != "cpu" or compute.precision not in ("auto", "fp32"):
        return []
    ways = ["fp32"]
    if compute.precision == "auto" and ahead.items >= TRIAL_ITEMS and devices.native_bf16():
        ways.append("bf16")
    quick = compute.engine is None and not compute.compile and ahead.images >= TRIAL_IMAGES
    return [*ways, OPENVINO] if quick and openvino_version() else ways
