"""CSV without quotes, as our own writers mostly make it: split and parsed by pyarrow, not Python.

Whatever is not plain goes the slow way in `files`, which also finds the words for what is wrong;
both give the same table, to the last bit of every number.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray


def split_plain(text: str, columns: Sequence[str]) -> pd.DataFrame | None:
    r"""Split a CSV of strings; None where it is not plain.

    Args:
        text: of the file. Plain is one without quotes and carriage returns, whose header is
            `columns` and whose rows all have as many fields.
        columns: names, none of them empty.
    """
    header, _, rows = text.partition("\n")
    if header != ",".join(columns) or not rows.strip("\n") or '"' in text or "\r" in text:
        return None
    import pyarrow as pa
    from pyarrow import csv

    try:
        table = csv.read_csv(
            pa.BufferReader(rows.encode()),
            read_options=csv.ReadOptions(use_threads=False, column_names=list(columns)),
            parse_options=csv.ParseOptions(quote_char=False),
            convert_options=csv.ConvertOptions(
                column_types=dict.fromkeys(columns, pa.string()), strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid:  # a row of another length
        return None
    return pd.DataFrame({name: table[name].to_pandas().astype(str) for name in columns})


def parse_plain(column: pd.Series, kind: "type[int] | type[float]") -> NDArray[np.generic] | None:
    """Parse (n,) strings as int64 or float64; None where one is not plainly such a number.

    Arrow rounds correctly, as Python's `float` does.
    """
    import pyarrow as pa

    if kind is int and column.str.contains("x", case=False, regex=False).any():
        return None  # Arrow takes 0x10 for 16, Python does not
    try:
        return (
            pa.array(column, pa.string())
            .cast(pa.int64() if kind is int else pa.float64())
            .to_numpy()
        )
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return None
