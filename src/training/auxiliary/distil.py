"""A frozen teacher beside the student: both see the same augmented pixels of a batch."""

import logging
import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from src.compute import device
from src.config import InputSpec, ModelConfig
from src.data.batches.augment import read_augment
from src.distillation import DISTIL, asked_of
from src.errors import UserError
from src.inference.engines import fused
from src.machine import available_memory
from src.models.classifier import Classifier
from src.models.intermediates import check_intermediates, patches_of, prefix_tokens, with_tokens
from src.progress import track
from src.strict_yaml import keywords_of
from src.training.auxiliary import Auxiliary, Batch, Shown, at_size
from src.training.auxiliary.teachers import Teachers
from src.training.job import Job

LOG = logging.getLogger("rvf")
FITNETS_START = 0.005  # a projection begins within this much of 0, as FitNets' regressors
MEMORY_SHARE = 0.1  # of what is free, that a teacher's answers to all items may take
AHEAD = 64  # items that a teacher is shown at once beforehand
MAPS = "mean_attention"
SAME = 1e-5  # logits of a teacher that differ by less, relatively, are equal
ENOUGH = 8  # equal ones that are no accident


class Frozen:
    """A teacher's net: what it shows of pixels, without gradients or the memory for them.

    It is not a module, so that it is no part of what is trained, saved or averaged.
    """

    def __init__(
        self, model: Classifier, wants: frozenset[str], name: str, chip: torch.device
    ) -> None:
        self.model, self.wants, self.name, self.chip = model.eval(), wants, name, chip
        self.size = model.spec.image_size
        self.precision = device.inference_precision(chip, "auto")
        # of one black image; refuses a net that has no such thing
        self.shown = check_intermediates(model.net, wants, self.size, f"teacher {name}")
        if chip.type == "cpu":
            net = fused(model.net, self.size, plain_attention=False)
            with suppress(UserError, AttributeError):  # a copy that shows less is not taken
                check_intermediates(net, wants, self.size, name)
                self.model = Classifier(net, model.spec).eval()

    def __call__(self, batch: Batch) -> Shown:
        """Map a batch, of whatever size in pixels, to what the net shows of it."""
        pixels = at_size({k: batch[k] for k in ("pixels", "blank") if k in batch}, self.size)
        with torch.no_grad(), device.autocast(self.chip, self.precision):
            return self.model(pixels, also=self.wants)


