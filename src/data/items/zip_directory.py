"""The directory of a zip in columns, kept mapped, so that a member costs bytes and no object.

`zipfile` makes 570 bytes and takes 6 microseconds for each member, in every process that reads one
of them. Here ten million are parsed once, kept below .cache and mapped by whoever reads.

The format: PKWARE's APPNOTE.TXT 6.3.10, 4.3.12 (a member), 4.3.14 to 4.3.16 (the end), 4.5.3
(zip64). What `zipfile` refuses is refused, and names are decoded as it does.
"""

import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from src import paths
from src.artifacts.atomic import atomic_path
from src.artifacts.files import sha256_json
from src.artifacts.fingerprints import settled
from src.data.items.marks import mark
from src.data.items.tar_shards import pread
from src.errors import UserError
from src.mapped import map_file
from src.texts import Texts, hash_of, hashes_of

FEWEST_KEPT = 20_000  # members of a directory that is kept: fewer are parsed in 10 ms
BLOCK = 8 * 2**20  # bytes of a directory that are parsed together
_HOW = "1"  # what the kept columns mean
_SIGNATURE = b"PK\1\2"
_RECORD = np.dtype(
    {
        "names": ["version", "flags", "method", "crc", "packed", "size", "name", "extra", "comment",
                  "offset"],
        "formats": ["u1", "<u2", "<u2", "<u4", "<u4", "<u4", "<u2", "<u2", "<u2", "<u4"],
        "offsets": [6, 8, 10, 16, 20, 24, 28, 30, 32, 42],
        "itemsize": 46,
    }
)  # fmt: skip
_END, _END64, _LOCATOR64 = (struct.Struct(f) for f in ("<4s4H2LH", "<4sQ2H2L4Q", "<4sLQL"))
_LONGEST_COMMENT = 2**16
_UTF8 = 2**11  # a flag
_NEWEST = 63  # version of the format, times ten, as zipfile has it
_IN_EXTRA, _IN_EXTRA_TOO = 2**32 - 1, 2**64 - 1  # in place of a number that zip64 holds
_MOST = 2**62  # no file is larger, and sums stay below an int64's end
_ZIP64 = 1  # tag of the extra field
_NUMBERS = {"flags": np.uint16, "method": np.uint16, "crc": np.uint32, "packed": np.int64,
            "size": np.int64, "offset": np.int64}  # fmt: skip


class ZipMember(NamedTuple):
    """What the directory says of one file."""

    name: str
    flags: int
    method: int  # how it is packed
    crc: int
    packed: int  # bytes in the zip
    size: int  # bytes unpacked
    offset: int  # where its local header begins


class ZipDirectory:
    """The members of a zip in the directory's order, each name once.

    Args:
        table: what `_table_of` makes; may be mapped.
    """

    def __init__(self, table: pa.Table) -> None:
        self.names = Texts(table["name"])
        self._numbers = {name: _numbers(table[name]) for name in _NUMBERS}
        self._hashes, self._rows = _numbers(table["hash"]), _numbers(table["row"])

    def __len__(self) -> int:
        """Return the number of members."""
        return len(self.names)

    def find(self, name: str) -> ZipMember | None:
        """Return the member of a name; None where there is none."""
        wanted = hash_of(name)
        place = int(np.searchsorted(self._hashes, np.uint64(wanted)))
        while place < len(self) and self._hashes[place] == wanted:
            row = int(self._rows[place])
            if self.names[row] == name:
                return ZipMember(name, *(int(column[row]) for column in self._numbers.values()))
            place += 1
        return None

    def files(self) -> Iterator[tuple[str, int, int]]:
        """Yield name, size and CRC of each member that is no folder."""
        size, crc = self._numbers["size"], self._numbers["crc"]
        for start in range(0, len(self), 2**16):
            part = slice(start, start + 2**16)
            for name, *numbers in zip(
                self.names[part], size[part].tolist(), crc[part].tolist(), strict=True
            ):
                if name and not name.endswith("/"):
                    yield name, *numbers


def open_directory(path: str, fd: int) -> ZipDirectory:
    """Return the directory of a zip that is open as `fd`, as it was kept or by parsing it.

    Raises:
        OSError: not a zip, damaged, in several parts, or two different files under one name.
    """
    found = mark(path, archive=True)
    kept = paths.zip_directory(sha256_json(os.path.abspath(path))[:24])  # noqa: PTH100
    said = {b"zip": repr((_HOW, *found)).encode(errors="surrogateescape")}
    with suppress(OSError, pa.ArrowException, LookupError, ValueError, TypeError):
        return ZipDirectory(_mapped(str(kept), said))
    table = _table_of(path, fd).replace_schema_metadata(said)
    stat = os.fstat(fd)
    if len(table) < FEWEST_KEPT or not settled(max(stat.st_mtime_ns, stat.st_ctime_ns)):
        return ZipDirectory(table)
    with suppress(UserError, OSError, pa.ArrowException):  # else it is parsed by each process
        with (
            atomic_path(kept) as temporary,
            pa.OSFile(str(temporary), "wb") as sink,
            pa.ipc.new_file(sink, table.schema) as writer,
        ):
            writer.write_table(table)
        table = _mapped(str(kept), said)
    return ZipDirectory(table)


