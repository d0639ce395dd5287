"""Artefacts of a finished job exchanged in pairs, or those of an older one put back."""

import itertools
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

from attack_world import CPU, SLOW, STEPS, Try, World, contents, copied, drawn, wrong_words

ARTEFACTS = ("folds", "checkpoints", "oof", "recipes", "submissions")
SUFFIXES = (".csv", ".json", ".safetensors", ".parquet", ".onnx")
# What commands answer of a finished root: removed before, compared afterwards.
ANSWERS: dict[str, tuple[list[str], list[str]]] = {
    "predict": (STEPS["predict"][0], ["submissions/tiny/tuned.*"]),
    "exported": (STEPS["exported"][0], ["submissions/tiny/one.*"]),
    "tune": (STEPS["tune"][0], ["recipes/tiny/tuned.json"]),
    "bundle": (STEPS["bundle"][0], ["bundles/tiny/*.zip"]),
    "export": (STEPS["export"][0], ["checkpoints/tiny/*/tiny/export/fold_0*"]),
    "report": (STEPS["report"][0], ["reports/tiny/*/mix_v0/*"]),
    "evaluate": (STEPS["evaluate"][0], ["reports/tiny/*/tiny/scorecard.csv"]),
    "evaluate recipe": (["evaluate", "--recipe", "tuned", *CPU],
                        ["reports/tiny/*/recipes/tuned/scorecard.csv"]),
    "compare": (STEPS["compare"][0], ["reports/tiny/*/comparisons/*"]),
    "merge": ([*STEPS["merge"][0], "--overwrite"],
              ["checkpoints/tiny/*/soup/*.safetensors", "oof/tiny/*/soup/*.csv"]),
}  # fmt: skip


def mixed_up(world: World, rng: random.Random) -> Iterator[Try]:
    """Yield a finished job with artefacts exchanged or put back, and a command on it.

    In two of five they are put right afterwards, and the command is typed again.
    """
    root = copied(world.whole, world.work / "root")
    wanted = {name: _ask(world, root, name)[2] for name in ANSWERS}
    while True:
        for what, files in _spoils(world, rng):
            for name in {drawn(rng, ANSWERS): 0, drawn(rng, ANSWERS): 0}:

                def attempt(
                    files: dict[str, Path] = files,
                    name: str = name,
                    careful: bool = rng.random() < 0.4,
                ) -> str:
                    root = copied(world.whole, world.work / "root")
                    for target, source in files.items():
                        shutil.copy(source, root / target)
                    before = contents(root)
                    code, text, found = _ask(world, root, name, keep=set(files))
                    wrong = wrong_words(code, text, codes=(0, 2), many=name == "compare")
                    if code == 0 and found != wanted[name]:
                        wrong = wrong or f"another answer, exit 0: {text[-300:]}"
                    if not wrong and (code or name not in SLOW) and careful:
                        wrong = _put_right(world, root, name, files, before, wanted)
                    return wrong

                yield f"{name} on {what}", attempt


def _ask(
    world: World, root: Path, name: str, keep: set[str] | None = None
) -> tuple[int, str, object]:
    """Remove a command's answer, type it; returns exit code, words, and the answer."""
    words, patterns = ANSWERS[name]
    for path in [path for pattern in patterns for path in root.glob(pattern)]:
        if str(path.relative_to(root)) not in (keep or ()) and name != "merge":
            path.unlink()
    code, text = world.run(words, root)
    return code, text, _answer(root, name) if code == 0 else None


def _answer(root: Path, name: str) -> object:
    if name == "tune":  # not the fingerprints of what it was found on
        found = json.loads((root / "recipes/tiny/tuned.json").read_text())
        members = [(one["model"], one["weight"], one["threshold"]) for one in found["members"]]
        return [members, found["stages"], found["scores"]]
    files = {str(p.relative_to(root)) for one in ANSWERS[name][1] for p in root.glob(one)}
    if name in ("predict", "exported"):  # the record names what was made anew
        files = {file for file in files if file.endswith(".csv")}
    return {file: content for file, content in contents(root).items() if file in files}


def _put_right(
    world: World,
    root: Path,
    name: str,
    files: dict[str, Path],
    before: dict[str, str],
    wanted: dict,
) -> str:
    """Put the exchanged files back and ask again; returns what is wrong."""
    gone = [file for file in set(before) - set(contents(root)) if not _is_answer(root, name, file)]
    if gone:
        return f"lost: {gone}"
    for target in files:
        shutil.copy(world.whole / target, root / target)
    code, text, found = _ask(world, root, name)
    wrong = wrong_words(code, text, codes=(0,))
    if not wrong and found != wanted[name]:
        wrong = "another answer"
    return f"put right: {wrong}" if wrong else ""


def _is_answer(root: Path, name: str, file: str) -> bool:
    return any((root / file).match(pattern) for pattern in ANSWERS[name][1])


def _spoils(world: World, rng: random.Random) -> list[tuple[str, dict[str, Path]]]:
    """Return what, and file -> file that is put in its place: every pair, every older file."""
    whole = world.whole
    files = [
        path.relative_to(whole)
        for home in ARTEFACTS
        for path in sorted((whole / home / "tiny").rglob("*"))
        if path.suffix in SUFFIXES and not path.name.startswith("mine")
    ]
    pairs = [
        (one, other)
        for one, other in itertools.combinations(files, 2)
        if one.suffixes == other.suffixes and one.parts[0] == other.parts[0]
    ]
    ways = [
        (f"{one} <-> {other}", {str(one): whole / other, str(other): whole / one})
        for one, other in pairs
    ]
    older = [file for file in files if (world.older / file).is_file()]
    ways += [(f"older {file}", {str(file): world.older / file}) for file in older]
    for home, run in itertools.product(("checkpoints", "oof"), ("tiny", "second")):
        found = [p for p in (world.older / home / "tiny").glob(f"*/{run}/fold_*") if p.is_file()]
        put = {str(path.relative_to(world.older)): path for path in found}
        ways.append((f"older {home} of {run}", put))
    rng.shuffle(ways)
    return ways
