"""What the columns of a table say: labels, splits, groups, domains and folds."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from src.data.items.dataset_yaml import DatasetConfig, offer
from src.data.items.places import without_suffix
from src.data.items.tables import is_empty
from src.data.items.words import NONE, LabelMap, make_label_map, make_split_map, normalise
from src.errors import UserError, unknown_name

KNOWN = {
    "id": (
        "item_id", "id", "filename", "file_name", "file", "image_id", "image", "image_name", "img",
        "image_path", "path", "filepath", "file_path", "video", "video_name", "name", "uuid",
        "index"),
    "label": ("label", "labels", "target", "class", "is_fake", "fake", "label_str", "y"),
    "group": (
        "group", "group_id", "original", "original_id", "original_video", "source_video", "video",
        "video_id", "subject", "subject_id", "identity", "person", "person_id", "user", "user_id",
        "client", "client_id", "actor", "actor_id", "participant", "participant_id"),
    "domain": ("domain", "dataset", "generator", "attack", "attack_type"),
    "fold": ("fold", "kfold", "fold_id"),
    # Where every value is the word of a split.
    "split": ("split", "set", "subset", "partition", "phase"),
}  # fmt: skip
# Of labels, in these 1 means real.
MEANS_REAL = frozenset({"is_real", "real", "is_live", "live", "genuine", "bonafide"})
# Of groups, these name another item: the real one that a fake was made from.
ORIGINAL_COLUMNS = frozenset({"original", "original_id", "original_video", "source_video"})
# Of these some are values too: a header of `real` or `video` alone proves nothing.
_HEADERS = {name for what in KNOWN if what != "split" for name in KNOWN[what]} - {"fake", "video"}
NUMBERS = frozenset(("0", "1", "0.0", "1.0"))
_MOST_UNREAD = 5  # columns that a note names
_MOST_SPLITS = 8  # values of a column that may be splits


def is_header(cells: list[str]) -> bool:
    """Tell whether a row holds the name of a column that is known."""
    return any(normalise(cell) in _HEADERS for cell in cells)


def without_absent(config: DatasetConfig, rows: pd.DataFrame) -> DatasetConfig:
    """Return dataset.yaml without the columns that a table lacks: one of test items may do so."""
    keys = [f"{what}_column" for what in ("id", "label", "group", "domain", "fold")]
    absent = [key for key in keys if getattr(config, key) not in rows.columns]
    return replace(config, **dict.fromkeys(absent))


def read_splits(
    where: str, rows: pd.DataFrame, config: DatasetConfig
) -> tuple[str | None, pd.Series | None]:
    """Return the column whose values are splits, and them (`train`, `val`, `test`) by row.

    Raises:
        UserError: a value that is no split's word, in a column called so.
    """
    given = {config.id_column, config.label_column, config.group_column,
             config.domain_column, config.fold_column}  # fmt: skip
    for column in candidates(where, rows, "split", config):
        if column in given:
            continue
        words = list(dict.fromkeys(rows[column]))
        splits = make_split_map(config.splits, (), words)
        read = {word: splits.read(word)[0] for word in words}
        read |= {w: ("train",) for w in words if splits.of_given(w) == NONE}
        unknown = [word for word in words if len(read[word]) != 1]
        if not unknown:
            return column, rows[column].map(lambda word, read=read: read[word][0])
        if unknown == words and not 1 < len(words) <= _MOST_SPLITS:
            continue
        row = int((rows[column] == unknown[0]).to_numpy().argmax())
        way = offer("splits", dict.fromkeys(unknown[:_MOST_SPLITS], "train|val|test|none"))
        raise UserError(
            f"{where}: {rows.index[row]}: {column} is {unknown[0]!r}; which split is that? Say in "
            f"dataset.yaml: {way} (none: it says no split)"
        )
    return None, None


def read_labels(
    where: str, rows: pd.DataFrame, columns: list[str], config: DatasetConfig
) -> tuple[str, pd.Series]:
    """Read 0/1 from the columns that may hold labels; returns which one does, and them by row.

    Raises:
        UserError: a value that is not understood, columns that contradict each other, or one
            whose name says that 1 is real.
    """
    numbers = NUMBERS & set(rows[columns[0]])
    if not config.labels and numbers and normalise(columns[0]) in MEANS_REAL:
        raise UserError(
            f"{where}: does 1 in column {columns[0]!r} mean real? Say so in dataset.yaml: "
            "`labels: {1: 0, 0: 1}` (0 is real and 1 is fake on the right)"
        )
    return _labels(where, rows, columns, make_label_map(config.labels))


def _labels(
    where: str, rows: pd.DataFrame, columns: list[str], words: LabelMap
) -> tuple[str, pd.Series]:
    """Read the labels from the candidate columns, which must not contradict each other."""
    parsed = {column: rows[column].map(words.get) for column in columns}
    whole = [column for column in columns if not parsed[column].isna().any()]
    if not whole:
        column = columns[0]
        bad = int(parsed[column].isna().to_numpy().argmax())
        raise UserError(
            f"{where}: {rows.index[bad]}: {column} is {rows[column].iloc[bad]!r}, want "
            f"{words.wanted()}{words.offer(rows[column])}"
        )
    first = whole[0]
    for other in whole[1:]:
        differ = parsed[first].to_numpy() != parsed[other].to_numpy()
        if differ.any():
            bad = int(differ.argmax())
            numbers = [turned_round(rows[column]) for column in (first, other)]
            # Words say what they mean, numbers may be the other way round.
            sure = [c for c, number in zip((first, other), numbers, strict=True) if not number]
            ways = [f"`label_column: {column}`" for column in sure or (first, other)]
            raise UserError(
                f"{where}: {rows.index[bad]}: {first} is {rows[first].iloc[bad]!r} and {other} is "
                f"{rows[other].iloc[bad]!r}: they contradict each other (0 is real, 1 is fake); "
                f"say in dataset.yaml which holds: {' or '.join(ways)}{max(numbers)}"
            )
    return first, parsed[first].astype("int8")


def turned_round(values: Iterable[str]) -> str:
    """Offer to read a table's 1 as real; "" where it says labels in words alone."""
    if not NUMBERS & set(values):
        return ""
    return "; if 1 means real in the table: `labels: {1: 0, 0: 1}`"


