"""Fold schemes: their names; and leave-one-domain-out, where fold k holds out domain k."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src.artifacts.folds import CLUSTERS
from src.data.items.manifest import Dataset
from src.errors import UserError

FIXED = "fixed"
LODO = "lodo"
UNSCANNED = "_unscanned"
_STRATIFIED = re.compile(r"^sgkf(\d{1,3})_s(\d{1,9})$")
_CLUSTERED = re.compile(rf"^{CLUSTERS}(\d{{1,5}})(?:x(\d{{1,3}}))?_s(\d{{1,9}})$")
_N_CLUSTERS = 20  # as the winners of Inclusion 2024 took (JTGroup, arXiv 2412.20833)
_N_FOLDS = 5  # of a name that does not say it
FORMS = (
    "sgkf<k>_s<seed>, such as sgkf5_s42 (5 folds, seed 42); fixed (the CSV's fold column, "
    "or train/ and val/ as they stand); "
    "lodo (leave one domain out); clusters<k>_s<seed>, such as clusters20_s42 (whole clusters of "
    "the items' features are held out; 20 of them, 5 folds, seed 42; clusters20x3_s42 has 3 folds; "
    f"clusters alone is clusters20_s42); each but clusters with {UNSCANNED} at its end (made "
    "without opening a file, so copies are not kept together)"
)
LEFT_OUT = -2  # of a group that belongs to the fold of another domain
SPANNING = "its group spans domains and is held out with "
_NO_DOMAIN = "(none)"
_WAY_OUT = (
    "name the domains by folders (<domain>/real/, <domain>/fake/), by a `domain` column, or by "
    "`combine:` or `subfolders: domain` in dataset.yaml"
)


def default_scheme(dataset: Dataset) -> str:
    """Return `fixed` where the CSV brings folds, else `sgkf5_s42` or what dataset.yaml says."""
    if dataset.given_folds is not None and not dataset.from_splits:
        return FIXED
    return f"sgkf{dataset.config.n_folds}_s{dataset.config.seed}"


def is_scanned(scheme: str) -> bool:
    """Return whether a scheme's folds know which files are unreadable, equal or alike."""
    return not scheme.endswith(UNSCANNED)


def is_lodo(scheme: str) -> bool:
    """Return whether a scheme holds out a domain a fold."""
    return scheme.removesuffix(UNSCANNED) == LODO


def number_of_clusters(scheme: str) -> int:
    """Return how many clusters a scheme makes: 20 of `clusters20_s42`, 0 of all others."""
    match = _CLUSTERED.match(scheme)
    return int(match[1]) if match else 0


def clusters_name(k: int, n_folds: int, seed: int) -> str:
    """Return the name of a scheme of k clusters."""
    return f"{CLUSTERS}{k}{'' if n_folds == _N_FOLDS else f'x{n_folds}'}_s{seed}"


def full_name(
    dataset: Dataset, scheme: str, n_folds: int | None = None, seed: int | None = None
) -> str:
    """Return a scheme under the one name that it has: `clusters` alone gets its numbers.

    They are those given, else those of dataset.yaml.
    """
    match = _CLUSTERED.match(scheme)
    if match:
        return clusters_name(int(match[1]), int(match[2] or _N_FOLDS), int(match[3]))
    if scheme != CLUSTERS:
        return scheme
    own = dataset.config
    return clusters_name(_N_CLUSTERS, n_folds or own.n_folds, own.seed if seed is None else seed)


