"""What the columns of a table say: names, labels, splits, groups, domains and folds."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import pandas as pd

from src.data.items.dataset_yaml import DatasetConfig, offer
from src.data.items.files import without_suffix
from src.data.items.identities import linked
from src.data.items.tables import is_empty
from src.data.items.words import NONE, make_label_map, make_split_map, means_real, normalise
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
    "mask": ("mask", "mask_path", "mask_file", "mask_filename", "mask_name"),
    # Where every value is the word of a split.
    "split": ("split", "set", "subset", "partition", "phase"),
}  # fmt: skip
# Of groups, these name another item: the real one that a fake was made from.
ORIGINAL_COLUMNS = frozenset({"original", "original_id", "original_video", "source_video"})
# Of these some are values too: a header of `real` or `video` alone proves nothing.
_HEADERS = {name for what in KNOWN if what not in ("split", "mask") for name in KNOWN[what]} - {
    "fake",
    "video",
}
NUMBERS = frozenset(("0", "1", "0.0", "1.0"))
_MOST_UNREAD = 5  # columns that a note names
_MOST_SPLITS = 8  # values of a column that may be splits


def is_header(cells: list[str]) -> bool:
    """Tell whether a row holds the name of a column that is known."""
    return any(normalise(cell) in _HEADERS for cell in cells)


@dataclass(frozen=True)
class Further:
    """What a table says beside names and labels, by row."""

    groups: list[str]  # "" where it says nothing
    domains: list[str]  # likewise
    folds: Sequence[int | None]
    columns: dict[str, str]  # `groups`, `domains`, `folds` -> the column that says so
    notes: list[str]  # which columns nobody reads


@dataclass(frozen=True)
class Table:
    """A table as read, and what dataset.yaml says of its columns."""

    where: str  # the file, for messages
    # every value a string; the index is what a message calls the row (`row 7`, `entry 'x.mp4'`)
    rows: pd.DataFrame
    config: DatasetConfig

    @property
    def name(self) -> str:
        """Return the name of the file."""
        return PurePosixPath(self.where).name

    def at(self, row: int) -> str:
        """Return where a row (its number) stands, for messages."""
        return f"{self.where}: {self.rows.index[row]}"

    def check_ids(self, column: str) -> None:
        """Raise a UserError if an id of a sample or a list is empty or stands there twice."""
        ids = self.rows[column]
        for bad, what in ((ids == "", "is empty"), (ids.duplicated(), "stands there twice")):
            if bad.any():
                row = int(bad.to_numpy().argmax())
                raise UserError(f"{self.at(row)}: id {ids.iloc[row]!r} {what}")

    def without_absent(self) -> "Table":
        """Return it without the columns of dataset.yaml that it lacks: one of test items may."""
        keys = [f"{what}_column" for what in ("id", "label", "group", "domain", "fold", "mask")]
        absent = [key for key in keys if getattr(self.config, key) not in self.rows.columns]
        return replace(self, config=replace(self.config, **dict.fromkeys(absent)))

    def candidates(self, what: str) -> list[str]:
        """Return the columns that could be meant by a key of `KNOWN`, best first.

        It is just the one that dataset.yaml names, if it does; a UserError if that is not there.
        """
        key = f"{what}_column"
        given = getattr(self.config, key, None)
        names = self.rows.columns
        if given is not None:
            if given not in names:
                raise unknown_name(f"column ({key} in dataset.yaml) of {self.where}:", given, names)
            return [given]
        columns = {normalise(name): name for name in names}
        return [columns[name] for name in KNOWN[what] if name in columns]

    def splits(self) -> tuple[str | None, pd.Series | None]:
        """Return the column whose values are splits, and them (`train`, `val`, `test`) by row.

        Raises:
            UserError: a value that is no split's word, in a column called so.
        """
        config, rows = self.config, self.rows
        given = {config.id_column, config.label_column, config.group_column,
                 config.domain_column, config.fold_column}  # fmt: skip
        for column in self.candidates("split"):
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
                f"{self.at(row)}: {column} is {unknown[0]!r}; which split is that? Say in "
                f"dataset.yaml: {way} (none: it says no split)"
            )
        return None, None

    def labels(self, columns: list[str]) -> tuple[str, pd.Series]:
        """Read 0/1 (int8) from the columns that may hold labels; says which one does.

        Raises:
            UserError: a value that is not understood, columns that contradict each other, or one
                whose name says that 1 is real.
        """
        rows, first = self.rows, columns[0]
        numbers = NUMBERS & set(rows[first])
        if not self.config.labels and numbers and means_real(first):
            raise UserError(
                f"{self.where}: does 1 in column {first!r} mean real? Say so in dataset.yaml: "
                "`labels: {1: 0, 0: 1}` (0 is real and 1 is fake on the right)"
            )
        words = make_label_map(self.config.labels)
        parsed = {column: rows[column].map(words.get) for column in columns}
        whole = [column for column in columns if not parsed[column].isna().any()]
        if not whole:
            bad = int(parsed[first].isna().to_numpy().argmax())
            raise UserError(
                f"{self.at(bad)}: {first} is {rows[first].iloc[bad]!r}, want "
                f"{words.wanted()}{words.offer(rows[first])}"
            )
        for other in whole[1:]:
            differ = parsed[whole[0]].to_numpy() != parsed[other].to_numpy()
            if differ.any():
                raise self._at_odds(int(differ.argmax()), whole[0], other)
        return whole[0], parsed[whole[0]].astype("int8")

    def _at_odds(self, row: int, one: str, two: str) -> UserError:
        numbers = [turned_round(self.rows[column]) for column in (one, two)]
        # Words say what they mean, numbers may be the other way round.
        sure = [column for column, number in zip((one, two), numbers, strict=True) if not number]
        ways = [f"`label_column: {column}`" for column in sure or (one, two)]
        return UserError(
            f"{self.at(row)}: {one} is {self.rows[one].iloc[row]!r} and {two} is "
            f"{self.rows[two].iloc[row]!r}: they contradict each other (0 is real, 1 is fake); say "
            f"in dataset.yaml which holds: {' or '.join(ways)}{max(numbers)}"
        )

    def further(self, ids: Sequence[str], taken: set[str]) -> Further:
        """Read the columns of groups, domains and folds, but for those `taken`.

        A column of originals may name `ids`, what each row's item is called.

        Raises:
            UserError: several could be meant, the given one does not exist, or a fold is none.
        """
        rows = self.rows
        group, domain, fold = (
            self._find_column(what, taken) for what in ("group", "domain", "fold")
        )
        split, splits = self.splits()
        named = {"groups": group, "domains": domain, "folds": fold}
        groups, domains = (
            [""] * len(rows)
            if column is None
            else _once("" if is_empty(text) else text for text in rows[column])
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
            [None] * len(rows) if fold is None else self._folds(folds),
            {what: column for what, column in named.items() if column is not None},
            self._unread({*taken, group, domain, fold, split}, group),
        )

    def _unread(self, read: Collection[str | None], group: str | None) -> list[str]:
        """Say which columns nobody reads whose values repeat: people, videos, generators."""
        rows, known = self.rows, {*KNOWN["id"], *KNOWN["label"]}
        read = {*read, *self.candidates("mask")}
        left = [c for c in rows.columns if c not in read and normalise(c) not in known]
        left = [column for column in left if 1 < rows[column].nunique() <= len(rows) / 2]
        if not left:
            return []
        key = "domain_column" if group else "group_column"
        what = "whose items belong together (people, videos)"
        what = "where an item comes from" if group else what
        named = ", ".join(left[:_MOST_UNREAD]) + " ..." * (len(left) > _MOST_UNREAD)
        return [
            f"{self.where}: columns that repeat values and are not used: {named}; if one says "
            f"{what}: `{key}: {left[0]}` in dataset.yaml"
        ]

    def _find_column(self, what: str, taken: set[str]) -> str | None:
        given = getattr(self.config, f"{what}_column") is not None
        found = [column for column in self.candidates(what) if given or column not in taken]
        if len(found) > 1:
            raise UserError(
                f"{self.where}: columns {' and '.join(map(repr, found))} could both be meant; say "
                f"which in dataset.yaml: `{what}_column: {found[0]}`"
            )
        return found[0] if found else None

    def _folds(self, values: pd.Series) -> list[int]:
        numbers = pd.to_numeric(values, errors="coerce")
        bad = (numbers.isna() | (numbers != numbers.round()) | (numbers < -1)).to_numpy()
        if bad.any():
            row = int(bad.argmax())
            raise UserError(
                f"{self.at(row)}: {values.name} is {values.iloc[row]!r}, want a fold 0..k-1 (or "
                "-1: always trained on)"
            )
        return numbers.astype(int).tolist()


def _once(texts: Iterable[str]) -> list[str]:
    """Return texts, equal ones as one string."""
    known: dict[str, str] = {}
    return [known.setdefault(text, text) for text in texts]


def turned_round(values: Iterable[str]) -> str:
    """Offer to read a table's 1 as real; "" where it says labels in words alone."""
    if not NUMBERS & set(values):
        return ""
    return "; if 1 means real in the table: `labels: {1: 0, 0: 1}`"


def join_originals(ids: Sequence[str], originals: Sequence[str]) -> list[str]:
    """Group fakes with each other and with what they were made from, "" if none is named."""
    own = [without_suffix(value.rsplit("/", 1)[-1]) for value in ids]
    named = [without_suffix(value.rsplit("/", 1)[-1]) for value in originals]
    sources = set(named) - {""}
    keys = [
        [*([original] if original else []), *([item] if item in sources else [])]
        for item, original in zip(own, named, strict=True)
    ]
    groups = iter(linked(filter(None, keys)))
    return [next(groups) if some else "" for some in keys]
