"""Memory and time of merging files larger than memory, beside mergekit on the same files.

    python benchmarks/merge_memory.py --gb 2 --models 4 --mergekit-python /tmp/mk/bin/python

Checkpoints of random float32 numbers, the largest tensors 4096 x 4096 (64 MB), and a base for TIES.
Each merge runs in a process of its own, in turns; its anonymous memory (RssAnon of
/proc/PID/status) is sampled 50 times a second, seconds are those of the merge without imports, on
one thread (on cores shared with other work, more of them wait for each other).
Without --mergekit-python only ours is measured. See merge_parity.py for mergekit's environment.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from src.strict_yaml import dump_yaml

MEMORY_TARGET_MB = 1024
SHAPES = [(4096, 4096), (4096, 1024), (1024, 1024, 3, 3), (4096,), (1, 1, 768), (64, 1, 3, 3)]
METHODS = {"linear": {}, "ties": {"density": 0.5}}

OURS = """
import sys, time
from pathlib import Path
from src.merging.recipe import read_recipes
from src.merging.streaming import merge_files
(recipe,) = read_recipes(Path(sys.argv[1]))
start = time.monotonic()
files = {name: Path(name) for name in recipe.sources}
merge_files(recipe, files, Path(sys.argv[2]) / "m.safetensors")
print("seconds", time.monotonic() - start)
"""
THEIRS = """
import sys, time
from mergekit.scripts.merge_raw_pytorch import main
start = time.monotonic()
main([sys.argv[1], sys.argv[2]], standalone_mode=False)
print("seconds", time.monotonic() - start)
"""


def write_checkpoint(path: Path, size: int, seed: int) -> None:
    """Write random float32 tensors of `size` bytes in all, a tensor at a time."""
    import torch

    from src.merging.sources import Kind
    from src.merging.streaming import TensorFile

    kinds: dict[str, Kind] = {}
    left, index = size, 0
    while left > 0:
        for shape in SHAPES:
            if left > 0:
                kinds[f"blocks.{index}.{'x'.join(map(str, shape))}"] = Kind(torch.float32, shape)
                left -= 4 * int(np.prod(shape))
        index += 1
    rng = np.random.default_rng(seed)
    with TensorFile(path, kinds, {}) as file:
        for name in file.names:
            file.add_tensor(torch.from_numpy(rng.standard_normal(kinds[name].shape, np.float32)))


def measure(python: str, code: str, config: Path, output: Path) -> tuple[float, float]:
    """Run a merge in a process of its own; returns seconds and peak RssAnon in MB."""
    output.mkdir()
    command = [python, "-c", code, str(config), str(output)]
    pipe = subprocess.PIPE
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment)
    peak = 0
    # Both print less than a pipe holds, so that nobody need read before the end.
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            break
        anonymous = [line.split()[1] for line in status.splitlines() if line.startswith("RssAnon")]
        peak = max(peak, *map(int, anonymous), 0)
        time.sleep(0.02)
    printed, errors = process.communicate()
    if process.returncode:
        raise SystemExit(f"{config}: {errors[-2000:]}")
    for file in output.iterdir():
        file.unlink()
    output.rmdir()
    return float(printed.split("seconds")[1]), peak / 1024


def main() -> None:
    """Make the checkpoints, merge them both ways in turns, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gb", type=float, default=2.0, help="size of one checkpoint (10^9 bytes)")
    parser.add_argument("--models", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=1, help="the fastest counts")
    parser.add_argument("--methods", nargs="+", choices=[*METHODS], default=[*METHODS])
    parser.add_argument("--mergekit-python", metavar="PYTHON")
    parser.add_argument("--work-dir", help="where the files are written")
    options = parser.parse_args()
    sides = {"ours": (sys.executable, OURS)}
    if options.mergekit_python:
        sides["mergekit"] = (options.mergekit_python, THEIRS)
    with tempfile.TemporaryDirectory(dir=options.work_dir) as made:
        folder = Path(made)
        names = [f"m{index}" for index in range(options.models)] + ["base"]
        for seed, name in enumerate(names):
            write_checkpoint(folder / f"{name}.safetensors", int(options.gb * 1e9), seed)
        found: dict[tuple[str, str], list[tuple[float, float]]] = {}
        print(f"{options.models} x {options.gb:g} GB, largest tensor 64 MB")
        print(f"{'method':<10} {'side':<10} {'seconds':>8} {'peak RssAnon, MB':>18}", flush=True)
        for method in options.methods:
            config = write_recipe(folder, method, names[:-1])
            for _ in range(options.rounds):
                for side, (python, code) in sides.items():
                    taken = measure(python, code, config, folder / "out")
                    print(f"{method:<10} {side:<10} {taken[0]:>8.1f} {taken[1]:>18.0f}", flush=True)
                    found.setdefault((method, side), []).append(taken)
    report(found)


def write_recipe(folder: Path, method: str, names: list[str]) -> Path:
    """Write the YAML that both sides read."""
    content = {
        "merge_method": method,
        "models": [
            {"model": str(folder / f"{name}.safetensors"),
             "parameters": {"weight": 1.0 + index / 10, **METHODS[method]}}
            for index, name in enumerate(names)
        ],
    }  # fmt: skip
    if method == "ties":
        content["base_model"] = str(folder / "base.safetensors")
    path = folder / f"{method}.yaml"
    path.write_text(dump_yaml(content))
    return path


def report(found: dict[tuple[str, str], list[tuple[float, float]]]) -> None:
    """Print a line a target; the fastest round and the highest peak count."""
    lines = []
    for (method, side), taken in found.items():
        seconds, peak = min(t[0] for t in taken), max(t[1] for t in taken)
        if side == "ours":
            word = "ok" if peak <= MEMORY_TARGET_MB else "short"
            lines.append(f"{word} {method}_memory {peak:.0f} MB (target <= {MEMORY_TARGET_MB})")
            if (method, "mergekit") in found:
                ratio = seconds / min(t[0] for t in found[method, "mergekit"])
                word = "ok" if ratio <= 1 else "short"
                lines.append(f"{word} {method}_time {ratio:.2f} of mergekit's (target <= 1)")
    print("\n".join(["", *lines]))


if __name__ == "__main__":
    main()
