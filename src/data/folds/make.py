"""Folds that cannot leak: made once per data set and scheme, then only read."""

import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src import paths
from src.artifacts.atomic import remove_orphans
from src.artifacts.clusters import Clusters, write_clusters
from src.artifacts.files import read_csv, write_csv
from src.artifacts.folds import (
    CLUSTERS,
    EXCLUDED_COLUMNS,
    existing_scheme,
    read_folds,
    write_folds,
)
from src.artifacts.label_names import write_label_names
from src.data.folds.clusters import FeaturesOf, deal_clusters, fit_clusters
from src.data.folds.fold_report import FoldReport, Survey, make_report
from src.data.folds.groups import find_components
from src.data.folds.near_duplicates import find_looks
from src.data.folds.overlap import find_overlap
from src.data.folds.scan import scan_for
from src.data.folds.schemes import (
    LEFT_OUT,
    default_scheme,
    domain_folds,
    full_name,
    is_lodo,
    number_of_clusters,
    parse_scheme,
    spanning,
)
from src.data.items.identities import is_published
from src.data.items.manifest import Dataset
from src.data.layouts.load import load_dataset
from src.errors import UserError
from src.stratify import stratified_group_folds
from src.texts import Texts

LOG = logging.getLogger("rvf")


class Dealt(NamedTuple):
    """Folds that are not written yet."""

    folds: pd.DataFrame  # columns of a fold file, by item_id
    excluded: pd.DataFrame  # `item_id, reason` of what is left out
    survey: Survey
    clusters: Clusters | None = None  # of scheme `clusters`


def ensure_folds(
    dataset: Dataset, scheme: str | None, features_of: FeaturesOf | None = None
) -> tuple[str, pd.DataFrame, FoldReport | None]:
    """Return a data set's scheme and folds, and the report of a fold file that is made only now.

    Without a `scheme` it is that of the file that exists, else `default_scheme`. `features_of` is
    called where scheme `clusters` is made.

    Raises:
        UserError: several files exist and none was named; a bad name; the file does not fit the
            data set any more; too few groups.
    """
    if scheme is not None:
        parse_scheme(dataset, scheme)
    dataset.require_train()
    remove_orphans(paths.folds_dir(dataset.name))  # no later run writes there any more
    write_label_names(dataset.name, dataset.labels)
    if scheme is not None and scheme != CLUSTERS:
        scheme = full_name(dataset, scheme)
    found = existing_scheme(dataset.name, scheme)
    if found is None:
        wanted = full_name(dataset, scheme or default_scheme(dataset))
        report = make_folds(dataset, wanted, features_of)
        return report.scheme, report.folds, report
    folds = read_folds(paths.folds_csv(dataset.name, found))
    check_fit(dataset, found, folds)
    return found, folds, None


def make_folds(dataset: Dataset, scheme: str, features_of: FeaturesOf | None = None) -> FoldReport:
    """Make a fold file and the list of what it leaves out, and clusters where they are asked for.

    Raises:
        UserError: see `ensure_folds`; also if no train item can be read.
    """
    dealt = deal_folds(dataset, scheme, features_of)
    path = paths.folds_csv(dataset.name, scheme)
    try:
        _write(dataset, scheme, dealt)
    except UserError as error:
        if not (_is_fixed(dataset, scheme) and dataset.from_splits):
            raise
        raise UserError(
            f"{error}; where equal folder names in train and val are chance, say so in "
            "dataset.yaml: `same_names: ignore`; else take folds that are made: `--scheme "
            f"sgkf{dataset.config.n_folds}_s{dataset.config.seed}`"
        ) from None
    made = dealt.excluded, dealt.survey, dealt.clusters
    return make_report(dataset, scheme, read_folds(path), *made)


