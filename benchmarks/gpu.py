"""How fast a GPU trains and predicts here, beside timm's way; ten minutes, nothing but the repo.

    python benchmarks/gpu.py                       the first card, at most ten minutes
    python benchmarks/gpu.py --minutes 4 --batch 128 --out gpu.json
    python benchmarks/gpu.py --device cpu --tiny   tiny nets and pictures, to see that it runs

Made-up JPEGs, random weights, each net through the repo's own `Trainer` (bf16, or fp16 where a card
has none; channels_last). The same steps are timed by where their pixels come from:

- `ready`: one batch, on the device already, again and again: what the net alone allows.
- `cached`: decoded once, cropped and mirrored on the device (`zoom_flip`).
- `jpeg`: decoded in every epoch by loader processes, `crop_zoom`.

The share of time spent waiting for data is what a way lacks to `ready`. timm's way is that of
`training_ways.py`. Each figure is steps over the clock, the card waited for at both ends alone.
Rates are pictures a second. What no longer fits into the time is left out, and said.
"""

import argparse
import gc
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cv2
import numpy as np
import pandas as pd
import torch

from src import paths
from src.artifacts.files import write_json
from src.artifacts.folds import read_folds, write_folds
from src.artifacts.runs import read_record
from src.compute.device import chip_name, choose_device
from src.compute.request import Compute, default_workers
from src.config import parse_model
from src.data.layouts.load import load_dataset
from src.errors import UserError
from src.inference.predict import predict_items
from src.training.job import Job, Options, job_table
from src.training.trainer import Trainer

REPO = Path(__file__).resolve().parent.parent
SCHEME, DATA = "sgkf5_s42", "bench"
COMPILING = 90.0  # seconds that are left for a net with --compile
MANY = 100_000  # items an epoch and class, so that no epoch ends while steps are timed


@dataclass(frozen=True)
class Size:
    """How large everything is."""

    items: int  # pictures
    side: int  # pixels of them
    image: int  # pixels that nets see
    warm: int  # steps before the clock starts
    seconds: float  # of steps that are timed
    nets: dict[str, str]  # what is shown, and timm's name


FULL = Size(2048, 256, 224, 8, 6.0, {
    "efficientnet_b0": "efficientnet_b0",
    "vit_small_patch16": "vit_small_patch16_224",
    "convnext_tiny": "convnext_tiny",
    "clip_vit_b16, LoRA": "vit_base_patch16_clip_quickgelu_224",
})  # fmt: skip
TINY = Size(40, 36, 32, 1, 0.0, {
    "efficientnet": "test_efficientnet", "vit": "test_vit", "vit, LoRA": "test_vit2",
})  # fmt: skip


class Enough(Exception):  # noqa: N818 - nothing is wrong
    """All steps that were to be timed are made."""


