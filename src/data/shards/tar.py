"""A shard as it is written: its items one after the other, and where each of them is."""

import hashlib
import zlib
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple

import pyarrow as pa

from src.data.shards.members import (
    CLASS,
    END,
    FACTS,
    MASK,
    facts_of,
    field_of,
    header,
    key_of,
    padding,
)

BYTES, SHA256 = "bytes", "sha256"  # of a shard, beside the table of its items
_SCHEMA = pa.schema([
    ("row", pa.int64()), ("member", pa.string()), ("offset", pa.int64()), ("bytes", pa.int64()),
    ("crc", pa.int64()), ("mask", pa.string()), ("mask_offset", pa.int64()),
    ("mask_bytes", pa.int64()), ("mask_crc", pa.int64()),
])  # fmt: skip


class Packing(NamedTuple):
    """An item that goes into a shard."""

    row: int  # of the manifest
    split: str
    item_id: str
    path: str
    group: str
    domain: str
    label: int | None  # None of a test item


@dataclass
class _Columns:
    row: list[int] = field(default_factory=list)
    member: list[str] = field(default_factory=list)
    offset: list[int] = field(default_factory=list)
    bytes: list[int] = field(default_factory=list)
    crc: list[int] = field(default_factory=list)
    mask: list[str | None] = field(default_factory=list)
    mask_offset: list[int | None] = field(default_factory=list)
    mask_bytes: list[int | None] = field(default_factory=list)
    mask_crc: list[int | None] = field(default_factory=list)


class TarWriter:
    """Writes a shard into a file."""

    def __init__(self, file: BinaryIO) -> None:
        self.size = 0  # bytes so far
        self._file = file
        self._digest = hashlib.sha256()
        self._columns = _Columns()

    def add(self, item: Packing, data: bytes, mask: bytes | None) -> None:
        """Add an item's members: its file, its mask, its class, what is known of it."""
        key, rows = key_of(item.split, item.item_id), self._columns
        member = f"{key}.{field_of(item.path, data)}"
        rows.row.append(item.row)
        rows.member.append(member)
        rows.offset.append(self._member(member, data))
        rows.bytes.append(len(data))
        rows.crc.append(zlib.crc32(data))
        has = mask is not None
        rows.mask.append(f"{key}.{MASK}" if has else None)
        rows.mask_offset.append(self._member(f"{key}.{MASK}", mask) if has else None)
        rows.mask_bytes.append(len(mask) if has else None)
        rows.mask_crc.append(zlib.crc32(mask) if has else None)
        if item.label is not None:
            self._member(f"{key}.{CLASS}", b"%d" % item.label)
        facts = facts_of(item.split, item.item_id, item.label, item.group, item.domain)
        self._member(f"{key}.{FACTS}", facts)

    def end(self) -> pa.Table:
        """End the tar; returns where its items are, with its size and SHA-256 as metadata."""
        self._write(END)
        facts = {BYTES: str(self.size), SHA256: self._digest.hexdigest()}
        return pa.table(vars(self._columns), schema=_SCHEMA.with_metadata(facts))

    def _member(self, name: str, data: bytes) -> int:
        """Add a member; returns where its bytes begin."""
        self._write(header(name, len(data)))
        offset = self.size
        self._write(data)
        self._write(padding(len(data)))
        return offset

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self.size += len(data)


def size_of(table: pa.Table) -> int:
    """Return the bytes of the shard that a table of `TarWriter.end` is of."""
    return int(table.schema.metadata[BYTES.encode()])


def sha256_of(table: pa.Table) -> str:
    """Return its SHA-256."""
    return table.schema.metadata[SHA256.encode()].decode()
