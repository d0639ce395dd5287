"""Hostile names and paths: in flags, in recipes, in dataset.yaml, as file names."""

import hashlib
import itertools
import json
import random
from collections.abc import Iterator
from pathlib import Path

from attack_world import CPU, ON, STEPS, TRAIN, Try, World, contents, copied, wrong_words

from tests.records import change_sealed

NAMES = (
    "", ".", "..", "../evil", "../../evil.csv", "a/b", "/", "x\ny", "x\0y", "\x1b[2Jx", "\u202egnp",
    "a" * 300, "~", "-", "--", "💥", " ", "*", "$(touch evil)", "NA", "1e9", "9" * 40, "é",
)  # fmt: skip
PATHS = (
    "/dev/null", "/dev/zero", "/dev/full", "ROOT", "ROOT/input/tiny/test/024.png",
    "ROOT/oof/notes.txt", "ROOT/folds/tiny/sgkf2_s42.csv", "ROOT/configs/models/tiny.yaml",
    "ROOT/submissions/tiny/mine.csv", "ROOT/checkpoints/tiny/mine.safetensors",
    "ROOT/bundles/mine.zip", "ROOT/checkpoints/tiny/sgkf2_s42/tiny/fold_0.safetensors",
    "ROOT/oof/tiny/sgkf2_s42/tiny/fold_0.csv", "ROOT/link.csv", "ROOT/link.zip",
    "OUTSIDE/theirs.csv", "OUTSIDE/theirs.zip", "OUTSIDE/theirs.safetensors", "ROOT/circle.csv",
    "ROOT/input/tiny/new.csv", "ROOT/input/tiny/new.zip", "ROOT/no/such/folder.csv",
)  # fmt: skip
CHECKPOINT = "ROOT/checkpoints/tiny/sgkf2_s42/tiny/fold_0.safetensors"
PREDICT, FOLDER = ["predict_ensemble.py", *CPU], "ROOT/input/tiny/test"
WORD = "WORD"
PLACES: tuple[list[str], ...] = (
    [*PREDICT, "--recipe", WORD], ["predict_ensemble.py", "--data", WORD, "--device", "cpu"],
    ["predict_ensemble.py", "--checkpoint", CHECKPOINT, "--input-dir", FOLDER, "--output", WORD,
     "--device", "cpu", "--workers", "0"],
    ["predict_ensemble.py", "--checkpoint", WORD, "--input-dir", FOLDER, "--output",
     "ROOT/answers.csv", "--device", "cpu", "--workers", "0"],
    ["predict_ensemble.py", "--checkpoint", CHECKPOINT, "--input-dir", WORD, "--output",
     "ROOT/answers.csv", "--device", "cpu", "--workers", "0"],
    ["predict_ensemble.py", "--vote", "ROOT/submissions/tiny/tuned.csv", WORD, "--output",
     "ROOT/answers.csv"],
    ["predict_ensemble.py", "--vote", "ROOT/submissions/tiny/tuned.csv",
     "ROOT/submissions/tiny/one.csv", "--output", WORD],
    ["tune.py", *ON, "--models", "tiny", "--recipe", WORD], ["tune.py", *ON, "--models", WORD],
    ["tune.py", "--data", WORD], ["tune.py", *ON, "--scheme", WORD],
    ["tune.py", *ON, "--models", "tiny", "--trials", "5", "--study", WORD],
    ["tune.py", *ON, "--extra", f"{WORD}=ROOT/submissions/tiny/mine.csv,ROOT/oof/notes.txt"],
    ["tune.py", *ON, "--extra", f"new={WORD},{WORD}"], ["tune.py", *ON, "--extra", WORD],
    ["train_folds.py", *TRAIN, "--model", WORD], ["train_folds.py", *TRAIN, "--model", "tiny",
     "--fold", "0", "--set", "seed=3", "--as", WORD],
    ["train_folds.py", *TRAIN, "--model", "tiny", "--scheme", WORD],
    ["train_folds.py", *TRAIN, "--model", "tiny", "--weights", WORD, "--overwrite"],
    ["train_folds.py", *TRAIN, "--model", "tiny", "--fold", WORD],
    ["train_folds.py", *TRAIN, "--model", "tiny", "--set", f"seed={WORD}", "--as", "new"],
    ["variants", WORD, *TRAIN], ["variants", "tiny", "--as", WORD, "--n", "2", "--fold", "0",
     *TRAIN],
    ["merge", WORD, *CPU], ["merge", "ROOT/files.yaml", "--output", WORD],
    ["merge", "soup", *CPU, "--holdout", WORD], ["export", WORD, *ON],
    ["export", "tiny", *ON, "--fold", WORD], ["bundle", WORD, *ON],
    ["bundle", "tuned", *ON, "--output", WORD], ["report", WORD, *ON],
    ["evaluate", "--model", WORD, *CPU], ["evaluate", "--recipe", WORD, *CPU],
    ["evaluate", "--model", "tiny", "--from", WORD, *CPU], ["compare", WORD, *CPU],
    ["compare", "trial", *CPU, "--out-of-domain", WORD], ["faces", "--data", WORD],
    ["faces", *ON, "--detector", WORD], ["faces", *ON, "--detector", "yunet", "--detector-file",
     WORD],
    ["submit-log", *ON, "--recipe", WORD], ["submit-log", "--data", WORD, "--recipe", "tuned"],
    ["data", "--data", WORD],
)  # fmt: skip
# A sealed recipe or record that names something hostile, as a foreign program may have written it.
FIELDS = ("model", "dataset", "scheme", "fold", "members", "extra", "combine", "base")
USES = ("predict", "bundle", "evaluate", "tune", "export", "report", "train")


