"""Attack every command: full disks, kills, several at once, mixed-up artefacts, hostile names.

  python benchmarks/attacks.py                  every kind, some 500 tries
  python benchmarks/attacks.py --only kill --tries 50 --seed 7

A try is right if the command came to the undisturbed answer, or left with exit code 2 (killed: not
0) and one message, no traceback; nothing of the user's is lost or half-written; and the same
command, typed again where there is room and what was exchanged is put back, comes to the
undisturbed answer. Answers are compared byte by byte but for lengths of time and versions in
records. Commands run in forks of a process with torch loaded; its figures and intervals are
smaller than usual.
"""

import argparse
import itertools
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from attack_mixed import mixed_up
from attack_names import hostile
from attack_world import (
    STEPS,
    Try,
    World,
    copied,
    drawn,
    wrong_answer,
    wrong_files,
    wrong_words,
)
from commands import preload

VERBS = ("faces", "variants", "merge", "export", "bundle", "report", "evaluate", "compare",
         "submit-log", "data")  # fmt: skip
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
# Commands whose order does not matter, and from where they start.
GROUPS = {
    "train": ["train", "second", "variants", "faces"],
    "merge": ["merge", "tune", "export", "faces"],
    "bundle": ["bundle", "report", "evaluate", "compare", "predict", "exported"],
}


class Disk:
    """A small disk that can be filled up; without root's rights a limit of files' sizes."""

    def __init__(self, place: Path) -> None:
        self.place = place
        place.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)]
        self.is_mounted = subprocess.run(mount, capture_output=True).returncode == 0

    def fill(self, free: int) -> None:
        """Leave so many bytes."""
        if self.is_mounted:
            size = shutil.disk_usage(self.place).free - free
            with (self.place / ".cache" / "ballast").open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, max(size, 1))

    def limit(self, free: int) -> None:
        """Limit this process in its place where nothing is mounted."""
        if not self.is_mounted:
            resource.setrlimit(resource.RLIMIT_FSIZE, (free, free))

    def clear(self) -> None:
        """Make room again."""
        (self.place / ".cache" / "ballast").unlink(missing_ok=True)

    def close(self) -> None:
        """Give the disk back."""
        if self.is_mounted:
            subprocess.run(["umount", str(self.place)], check=False)


def disk_full(world: World, rng: random.Random) -> Iterator[Try]:
    """Yield commands on a disk with less room than they want."""
    while True:
        step = drawn(rng)
        free = 4096 * int(rng.uniform(0, 1) ** 2 * (world.sizes[step] / 4096 + 1))

        def attempt(step: str = step, free: int = free) -> str:
            disk, words = world.disk, STEPS[step][0]
            root = copied(world.starts[step], disk.place)
            (root / ".cache").mkdir(exist_ok=True)
            disk.fill(free)
            code, text = world.run(words, root, before=lambda: disk.limit(free))
            disk.clear()
            return (
                wrong_words(code, text, codes=(0, 2))
                or (wrong_answer(root, world.after[step]) if code == 0 else "")
                or wrong_files(root, world.before[step], world.after[step])
                or world.again([words], root, world.after[step])
            )

        yield f"{step}, {free >> 10} KiB free", attempt


def kills(world: World, rng: random.Random) -> Iterator[Try]:
    """Yield commands that are killed at a random moment, now and then again."""
    while True:
        step, moments = drawn(rng), [rng.uniform(0, 1)]
        while rng.random() < 0.2:
            moments.append(rng.uniform(0, 1))
        numbers = [rng.choice(SIGNALS) for _ in moments]

        def attempt(
            step: str = step, moments: list[float] = moments, numbers: list[int] = numbers
        ) -> str:
            words, root = STEPS[step][0], copied(world.starts[step], world.work / "root")
            for moment, number in zip(moments, numbers, strict=True):
                began = time.monotonic()
                command = world.start(words, root)
                time.sleep(0.05 + moment * world.lengths[step])
                ended = not command.running()
                if not ended:
                    os.kill(command.pid, number)
                code, text = world.end(command)
                if ended:  # what the machine's other work leaves now
                    world.lengths[step] = 0.8 * (time.monotonic() - began)
                codes = (0, 130) if number != signal.SIGKILL else (0, -9)
                wrong = (
                    wrong_words(code, text, codes=codes)
                    or (wrong_answer(root, world.after[step]) if code == 0 else "")
                    or wrong_files(root, world.before[step], world.after[step])
                )
                if wrong:
                    return wrong
            return world.again([words], root, world.after[step])

        names = "+".join(signal.Signals(number).name for number in numbers)
        yield f"{step}, {names} at {moments[0]:.2f}", attempt


def at_once(world: World, rng: random.Random) -> Iterator[Try]:
    """Yield 2 to 4 processes at the same time: of one command, or of different ones."""
    while True:
        count = rng.randint(2, 4)
        if rng.random() < 0.5:
            start = drawn(rng)
            steps = [start] * count
        else:
            start = rng.choice(list(GROUPS))
            steps = rng.sample(GROUPS[start], count)

        def attempt(start: str = start, steps: list[str] = steps) -> str:
            wanted = world.after_all(start, steps)
            root = copied(world.starts[start], world.work / "root")
            commands = [world.start(STEPS[s][0], root, k) for k, s in enumerate(steps)]
            for number, command in enumerate(commands):
                code, text = world.end(command, number)
                wrong = wrong_words(code, text, codes=(0, 2))
                if code == 2 and "another process is at work" not in text:
                    wrong = f"{steps[number]} refused: {text[-400:]}"
                if wrong:
                    for rest in commands:
                        rest.wait()
                    return wrong
            wrong = wrong_files(root, world.before[start], wanted)
            return wrong or world.again([STEPS[s][0] for s in steps], root, wanted)

        yield " + ".join(steps), attempt


