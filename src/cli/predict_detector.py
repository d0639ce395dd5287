"""A checkpoint of any folder's prediction: our own, or a detector from elsewhere (`--model`)."""

import json
from argparse import Namespace
from pathlib import Path
from typing import NamedTuple

from src.compute.request import Compute
from src.config import read_model
from src.errors import UserError
from src.inference.engines import Engine, engine_for
from src.inference.passes import load_engine
from src.inference.predict import VIEWS
from src.models.checkpoint import is_ours, read_facts
from src.models.detector import Origin, load_detector
from src.training.setup import check_names


class Opened(NamedTuple):
    """A checkpoint that is ready: what runs it, the views it takes, and where it comes from.

    `origin` is None for a checkpoint of this repo, whose file says all of that itself.
    """

    path: Path
    engine: Engine
    views: list[str]
    origin: Origin | None


def open_checkpoint(
    path: Path, sha256: str, arguments: Namespace, compute: Compute, n_items: int
) -> Opened:
    """Return what predicts with a checkpoint; says in print what a foreign one was taken for.

    Args:
        path, sha256: of the checkpoint.
        arguments: `model` and `fake_index`, as `predict_ensemble.py` parses them.
        compute: where and how.
        n_items: to predict.

    Raises:
        UserError: see `load_engine` and `load_detector`; a checkpoint of ours that is another
            model than `--model`, or whose head `--fake-index` contradicts; or an engine that runs
            exported files alone.
    """
    name, model = f"{path.parent.name} {path.stem.replace('_', ' ', 1)}", arguments.model
    if model is None or is_ours(path):
        if model is not None:
            _check_ours(path, model, arguments.fake_index)
        return Opened(path, *load_engine(path, sha256, name, compute, n_items), None)
    if compute.engine not in (None, "eager"):
        raise UserError(
            f"--engine {compute.engine} runs what python -m src export wrote of a run; leave it "
            "out with --model"
        )
    config = read_model(model)
    check_names(config)
    classifier, origin = load_detector(path, model, config, arguments.fake_index)
    print(f"{origin.describe()}: {arguments.threshold} is taken")
    engine = engine_for(classifier.to(compute.chip), sha256, name, compute, n_items)
    return Opened(path, engine, list(VIEWS[config.tta]), origin)


def _check_ours(path: Path, model: str, fake: int | None) -> None:
    # As JSON, for a checkpoint's metadata make tuples of a config's lists.
    held, asked = (
        f"{one.name} {json.dumps(one.kwargs, sort_keys=True)}".removesuffix(" {}")
        for one in (read_facts(path)[1].backbone, read_model(model).backbone)
    )
    if held != asked:
        raise UserError(
            f"{path}: is a checkpoint of this repo, of the backbone {held}, and --model {model} is "
            f"{asked}; leave --model out"
        )
    if fake == 0:
        raise UserError(
            f"{path}: --fake-index 0 contradicts the file, a checkpoint of this repo, in which a "
            "positive logit is fake; leave --fake-index out"
        )