def parse_scheme(dataset: Dataset, scheme: str) -> tuple[int, int] | None:
    """Return (number of folds, seed) of a scheme, None for `fixed` and `lodo`.

    Raises:
        UserError: no such form, fewer than 2 folds, fewer clusters than folds, or `fixed` without
            given folds.
    """
    whole, scheme = scheme, full_name(dataset, scheme.removesuffix(UNSCANNED))
    if scheme == FIXED:
        if dataset.given_folds is None:
            raise UserError(
                f"scheme fixed wants a fold column in the label CSV of {dataset.root}, or "
                "a train and a val of both classes, and there is neither "
                "(dataset.yaml can name the column: `fold_column: NAME`)"
            )
        return None
    if scheme == LODO:
        return None
    match = _STRATIFIED.match(scheme)
    if match is not None and int(match[1]) > 1:
        return int(match[1]), int(match[2])
    match = _CLUSTERED.match(scheme)
    if match is None:
        raise UserError(f"unknown scheme {whole!r}; its forms are: {FORMS}")
    k, n_folds, seed = int(match[1]), int(match[2] or _N_FOLDS), int(match[3])
    if not is_scanned(whole):
        raise UserError(
            f"{whole}: clusters are made of what the pictures show, so every file is opened; take "
            f"{whole.removesuffix(UNSCANNED)}"
        )
    if not 2 <= n_folds <= k:
        other = clusters_name(max(k, 4 * n_folds), max(2, n_folds), seed)
        raise UserError(
            f"{whole}: {k} clusters and {n_folds} folds; each of two folds or more holds out at "
            f"least one whole cluster: take {other}"
        )
    return n_folds, seed


def domain_folds(
    labels: NDArray[np.int64], domains: pd.Series, groups: NDArray[np.int64], where: Path
) -> NDArray[np.int64]:
    """Return the fold of each item, int64 (n,): 0..k-1, -1 always trained on, or `LEFT_OUT`.

    A domain is "" where unknown; `where` is the data set's folder. There is a fold a domain that
    holds fakes, in the order of their names. A domain of reals only is no fold: its reals go by
    group to the folds of domains of fakes only, in proportion to their fakes; where there are none,
    they are always trained on (-1). A group that spans several such domains belongs to the one with
    most of its items (on a tie the one with the fewest items so far, then the first by name); its
    items of the others are left out, for they could be in no fold without a leak.

    Raises:
        UserError: fakes without a domain, fewer than two domains with fakes, or a fold of one class
            only; names and counts them.
    """
    names = domains.where(domains != "", _NO_DOMAIN).to_numpy(object)
    held_out = sorted(set(names[labels == 1]))
    _check_domains(labels, names, held_out, where)
    number = pd.Index(held_out).get_indexer(pd.Index(names))  # -1: a domain of reals only
    with_reals = set(names[labels == 0])
    borrowers = [k for k, name in enumerate(held_out) if name not in with_reals]
    owner = _owners(number, groups, len(held_out))
    folds = np.where((number < 0) | (number == owner[groups]), owner[groups], LEFT_OUT)
    folds = _lend(folds, labels, groups, borrowers)
    _check_folds(labels, folds, held_out, where)
    return folds


def held_out_domains(folds: pd.DataFrame) -> list[str]:
    """Return for folds 0..k-1 of a `lodo` fold file which domain each holds out."""
    fakes = folds[(folds["fold"] >= 0) & (folds["label"] == 1)]
    return [str(part["domain"].iloc[0]) for _, part in fakes.groupby("fold")]


def spanning(folds: pd.DataFrame) -> pd.DataFrame:
    """Return `item_id, reason` of the items (`LEFT_OUT`) whose group belongs to another fold."""
    left = folds[folds["fold"] == LEFT_OUT]
    scored = folds[folds["fold"] >= 0]
    fold_of = scored.drop_duplicates("group").set_index("group")["fold"]
    domain_of = dict(enumerate(held_out_domains(folds)))
    owners = left["group"].map(fold_of).map(domain_of)
    reasons = SPANNING + owners
    return pd.DataFrame({"item_id": left["item_id"], "reason": reasons}, dtype=object)


