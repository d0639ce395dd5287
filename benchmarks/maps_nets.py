"""What benchmarks/maps.py looks at: blends whose masks are known, and nets trained on them."""

import argparse
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from src.compute.clock import cpu_seconds
from src.config import BlendConfig, ModelConfig, parse_model, read_model
from src.data.batches.blend import beside_blend, self_blend
from src.data.layouts.load import load_dataset
from src.data.pixels.images import Canvas
from src.data.pixels.landmarks import Landmarks
from src.data.pixels.source import PixelSource
from src.metrics import area, roc
from src.models.classifier import Classifier, build_classifier
from src.models.weights import load_weights
from src.training.auxiliary.localisation import boundary_of

CANVAS = 224
SMALLEST, LARGEST = 0.02, 0.4  # share of a picture that a mask covers
POINTS = 468
WIDTH = 96  # of the vision transformer
NETS = {
    "mobilenetv2_100": {},
    "vit": {
        "backbone": {"name": "vit_tiny_patch16_224", "pretrained": "none",
                     "kwargs": {"embed_dim": WIDTH, "depth": 4, "num_heads": 3, "patch_size": 16}},
    },
    "forensics_adapter": {
        "backbone": {"name": "forensics_adapter", "pretrained": "none", "kwargs": {
            "tower": "vit_base_patch16_clip_quickgelu_224",
            "tower_kwargs": {"embed_dim": 64, "depth": 4, "num_heads": 4, "img_size": 64,
                             "patch_size": 8},
            "project": 64, "queries": 16, "side_width": 96, "side_depth": 4, "side_heads": 3,
            "fusions": [[1, 1], [2, 2]], "intra_blocks": [3], "mlp_dim": 64, "mlp_out_dim": 32,
            "bottleneck_after": 2, "bottleneck_dim": 32}},
    },
}  # fmt: skip

Picture = NDArray[np.uint8]
Rng = np.random.Generator


@dataclass(frozen=True)
class Faces:
    """Real faces, some to train on and some to be looked at, of other videos."""

    train: list[Picture]  # (CANVAS, CANVAS, 3)
    test: list[Picture]
    marks: dict[int, NDArray[np.float64] | None]  # by the id of a picture; with `blends`
    task: str


def read_faces(asked: argparse.Namespace) -> Faces:
    """Read the real items of a data set: every fourth to be looked at, others by another seed."""
    dataset = load_dataset(asked.data, None)
    table = dataset.require_train()
    files = table.loc[table["label"] == 0, "path"].tolist()[: asked.faces]
    source = PixelSource(dataset.root, files, [Canvas(CANVAS, "squash", "bicubic")])
    pictures = [source.read(row)[0] for row in range(len(files))]
    marks: dict[int, NDArray[np.float64] | None] = {}
    if asked.task == "blends":
        points = Landmarks(None)
        points.find(source, range(len(files)))
        marks = {id(one): points.of(one) for one in pictures}
        pictures = [one for one in pictures if marks[id(one)] is not None]
    first = asked.seed % 4
    train = [one for k, one in enumerate(pictures) if k % 4 != first]
    return Faces(train, pictures[first::4], marks, asked.task)


def pair(
    faces: Faces, own: list[Picture], number: int, size: int, rng: Rng
) -> tuple[Picture, Picture, NDArray[np.uint8]]:
    """Return a crop of a picture of `own`, the same with a part changed, and which: all of `size`.

    With `blends` the part is of the face and of itself (Shiohara and Yamasaki), with `patches` an
    ellipse anywhere, of itself too; with `pasted` an ellipse of another's face.
    """
    picture = own[number]
    for _ in range(20):
        top, left = rng.integers(0, CANVAS - size + 1, 2)
        crop = np.ascontiguousarray(picture[top : top + size, left : left + size])
        if faces.task == "pasted":
            other = own[int(rng.integers(len(own)))]
            top, left = rng.integers(0, CANVAS - size + 1, 2)
            mask = np.zeros((size, size), np.uint8)
            cv2.fillConvexPoly(mask, np.rint(_ellipse(size, rng)).astype(np.int32), 255)
            mask = np.asarray(cv2.GaussianBlur(mask, (0, 0), 1), np.uint8)
            share = mask[:, :, None] / np.float32(255)
            drawn = share * other[top : top + size, left : left + size] + (1 - share) * crop
            return crop, np.rint(drawn).astype(np.uint8), mask
        given = faces.marks.get(id(picture))
        points = _ellipse(size, rng) if given is None else given - (left, top)
        asked = BlendConfig(hulls=("face",) if given is None else ("eyes", "nose", "mouth"))
        seed = int(rng.integers(2**63))
        drawn, mask = self_blend(crop, points, asked, np.random.default_rng(seed))
        share, changed = float((mask >= 128).mean()), np.abs(drawn.astype(int) - crop).mean()
        if SMALLEST <= share <= LARGEST and changed > 0.5:
            return beside_blend(crop, np.random.default_rng(seed)), drawn, mask
    return crop, drawn, mask


