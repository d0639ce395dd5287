"""Finders of faces, side by side: CPU time a picture, how many show a face, how exact it is.

  python benchmarks/faces.py --clips ../shared/data/videos --crops ../shared/data/dfdc_faces
  python benchmarks/faces.py --clips DIR --crops DIR --rounds 1 --pictures 40     a quick look

16 frames of every clip below a folder; pictures of another, which are faces cut out already, as
many of each label out of its `train.zip` and `train.csv`. CPU time of one thread, from the picture
to its faces, the fastest of some rounds in which the ways alternate picture by picture. `old` is
MTCNN as it was: no picture has a margin. Of boxes and points, MTCNN with a black margin round every
picture is held for the truth, where it finds a face and another finds it too (IoU over 0.3).
"""

import argparse
import os
import sys
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cv2
import numpy as np
import pandas as pd
import torch

from src.data.items.files import VIDEO_SUFFIXES
from src.data.pixels.video import read_frames
from src.faces import mtcnn
from src.faces.blazeface import BlazeFace
from src.faces.crop import Face, Picture, area, iou
from src.faces.detectors import Detector, detect_each, shrink
from src.faces.parts import look_wider

FRAMES = 16
FOUND = 0.3  # IoU from which it is the same face
FASTER, LOST = 10.0, 0.02  # targets
Array = np.ndarray[Any, Any]


class Old(Detector):
    """MTCNN that looks once, as it was."""

    identity, batch, longest = "old", 16, mtcnn.LONGEST

    def __init__(self) -> None:
        self.finder: Any = mtcnn.Mtcnn(None)

    def detect(self, pictures: Sequence[Picture]) -> list[list[Face]]:
        """See `Detector`."""
        return self.finder.look_once(pictures)


class Wide(Old):
    """MTCNN with a margin round every picture."""

    def detect(self, pictures: Sequence[Picture]) -> list[list[Face]]:
        """See `Detector`."""
        return look_wider(self.finder.look_once, pictures)


@dataclass
class Tally:
    """What one way did with a set of pictures; a row each."""

    ms: list[float] = field(default_factory=list)
    found: list[bool] = field(default_factory=list)
    iou: list[float] = field(default_factory=list)
    px: list[float] = field(default_factory=list)  # mean distance of five points from the truth's
    share: list[float] = field(default_factory=list)  # ... in distances of the eyes
    mesh_px: list[float] = field(default_factory=list)
    mesh_share: list[float] = field(default_factory=list)
    mesh_ms: list[float] = field(default_factory=list)


def clips_of(folder: Path) -> list[Picture]:
    """Return evenly spaced frames of all clips below a folder."""
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES)
    return [frame for file in files for frame in read_frames(file, FRAMES).frames]


def crops_of(folder: Path, count: int) -> list[Picture]:
    """Return `count` pictures of a data set of crops, as many of each label."""
    table = pd.read_csv(folder / "train.csv")
    rows = table.groupby("label").sample(count // 2, random_state=0)
    with zipfile.ZipFile(folder / "train.zip") as archive:
        names = {Path(name).name: name for name in archive.namelist()}
        raw = [archive.read(names[name]) for name in rows["filename"]]
    decoded = [cv2.imdecode(np.frombuffer(one, np.uint8), cv2.IMREAD_COLOR_RGB) for one in raw]
    return [np.asarray(one, np.uint8) for one in decoded if one is not None]


def look(detector: Detector, picture: Picture) -> tuple[list[Face], float]:
    """Return a picture's faces and the CPU time in ms."""
    begun = time.process_time()
    (faces,) = detect_each(detector, [shrink(picture, detector)])
    return faces, 1000 * (time.process_time() - begun)


def compare(
    ways: dict[str, Detector], pictures: Sequence[Picture], rounds: int
) -> dict[str, Tally]:
    """Let every way look at every picture."""
    tallies = {name: Tally() for name in ways}
    for picture in pictures:
        truth = max(look(WIDE, picture)[0], key=lambda face: area(face.box), default=None)
        looks = [{name: look(way, picture) for name, way in ways.items()} for _ in range(rounds)]
        for name, tally in tallies.items():
            faces = looks[0][name][0]
            tally.ms.append(min(one[name][1] for one in looks))
            tally.found.append(bool(faces))
            if truth is not None:
                score(ways[name], picture, faces, truth, tally)
    return tallies


def score(
    way: Detector, picture: Picture, faces: Sequence[Face], truth: Face, tally: Tally
) -> None:
    """Note how far the nearest face is from the truth, and its points as an aligned crop asks."""
    best = max(faces, key=lambda face: iou(face.box, truth.box), default=None)
    if best is None or iou(best.box, truth.box) <= FOUND:
        return
    tally.iou.append(iou(best.box, truth.box))
    goal = np.array(truth.points)
    eyes = float(np.linalg.norm(goal[1] - goal[0]))
    begun = time.process_time()
    exact = way.exact(picture, best)
    tally.mesh_ms.append(1000 * (time.process_time() - begun))
    for face, px, share in (
        (best, tally.px, tally.share),
        (exact, tally.mesh_px, tally.mesh_share),
    ):
        px.append(float(np.linalg.norm(np.array(face.points) - goal, axis=1).mean()))
        share.append(px[-1] / eyes)


def line(kind: str, way: str, tally: Tally) -> str:
    """Return a row of the table."""
    middle = [float(np.median(v)) for v in (tally.iou, tally.px, tally.mesh_px)]
    share = [100 * float(np.median(v)) for v in (tally.share, tally.mesh_share)]
    return (
        f"| {kind} | {way} | {np.mean(tally.ms):.1f} | {sum(tally.found)} of {len(tally.found)} | "
        f"{middle[0]:.2f} ({len(tally.iou)}) | {middle[1]:.1f} ({share[0]:.1f} %) | "
        f"{middle[2]:.1f} ({share[1]:.1f} %) | {np.mean(tally.mesh_ms):.1f} |"
    )


WIDE = Wide()


def main() -> None:
    """Print the table and the targets."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--crops", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=200, help="crops")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    ways: dict[str, Detector] = {
        "old": Old(),
        "mtcnn": mtcnn.Mtcnn(None),
        "blazeface": BlazeFace(None),
    }
    for way in (WIDE, *ways.values()):  # what is loaded once
        way.detect([np.zeros((64, 64, 3), np.uint8)])
    print(
        "| pictures | way | CPU-ms | with a face | IoU (faces) | points, px (of the eyes) | "
        "points for `align` | their CPU-ms |\n|---|---|---|---|---|---|---|---|"
    )
    targets = []
    for kind, pictures in (
        ("frames of clips", clips_of(given.clips)),
        ("crops", crops_of(given.crops, given.pictures)),
    ):
        tallies = compare(ways, pictures, given.rounds)
        for name, tally in tallies.items():
            print(line(kind, name, tally), flush=True)
        old, new = tallies["old"], tallies["blazeface"]
        times = float(np.mean(old.ms) / np.mean(new.ms))
        lost = float(np.mean(old.found) - np.mean(new.found))
        targets += [
            (times >= FASTER, f"{kind}: {times:.1f} times fewer CPU-ms, target {FASTER:g}"),
            (lost <= LOST, f"{kind}: share found {-lost:+.3f}, target {-LOST:+.3f} or more"),
        ]
    for good, words in targets:
        print("ok   " if good else "short", words)


if __name__ == "__main__":
    main()
