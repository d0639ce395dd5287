"""A data set with folds, predictions and records, none of which took a training."""

import cv2
import numpy as np
import pandas as pd
import pytest

from src import bootstrap, paths
from src.artifacts.files import sha256_file
from src.artifacts.folds import write_folds
from src.artifacts.oof import write_oof
from src.artifacts.recipes import Member, Recipe, write_recipe
from src.reporting import charts, scorecard
from src.reporting.report import subjects
from tests.records import make_record

N = 60
ODD = "o$d<d & 名.png"  # a file name that neither HTML nor a figure may take for markup


def item_names() -> list[str]:
    names = [f"i{index:02d}.png" for index in range(N)]
    names[0] = ODD
    return names


@pytest.fixture
def toy(artefact_root):
    """Return the name of a data set of 60 small images in two classes and three folds."""
    rng = np.random.default_rng(0)
    rows = []
    for index, name in enumerate(item_names()):
        label = index % 2
        kind = "fake" if label else "real"
        folder = paths.dataset_dir("toy") / "train" / kind
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (16, 20, 3), dtype=np.uint8)
        (folder / name).write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
        rows.append((f"{kind}/{name}", label, name, "", "image", index // 2 % 3))
    columns = ["item_id", "label", "group", "domain", "kind", "fold"]
    write_folds(paths.folds_csv("toy", "s"), pd.DataFrame(rows, columns=columns))
    return "toy"


def predict(model: str, folds=(0, 1, 2), seed: int = 1) -> pd.DataFrame:
    """Write predictions of a model that is mostly right; returns them."""
    table = pd.read_csv(paths.folds_csv("toy", "s"))
    rng = np.random.default_rng(seed)
    table["logit"] = 2 * (2 * table["label"] - 1) + 2 * rng.standard_normal(len(table)) + 0.5
    for fold in folds:
        write_oof(paths.oof_csv("toy", "s", model, fold), table[table["fold"] == fold])
    return table[table["fold"].isin(folds)]


def run_record(model: str, fold, stages: bool = False) -> dict:
    """Write the record of a run of two epochs; returns it."""
    history = [
        {
            "epoch": k,
            "train_loss": 1 / k,
            "items_per_second": 5.0,
            "macro_f1": 0.5 + k / 10,
            "auc": 0.6,
        }
        for k in (1, 2)
    ]
    if stages:
        for entry, name in zip(history, ("head", "all <b>"), strict=True):
            entry["stage"] = name
    return make_record("toy", "s", model, fold, history=history)


@pytest.fixture
def coarse(monkeypatch):
    """Draw figures of few pixels, and few bootstrap samples, which is quick."""
    monkeypatch.setattr(charts, "DPI", 25)
    monkeypatch.setattr(bootstrap, "REPLICATES", bootstrap.FEWEST)
    monkeypatch.setattr(scorecard, "MOST_REPLICATES", scorecard.FEWEST_REPLICATES)
    monkeypatch.setattr(subjects, "ROUNDS", 100)


def write_recipe_of(name, model, threshold=0.7, weight=1.0, other=None, stages=None):
    """Write a recipe of one or two models that predicted all folds."""
    folds = [0, 1, 2]

    def member(name, share):
        files = {k: paths.oof_csv("toy", "s", name, k) for k in folds}
        made_of = {str(k): sha256_file(file) for k, file in files.items()}
        return Member(name, share, 0.5, [*folds], made_of)

    members = [member(model, weight)] + ([member(other, 1 - weight)] if other else [])
    stages = stages or [
        {"name": "voting", "params": {"rule": "soft"}},
        {"name": "threshold", "params": {"value": threshold}},
    ]
    fold_sha = sha256_file(paths.folds_csv("toy", "s"))
    write_recipe(
        paths.recipe_json("toy", name), Recipe("toy", "s", folds, fold_sha, members, stages)
    )
