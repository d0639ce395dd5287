"""What a teacher costs: a distilled step over the student's step and the teacher's forward pass.

  python benchmarks/distillation.py [--student vit_tiny] [--teacher vit_small] [--batch 16]

Random weights, random pixels, one thread; the three are timed in turn, in CPU seconds, and a line
is the median of the rounds. Arithmetic allows a ratio of 1.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import pandas as pd
import torch

from src import paths
from src.config import read_model
from src.distillation import asked_of
from src.models.checkpoint import save_checkpoint
from src.models.classifier import Classifier, build_classifier
from src.training import setup
from src.training.auxiliary.distil import Distillation, Frozen
from src.training.auxiliary.teachers import Teacher, Teachers
from src.training.job import Job, Options
from src.training.step import Batch, Step, loss_and_terms, shown

TERMS = {
    "logit": {"logit": {}},
    "feature": {"feature": {}},
    "relation": {"relation": {}},
    "attention": {"attention": {}},
    "channel_attention": {"channel_attention": {}},
}


def main() -> None:
    """Time the terms that the two nets have what they need for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--student", default="vit_tiny")
    parser.add_argument("--teacher", default="vit_small")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--terms", nargs="+", default=["logit", "feature", "relation", "attention"])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    teacher_config = read_model(asked.teacher)
    teacher, _ = build_classifier(teacher_config)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "teacher.safetensors"
        save_checkpoint(path, teacher, teacher_config.as_dict(), ["full"])
        for name in asked.terms:
            line(asked, name, path, teacher)


def line(asked: argparse.Namespace, name: str, path: Path, teacher: Classifier) -> None:
    """Print the milliseconds an image of the three, and the distilled step over the sum of two."""
    changes = {"distil.teacher": str(path), **{f"distil.{k}": v for k, v in TERMS[name].items()}}
    config = read_model(asked.student, changes | {"optim.batch_size": asked.batch})
    plain, taught = (
        make_run(one, path, asked.batch) for one in (replace(config, distil=None), config)
    )
    size = teacher.spec.image_size
    batch = {
        "pixels": torch.randint(256, (asked.batch, size, size, 3), dtype=torch.uint8),
        "label": torch.arange(asked.batch) % 2,
        "item": torch.arange(asked.batch),
    }
    look = Frozen(teacher, frozenset(), "teacher", torch.device("cpu"))
    ways: list[Callable[[], object]] = [
        lambda: step(plain, batch), lambda: look(batch), lambda: step(taught, batch)
    ]  # fmt: skip
    taken = np.array([[seconds(way) for way in ways] for _ in range(asked.rounds + 1)][1:])
    own, forward, both = (1e3 * median(column) / asked.batch for column in taken.T)
    ratios = taken[:, 2] / (taken[:, 0] + taken[:, 1])
    print(
        f"{name:<18} student step {own:7.2f} ms, teacher {forward:7.2f} ms, distilled step "
        f"{both:7.2f} ms an image: {median(ratios):.3f} of their sum "
        f"({ratios.min():.3f} to {ratios.max():.3f})"
    )


def make_run(config, path: Path, batch_size: int):  # noqa: ANN001, ANN201
    """Return a run that is about to make its first step."""
    index = np.arange(2 * batch_size)
    table = pd.DataFrame({
        "item_id": index.astype(str), "path": index.astype(str), "bytes": 1,
        "label": index % 2, "group": index.astype(str), "fold": 0,
    })  # fmt: skip
    table.loc[batch_size:, "fold"] = 1
    options = Options(device="cpu", precision="fp32", workers=0, no_pretrained=True)
    job = Job("student", config, "d", "s", 0, paths.root(), table, options)
    chip = torch.device("cpu")
    model, _, head = setup.build_model(job, None)
    others = []
    if config.distil is not None:
        teachers = Teachers((Teacher(str(path), path, "", None),))
        others = [Distillation(job, teachers, model, chip)]
        assert asked_of(config.distil)
    run, _ = setup.make_run(job, model, head, chip, "fp32", others)
    run.enter_stage(0)
    run.begin_epoch()
    return run


def step(run, batch: Batch) -> None:  # noqa: ANN001
    """Make a whole training step."""
    weights = torch.ones(2)
    made = Step(run, lambda piece: loss_and_terms(run, piece, shown(run, piece), weights)[0], 1)
    made.add(batch)
    made.make(0)


def seconds(way: Callable[[], object]) -> float:
    """Return the CPU seconds of a call."""
    began = time.process_time()
    way()
    return time.process_time() - began


if __name__ == "__main__":
    main()
