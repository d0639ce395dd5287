"""Do merges help? Fine-tunes of one net on real faces, and two nets that have nothing in common.

    RVF_ROOT=/scratch python benchmarks/merging.py --weights mobilenetv2_100.imagenet1001.pth

RVF_ROOT/input holds dfdc_faces and cifake. Everything goes through the commands, which skip what is
done already: a run that was killed goes on. About 40 CPU-minutes from nothing.
"""

import argparse
import os
import resource
import subprocess
import sys
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from src import paths
from src.artifacts.folds import existing_scheme
from src.artifacts.runs import read_run

FACES, SMALL = "dfdc_faces", "cifake"
STEM, N, EPOCHS = "bench_ingredient", 4, 3
NAMES = [f"{STEM}_v{number}" for number in range(N)]
MODELS = f"models: [{', '.join(NAMES)}]\n"
THREE = f"models: [{', '.join(NAMES[:2] + NAMES[3:])}]\n"  # without the largest learning rate
MERGES = {
    "bench_uniform": "merge_method: uniform\n" + MODELS,
    "bench_greedy": "merge_method: uniform\n" + MODELS + "select: greedy\n",
    "bench_greedy_auc": "merge_method: uniform\n" + MODELS + "select: greedy\nmetric: auc\n",
    "bench_greedy_loss": "merge_method: uniform\n" + MODELS
    + "select: greedy\nmetric: log_loss\n",
    "bench_learned": "merge_method: linear\n" + MODELS + "select: learned\n",
    "bench_ties": "merge_method: ties\nbase_model: start\n" + MODELS
    + "parameters: {weight: 1, density: 0.5}\n",
    "bench_uniform_three": "merge_method: uniform\n" + THREE,
    "bench_ties_three": "merge_method: ties\nbase_model: start\n" + THREE
    + "parameters: {weight: 1, density: 0.5}\n",
    "bench_ties_whole": "merge_method: ties\nbase_model: start\n" + MODELS
    + "parameters: {weight: 1, density: 1}\n",
    "bench_stock": "merge_method: model_stock\nbase_model: start\n" + MODELS,
    "bench_slerp": f"merge_method: slerp\nbase_model: {NAMES[0]}\nmodels: [{NAMES[1]}]\n"
    "parameters: {t: 0.5}\n",
    "bench_wise": f"merge_method: wise_ft\nbase_model: start\nmodels: [{NAMES[0]}]\n"
    "search: {alpha: [0.4, 0.6, 0.8, 1.0]}\n",
}  # fmt: skip
UNMERGEABLE = {"bench_scratch": "merge_method: uniform\nmodels: [compact32_short, "
                                "compact32_short_s43]\n"}  # fmt: skip


def run(*words: str | Path) -> str:
    """Run a command of the repo; shows and returns what it says."""
    command = [sys.executable, *map(str, words)]
    print("$ python", *map(str, words), flush=True)
    process = subprocess.Popen(
        command, cwd=paths.REPO, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=os.environ,
    )  # fmt: skip
    lines = []
    for line in process.stdout or ():
        print("  " + line, end="", flush=True)
        lines.append(line)
    if process.wait():
        raise SystemExit(f"failed: {' '.join(command)}")
    return "".join(lines)


def write_merges(merges: dict[str, str]) -> list[str]:
    """Write files of merges into RVF_ROOT; returns their names."""
    home = paths.root() / "configs" / "merges"
    home.mkdir(parents=True, exist_ok=True)
    for name, text in merges.items():
        (home / f"{name}.yaml").write_text(text)
    return list(merges)


def table_of(dataset: str, names: list[str]) -> pd.DataFrame:
    """Return the table that `python -m src merge` has written."""
    scheme = existing_scheme(dataset, None)
    assert scheme is not None  # the training has made one
    name = "_".join(names)[:80]
    table = pd.read_csv(paths.merge_report_dir(dataset, scheme) / f"{name}.csv")
    return table.set_index("model")


def barrier_of(dataset: str, name: str) -> float:
    """Return the highest barrier that was found before a merge of fold 0."""
    scheme = existing_scheme(dataset, None)
    assert scheme is not None
    record = read_run(dataset, scheme, name, 0)
    return max(record["merged_from"]["barriers"].values())