def deal_folds(dataset: Dataset, scheme: str, features_of: FeaturesOf | None = None) -> Dealt:
    """Deal the items to the folds of a scheme; nothing is written.

    Raises:
        UserError: see `make_folds`.
    """
    scan = scan_for(dataset, scheme)
    looks = find_looks(scan)
    good, excluded = _usable(dataset, scan, scheme)
    items = dataset.items.iloc[good].reset_index(drop=True)
    own = ~items["item_id"].isin(dataset.extra_ids).to_numpy()
    part = scan.iloc[good].reset_index(drop=True)
    components = find_components(part, items["group"], looks.take(good))
    if own.all():
        copied = np.zeros(len(items), bool)
    else:
        copied = ~own & np.isin(components.joint, components.joint[own])
        reasons = pd.DataFrame(
            {
                "item_id": items["item_id"][copied],
                "reason": f"copy of an item of {dataset.name}, which is scored",
            }
        )
        excluded = pd.concat([excluded, reasons]).sort_values("item_id")
    folds, clusters = items[["item_id", "label", "domain", "kind"]].assign(fold=-1), None
    folds["group"] = name_groups(items, components.joint)
    if _is_fixed(dataset, scheme):
        assert dataset.given_folds is not None  # parse_scheme
        folds.loc[own, "fold"] = dataset.given_folds.reindex(items["item_id"][own]).to_numpy()
        # Given folds stand as they are, so look-alikes cannot bind; they are reported instead.
        folds["group"] = name_groups(items, components.given)
    elif number_of_clusters(scheme):
        rows = items[["item_id", "path", "bytes", "label"]].assign(group=folds["group"])
        rows["joint"], rows["own"] = components.joint, own
        in_order = rows[~copied].sort_values("item_id", kind="stable")
        fold, clusters = _by_clusters(dataset, scheme, in_order, features_of)
        folds.loc[fold.index, "fold"] = fold
    else:
        folds.loc[own, "fold"] = _split(dataset, scheme, folds[own], components.joint[own])
        excluded = pd.concat([excluded, spanning(folds)]).sort_values("item_id")
    kept = ~copied & (folds["fold"] != LEFT_OUT).to_numpy()
    return Dealt(folds[kept], excluded, (scan, looks), clusters)


def _is_fixed(dataset: Dataset, scheme: str) -> bool:
    return parse_scheme(dataset, scheme) is None and not is_lodo(scheme)


def _by_clusters(
    dataset: Dataset, scheme: str, rows: pd.DataFrame, features_of: FeaturesOf | None
) -> tuple[pd.Series, Clusters]:
    """Return the fold of each scored item (`own`) by row, and the clusters that were dealt.

    `rows`: `item_id, path, bytes, label, group`, the component `joint`, and `own`; of every item
    of the fold file in its order, so that a run finds the features that were made here.
    """
    parsed = parse_scheme(dataset, scheme)
    assert parsed is not None  # such a name has numbers
    n_folds, seed = parsed
    if features_of is None:
        raise UserError(
            f"scheme {scheme} wants features of a frozen backbone; make its folds first: "
            f"python -m src folds --data {dataset.name} --scheme {scheme}"
        )
    frozen = features_of(rows.drop(columns=["joint", "own"]).assign(fold=-1))
    own = rows["own"].to_numpy(bool)
    mine, component = rows[own], rows["joint"].to_numpy(np.int64)[own]
    if not own.all():
        frozen = frozen._replace(features=frozen.features[own])
    k = number_of_clusters(scheme)
    try:
        clusters = fit_clusters(frozen, mine["item_id"], component, k, seed)
    except UserError as error:
        raise UserError(f"{dataset.root}: scheme {scheme}: {error}") from None
    labels, cluster = (
        column.to_numpy(np.int64) for column in (mine["label"], clusters.table["cluster"])
    )
    fold = deal_clusters(labels, cluster, n_folds, seed, str(dataset.root))
    return pd.Series(fold, mine.index), clusters


