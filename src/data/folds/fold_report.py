"""How a fold file came out, what copies there are, and what plain folds would have leaked."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src import paths
from src.artifacts.clusters import Clusters, read_clusters
from src.artifacts.files import read_csv
from src.artifacts.folds import EXCLUDED_COLUMNS
from src.artifacts.label_names import LabelNames
from src.data.folds.groups import Components, GroupReport, find_components, report_groups
from src.data.folds.near_duplicates import Looks, find_looks
from src.data.folds.scan import scan_for
from src.data.folds.schemes import (
    by_domain_alone,
    held_out_domains,
    is_lodo,
    number_of_clusters,
    parse_scheme,
)
from src.data.items.manifest import Dataset

Survey = tuple[pd.DataFrame, Looks]  # a scan, and the look-alikes in it


@dataclass(frozen=True)
class Leak:
    """What plain folds would leak for one reason."""

    reason: str  # `equal files`, `look-alikes`, `given groups`, `any of these`
    items: int  # train items with a relative in another plain fold
    share: float  # of the train items, 0..1


@dataclass(frozen=True)
class FoldReport:
    """How a fold file came out."""

    scheme: str  # its name
    path: Path  # the file
    folds: pd.DataFrame  # as `read_folds` gives it
    excluded: pd.DataFrame  # `item_id, reason` of what was left out
    groups: GroupReport  # copies found
    # what StratifiedKFold with the same k and seed (or the given folds) would leak
    leaks: list[Leak]
    plain: str  # what `leaks` is about: "StratifiedKFold", or "the given folds"
    labels: LabelNames = field(default_factory=LabelNames)  # what its classes are called
    domains: tuple[str, ...] = ()  # of scheme `lodo`, the domain that each fold holds out
    clusters: Clusters | None = None  # of scheme `clusters`, what its folds were dealt by
    warnings: tuple[str, ...] = ()  # of the data set: what may belong together and is not known to


def report_folds(dataset: Dataset, scheme: str, folds: pd.DataFrame) -> FoldReport:
    """Return the report of a fold file that exists."""
    path = paths.excluded_csv(dataset.name, scheme)
    excluded = pd.DataFrame(columns=pd.Index(EXCLUDED_COLUMNS))
    if path.exists():
        excluded = read_csv(path, EXCLUDED_COLUMNS, what="list of excluded items")
    scan = scan_for(dataset, scheme)
    clusters = None
    if number_of_clusters(scheme) and paths.clusters_csv(dataset.name, scheme).exists():
        clusters = read_clusters(dataset.name, scheme)
    return make_report(dataset, scheme, folds, excluded, (scan, find_looks(scan)), clusters)


def report_copies(dataset: Dataset, scan: pd.DataFrame) -> GroupReport | None:
    """Report on the copies among readable items, without making folds; None without any."""
    usable = (scan["error"] == "") & (scan["split"] == "train")
    usable &= ~scan["item_id"].isin(dataset.extra_ids)
    if not usable.any():
        return None
    return _study(dataset, scan, find_looks(scan), np.flatnonzero(usable))[0]


def plain_folds(labels: NDArray[np.int64], n_folds: int, seed: int) -> NDArray[np.int64]:
    """Return the folds that StratifiedKFold gives without any group, int64 (n,)."""
    from sklearn.model_selection import StratifiedKFold  # slow to import, needed once

    folds = np.empty(len(labels), np.int64)
    splitter = StratifiedKFold(n_folds, shuffle=True, random_state=seed)
    for fold, (_, held_out) in enumerate(splitter.split(labels, labels)):
        folds[held_out] = fold
    return folds


def find_leaks(components: Components, folds: NDArray[np.int64]) -> list[Leak]:
    """Count the items whose relatives stand in another of the given folds."""
    leaks = []
    for reason, component in (
        ("equal files", components.exact),
        ("look-alikes", components.near),
        ("given groups", components.given),
        ("any of these", components.joint),
    ):
        spread = pd.Series(folds).groupby(component).transform("nunique") > 1
        count = int(spread.sum())
        leaks.append(Leak(reason, count, count / max(len(folds), 1)))
    return leaks


def make_report(
    dataset: Dataset,
    scheme: str,
    folds: pd.DataFrame,
    excluded: pd.DataFrame,
    survey: Survey,
    clusters: Clusters | None = None,
) -> FoldReport:
    """Return the report of a fold file and of what it leaves out (`item_id, reason`)."""
    own = folds if not dataset.extra_ids else folds[~folds["item_id"].isin(dataset.extra_ids)]
    domains: tuple[str, ...] = ()
    if is_lodo(scheme):  # against a split by domain that sees no group
        plain, domains = by_domain_alone(own, excluded, dataset.train), tuple(held_out_domains(own))
        ids, places = plain["item_id"], plain["fold"].to_numpy(np.int64)
        name = "a split by domain alone"
    else:
        parsed, ids = parse_scheme(dataset, scheme), own["item_id"]
        labels = own["label"].to_numpy(np.int64)
        places = own["fold"].to_numpy() if parsed is None else plain_folds(labels, *parsed)
        name = "the given folds" if parsed is None else "StratifiedKFold"
    rows = pd.Index(dataset.train["item_id"]).get_indexer(pd.Index(ids))
    groups, components = _study(dataset, *survey, rows)
    return FoldReport(
        scheme=scheme,
        path=paths.folds_csv(dataset.name, scheme),
        folds=folds,
        excluded=excluded,
        groups=groups,
        leaks=find_leaks(components, places),
        plain=name,
        labels=dataset.labels,
        domains=domains,
        clusters=clusters,
        warnings=tuple(note for note in dataset.notes if note.startswith("WARNING")),
    )


def _study(
    dataset: Dataset, scan: pd.DataFrame, looks: Looks, train: NDArray[np.intp]
) -> tuple[GroupReport, Components]:
    """Report on the copies among these train items (rows of the manifest) and the test items."""
    rows = np.append(train, np.flatnonzero(scan["split"] == "test"))
    n = len(train)
    both, near = scan.iloc[rows].reset_index(drop=True), looks.take(rows)
    components = find_components(both[:n], dataset.items["group"].iloc[train], near.take(slice(n)))
    labels = dataset.items["label"].iloc[train].astype("int64")
    return report_groups(both, labels, components, near), components
