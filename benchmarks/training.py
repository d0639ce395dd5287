"""What training costs on a CPU: a bare loop, timm's way, ours; what each pays that others do not.

    python benchmarks/training.py                                        the demo's crops
    python benchmarks/training.py --data dfdc_faces --input-root ../shared/data --size 128
    python benchmarks/training.py --data cifake --input-root ../shared/data --items 8000 --size 64
        --epochs 3 --weights ../shared/weights/mobilenetv2_100.imagenet1001.pth --ways timm ours

Every way is a process of its own, on one thread, in fp32, without loader processes; CPU time, user
and system. The same pictures (fold 0 of random folds by class) and the same recipe: MobileNetV2,
AdamW, crops of 70 to 100 % of the area, mirrors. Ours also jitters colours, stores again as JPEG
and blurs (`crop_zoom`), predicts the held-out items by a second view, and writes a checkpoint,
predictions, a record and a report.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))

NET = "mobilenetv2_100"
WAYS = {
    "plain": "bare loop, NCHW, malloc as it is",
    "bare": "bare loop, channels_last, memory kept",
    "timm": "timm's train.py path",
    "timm_quiet": "the same, its new head drawn as ours",
    "ours": "train_folds.py",
}
PARTS = ("start", "data", "step", "evaluation", "files", "report", "rest")
FOLDS = 5


def write_pictures(folder: Path, name: str, root: Path | None, count: int) -> None:
    """Write `count` training items of a data set as a folder of two classes; a set's own shares."""
    import numpy as np

    from src.data.items.files import read_bytes
    from src.data.layouts.load import load_dataset

    dataset = load_dataset(name, root)
    table = dataset.train.iloc[np.random.default_rng(0).permutation(len(dataset.train))]
    for number, (path, label) in enumerate(zip(table["path"], table["label"], strict=True)):
        if number == count:
            break
        target = folder / ("real", "fake")[int(label)] / f"{number:06d}{Path(path).suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(read_bytes(dataset.root, path))


def split_files(root: Path) -> tuple[list[Path], list[int], list[Path], list[int]]:
    """Return files and labels that fold 0 trains on, and those that it holds out."""
    import pandas as pd

    table = pd.read_csv(next((root / "folds").rglob("*.csv")))
    table = table[table["fold"] >= 0]
    found: list = []
    for part in (table[table["fold"] != 0], table[table["fold"] == 0]):
        files = [root / "input" / "bench" / "train" / one for one in part["item_id"]]
        found += [files, part["label"].tolist()]
    return tuple(found)


def work(way: str, root: Path, asked: argparse.Namespace) -> None:
    """Train by one way in this process, and print what it cost."""
    from training_ways import Parts, Pictures, Recipe, bare_way, our_way, timm_way

    parts = Parts()
    if way == "ours":
        words = ["--model", NET, "--data", "bench", "--fold", "0", "--device", "cpu", "--workers"]
        words += [
            "0",
            "--precision",
            "fp32",
            "--as",
            "net",
            "--set",
            f"input.image_size={asked.size}",
        ]
        words += ["--set", f"optim.epochs={asked.epochs}"]
        words += ["--weights", str(asked.weights)] if asked.weights else ["--no-pretrained"]
        curve = our_way(words, parts)
    else:
        files, labels, held, held_labels = split_files(root)
        recipe = Recipe(
            NET, asked.size, 32, asked.epochs, kwargs={"pad_type": "same", "drop_rate": 0.2},
            weights=asked.weights, head_std=0.01 if way == "timm_quiet" else None,
        )  # fmt: skip
        import torch

        torch.set_num_threads(1)
        sets = Pictures(files, labels), Pictures(held, held_labels)
        if way.startswith("timm"):
            curve = timm_way(recipe, *sets, parts)
        else:
            curve = bare_way(recipe, *sets, parts, plain=way == "plain")
    parts.switch()
    status = Path("/proc/self/status").read_text()
    peak = int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024
    print("\n" + json.dumps({"parts": parts.taken, "peak": peak, "curve": curve}))


