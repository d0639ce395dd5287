"""Strings by the million: a column's own memory, read as a sequence; no Python object for each.

A list of ten million paths takes a gigabyte and is copied page by page into every process that
looks at it, for each look counts a reference. A column of Arrow lies in two buffers (all bytes, and
where each string begins), which may be mapped from a file, and which processes share.
"""

import hashlib
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import pandas as pd
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa

AT_ONCE = 2**18  # strings that are looked up, or made into Python's, together
# Odd, with bits all over (of MurmurHash3's last step, and of the golden ratio).
_SPREAD, _BEGIN = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0x9E3779B97F4A7C15)
_WORD = 8  # bytes that are hashed at once
_ALL = 2**64 - 1  # bits of a hash
Hashes = NDArray[np.uint64]


class Texts(Sequence[str]):
    """A column of strings as a sequence; `[i]` makes one str, a slice shares the memory.

    Args:
        strings: none of them missing; where Arrow holds them already nothing is copied.
    """

    def __init__(
        self, strings: "Sequence[str] | pd.Series | pd.Index | pa.Array | pa.ChunkedArray"
    ) -> None:
        import pyarrow as pa

        kinds = (pa.string(), pa.large_string())
        found: Any = strings.column if isinstance(strings, Texts) else strings
        if isinstance(found, pd.Series | pd.Index):
            of_arrow = isinstance(found.dtype, pd.StringDtype | pd.ArrowDtype)
            found = pa.array(found.array) if of_arrow else found.to_numpy(object)
        if not isinstance(found, pa.Array | pa.ChunkedArray):
            found = pa.array(found, kinds[1])
        whole = found if isinstance(found, pa.ChunkedArray) else pa.chunked_array([found])
        whole = whole if whole.type in kinds else whole.cast(kinds[1])
        if whole.null_count:
            raise ValueError("a string is missing")
        self.column = whole
        self.chunks = [chunk for chunk in whole.chunks if len(chunk)]
        self._ends = np.cumsum([len(chunk) for chunk in self.chunks])

    def __len__(self) -> int:
        """Return the number of strings."""
        return len(self.column)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> "Texts": ...
    def __getitem__(self, place: int | slice) -> "str | Texts":
        """Return one string, or the strings of a slice."""
        if isinstance(place, slice):
            start, stop, step = place.indices(len(self))
            if step != 1:
                return self.take(np.arange(start, stop, step))
            return Texts(self.column.slice(start, max(0, stop - start)))
        number = place + len(self) if place < 0 else place
        if not 0 <= number < len(self):
            raise IndexError(place)
        chunk = int(np.searchsorted(self._ends, number, side="right"))
        begin = int(self._ends[chunk - 1]) if chunk else 0
        return self.chunks[chunk][int(number) - begin].as_py()

    def __iter__(self) -> Iterator[str]:
        """Yield the strings; few of them exist at once."""
        for start in range(0, len(self), AT_ONCE):
            yield from self.column.slice(start, AT_ONCE).to_pylist()

    def __eq__(self, other: object) -> bool:
        """Tell whether another sequence holds the same strings in the same order."""
        if isinstance(other, Texts):
            theirs = other.column
            theirs = theirs if theirs.type == self.column.type else theirs.cast(self.column.type)
            return len(self) == len(other) and self.column.equals(theirs)
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[np.object_]:  # noqa: ANN401
        """Return all of them as Python's strings, for what knows nothing else."""
        return np.asarray(self.column.to_pandas().to_numpy(object), dtype=dtype)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the strings of this sequence, and not all of the column that it is cut from."""
        import pyarrow as pa

        sink, batch = pa.BufferOutputStream(), pa.table({"": self.column})
        with pa.ipc.new_stream(sink, batch.schema) as stream:
            stream.write_table(batch)
        return _unpickled, (sink.getvalue().to_pybytes(),)

    def with_others(self, more: "Texts") -> "Texts":
        """Return these strings, then those of another column that are not among them."""
        import pyarrow as pa

        new = more.take(np.flatnonzero(self.find(more) < 0)).column.cast(pa.large_string())
        mine = self.column.cast(pa.large_string())
        return Texts(pa.chunked_array([*mine.chunks, *new.chunks], pa.large_string()))

    def take(self, places: NDArray[np.integer[Any]]) -> "Texts":
        """Return the strings at some places; a copy."""
        import pyarrow as pa

        return Texts(self.column.take(pa.array(places)))

    def find(self, wanted: "Texts") -> NDArray[np.int64]:
        """Return the place of each wanted string among these, which differ; -1 for none.

        Where both are sorted, as most columns of ids are, they are compared block by block, and
        little memory is needed; else by one table of all.
        """
        rows = np.full(len(wanted), -1, np.int64)
        starts = range(0, len(self), AT_ONCE)
        cuts = [bisect_left(wanted, self[start]) for start in starts]
        cuts = [*np.maximum.accumulate([0, *cuts[1:]]).tolist(), len(wanted)] if len(self) else []
        for start, (begin, end) in zip(starts, pairwise(cuts), strict=True):
            found = _places(wanted.column.slice(begin, end - begin), self.column, start, AT_ONCE)
            rows[begin:end] = np.where(found < 0, -1, found + start)
        lost = np.flatnonzero(rows < 0)
        if len(lost):
            rows[lost] = _places(wanted.take(lost).column, self.column, 0, len(self))
        return rows

    def ends_with(self, suffixes: Sequence[str]) -> NDArray[np.bool_]:
        """Tell which strings end with one of some suffixes, bool (n,), as str.lower() has them.

        `suffixes` are lower-case ASCII, of at most eight letters.
        """
        parts = [_ends(chunk, suffixes) for chunk in self.chunks]
        return np.concatenate(parts) if parts else np.zeros(0, bool)

    def sha256(self) -> bytes:
        """Return a fingerprint of the strings and their order, however they lie in memory."""
        lengths, letters = hashlib.sha256(), hashlib.sha256()
        for chunk in self.chunks:
            starts, data = _buffers(chunk)
            letters.update(data[starts[0] : starts[-1]].data)
            for begin in range(0, len(chunk), AT_ONCE):
                part = starts[begin : begin + AT_ONCE + 1]
                lengths.update(np.diff(part).astype("<u4").data)
        return hashlib.sha256(lengths.digest() + letters.digest()).digest()


def texts_of(values: Sequence[str] | pd.Series) -> Sequence[str]:
    """Return strings to be read one by one: a table's column where it lies, others as a list."""
    if isinstance(values, pd.Series):
        return Texts(values)
    return values if isinstance(values, Texts) else list(values)