def _ellipse(size: int, rng: Rng) -> NDArray[np.float64]:
    """Return points of an ellipse somewhere in a square, as landmarks of a face that is there."""
    angle, turn = np.linspace(0, 2 * np.pi, POINTS), rng.uniform(0, np.pi)
    a, b = rng.uniform(0.12, 0.3, 2) * size
    x, y = a * np.cos(angle), b * np.sin(angle)
    turned = np.stack([x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)], 1)
    return turned + rng.uniform(0.15 * size, 0.85 * size, 2)


def config_of(asked: argparse.Namespace) -> ModelConfig:
    """Return the config of the net that is asked for."""
    if asked.net == "mobilenetv2_100":
        return read_model("mobilenetv2_100")
    return parse_model({**NETS[asked.net], "input": {"image_size": asked.size}}, asked.net)


def train(asked: argparse.Namespace, faces: Faces) -> Classifier:
    """Train a net on pairs: AdamW, one cycle; of a net that localises, its map too.

    A vision transformer from scratch learns nothing of labels alone in so few steps: a linear layer
    on its patches, which is thrown away, is asked beside for the share of each that is blended.
    """
    torch.manual_seed(asked.seed)
    config = config_of(asked)
    model, native = build_classifier(config)
    if asked.weights is not None:
        load_weights(model.net, asked.weights, native.head)
    shows = hasattr(model.net, "shows")
    also = ("boundary",) if shows else ()
    model.train()
    tokens: list[Tensor] = []
    beside = nn.Linear(WIDTH, 1)
    hook = None
    if asked.net == "vit":
        hook = model.net.get_submodule("norm").register_forward_hook(
            lambda _, __, out: tokens.append(out)
        )
    weights = [*model.parameters(), *beside.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=asked.lr, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, asked.lr, total_steps=asked.steps, pct_start=0.15
    )
    began, cpu = time.perf_counter(), cpu_seconds()
    rng, losses = np.random.default_rng(asked.seed), []
    for step, (pixels, label, mask) in enumerate(_batches(asked, faces, rng), 1):
        found = model({"pixels": pixels}, also=also)
        loss = functional.binary_cross_entropy_with_logits(found["logit"], label)
        if shows:
            maps = found["boundary"]
            loss = loss + 5 * (maps - boundary_of(mask, maps.shape[-1])).square().mean()
        if hook is not None:
            patches = beside(tokens.pop()[:, 1:]).squeeze(2)
            side = math.isqrt(patches.shape[1])
            share = functional.adaptive_avg_pool2d(mask[:, None] / 255, side).flatten(1)
            loss = loss + functional.binary_cross_entropy_with_logits(patches, share)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
        if step % 100 == 0:
            print(f"  step {step}: loss {np.mean(losses[-100:]):.3f}", flush=True)
    if hook is not None:
        hook.remove()
    print(f"  {asked.steps} steps, {cpu_seconds() - cpu:.0f} CPU-s, "
          f"{time.perf_counter() - began:.0f} s")  # fmt: skip
    return model.eval()


def _batches(
    asked: argparse.Namespace, faces: Faces, rng: Rng
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    half = asked.batch // 2
    for _ in range(asked.steps):
        chosen = rng.integers(0, len(faces.train), half)
        drawn = [pair(faces, faces.train, int(k), asked.size, rng) for k in chosen]
        reals, fakes, masks = (np.stack([one[k] for one in drawn]) for k in range(3))
        label = torch.tensor([0.0] * half + [1.0] * half)
        mask = torch.from_numpy(np.concatenate([np.zeros_like(masks), masks]))
        yield torch.from_numpy(np.concatenate([reals, fakes])), label, mask


def held_out(
    asked: argparse.Namespace, faces: Faces, count: int
) -> tuple[Picture, Picture, NDArray[np.bool_]]:
    """Return reals, blends (n, s, s, 3) and their masks (n, s, s) of pictures not trained on."""
    rng = np.random.default_rng(asked.seed + 1)
    own = faces.test
    drawn = [pair(faces, own, k % len(own), asked.size, rng) for k in range(count)]
    reals, fakes, masks = (np.stack([one[k] for one in drawn]) for k in range(3))
    return reals, fakes, masks >= 128


def auc_of(real: NDArray[np.float64], fake: NDArray[np.float64]) -> float:
    """Return the AUC of logits of reals and fakes."""
    return area(roc(np.repeat([0, 1], [len(real), len(fake)]), np.concatenate([real, fake])))


def save(path: Path, model: Classifier) -> None:
    """Keep a net's weights."""
    torch.save(model.net.state_dict(), path)


def load(asked: argparse.Namespace, path: Path) -> Classifier:
    """Read them again."""
    model, _ = build_classifier(config_of(asked))
    model.net.load_state_dict(torch.load(path, weights_only=True))  # noqa: TID251 - our own
    return model.eval()
