"""Kill train, cache building, tune and predict at random moments; what comes out must not differ.

  python benchmarks/kills.py --kills 100

Each scenario starts a command, kills it (SIGKILL, SIGTERM or SIGINT, now and then twice in a row),
types the same command again to its end, and holds the artefacts against those of an undisturbed
run, byte by byte; no temporary file may be left. Commands run in forks of a process that has torch
loaded, so that kills fall into their work and not into imports; every tenth is typed as a process
of its own.
"""

import argparse
import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path

from commands import Command, preload

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
MODEL = """
backbone: {name: compact_net, pretrained: none, kwargs: {widths: [4, 4, 8]}}
input: {image_size: 12, crop_pct: 0.75}
augment: crop_flip
optim: {lr: 1e-2, epochs: 5, batch_size: 8, warmup_epochs: 0.5, ema_decay: 0.9}
"""
WIDE = "extends: tiny\ninput: {image_size: 48, crop_pct: 0.75}\noptim: {epochs: 1}\n"
TRAIN = ["train_folds.py", "--data", "tiny", "--precision", "fp32", "--device", "cpu"]
# scenario -> (command, what must be byte-equal afterwards, its share of the kills)
SCENARIOS: dict[str, tuple[list[str], list[str], int]] = {
    "train": ([*TRAIN, "--model", "tiny"], ["folds", "oof"], 30),
    "train, loader process": (
        [*TRAIN, "--model", "tiny", "--workers", "1", "--cache", "none"], ["folds", "oof"], 15),
    "cache": ([*TRAIN, "--model", "wide", "--cache", "disk", "--fold", "0"], ["oof"], 15),
    "tune": (["tune.py", "--data", "tiny", "--trials", "30"], ["recipes"], 15),
    "predict": (["predict_ensemble.py", "--data", "tiny", "--device", "cpu"],
                ["submissions"], 25),
}  # fmt: skip
LEFT = ("*.tmp", "*.unfinished", "*.state.pt")


def make_root(root: Path) -> None:
    """Write a data set of 48 train and 16 test pictures and two models."""
    import cv2
    import numpy as np

    home, rng = root / "input" / "tiny", np.random.default_rng(0)
    for index in range(64):
        fake = index % 2
        folder = home / ("test" if index >= 48 else f"train/{('real', 'fake')[fake]}")
        folder.mkdir(parents=True, exist_ok=True)
        small = rng.integers(90 * fake, 90 * fake + 160, (8, 8, 3), dtype=np.uint8)
        pixels = cv2.resize(small, (32, 32), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"{index:03d}.png"), pixels)
    (home / "test" / "050.png").write_bytes(b"not an image")
    (home / "dataset.yaml").write_text("n_folds: 2\n")
    (root / "configs" / "models").mkdir(parents=True)
    (root / "configs" / "models" / "tiny.yaml").write_text(MODEL)
    (root / "configs" / "models" / "wide.yaml").write_text(WIDE)


def contents(root: Path, folders: list[str]) -> dict[str, bytes]:
    """Return every artefact of the folders by its path; logs and parquet metadata are none."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for folder in folders
        for path in sorted((root / folder).rglob("*"))
        if path.is_file() and path.suffix in (".csv", ".json")
    }


def kill_once(command: Command, kind: str, root: Path, length: float, rng: random.Random) -> int:
    """Kill at a random moment; returns the signal, 0 if the command had ended before."""
    if kind == "cache" and not list(root.rglob("*.unfinished")):
        while command.running() and not list(root.rglob("*.unfinished")):
            time.sleep(0.002)
        length *= 0.3
    time.sleep(rng.uniform(0.02, length))
    number = rng.choice(SIGNALS)
    if not command.running():
        return 0
    os.kill(command.pid, number)
    return int(number)


def main() -> None:
    """Run the scenarios and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", action="store_true", help="keep the folders of bad scenarios")
    arguments = parser.parse_args()
    # A shell that starts this in the background has it ignore Ctrl-C, and so would the commands.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    rng = random.Random(arguments.seed)
    work = Path(tempfile.mkdtemp(prefix="kills_"))
    mains = preload()
    starts, wanted, lengths = undisturbed(work, mains)
    kinds = [kind for kind, (_, _, share) in SCENARIOS.items() for _ in range(share)]
    killed: Counter[str] = Counter()
    codes: Counter[str] = Counter()
    bad: list[str] = []
    number = 0
    while sum(killed.values()) < arguments.kills:
        number += 1
        kind = rng.choice(kinds)
        root = work / f"run{number}"
        shutil.copytree(starts[kind], root, symlinks=True)
        own = number % 10 == 0
        for outcome in kill_some(kind, root, mains, lengths[kind], rng, own=own):
            killed[kind] += 1
            codes[outcome] += 1
        began = time.monotonic()
        problem = finish(kind, root, mains, wanted[kind], own=own)
        if not own:  # what the machine's other work leaves now; a resumed run has less to do
            lengths[kind] = (lengths[kind] + time.monotonic() - began) / 2
        if problem:
            bad.append(f"{kind} ({root.name}): {problem}")
            print(f"  {bad[-1]}", flush=True)
        if not (problem and arguments.keep):
            shutil.rmtree(root, ignore_errors=True)
        if number % 20 == 0:
            print(f"  {sum(killed.values())} kills in {number} scenarios", flush=True)
    report(killed, codes, bad, number)
    if not (bad and arguments.keep):
        shutil.rmtree(work, ignore_errors=True)