def hashes_of(texts: Sequence[str]) -> Hashes:
    """Return a 64-bit hash of each string, the same in every process.

    It tells apart what nobody has made to collide: of ten million strings two are taken for one in
    three of a million sets of them.
    """
    if not isinstance(texts, Texts):  # names that are not UTF-8, too
        coded = [text.encode(errors="surrogateescape") for text in texts]
        starts = np.concatenate([[0], np.cumsum([len(one) for one in coded], dtype=np.int64)])
        return hashes_of_bytes(starts, np.frombuffer(b"".join(coded), np.uint8))
    parts = [hashes_of_bytes(*_buffers(chunk)) for chunk in texts.chunks]
    return np.concatenate(parts) if parts else np.zeros(0, np.uint64)


def hash_of(text: str) -> int:
    """Return the hash of one string, as `hashes_of` has it; in a tenth of the time for one."""
    coded = text.encode(errors="surrogateescape")
    state = len(coded) * int(_BEGIN) & _ALL
    for begin in range(0, len(coded), _WORD):
        state = _mixed(state, int.from_bytes(coded[begin : begin + _WORD], "little"))
    return _mixed(state, state >> 32)


def hashes_of_bytes(starts: NDArray[np.integer[Any]], data: NDArray[np.uint8]) -> Hashes:
    """Return `hashes_of` strings that lie in `data` one behind the other.

    The last of `starts` is only an end.
    """
    starts, ends = starts[:-1], starts[1:]
    found = np.empty(len(starts), np.uint64)
    for begin in range(0, len(starts), AT_ONCE):
        first, last = starts[begin : begin + AT_ONCE], ends[begin : begin + AT_ONCE]
        low, high = int(first.min()), int(last.max())
        part = np.append(data[low:high], np.zeros(_WORD, np.uint8))
        words = np.lib.stride_tricks.as_strided(
            part.view(np.uint8)[:_WORD].view("<u8"), (high - low + 1,), (1,), writeable=False
        )
        place, left = first.astype(np.int64) - low, (last - first).astype(np.int64)
        state = left.astype(np.uint64) * _BEGIN
        rows = np.arange(len(place))
        while len(rows := rows[left[rows] > 0]):
            kept = np.minimum(left[rows], _WORD).astype(np.uint64)
            word = words[place[rows]] & (~np.uint64(0) >> (np.uint64(64) - np.uint64(8) * kept))
            state[rows] = mixed(state[rows], word)
            place[rows] += _WORD
            left[rows] -= _WORD
        found[begin : begin + AT_ONCE] = mixed(state, state >> np.uint64(32))
    return found