def hostile(world: World, rng: random.Random) -> Iterator[Try]:
    """Yield what and a try, which returns what is wrong; flags, fields and file names in turn."""
    flags = list(itertools.product(PLACES, NAMES + PATHS))
    fields = list(itertools.product(FIELDS, USES, NAMES[:15]))
    while True:
        for _ in range(8):
            place, word = rng.choice(flags)
            yield f"{' '.join(place)} of {word[:40]!r}", lambda p=place, w=word: _flag(
                world, p, w
            )  # fmt: skip
        for _ in range(3):
            field, use, word = rng.choice(fields)
            yield f"{use}, {field}: {word[:40]!r}", lambda f=field, u=use, w=word: _field(
                world, f, u, w
            )  # fmt: skip
        named = rng.sample([word for word in NAMES if _is_file_name(word)], 4)
        yield f"test pictures {named}", lambda n=named: _pictures(world, n)


def _is_file_name(word: str) -> bool:
    return len(word) < 200 and not set(word) & set("/\0") and word.strip(" .") != ""


def _place(world: World) -> tuple[Path, Path]:
    """Return a finished root and a folder of somebody else beside it."""
    root = copied(world.whole, world.work / "hostile" / "root")
    outside = root.parent / "outside"
    outside.mkdir(exist_ok=True)
    for suffix in ("csv", "zip", "safetensors"):
        (outside / f"theirs.{suffix}").write_bytes(b"theirs\n")
        for link in (root / f"link.{suffix}", root / f"circle.{suffix}"):
            link.unlink(missing_ok=True)
        (root / f"link.{suffix}").symlink_to(outside / f"theirs.{suffix}")
        (root / f"circle.{suffix}").symlink_to(root / f"circle.{suffix}")
    files = [str(root / f"checkpoints/tiny/sgkf2_s42/mix_v{k}/fold_0.safetensors") for k in (0, 1)]
    (root / "files.yaml").write_text(f"merge_method: uniform\nmodels: {json.dumps(files)}\n")
    return root, outside


def _flag(world: World, place: list[str], word: str) -> str:
    root, outside = _place(world)
    word = word.replace("ROOT", str(root)).replace("OUTSIDE", str(outside))
    words = [part.replace("ROOT", str(root)).replace(WORD, word) for part in place]
    return _judge(world, root, words)


def _judge(world: World, root: Path, words: list[str]) -> str:
    """Type it; nothing that was there may have changed but what the command made itself."""
    home, before = root.parent, contents(root)
    beside = _beside(home, root)
    code, text = world.run(words, root)
    wrong = wrong_words(code, text, codes=(0, 2))
    after = contents(root)
    changed = [name for name, content in before.items() if after.get(name) != content]
    if code == 0:  # what it was asked for, made again
        own = (
            "reports/",
            "submissions/log",
            "oof/tiny/sgkf2_s42/tiny/cross/",
            "recipes/tiny/tuned",
        )
        changed = [name for name in changed if not name.startswith(own)]
    if changed:
        wrong += f" changed: {changed} (exit code {code}: {text[-300:]})"
    if _beside(home, root) != beside:
        wrong += f" outside: {sorted(_beside(home, root).items() ^ beside.items())}"
    unseen = [name for name in after if name not in before and name.startswith("configs/")]
    if code == 2 and unseen:
        wrong += f" a refused command left {unseen}"
    left = [str(path) for path in home.rglob("*.tmp")]
    return wrong + (f" left over: {left}" if left else "")


def _beside(home: Path, root: Path) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in home.rglob("*")
        if path.is_file() and not path.is_relative_to(root)
    }


def _field(world: World, field: str, use: str, word: str) -> str:
    root, _ = _place(world)
    if field in ("extra", "combine"):
        text = f"n_folds: 2\n{field}: [{json.dumps(word)}]\n"
        (root / "input/tiny/dataset.yaml").write_text(text)
    elif field == "base":
        (root / "configs/models/tiny.yaml").write_text(f"extends: {json.dumps(word)}\n")
    elif field in ("members", "dataset", "scheme"):

        def change(recipe: dict) -> None:
            if field == "members":
                recipe["members"][0]["model"] = word
            else:
                recipe[field] = word

        change_sealed(root / "recipes/tiny/tuned.json", change)
    else:
        change_sealed(root / "checkpoints/tiny/sgkf2_s42/tiny/fold_0.json", {field: word})
    return _judge(world, root, STEPS[use][0])


def _pictures(world: World, names: list[str]) -> str:
    """Rename test pictures: each must be judged as before, under its new name."""
    import csv

    root, _ = _place(world)
    with (root / "submissions/tiny/tuned.csv").open(newline="") as file:
        head, *rows = csv.reader(file)
    wanted = dict(rows)
    key = {Path(item).name: item for item in wanted}
    for number, name in enumerate(names):
        old = f"{24 + number:03d}.png"
        (root / "input/tiny/test" / old).rename(root / "input/tiny/test" / f"{name}.png")
        item = key[old]
        wanted[item.replace(old, f"{name}.png")] = wanted.pop(item)
    for path in root.glob("submissions/tiny/tuned.*"):
        path.unlink()
    code, text = world.run(STEPS["predict"][0], root)
    wrong = wrong_words(code, text, codes=(0,))
    if wrong:
        return wrong
    with (root / "submissions/tiny/tuned.csv").open(newline="") as file:
        _, *rows = csv.reader(file)
    return "" if dict(rows) == wanted else f"another answer: {dict(rows)} for {wanted} of {head}"