def _mapped(kept: str, said: dict[bytes, bytes]) -> pa.Table:
    table = pa.ipc.open_file(map_file(kept)).read_all()
    if table.schema.metadata != said:
        raise ValueError("of another zip, or of this one as it was")
    table.validate()
    return table


def _table_of(path: str, fd: int) -> pa.Table:
    """Parse a directory; `ZipMember` in columns, and hashes of names, sorted, with their rows."""
    try:
        start, size, shift = _find_directory(fd)
        parts = [_columns(*block) for block in _blocks(fd, start, size)]
    except (ValueError, OverflowError) as error:
        raise OSError(f"{path} is not a readable zip ({error})") from None
    names = pa.concat_arrays([names for names, _ in parts]) if parts else _arrow([])
    columns = {
        name: np.concatenate([numbers[name] for _, numbers in parts] or [[]]).astype(kind)
        for name, kind in _NUMBERS.items()
    }
    del parts
    columns["offset"] += shift
    hashes = hashes_of(Texts(names))
    order = np.argsort(hashes, kind="stable")
    hashes = hashes[order]
    extra = _further(path, names, columns, hashes, order)
    if extra:
        kept = np.delete(np.arange(len(names)), extra)
        names = names.take(pa.array(kept))
        columns = {name: column[kept] for name, column in columns.items()}
        hashes = hashes_of(Texts(names))
        order = np.argsort(hashes, kind="stable")
        hashes = hashes[order]
    columns |= {"hash": hashes, "row": order.astype(np.uint32)}
    return pa.table({"name": names, **{name: pa.array(column) for name, column in columns.items()}})


def _further(
    path: str,
    names: pa.Array,
    columns: dict[str, NDArray],
    hashes: NDArray[np.uint64],
    order: NDArray[np.int64],
) -> list[int]:
    """Return the rows of members whose name stands before; an OSError where they are others."""
    alike = np.flatnonzero(hashes[1:] == hashes[:-1])
    first: dict[str, int] = {}
    found = []
    for row in np.unique(order[np.concatenate([alike, alike + 1])]).tolist():
        name = names[row].as_py()
        before = first.setdefault(name, row)
        if any(columns[key][before] != columns[key][row] for key in ("crc", "size")):
            raise OSError(
                f"{path} holds two different files called {name!r}; pack it again "
                "with names that stand once"
            )
        if before != row:
            found.append(row)
    return found


def _find_directory(fd: int) -> tuple[int, int, int]:
    """Return where the directory begins, its bytes, and how far all offsets are to be moved.

    Bytes before the zip (a program that unpacks it) move it as a whole.
    """
    total = os.fstat(fd).st_size
    begin = max(0, total - _LONGEST_COMMENT - _END.size)
    tail = pread(fd, total - begin, begin)
    at = len(tail) - _END.size
    if not (at >= 0 and tail.startswith(b"PK\5\6", at) and tail.endswith(b"\0\0")):
        at = tail.rfind(b"PK\5\6")  # a comment follows
    if at < 0 or len(tail) - at < _END.size:
        raise ValueError("File is not a zip file")
    _, disk, of_start, _, _, size, offset, _ = _END.unpack_from(tail, at)
    end = begin + at
    locator = pread(fd, _LOCATOR64.size, max(0, end - _LOCATOR64.size))
    if len(locator) == _LOCATOR64.size and locator.startswith(b"PK\6\7"):
        _, number, _, disks = _LOCATOR64.unpack(locator)
        if number != 0 or disks > 1:
            raise ValueError("zipfiles that span multiple disks are not supported")
        place = end - _LOCATOR64.size - _END64.size
        large = pread(fd, _END64.size, place) if place >= 0 else b""
        if len(large) == _END64.size and large.startswith(b"PK\6\6"):
            *_, disk, of_start, _, _, size, offset = _END64.unpack(large)
            end = place
    if disk not in (0, 2**16 - 1) or of_start not in (0, 2**16 - 1):
        raise ValueError("zipfiles that span multiple disks are not supported")
    start = end - size
    if start < 0:
        raise ValueError("Bad offset for central directory")
    return start, size, start - offset


def _blocks(fd: int, start: int, size: int) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.intp]]]:
    """Yield pieces of a directory, uint8, with where its records begin in them, all whole."""
    rest, end = b"", start + size
    while start < end or rest:
        more = pread(fd, min(BLOCK, end - start), start)
        if start < end and not more:
            raise ValueError("Truncated central directory")
        start += len(more)
        data = rest + more
        records, ends = _records(data)
        if not len(records):
            if start < end:
                rest = data
                continue
            raise ValueError("Truncated central directory")
        yield np.frombuffer(data, np.uint8), records
        rest = data[int(ends[-1]) :]


