"""How fast a CPU predicts: what a plain script does, our defaults, ONNX Runtime, OpenVINO.

    python benchmarks/inference.py                                  the demo's crops
    python benchmarks/inference.py --data faces --input-root DIR    real items of your own

Every way runs in a process of its own, in turns, one pass over the same batch at a time, on one
thread; CPU time is counted, and the fastest of the rounds. Nets start from random weights; their
BatchNorm statistics and a logistic head are fitted to the items, so that logits are spread as those
of a trained net. The error is the largest difference of a logit to the plain script's, as a share
of the standard deviation of the logits. The plain script has every batch of `PLAIN_SIZES`: larger
ones are slower where activations pass glibc's ceiling for memory that it keeps (32 MB).

`former default` is ours without OpenVINO, as --engine eager has it. What converting costs before
the first image, in CPU seconds, stands below each table with the number of images that pay for it.
"""

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parent.parent)  # of the workers
sys.path.insert(0, os.environ["PYTHONPATH"])

import numpy as np
import torch

NETS = ("efficientnet_b0", "mobilenetv2_100", "vit_tiny_patch16_224")
SIZE, BATCH = 224, 64
PLAIN_SIZES = (1, 2, 4, 8, 16, 32, BATCH)
PLAIN = {f"plain, batches of {size}": ("plain", "fp32", size) for size in PLAIN_SIZES}
FIRST = f"plain, batches of {BATCH}"
WAYS = PLAIN | {
    "ours, eager fp32": ("eager", "fp32", BATCH),
    "ours, former default": ("eager", "auto", BATCH),
    "ours, default": (None, "auto", BATCH),
    "ONNX Runtime fp32": ("onnx", "fp32", BATCH),
    "ONNX Runtime int8": ("onnx", "int8", BATCH),
    "OpenVINO fp32": ("openvino", "fp32", BATCH),
    "OpenVINO bf16": ("openvino", "bf16", BATCH),
    "OpenVINO int8": ("openvino", "int8", BATCH),
}
DEFAULT, FORMER = "ours, default", "ours, former default"
PLAIN_WANT = 3.0  # times plain at its best batch
FORMER_WANT = {"efficientnet_b0": 1.3, "mobilenetv2_100": 1.7}  # times the former default


