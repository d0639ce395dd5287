"""What the first bytes of an AVI, a Matroska or a WebM file say; others are not read."""

from typing import BinaryIO

from src.data.audit_words import Value, clean

_HEAD = 65_536  # both name their writer and their tracks before the first frame
_WRITERS = (b"\x57\x41", b"\x4d\x80")  # WritingApp and MuxingApp of Matroska (RFC 9559)
_TRACK_OF_SOUND = b"\x83\x81\x02"  # TrackType, one byte, audio


def read_other(file: BinaryIO) -> dict[str, Value]:
    """Return the fields `software` and `audio`, as far as the container tells them.

    Args:
        file: open at any place.
    """
    file.seek(0)
    head = file.read(_HEAD)
    if head[:4] == b"RIFF":
        place = head.find(b"ISFT")
        length = int.from_bytes(head[place + 4 : place + 8], "little")
        said = head[place + 8 : place + 8 + length] if place >= 0 else b""
        return {"software": clean(said)[:60], "audio": float(b"strh\x38\0\0\0auds" in head)}
    if head[:4] == b"\x1aE\xdf\xa3":
        said = _writer(head, _WRITERS[0]) or _writer(head, _WRITERS[1])
        return {"software": said, "audio": float(_TRACK_OF_SOUND in head)}
    return {}


def _writer(head: bytes, entry: bytes) -> str:
    """Return an entry of text; its length is one byte, with the highest bit set."""
    place = head.find(entry)
    if place < 0 or place + 2 >= len(head) or head[place + 2] < 0x80:
        return ""
    return clean(head[place + 3 : place + 3 + (head[place + 2] & 0x7F)])[:60]