def mixed(one: Hashes, other: Hashes) -> Hashes:
    """Return a hash of two numbers, of which either decides all bits."""
    both = (one ^ other) * _SPREAD
    both ^= both >> np.uint64(29)
    both *= _BEGIN
    return both ^ (both >> np.uint64(32))


def _mixed(one: int, other: int) -> int:
    both = (one ^ other) * int(_SPREAD) & _ALL
    both ^= both >> 29
    both = both * int(_BEGIN) & _ALL
    return both ^ (both >> 32)


def _unpickled(stream: bytes) -> Texts:
    import pyarrow as pa

    return Texts(pa.ipc.open_stream(stream).read_all().column(0))


def _places(
    wanted: "pa.ChunkedArray", among: "pa.ChunkedArray", start: int, count: int
) -> NDArray[np.int64]:
    """Return the place of each wanted string in a part of a column, -1 for none."""
    from pyarrow.compute import SetLookupOptions, call_function

    part = among.slice(start, count).combine_chunks()
    wanted = wanted if wanted.type == part.type else wanted.cast(part.type)
    found = call_function("index_in", [wanted], SetLookupOptions(part))
    return found.fill_null(-1).to_numpy().astype(np.int64)


def _buffers(chunk: "pa.Array") -> tuple[NDArray[np.integer[Any]], NDArray[np.uint8]]:
    """Return where each string of an array begins (and the last one ends), and all bytes."""
    import pyarrow as pa

    _, places, letters = chunk.buffers()
    kind = np.int64 if chunk.type == pa.large_string() else np.int32
    size = np.dtype(kind).itemsize
    starts = np.frombuffer(places, kind, len(chunk) + 1, chunk.offset * size)
    data = np.frombuffer(letters, np.uint8) if letters is not None else np.zeros(0, np.uint8)
    return starts, data


def _ends(chunk: "pa.Array", suffixes: Sequence[str]) -> NDArray[np.bool_]:
    starts, data = _buffers(chunk)
    found = np.zeros(len(chunk), bool)
    longest = max(map(len, suffixes))
    for begin in range(0, len(chunk), AT_ONCE):
        places = starts[begin : begin + AT_ONCE + 1]
        ends, lengths = places[1:], np.diff(places)
        letters = data[places[0] : places[-1]]
        if not len(letters):
            continue
        # The last bytes of each string as one number; bit 5 makes letters small.
        tail = np.zeros(len(ends), np.uint64)
        for back in range(longest):
            byte = data[np.maximum(ends - 1 - back, 0)] | 0x20
            tail |= byte.astype(np.uint64) << np.uint64(8 * back)
        part = found[begin : begin + AT_ONCE]
        for size in {len(suffix) for suffix in suffixes}:
            alike = [int.from_bytes(s.encode(), "big") for s in suffixes if len(s) == size]
            last = tail & np.uint64(2 ** (8 * size) - 1)
            part |= np.isin(last, np.array(alike, np.uint64)) & (lengths >= size)
        if letters.max() > 127 or letters.min() < 32:  # what bit 5 makes of these is another matter
            for row, text in enumerate(chunk.slice(begin, len(ends)).to_pylist()):
                part[row] = text.lower().endswith(tuple(suffixes))
    return found
