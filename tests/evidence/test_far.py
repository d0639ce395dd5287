"""Which files are far from all that was trained on: by clusters on disk and features by hand."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from src.artifacts.clusters import Clusters, write_clusters
from src.data.folds.clusters import FrozenFeatures
from src.errors import UserError
from src.evidence import far
from src.inference.stored import ItemsToPredict

READABLE = np.array([True, False, True])


@dataclass
class Scheme:  # of a recipe, all that is asked of it
    dataset: str = "toy"
    scheme: str = "sgkf5_s42"


@pytest.fixture
def items(artefact_root):
    return ItemsToPredict(artefact_root, ["a", "bad", "c"], ["a", "bad", "c"], "")


def see(monkeypatch, found):
    """Let the backbone say `found`; returns the paths that it is shown."""
    shown = []

    def item_features(job):
        shown.extend(job.table["path"])
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(far, "item_features", item_features)
    return shown


def test_files_beyond_99_of_100_training_items_are_far(items, monkeypatch):
    table = pd.DataFrame({"item_id": [f"t{k}" for k in range(100)], "cluster": 0,
                          "distance": np.arange(100) / 200})  # fmt: skip
    clusters = Clusters(
        "effnet_lite0_probe", "w", np.zeros(2), np.eye(2)[:1], np.ones((1, 1)), table
    )
    write_clusters("toy", "clusters20_s42", clusters)
    # At length 1: the centre itself, and what is at right angles to it.
    features = np.array([[3.0, 0.0], [0.0, 5.0]], np.float32)
    shown = see(monkeypatch, FrozenFeatures(features, "effnet_lite0_probe", "w"))
    found = far.far_files(Scheme(), items, READABLE, "cpu", 0)
    assert (found.names, shown) == ({"c"}, ["a", "c"])
    assert found.words.startswith("1 of 2 files are farther from the 1 clusters of clusters20_s42")
    assert "not asked" not in found.words
    write_clusters("toy", "clusters9_s42", clusters)
    assert far.far_files(Scheme(), items, READABLE, "cpu", 0).words.endswith(
        "(not asked: clusters9_s42)"
    )
    own = far.far_files(Scheme(scheme="clusters9_s42"), items, READABLE, "cpu", 0)
    assert "of clusters9_s42 than" in own.words
    none = far.far_files(Scheme(), items, np.zeros(3, bool), "cpu", 0)
    assert none.words == "no file is called far, for none could be read"
    for wrong, why in (
        (FrozenFeatures(features, "effnet_lite0_probe", "x"), "other weights"),
        (UserError("no weights"), "none could be measured: no weights"),
    ):
        see(monkeypatch, wrong)
        found = far.far_files(Scheme(), items, READABLE, "cpu", 0)
        assert not found.names
        assert why in found.words


def test_without_clusters_no_file_is_far_and_that_is_said(items):
    found = far.far_files(Scheme(), items, READABLE, "cpu", 0)
    assert not found.names
    assert "toy has no clusters (python -m src folds --scheme clusters)" in found.words