class Meter:
    """The clock of steps: `warm` of them are made first, then as many as `seconds` take."""

    def __init__(self, device: torch.device, size: Size) -> None:
        self.device, self.size = device, size
        self.steps, self.items, self.began, self.taken = 0, 0, 0.0, 0.0

    def wait(self) -> None:
        """Wait for the card."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def after(self, items: int) -> None:
        """Count a step; raises `Enough` when the time is over."""
        self.steps += 1
        if self.steps == self.size.warm:
            self.wait()
            self.began = time.perf_counter()
        elif self.steps > self.size.warm:
            self.items += items
            if time.perf_counter() - self.began >= self.size.seconds:
                self.wait()
                self.taken = time.perf_counter() - self.began
                raise Enough

    @property
    def rate(self) -> float:
        """Items a second."""
        return self.items / self.taken


class Timed(Trainer):
    """A trainer whose steps are counted; `ready` gives it one batch again and again."""

    meter: Meter
    ready = False

    def make_batches(self) -> Any:  # noqa: ANN401 - as the trainer's, or one batch
        """Return what a stage is trained on."""
        batches = super().make_batches()
        if not self.ready:
            return batches
        first = next(iter(batches))
        return Again({key: tensor.to(self.chip) for key, tensor in first.items()})

    def train_step(self, batches: Iterator[Any]) -> bool:
        """Make a step and count it; returns whether to stop after it."""
        stops = super().train_step(batches)
        self.meter.after(self.config.optim.batch_size)
        return stops


class Again:
    """One batch, for ever."""

    def __init__(self, batch: dict[str, torch.Tensor]) -> None:
        self.batch = batch

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        return repeat(self.batch)


def write_data(root: Path, size: Size) -> None:
    """Write JPEGs of two classes, and a fold file."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(size.items):
        kind = ("real", "fake")[number % 2]
        path = root / "train" / kind / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = rng.integers(0, 256, (size.side // 8 + 1, size.side // 8 + 1, 3), dtype=np.uint8)
        picture = cv2.resize(coarse, (size.side, size.side), interpolation=cv2.INTER_CUBIC)
        noise = rng.integers(0, 24, picture.shape, dtype=np.uint8)
        cv2.imwrite(str(path), cv2.add(picture, noise), [cv2.IMWRITE_JPEG_QUALITY, 90])
        name = f"{kind}/{path.name}"
        rows.append((name, number % 2, name, "", "image", number // 2 % 5))
    table = pd.DataFrame(rows, columns=["item_id", "label", "group", "domain", "kind", "fold"])
    found = load_dataset(DATA).train["item_id"]
    if set(found) != set(table["item_id"]):
        raise SystemExit(f"items are called {found.iloc[0]}, not {table['item_id'].iloc[0]}")
    write_folds(paths.folds_csv(DATA, SCHEME), table)


def job_of(net: str, size: Size, asked: argparse.Namespace, way: str, *, compiled: bool) -> Job:
    """Return what trains a net one way."""
    lora = net.endswith("LoRA")
    content: dict[str, Any] = {
        "backbone": {"name": size.nets[net], "pretrained": "none"},
        "input": {"image_size": size.image, "crop_pct": 0.875, "geometry": "squash"},
        "augment": "crop_zoom" if way == "jpeg" else "zoom_flip",
        "sampler": "oversample",
        "per_class": MANY,
        "optim": {"lr": 1e-4, "epochs": 2, "batch_size": asked.batch, "ema_decay": 0.999},
    }
    if lora:
        content |= {"strategy": "lora", "transfer": {"lora_targets": ["qkv"]}}
        del content["optim"]["ema_decay"]
    dataset = load_dataset(DATA)
    table = job_table(dataset.train, read_folds(paths.folds_csv(DATA, SCHEME)))
    options = Options(
        device=asked.device, precision="fp32" if asked.device == "cpu" else "auto",
        workers=asked.workers if way == "jpeg" else 0, no_pretrained=True, track="none",
        report=False, cache="none" if way == "jpeg" else "ram", compile=compiled,
    )  # fmt: skip
    name = "".join(c if c.isalnum() else "_" for c in f"{net}_{way}_{compiled}")
    return Job(name, parse_model(content, name), DATA, SCHEME, 0, dataset.root, table, options)


def ours(
    net: str, size: Size, asked: argparse.Namespace, way: str, *, compiled: bool = False
) -> dict[str, Any]:
    """Return the rate of our training one way; of `cached` that of predictions too."""
    job = job_of(net, size, asked, way, compiled=compiled)
    trainer = Timed(job)
    trainer.meter, trainer.ready = Meter(trainer.chip, size), way == "ready"
    with suppress(Enough):
        trainer.fit()
    found = {"rate": trainer.meter.rate, "precision": trainer.run.precision}
    if way == "cached":
        rows = np.arange(len(job.table))
        compute = Compute(asked.device, job.options.precision, 0, batch_size=4 * asked.batch)
        for _ in range(2):  # the first warms up
            began = time.perf_counter()
            predict_items(trainer.run.averaged, ("full",), trainer.source, rows, compute)
            found["predicted"] = len(rows) / (time.perf_counter() - began)
    return found


def theirs(
    net: str, size: Size, asked: argparse.Namespace, way: str, *, compiled: bool = False
) -> dict[str, Any]:
    """Return the rate of timm's way on JPEGs, or on one batch that is there."""
    from training_ways import Pictures, Recipe, Timm

    table = read_folds(paths.folds_csv(DATA, SCHEME))
    files = [paths.dataset_dir(DATA) / "train" / name for name in table["item_id"]]
    device = choose_device(asked.device)
    dtype = None
    if device.type == "cuda":
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        dtype = torch.bfloat16 if bf16 else torch.float16
    kwargs = {} if size is FULL else {"img_size": size.image} if "vit" in size.nets[net] else {}
    recipe = Recipe(size.nets[net], size.image, asked.batch, 1, lr=1e-4, kwargs=kwargs)
    pictures = Pictures(files, table["label"].tolist())
    timm_way = Timm(recipe, pictures, device, asked.workers, dtype, compiled=compiled)
    batches = chain.from_iterable(repeat(timm_way.loader))
    if way == "ready":
        batches = repeat(next(iter(timm_way.loader)))
    meter = Meter(device, size)
    with suppress(Enough):
        for items in timm_way.steps(batches):
            meter.after(items)
    return {"rate": meter.rate}


def several(cards: int, net: str, size: Size, asked: argparse.Namespace) -> dict[str, Any]:
    """Return the rate of one fold on several cards, by the command itself under torchrun."""
    per_epoch = 40 * asked.batch * cards
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node",
        str(cards), str(REPO / "train_folds.py"), "--model", f"timm:{size.nets[net]}",
        "--data", DATA, "--scheme", SCHEME, "--fold", "0", "--no-pretrained", "--no-report",
        "--track", "none", "--device", asked.device, "--as", "many", "--overwrite",
    ]  # fmt: skip
    changes = {
        "augment": "zoom_flip", "sampler": "oversample", "per_class": per_epoch // 2,
        "optim.batch_size": asked.batch * cards, "optim.epochs": 3,
        "input.image_size": size.image, "optim.lr": 1e-4,
    }  # fmt: skip
    for key, value in changes.items():
        command += ["--set", f"{key}={value}"]
    subprocess.run(command, cwd=REPO, check=True, stdout=subprocess.DEVNULL)
    record = read_record(paths.run_record(DATA, SCHEME, "many", 0))
    return {"rate": record["history"][-1]["items_per_second"], "cards": cards}


class Book:
    """What was measured, until the time is over."""

    def __init__(self, minutes: float, device: torch.device) -> None:
        self.end, self.device = time.monotonic() + 60 * minutes, device
        self.rows: list[dict[str, Any]] = []
        self.left_out: list[str] = []

    def measure(self, net: str, way: str, needs: float, work: Callable[[], dict[str, Any]]) -> None:
        """Measure one way of a net, if the seconds that it needs are left."""
        title = f"{net}, {way}"
        if time.monotonic() + needs > self.end:
            self.left_out.append(f"{title}: no time left")
            return
        cuda = self.device.type == "cuda"
        if cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
        began = time.monotonic()
        try:
            found = work()
        except (UserError, RuntimeError, subprocess.CalledProcessError) as error:
            self.left_out.append(f"{title}: {str(error).splitlines()[0][:160]}")
            return
        finally:
            gc.collect()
            torch.compiler.reset()
        if cuda:
            found["peak_gib"] = torch.cuda.max_memory_allocated(self.device) / 2**30
        found["seconds"] = time.monotonic() - began
        self.rows.append({"net": net, "way": way, **found})
        print(f"  {title}: {found['rate']:.0f} a second ({found['seconds']:.0f} s)", flush=True)

    def rate(self, net: str, way: str) -> float | None:
        """Return a rate that was measured."""
        return next((r["rate"] for r in self.rows if (r["net"], r["way"]) == (net, way)), None)


def measure_all(book: Book, nets: list[str], size: Size, asked: argparse.Namespace) -> None:
    """Measure every net in every way; what takes longest comes last."""
    ways = [(ours, "ready"), (ours, "cached"), (ours, "jpeg"), (theirs, "ready"), (theirs, "jpeg")]
    orders = [(net, whose, way, False) for net in nets for whose, way in ways]
    if not asked.tiny:
        orders += [(net, whose, "ready", True) for whose in (ours, theirs) for net in nets]
    for net, whose, way, compiled in orders:
        if whose is theirs and net.endswith("LoRA"):  # which timm does not have
            continue
        title = f"{'timm, ' if whose is theirs else ''}{way}{', --compile' if compiled else ''}"
        work = partial(whose, net, size, asked, way, compiled=compiled)
        book.measure(net, title, COMPILING if compiled else 4 * size.seconds, work)
    cards = torch.cuda.device_count() if book.device.type == "cuda" else 1
    if cards > 1:
        work = partial(several, cards, nets[0], size, asked)
        book.measure(nets[0], f"cached, {cards} cards", COMPILING, work)


def report(book: Book, about: dict[str, Any]) -> None:
    """Print the table."""
    print(f"\n{about['device']}, torch {about['torch']}, batches of {about['batch']}, "
          f"{about['image_size']} px, {about['workers']} loader processes\n")  # fmt: skip
    print("| net | way | pictures a second | waiting for data | peak GiB | predicted a second |")
    print("|---|---|---|---|---|---|")
    for row in book.rows:
        ready = book.rate(row["net"], "timm, ready" if "timm" in row["way"] else "ready")
        waits = ""
        if ready and row["way"].endswith(("cached", "jpeg")):
            waits = f"{max(0.0, 1 - row['rate'] / ready):.0%}"
        peak = f"{row['peak_gib']:.2f}" if "peak_gib" in row else ""
        predicted = f"{row['predicted']:.0f}" if "predicted" in row else ""
        print(
            f"| {row['net']} | {row['way']} | {row['rate']:.0f} | {waits} | {peak} | {predicted} |"
        )
    for line in book.left_out:
        print(f"left out: {line}")
    for net in dict.fromkeys(row["net"] for row in book.rows):
        for own in ("ready", "jpeg", "ready, --compile"):
            rates = book.rate(net, own), book.rate(net, f"timm, {own}")
            if all(rates):
                times = rates[0] / rates[1]
                print(f"{'ok' if times >= 1 else 'short'} {net}, {own}: {times:.2f} times timm's")


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--batch", type=int, help="default: 64 below 30 GiB of memory, else 256")
    parser.add_argument("--workers", type=int, default=default_workers())
    parser.add_argument("--nets", nargs="+", help="of the table's, by the start of their names")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--out", type=Path, help="JSON")
    asked = parser.parse_args()
    device, size = choose_device(asked.device), TINY if asked.tiny else FULL
    asked.device = str(device)
    if device.type != "cuda" and not asked.tiny:
        parser.error("there is no CUDA card here: --tiny shows that it runs")
    if asked.batch is None:
        memory = torch.cuda.mem_get_info(device)[1] if device.type == "cuda" else 0
        asked.batch = 4 if asked.tiny else 64 if memory < 30 * 2**30 else 256
    nets = [n for n in size.nets if not asked.nets or n.startswith(tuple(asked.nets))]
    book = Book(asked.minutes, device)
    with tempfile.TemporaryDirectory() as name:
        os.environ["RVF_ROOT"] = name
        write_data(paths.dataset_dir(DATA), size)
        measure_all(book, nets, size, asked)
    about = {
        "device": chip_name(device), "torch": torch.__version__, "batch": asked.batch,
        "image_size": size.image, "workers": asked.workers, "measured": time.strftime("%F"),
    }  # fmt: skip
    report(book, about)
    if asked.out:
        write_json(asked.out, {**about, "rows": book.rows, "left_out": book.left_out})


if __name__ == "__main__":
    main()
