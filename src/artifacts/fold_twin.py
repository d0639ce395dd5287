"""A large fold file's twin: the same table in mapped columns, read in place of the CSV.

Of ten million rows the CSV takes half a minute and gigabytes to read and check at each start. The
twin is written from a table that was checked, and says of which CSV it is; one that is damaged, or
whose CSV has another fingerprint, counts for nothing. The CSV is what people exchange.
"""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd

from src.artifacts.atomic import atomic_path
from src.artifacts.fingerprints import fingerprint_of, remembered, settled
from src.errors import UserError
from src.mapped import map_file
from src.texts import Texts

FEWEST = 1_000_000  # rows of a fold file that has a twin


def twin_of(path: Path) -> Path:
    """Return where the twin of a fold file lies."""
    return path.with_suffix(".arrow")


def read_twin(path: Path, columns: Sequence[str]) -> pd.DataFrame | None:
    """Return what a fold file holds, as `read_folds` does, from its twin; None without a good one.

    The columns lie in the mapped file. Both files are hashed once, and again when they change.
    """
    import pyarrow as pa  # slow to import

    twin = twin_of(path)
    if not twin.exists():
        return None
    try:
        table = pa.ipc.open_file(map_file(twin)).read_all()
        said = table.schema.metadata
        good = table.column_names == list(columns) and all(chunks <= 1 for chunks in _pieces(table))
        good = good and said[b"csv"].decode() == fingerprint_of(path)
        good = good and said[b"columns"].decode() == _remembered(twin, table)
    except (OSError, pa.ArrowException, LookupError, TypeError, ValueError):
        return None
    return table.to_pandas(split_blocks=True) if good else None


def write_twin(path: Path, table: pd.DataFrame) -> None:
    """Write the twin of a fold file that lies there; where it cannot be written there is none.

    `table` is what `read_folds` returns: strings, and label and fold as int64.
    """
    import pyarrow as pa

    columns = {
        name: Texts(table[name]).column.cast(pa.large_string()).combine_chunks()
        if isinstance(table[name].dtype, pd.StringDtype) or table[name].dtype == object
        else pa.array(table[name].to_numpy("int64"))
        for name in table.columns
    }
    made: Any = pa.table(columns)
    # What cannot be written is read from the CSV each time.
    with suppress(UserError, OSError):
        made = made.replace_schema_metadata({"csv": fingerprint_of(path), "columns": _sum(made)})
        with (
            atomic_path(twin_of(path)) as temporary,
            pa.OSFile(str(temporary), "wb") as sink,
            pa.ipc.new_file(sink, made.schema) as writer,
        ):
            writer.write_table(made)


def _pieces(table: Any) -> list[int]:  # noqa: ANN401 - a pyarrow table
    return [column.num_chunks for column in table.columns]


def _remembered(twin: Path, table: Any) -> str:  # noqa: ANN401
    stat = twin.stat()
    mark = [stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
    newest = max(stat.st_mtime_ns, stat.st_ctime_ns)
    return remembered(str(twin.resolve()), mark, lambda: (_sum(table), settled(newest)))


def _sum(table: Any) -> str:  # noqa: ANN401
    """Return a fingerprint of the columns, however they lie in memory."""
    import pyarrow as pa

    digest = hashlib.sha256()
    for name, column in zip(table.column_names, table.columns, strict=True):
        words = pa.types.is_large_string(column.type)
        found = Texts(column).sha256() if words else column.to_numpy().data
        digest.update(f"\0{name}\0{column.type}\0".encode())
        digest.update(found)
    return digest.hexdigest()
