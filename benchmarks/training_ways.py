"""What `training.py` and `gpu.py` hold our training against: timm's way, and a bare loop.

timm's `train.py` is not in its package, so `Timm` is its path by the package's own parts, as that
script puts them together: `create_model`, `create_loader` (with its PrefetchLoader),
`create_optimizer_v2`, `create_scheduler_v2`, `ModelEmaV3`; the loss is read every 50 steps, and
both the net and its EMA are validated after an epoch. Its augmentation is told to crop and flip as
`crop_zoom` does, without timm's colour jitter.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

SCALE, RATIO = (0.7, 1.0), (0.85, 1.18)
READ_EVERY = 50  # steps; timm's --log-interval


@dataclass
class Recipe:
    """What is trained, by whatever way."""

    net: str  # of timm
    size: int  # pixels
    batch: int
    epochs: int
    lr: float = 5e-4
    decay: float = 0.02  # of weights
    ema: float = 0.995
    kwargs: dict[str, Any] = field(default_factory=dict)  # of `create_model`
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    weights: Path | None = None  # of another head; None is random
    head_std: float | None = None  # of the head's random weights; None is what timm draws


class Parts:
    """CPU seconds of this process by what they went into; what is inside another is not in it."""

    def __init__(self) -> None:
        self.taken: dict[str, float] = {}
        self._names, self._last = ["start"], 0.0  # process_time counts from the process's start

    def switch(self) -> float:
        """Give the time since the last switch to what is under way; returns the time."""
        now = time.process_time()
        self.taken[self._names[-1]] = self.taken.get(self._names[-1], 0.0) + now - self._last
        self._last = now
        return now

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Give the block's time to `name`."""
        self.switch()
        self._names.append(name)
        try:
            yield
        finally:
            self.switch()
            self._names.pop()

    def each(self, things: Any, name: str) -> Iterator[Any]:  # noqa: ANN401 - whatever it yields
        """Yield things; the time that it takes to get them is that of `name`."""
        iterator = iter(things)
        while True:
            with self.of(name):
                try:
                    thing = next(iterator)
                except StopIteration:
                    return
            yield thing


class Pictures(torch.utils.data.Dataset[tuple[Any, int]]):
    """Files and labels as timm's ImageDataset gives them: PIL RGB through its transform."""

    transform: Any = None  # set by create_loader

    def __init__(self, files: Sequence[Path], labels: Sequence[int]) -> None:
        self.files, self.labels = files, labels

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> tuple[Any, int]:
        picture = Image.open(self.files[row]).convert("RGB")
        return self.transform(picture), int(self.labels[row])


def make_net(recipe: Recipe, outputs: int) -> nn.Module:
    """Return timm's net with a head of its own."""
    import timm

    torch.manual_seed(42)
    net = timm.create_model(recipe.net, num_classes=outputs, **recipe.kwargs)
    if recipe.weights is not None:
        from src import tensor_files

        given = tensor_files.read_tensors(recipe.weights)
        own = net.state_dict()
        net.load_state_dict({k: v for k, v in given.items() if own[k].shape == v.shape}, False)
    if recipe.head_std is not None:
        nn.init.normal_(net.get_classifier().weight, std=recipe.head_std)
    return net


class Timm:
    """timm's training path on a device.

    Args:
        recipe: what is trained.
        train: what it is trained on.
        device: where.
        workers: processes that decode.
        dtype: of autocast; None is fp32.
        compiled: through torch.compile.
    """

    def __init__(
        self, recipe: Recipe, train: Pictures, device: torch.device, workers: int,
        dtype: torch.dtype | None = None, *, compiled: bool = False,
    ) -> None:  # fmt: skip
        from timm.optim import create_optimizer_v2
        from timm.scheduler import create_scheduler_v2
        from timm.utils import ModelEmaV3

        torch.backends.cudnn.benchmark = True
        self.recipe, self.device, self.workers, self.dtype = recipe, device, workers, dtype
        self.net = make_net(recipe, 2).to(device, memory_format=torch.channels_last)
        self.optimizer = create_optimizer_v2(
            self.net, opt="adamw", lr=recipe.lr, weight_decay=recipe.decay
        )
        self.ema = ModelEmaV3(self.net, decay=recipe.ema, use_warmup=True)
        self.called = torch.compile(self.net) if compiled else self.net
        self.loss = nn.CrossEntropyLoss(label_smoothing=0.02).to(device)
        self.loader = self.load(train, is_training=True)
        self.schedule, _ = create_scheduler_v2(
            self.optimizer, num_epochs=recipe.epochs, warmup_lr=1e-5, warmup_epochs=0.5,
            step_on_epochs=False,
            updates_per_epoch=len(self.loader),
        )  # fmt: skip
        self.updates = 0

    def load(self, pictures: Pictures, *, is_training: bool) -> Any:  # noqa: ANN401 - a timm loader
        """Return timm's loader of pictures."""
        from timm.data import create_loader

        size = self.recipe.size
        return create_loader(
            pictures, (3, size, size), self.recipe.batch, is_training=is_training,
            scale=SCALE, ratio=RATIO, hflip=0.5, color_jitter=0.0, interpolation="bilinear",
            mean=self.recipe.mean, std=self.recipe.std, num_workers=self.workers,
            pin_memory=self.device.type == "cuda", device=self.device,
            persistent_workers=self.workers > 0,
        )  # fmt: skip

    def autocast(self) -> Any:  # noqa: ANN401 - a context
        """Return the context of a forward pass."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None)

    def steps(self, batches: Any) -> Iterator[int]:  # noqa: ANN401 - pairs of tensors
        """Make a step of each batch; yields how many pictures it was of."""
        self.net.train()
        for pixels, label in batches:
            images = pixels.contiguous(memory_format=torch.channels_last)
            with self.autocast():
                loss = self.loss(self.called(images), label)
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.updates += 1
            self.ema.update(self.net, step=self.updates)
            if self.updates % READ_EVERY == 0:
                loss.item()
            self.schedule.step_update(num_updates=self.updates)
            yield len(label)

    @torch.inference_mode()
    def validate(self, net: nn.Module, loader: Any) -> np.ndarray:  # noqa: ANN401 - a timm loader
        """Return logits (n,) of a loader's pictures."""
        net.eval()
        found: list[Tensor] = []
        for pixels, _ in loader:
            images = pixels.contiguous(memory_format=torch.channels_last)
            with self.autocast():
                found.append(net(images).float().diff(dim=1)[:, 0])
        return torch.cat(found).cpu().numpy()


