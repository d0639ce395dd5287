"""A small finished job for `attacks.py`: every command, where it starts from, what it makes."""

import hashlib
import io
import json
import random
import re
import shutil
import subprocess
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from commands import Before, Command

from src.artifacts.files import SEAL

MODEL = """
backbone: {name: compact_net, pretrained: none, kwargs: {widths: [4, 4, 8]}}
input: {image_size: 12, crop_pct: 0.75}
augment: crop_flip
optim: {lr: 1e-2, epochs: 2, batch_size: 8, ema_decay: 0.9}
"""
SECOND = "extends: tiny\nseed: 7\noptim: {epochs: 1}\n"
SOUP = "merge_method: uniform\nmodels: [mix_v0, mix_v1]\nselect: greedy\n"
ROWS = """
data: tiny
folds: [0]
out_of_domain: [other]
model: tiny
rows:
  probe: {set: {strategy: feature_extractor, optim.epochs: 1, transfer: {head_lr: 1e-2}}}
  full: {model: tiny}
  soup: {merge: soup}
"""
ON = ["--data", "tiny"]
CPU = [*ON, "--device", "cpu", "--workers", "0"]
SEARCH = ["--trials", "10", "--strategies", "mean@0.5", "mean", "stack", "tpe"]
TRAIN = [*CPU, "--precision", "fp32"]
# In this order each finds what it needs; the folders are those of its answer.
STEPS: dict[str, tuple[list[str], list[str]]] = {
    "faces": (["faces", *ON, "--detector", "whole", "--preview"], ["reports/tiny"]),
    "train": (["train_folds.py", *TRAIN, "--model", "tiny"], ["folds", "oof", "checkpoints"]),
    "variants": (
        ["variants", "tiny", "--n", "2", "--as", "mix", "--fold", "0", *TRAIN],
        ["oof", "checkpoints"]),
    "second": (["train_folds.py", *TRAIN, "--model", "second"], ["oof", "checkpoints"]),
    "merge": (["merge", "soup", *CPU], ["checkpoints", "oof", "reports"]),
    "tune": (["tune.py", *ON, "--models", "tiny", "second", *SEARCH], ["recipes"]),
    "export": (["export", "tiny", *ON, "--items", "4", "--fold", "0"], ["checkpoints"]),
    "predict": (["predict_ensemble.py", *CPU], ["submissions"]),
    "exported": (
        ["predict_ensemble.py", *CPU, "--engine", "onnx", "--recipe", "one"], ["submissions"]),
    "bundle": (["bundle", "tuned", *ON], ["bundles"]),
    "report": (["report", "mix_v0", *ON], ["reports"]),
    "evaluate": (["evaluate", "--model", "tiny", *CPU], ["reports"]),
    "compare": (["compare", "trial", *TRAIN], ["reports"]),  # auto goes by a timing
}  # fmt: skip
OLDER = {"train", "variants", "second", "merge", "tune", "export", "predict", "exported"}
# What later steps want besides.
ALSO = {
    "tune": [["tune.py", *ON, "--models", "tiny", "--recipe", "one"]],
    "second": [["export", "tiny", *ON, "--items", "4", "--fold", "1"]],
}  # fmt: skip
# Lengths of time, and what was true of the machine, not of the answer; seals sum up both.
VOLATILE = {"seconds", "items_per_second", "git", "versions"}
SLOW = ("export", "report", "compare")
Try = tuple[str, Callable[[], str]]
UNSEEN = (".cache", "log.txt")
PLANTED = ("oof/notes.txt", "submissions/tiny/mine.csv", "checkpoints/tiny/mine.safetensors",
           "reports/tiny/mine.html", "bundles/mine.zip", "recipes/tiny/mine.txt")  # fmt: skip
UNFINISHED = re.compile(r"\.tmp$|\.unfinished$|\.state\.pt$|\.lock$|comparisons/")