def _records(data: bytes) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return where each whole record of a piece begins and ends, each where the last one ended."""
    letters = np.frombuffer(data, np.uint8)
    room = len(letters) - _RECORD.itemsize + 1
    starts = np.flatnonzero(letters[: max(0, room)] == _SIGNATURE[0])
    for place in (1, 2, 3):
        starts = starts[letters[starts + place] == _SIGNATURE[place]]
    ends = starts + _RECORD.itemsize
    for place in (28, 30, 32):
        ends += _uint16(letters, starts + place)
    if len(starts) and (starts[0] != 0 or (starts[1:] != ends[:-1]).any()):
        return _walked(data)  # a signature in a name or comment, or damaged
    if not len(starts) and room > 0:
        raise ValueError("Bad magic number for central directory")
    whole = ends <= len(letters)
    if len(starts) and whole[-1] and ends[-1] < room:
        raise ValueError("Bad magic number for central directory")
    return starts[whole], ends[whole]


def _uint16(data: NDArray[np.uint8], at: NDArray[np.intp]) -> NDArray[np.intp]:
    return data[at].astype(np.intp) + 256 * data[at + 1].astype(np.intp)


def _walked(data: bytes) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    starts, ends, at = [], [], 0
    while at + _RECORD.itemsize <= len(data):
        if not data.startswith(_SIGNATURE, at):
            raise ValueError("Bad magic number for central directory")
        end = at + _RECORD.itemsize + sum(struct.unpack_from("<3H", data, at + 28))
        if end > len(data):
            break
        starts.append(at)
        ends.append(end)
        at = end
    return np.array(starts, np.intp), np.array(ends, np.intp)


def _columns(
    data: NDArray[np.uint8], records: NDArray[np.intp]
) -> tuple[pa.Array, dict[str, NDArray]]:
    """Return names and numbers of the records of a piece."""
    fixed = np.lib.stride_tricks.sliding_window_view(data, _RECORD.itemsize)[records]
    found = np.ascontiguousarray(fixed).view(_RECORD).reshape(len(records))
    if (newest := int(found["version"].max())) > _NEWEST:
        raise ValueError(f"zip file version {newest / 10:.1f}")
    begin = records + _RECORD.itemsize
    end = begin + found["name"]
    large = {name: found[name].astype(np.uint64) for name in ("size", "packed", "offset")}
    _read_extra(data, end, end + found["extra"], large)
    numbers = {name: np.minimum(column, _MOST).astype(np.int64) for name, column in large.items()}
    numbers |= {name: found[name] for name in ("flags", "method", "crc")}
    return _decoded(data, begin, end, (found["flags"] & _UTF8) > 0), numbers


def _decoded(
    data: NDArray[np.uint8],
    begin: NDArray[np.intp],
    end: NDArray[np.intp],
    utf8: NDArray[np.bool_],
) -> pa.Array:
    inside = np.zeros(len(data) + 1, np.int8)
    inside[begin] += 1
    inside[end] -= 1
    letters = data[np.cumsum(inside[:-1], dtype=np.int8) > 0]
    if len(letters) and (letters.max() >= 2**7 or letters.min() == 0):
        whole = data.tobytes()
        return _arrow(
            # What follows a NUL hides what a file is: zipfile cuts it off.
            whole[b:e].decode("utf-8" if is_utf8 else "cp437").partition("\0")[0]
            for b, e, is_utf8 in zip(begin.tolist(), end.tolist(), utf8.tolist(), strict=True)
        )
    places = np.zeros(len(begin) + 1, np.int64)
    np.cumsum(end - begin, out=places[1:])
    return pa.LargeStringArray.from_buffers(len(begin), pa.py_buffer(places), pa.py_buffer(letters))


def _arrow(names: "Iterator[str] | list[str]") -> pa.Array:
    return pa.array(names, pa.large_string())


def _read_extra(
    data: NDArray[np.uint8],
    at: NDArray[np.intp],
    end: NDArray[np.intp],
    large: dict[str, NDArray[np.uint64]],
) -> None:
    """Put the numbers that zip64 holds in their place; field after field, of all records at once.

    Raises:
        ValueError: fields that are longer than what there is.
    """
    rows, at = np.arange(len(at)), at.copy()
    while len(rows := rows[end[rows] - at[rows] >= 4]):
        tag, length = _uint16(data, at[rows]), _uint16(data, at[rows] + 2)
        at[rows] += 4
        if (at[rows] + length > end[rows]).any():
            raise ValueError("Corrupt extra field")
        mine = tag == _ZIP64
        ours, place = rows[mine], at[rows[mine]]
        stop = place + length[mine]
        for name, column in large.items():
            there = column[ours] == _IN_EXTRA
            if name == "size":
                there |= column[ours] == np.uint64(_IN_EXTRA_TOO)
            if (place[there] + 8 > stop[there]).any():
                raise ValueError(f"Corrupt zip64 extra field. {name} not found.")
            bytes_of = data[place[there, None] + np.arange(8)]
            column[ours[there]] = bytes_of.view("<u8").reshape(-1)
            place[there] += 8
        at[rows] += length


def _numbers(column: pa.ChunkedArray) -> NDArray:
    # To combine a single piece would copy it.
    whole = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    return whole.to_numpy(zero_copy_only=True)