def check_fit(dataset: Dataset, scheme: str, folds: pd.DataFrame) -> None:
    """Check that a fold file is about the train items that lie in `input/` now; warn of domains.

    Raises:
        UserError: an item of the file is gone, has another label, or a new item is in no fold.
    """
    path = paths.folds_csv(dataset.name, scheme)
    way_out = (
        f"the data set has changed since its folds were made: put it back, or move {path} away "
        "together with the checkpoints and OOF of that scheme"
    )
    train = dataset.train
    ids, wanted = Texts(train["item_id"]), Texts(folds["item_id"])
    # As long as nothing is left out both are the same column, and nothing is joined or copied.
    same = ids == wanted
    rows = np.arange(0) if same else ids.find(wanted)
    gone = np.flatnonzero(rows < 0)
    if len(gone):
        raise UserError(
            f"{path}: item {wanted[int(gone[0])]!r} is not in {dataset.root} ({len(gone)} such "
            f"items); {way_out}"
        )
    now = train["label"].to_numpy(np.int64)
    now = now if same else now[rows]
    differ = now != folds["label"].to_numpy()
    if differ.any():
        row = int(differ.argmax())
        raise UserError(
            f"{path}: row {row + 2}: item {folds['item_id'].iloc[row]!r} has label "
            f"{folds['label'].iloc[row]}, in {dataset.root} it is {now[row]}; {way_out}"
        )
    domains = Texts(train["domain"]) if same else Texts(train["domain"]).take(rows)
    if domains != Texts(folds["domain"]):
        _warn_of_domains(dataset, path, folds, domains)
    if same:
        return
    known = np.zeros(len(ids), bool)
    known[rows] = True
    excluded = paths.excluded_csv(dataset.name, scheme)
    if excluded.exists():
        table = read_csv(excluded, EXCLUDED_COLUMNS, what="list of excluded items")
        left = ids.find(Texts(table["item_id"]))
        known[left[left >= 0]] = True
    new = np.flatnonzero(~known)
    if len(new):
        raise UserError(
            f"{path}: item {ids[int(new[0])]!r} is in no fold ({len(new)} such items); {way_out}"
        )


def _warn_of_domains(dataset: Dataset, path: Path, folds: pd.DataFrame, domains: Texts) -> None:
    """Warn of items (rows of the fold file) that are of another domain by now."""
    row = next(i for i, (a, b) in enumerate(zip(domains, folds["domain"], strict=True)) if a != b)
    LOG.warning(
        "WARNING %s was made when items were of other domains (%r: %r there, %r now), and "
        "scores by domain go by the file; for others make folds under another name, such as "
        "--scheme sgkf%d_s%d",
        path, folds["item_id"].iloc[row], folds["domain"].iloc[row], domains[row],
        dataset.config.n_folds, dataset.config.seed + 1,
    )  # fmt: skip


def name_groups(items: pd.DataFrame, component: NDArray[np.int64]) -> pd.Series:
    """Name components: by the first given group in them, else by the first item_id."""
    ids, groups = items["item_id"], items["group"]
    by_id = _least(ids, component)
    by_group = _least(groups.where(groups != ""), component)
    # An item_id may look like some other component's group name.
    clash = by_group.isna() & by_id.isin(set(groups.unique()) - {""})
    return by_group.fillna(by_id.where(~clash, "item:" + by_id))


def _least(words: pd.Series, component: NDArray[np.int64]) -> pd.Series:
    """Return for each row the first word in its component, NA where it has none."""
    codes, names = pd.factorize(words.to_numpy(object), use_na_sentinel=True)
    order = np.argsort(names, kind="stable")  # quick on ids, which come sorted
    rank = np.append(np.argsort(order), len(names))  # the last for NA, whose code is -1
    least = np.full(component.max(initial=-1) + 1, len(names))
    np.minimum.at(least, component, rank[codes])
    sorted_names = np.append(names[order], np.array([None], object))
    return pd.Series(sorted_names[least[component]], words.index, dtype=object)


