"""How fast pixels reach the net and are hashed: PIL, albumentations and imagehash beside ours.

  python benchmarks/data_path.py

One thread; CPU seconds of this process, so that what else the machine does counts little. Each
round times every way once, in turn; figures are medians over rounds, ratios those within a round.
The 1000x1000 JPEGs are cut from the photographs that scikit-learn ships, enlarged, with noise.
"""

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src.data.batches.augment_presets import PRESETS  # isort: split

import albumentations as A
import cv2
import imagehash
import numpy as np
import torch
from albumentations.pytorch import ToTensorV2
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from src.compute.device import device_name
from src.data.batches.loader import TrainBatches, make_loader
from src.data.batches.on_device import DeviceBatches
from src.data.batches.samplers import EpochPool, EpochSampler
from src.data.demo.crops import read_photographs
from src.data.folds.near_duplicates import perceptual_hashes
from src.data.pixels.images import decode_image, make_canvases
from src.data.pixels.source import Canvas, PixelSource

SIDE, CANVAS, SIZE, TINY = 1000, 256, 224, 32
BATCH, TINY_BATCH = 32, 64
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PEER, WHOLE = "PIL + albumentations, float32", "cached, whole batches"
TWICE = "imagehash, twice"
Way = Callable[[], tuple[int, float]]  # -> items, CPU seconds
Timed = dict[str, list[float]]  # name -> items per CPU second, one a round


@PRESETS.register("crop_and_flip")
def crop_and_flip(size: int) -> list[Any]:
    """The common pair, so that both sides do the same."""
    crop = A.RandomResizedCrop((size, size), scale=(0.7, 1.0), ratio=(0.85, 1.18), p=1.0)
    return [crop, A.HorizontalFlip(p=0.5)]


def write_photos(folder: Path, count: int, side: int) -> list[Path]:
    """Write JPEGs of one size."""
    rng = np.random.default_rng(0)
    photographs = list(read_photographs().values())
    folder.mkdir()
    paths = []
    for number in range(count):
        photo = photographs[number % len(photographs)]
        cut = 420 if side > TINY else 128
        top, left = rng.integers(0, np.array(photo.shape[:2]) - cut)
        way = cv2.INTER_CUBIC if side > cut else cv2.INTER_AREA
        pixels = cv2.resize(
            photo[top : top + cut, left : left + cut], (side, side), interpolation=way
        )
        noisy = np.clip(pixels + rng.normal(0, 4, pixels.shape), 0, 255).astype(np.uint8)
        paths.append(folder / f"{number:05d}.jpg")
        quality = [cv2.IMWRITE_JPEG_QUALITY, 90]
        cv2.imwrite(str(paths[-1]), cv2.cvtColor(noisy, cv2.COLOR_RGB2BGR), quality)
    return paths


class Peer(Dataset[tuple[Any, int]]):
    """What most notebooks do: PIL, albumentations, float32, one item at a time."""

    def __init__(self, paths: list[Path], steps: list[Any]) -> None:
        self.paths = paths
        self.transform = A.Compose([*steps, A.Normalize(MEAN, STD), ToTensorV2()])

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """Return a float32 tensor (3, s, s) and a label."""
        pixels = np.asarray(Image.open(self.paths[index]).convert("RGB"))
        return self.transform(image=pixels)["image"], 0


def our_loader(
    source: PixelSource, augment: str, size: int, batch: int
) -> Iterable[dict[str, torch.Tensor]]:
    """Return the loader that training uses, with 0 workers."""
    labels = np.arange(len(source)) % 2
    sampler = EpochSampler(EpochPool(np.arange(len(source)), labels, batch), "shuffle", 0)
    batches = TrainBatches(source, labels, augment, size, 0)
    loader = make_loader(batches, sampler, 0, pin=False)
    return DeviceBatches(loader, augment, size, torch.device("cpu"))


def drain(loader: Iterable[Any]) -> int:
    """Take everything out of a loader; returns the number of items."""
    return sum(len(b["pixels"] if isinstance(b, dict) else b[0]) for b in loader)


def ratio(rates: Timed, fast: str, slow: str) -> float:
    """Return the median over rounds of how many times faster one way is."""
    return float(np.median(np.divide(rates[fast], rates[slow])))


def show(title: str, rates: Timed, slow: str) -> None:
    """Print a table of rates, and how they compare to one of them."""
    print(f"\n{title}\n{'':44}{'items/CPU-s':>12}{'times':>8}")
    for name in rates:
        print(f"{name:44}{np.median(rates[name]):12,.0f}{ratio(rates, name, slow):8.1f}")


def say(name: str, figure: float, target: float, text: str) -> None:
    """Print one line a target."""
    print(f"{'ok' if figure >= target else 'short'} {name} {text} (target {target:,g})")


def time_rates(ways: dict[str, Way], rounds: int) -> Timed:
    """Time each way once a round, in turn; a way returns items and CPU seconds."""
    rates: Timed = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            items, seconds = way()
            if number:  # the first round pays for set-up
                rates[name].append(items / seconds)
    return rates


def timed(way: Callable[[], int]) -> Way:
    """Return a way that tells its CPU seconds."""

    def run() -> tuple[int, float]:
        start = time.process_time()
        return way(), time.process_time() - start

    return run