def make_root(root: Path) -> None:
    """Write two data sets, configs, and files of the user's in the folders of artefacts."""
    import cv2
    import numpy as np

    rng = np.random.default_rng(0)
    for name, train, count in (("tiny", 24, 32), ("other", 12, 12)):
        for index in range(count):
            fake = index % 2
            kind = "test" if index >= train else f"train/{('real', 'fake')[fake]}"
            folder = root / "input" / name / kind
            folder.mkdir(parents=True, exist_ok=True)
            small = rng.integers(90 * fake, 90 * fake + 160, (8, 8, 3), dtype=np.uint8)
            pixels = cv2.resize(small, (24, 24), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(folder / f"{index:03d}.png"), pixels)
        (root / "input" / name / "dataset.yaml").write_text("n_folds: 2\n")
    for name, text in {
        "models/tiny": MODEL, "models/second": SECOND, "merges/soup": SOUP,
        "comparisons/trial": ROWS,
    }.items():  # fmt: skip
        path = root / "configs" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for name in PLANTED:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"the user's own\n")


def copied(start: Path, root: Path) -> Path:
    """Return `root` as a copy of `start`, whatever was there before."""
    if root.exists():
        subprocess.run(["rm", "-rf", *map(str, root.iterdir())], check=True)
    shutil.copytree(start, root, dirs_exist_ok=True)
    return root


def drawn(rng: random.Random, among: Iterable[str] = STEPS) -> str:
    """Return a command; those that take long less often."""
    names = list(among)
    return rng.choices(names, [0.4 if name in SLOW else 1.0 for name in names])[0]


def contents(root: Path, folders: list[str] | None = None) -> dict[str, str]:
    """Return path -> fingerprint of every file but those of `.cache`, as far as it may not differ.

    Left out are lengths of time, the versions and seals that sum them up, and logs of TensorBoard.
    """
    found = {}
    for folder in folders or ["."]:
        for path in sorted((root / folder).rglob("*")):
            name = str(path.relative_to(root))
            if path.is_file() and not name.startswith(UNSEEN) and "tfevents" not in name:
                found[name] = _fingerprint(name, path.read_bytes(), root)
    return found


_KNOWN: dict[tuple[str, bytes, Path], str] = {}


def _fingerprint(name: str, content: bytes, root: Path) -> str:
    key = (name, hashlib.sha256(content).digest(), root)
    if key not in _KNOWN:
        _KNOWN[key] = _summed_up(name, content, root)
    return _KNOWN[key]


def _summed_up(name: str, content: bytes, root: Path) -> str:
    content = content.replace(str(root).encode(), b"ROOT")
    if name.endswith(".zip") and zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            members = {one: _fingerprint(one, packed.read(one), root) for one in packed.namelist()}
        content = json.dumps(members).encode()
    elif name.endswith(".json"):
        value = json.loads(content)
        if isinstance(value, dict):
            value.pop(SEAL, None)
        content = json.dumps(_steady(value)).encode()
    elif name.endswith(".html"):
        content = re.sub(rb"(?s)<tr><th>seconds.*?</tr>", b"", content)
    elif "comparisons/" in name and name.endswith(".csv"):
        lines = [line.split(b",") for line in content.splitlines()]
        place = lines[0].index(b"seconds")
        content = b"\n".join(b",".join(line[:place] + line[place + 1 :]) for line in lines)
    return hashlib.sha256(content).hexdigest()[:16]


def _steady(value: object) -> object:
    if isinstance(value, dict):
        return {key: _steady(one) for key, one in value.items() if key not in VOLATILE}
    return [_steady(one) for one in value] if isinstance(value, list) else value


def _size(root: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in root.rglob("*") if path.is_file())


