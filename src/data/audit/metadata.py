"""Metadata audit: can the label be told from files that nobody has decoded, and by what?

`find_shortcuts` looks at size, format and shape alone, which a scan has found out already;
`audit_dataset` reads headers and tries all of their fields.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src.artifacts.files import write_csv
from src.data.audit.fields import FIELDS, PATTERN, Field, fields_of
from src.data.audit.headers import Value, without_rare_words
from src.data.audit.trees import (
    Labels,
    Splits,
    cross_fit,
    cross_fit_field,
    fewest_in_leaf,
    fit_tree,
    interval,
    make_columns,
    make_splits,
    rule_of_field,
    rules_of_tree,
)
from src.data.items.manifest import Dataset
from src.errors import UserError
from src.machine import decoding_threads
from src.metrics import auc
from src.progress import track

MOST_ITEMS = 20_000  # whole groups are drawn at random where a data set holds more
FEWEST_GROUPS = 10  # below this neither an AUC nor its interval would mean anything
WORTH_SAYING = 0.55
SURE = 3.5  # standard errors above 0.5; dozens of fields are looked at, so two would not do
MOST_DOMAINS = 8
WORTH_A_WARNING = 0.75  # AUC of a shortcut
_FOLDS = 5  # in which a shortcut's shares are counted
_WIDTH = 2 * 1.96  # of a 95 % interval, in standard errors


@dataclass(frozen=True)
class Shortcut:
    """A property of files that tells labels apart."""

    name: str  # for people
    auc: float  # area under the ROC curve with that property alone, >= 0.5


@dataclass(frozen=True)
class Tell:
    """What one field gives away."""

    field: Field
    auc: float  # of P(fake) by this field alone, on groups that were not learnt from
    interval: tuple[float, float]  # 95 %, bootstrap by group
    rule: str  # where it speaks for a fake, in words; "" where nowhere
    inside: float  # share of fakes where the rule holds
    outside: float  # and elsewhere


@dataclass(frozen=True)
class AuditPart:
    """The audit of some of the items."""

    name: str
    items: int
    fakes: int
    groups: int
    unjudged: str = ""  # why there is no AUC; "" where there is one
    auc: float = 0.5  # of P(fake) by a small tree on all fields, on groups not learnt from
    interval: tuple[float, float] = (0.5, 0.5)  # 95 %, bootstrap by group
    rules: tuple[str, ...] = ()  # of that tree, fitted to all: its leaves that speak for a fake
    tells: tuple[Tell, ...] = ()  # fields that surely tell the label, the best first
    prob: NDArray[np.float64] | None = None  # P(fake) of each item; None where unjudged

    @property
    def found(self) -> bool:
        """Tell whether metadata alone tell the label here."""
        return not self.unjudged and (bool(self.tells) or _is_sure(self.auc, self.interval))


@dataclass(frozen=True)
class Audit:
    """What a metadata audit found."""

    table: pd.DataFrame  # `item_id, label` and the fields of each item looked at
    total: int  # train items there are
    unreadable: int  # items whose header cannot be read; left aside
    named: bool  # whether the data set names groups; else each item counts as one of its own
    # all items, then those of each kind and of each domain, where there are several
    parts: list[AuditPart]


@dataclass(frozen=True)
class Headers:
    """What the headers of some train items say."""

    table: pd.DataFrame  # the fields of `FIELDS` of each item that could be read, RangeIndex
    items: pd.DataFrame  # its rows of the manifest, likewise
    group: Labels  # (n,) codes of its groups
    total: int  # train items there are
    unreadable: int  # items whose header cannot be read; left aside


def read_headers(dataset: Dataset, at_most: int = MOST_ITEMS, seed: int = 0) -> Headers:
    """Read the headers of about `at_most` train items, drawn as whole groups from `seed`.

    Raises:
        UserError: no train items, or a file has vanished.
    """
    train = dataset.train
    if train.empty:
        raise UserError(f"{dataset.root} has no train items, so there is no label to tell")
    rng = np.random.default_rng(seed)
    own = "\0" + train["item_id"]  # no group of the data set is called that
    group = pd.factorize(train["group"].where(train["group"] != "", own))[0]
    rows = _draw_groups(group, at_most, rng)
    items, group = train.iloc[rows].reset_index(drop=True), group[rows]
    found = _read_all(dataset.root, items)
    good = np.array([one is not None for one in found])
    table = pd.DataFrame(
        [one for one in found if one is not None],
        columns=pd.Index([field.name for field in FIELDS]),
    )
    kept = items[good].reset_index(drop=True)
    return Headers(table, kept, group[good], len(train), int((~good).sum()))


def audit_dataset(dataset: Dataset, seed: int = 0) -> Audit:
    """Read the headers of the train items, extra data sets too, and try to tell fakes by them.

    The draw of items, the folds and the bootstrap follow from `seed`; raises as `read_headers`.
    """
    return audit_headers(read_headers(dataset, MOST_ITEMS, seed), seed)


def audit_headers(headers: Headers, seed: int = 0) -> Audit:
    """Try to tell fakes by headers that were read."""
    table, items = headers.table, headers.items
    label = items["label"].to_numpy(np.int64)
    parts = [
        audit_part(name, table[chosen], label[chosen], headers.group[chosen], seed)
        for name, chosen in _parts(items)
    ]
    named = bool((items["group"] != "").any())
    whole = table.copy()
    whole.insert(0, "item_id", items["item_id"])
    whole.insert(1, "label", label)
    return Audit(whole, headers.total, headers.unreadable, named, parts)


def audit_part(
    name: str, table: pd.DataFrame, label: Labels, group: Labels, seed: int = 0
) -> AuditPart:
    """Audit some items: a column a field of `FIELDS`, labels 0/1, codes of groups."""
    n_groups = len(np.unique(group))
    part = AuditPart(name, items=len(label), fakes=int(label.sum()), groups=n_groups)
    splits = make_splits(label, group, seed) if n_groups >= FEWEST_GROUPS else []
    if not splits:
        return replace(part, unjudged=_why_unjudged(label, group))
    short = without_rare_words(table[PATTERN].tolist(), fewest_in_leaf(len(table)))
    table = table.assign(**{PATTERN: short})
    fields = [field for field in FIELDS if len(table[field.name].unique()) > 1]
    matrix, columns = make_columns(table, fields)
    prob, rules = np.full(len(label), 0.5), []
    if columns:
        prob, _ = cross_fit(fit_tree, matrix, label, splits)
        rules = rules_of_tree(fit_tree(matrix, label), columns, matrix)
    rng = np.random.default_rng(seed)
    spread = interval(label, prob, group, rng)
    tells = [_tell(table, field, label, group, splits, rng) for field in fields]
    found = sorted((tell for tell in tells if tell is not None), key=lambda tell: -tell.auc)
    return replace(
        part,
        auc=auc(label, prob),
        interval=spread,
        rules=tuple(rules),
        tells=tuple(found),
        prob=prob,
    )


def write_audit(path: Path, audit: Audit) -> None:
    """Write `item_id, label`, the fields, and `prob` by the tree on all, sorted by item_id."""
    prob = audit.parts[0].prob
    table = audit.table if prob is None else audit.table.assign(prob=prob)
    write_csv(path, table.sort_values("item_id", kind="stable"))


def find_shortcuts(
    dataset: Dataset, scan: pd.DataFrame, at_least: float = WORTH_A_WARNING
) -> list[Shortcut]:
    """Return the properties of train files whose AUC is at least `at_least`, the best first.

    A kind (format, width x height) is scored by its share of fakes in the other folds.
    """
    use = (
        (scan["split"] == "train") & (scan["error"] == "") & (scan["format"] != "video")
    ).to_numpy()
    labels = dataset.items["label"][use].to_numpy(np.int64)
    if len(labels) == 0 or np.bincount(labels, minlength=2).min() < _FOLDS:
        return []
    shape = scan["width"][use].astype(str) + "x" + scan["height"][use].astype(str)
    scores = {
        "the size in bytes": dataset.items["bytes"][use].to_numpy(float),
        "the format": _share_of_fakes(scan["format"][use], labels),
        "width x height": _share_of_fakes(shape, labels),
    }
    aucs = {name: auc(labels, score) for name, score in scores.items()}
    found = [Shortcut(name, max(area, 1 - area)) for name, area in aucs.items()]
    found = [shortcut for shortcut in found if shortcut.auc >= at_least]
    return sorted(found, key=lambda shortcut: -shortcut.auc)


def _share_of_fakes(kinds: pd.Series, labels: Labels) -> NDArray[np.float64]:
    """Return for each item the share of fakes of its kind, counted in the other folds."""
    names = kinds.to_numpy(str)
    fold = np.empty(len(labels), np.int64)
    for label in (0, 1):  # in turn, so that every fold has both classes
        members = np.random.default_rng(0).permutation(np.flatnonzero(labels == label))
        fold[members] = np.arange(len(members)) % _FOLDS
    scores = np.empty(len(labels))
    for held_out in (fold == k for k in range(_FOLDS)):
        shares = pd.Series(labels[~held_out]).groupby(names[~held_out]).mean()
        scores[held_out] = shares.reindex(names[held_out]).fillna(labels[~held_out].mean())
    return scores


def _tell(
    table: pd.DataFrame,
    field: Field,
    label: Labels,
    group: Labels,
    splits: Splits,
    rng: np.random.Generator,
) -> Tell | None:
    prob = cross_fit_field(table, field, label, splits)
    area = auc(label, prob)
    if area < WORTH_SAYING:
        return None
    spread = interval(label, prob, group, rng)
    rule, chosen = rule_of_field(table, field, label)
    if not rule or not _is_sure(area, spread):
        return None
    inside, outside = float(label[chosen].mean()), float(label[~chosen].mean())
    return Tell(field, area, spread, rule, inside, outside)


def _is_sure(area: float, spread: tuple[float, float]) -> bool:
    error = (spread[1] - spread[0]) / _WIDTH
    return area >= WORTH_SAYING and area - SURE * error > 0.5


def _why_unjudged(label: Labels, group: Labels) -> str:
    n_groups = len(np.unique(group))
    if n_groups < FEWEST_GROUPS:
        return (
            f"{n_groups} groups, at least {FEWEST_GROUPS} are needed: with fewer, an AUC and its "
            "interval would be luck"
        )
    real, fake = (len(np.unique(group[label == k])) for k in (0, 1))
    return f"{real} groups with reals, {fake} with fakes; at least 2 of each are needed"


def _parts(items: pd.DataFrame) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    yield "all items", np.ones(len(items), bool)
    if len(items["kind"].unique()) > 1:
        for kind, name in (("image", "images"), ("video", "clips")):
            yield name, (items["kind"] == kind).to_numpy()
    domains = items["domain"].value_counts()
    if 1 < len(domains) <= MOST_DOMAINS:
        for domain in sorted(domains.index):
            yield f"domain {domain or '(none)'}", (items["domain"] == domain).to_numpy()


def _draw_groups(group: Labels, at_most: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Return the rows of whole groups, in order, about `at_most`."""
    if len(group) <= at_most:
        return np.arange(len(group))
    place = rng.permutation(group.max() + 1)[group]
    order = np.argsort(place, kind="stable")
    return np.flatnonzero(place <= place[order[at_most - 1]])


def _read_all(root: Path, items: pd.DataFrame) -> list[dict[str, Value] | None]:
    asked = zip(items["path"], items["item_id"], items["bytes"].astype(int), strict=True)
    with warnings.catch_warnings(), decoding_threads() as pool:
        warnings.simplefilter("ignore")  # here, once: filters are shared by all threads
        done = pool.map(lambda one: fields_of(root, *one), asked)
        return list(track(done, "headers", total=len(items), unit="files"))
