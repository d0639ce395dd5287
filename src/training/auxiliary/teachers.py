"""Who teaches a run: fold k is taught only by what never saw fold k.

A model teaches by its run of the same fold, a recipe by its members' runs of it; a refit takes
refits. A file of weights from elsewhere is taken at its word; the run's record names it.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from src import paths
from src.artifacts.files import sha256_file
from src.artifacts.recipes import Recipe, read_fresh_recipe
from src.artifacts.runs import check_checkpoint, has_run, read_run, was_selected
from src.config import DistilConfig, model_names, read_model
from src.distillation import asked_of
from src.ensemble.calibration import Curve
from src.ensemble.extra import is_extra
from src.ensemble.rule import Rule, fold_curves_of, rule_of, vote
from src.errors import UserError
from src.inference import stored
from src.inference.lineage import check_unseen, origin_of
from src.metrics import log_odds
from src.models.checkpoint import is_ours, load_checkpoint
from src.models.classifier import Classifier, build_classifier
from src.models.detector import load_detector, turn_head
from src.models.weights import carry_input, load_weights, sha256_weights
from src.tensor_files import SUFFIXES, check_file
from src.training.job import Job

LOG = logging.getLogger("rvf")
OF_ITS_FOLD = (
    "Fold K is taught only by what never saw it: name the model, whose run of the same fold teaches"
)
SURE = 1e-6  # a recipe's P(fake) that is nearer to 0 or 1 is taken as this far away


@dataclass(frozen=True)
class Teacher:
    """A net that teaches, as it lies on disk."""

    name: str  # a model, or the path of a file
    path: Path  # of its weights
    sha256: str  # of that file
    # which run wrote it, as of a run's start (`lineage.origin_of`); None of weights from elsewhere
    origin: dict[str, Any] | None
    note: str = ""  # what the log should say of it

    def load(self, distil: DistilConfig, chip: torch.device) -> Classifier:
        """Return the net in evaluation mode, on a device.

        Raises:
            UserError: the file is damaged, does not fit `distil.read_as`, or has no head that could
                teach logits.
        """
        if self.note:
            LOG.warning("teacher %s %s", self.name, self.note)
        if is_ours(self.path):
            return load_checkpoint(self.path, chip)[0]
        if distil.read_as is None:
            raise UserError(
                f"distil.teacher: {self.path} was not written here, so nothing says which net it "
                "is of: distil.read_as names the model that it is read as (python -m src models)"
            )
        config = read_model(distil.read_as)
        if "logit" in asked_of(distil):
            model, origin = load_detector(self.path, distil.read_as, config, distil.fake_index)
            LOG.info("teacher %s", origin.describe())
        else:
            model, native = build_classifier(config)
            start = load_weights(model.net, self.path, native.head, partial(turn_head, fake=0))
            carry_input(model, config, start)
        return model.to(chip, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]


@dataclass(frozen=True)
class Teachers:
    """All that teach a run."""

    each: tuple[Teacher, ...]  # one or more
    # how a recipe's members vote, in this order; None for the mean of logits
    rule: Rule | None = None
    # of a recipe's members: brings the logits of this fold's model to the scale of all folds
    curves: tuple[Curve, ...] = ()
    recipe: str = ""  # its name
    sha256: str = ""  # of its file

    @property
    def record(self) -> list[dict[str, Any]]:
        """What a run's record says of them."""
        words = {"recipe": self.recipe, "recipe_sha256": self.sha256} if self.recipe else {}
        return [
            {"name": one.name, "sha256": one.sha256, "origin": one.origin, **words}
            for one in self.each
        ]

    def joined(self, logits: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
        """Return what all say together, (n,), from the logits (n,) of each."""
        if self.rule is None:
            return np.mean(logits, axis=0)
        table = np.stack([c.logit(one) for c, one in zip(self.curves, logits, strict=True)], 1)
        return log_odds(vote(self.rule, table).prob, SURE)


def find_teachers(job: Job) -> Teachers:
    """Return the teachers of a run whose config has `distil`.

    Raises:
        UserError: there is none of that name, its run of this fold (of a refit: its refit) is not
            finished, it saw items that are held out here, or nothing says what it saw.
    """
    distil = job.config.distil
    if distil is None:
        raise ValueError(f"{job.model} has no teacher")
    names = distil.teachers
    if len(names) == 1 and _is_recipe(job, names[0]):
        found = _of_recipe(job, names[0])
    else:
        found = Teachers(tuple(_teacher(job, name) for name in names))
    held_out = (job.dataset, job.scheme, job.fold)
    for one in found.each:
        if one.origin is not None:
            records = [(f"teacher {one.name}", one.origin)]
            check_unseen(records, held_out, job.table, job.root.parent, OF_ITS_FOLD)
    foreign = any(one.origin is None for one in found.each)
    if not foreign and (distil.read_as is not None or distil.fake_index is not None):
        raise UserError(
            "distil: read_as and fake_index say how a file of weights from elsewhere is read, and "
            "no teacher is one: leave them out"
        )
    return found


def check_teachers_since(job: Job) -> None:
    """Raise a UserError where a teacher of a finished run, or its recipe, is another one now."""
    for one in read_run(*job.names)["teachers"] or []:
        origin, path = one["origin"] or {}, Path(one["name"])
        names = [origin.get(key) for key in ("dataset", "scheme", "model", "fold")]
        now = [one["sha256"], one.get("recipe_sha256")]
        if _is_file(one["name"]):
            now[0] = sha256_weights(path) if path.is_file() else now[0]
        elif None not in names and has_run(*names):  # type: ignore[arg-type]
            now[0] = read_run(*names)["checkpoint_sha256"]  # type: ignore[arg-type]
        recipe = paths.recipe_json(job.dataset, one.get("recipe", ""))
        if "recipe" in one and recipe.is_file():
            now[1] = sha256_file(recipe)
        if now != [one["sha256"], one.get("recipe_sha256")]:
            what = "its teacher" if now[0] != one["sha256"] else f"the recipe {one['recipe']} of"
            raise UserError(
                f"{job.title}: {what} {one['name']} was made again since; train the student again "
                "too (--overwrite), or under a name of its own (--as NAME)"
            )


def _is_recipe(job: Job, name: str) -> bool:
    """Tell whether a name is that of a recipe; UserError where it is one of a model too."""
    if _is_file(name) or not paths.recipe_json(job.dataset, name).is_file():
        return False
    if _is_model(job, name):
        raise UserError(
            f"distil.teacher: {name!r} is a model and a recipe of {job.dataset}; tune under "
            "another name (tune.py --recipe NAME)"
        )
    return True


def _is_file(name: str) -> bool:
    return "/" in name or name.endswith(SUFFIXES)


def _is_model(job: Job, name: str) -> bool:
    known = name in model_names() or name.startswith("timm:")
    return known or paths.run_record(job.dataset, job.scheme, name, 0).parent.is_dir()


def _teacher(job: Job, name: str) -> Teacher:
    if _is_file(name):
        path = Path(name)
        check_file(path)
        sha256 = sha256_weights(path)
        origin = origin_of(path, sha256, ours=is_ours(path))
        word = f"was not trained here: that it saw no item of {job.dataset} is taken on your word"
        return Teacher(name, path, sha256, origin, word if origin is None else "")
    if name == job.model:
        raise UserError(f"distil.teacher: {name} cannot teach itself; give the student its own "
                        "name (--as NAME)")  # fmt: skip
    if not _is_model(job, name):
        raise UserError(
            f"distil.teacher: {name!r} is no model (python -m src models), no recipe of "
            f"{job.dataset} (tune.py --recipe), and no file of weights"
        )
    return _of_run(job, name)


def _of_run(job: Job, model: str) -> Teacher:
    """Return a model's run of the job's fold as a teacher."""
    names = (job.dataset, job.scheme, model, job.fold)
    if is_extra(*names[:3]):
        raise UserError(
            f"distil.teacher: {model} came from elsewhere as predictions (tune.py --extra), and "
            "sees no picture: name a model that was trained here, or a file of weights"
        )
    if not has_run(*names):
        of_all = " (a refit is taught by a refit)" if job.is_refit else ""
        raise UserError(
            f"distil.teacher: {model} has no finished fold {job.fold} of {job.dataset}/"
            f"{job.scheme}{of_all}, and fold {job.fold} is taught only by what never saw it. Train "
            f"it first: python train_folds.py --model {model} --fold {job.fold} --data "
            f"{job.dataset}"
        )
    record = read_run(*names)
    path = check_checkpoint(record)
    note = ""
    if was_selected(record):
        note = (
            f"was steered by the rows that are held out here (selection: {record['selection']}), "
            "so a trace of them is in what it teaches"
        )
    sha256 = record["checkpoint_sha256"]
    return Teacher(model, path, sha256, origin_of(path, sha256, ours=True), note)


def _of_recipe(job: Job, name: str) -> Teachers:
    path = paths.recipe_json(job.dataset, name)
    recipe = read_fresh_recipe(path, job.scheme)
    members = [one for one in recipe.members if one.weight != 0]
    if any(one.model == job.model for one in members):
        raise UserError(f"distil.teacher: {path} has {job.model} itself as a member: tune without "
                        "it (tune.py --models ...)")  # fmt: skip
    stored.needed_parts(recipe, [job.fold])
    each = tuple(_of_run(job, one.model) for one in members)
    scales = fold_curves_of(recipe)
    curves = tuple(scales.get(one.model, {}).get(str(job.fold), Curve()) for one in members)
    note = (
        "teaches in a recipe whose weights were tuned on out-of-fold rows, those held out here "
        "among them: a trace of them is in how its members vote"
    )
    each = (replace(each[0], note="; ".join(filter(None, [each[0].note, note]))), *each[1:])
    return Teachers(each, _rule_of(recipe), curves, name, sha256_file(path))


def _rule_of(recipe: Recipe) -> Rule:
    """Return how the members that have a say vote; decisions by kind or domain play no part."""
    rule = rule_of(recipe)
    used = rule.used()
    curves = tuple(c for c, say in zip(rule.curves, used, strict=False) if say)
    own = replace(rule, weights=rule.weights[used], thresholds=rule.thresholds[used], curves=curves)
    return replace(own, by="", cuts={})