def real_items(name: str, root: Path | None, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return uint8 (n, 224, 224, 3) and labels (n,) of training items, half of each class."""
    from src.data.batches.loader import EvalBatches
    from src.data.layouts.load import load_dataset
    from src.data.pixels.source import Canvas, PixelSource

    dataset = load_dataset(name, root)
    table = dataset.train
    labels = table["label"].to_numpy(np.int64)
    rng = np.random.default_rng(0)
    drawn = [rng.permutation(np.flatnonzero(labels == label))[: count // 2] for label in (0, 1)]
    rows = rng.permutation(np.concatenate(drawn))
    spec = _spec()
    source = PixelSource(dataset.root, table["path"].tolist(), [Canvas.of(spec)])
    batch = EvalBatches(source, [spec])[rows.tolist()]
    return batch["pixels0"].numpy(), labels[rows]


def _spec():  # noqa: ANN202
    from src.config import InputSpec

    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return InputSpec(SIZE, SIZE, "squash", "bilinear", mean, std)


def make_checkpoint(name: str, pixels: np.ndarray, labels: np.ndarray, path: Path) -> None:
    """Write a net whose statistics and head fit the items, as a checkpoint of ours."""
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression

    from src.config import parse_model
    from src.models.checkpoint import save_checkpoint
    from src.models.classifier import build_classifier

    torch.manual_seed(0)
    content = {"backbone": {"name": name, "pretrained": "none"}, "input": {"image_size": SIZE}}
    config = parse_model(content, "benchmark")
    model, _ = build_classifier(config)
    images = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() - 127.5) / 57
    with torch.no_grad():
        for norm in model.modules():
            if isinstance(norm, torch.nn.BatchNorm2d):
                norm.momentum = None  # a plain mean over the batches
        model.net.train()
        for part in images[:128].split(32):
            model.net(part)
        model.net.eval()
        features = [model.net.forward_head(model.net.forward_features(part), pre_logits=True)
                    for part in images.split(32)]  # fmt: skip
        matrix = torch.cat(features).numpy()
        # Along the main directions only: a fit to all features of an untrained net leans on
        # differences that rounding makes.
        main = PCA(8).fit(matrix)
        fitted = LogisticRegression(max_iter=500).fit(main.transform(matrix), labels)
        weight = torch.tensor(fitted.coef_[0] @ main.components_, dtype=torch.float32)
        head = model.net.get_classifier()
        head.weight.copy_(weight[None])
        head.bias.fill_(float(fitted.intercept_[0]) - float(weight.numpy() @ main.mean_))
    save_checkpoint(path, model, config.as_dict(), ["full"])


def export_all(checkpoint: Path, pixels: np.ndarray, labels: np.ndarray) -> None:
    """Write the exported files that the ways need."""
    from src.artifacts.files import sha256_file
    from src.inference.export import Order, export_checkpoint

    for engine, precision, _ in WAYS.values():
        if engine in ("onnx", "openvino"):
            order = Order(checkpoint, sha256_file(checkpoint), engine, precision)
            start = time.process_time()
            export_checkpoint(order, pixels[-64:], labels[-64:], pixels[:64])
            taken = time.process_time() - start
            print(f"  exported {engine} {precision}: {taken:.0f} CPU-s", flush=True)


def work(folder: Path, way: str, end: Connection) -> None:
    """A worker: writes all logits, then takes one pass for every message."""
    os.environ["RVF_ROOT"] = str(folder)
    engine_name, precision, size = WAYS[way]
    pixels = torch.from_numpy(np.load(folder / "items.npy"))
    engine = _engine(folder / "fold_0.safetensors", engine_name, precision)
    with torch.inference_mode():
        logits = torch.cat([engine(part).float() for part in pixels.split(size)])
        label = precision
        if precision == "auto":
            label = f"auto: {engine.engine} {engine.precision}"
        np.save(folder / f"{way}.npy", logits.numpy())
        end.send(label)
        while end.recv():
            start = time.process_time()
            for part in pixels[:BATCH].split(size):
                engine(part)
            end.send(time.process_time() - start)


def _engine(checkpoint: Path, engine: str | None, precision: str):  # noqa: ANN202
    from src.artifacts.files import sha256_file
    from src.compute.request import Compute
    from src.inference.passes import load_engine
    from src.inference.trial import Ahead
    from src.machine import keep_freed_memory
    from src.models.checkpoint import load_checkpoint

    cpu = torch.device("cpu")
    if engine == "plain":
        model, _ = load_checkpoint(checkpoint, cpu)
        net = model.net.to(memory_format=torch.contiguous_format)
        mean, std = model.get_buffer("mean"), model.get_buffer("std")

        def plain(pixels: torch.Tensor) -> torch.Tensor:
            return net(((pixels.permute(0, 3, 1, 2).float() - mean) / std).contiguous())[:, 0]

        return plain
    keep_freed_memory()
    compute = Compute("cpu", precision, 0, engine)
    ahead = Ahead(10**6, 10**6)
    return load_engine(checkpoint, sha256_file(checkpoint), "m fold 0", compute, ahead)[0]


def measure(folder: Path, rounds: int) -> dict[str, tuple[str, float, np.ndarray]]:
    """Return for each way its precision, the images a CPU second and the logits."""
    # Forked from a process that has loaded libraries, and has computed nothing yet.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "timm", "src.inference.passes"])
    ends, labels, workers = {}, {}, []
    for way in WAYS:
        ends[way], other = context.Pipe()
        workers.append(context.Process(target=work, args=(folder, way, other)))
        workers[-1].start()
        labels[way] = ends[way].recv()  # one at a time: memory
    best = dict.fromkeys(WAYS, float("inf"))
    for _ in range(rounds):
        for way, end in ends.items():
            end.send(True)
            best[way] = min(best[way], end.recv())
    for end, worker in zip(ends.values(), workers, strict=True):
        end.send(False)
        worker.join()
    return {way: (labels[way], BATCH / best[way], np.load(folder / f"{way}.npy")) for way in WAYS}


def report(name: str, found: dict[str, tuple[str, float, np.ndarray]], labels: np.ndarray) -> list:
    """Print a net's table; returns (name, figure, wanted) of its targets."""
    from src.metrics import auc

    base = max(found[way][1] for way in PLAIN)
    exact = found[FIRST][2]
    print(f"\n{name}, {SIZE} px{'':<12} {'precision':>22} {'img/CPU-s':>10} "
          f"{'x best plain':>13} {'x former':>9} {'logit error':>12} {'AUC':>7}")  # fmt: skip
    former = found[FORMER][1]
    for way, (precision, rate, logits) in found.items():
        error = np.abs(logits - exact).max() / exact.std()
        print(f"  {way:<31} {precision:>22} {rate:>10.1f} {rate / base:>13.2f} "
              f"{rate / former:>9.2f} {error:>12.1e} {auc(labels, logits):>7.4f}")  # fmt: skip
    ours = found[DEFAULT][1]
    targets = [(f"default_{name}_against_best_plain", ours / base, PLAIN_WANT)]
    if name in FORMER_WANT:
        targets.append((f"default_{name}_against_former", ours / former, FORMER_WANT[name]))
    return targets


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="demo", help="data set of the items (default: demo)")
    parser.add_argument("--input-root", type=Path, help="folder of data sets")
    parser.add_argument("--items", type=int, default=256, help="of which logits are compared")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--nets", nargs="+", default=NETS)
    parser.add_argument("--quick", action="store_true", help="fp32 alone, without ONNX Runtime")
    arguments = parser.parse_args()
    if arguments.quick:
        for way in [way for way in WAYS if "Runtime" in way or way.endswith(("int8", "bf16"))]:
            del WAYS[way]
    pixels, labels = real_items(arguments.data, arguments.input_root, arguments.items)
    print(f"{len(pixels)} items of {arguments.data}, one thread, torch {torch.__version__}")
    targets = []
    for name in arguments.nets:
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            checkpoint = folder / "fold_0.safetensors"
            make_checkpoint(name, pixels, labels, checkpoint)
            np.save(folder / "items.npy", pixels)
            export_all(checkpoint, pixels, labels)
            targets += report(name, measure(folder, arguments.rounds), labels)
            for answer in json.loads((folder / ".cache" / "precision.json").read_text()).values():
                print(f"  remembered: {answer}")
    print()
    for what, figure, wanted in targets:
        word = "ok" if figure >= wanted else "short"
        print(f"{word} {what} {figure:.2f} (target >= {wanted})")


if __name__ == "__main__":
    main()
