"""Pictures in the rows of a parquet file, from any thread and after any fork; a group at a time."""

import os
import threading
import zlib
from bisect import bisect_right
from collections import OrderedDict
from itertools import accumulate

import pyarrow as pa
import pyarrow.parquet as pq

PARQUET = ".parquet"
KEPT = 64 * 2**20  # bytes of row groups that a process keeps; one group at least
_FOOTER = 8  # bytes behind the footer: its length and the mark


class ParquetRows:
    """A parquet file whose rows hold one picture each, read as `files.Archive` is.

    A member is called `12` or `12/name.jpg`: row 12. Parquet unpacks whole row groups only, so
    those read last are kept. What is missing or damaged raises an OSError.
    """

    def __init__(self, path: str) -> None:
        try:
            self._file = pq.ParquetFile(path, page_checksum_verification=True)
        except (pa.ArrowException, OSError) as error:
            raise OSError(f"{path} is not a readable parquet file ({error})") from None
        self.path = path
        self.schema: pa.Schema = self._file.schema_arrow
        self.column = picture_column(self.schema)
        stat = os.stat(path)  # noqa: PTH116 - as in `files.stamp_of`
        self._stamp = stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
        self.crc = _crc_of_footer(path, stat.st_size)
        groups = [self._file.metadata.row_group(i) for i in range(self._file.num_row_groups)]
        self._starts = [0, *accumulate(group.num_rows for group in groups)]
        self._kept: OrderedDict[int, pa.ChunkedArray] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def count(self) -> int:
        """Return the number of rows."""
        return self._starts[-1]

    def largest(self) -> int:
        """Return the bytes of the largest row group, unpacked."""
        meta = self._file.metadata
        sizes = (meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
        return max(sizes, default=0)

    def columns(self, names: list[str]) -> pa.Table:
        """Return whole columns (or their parts, `image.path`)."""
        try:
            return self._file.read(names, use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise OSError(f"{self.path} is damaged ({error})") from None

    def stamp(self, member: str) -> tuple[int, ...]:
        """Return the size and times of the file, for a row has none of its own."""
        self._row(member)
        return self._stamp

    def has_pictures(self) -> bool:
        """Tell whether the column of pictures holds any: a row may give a path instead."""
        meta = self._file.metadata
        at = next(
            (i for i in range(meta.num_columns)
             if self.column and meta.schema.column(i).path == self.column), None
        )  # fmt: skip
        if at is None:
            return False
        stats = [meta.row_group(i).column(at).statistics for i in range(meta.num_row_groups)]
        return any(found is None or found.num_values for found in stats)

    def head(self, member: str, count: int) -> bytes:
        """Return a picture's first bytes."""
        return self.read(member)[:count]

    def read(self, member: str) -> bytes:
        """Return a picture's bytes."""
        row = self._row(member)
        group = bisect_right(self._starts, row) - 1
        value = self._group(group)[row - self._starts[group]].as_py()
        if value is None:
            raise OSError(f"{self.path}: row {row} holds no picture")
        return value

    def _row(self, member: str) -> int:
        number = member.partition("/")[0]
        if not number.isdecimal() or int(number) >= self.count:
            raise FileNotFoundError(f"{self.path} has no row {number!r}")
        return int(number)

    def _group(self, group: int) -> pa.ChunkedArray:
        with self._lock:
            found = self._kept.get(group)
            if found is None:
                try:
                    table = self._file.read_row_group(group, [self.column], use_threads=False)
                except (pa.ArrowException, OSError) as error:
                    raise OSError(f"{self.path}: row group {group} is damaged ({error})") from None
                found = self._kept[group] = _leaf(table)
                while len(self._kept) > 1 and sum(g.nbytes for g in self._kept.values()) > KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(group)
            return found


def picture_column(schema: pa.Schema) -> str:
    """Return the column of a picture's bytes (`image.bytes`); "" if there is none, or two.

    Hugging Face's form is a struct of `bytes` and `path`; plain bytes are a picture's where the
    column is called so.
    """

    def is_bytes(kind: pa.DataType) -> bool:
        return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)

    found = []
    for field in schema:
        if pa.types.is_struct(field.type):
            inside = {field.type.field(i).name: field.type.field(i).type
                      for i in range(field.type.num_fields)}  # fmt: skip
            if "bytes" in inside and is_bytes(inside["bytes"]):
                found.append(f"{field.name}.bytes")
        elif is_bytes(field.type) and field.name.lower() in _PLAIN:
            found.append(field.name)
    named = [name for name in found if name.partition(".")[0].lower() in _PLAIN]
    return (named or found or [""])[0] if len(named or found) < 2 else ""


_PLAIN = frozenset((
    "image", "img", "picture", "photo", "face", "frame", "jpg", "jpeg", "png", "webp",
    "image_bytes", "img_bytes", "image_data", "bytes",
))  # fmt: skip


def _leaf(table: pa.Table) -> pa.ChunkedArray:
    column = table.column(0)
    if pa.types.is_struct(column.type):
        return pa.chunked_array(
            [chunk.field(0) for chunk in column.chunks], column.type.field(0).type
        )
    return column


def _crc_of_footer(path: str, size: int) -> int:
    """Return a CRC of the footer, which holds the places, sizes and statistics of all columns."""
    with open(path, "rb") as file:  # noqa: PTH123
        file.seek(size - _FOOTER)
        length = int.from_bytes(file.read(4), "little")
        file.seek(size - _FOOTER - length)
        return zlib.crc32(file.read(length))
