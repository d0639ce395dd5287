"""A live source on one core: frames a second, latency, where the time goes, and memory for long.

  python benchmarks/watch.py --clips ../shared/data/videos --crops ../shared/data/dfdc_faces \\
      --weights ../shared/weights/mobilenetv2_100.imagenet1001.pth
  ... --root DIR         keeps the recipe in DIR, and takes the one that is there
  ... --minutes 1        a quick look

The recipe: `mobilenetv2_100` at 128 px on face crops by `blazeface`, two folds, mirrored views, so
four forward passes a face. Trained for four epochs on 1,000 crops, for its cost and not for its
answers. Every clip of 1080p below --clips, 5 frames of each second looked at: as fast as it goes
(frames a second by the clock, and by this process's CPU time, which other work on the core leaves
alone), then played by the clock. At last the clips joined to --minutes of film: memory after the
first minute and at the end.
"""

import argparse
import os
import resource
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import pandas as pd
import psutil

from src import paths
from src.cli import parsers
from src.compute.request import Compute
from src.data.items.files import VIDEO_SUFFIXES
from src.evidence.live.loop import Watcher, Watching
from src.evidence.live.sources import Caught, ClipFile
from src.evidence.live.state import LiveState, Summary
from src.evidence.looker import Looker, Looking
from src.inference.pictures import PictureJudge

RATE, FPS = 5.0, 5.0  # the target; frames of each second
PIXELS = 1920 * 1080
CROPS = 500  # of each label
GROWTH = 1.10  # times the memory after the first minute
MODEL = "extends: mobilenetv2_100\ninput: {crop: face}\noptim: {epochs: 4}\n"


class Joined(ClipFile):
    """Films one behind the other, again and again, for so many seconds."""

    def __init__(self, clips: list[Path], seconds: float) -> None:
        super().__init__(clips[0])
        self.clips, self.seconds = clips, seconds

    def frames(self) -> Iterator[Caught | None]:
        """Yield the frames; each film's own seconds begin anew."""
        covered = 0.0
        while covered < self.seconds:
            for clip in self.clips:
                film, end = ClipFile(clip), 0.0
                film.open()
                for one in film.frames():
                    end = end if one is None or one.second is None else one.second
                    yield one
                film.close()
                covered += end


def make_recipe(root: Path, crops: Path, weights: Path) -> None:
    """Train and tune the recipe in `root`, where it is not there."""
    if paths.recipe_json("crops", "tuned").is_file():
        return
    home, configs = root / "input" / "crops", root / "configs" / "models"
    table = pd.read_csv(crops / "train.csv")
    with zipfile.ZipFile(crops / "train.zip") as archive:
        for label in ("real", "fake"):
            folder = home / "train" / label
            folder.mkdir(parents=True, exist_ok=True)
            for name in table[table["label"] == label.upper()]["filename"].iloc[:CROPS]:
                (folder / name).write_bytes(archive.read(f"train/{name}"))
    (home / "dataset.yaml").write_text("faces: cropped\n")
    configs.mkdir(parents=True, exist_ok=True)
    (configs / "mob_face.yaml").write_text(MODEL)
    words = ["--model", "mob_face", "--data", "crops", "--scheme", "sgkf2_s0", "--device", "cpu"]
    words += ["--workers", "0", "--no-report", "--weights", str(weights)]
    assert parsers.main("train", words) == 0
    assert parsers.main("tune", ["--data", "crops", "--strategies", "mean@0.5"]) == 0


class Run:
    """One source watched, and what it cost."""

    def __init__(self, looker: Looker, source: ClipFile, **asked: object) -> None:
        self.memory: list[tuple[float, int]] = []  # seconds of the source, bytes
        judge = PictureJudge(looker.loaded)
        states: list[LiveState] = []

        def on_state(state: LiveState) -> None:
            states[:] = [state]
            if not self.memory or state.second - self.memory[-1][0] >= 10:
                self.memory.append((state.second, psutil.Process().memory_info().rss))

        watcher = Watcher(judge, looker.says, source, Watching(fps=FPS, **asked), on_state)
        source.open()
        began, used = time.perf_counter(), time.process_time()
        self.found: Summary = watcher.run()
        self.wall, self.cpu = time.perf_counter() - began, time.process_time() - used
        self.memory.append((states[-1].second, psutil.Process().memory_info().rss))

    def words(self) -> str:
        """Say what was found."""
        found, count = self.found, self.found.looked_at
        each = ", ".join(f"{step} {1000 * value / count:.1f}" for step, value in found.took.items())
        late = ", ".join(f"{key} {1000 * value:.0f}" for key, value in found.latency.items())
        people = len(found.people)
        return (
            f"{found.seen} frames, {count} looked at, {found.dropped} dropped, {people} people; "
            f"{count / self.wall:.1f} a second by the clock, {count / self.cpu:.1f} by CPU time "
            f"({1000 * self.cpu / count:.1f} ms each); ms by the clock: {each}; latency {late}"
        )


def judged(fine: bool, words: str) -> None:
    """Print whether a target is met."""
    print(f"{'ok   ' if fine else 'short'} {words}", flush=True)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--crops", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--minutes", type=float, default=10.0)
    asked = parser.parse_args()
    core = min(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    with tempfile.TemporaryDirectory() as folder:
        root = asked.root or Path(folder)
        os.environ["RVF_ROOT"] = str(root)
        make_recipe(root, asked.crops, asked.weights)
        compute = Compute("cpu", workers=0, precision="fp32")
        looker = Looker("tuned", paths.recipe_json("crops", "tuned"), compute, Looking())
        clips = sorted(p for p in asked.clips.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES)
        large = [clip for clip in clips if size_of(clip) >= PIXELS]
        Run(looker, ClipFile(large[0]))  # warm
        for clip in large:
            run = Run(looker, ClipFile(clip))
            print(f"      {clip.name}: {run.words()}", flush=True)
            rate, by_clock = run.found.looked_at / run.cpu, run.found.looked_at / run.wall
            judged(rate >= RATE, f"{clip.name}: {rate:.1f} frames a second of one core's time "
                   f"(target {RATE:g}); {by_clock:.1f} by the clock")  # fmt: skip
        for clip in large:
            run = Run(looker, ClipFile(clip), realtime=True)
            print(f"      {clip.name}, by the clock: {run.words()}", flush=True)
            due = run.found.looked_at + run.found.dropped
            judged(run.found.looked_at >= 0.95 * due,
                   f"{clip.name}, played by the clock: {run.found.looked_at} of {due} frames that "
                   "were due looked at (target 95 %)")  # fmt: skip
        run = Run(looker, Joined(large, 60 * asked.minutes))
        print(f"      joined: {run.words()}", flush=True)
        start = next(size for second, size in run.memory if second >= 60)
        end, most = run.memory[-1][1], max(size for _, size in run.memory)
        judged(end <= GROWTH * start,
               f"{run.found.covered / 60:.1f} minutes of film: {start / 2**20:.0f} MiB after the "
               f"first minute, {end / 2**20:.0f} at the end, {most / 2**20:.0f} at most (target "
               f"{GROWTH:g} times)")  # fmt: skip
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"      peak of the process {peak:.0f} MiB, {np.__version__=}")


def size_of(clip: Path) -> int:
    """Return the pixels of a clip's frames."""
    film = ClipFile(clip)
    film.open()
    first = next(one for one in film.frames() if one is not None)
    film.close()
    return first.size[0] * first.size[1]


if __name__ == "__main__":
    main()