def candidates(where: str, rows: pd.DataFrame, what: str, config: DatasetConfig) -> list[str]:
    """Return the columns that could be meant, best first; just the one that dataset.yaml names.

    Args:
        where: the table, for messages.
        rows: its rows.
        what: `id`, `label`, `group`, `domain`, `fold` or `split`.
        config: what `dataset.yaml` says.
    """
    key = f"{what}_column"
    given = getattr(config, key, None)
    if given is not None:
        if given not in rows.columns:
            raise unknown_name(f"column ({key} in dataset.yaml) of {where}:", given, rows.columns)
        return [given]
    columns = {normalise(name): name for name in rows.columns}
    return [columns[name] for name in KNOWN[what] if name in columns]


@dataclass(frozen=True)
class Further:
    """What a table says beside names and labels, by row.

    Attributes:
        groups, domains: "" where it says nothing.
        folds: None where it says nothing.
        columns: `groups`, `domains`, `folds` -> the column that says so.
        notes: which columns nobody reads.
    """

    groups: list[str]
    domains: list[str]
    folds: Sequence[int | None]
    columns: dict[str, str]
    notes: list[str]


def read_further(
    where: str, rows: pd.DataFrame, ids: Sequence[str], config: DatasetConfig, taken: set[str]
) -> Further:
    """Read the columns of groups, domains and folds.

    Args:
        where: the file, for messages.
        rows: its rows.
        ids: what each row's item is called, which a column of originals may name.
        config: what `dataset.yaml` says.
        taken: columns that say something else.

    Raises:
        UserError: several could be meant, the given one does not exist, or a fold is none.
    """
    group, domain, fold = (
        _find_column(where, rows, what, config, taken) for what in ("group", "domain", "fold")
    )
    split, splits = read_splits(where, rows, config)
    named = {"groups": group, "domains": domain, "folds": fold}
    groups, domains = (
        [""] * len(rows) if column is None else rows[column].map(_value).tolist()
        for column in (group, domain)
    )
    if group is not None and normalise(group) in ORIGINAL_COLUMNS:
        groups = join_originals(ids, groups)
    folds = rows[fold] if fold is not None else pd.Series(dtype=object)
    if splits is not None:
        folds = folds.where(splits != "test", "-1")  # nobody trains on them
    return Further(
        groups,
        domains,
        [None] * len(rows) if fold is None else _folds(where, folds),
        {what: column for what, column in named.items() if column is not None},
        _unread(where, rows, {*taken, group, domain, fold, split}, group),
    )


