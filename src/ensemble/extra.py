"""Predictions from elsewhere as members (`--extra`): CSVs, joined by id, in our own files."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd
from pydantic import Field
from pydantic.dataclasses import dataclass as checked_dataclass

from src import paths
from src.artifacts.files import read_json, sha256_file, write_csv, write_json
from src.artifacts.fingerprints import fingerprint_of
from src.artifacts.folds import read_folds
from src.artifacts.oof import MOST_LOGIT, is_flat, write_oof
from src.config import model_names
from src.errors import UserError
from src.metrics import log_odds
from src.strict_yaml import PLAIN, STRICT, Keys, Plain, Word, read_model

SCHEMA = 1
KNOWN = ("item_id", "logit", "prob", "label", "fold")
EDGE = 1e-7  # a prob of 0 or 1 becomes a logit of about -16 or 16


@checked_dataclass(frozen=True, config=STRICT)
class _ExtraKeys(Keys):
    oof: Word  # out-of-fold predictions, a CSV; its path is relative to the YAML
    test: Word  # test predictions, likewise


_List = Annotated[dict[Plain, _ExtraKeys], Field(min_length=1)]  # the YAML of `--extra`


class Extra(NamedTuple):
    """A member from elsewhere: its name, its out-of-fold CSV and its test CSV."""

    name: str
    oof: Path
    test: Path


def named_extras(texts: Sequence[str]) -> list[Extra]:
    """Return what every `--extra` names, in order.

    Each is `NAME=OOF.csv,TEST.csv`, or a YAML that maps names to `{oof: PATH, test: PATH}`, the
    paths relative to it.

    Raises:
        UserError: another form, a name that is no plain word, an unknown or missing key, or a file
            that is not there.
    """
    found: list[Extra] = []
    for text in texts:
        if text.endswith((".yaml", ".yml")):
            home = Path(text).parent
            listed = read_model(Path(text), _List, "NAME: {oof: PATH, test: PATH}")
            found += [Extra(n, home / one.oof, home / one.test) for n, one in listed.items()]
        else:
            found.append(_parse(text))
    for extra in found:
        for path in (extra.oof, extra.test):
            if not path.is_file():
                raise UserError(f"--extra {extra.name}: {path} is not there")
    return found


def _parse(text: str) -> Extra:
    name, equals, files = text.partition("=")
    oof, comma, test = files.partition(",")
    if not (equals and comma and oof and test) or not re.fullmatch(PLAIN, name):
        raise UserError(
            f"--extra {text}: want NAME=OOF.csv,TEST.csv with a plain name, or a YAML that lists "
            "NAME: {oof: OOF.csv, test: TEST.csv}"
        )
    return Extra(name, Path(oof), Path(test))


@dataclass(frozen=True)
class CheckedExtra:
    """A member's predictions, read and found good."""

    name: str  # the member's
    oof: pd.DataFrame  # `item_id, fold, label, logit` of whole folds
    test: pd.DataFrame  # `item_id, logit`, sorted by id
    has_folds: bool  # its CSV has a `fold` column, which agrees with the fold file
    sources: dict[str, str]  # fingerprints of the two CSVs

    @property
    def folds(self) -> list[int]:
        """Return the folds it covers, sorted."""
        return sorted(int(fold) for fold in self.oof["fold"].unique())


def check_extras(texts: Sequence[str], dataset: str, scheme: str) -> list[CheckedExtra]:
    """Read and check every `--extra` of a command; nothing is written.

    The CSVs hold `item_id` and `logit` or `prob` (P(fake)); `label` and `fold` are held against the
    fold file, which must exist, where they are given.

    Raises:
        UserError: see `named_extras`; a name that is given twice, is that of a model here, or under
            which one was trained; a missing or unknown column; an id that is twice there or
            unknown; a fold covered in part or with one logit for all; a number that is not finite
            or no probability; another label or fold than the fold file's.
    """
    extras = named_extras(texts)
    table = read_folds(paths.folds_csv(dataset, scheme)).set_index("item_id")
    for place, extra in enumerate(extras):
        if extra.name in [other.name for other in extras[:place]]:
            raise UserError(f"--extra {extra.name} is given twice; every member wants its own name")
        _check_name(extra.name, dataset, scheme)
    return [_check(extra, table) for extra in extras]


def _check_name(name: str, dataset: str, scheme: str) -> None:
    if name in model_names() or paths.model_from_slug(name).startswith(paths.TIMM_PREFIX):
        raise UserError(f"--extra {name}: that is the name of a model here; take another")
    if is_extra(dataset, scheme, name):
        return
    oof, runs = paths.oof_dir(dataset, scheme, name), paths.run_dir(dataset, scheme, name)
    for trained in (*oof.glob("fold_*.csv"), *runs.glob("fold_*.json"), *runs.glob("fold_*.pt")):
        raise UserError(f"--extra {name}: {trained} is of a model trained here; take a new name")


def _check(extra: Extra, table: pd.DataFrame) -> CheckedExtra:
    oof, test = _read(extra.oof), _read(extra.test)
    scored = _on_folds(oof, table, extra.oof)
    if test.empty:
        raise UserError(f"--extra {extra.name}: {extra.test} has a header and no rows")
    if test["item_id"].isin(table.index).all():
        raise UserError(
            f"--extra {extra.name}: {extra.test}: its ids are all of train items, as in the "
            "out-of-fold CSV; want the test items'"
        )
    for fold, part in scored.groupby("fold")["logit"]:
        if len(part) > 1 and is_flat(part):
            raise UserError(
                f"--extra {extra.name}: {extra.oof}: all {len(part)} logits of fold {fold} are "
                f"{float(part.iloc[0])!r}: it tells nothing of these items"
            )
    return CheckedExtra(
        extra.name,
        scored,
        test[["item_id", "logit"]].sort_values("item_id", kind="stable"),
        has_folds="fold" in oof.columns,
        sources={"oof_sha256": sha256_file(extra.oof), "test_sha256": sha256_file(extra.test)},
    )


