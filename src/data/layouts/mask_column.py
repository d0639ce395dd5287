"""The column of a table that names masks: which files it means."""

from collections.abc import Sequence
from dataclasses import replace

from src.data.items.files import kind_of
from src.data.items.folder import Folder
from src.data.items.listing import Entry
from src.data.items.masks import set_apart
from src.data.items.tables import is_empty
from src.data.layouts.finder import Finder
from src.data.layouts.label_tables import LabelTable
from src.errors import UserError


def take_masks(
    folder: Folder, tables: Sequence[LabelTable]
) -> tuple[Folder, list[LabelTable], list[str]]:
    """Return the folder without the masks that tables name, tables that know them, and notes.

    A column called `mask` counts where some value of it is a file: it may say who wears one.

    Raises:
        UserError: none of the column that dataset.yaml names is.
    """
    done, notes = [], []
    for table in tables:
        columns = table.candidates("mask")
        masks = _find(folder, table, columns[0]) if columns else []
        if any(mask is not None for mask in masks):
            notes.append(_note(table, columns[0], masks))
        elif table.config.mask_column is not None:
            raise UserError(
                f"{table.at(0)}: {columns[0]} (mask_column in dataset.yaml) is "
                f"{table.rows[columns[0]].iloc[0]!r}, and no value of it is a file here"
            )
        done.append(replace(table, masks=masks if any(masks) else ()))
        folder = set_apart(folder, filter(None, masks), {})
    return folder, done, notes


def _find(folder: Folder, table: LabelTable, column: str) -> list[Entry | None]:
    """Return the mask of each row: among known masks, else among all pictures but its own."""
    values = table.rows[column].tolist()
    asked = ["" if is_empty(value) else value for value in values]
    found: list[Entry | None] = [None] * len(asked)
    for files in (folder.listing.mask_files, folder.listing.media):
        left = [row for row, value in enumerate(asked) if value and found[row] is None]
        pictures = [entry for entry in files if kind_of(entry.logical) != "video"]
        if not left or not pictures:
            continue
        finder = Finder(
            range(len(pictures)),
            lambda at, of=pictures: _names(of[at], table.home),
            table.config.root,
        )
        fits = finder.fits([asked[row] for row in left])
        known = files is folder.listing.mask_files
        ids = table.rows[table.ids[0]]
        for row, some in zip(left, fits.files, strict=True):
            if len(some) == 1 and (known or asked[row] != ids.iloc[row]):
                found[row] = pictures[some[0]]
    return found


def _names(entry: Entry, home: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys((entry.logical.removeprefix(f"{home}/"), entry.logical)))


def _note(table: LabelTable, column: str, masks: Sequence[Entry | None]) -> str:
    named = [row for row, value in enumerate(table.rows[column]) if not is_empty(value)]
    lost = [row for row in named if masks[row] is None]
    text = f"{table.name}: {column} names {len(named)} masks"
    if not lost:
        return text
    first = f"{table.rows.index[lost[0]]}: {table.rows[column].iloc[lost[0]]!r}"
    return f"WARNING {text}, of which {len(lost)} are not here, the first in {first}"