def closed_streams(world: World, rng: random.Random) -> Iterator[Try]:
    """Yield commands whose output nobody reads, that is closed, or full."""
    ways = ("pipe", "closed", "full")
    every = list(itertools.product(STEPS, ways))
    while True:
        for step, way in rng.sample(every, len(every)):

            def attempt(step: str = step, way: str = way) -> str:
                words, root = STEPS[step][0], copied(world.starts[step], world.work / "root")
                code, text = world.run(words, root, before=lambda: _spoil_stdout(way))
                wrong = wrong_words(code, text, codes=(0, 1, 2, 130, 141))
                if code == 0:
                    wrong = wrong or wrong_answer(root, world.after[step])
                return wrong or world.again([words], root, world.after[step])

            yield f"{step}, stdout {way}", attempt


_KEPT: list[object] = []


def _spoil_stdout(way: str) -> None:
    _KEPT.append(sys.stdout)  # else its number would be closed once more, whose it is then
    if way == "closed":  # as Python finds it at its start
        os.close(1)
        sys.stdout = None
        return
    if way == "pipe":
        reading, writing = os.pipe()
        os.close(reading)
    else:
        writing = os.open("/dev/full", os.O_WRONLY)
    os.dup2(writing, 1)
    os.close(writing)
    sys.stdout = os.fdopen(1, "w")


KINDS: dict[str, tuple[Callable[[World, random.Random], Iterator[Try]], int]] = {
    "disk full": (disk_full, 80),
    "kill": (kills, 110),
    "at once": (at_once, 50),
    "mixed up": (mixed_up, 150),
    "names": (hostile, 120),
    "streams": (closed_streams, 39),
}


def run_kind(
    world: World, kind: str, tries: int, arguments: argparse.Namespace, done: list[int]
) -> list[str]:
    """Carry out the tries of a kind; returns what went wrong."""
    rng = random.Random(f"{arguments.seed} {kind}")
    bad = []
    attempts = KINDS[kind][0](world, rng)
    began = shown = time.monotonic()
    for number in range(1, tries + 1):
        what, attempt = next(attempts)
        if number <= arguments.skip:
            continue
        try:
            wrong = attempt()
        except Exception:  # noqa: BLE001 - a fault of the benchmark is no right answer
            wrong = f"benchmark: {traceback.format_exc()}"
        if wrong:
            bad.append(what)
            print(f"  WRONG {kind} {number}: {what}: {wrong}", flush=True)
        if time.monotonic() - shown > 30 or number == tries:
            shown = time.monotonic()
            each = (shown - began) / (number - arguments.skip)
            print(f"  {kind}: {number} of {tries}, {len(bad)} wrong, {each:.1f} s each, "
                  f"{each * (tries - number) / 60:.1f} min to go with it; "
                  f"{done[0] + number} of {done[1]} in all", flush=True)  # fmt: skip
    return bad


def main() -> None:
    """Run the kinds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=list(KINDS), nargs="+", default=list(KINDS))
    parser.add_argument("--tries", type=int, help="in all; default: some 500")
    parser.add_argument("--skip", type=int, default=0, help="the first ones of each kind")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    # A shell that starts this in the background has it ignore Ctrl-C, and so would the commands.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    began = time.monotonic()
    mains = preload(VERBS)
    shares = {kind: KINDS[kind][1] for kind in arguments.only}
    scale = arguments.tries / sum(shares.values()) if arguments.tries else 1.0
    tries = {kind: max(1, round(share * scale)) for kind, share in shares.items()}
    with tempfile.TemporaryDirectory(prefix="attacks_") as place:
        world = World(Path(place), mains)
        world.make()
        world.disk = Disk(world.work / "disk")
        bad: Counter[str] = Counter()
        done = [0, sum(tries.values())]
        try:
            for kind, count in tries.items():
                bad[kind] = len(run_kind(world, kind, count, arguments, done))
                done[0] += count
        finally:
            world.disk.close()
    print(f"\n{'kind':<12} {'tries':>6} {'right':>6} {'wrong':>6}")
    for kind, count in tries.items():
        print(f"{kind:<12} {count:>6} {count - bad[kind]:>6} {bad[kind]:>6}")
    total, wrong = sum(tries.values()), bad.total()
    used = resource.getrusage(resource.RUSAGE_CHILDREN), resource.getrusage(resource.RUSAGE_SELF)
    cpu = sum(one.ru_utime + one.ru_stime for one in used)
    print(
        f"seed {arguments.seed}, {cpu / 60:.1f} CPU min, {(time.monotonic() - began) / 60:.1f} min"
    )
    print(
        f"{'short' if wrong else 'ok'} attacks {total} tries, {wrong} wrong (target 400, 0 wrong)"
    )


if __name__ == "__main__":
    main()