def timm_way(recipe: Recipe, train: Pictures, held: Pictures, parts: Parts) -> list[list[float]]:
    """Train by timm's way on the CPU; returns CPU seconds and AUC after each epoch.

    The AUC is that of the net or of its EMA, whichever is higher.
    """
    from src.metrics import auc

    way, curve = Timm(recipe, train, torch.device("cpu"), 0), []
    loader = way.load(held, is_training=False)
    for _ in range(recipe.epochs):
        with parts.of("step"):
            for _ in way.steps(parts.each(way.loader, "data")):
                pass
        with parts.of("evaluation"):
            both = [way.validate(net, loader) for net in (way.net, way.ema.module)]
        best = max(auc(np.array(held.labels), logits.astype(np.float64)) for logits in both)
        curve.append([parts.switch(), best])
    return curve


def bare_way(
    recipe: Recipe, train: Pictures, held: Pictures, parts: Parts, *, plain: bool
) -> list[list[float]]:
    """Train by a loop of a page; see `timm_way`.

    Each picture is decoded anew each epoch by PIL and augmented by albumentations; AdamW on half a
    cosine, no EMA. Not `plain`: channels_last, and freed memory is kept as we keep it.
    """
    import albumentations as A

    from src.machine import keep_freed_memory
    from src.metrics import auc

    size, layout = recipe.size, torch.contiguous_format if plain else torch.channels_last
    if not plain:
        keep_freed_memory()
    crop = A.Compose([A.RandomResizedCrop((size, size), SCALE, RATIO), A.HorizontalFlip(p=0.5)])
    middle = A.Compose([A.Resize(size, size)])
    net = make_net(recipe, 1).to(memory_format=layout)
    optimizer = torch.optim.AdamW(net.parameters(), recipe.lr, weight_decay=recipe.decay)
    steps = recipe.epochs * (len(train) // recipe.batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    mean, std = (255 * torch.tensor(each).view(3, 1, 1) for each in (recipe.mean, recipe.std))

    def batch(pictures: Pictures, rows: Sequence[int], augment: A.Compose) -> Tensor:
        found = [np.asarray(Image.open(pictures.files[row]).convert("RGB")) for row in rows]
        stacked = np.stack([augment(image=one)["image"] for one in found])
        images = (torch.from_numpy(stacked).permute(0, 3, 1, 2).float() - mean) / std
        return images.contiguous(memory_format=layout)

    rng, curve, labels = np.random.default_rng(42), [], torch.tensor(train.labels).float()
    for _ in range(recipe.epochs):
        net.train()
        order = rng.permutation(len(train))
        for start in range(0, len(train) - recipe.batch + 1, recipe.batch):
            rows = order[start : start + recipe.batch]
            with parts.of("data"):
                images = batch(train, rows, crop)
            with parts.of("step"):
                loss = nn.functional.binary_cross_entropy_with_logits(
                    net(images)[:, 0], labels[rows]
                )
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                schedule.step()
        net.eval()
        found = []
        with parts.of("evaluation"), torch.inference_mode():
            for start in range(0, len(held), recipe.batch):
                rows = range(start, min(start + recipe.batch, len(held)))
                found.append(net(batch(held, rows, middle))[:, 0])
        logits = torch.cat(found).double().numpy()
        curve.append([parts.switch(), auc(np.array(held.labels), logits)])
    return curve


def our_way(words: list[str], parts: Parts) -> list[list[float]]:
    """Run `train_folds.py` with these words, its parts timed; see `timm_way`."""
    from src.cli import parsers, train
    from src.data.pixels.source import PixelSource
    from src.training import trainer

    def timed(owner: Any, name: str, part: str) -> None:  # noqa: ANN401 - a class or a module
        inner = getattr(owner, name)

        def outer(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - whatever it takes and gives
            with parts.of(part):
                return inner(*args, **kwargs)

        setattr(owner, name, outer)

    class Timed:
        """Batches whose making is timed."""

        def __init__(self, batches: Any) -> None:  # noqa: ANN401 - any of a stage's
            self.batches = batches

        def __iter__(self) -> Iterator[Any]:
            return parts.each(self.batches, "data")

    make, log, ends = trainer.Trainer.make_batches, trainer.Trainer.log_epoch, []

    def log_epoch(self: Any, seconds: float) -> None:  # noqa: ANN401 - a trainer
        ends.append([parts.switch(), self.run.history[-1]["auc"]])
        log(self, seconds)

    trainer.Trainer.make_batches = lambda self: Timed(make(self))  # type: ignore[method-assign]
    trainer.Trainer.log_epoch = log_epoch  # type: ignore[method-assign]
    timed(PixelSource, "preload", "data")
    timed(trainer.Trainer, "train_step", "step")
    timed(trainer.Trainer, "score", "evaluation")
    timed(trainer, "finish_run", "files")
    timed(train, "_report", "report")
    timed(trainer.Trainer, "fit", "rest")
    if code := parsers.main("train", words):
        raise SystemExit(code)
    return ends