def measure(way: str, root: Path, words: list[str]) -> dict:
    """Return what a way cost in a process of its own, with the CPU seconds of all of it."""
    before = os.times()
    command = [sys.executable, __file__, "--way", way, "--root", str(root), *words]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True,
        env={**os.environ, "RVF_ROOT": str(root)},
    )  # fmt: skip
    after = os.times()
    found = json.loads(done.stdout.splitlines()[-1])
    children = after.children_user + after.children_system
    found["all"] = children - before.children_user - before.children_system
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="demo")
    parser.add_argument("--input-root", type=Path)
    parser.add_argument("--items", type=int, default=1485)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--rounds", type=int, default=1, help="of which the cheapest counts")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.way:
        work(asked.way, asked.root, asked)
        return
    words = ["--size", str(asked.size), "--epochs", str(asked.epochs)]
    words += ["--weights", str(asked.weights.resolve())] if asked.weights else []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        os.environ["RVF_ROOT"] = name
        if asked.data == "demo":
            from src.data.demo.make import make_demo

            make_demo()
        train = root / "input" / "bench" / "train"
        write_pictures(train, asked.data, asked.input_root, asked.items)
        folds = [sys.executable, "-m", "src", "folds", "--data", "bench", "--n-folds", str(FOLDS)]
        subprocess.run(folds, cwd=REPO, check=True, stdout=subprocess.DEVNULL)
        scan = os.times()
        count = len(split_files(root)[0]) * asked.epochs
        found: dict[str, dict] = {}
        for _ in range(asked.rounds):
            for way in asked.ways:
                one = measure(way, root, words)
                if way not in found or one["all"] < found[way]["all"]:
                    found[way] = one
                _forget_runs(root)
    scanned = scan.children_user + scan.children_system
    report(found, count, scanned, asked)


def _forget_runs(root: Path) -> None:
    """Delete what a run of ours left, so that the next one begins anew; the fold file stays."""
    import shutil

    for folder in root.iterdir():
        if folder.name not in ("input", "folds"):
            shutil.rmtree(folder, ignore_errors=True)


def report(found: dict[str, dict], count: int, scanned: float, asked: argparse.Namespace) -> None:
    """Print the table and the targets."""
    print(f"{NET}, {asked.size} px, {count} pictures trained on in {asked.epochs} epochs")
    print(f"scan and folds, once a data set: {scanned:.1f} CPU-s\n")
    print("| way | " + " | ".join(PARTS) + " | all, CPU-s | trained a CPU-s | peak MiB | AUC |")
    print("|---" * (len(PARTS) + 5) + "|")
    for way, one in found.items():
        cells = [f"{one['parts'].get(part, 0.0):.1f}" for part in PARTS]
        rate = count / one["all"]
        cells += [f"{one['all']:.1f}", f"{rate:.1f}", f"{one['peak']:.0f}"]
        cells += [f"{one['curve'][-1][1]:.4f}" if one["curve"] else ""]
        print(f"| {WAYS[way]} | " + " | ".join(cells) + " |")
    print("\n| way | epoch | CPU-s | AUC |\n|---|---|---|---|")
    for way, one in found.items():
        for number, (seconds, auc) in enumerate(one["curve"], 1):
            print(f"| {WAYS[way]} | {number} | {seconds:.0f} | {auc:.4f} |")
    if {"timm", "ours"} <= set(found):
        ours, theirs = found["ours"], found["timm"]
        less = ours["peak"] <= theirs["peak"]
        peaks = f"{ours['peak']:.0f} MiB, timm {theirs['peak']:.0f}"
        print(f"\n{'ok' if less else 'short'} peak memory {peaks} (target: at most timm's)")
        each, other = _a_picture(ours, count), _a_picture(theirs, count)
        once = [one["all"] - count * cost for one, cost in ((ours, each), (theirs, other))]
        times = other / each
        print(
            f"{'ok' if times >= 1 else 'short'} {times:.2f} times timm's rate where a run is long "
            f"(data, step, evaluation: {1000 * each:.1f} ms a picture, timm {1000 * other:.1f})"
        )
        print(f"once a run: {once[0]:.1f} CPU-s, timm {once[1]:.1f}")
    print(f"measured {time.strftime('%F')}")


def _a_picture(one: dict, count: int) -> float:
    """Return the CPU seconds of a picture that is trained on."""
    return sum(one["parts"].get(part, 0.0) for part in ("data", "step", "evaluation")) / count


if __name__ == "__main__":
    main()