def write_extra(checked: CheckedExtra, dataset: str, scheme: str) -> None:
    """Write a member's predictions into `oof/`, fold by fold, as if it had been trained here.

    The record comes first and says `complete` last: an import that is killed half-way is known
    for what it is, and the same command goes over it.
    """
    names = (dataset, scheme, checked.name)
    record = {"schema": SCHEMA, "complete": False, "folds": checked.folds, **checked.sources}
    record["has_folds"] = checked.has_folds
    write_json(paths.extra_record(*names), record, seal=True)
    for path in paths.oof_dir(*names).glob("fold_*.csv"):  # of an earlier import
        path.unlink()
    kept = paths.extra_test_csv(*names)
    write_csv(kept, checked.test)
    kept_oof = {}
    for fold in checked.folds:
        file = paths.oof_csv(*names, fold)
        write_oof(file, checked.oof[checked.oof["fold"] == fold])
        kept_oof[str(fold)] = sha256_file(file)
    record |= {"complete": True, "kept_sha256": sha256_file(kept), "kept_oof_sha256": kept_oof}
    write_json(paths.extra_record(*names), record, seal=True)


def is_extra(dataset: str, scheme: str, model: str) -> bool:
    """Tell whether a member's predictions came from elsewhere, be their import complete or not."""
    return paths.readable(paths.extra_record(dataset, scheme, model)).exists()


def doubtful_extras(dataset: str, scheme: str, models: Sequence[str]) -> list[str]:
    """Return those of the members whose CSV did not say on which folds it was made."""
    extras = [model for model in models if is_extra(dataset, scheme, model)]
    return [m for m in extras if read_extra_record(dataset, scheme, m).get("has_folds") is False]


def refuse_extra_name(dataset: str, scheme: str, model: str) -> None:
    """Raise a UserError where predictions from elsewhere go by a model's name."""
    if is_extra(dataset, scheme, model):
        home = paths.readable(paths.extra_record(dataset, scheme, model)).parent
        raise UserError(
            f"{home} holds predictions from elsewhere under that name; train under another "
            "(--as NAME), or delete that folder"
        )


def read_extra_record(dataset: str, scheme: str, model: str) -> dict[str, Any]:
    """Return the record of such a member's import.

    Raises:
        UserError: the import was cut off, or its record is damaged.
    """
    path = paths.readable(paths.extra_record(dataset, scheme, model))
    try:
        record = read_json(path, schema=SCHEMA, what="record of an extra member", sealed=True)
    except UserError as error:
        raise UserError(f"{error}; {_again(model)}") from None
    if record.get("complete") is not True:
        raise UserError(f"{path}: the import of {model} was cut off; {_again(model)}")
    return record


def check_extra_oof(dataset: str, scheme: str, model: str, folds: Sequence[int]) -> None:
    """Raise a UserError where kept out-of-fold predictions are not those that were imported."""
    kept = read_extra_record(dataset, scheme, model)["kept_oof_sha256"]
    for fold in folds:
        path = paths.readable(paths.oof_csv(dataset, scheme, model, fold))
        if fingerprint_of(path) != kept.get(str(fold)):
            raise UserError(f"{path} is not the file that was imported; {_again(model)}")


def read_extra_test(dataset: str, scheme: str, model: str) -> pd.Series:
    """Return such a member's logits of the test items by item_id.

    Raises:
        UserError: the import was cut off, or the files in `oof/` are damaged.
    """
    path = paths.readable(paths.extra_test_csv(dataset, scheme, model))
    wanted = read_extra_record(dataset, scheme, model)["kept_sha256"]
    if not path.is_file() or sha256_file(path) != wanted:
        raise UserError(f"{path} is not the file that was imported; {_again(model)}")
    return _read(path).set_index("item_id")["logit"]


def _again(model: str) -> str:
    return f"import it again: tune.py --extra {model}=OOF.csv,TEST.csv"


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
    range_ = " from 0 to 1" if values[0] == "prob" else ""
    _refuse(path, table, values[0], np.asarray(bad), f"want a finite number{range_}")
    _refuse(path, table, "item_id", table["item_id"].duplicated().to_numpy(), "it is there twice")
    if values[0] == "prob":
        number = log_odds(number, EDGE)
    bad = np.abs(np.asarray(number)) > MOST_LOGIT
    _refuse(path, table, values[0], bad, f"beyond {MOST_LOGIT:g} no log-odds make sense; give prob")
    return table.drop(columns=values).assign(logit=number)


def _on_folds(oof: pd.DataFrame, table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Join with the fold file; returns whole folds, `item_id, fold, label, logit`."""
    known = oof["item_id"].isin(table.index).to_numpy()
    _refuse(path, oof, "item_id", ~known, "the fold file has no such item")
    found = table.loc[oof["item_id"]]
    for column in ("label", "fold"):
        if column in oof:
            given = pd.to_numeric(oof[column], errors="coerce").to_numpy()
            wrong = given != found[column].to_numpy()
            _refuse(path, oof, column, wrong, "the fold file says otherwise")
    joined = found[["fold", "label"]].assign(logit=oof["logit"].to_numpy())
    joined = joined[joined["fold"] >= 0].reset_index(names="item_id")
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