def by_domain_alone(own: pd.DataFrame, excluded: pd.DataFrame, train: pd.DataFrame) -> pd.DataFrame:
    """Return `item_id, fold` of a split that looks at domains and at no group.

    `own` is the scored data set's part of a `lodo` fold file, `excluded` what it leaves out.
    """
    left = excluded["item_id"][excluded["reason"].str.startswith(SPANNING)]
    rows = train[train["item_id"].isin(left)]
    number = {name: fold for fold, name in enumerate(held_out_domains(own))}
    lent = pd.DataFrame({"item_id": rows["item_id"], "fold": rows["domain"].map(number)})
    return pd.concat([own[["item_id", "fold"]], lent], ignore_index=True)


def _check_domains(
    labels: NDArray[np.int64], names: NDArray[np.object_], held_out: list[str], where: Path
) -> None:
    nameless = int(((names == _NO_DOMAIN) & (labels == 1)).sum())
    if nameless:
        raise UserError(
            f"{where}: scheme lodo wants a domain for each fake, and {nameless} of "
            f"{int(labels.sum())} have none; {_WAY_OUT}"
        )
    if len(held_out) < 2:
        counts = pd.Series(names).value_counts().sort_index()
        found = ", ".join(f"{name} ({count} items)" for name, count in counts.items())
        raise UserError(
            f"{where}: scheme lodo wants two or more domains that hold fakes, and there is "
            f"{len(held_out)}: {found}; {_WAY_OUT}"
        )


def _owners(number: NDArray[np.intp], groups: NDArray[np.int64], n_folds: int) -> NDArray[np.int64]:
    """Return the fold of each group, -1 for groups of reals that domains only lend."""
    owner = np.full(groups.max(initial=-1) + 1, -1, np.int64)
    inside = number >= 0
    counts = pd.crosstab(groups[inside], number[inside]).reindex(columns=range(n_folds))
    table = counts.fillna(0).to_numpy(np.int64)
    ids = counts.index.to_numpy(np.int64)
    single = (table > 0).sum(1) == 1
    owner[ids[single]] = table[single].argmax(1)
    filled = table[single].sum(0)
    # The largest first, that the small ones even it out.
    rest = np.flatnonzero(~single)
    for row in rest[np.argsort(-table[rest].sum(1), kind="stable")]:
        most = np.flatnonzero(table[row] == table[row].max())
        best = int(most[np.argmin(filled[most])])
        owner[ids[row]] = best
        filled[best] += table[row, best]
    return owner


def _lend(
    folds: NDArray[np.int64],
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    borrowers: list[int],
) -> NDArray[np.int64]:
    """Spread the groups of reals that no fold owns over the folds without reals of their own."""
    free = folds == -1
    if not borrowers or not free.any():
        return folds
    folds = folds.copy()
    ids, sizes = np.unique(groups[free], return_counts=True)
    fakes = np.array([max(1, int(((folds == k) & (labels == 1)).sum())) for k in borrowers])
    reals = np.array([int(((folds == k) & (labels == 0)).sum()) for k in borrowers], np.float64)
    chosen = np.empty(groups.max() + 1, np.int64)
    for row in np.argsort(-sizes, kind="stable"):
        best = int(np.argmin((reals + sizes[row]) / fakes))
        chosen[ids[row]] = borrowers[best]
        reals[best] += sizes[row]
    folds[free] = chosen[groups[free]]
    return folds


def _check_folds(
    labels: NDArray[np.int64], folds: NDArray[np.int64], held_out: list[str], where: Path
) -> None:
    poor = []
    for k, name in enumerate(held_out):
        reals, fakes = (int(((folds == k) & (labels == label)).sum()) for label in (0, 1))
        if not reals or not fakes:
            poor.append(f"{name} ({reals} real, {fakes} fake)")
    if poor:
        left = int((folds == LEFT_OUT).sum())
        spans = f", {left} items left out for their group spans domains" if left else ""
        raise UserError(
            f"{where}: scheme lodo wants both classes in each held-out domain; these would have "
            f"one: {', '.join(poor)}{spans}; add reals in a domain of their own (or none), which "
            "are then spread over such folds, or leave such a domain's files aside in dataset.yaml "
            "(`ignore:`)"
        )
