"""Folds of whole clusters: groups kept whole, both classes in each, distances as by hand."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src import paths
from src.artifacts.clusters import read_clusters
from src.artifacts.folds import existing_scheme
from src.data.folds.clusters import FrozenFeatures, deal_clusters, fit_clusters
from src.data.folds.fold_report import report_folds
from src.data.folds.make import ensure_folds
from src.data.folds.schemes import full_name, number_of_clusters, parse_scheme
from src.data.layouts.load import load_dataset
from src.errors import UserError
from tests.data.conftest import refused

PICTURES = [f"train/{c}/{i}.png" for c in ("real", "fake") for i in range(12)]


def blobs(n: int, kinds: int, d: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return features (n, d) around `kinds` directions, of any length, and the kind of each."""
    rng = np.random.default_rng(seed)
    kind = np.arange(n) % kinds
    features = np.eye(d)[kind] + rng.normal(size=(n, d)) * 0.02
    return (features * rng.uniform(0.5, 9, (n, 1))).astype(np.float32), kind


def frozen(features: np.ndarray) -> FrozenFeatures:
    return FrozenFeatures(features, "net", "ab")


def fitted(features: np.ndarray, k: int, group: np.ndarray | None = None):
    ids = pd.Series([f"{i:04d}" for i in range(len(features))])
    return fit_clusters(
        frozen(features), ids, np.arange(len(ids)) if group is None else group, k, 1
    )


def test_clusters_are_the_kinds_whatever_the_length_of_a_feature_and_groups_stay_whole():
    features, kind = blobs(120, 4)
    cluster = fitted(features, 4).table["cluster"].to_numpy()
    assert len(set(zip(kind, cluster, strict=True))) == 4
    group = np.where(np.arange(120) < 9, 0, np.arange(120))  # over all kinds, one more of kind 0
    cluster = fitted(features, 4, group).table["cluster"].to_numpy()
    assert len(set(cluster[:9])) == 1
    assert len(set(zip(kind[9:], cluster[9:], strict=True))) == 4


def test_a_distance_is_that_to_the_nearest_centre_in_all_dimensions():
    features, _ = blobs(90, 3)
    clusters = fitted(features, 3)
    new = np.random.default_rng(5).normal(size=(7, 40))
    whole = clusters.mean + clusters.centres @ clusters.axes  # centres among the features
    unit = new / np.linalg.norm(new, axis=1, keepdims=True)
    by_hand = np.linalg.norm(unit[:, None] - whole, axis=2).min(1)
    np.testing.assert_allclose(clusters.distances(new), by_hand, atol=1e-6)
    own = clusters.table["distance"].to_numpy()
    assert clusters.quantiles(clusters.distances(new)).tolist() == [1.0] * 7
    assert clusters.quantiles(np.array([0.0, np.median(own), own.max()])).round(1).tolist() == [
        0, 0.5, 1,
    ]  # fmt: skip
    with pytest.raises(UserError, match="40 numbers an item"):
        clusters.distances(new[:, :9])


def test_fewer_groups_or_kinds_than_clusters_are_refused():
    features, _ = blobs(30, 3)
    with refused("20 clusters of 30 items in 10 groups"):
        fitted(features, 20, np.arange(30) // 3)
    with refused("5 clusters of 30 groups, of which net tells only 2 apart"):
        fitted(np.repeat(np.eye(2, dtype=np.float32), 15, 0), 5)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=9),
       st.integers(2, 5), st.integers(0, 3))  # fmt: skip
def test_every_fold_has_both_classes_or_no_dealing_gives_that(counts, n_folds, seed):
    labels = np.concatenate([np.repeat([0, 1], pair) for pair in counts])
    cluster = np.repeat(np.arange(len(counts)), [sum(pair) for pair in counts])
    both = sum(min(pair) > 0 for pair in counts)
    alone = [sum(pair[k] > 0 and not pair[1 - k] for pair in counts) for k in (0, 1)]
    if not len(labels) or both + min(alone) < n_folds:
        with pytest.raises(UserError if len(labels) else ValueError):
            deal_clusters(labels, cluster, n_folds, seed, "here")
        return
    folds = deal_clusters(labels, cluster, n_folds, seed, "here")
    held = {(fold, label) for fold, label in zip(folds.tolist(), labels.tolist(), strict=True)}
    assert held == {(fold, label) for fold in range(n_folds) for label in (0, 1)}
    assert all(len(set(folds[cluster == j])) <= 1 for j in range(len(counts)))


def test_clusters_of_one_class_say_how_many_folds_there_can_be():
    labels = np.repeat([0, 1, 0, 1, 1], 4)
    with refused(r"here: of 5 clusters 0 hold both classes, 2 reals alone and 3 fakes alone, so at "
                 r"most 2 folds.*--scheme clusters5x2_s7"):  # fmt: skip
        deal_clusters(labels, np.repeat(np.arange(5), 4), 3, 7, "here")


def test_a_scheme_has_one_name(toy):
    dataset = toy(PICTURES, {"dataset.yaml": "n_folds: 3\nseed: 9\n"})
    names = ("clusters", "clusters8x5_s1", "clusters8x2_s1", "lodo")
    expected = ["clusters20x3_s9", "clusters8_s1", "clusters8x2_s1", "lodo"]
    assert [full_name(dataset, name) for name in names] == expected
    assert full_name(dataset, "clusters", 5, 0) == "clusters20_s0"
    assert parse_scheme(dataset, "clusters8x2_s1") == (2, 1)
    assert (number_of_clusters("clusters8x2_s1"), number_of_clusters("sgkf5_s42")) == (8, 0)
    for name, match in [
        ("clusters4_s1", r"4 clusters and 5 folds.*take clusters20_s1"),
        ("clusters8x1_s1", "8 clusters and 1 folds"),
        ("clusters8_s1_unscanned", "every file is opened"),
        ("clusters8", "unknown scheme"),
    ]:
        with refused(match):
            parse_scheme(dataset, name)


def test_made_once_with_its_clusters_beside_it(toy):
    texts = {"train/real/bad.png": b"no picture", "dataset.yaml": "n_folds: 2\nseed: 9\n"}
    dataset = toy(PICTURES, texts)
    features, _ = blobs(24, 6)
    asked = []

    def features_of(table):
        asked.append(table["item_id"].tolist())
        return frozen(features)

    with refused("wants features.*python -m src folds --data toy --scheme clusters20x2_s9"):
        ensure_folds(dataset, "clusters")
    scheme, folds, report = ensure_folds(dataset, "clusters6x2_s9", features_of)
    assert asked == [folds["item_id"].tolist()]  # in the file's order, without what is unreadable
    clusters = read_clusters("toy", scheme)
    assert report is not None
    assert report.clusters is not None
    pd.testing.assert_frame_equal(clusters.table, report.clusters.table)
    joined = folds.merge(clusters.table, on="item_id")
    assert joined.groupby("cluster")["fold"].nunique().tolist() == [1] * 6
    np.testing.assert_allclose(clusters.distances(features), clusters.table["distance"])
    assert existing_scheme("toy", None) == existing_scheme("toy", "clusters") == scheme
    again, same, none = ensure_folds(load_dataset("toy"), "clusters")  # without features
    assert (again, none, len(asked)) == (scheme, None, 1)
    later = report_folds(dataset, scheme, same).clusters
    assert later is not None
    assert later.model == "net"
    paths.cluster_centres("toy", scheme).write_bytes(b"damaged")
    with refused("clusters6x2_s9.clusters.safetensors: no centres"):
        report_folds(dataset, scheme, same)