class Distillation(Auxiliary):
    """The terms of `distil` between a student and its teachers.

    Args:
        job: whose config has `distil`.
        teachers: that teach it (`find_teachers`).
        student: is looked at once, to see that it has what the terms want.
        chip: the device.

    Raises:
        UserError: a net lacks what a term wants, sees pictures cut otherwise, or says the same of
            every item.
    """

    def __init__(
        self, job: Job, teachers: Teachers, student: Classifier, chip: torch.device
    ) -> None:
        super().__init__()
        distil = job.config.distil
        assert distil is not None  # `make_auxiliaries` looked
        self.terms, self.labels, self.teachers = asked_of(distil), distil.labels, teachers
        needed = {DISTIL.get(name).needed(one) for name, one in self.terms.items()}
        self.wants = frozenset(needed - {"logit"})
        size = student.spec.image_size
        own = check_intermediates(student.net, self.wants, size, job.model)
        self.nets = [
            Frozen(
                _loaded(one.name, one.load(distil, chip), student.spec), self.wants, one.name, chip
            )
            for one in teachers.each
        ]
        self.look_size = max(size, *(net.size for net in self.nets))
        self.prefix, self.tokens = prefix_tokens(student.net), 0
        if MAPS in self.wants:
            self.tokens = own[MAPS][0].shape[1]
            self._check_tokens(job.model, student.net)
        self.projections = nn.ModuleList(
            _projection(own["features"], net.shown["features"])
            for net in self.nets
            if any(DISTIL.get(name).projects for name in self.terms)
        )
        # lowest and highest logit of each teacher that has said the same of every item so far
        self.constant = dict.fromkeys(range(len(self.nets)), (math.inf, -math.inf))
        self.looked = 0  # items that these have seen
        self.place: Tensor | None = None  # of an item in what is known beforehand, int64 (n_items,)
        self.known: list[Shown] = []

    def _check_tokens(self, name: str, student: nn.Module) -> None:
        """Say whose attention maps are brought to the student's tokens; UserError if none can."""
        patches_of(self.tokens, prefix_tokens(student), name)
        for net in self.nets:
            count, prefix = net.shown[MAPS][0].shape[1], prefix_tokens(net.model.net)
            patches_of(count, prefix, net.name)
            if (count, prefix) != (self.tokens, self.prefix):
                LOG.info(
                    "attention maps of teacher %s (%d tokens, %d of them no patches) are brought "
                    "to the student's (%d, %d)", net.name, count, prefix, self.tokens, self.prefix,
                )  # fmt: skip

    def know_beforehand(
        self, rows: NDArray[np.int64], pixels_of: Callable[[NDArray[np.int64]], NDArray[np.uint8]]
    ) -> None:
        """Compute the teachers' answers once for all epochs, where they fit into memory."""
        size = 4 * sum(one.numel() for net in self.nets for one in _tensors(net.shown))
        if size * len(rows) > MEMORY_SHARE * available_memory():
            LOG.info("distil: %d kB an item do not fit into memory for all items", size // 1000)
            return
        parts = np.array_split(np.sort(rows), max(1, len(rows) // AHEAD))
        found: list[list[Shown]] = [[] for _ in self.nets]
        for part in track(parts, "teachers", total=len(parts), unit="batch"):
            pixels = torch.from_numpy(pixels_of(part))
            for net, shown in zip(self.nets, found, strict=True):
                batch = {"pixels": pixels.to(net.chip)}
                shown.append(_mapped(lambda one: one.float().cpu(), net(batch)))
        self.known = [_joined(shown) for shown in found]
        self.place = torch.full((int(rows.max()) + 1,), -1)
        self.place[torch.from_numpy(np.sort(rows))] = torch.arange(len(rows))

    def forward(
        self, batch: Batch, shown: Shown, again: Callable[[Batch], Shown]
    ) -> dict[str, Tensor]:
        """Return `distil_NAME` of each term, times its weight; see `Auxiliary`."""
        del again
        answers = self._answers(batch)
        terms = {}
        for name, settings in self.terms.items():
            term = DISTIL.get(name)
            values = {key: getattr(settings, key) for key in keywords_of(term.loss)}
            if term.needed(settings) == "logit":
                found = term.loss(shown, {"logit": self._joined_logit(answers)}, **values)
            else:
                losses = [
                    term.loss(
                        self._projected(shown, number) if term.projects else shown, one, **values
                    )
                    for number, one in enumerate(answers)
                ]
                found = torch.stack(losses).mean(0)
            terms[f"distil_{name}"] = settings.weight * found
        return terms

    def _answers(self, batch: Batch) -> list[Shown]:
        """Return what each teacher shows of a batch, attention maps with the student's tokens."""
        if self.place is not None:
            rows, chip = self.place[batch["item"].cpu()], batch["item"].device
            answers = [_mapped(lambda one: one[rows].to(chip), known) for known in self.known]
        else:
            answers = [net(batch) for net in self.nets]
        if self.constant:
            self._refuse_constant(answers)
        for net, shown in zip(self.nets, answers, strict=True):
            if MAPS in shown:
                prefix = prefix_tokens(net.model.net)
                shown[MAPS] = [
                    with_tokens(one, prefix, self.tokens, self.prefix) for one in shown[MAPS]
                ]
        return answers

    def _refuse_constant(self, answers: list[Shown]) -> None:
        """Raise a UserError for a teacher that says the same of all items that it has seen."""
        self.looked += len(answers[0]["logit"])
        for number, (low, high) in list(self.constant.items()):
            logit = answers[number]["logit"].float()
            low, high = min(low, float(logit.min())), max(high, float(logit.max()))
            self.constant[number] = low, high
            if high - low > SAME * (1 + abs(high)):
                del self.constant[number]
            elif self.looked >= ENOUGH:
                raise UserError(
                    f"distil.teacher: {self.nets[number].name} gives every item the logit "
                    f"{high:.4g}, so it teaches nothing; look at its own score (python -m src "
                    "evaluate)"
                )

    def _joined_logit(self, answers: list[Shown]) -> Tensor:
        logits = [shown["logit"].float() for shown in answers]
        if self.teachers.rule is None:
            return torch.stack(logits).mean(0)
        joined = self.teachers.joined([one.double().cpu().numpy() for one in logits])
        return torch.from_numpy(joined).float().to(logits[0].device)

    def _projected(self, shown: Shown, number: int) -> Shown:
        return {**shown, "features": self.projections[number](shown["features"].flatten(1).float())}


def looks_alike_always(config: ModelConfig) -> bool:
    """Tell whether pictures are the same in every epoch, so that a teacher need look only once."""
    augment = read_augment(config.augment)
    name = config.augment if isinstance(config.augment, str) else config.augment["name"]
    if config.mixup > 0 or config.cutmix > 0 or config.blend is not None:
        return False
    if config.augment_real is not None:
        return False
    return name == "none" and augment.erase == 0


def _loaded(name: str, model: Classifier, student: InputSpec) -> Classifier:
    """Return a teacher that sees pictures cut as the student does, each at its own size.

    Raises:
        UserError: it does not, so that what the student is shown would be strange to it.
    """
    for what in ("geometry", "reencode"):
        own, wanted = getattr(model.spec, what), getattr(student, what)
        if own != wanted:
            raise UserError(
                f"distil.teacher: {name} was trained with input.{what}: {own}, and the student has "
                f"{wanted}; both see the same pixels, so give the student input.{what}={own}"
            )
    own, wanted = model.spec.face, student.face
    for what in ("margin", "align", "detector") if own and wanted else ():
        if getattr(own, what) != getattr(wanted, what):
            raise UserError(
                f"distil.teacher: {name} was trained on faces with face.{what}: "
                f"{getattr(own, what)}, and the student has {getattr(wanted, what)}; give both the "
                "same"
            )
    if (model.spec.face is None) != (student.face is None):
        sees = "faces" if model.spec.face else "whole pictures"
        raise UserError(f"distil.teacher: {name} sees {sees}, and the student does not; give both "
                        "the same input.crop")  # fmt: skip
    if student.geometry == "native" and model.spec.image_size != student.image_size:
        raise UserError(
            f"distil.teacher: {name} sees {model.spec.image_size} px of pixels as they are, the "
            f"student {student.image_size}: input.geometry: native is never resized"
        )
    return model


def _projection(own: Tensor, wanted: Tensor) -> nn.Linear:
    """Return a linear layer from a student's features, (1, ...), to the width of a teacher's."""
    layer = nn.Linear(own[0].numel(), wanted[0].numel(), bias=False)
    nn.init.uniform_(layer.weight, -FITNETS_START, FITNETS_START)
    return layer


def _tensors(shown: Shown) -> list[Tensor]:
    return [t for one in shown.values() for t in (one if isinstance(one, list) else [one])]


def _mapped(change: Callable[[Tensor], Tensor], shown: Shown) -> Shown:
    """Return what `change` makes of each tensor that is shown."""
    return {
        name: [change(t) for t in one] if isinstance(one, list) else change(one)
        for name, one in shown.items()
    }


def _joined(parts: list[Shown]) -> dict[str, Any]:
    """Return one table of what was shown of many batches."""
    return {
        name: [torch.cat(layer) for layer in zip(*(p[name] for p in parts), strict=True)]
        if isinstance(one, list)
        else torch.cat([p[name] for p in parts])
        for name, one in parts[0].items()
    }
