"""Metadata audit: can the label be told from files that nobody has decoded, and by what?"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import joblib
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src.artifacts.files import write_csv
from src.data.audit.fields import FIELDS, PATTERN, Field, fields_of
from src.data.audit.texts import Value, without_rare_words
from src.data.audit.trees import (
    DEPTH,
    Labels,
    Splits,
    auc_and_spread,
    cross_fit_field,
    cross_fit_tree,
    fewest_in_leaf,
    fit_tree,
    make_columns,
    make_splits,
    rule_of_field,
    rules_of_tree,
)
from src.data.items.manifest import Dataset
from src.errors import UserError
from src.machine import cpu_count
from src.metrics import auc
from src.progress import track

MOST_ITEMS = 20_000  # whole groups are drawn at random where a data set holds more
FEWEST_GROUPS = 10  # below this neither an AUC nor its interval would mean anything
WORTH_SAYING = 0.55
SURE = 3.5  # standard errors above 0.5; some fifty fields are looked at, so two would not do
MOST_DOMAINS = 8
BATCH = 128
_WIDTH = 2 * 1.96  # of a 95 % interval, in standard errors


@dataclass(frozen=True)
class Tell:
    """What one field gives away.

    Attributes:
        field: which.
        auc: of P(fake) by this field alone, on groups that were not learnt from.
        interval: 95 %, bootstrap by group.
        rule: where it speaks for a fake, in words; "" where nowhere.
        inside, outside: share of fakes where the rule holds, and elsewhere.
    """

    field: Field
    auc: float
    interval: tuple[float, float]
    rule: str
    inside: float
    outside: float


@dataclass(frozen=True)
class Part:
    """The audit of some of the items.

    Attributes:
        name: which.
        items, fakes, groups: how many there are.
        unjudged: why there is no AUC; "" where there is one.
        auc: of P(fake) by a small tree on all fields, on groups that were not learnt from.
        interval: 95 %, bootstrap by group.
        rules: of that tree, fitted to all: its leaves that speak for a fake.
        tells: fields that surely tell the label, the best first.
        prob: P(fake) of each item; empty where unjudged.
    """

    name: str
    items: int
    fakes: int
    groups: int
    unjudged: str
    auc: float
    interval: tuple[float, float]
    rules: list[str]
    tells: list[Tell]
    prob: NDArray[np.float64]

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
    parts: list[Part]


def audit_dataset(dataset: Dataset, seed: int = 0) -> Audit:
    """Read the headers of the train items and try to tell fakes by them.

    Args:
        dataset: the data set; extra data sets are looked at too, they are trained on.
        seed: of the draw of items, the folds and the bootstrap.

    Raises:
        UserError: no train items, or a file has vanished.
    """
    train = dataset.train
    if train.empty:
        raise UserError(f"{dataset.root} has no train items, so there is no label to tell")
    rng = np.random.default_rng(seed)
    own = "\0" + train["item_id"]  # no group of the data set is called that
    group = pd.factorize(train["group"].where(train["group"] != "", own))[0]
    rows = _draw_groups(group, MOST_ITEMS, rng)
    items, group = train.iloc[rows].reset_index(drop=True), group[rows]
    found = _read_all(dataset.root, items)
    good = np.array([one is not None for one in found])
    items, group = items[good].reset_index(drop=True), group[good]
    table = pd.DataFrame(
        [one for one in found if one is not None],
        columns=pd.Index([field.name for field in FIELDS]),
    )
    label = items["label"].to_numpy(np.int64)
    parts = [
        audit_part(name, table[chosen], label[chosen], group[chosen], seed)
        for name, chosen in _parts(items)
    ]
    table.insert(0, "item_id", items["item_id"])
    table.insert(1, "label", label)
    return Audit(
        table=table,
        total=len(train),
        unreadable=int((~good).sum()),
        named=bool((items["group"] != "").any()),
        parts=parts,
    )


def audit_part(name: str, table: pd.DataFrame, label: Labels, group: Labels, seed: int = 0) -> Part:
    """Audit some items.

    Args:
        name: for people.
        table: a column a field of `FIELDS`.
        label: (n,) 0/1.
        group: (n,) codes; a group stays in one fold.
        seed: of folds and bootstrap.
    """
    n_groups = len(np.unique(group))
    about = {"name": name, "items": len(label), "fakes": int(label.sum()), "groups": n_groups}
    splits = make_splits(label, group, seed) if n_groups >= FEWEST_GROUPS else []
    if not splits:
        why = _why_unjudged(label, group)
        half = (0.5, 0.5)
        return Part(
            **about, unjudged=why, auc=0.5, interval=half, rules=[], tells=[], prob=np.empty(0)
        )
    short = without_rare_words(table[PATTERN].tolist(), fewest_in_leaf(len(table)))
    table = table.assign(**{PATTERN: short})
    fields = [field for field in FIELDS if len(table[field.name].unique()) > 1]
    matrix, columns = make_columns(table, fields)
    prob = cross_fit_tree(matrix, label, splits, DEPTH)
    rng = np.random.default_rng(seed)
    area, spread = auc_and_spread(label, prob, group, rng)
    rules = rules_of_tree(fit_tree(matrix, label, DEPTH), columns, matrix) if columns else []
    tells = [_tell(table, field, label, group, splits, rng) for field in fields]
    found = [tell for tell in tells if tell is not None]
    return Part(
        **about,
        unjudged="",
        auc=area,
        interval=spread,
        rules=rules,
        tells=sorted(found, key=lambda tell: -tell.auc),
        prob=prob,
    )


def write_audit(path: Path, audit: Audit) -> None:
    """Write `item_id, label`, the fields, and `prob` by the tree on all, sorted by item_id."""
    table = audit.table
    if len(audit.parts[0].prob):
        table = table.assign(prob=audit.parts[0].prob)
    write_csv(path, table.sort_values("item_id", kind="stable"))


def _tell(
    table: pd.DataFrame,
    field: Field,
    label: Labels,
    group: Labels,
    splits: Splits,
    rng: np.random.Generator,
) -> Tell | None:
    prob = cross_fit_field(table, field, label, splits)
    if auc(label, prob) < WORTH_SAYING:
        return None
    area, spread = auc_and_spread(label, prob, group, rng)
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
    asked = list(zip(items["path"], items["item_id"], items["bytes"].astype(int), strict=True))
    batches = [asked[i : i + BATCH] for i in range(0, len(asked), BATCH)]
    run = joblib.Parallel(n_jobs=cpu_count(), prefer="threads", return_as="generator")
    done = cast(
        Iterator[list[dict[str, Value] | None]],
        run(joblib.delayed(_read_many)(root, batch) for batch in batches),
    )
    with warnings.catch_warnings():  # here, once: filters are shared by all threads
        warnings.simplefilter("ignore")  # odd EXIF and huge pictures are not this matter
        parts = list(track(done, "headers", total=len(batches), unit=f"x{BATCH} files"))
    return [one for part in parts for one in part]


def _read_many(root: Path, asked: Sequence[tuple[str, str, int]]) -> list[dict[str, Value] | None]:
    return [fields_of(root, path, item_id, size) for path, item_id, size in asked]