def kill_some(
    kind: str, root: Path, mains: dict, length: float, rng: random.Random, *, own: bool
) -> list[str]:
    """Start and kill a command, sometimes again and again; returns `SIGKILL -> exit code` each."""
    outcomes = []
    while True:
        command = Command(SCENARIOS[kind][0], root, mains, own=own)
        number = kill_once(command, kind, root, length + (4.0 if own else 0.0), rng)
        code = command.wait()
        if number and code:  # else it had done its work when the signal came
            outcomes.append(f"{signal.Signals(number).name} -> {code}")
        if rng.random() < 0.7:
            return outcomes


def undisturbed(
    work: Path, mains: dict
) -> tuple[dict[str, Path], dict[str, dict[str, bytes]], dict[str, float]]:
    """Run every command once; returns where each starts from, what it makes, how long it takes."""
    root = work / "whole"
    make_root(root)
    starts: dict[str, Path] = {}
    wanted: dict[str, dict[str, bytes]] = {}
    lengths: dict[str, float] = {}
    for kind, (words, folders, _) in SCENARIOS.items():
        starts[kind] = work / f"before_{len(starts)}"
        if kind in ("train, loader process", "cache"):  # begins where `train` did
            starts[kind] = work / "before_0"
            here = work / f"whole_{kind[:5]}"
            shutil.copytree(starts[kind], here)
        else:
            shutil.copytree(root, starts[kind])
            here = root
        began = time.monotonic()
        code = Command(words, here, mains, own=False).wait(300)
        lengths[kind] = time.monotonic() - began
        if code:
            raise SystemExit(f"{kind}: {(here / 'log.txt').read_text()}")
        wanted[kind] = contents(here, folders)
        print(
            f"{kind}: {lengths[kind]:.1f} s undisturbed, {len(wanted[kind])} artefacts", flush=True
        )
    return starts, wanted, lengths


def finish(kind: str, root: Path, mains: dict, wanted: dict, *, own: bool) -> str:
    """Type the command again to its end; returns what is wrong, "" if nothing is."""
    words, folders, _ = SCENARIOS[kind]
    code = Command(words, root, mains, own=own).wait()
    if code:
        tail = (root / "log.txt").read_text(errors="replace")[-600:]
        return f"the same command ended with {code}: {tail}"
    found = contents(root, folders)
    differ = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
    left = [str(path.relative_to(root)) for mark in LEFT for path in root.rglob(mark)]
    return (f"differs: {differ} " if differ else "") + (f"left over: {left}" if left else "")


def report(killed: Counter[str], codes: Counter[str], bad: list[str], scenarios: int) -> None:
    """Print the table and the line of the target."""
    print(f"\n{'command':<24} kills")
    for kind in SCENARIOS:
        print(f"{kind:<24} {killed[kind]:>5}")
    print("signal -> exit code: " + ", ".join(f"{k}: {n}" for k, n in sorted(codes.items())))
    print(f"{scenarios} scenarios, {scenarios - len(bad)} with equal bytes and nothing left over")
    total = sum(killed.values())
    print(
        f"{'short' if bad else 'ok'} kills {total} kills, {len(bad)} differ (target 100, 0 differ)"
    )


if __name__ == "__main__":
    main()
