"""An item as members of a tar, as WebDataset wants them: one key, side by side, lower-case fields.

https://github.com/webdataset/webdataset: a member's key ends at the first dot of its file name, the
rest is the field; the members of a sample follow one another.
"""

import json
import re
import tarfile
from typing import Any

from src.data.items.files import kind_of, suffix_of
from src.data.pixels.formats import HEAD, file_format

MASK, CLASS, FACTS = "mask.png", "cls", "json"
BLOCK = tarfile.BLOCKSIZE
END = bytes(2 * BLOCK)  # of a tar
# What a key may not hold: the dot that would end it, what nobody sees, what is no name elsewhere.
_ESCAPED = re.compile(r"[%.\\\x00-\x1f\x7f]")
_EMPTY = re.compile(r"^/|/(?=/)|/$")  # a folder without a name


def key_of(split: str, item_id: str) -> str:
    """Return the key of an item; different items have different keys, none leads out of a folder.

    `train/a.b` becomes `train/a%2Eb`.
    """

    def escape(found: re.Match[str]) -> str:
        return f"%{ord(found[0]):02X}"

    return f"{split}/{_EMPTY.sub(escape, _ESCAPED.sub(escape, item_id))}"


def field_of(path: str, data: bytes) -> str:
    """Return the field of an item's file: its suffix, or what its bytes say where it has none."""
    if kind_of(path) is not None:
        return suffix_of(path)[1:]
    found = file_format(data[:HEAD])
    return "bin" if found == "unknown" else found


def facts_of(split: str, item_id: str, label: int | None, group: str, domain: str) -> bytes:
    """Return what a shard says of an item, as JSON."""
    facts: dict[str, Any] = {"item_id": item_id, "split": split}
    if label is not None:
        facts["label"] = label
    facts |= {"group": group, "domain": domain}
    return json.dumps(facts, ensure_ascii=False, separators=(",", ":")).encode()


def header(name: str, size: int) -> bytes:
    """Return what stands before a member's bytes; the same in every run and for every user."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info.tobuf(tarfile.PAX_FORMAT)


def padding(size: int) -> bytes:
    """Return what stands behind a member's bytes."""
    return bytes(-size % BLOCK)