def _usable(
    dataset: Dataset, scan: pd.DataFrame, scheme: str
) -> tuple[NDArray[np.intp], pd.DataFrame]:
    """Return the rows of usable train items, and (item_id, reason) of the others."""
    train = (dataset.items["split"] == "train").to_numpy()
    reason = scan["error"].to_numpy(object).copy()
    for name in dataset.config.test_sets:
        reason[train & (reason == "")] = _shared_with(name, dataset, scheme)[reason[train] == ""]
    bad = train & (reason != "")
    good = np.flatnonzero(train & ~bad)
    if not len(good):
        raise UserError(
            f"{dataset.root}: none of the {train.sum()} train items can be read"
            f"{' and trained on' * bool(dataset.config.test_sets)}, the first is "
            f"{dataset.items['path'][bad].iloc[0]}: {reason[bad][0]}"
        )
    return good, pd.DataFrame({"item_id": dataset.items["item_id"][bad], "reason": reason[bad]})


def _shared_with(name: str, dataset: Dataset, scheme: str) -> NDArray[np.object_]:
    """Return why each train item is not trained on, "" where it is unlike all items of a set."""
    if name == dataset.name:
        raise UserError(f"{dataset.root / 'dataset.yaml'}: test_sets names the data set itself")
    other = load_dataset(name, dataset.root.parent)
    seen = find_overlap(other, None, dataset, dataset.train, scheme).seen
    reason = f"copy of an item of {name} or of its video, which is tested on (`test_sets:`)"
    return np.where(seen, reason, "").astype(object)


def _split(
    dataset: Dataset, scheme: str, items: pd.DataFrame, component: NDArray[np.int64]
) -> NDArray[np.int64]:
    labels = items["label"].to_numpy(np.int64)
    if is_lodo(scheme):
        return domain_folds(labels, items["domain"], component, dataset.root)
    parsed = parse_scheme(dataset, scheme)
    assert parsed is not None  # `fixed` does not come here
    n_folds, seed = parsed
    for label, name in ((0, "real"), (1, "fake")):
        groups = len(np.unique(component[labels == label]))
        if groups < n_folds:
            way_out = (
                f"use fewer folds (--n-folds {groups} with `python -m src folds`, or n_folds in "
                "dataset.yaml)"
                if groups > 1
                else "no cross-validation is possible: add items"
            )
            raise UserError(
                f"{dataset.root}: its {int((labels == label).sum())} {name} items form {groups} "
                f"group{'s' * (groups != 1)}, too few for {n_folds} folds; {way_out}"
                + _hint(items["group"])
            )
    folds = stratified_group_folds(labels, component, n_folds, seed)
    for fold in range(n_folds):
        held_out = labels[folds == fold]
        if len(np.unique(held_out)) < 2:
            raise UserError(
                f"{dataset.root}: groups are so large that fold {fold} of {n_folds} would hold "
                f"{len(held_out)} items and not both classes; use "
                + (f"fewer folds (--n-folds {n_folds - 1}) or " if n_folds > 2 else "")
                + "another seed"
                + _hint(items["group"])
            )
    return folds


def _hint(groups: pd.Series) -> str:
    """Say which group is too large: in Celeb-DF all people are swapped with each other."""
    largest = groups.value_counts()
    name = str(largest.index[0])
    if largest.iloc[0] <= len(groups) / 2:
        return ""
    return f"; group {name!r} alone holds {largest.iloc[0]} of {len(groups)} items" + (
        " (shared identities chain so many: `group_by: video` in dataset.yaml ties a swap to its "
        "clip alone)" if is_published(name) else ""
    )  # fmt: skip


def _write(dataset: Dataset, scheme: str, dealt: Dealt) -> None:
    """Write what lies beside it first: the fold file's presence means that all is there."""
    path = paths.folds_csv(dataset.name, scheme)
    if path.exists():
        return
    excluded_path = paths.excluded_csv(dataset.name, scheme)
    if len(dealt.excluded):
        write_csv(excluded_path, dealt.excluded[EXCLUDED_COLUMNS])
    else:
        excluded_path.unlink(missing_ok=True)
    if dealt.clusters is not None:
        write_clusters(dataset.name, scheme, dealt.clusters)
    try:
        write_folds(path, dealt.folds)
    except UserError:
        if not path.exists():  # else another process made the same file in the meantime
            raise