def time_decoding(photos: list[Path], rounds: int) -> Timed:
    """Time the way from a file to 256x256 uint8."""
    square = (CANVAS, CANVAS)

    def by_pil() -> int:
        for path in photos:
            image = Image.open(path).convert("RGB")
            np.asarray(image.resize(square, Image.Resampling.BILINEAR))
        return len(photos)

    def by_opencv() -> int:
        for path in photos:
            data = np.frombuffer(path.read_bytes(), np.uint8)
            image = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)
            cv2.resize(image, square, interpolation=cv2.INTER_AREA)
        return len(photos)

    def ours() -> int:
        for path in photos:
            make_canvases(path.read_bytes(), [Canvas(CANVAS, "squash", "bicubic")])
        return len(photos)

    ways = {"PIL": timed(by_pil), "OpenCV": timed(by_opencv), "ours": timed(ours)}
    return time_rates(ways, rounds)


def time_loading(folder: Path, photos: list[Path], rounds: int) -> Timed:
    """Time loaders of 224x224 batches, ours from a cache."""
    names = [str(path.relative_to(folder)) for path in photos] * 8
    source = PixelSource(folder, names, [Canvas(CANVAS, "squash", "bicubic")])
    source.preload(folder / "cache", "disk")
    peer = Peer(photos, crop_and_flip(SIZE))
    ways = {PEER: timed(lambda: drain(DataLoader(peer, BATCH)))}
    for preset in ("crop_and_flip", "light", "crop_zoom", "none"):
        ways[f"cached, {preset}"] = timed(
            lambda preset=preset: drain(our_loader(source, preset, SIZE, BATCH))
        )
    return time_rates(ways, rounds)


def time_tiny(folder: Path, count: int, rounds: int) -> Timed:
    """Time loaders of 32x32 batches, ours from a cache and augmented as a whole."""
    tiny = write_photos(folder / "tiny", count, TINY)
    names = [str(path.relative_to(folder)) for path in tiny]
    source = PixelSource(folder, names, [Canvas(TINY, "squash", "bicubic")])
    source.preload(folder / "cache", "disk")
    flip = [A.PadIfNeeded(40, 40, border_mode=4), A.RandomCrop(32, 32), A.HorizontalFlip(p=0.5)]
    peer = Peer(tiny[:512], flip)
    ways = {
        PEER: timed(lambda: drain(DataLoader(peer, TINY_BATCH))),
        WHOLE: timed(lambda: drain(our_loader(source, "crop_flip", TINY, TINY_BATCH))),
    }
    return time_rates(ways, rounds)


def time_hashing(files: list[Path], rounds: int) -> Timed:
    """Time the hashes of pictures and of their mirrors, which a scan takes most of its time for."""
    pictures = [decode_image(path.read_bytes()) for path in files]

    def by_imagehash() -> int:
        for pixels in pictures:
            if len(pixels) > 64:
                pixels = cv2.resize(pixels, (64, 64), interpolation=cv2.INTER_AREA)
            grey = Image.fromarray(pixels).convert("L")
            imagehash.phash(grey)
            imagehash.phash(grey.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
        return len(pictures)

    def ours() -> int:
        for pixels in pictures:
            perceptual_hashes(pixels)
        return len(pictures)

    return time_rates({TWICE: timed(by_imagehash), "ours": timed(ours)}, rounds)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--photos", type=int, default=32)
    parser.add_argument("--tiny", type=int, default=4096)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    print(f"{device_name(torch.device('cpu'))}, one thread, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos = write_photos(folder / "photos", options.photos, SIDE)
        size = np.mean([path.stat().st_size for path in photos]) / 1000
        print(f"{len(photos)} JPEGs of {SIDE}x{SIDE}, {size:.0f} kB on average")
        decoding = time_decoding(photos, options.rounds)
        loading = time_loading(folder, photos, options.rounds)
        tiny = time_tiny(folder, options.tiny, options.rounds)
        hashing = {
            side: time_hashing(write_photos(folder / str(side), 256, side), options.rounds)
            for side in (TINY, SIZE)
        }
    show(f"{SIDE}x{SIDE} JPEG to {CANVAS}x{CANVAS} uint8", decoding, "PIL")
    show(f"{SIDE}x{SIDE} JPEGs to batches of {SIZE}x{SIZE}, crop and flip", loading, PEER)
    show(f"{TINY}x{TINY} JPEGs to batches, pad, crop and flip", tiny, PEER)
    for side, rates in hashing.items():
        show(f"{side}x{side} pixels to both perceptual hashes", rates, TWICE)
    print()
    times = ratio(loading, "cached, crop_and_flip", PEER)
    say("cached-vs-pil", times, 20, f"{times:.1f} times")
    times = ratio(decoding, "ours", "PIL")
    say("decode-vs-pil", times, 2.5, f"{times:.1f} times")
    for preset in ("crop_and_flip", "light", "crop_zoom"):
        rate = float(np.median(loading[f"cached, {preset}"]))
        say(f"loader-{preset}", rate, 1000, f"{rate:,.0f} items/s/core")
    rate = float(np.median(tiny[WHOLE]))
    say("whole-batch-32px", rate, 10_000, f"{rate:,.0f} images/s/core")
    for side, rates in hashing.items():
        times = ratio(rates, "ours", TWICE)
        say(f"hashes-{side}px", times, 1.35, f"{times:.2f} times")


if __name__ == "__main__":
    main()