def alpha_of(name: str) -> float:
    """Return the alpha that a search over it chose on all held-out rows of the faces."""
    scheme = existing_scheme(FACES, None)
    assert scheme is not None
    record = read_run(FACES, scheme, name, 0)
    return record["merged_from"]["chosen"]["parameters"]["alpha"]


def target(name: str, figure: str, want: str, good: bool) -> None:
    """Print one line of the verdict."""
    print(f"{'ok' if good else 'short'} {name}: {figure} (target {want})")


def faces(weights: Path) -> None:
    """Fine-tune, merge and judge on the faces."""
    place = ["--fold", "0", "--data", FACES, "--device", "cpu"]
    run("-m", "src", "variants", "mobilenetv2_100", "--n", str(N), "--as", STEM, *place,
        "--weights", weights, "--set", f"optim.epochs={EPOCHS}", "--track", "none")  # fmt: skip
    names = write_merges(MERGES)
    run("-m", "src", "merge", names[0], *place)
    run("-m", "src", "merge", *names, *place, "--weights", weights, "--no-check")
    table = table_of(FACES, names)
    best = table[table["kind"] == "ingredient"].sort_values("macro_f1").iloc[-1]
    ensemble = table.loc["ensemble of probs"]
    for metric in ("macro_f1", "auc"):
        most = table.loc[table["kind"] == "ingredient", metric].max()
        soup = table.loc["bench_uniform", metric]
        target(f"uniform soup, {metric}", f"{soup:.4f}, best ingredient {most:.4f}", "not below it",
               soup >= most)  # fmt: skip
    greedy = table.loc["bench_greedy"]
    target("greedy soup, macro-F1 by halves", f"{greedy['macro_f1']:.4f}, best ingredient "
           f"{best['macro_f1']:.4f}", "at most 0.005 below it",
           greedy["macro_f1"] >= best["macro_f1"] - 0.005)  # fmt: skip
    merges = table[table["kind"].str.startswith("merge")]
    if alpha_of("bench_wise") == 1:  # the fine-tuned model itself, its BatchNorm estimated anew
        print("bench_wise is no merge: alpha 1 was chosen; left out of the next line")
        merges = merges.drop("bench_wise")
    top = merges.sort_values("auc").iloc[-1]
    share = int(top["forwards"]) / int(ensemble["forwards"])
    target("best merge beside the ensemble of probs, AUC", f"{top['auc']:.4f} ({top.name}), "
           f"ensemble {ensemble['auc']:.4f}, at {share:.2f} of its cost", "at most 0.01 below it",
           top["auc"] >= ensemble["auc"] - 0.01)  # fmt: skip
    barrier = barrier_of(FACES, "bench_uniform")
    target("fine-tunes of one start are connected", f"highest barrier {barrier:+.3f}",
           "0.1 nats at most", barrier <= 0.1)  # fmt: skip


def scratch() -> None:
    """Merge two nets that started at random, which cannot work, and must be said."""
    place = ["--fold", "0", "--data", SMALL, "--device", "cpu"]
    run("train_folds.py", "--model", "compact32_short", "--seeds", "2", *place, "--track", "none")
    names = write_merges(UNMERGEABLE)
    said = run("-m", "src", "merge", *names, *place)
    table = table_of(SMALL, names)
    merged, worst = table.loc["bench_scratch"], table[table["kind"] == "ingredient"].min()
    barrier = barrier_of(SMALL, "bench_scratch")
    warned = "WARNING bench_scratch" in said or "merged already" in said
    target("two nets from scratch: warned", f"barrier {barrier:+.3f}", "a warning, above 0.1",
           warned and barrier > 0.1)  # fmt: skip
    target("the table shows the collapse", f"macro-F1 {merged['macro_f1']:.4f}, the worse net "
           f"{worst['macro_f1']:.4f}", "at least 0.05 below it",
           merged["macro_f1"] < worst["macro_f1"] - 0.05)  # fmt: skip


def main() -> None:
    """Run both parts."""
    parser = argparse.ArgumentParser(description="Merges on real data, against their ingredients.")
    parser.add_argument("--weights", type=Path, required=True, help="what the net starts from")
    parser.add_argument("--only", choices=["faces", "scratch"])
    arguments = parser.parse_args()
    if arguments.only != "scratch":
        faces(arguments.weights)
    if arguments.only != "faces":
        scratch()
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{(spent.ru_utime + spent.ru_stime) / 60:.1f} CPU-minutes in this run")


if __name__ == "__main__":
    main()