def _unread(
    where: str, rows: pd.DataFrame, read: Collection[str | None], group: str | None
) -> list[str]:
    """Say which columns that nobody reads hold values that repeat: people, videos, generators."""
    known = {*KNOWN["id"], *KNOWN["label"]}
    left = [c for c in rows.columns if c not in read and normalise(c) not in known]
    left = [column for column in left if 1 < rows[column].nunique() <= len(rows) / 2]
    if not left:
        return []
    key = "domain_column" if group else "group_column"
    what = "where an item comes from" if group else "whose items belong together (people, videos)"
    named = ", ".join(left[:_MOST_UNREAD]) + " ..." * (len(left) > _MOST_UNREAD)
    return [
        f"{where}: columns that repeat values and are not used: {named}; if one says {what}: "
        f"`{key}: {left[0]}` in dataset.yaml"
    ]


def _find_column(
    where: str, rows: pd.DataFrame, what: str, config: DatasetConfig, taken: set[str]
) -> str | None:
    given = getattr(config, f"{what}_column") is not None
    found = [c for c in candidates(where, rows, what, config) if given or c not in taken]
    if len(found) > 1:
        raise UserError(
            f"{where}: columns {' and '.join(map(repr, found))} could both be meant; say "
            f"which in dataset.yaml: `{what}_column: {found[0]}`"
        )
    return found[0] if found else None


def _value(text: str) -> str:
    return "" if is_empty(text) else text


def join_originals(ids: Sequence[str], originals: Sequence[str]) -> list[str]:
    """Group fakes with each other and with the item that they were made from.

    Args:
        ids: of the items.
        originals: the name of each item's original (with or without suffix), "" if none is given.

    Returns:
        A group name an item, "" for an item that neither names an original nor is one.
    """
    own = [without_suffix(value.rsplit("/", 1)[-1]) for value in ids]
    named = [without_suffix(value.rsplit("/", 1)[-1]) for value in originals]
    from scipy.cluster.hierarchy import DisjointSet  # slow to import, and rarely needed

    sources = set(named) - {""}
    linked = DisjointSet(sources)
    for item, original in zip(own, named, strict=True):
        if original and item in sources:
            linked.merge(item, original)
    leaders = {name: min(part) for part in linked.subsets() for name in part}
    return [leaders.get(original or item, "") for item, original in zip(own, named, strict=True)]


def _folds(where: str, values: pd.Series) -> list[int]:
    numbers = pd.to_numeric(values, errors="coerce")
    bad = (numbers.isna() | (numbers != numbers.round()) | (numbers < -1)).to_numpy()
    if bad.any():
        row = int(bad.argmax())
        raise UserError(
            f"{where}: {values.index[row]}: {values.name} is {values.iloc[row]!r}, want a fold "
            "0..k-1 (or -1: always trained on)"
        )
    return numbers.astype(int).tolist()
