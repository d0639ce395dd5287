"""A recipe's answers to files of any folder: real, fake, or unsure with the reasons."""

from argparse import Namespace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src.artifacts.files import sha256_file
from src.artifacts.recipes import read_recipe
from src.cli.common import recipe_path, recipe_to_look, taken
from src.compute.request import Compute
from src.ensemble.rule import rule_of
from src.ensemble.shift.risk import RISK
from src.evidence.far import far_files
from src.evidence.risk import grounds_of
from src.evidence.verdicts import BAND, FAR, FLIPS, NO_FACE, PARTIAL, verdicts_of
from src.inference.folder import vote_on_items
from src.inference.member_logits import levels_of
from src.inference.stored import ItemsToPredict


class Judged(NamedTuple):
    """What is said of n files, by name."""

    prob: NDArray[np.float64]  # (n,) P(fake); of no account where not `readable`
    pred: NDArray[np.int64]  # (n,) 0/1, likewise
    readable: NDArray[np.bool_]  # (n,)
    partial: dict[str, str]  # file -> what is wrong with one read only in part, or named otherwise
    no_face: list[str]  # the files that show no face to a model that crops them
    made_from: dict[str, Any]  # who judged, by which threshold: for the JSON
    verdicts: pd.DataFrame | None = None  # `verdicts_of`, where a recipe judged


def judge(arguments: Namespace, items: ItemsToPredict) -> Judged:
    """Predict files with a recipe, and say which verdicts are sure.

    Raises:
        UserError: `--risk` cannot be met; before anything is predicted.
    """
    dataset, name = recipe_to_look(arguments)
    recipe = read_recipe(recipe_path(dataset, name))
    rule, levels = rule_of(recipe), levels_of(recipe, arguments.deliveries)
    risk = RISK if arguments.risk is None else arguments.risk
    band = None if risk == 0 else grounds_of(name, recipe).band(risk)
    if band is not None:
        print(band.words())
    found = vote_on_items(recipe, items, taken(Compute, arguments), levels)
    votes = found.votes.loc[list(items.item_ids)]
    readable = ~votes["fallback"].to_numpy(bool)
    prob, pred = votes["prob"].to_numpy(np.float64), votes["pred"].to_numpy(np.int64)
    reasons: dict[str, set[str]] = {}
    if band is not None:
        within = ~band.band.is_sure(prob, votes["threshold"].to_numpy(np.float64), pred)
        reasons[BAND] = set(votes.index[within])
    made_from: dict[str, Any] = {
        "recipe": name,
        "recipe_sha256": sha256_file(recipe_path(dataset, name)),
        "dataset": dataset,
        "checkpoints": found.checkpoints,
        "engines": found.engines,
        "threshold": rule.threshold,
        "risk": None if band is None else band.record(),
    }
    if found.stability is not None:
        print(found.stability.words())
        made_from["deliveries"] = found.stability.record()
        reasons[FLIPS] = set(found.stability.flipped())
    far = far_files(recipe, items, readable, arguments.device, arguments.workers)
    print(far.words)
    reasons |= {NO_FACE: set(found.no_face), PARTIAL: set(found.partial), FAR: far.names}
    made_from["far"] = {"files": sorted(far.names), "how": far.words}
    verdicts = verdicts_of(items.item_ids, pred, readable, reasons)
    made_from["verdicts"] = verdicts["verdict"].value_counts().drop("", errors="ignore").to_dict()
    return Judged(prob, pred, readable, found.partial, found.no_face, made_from, verdicts)
