"""Out-of-fold and test predictions: one logit an item in CSV, one an item and view in parquet."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from src.artifacts.atomic import atomic_path
from src.artifacts.files import check_unique, parse_column, read_csv, write_csv
from src.errors import UserError
from src.texts import Texts

if TYPE_CHECKING:
    import pyarrow as pa

OOF_COLUMNS = ["item_id", "fold", "label", "logit"]
VIEW_COLUMNS = ["item_id", "fold", "view", "logit"]
MOST_LOGIT, FLAT = 1e4, 1e-9
NO_FOLD = -1  # the fold of predictions by a checkpoint that was trained on every row
WHOLE = "full"  # the view of an image as it is; `f03` is that of a clip's frame
# beside a merge that held-out rows chose: which half a row is in, what either half's choice says
CROSS_FITTED = ["item_id", "half", "logit_0", "logit_1"]
MIRRORED = "+flip"  # how the view of a mirror image ends
UNREADABLE = "unreadable"  # the view of a test item that could not be decoded; its logit is NaN
# between a level and a view: `jpeg50:full` is the whole picture after it was stored at quality 50
DELIVERED = ":"
CLEAN = ""  # the level of a picture as it is
JOIN = "-"  # between the steps of a level: `long1024-jpeg50`
WHOLE_LEVEL = "whole"  # does nothing to a picture that is decoded as delivered ones are
# steps that are no deliveries: what makes real pictures look generated, and leaves them real
TREATMENTS = ("retouch", "denoise", "sharpen", "upscale", "tones", "smooth")
_METADATA_KEY = b"rvf"
_BROKEN = (OSError, ValueError, LookupError, TypeError, RecursionError)  # what damaged files raise


def write_oof(path: Path, oof: pd.DataFrame) -> None:
    """Write one fold's out-of-fold predictions, sorted by `item_id` (`OOF_COLUMNS`)."""
    write_csv(path, oof[OOF_COLUMNS].sort_values("item_id", kind="stable"))


def read_oof(path: Path, folds: pd.DataFrame, fold: int) -> pd.DataFrame:
    """Read one fold's predictions and hold them against the fold file (`read_folds`).

    Returns:
        `OOF_COLUMNS`, sorted by `item_id`; fold and label int64, logit float64 and finite.

    Raises:
        UserError: names file, row and value of what is wrong: another fold's ids, an id missing
            or twice, a label that differs from the fold file, a logit that is not finite.
    """
    oof = read_csv(path, OOF_COLUMNS, what="OOF file")
    for column in ("fold", "label"):
        oof[column] = parse_column(oof, column, int, path)
    oof["logit"] = parse_column(oof, "logit", float, path)
    _check_sane(oof, path)
    check_unique(oof, "item_id", path)
    want = folds.loc[folds["fold"] == fold, ["item_id", "label"]].set_index("item_id")["label"]
    place = want.index.get_indexer(pd.Index(oof["item_id"]))
    if (place < 0).any():
        row = int((place < 0).argmax())
        raise UserError(
            f"{path}: row {row + 2}: item_id {oof['item_id'].iloc[row]!r} is not in fold {fold} "
            "of the fold file: these predictions were made with other folds; train that fold again "
            "(--overwrite)"
        )
    if len(oof) < len(want):
        missing = want.index.difference(pd.Index(oof["item_id"]))
        raise UserError(
            f"{path}: {len(missing)} of the {len(want)} items of fold {fold} are missing, the "
            f"first is {missing[0]!r}; train that fold again (--overwrite)"
        )
    for column, expected in (("fold", fold), ("label", want.to_numpy()[place])):
        differs = (oof[column] != expected).to_numpy()
        if differs.any():
            row = int(differs.argmax())
            raise UserError(
                f"{path}: row {row + 2}: {column} is {oof[column].iloc[row]}, the fold file says "
                f"otherwise for {oof['item_id'].iloc[row]!r}"
            )
    return oof.sort_values("item_id", kind="stable").reset_index(drop=True)


def _check_sane(oof: pd.DataFrame, path: Path) -> None:
    huge = oof["logit"].abs().to_numpy() > MOST_LOGIT
    if huge.any():
        row = int(huge.argmax())
        raise UserError(
            f"{path}: row {row + 2}: logit is {oof['logit'].iloc[row]!r}; beyond {MOST_LOGIT:g} no "
            "log-odds make sense, and a few outweigh all other items: that training diverged"
        )


DELIVERY_SEED = 42  # of what levels draw, where no other is named


