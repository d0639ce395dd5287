"""Which cross-validated score tells more of a domain that nobody saw: by groups, or by clusters?

    python -m benchmarks.unseen_domain DATASET MODEL [MODEL ...]

Each named domain of the data set (docs/datasets.md, `combine:`) is unseen in turn: a linear probe
on a frozen backbone's features is cross-validated on the others by sgkf5 and by clusters20, then
trained on all of them and scored on the unseen one; and once more with the largest domain alone.
Nothing of the unseen domain has a say in axes, clusters, folds, probe or threshold.
"""

import sys
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression

from src.artifacts.clusters import at_length_1
from src.cli.folds import frozen_features
from src.data.folds.clusters import FrozenFeatures, deal_clusters, fit_clusters
from src.data.folds.make import deal_folds
from src.data.folds.schemes import default_scheme
from src.data.layouts.load import load_dataset
from src.metrics import auc, macro_f1
from src.stratify import stratified_group_folds
from src.thresholds import best_threshold
from src.training.job import Options, job_table

SEEDS = (42, 43, 44)
FOLDS, CLUSTERS, AXES = 5, 20, 128


class Promise(NamedTuple):
    """What cross-validation says, and how it decides."""

    auc: float
    macro_f1: float  # each fold at the threshold of the others
    threshold: float  # of all


def probe(seen: NDArray[Any], label: NDArray[np.int64]) -> LogisticRegression:
    """Train the probe; classes weigh the same."""
    return LogisticRegression(C=0.1, class_weight="balanced", max_iter=500).fit(seen, label)


def cross_validated(
    seen: NDArray[Any], label: NDArray[np.int64], fold: NDArray[np.int64]
) -> Promise:
    """Score the probe out of fold."""
    prob, decided = np.empty(len(label)), np.empty(len(label), np.int64)
    for k in range(FOLDS):
        model = probe(seen[fold != k], label[fold != k])
        prob[fold == k] = model.predict_proba(seen[fold == k])[:, 1]
    for k in range(FOLDS):
        cut = best_threshold(label[fold != k], prob[fold != k])[0]
        decided[fold == k] = prob[fold == k] >= cut
    return Promise(auc(label, prob), macro_f1(label, decided), best_threshold(label, prob)[0])


def print_world(
    title: str, features: NDArray[np.float32], table: pd.DataFrame,
    train: NDArray[np.bool_], unseen: NDArray[np.bool_],
) -> None:  # fmt: skip
    """Print what either way promises of the rows `unseen`, and what came."""
    label, group = table["label"].to_numpy(np.int64), pd.factorize(table["group"])[0]
    pca = PCA(min(AXES, int(train.sum()) // 4), whiten=True, random_state=0)
    seen = pca.fit(at_length_1(features[train])).transform(at_length_1(features))
    mine, own, groups = seen[train], label[train], group[train]
    ids, truth = table["item_id"][train].reset_index(drop=True), label[unseen]
    prob = probe(mine, own).predict_proba(seen[unseen])[:, 1]
    print(f"{title}: auc {auc(truth, prob):.3f}")
    said: dict[str, list[Promise]] = {"sgkf5": [], "clusters20": []}
    for seed in SEEDS:
        found = fit_clusters(FrozenFeatures(features[train], "", ""), ids, groups, CLUSTERS, seed)
        cluster = found.table["cluster"].to_numpy(np.int64)
        by_group = stratified_group_folds(own, groups, FOLDS, seed)
        by_cluster = deal_clusters(own, cluster, FOLDS, seed, "here")
        said["sgkf5"].append(cross_validated(mine, own, by_group))
        said["clusters20"].append(cross_validated(mine, own, by_cluster))
    for name, promises in said.items():
        areas = [one.auc for one in promises]
        came = [macro_f1(truth, (prob >= one.threshold).astype(np.int64)) for one in promises]
        print(
            f"  {name}: auc {np.mean(areas):.3f} ({min(areas):.3f} to {max(areas):.3f}), macro-F1 "
            f"{np.mean([one.macro_f1 for one in promises]):.3f}, at its threshold came "
            f"{np.mean(came):.3f}",
            flush=True,
        )


def main(name: str, models: list[str]) -> None:
    """Print all worlds of a data set, model by model."""
    dataset = load_dataset(name)
    folds = deal_folds(dataset, default_scheme(dataset)).folds
    folds = folds.sort_values("item_id", ignore_index=True)
    table, domain = job_table(dataset.train, folds), folds["domain"].to_numpy(str)
    domains, counts = np.unique(domain, return_counts=True)
    largest = domains[counts.argmax()]
    for model in models:
        options = Options(device="cpu", workers=0)
        features = frozen_features(dataset, options, model)(table).features
        for one in domains:
            words = f"{model}, {one} unseen, trained on"
            print_world(f"{words} the others", features, table, domain != one, domain == one)
            if one != largest:
                known = domain == largest
                print_world(f"{words} {largest}", features, table, known, domain == one)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
