"""Predictions from elsewhere as members: a colleague's CSVs, joined by id, in our own files."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from src import paths
from src.artifacts.files import read_json, sha256_file, write_csv, write_json
from src.artifacts.folds import read_folds
from src.artifacts.oof import write_oof
from src.errors import UserError

SCHEMA = 1
KNOWN = ("item_id", "logit", "prob", "label", "fold")
EDGE = 1e-7  # a prob of 0 or 1 becomes a logit of about -16 or 16
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Extra:
    """What `--extra NAME=OOF.csv,TEST.csv` names."""

    name: str
    oof: Path
    test: Path


def parse_extra(text: str) -> Extra:
    """Split `NAME=OOF.csv,TEST.csv`.

    Raises:
        UserError: another form, a name that is no plain word, or a file that is not there.
    """
    name, equals, files = text.partition("=")
    oof, comma, test = files.partition(",")
    if not (equals and comma and oof and test) or not _NAME.fullmatch(name):
        raise UserError(f"--extra {text}: want NAME=OOF.csv,TEST.csv with a plain name")
    extra = Extra(name, Path(oof), Path(test))
    for path in (extra.oof, extra.test):
        if not path.is_file():
            raise UserError(f"--extra {name}: {path} is not there")
    return extra


def import_extra(extra: Extra, dataset: str, scheme: str) -> list[int]:
    """Write a member's predictions into `oof/`, fold by fold, as if it had been trained here.

    Args:
        extra: the two CSVs: `item_id` and `logit` or `prob` (P(fake)); `label` and `fold` are
            held against the fold file where they are given.
        dataset: data set.
        scheme: fold scheme; its fold file must exist.

    Returns:
        The folds it covers, sorted. A fold must be covered whole or not at all.

    Raises:
        UserError: a model of that name was trained here; a missing or unknown column; an id that
            is twice there or unknown; a fold covered in part; a number that is not finite or no
            probability; another label or fold than the fold file's. Nothing is written then.
    """
    home = paths.oof_dir(dataset, scheme, extra.name)
    if home.is_dir() and not paths.extra_record(dataset, scheme, extra.name).exists():
        raise UserError(f"--extra {extra.name}: {home} holds a model trained here; take a new name")
    table = read_folds(paths.folds_csv(dataset, scheme)).set_index("item_id")
    oof, test = _read(extra.oof), _read(extra.test)
    scored = _on_folds(oof, table, extra.oof)
    folds = sorted(scored["fold"].unique().tolist())
    for fold in folds:
        write_oof(paths.oof_csv(dataset, scheme, extra.name, fold), scored[scored["fold"] == fold])
    for path in home.glob("fold_*.csv"):  # of an earlier import that covered more
        if path not in [paths.oof_csv(dataset, scheme, extra.name, fold) for fold in folds]:
            path.unlink()
    test = test[["item_id", "logit"]].sort_values("item_id", kind="stable")
    write_csv(paths.extra_test_csv(dataset, scheme, extra.name), test)
    record = {
        "schema": SCHEMA,
        "folds": folds,
        "test_rows": len(test),
        "oof_sha256": sha256_file(extra.oof),
        "test_sha256": sha256_file(extra.test),
    }
    write_json(paths.extra_record(dataset, scheme, extra.name), record)
    return folds


def is_extra(dataset: str, scheme: str, model: str) -> bool:
    """Tell whether a member's predictions came from elsewhere."""
    return paths.readable(paths.extra_record(dataset, scheme, model)).exists()


def read_extra_test(dataset: str, scheme: str, model: str) -> pd.Series:
    """Return such a member's logits of the test items by item_id.

    Raises:
        UserError: the files in `oof/` are damaged; import them again.
    """
    path = paths.readable(paths.extra_test_csv(dataset, scheme, model))
    record = read_json(
        paths.readable(paths.extra_record(dataset, scheme, model)),
        schema=SCHEMA,
        what="record of an extra member",
    )
    table = _read(path)
    if len(table) != record.get("test_rows"):
        raise UserError(
            f"{path}: {len(table)} rows, its record says {record.get('test_rows')}; import it "
            f"again: tune.py --extra {model}=OOF.csv,TEST.csv"
        )
    return table.set_index("item_id")["logit"]


def _read(path: Path) -> pd.DataFrame:
    """Read `item_id`, `logit` and what else is known; logits finite."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a readable CSV ({error})") from None
    unknown = [column for column in table.columns if column not in KNOWN]
    values = [column for column in ("logit", "prob") if column in table.columns]
    if unknown or "item_id" not in table.columns or len(values) != 1:
        raise UserError(
            f"{path}: columns are {list(table.columns)}; want item_id and one of logit and prob "
            "(P(fake)), and no others but label and fold"
        )
    number = pd.to_numeric(table[values[0]], errors="coerce").astype("float64")
    bad = ~np.isfinite(number.to_numpy())
    if values[0] == "prob":
        bad |= (number < 0) | (number > 1)
    _refuse(path, table, values[0], np.asarray(bad), "want a finite number" + (
        " from 0 to 1" if values[0] == "prob" else ""))  # fmt: skip
    _refuse(path, table, "item_id", table["item_id"].duplicated().to_numpy(), "it is there twice")
    if values[0] == "prob":
        prob = number.clip(EDGE, 1 - EDGE)
        number = np.log(prob) - np.log1p(-prob)
    return table.drop(columns=values).assign(logit=number)


def _on_folds(oof: pd.DataFrame, table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Join with the fold file; returns whole folds, `item_id, fold, label, logit`."""
    known = oof["item_id"].isin(table.index).to_numpy()
    _refuse(path, oof, "item_id", ~known, "the fold file has no such item")
    found = table.loc[oof["item_id"]]
    for column in ("label", "fold"):
        if column in oof:
            wrong = (oof[column] != found[column].astype(str).to_numpy()).to_numpy()
            _refuse(path, oof, column, wrong, "the fold file says otherwise")
    joined = pd.DataFrame(
        {
            "item_id": oof["item_id"].to_numpy(),
            "fold": found["fold"].to_numpy(),
            "label": found["label"].to_numpy(),
            "logit": oof["logit"].to_numpy(),
        }
    )
    joined = joined[joined["fold"] >= 0]
    want = np.bincount(table.loc[table["fold"] >= 0, "fold"].to_numpy(np.int64))
    for fold in np.unique(joined["fold"].to_numpy(np.int64)):
        if (joined["fold"] == fold).sum() < want[fold]:
            lacking = table.index[(table["fold"] == fold) & ~table.index.isin(joined["item_id"])]
            raise UserError(
                f"{path}: {len(lacking)} of the {want[fold]} items of fold {fold} are missing, the "
                f"first is {lacking[0]!r}; a fold must be covered whole or not at all"
            )
    if joined.empty:
        raise UserError(f"{path}: no row is of a scored fold")
    return joined


def _refuse(path: Path, table: pd.DataFrame, column: str, bad: np.ndarray, why: str) -> None:
    if bad.any():
        row = int(bad.argmax())
        raise UserError(f"{path}: row {row + 2}: {column} is {table[column].iloc[row]!r}: {why}")
