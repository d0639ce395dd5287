"""The fold file: `item_id, label, group, domain, kind, fold`, one row a readable train item."""

from pathlib import Path

import pandas as pd

from src import paths
from src.artifacts import fold_twin
from src.artifacts.files import check_unique, parse_column, read_csv, write_csv
from src.errors import UserError

COLUMNS = ["item_id", "label", "group", "domain", "kind", "fold"]
EXCLUDED_COLUMNS = ["item_id", "reason"]
CLUSTERS = "clusters"  # how the names of schemes begin that hold out whole clusters


def check_folds(folds: pd.DataFrame, path: Path) -> None:
    """Check what every reader and the writer of a fold file relies on.

    `folds`: `COLUMNS`; label and fold are int64, the rest strings.

    Raises:
        UserError: a duplicate id, a label other than 0/1, a fold number missing between 0 and
            k-1, a class missing from a fold, or a group in two folds.
    """
    check_unique(folds, "item_id", path)
    bad = ~folds["label"].isin([0, 1])
    if bad.any():
        row = int(bad.to_numpy().argmax())
        value = folds["label"].iloc[row]
        raise UserError(f"{path}: row {row + 2}: label is {value}, want 0 (real) or 1 (fake)")
    numbers = sorted(set(folds["fold"]) - {-1})
    if numbers != list(range(len(numbers))) or len(numbers) < 2:
        raise UserError(f"{path}: folds are {numbers}, want 0..k-1 (and -1 for extra data)")
    scored = folds[folds["fold"] >= 0]
    for number, part in scored.groupby("fold"):
        for label, name in ((0, "real"), (1, "fake")):
            if not (part["label"] == label).any():
                raise UserError(
                    f"{path}: fold {number} has no {name} item (label {label}); macro-F1 is not "
                    "defined there: use fewer folds or add items of that class"
                )
    spread = folds.groupby("group")["fold"].nunique()
    if (spread > 1).any():
        group = spread.index[int((spread > 1).to_numpy().argmax())]
        where = sorted(folds.loc[folds["group"] == group, "fold"].unique().tolist())
        raise UserError(f"{path}: group {group!r} stands in folds {where}: that leaks")


def write_folds(path: Path, folds: pd.DataFrame) -> None:
    """Write a fold file once, sorted by `item_id`.

    Raises:
        UserError: it exists already (fold files are never overwritten), or the folds are wrong.
    """
    table = folds[COLUMNS].sort_values("item_id", kind="stable")
    check_folds(table, path)
    try:
        write_csv(path, table, new=True)
    except FileExistsError:
        raise UserError(
            f"{path} exists, and a fold file is written once: every OOF file hangs on it. "
            "Use another scheme, or delete it together with its checkpoints and OOF"
        ) from None
    if len(table) >= fold_twin.FEWEST:
        fold_twin.write_twin(path, table)


def read_folds(path: Path) -> pd.DataFrame:
    """Read a fold file: `COLUMNS`, sorted by `item_id`; label and fold int64, the rest str.

    A large one is read from its twin, where that is of this very file.

    Raises:
        UserError: see `check_folds`; also for a missing or unreadable file.
    """
    twin = fold_twin.read_twin(path, COLUMNS)
    if twin is not None:
        return twin
    table = read_csv(path, COLUMNS, what="fold file")
    for column in ("label", "fold"):
        table[column] = parse_column(table, column, int, path)
    check_folds(table, path)
    table = table.sort_values("item_id", kind="stable").reset_index(drop=True)
    if len(table) >= fold_twin.FEWEST:
        fold_twin.write_twin(path, table)
    return table


def fold_numbers(folds: pd.DataFrame) -> list[int]:
    """Return the folds that are scored, 0..k-1."""
    return sorted(int(n) for n in set(folds["fold"]) - {-1})


def scheme_names(dataset: str) -> list[str]:
    """Return the schemes whose fold files exist."""
    home = paths.folds_dir(dataset)
    files = home.glob("*.csv") if home.is_dir() else []
    return sorted(path.stem for path in files if "." not in path.stem)  # `.excluded`, `.clusters`


def existing_scheme(dataset: str, wanted: str | None) -> str | None:
    """Return the scheme to use among the fold files that exist; None if there is none yet.

    `clusters` stands for the one whose name begins so.

    Raises:
        UserError: several exist and none was named.
    """
    names = scheme_names(dataset)
    if wanted == CLUSTERS:
        names = [name for name in names if name.startswith(CLUSTERS)]
    elif wanted is not None:
        return wanted if wanted in names else None
    if len(names) > 1:
        raise UserError(
            f"{dataset} has {len(names)} fold files, say which: --scheme {{{','.join(names)}}}"
        )
    return names[0] if names else None