@dataclass
class World:
    """The undisturbed job.

    Attributes:
        work: folder of everything.
        mains: see `preload`.
        whole, older: finished roots; the older one is of other seeds.
        starts: step -> root before it.
        after: step -> contents of the root after it.
        lengths: step -> seconds.
        sizes: step -> bytes that it writes.
        alone: (start, step) -> contents after a step from where another starts.
        disk: a small one, see `attacks.py`.
    """

    work: Path
    mains: dict
    whole: Path = Path()
    older: Path = Path()
    starts: dict[str, Path] = field(default_factory=dict)
    before: dict[str, dict[str, str]] = field(default_factory=dict)
    after: dict[str, dict[str, str]] = field(default_factory=dict)
    lengths: dict[str, float] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    alone: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)
    disk: Any = None

    def make(self) -> None:
        """Do the whole job, and an older one."""
        self.whole, self.older = self.work / "whole", self.work / "older"
        for root in (self.whole, self.older):
            make_root(root)
        (self.older / "configs/models/tiny.yaml").write_text(MODEL + "seed: 3\n")
        for step, (words, _) in STEPS.items():
            self._step(step, words)

    def _step(self, step: str, words: list[str]) -> None:
        self.starts[step] = self.work / f"before_{step}"
        shutil.copytree(self.whole, self.starts[step])
        self.before[step] = contents(self.whole)
        began, size = time.monotonic(), _size(self.whole)
        self._type(words, self.whole)
        self.lengths[step] = time.monotonic() - began
        self.after[step] = contents(self.whole)
        self.sizes[step] = _size(self.whole) - size
        for root in (self.whole, self.older):
            for more in ([words] if root == self.older and step in OLDER else []) + ALSO.get(
                step, []
            ):
                self._type(more, root)
        new = len(self.after[step]) - len(self.before[step])
        print(f"{step}: {self.lengths[step]:.1f} s undisturbed, {new} new files", flush=True)

    def _type(self, words: list[str], root: Path) -> None:
        log = root.with_suffix(".log")
        code = Command(words, root, self.mains, log=log).wait(300)
        if code:
            raise SystemExit(f"{' '.join(words)}: {code}\n{log.read_text()}")

    def start(
        self, words: list[str], root: Path, number: int = 0, *, before: Before | None = None
    ) -> Command:
        """Type a command; what it says goes into a file of its own beside the roots."""
        log = self.work / f"said_{number}.txt"
        log.write_bytes(b"")
        return Command(words, root, self.mains, log=log, before=before)

    def end(self, command: Command, number: int = 0) -> tuple[int, str]:
        """Wait for a command; returns its exit code and what it said."""
        code = command.wait()
        return code, (self.work / f"said_{number}.txt").read_text(errors="replace")

    def run(self, words: list[str], root: Path, *, before: Before | None = None) -> tuple[int, str]:
        """Type a command to its end; returns its exit code and what it said."""
        return self.end(self.start(words, root, before=before))

    def again(self, commands: list[list[str]], root: Path, after: Mapping[str, str]) -> str:
        """Type commands again; returns what is wrong with what they come to, "" for nothing."""
        for words in commands:
            code, text = self.run(words, root)
            wrong = wrong_words(code, text, codes=(0,))
            if wrong:
                return f"typed again: {wrong}"
        wrong = wrong_answer(root, after)
        return f"typed again: {wrong}" if wrong else ""

    def after_all(self, start: str, steps: list[str]) -> dict[str, str]:
        """Return a root's contents when each step has run: what each of them adds alone."""
        before, wanted = self.before[start], dict(self.before[start])
        for step in steps:
            if step == start:
                self.alone[start, step] = self.after[step]
            if (start, step) not in self.alone:
                root = self.work / "alone"
                shutil.copytree(self.starts[start], root)
                self._type(STEPS[step][0], root)
                self.alone[start, step] = contents(root)
                shutil.rmtree(root)
            new = self.alone[start, step]
            wanted |= {
                name: content for name, content in new.items() if before.get(name) != content
            }
        return wanted


def wrong_words(code: int, text: str, *, codes: tuple[int, ...], many: bool = False) -> str:
    """Return what is wrong with how a command ended, "" for nothing; `many` errors may be."""
    if code not in codes:
        return f"exit code {code}: {text[-500:]}"
    if "Traceback (most recent" in text:
        return f"a traceback: {text[-800:]}"
    count = len(re.findall(r"(?m)^error: ", text))
    return (
        f"{count} messages at exit code 2: {text[-500:]}"
        if code == 2 and count != 1 and not many
        else ""
    )


def wrong_files(root: Path, before: Mapping[str, str], after: Mapping[str, str]) -> str:
    """Return what a disturbed command lost or left half-written, "" for nothing."""
    try:
        found = contents(root)
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        return f"half-written: {error}"
    lost = [name for name in before if name in after and name not in found]
    half = [name for name, content in found.items()
            if content not in (before.get(name), after.get(name))
            and not UNFINISHED.search(name)]  # fmt: skip
    return (f"lost: {lost} " if lost else "") + (f"half-written: {half}" if half else "")


def wrong_answer(root: Path, after: Mapping[str, str]) -> str:
    """Return what differs from the undisturbed root, "" for nothing."""
    found = contents(root)
    names = sorted({*found, *after})
    differ = [name for name in names if found.get(name) != after.get(name)]
    differ += [str(path.relative_to(root)) for path in root.rglob("*.tmp")]
    return f"differs: {differ[:8]}" if differ else ""
