"""How fast a CPU predicts: what a plain script does, our default, ONNX Runtime, OpenVINO.

    python benchmarks/inference.py                                  the demo's crops
    python benchmarks/inference.py --data faces --input-root DIR    real items of your own

Every way runs in a process of its own, in turns, one pass over the same batch at a time, on one
thread; CPU time is counted, and the fastest of the rounds. Nets start from random weights; their
BatchNorm statistics and a logistic head are fitted to the items, so that logits are spread as those
of a trained net. The error is the largest difference of a logit to the plain script's, as a share
of the standard deviation of the logits.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

NETS = ("efficientnet_b0", "vit_tiny_patch16_224")
SIZE, BATCH, SMALL = 224, 64, 8
WAYS = {
    "plain eager fp32": ("plain", "fp32", BATCH),
    "plain, batches of 8": ("plain", "fp32", SMALL),
    "ours fp32": ("eager", "fp32", BATCH),
    "ours, default": ("eager", "auto", BATCH),
    "ONNX Runtime fp32": ("onnx", "fp32", BATCH),
    "ONNX Runtime int8": ("onnx", "int8", BATCH),
    "OpenVINO fp32": ("openvino", "fp32", BATCH),
    "OpenVINO bf16": ("openvino", "bf16", BATCH),
    "OpenVINO int8": ("openvino", "int8", BATCH),
}
PLAIN = ("plain eager fp32", "plain, batches of 8")
DEFAULT, DEFAULT_WANT, BEST_WANT = "ours, default", 2.5, 5.0


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


def work(checkpoint: Path, items: Path, way: str) -> None:
    """A worker: writes all logits, then takes one pass for every line it reads."""
    engine_name, precision, size = WAYS[way]
    pixels = torch.from_numpy(np.load(items))
    engine = _engine(checkpoint, engine_name, precision)
    with torch.inference_mode():
        logits = torch.cat([engine(part).float() for part in pixels.split(size)])
        label = precision if precision != "auto" else f"auto: {engine.precision}"
        np.save(checkpoint.with_name(f"{way}.npy"), logits.numpy())
        print(label, flush=True)
        for _ in sys.stdin:
            start = time.process_time()
            for part in pixels[:BATCH].split(size):
                engine(part)
            print(time.process_time() - start, flush=True)


def _engine(checkpoint: Path, engine: str, precision: str):  # noqa: ANN202
    from src.artifacts.files import sha256_file
    from src.compute.request import Compute
    from src.inference.passes import load_engine
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
    return load_engine(checkpoint, sha256_file(checkpoint), "m fold 0", compute, 10**6)[0]


def measure(folder: Path, rounds: int) -> dict[str, tuple[str, float, np.ndarray]]:
    """Return for each way its precision, the images a CPU second and the logits."""
    command = [sys.executable, __file__, "--work", str(folder / "fold_0.safetensors")]
    environment = {**os.environ, "RVF_ROOT": str(folder), "OMP_NUM_THREADS": "1"}
    workers = {}
    for way in WAYS:
        workers[way] = subprocess.Popen(
            [*command, str(folder / "items.npy"), way], env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        workers[way].label = workers[way].stdout.readline().strip()  # one at a time: memory
    best = dict.fromkeys(WAYS, float("inf"))
    for _ in range(rounds):
        for way, worker in workers.items():
            worker.stdin.write("\n")
            worker.stdin.flush()
            best[way] = min(best[way], float(worker.stdout.readline()))
    for worker in workers.values():
        worker.stdin.close()
        worker.wait()
    return {
        way: (worker.label, BATCH / best[way], np.load(folder / f"{way}.npy"))
        for way, worker in workers.items()
    }


def report(name: str, found: dict[str, tuple[str, float, np.ndarray]], labels: np.ndarray) -> list:
    """Print a net's table; returns (name, figure, wanted) of its targets."""
    from src.metrics import auc

    base = max(found[way][1] for way in PLAIN)
    exact = found[PLAIN[0]][2]
    print(f"\n{name}, {SIZE} px{'':<12} {'precision':>11} {'img/CPU-s':>10} "
          f"{'x plain':>8} {'x best plain':>13} {'logit error':>12} {'AUC':>7}")  # fmt: skip
    for way, (precision, rate, logits) in found.items():
        error = np.abs(logits - exact).max() / exact.std()
        print(f"  {way:<31} {precision:>11} {rate:>10.1f} {rate / found[PLAIN[0]][1]:>8.2f} "
              f"{rate / base:>13.2f} {error:>12.1e} {auc(labels, logits):>7.4f}")  # fmt: skip
    engines = [way for way in found if way not in PLAIN]
    best = max(engines, key=lambda way: found[way][1])
    plain = found[PLAIN[0]][1]
    return [
        (f"default_{name}", found[DEFAULT][1] / plain, DEFAULT_WANT),
        (f"default_{name}_against_best_plain", found[DEFAULT][1] / base, DEFAULT_WANT),
        (f"best_engine_{name} ({best})", found[best][1] / plain, BEST_WANT),
        (f"best_engine_{name}_against_best_plain ({best})", found[best][1] / base, BEST_WANT),
    ]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="demo", help="data set of the items (default: demo)")
    parser.add_argument("--input-root", type=Path, help="folder of data sets")
    parser.add_argument("--items", type=int, default=256, help="of which logits are compared")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        checkpoint, items, way = arguments.work
        work(Path(checkpoint), Path(items), way)
        return
    pixels, labels = real_items(arguments.data, arguments.input_root, arguments.items)
    print(f"{len(pixels)} items of {arguments.data}, one thread, torch {torch.__version__}")
    targets = []
    for name in NETS:
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            checkpoint = folder / "fold_0.safetensors"
            make_checkpoint(name, pixels, labels, checkpoint)
            np.save(folder / "items.npy", pixels)
            export_all(checkpoint, pixels, labels)
            targets += report(name, measure(folder, arguments.rounds), labels)
    print()
    for what, figure, wanted in targets:
        word = "ok" if figure >= wanted else "short"
        print(f"{word} {what} {figure:.2f} (target >= {wanted})")


if __name__ == "__main__":
    main()