class Levels(NamedTuple):
    """Levels at which pictures are delivered (`data.pixels.deliveries`)."""

    names: tuple[str, ...]  # one or more
    seed: int  # of what they draw


def is_treatment(level: str) -> bool:
    """Tell whether a step of a level is a treatment of real pictures, so that no mean counts it."""
    return any(step.rstrip("0123456789.") in TREATMENTS for step in level.split(JOIN))


def split_delivery(view: str) -> tuple[str, str]:
    """Return the level that a view was delivered at, `CLEAN` for none, and the view itself."""
    level, found, rest = view.rpartition(DELIVERED)
    return (level, rest) if found else (CLEAN, view)


def delivered(level: str, view: str) -> str:
    """Return the name of a view of a picture that is delivered at a level."""
    return f"{level}{DELIVERED}{view}" if level else view


def is_flat(logit: pd.Series) -> bool:
    """Tell whether (n,) logits are all equal but for rounding."""
    return float(logit.max() - logit.min()) <= FLAT * max(1.0, float(logit.abs().max()))


def write_views(path: Path, views: pd.DataFrame, metadata: dict[str, Any]) -> None:
    """Write view-level predictions (`VIEW_COLUMNS`), and what they were made from, as parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    ordered = views
    if not _in_order(views):
        ordered = views.sort_values(["item_id", "view"], kind="stable")
    named = {name: Texts(ordered[name]).column.cast(pa.string()) for name in ("item_id", "view")}
    numbers = {
        "fold": ordered["fold"].to_numpy(np.int32),
        "logit": ordered["logit"].to_numpy(np.float64),
    }
    columns = named | numbers
    table = pa.table({name: columns[name] for name in VIEW_COLUMNS}, schema=_view_schema())
    # In one piece: what a file holds must not show in which pieces it was made.
    table = table.combine_chunks().replace_schema_metadata(
        {_METADATA_KEY: json.dumps(metadata, sort_keys=True).encode()}
    )
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, write_page_checksum=True)


def _in_order(views: pd.DataFrame) -> bool:
    """Tell whether predictions are sorted by item_id and view, as most are made."""
    from pyarrow.compute import call_function

    ids, names = Texts(views["item_id"]).column, Texts(views["view"]).column
    before, after = slice(0, max(0, len(ids) - 1)), slice(1, None)
    further = call_function("less", [ids[before], ids[after]])
    same = call_function("equal", [ids[before], ids[after]])
    along = call_function("less_equal", [names[before], names[after]])
    rows = call_function("or", [further, call_function("and", [same, along])])
    return bool(rows.to_numpy().all())


def read_views(path: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Read view-level predictions and what they were made from.

    Raises:
        UserError: missing or damaged file (pages carry checksums), or one of something else.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    damaged = "delete it to predict again"
    try:
        table = pq.ParquetFile(path, page_checksum_verification=True).read()
        metadata = json.loads((table.schema.metadata or {}).get(_METADATA_KEY, b"null"))
        views = table.to_pandas()
    except FileNotFoundError:
        raise UserError(f"{path}: no such predictions") from None
    except (
        pa.ArrowException,
        OSError,
        ValueError,
        LookupError,
        TypeError,
        RecursionError,
    ) as error:
        raise UserError(f"{path}: not readable ({error}); {damaged}") from None
    if not isinstance(metadata, dict) or not table.schema.equals(
        _view_schema(), check_metadata=False
    ):
        raise UserError(f"{path}: not a predictions file of this repo; delete it")
    if views[["item_id", "fold", "view"]].isna().any(axis=None):
        raise UserError(f"{path}: a row without item_id, fold or view; {damaged}")
    return views, metadata


def read_views_metadata(path: Path) -> dict[str, Any]:
    """Return what view-level predictions were made from, without reading them.

    Raises:
        UserError: missing or damaged file, or one of something else.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        stored = (pq.read_schema(path).metadata or {}).get(_METADATA_KEY, b"null")
        metadata = json.loads(stored)
    except (pa.ArrowException, *_BROKEN) as error:
        raise UserError(f"{path}: not readable ({error}); delete it to predict again") from None
    if not isinstance(metadata, dict):
        raise UserError(f"{path}: not a predictions file of this repo; delete it")
    return metadata


def _view_schema() -> "pa.Schema":
    import pyarrow as pa

    types = (pa.string(), pa.int32(), pa.string(), pa.float64())
    return pa.schema(list(zip(VIEW_COLUMNS, types, strict=True)))
