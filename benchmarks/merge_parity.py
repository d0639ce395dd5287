"""Whether our merge methods compute what mergekit's compute, on random checkpoints.

    uv venv /tmp/mk && uv pip install --python /tmp/mk mergekit==0.1.4 'transformers<5'
    python benchmarks/merge_parity.py --mergekit-python /tmp/mk/bin/python

mergekit runs in its own environment, through its own command (`mergekit-pytorch`), on the same
files and the same YAML. Random methods are fed the same draws: on both sides every mask comes from
a generator that starts afresh, because the order in which mergekit draws for the models follows
Python's hash seed. Where we differ on purpose (filters of convolutions as rows, see
docs/merging.md) tensors are vectors and matrices.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

TARGET = 1e-5
FLAT = {"bias": (300,), "matrix": (64, 48)}
ALL = {**FLAT, "conv": (16, 8, 3, 3), "token": (1, 1, 256)}
THREE = {"a": 0.5, "b": 0.3, "c": 0.2}
TWO = {"a": 0.6, "b": 0.4}

# (method, weights or None a model, base?, global parameters, parameters a model, shapes)
CASES = [
    ("linear", THREE, False, {}, {}, ALL),
    ("linear", THREE, False, {"normalize": False}, {}, ALL),
    ("slerp", {"a": None}, True, {"t": 0.3}, {}, ALL),
    ("nuslerp", TWO, False, {}, {}, ALL),
    ("nuslerp", TWO, True, {}, {}, ALL),
    ("nuslerp", TWO, False, {"nuslerp_flatten": False}, {}, {"matrix": (64, 48)}),
    ("nuslerp", TWO, False, {"nuslerp_flatten": False, "nuslerp_row_wise": True}, {},
     {"matrix": (48, 48)}),
    ("multislerp", THREE, False, {}, {}, ALL),
    ("multislerp", THREE, True, {}, {}, ALL),
    ("karcher", dict.fromkeys("abc"), False, {}, {}, ALL),
    ("task_arithmetic", THREE, True, {"lambda": 0.7}, {}, ALL),
    ("task_arithmetic", THREE, True, {"normalize": True}, {}, ALL),
    ("ties", THREE, True, {}, {"density": 0.4}, ALL),
    ("ties", THREE, True, {"rescale": True, "normalize": False}, {"density": 0.4}, ALL),
    ("breadcrumbs", THREE, True, {}, {"density": 0.7, "gamma": 0.05}, ALL),
    ("breadcrumbs_ties", THREE, True, {}, {"density": 0.7, "gamma": 0.05}, ALL),
    ("sce", dict.fromkeys("abc"), True, {"select_topk": 0.5}, {}, ALL),
    ("sce", dict.fromkeys("abc"), True, {"select_topk": 0.5}, {}, {"agreed": (64, 48)}),
    ("sce", dict.fromkeys("abc"), True, {}, {}, ALL),
    ("model_stock", dict.fromkeys("abc"), True, {}, {}, ALL),
    ("model_stock", dict.fromkeys("abc"), True, {"filter_wise": True}, {}, FLAT),
    ("nearswap", {"a": None}, True, {"t": 0.05}, {}, ALL),
    ("arcee_fusion", {"a": None}, True, {}, {}, FLAT),
    ("passthrough", {"a": None}, False, {}, {"scale": 1.5}, ALL),
    ("dare_linear", THREE, True, {}, {"density": 0.6}, ALL),
    ("dare_ties", THREE, True, {}, {"density": 0.6}, ALL),
    ("della", THREE, True, {}, {"density": 0.6, "epsilon": 0.2}, FLAT),
    ("della_linear", THREE, True, {}, {"density": 0.6, "epsilon": 0.2}, FLAT),
]  # fmt: skip

# Runs in mergekit's environment: its command, once a case.
WORKER = """
import json, sys, torch
from mergekit.scripts.merge_raw_pytorch import main, SimpleLoaderCache
draw = torch.bernoulli
torch.bernoulli = lambda chance: draw(chance, generator=torch.Generator().manual_seed(0))
for config, out in json.load(open(sys.argv[1])):
    SimpleLoaderCache().loaders.clear()
    main([config, out], standalone_mode=False)
"""


def main() -> None:
    """Merge everything on both sides and compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--mergekit-python", type=Path, required=True, metavar="PYTHON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        jobs = [prepare(folder / str(number), *case) for number, case in enumerate(CASES)]
        (folder / "jobs.json").write_text(json.dumps(jobs))
        command = [options.mergekit_python, "-c", WORKER, folder / "jobs.json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"mergekit failed:\n{done.stderr[-3000:]}")
        report([compare(folder / str(number)) for number in range(len(CASES))])


def prepare(folder: Path, method: str, weights: dict, base: bool, common: dict, own: dict,
            shapes: dict) -> tuple[str, str]:  # fmt: skip
    """Write a case's checkpoints and YAML; returns what mergekit's side needs."""
    import torch
    from safetensors.torch import save_file

    from src.strict_yaml import dump_yaml

    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    start = {k: torch.randn(s, generator=generator) for k, s in shapes.items()}
    learnt = {k: 0.1 * torch.randn(s, generator=generator) for k, s in shapes.items()}
    for model in ("base", *weights):
        # All learn something in common, so that angles between them are below 90 degrees.
        drawn = {
            k: v
            if model == "base"
            else v + learnt[k] + 0.1 * torch.randn(v.shape, generator=generator)
            for k, v in start.items()
        }
        if "agreed" in drawn and model != "base":  # the same in all models but for some rows
            drawn["agreed"][16:] = start["agreed"][16:] + learnt["agreed"][16:]
        save_file(drawn, folder / f"{model}.safetensors")

    def write(name: str, further: dict) -> Path:
        content = {
            "merge_method": method,
            "models": [
                {"model": str(folder / f"{model}.safetensors"),
                 "parameters": {**({} if weight is None else {"weight": weight}), **own, **further}}
                for model, weight in weights.items()
            ],
            "parameters": common,
        }  # fmt: skip
        if base:
            content["base_model"] = str(folder / "base.safetensors")
        (folder / name).write_text(dump_yaml(content))
        return folder / name

    write("merge.yaml", {})
    # mergekit 0.1.4 stops (IndexError) where a model's parameter is left to its default.
    theirs = write("theirs.yaml", {"density": 1.0} if method == "task_arithmetic" else {})
    return str(theirs), str(folder / "theirs")


def compare(folder: Path) -> float:
    """Merge a case here; returns the largest difference to mergekit's file."""
    from safetensors.torch import load_file

    from src.merging.methods import deltas
    from src.merging.recipe import read_recipes
    from src.merging.streaming import merge_files

    (recipe,) = read_recipes(folder / "merge.yaml")
    files = {name: Path(name) for name in recipe.sources}
    with mock.patch.object(deltas, "_coins", _fresh_coins):
        merge_files(recipe, files, folder / "ours.safetensors")
    ours = load_file(folder / "ours.safetensors")
    (path,) = (folder / "theirs").glob("*.safetensors")
    theirs = load_file(path)
    if set(ours) != set(theirs):
        raise SystemExit(f"{folder}: {sorted(ours)} here, {sorted(theirs)} there")
    return max(float((ours[k] - theirs[k]).abs().max()) for k in ours)


def _fresh_coins(chance, _generator):  # noqa: ANN001, ANN202
    import torch

    return torch.bernoulli(chance, generator=torch.Generator().manual_seed(0)).bool()


def report(differences: list[float]) -> None:
    """Print the table, then the target's line."""
    print(f"{'method':<18} {'base':<5} {'tensors':<26} {'parameters':<52} max abs difference")
    for (method, _, base, common, own, shapes), difference in zip(CASES, differences, strict=True):
        settings = ", ".join(f"{k} {v}" for k, v in {**common, **own}.items())
        tensors = ", ".join(shapes)
        print(
            f"{method:<18} {'yes' if base else 'no':<5} {tensors:<26} {settings:<52} "
            f"{difference:.1e}"
        )
    worst = max(differences)
    print(f"{'ok' if worst <= TARGET else 'short'} merge_parity {worst:.1e} (target {TARGET:.0e})")


if __name__ == "__main__":
    main()
