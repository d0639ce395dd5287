"""One thing that a file says of itself: what it means and what it can prove."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

MOST_LETTERS = 2000
MOST_LINES = 60
MOST_FINDINGS = 200  # of one source: a file may repeat itself for ever

# What a finding can prove, strongest first.
SIGNED = "signed"  # by a certificate that anchors given by the user vouch for
SIGNED_UNTRUSTED = "signed_untrusted"  # the signature fits, nobody vouches for who made it
STATED = "stated"  # anybody can write it
HINT = "hint"  # what usually writes files like this one
STRENGTHS = (SIGNED, SIGNED_UNTRUSTED, STATED, HINT)

# What a finding means, what people look for first. Each has its sentence on the page.
MEANINGS = (
    "signature_invalid", "ai_generated", "ai_edited", "ai_suspected", "ai_data", "ai_tool",
    "synthetic", "synthetic_part", "composite", "enhanced", "edited", "drawn", "screen", "scan",
    "camera", "no_pixels", "source_type",
    "signed_by", "untrusted_signer", "action", "ancestor", "mining",
    "prompt", "workflow", "editor", "software", "time", "place", "thumbnail", "maker_note",
    "credit", "note", "remote_manifest", "renamed", "writer", "own_tables", "parts",
)  # fmt: skip
_RANK = {name: rank for rank, name in enumerate((*STRENGTHS, *MEANINGS))}

# Why a source was not looked at; `not_read` holds one of these, or one with `: ` and the details.
EXTRA_MISSING = "extra_missing"
UNSUPPORTED = "unsupported"
DAMAGED = "damaged"
NOT_FETCHED = "not_fetched"
UNREADABLE = "unreadable"
TOO_LARGE = "too_large"  # of this source only a part was read
REASONS = (EXTRA_MISSING, UNSUPPORTED, DAMAGED, TOO_LARGE, NOT_FETCHED, UNREADABLE)


@dataclass(frozen=True)
class Finding:
    """One thing that a file says of itself."""

    source: str  # where it stands: "c2pa", "iptc", "xmp", "exif", "png_text", "jpeg_tables" ...
    field: str  # the file's own name for it
    value: str  # as text without control characters, of one line or several
    means: str  # of `MEANINGS`
    strength: str  # of `STRENGTHS`


@dataclass(frozen=True)
class Provenance:
    """All that a file says of itself."""

    findings: tuple[Finding, ...]  # strongest first
    not_read: dict[str, str]  # source -> why it was not looked at: `REASON` or `REASON: details`

    def record(self) -> dict[str, Any]:
        """Return it as JSON can hold it, each finding under the names of `Finding`."""
        return {
            "findings": [dict(vars(finding)) for finding in self.findings],
            "not_read": dict(self.not_read),
        }


class NotReadError(Exception):
    """A source that was not looked at; the message is one of `REASONS`, or one with details."""


def because(reason: str, details: object = "") -> NotReadError:
    """Return the error that says why a source was not looked at."""
    said = clean(details, 300)
    return NotReadError(f"{reason}: {said}" if said else reason)


def finding(source: str, field: object, value: object, means: str, strength: str) -> Finding:
    """Return a finding, its words cleaned and cut."""
    return Finding(source, clean(field, 80), clean(value), means, strength)


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return findings strongest first, then what people look for first; none twice, none empty."""
    said = dict.fromkeys(one for one in findings if one.value)
    return tuple(sorted(said, key=lambda one: (_RANK[one.strength], _RANK[one.means])))


def clean(value: object, most: int = MOST_LETTERS) -> str:
    """Return what a file holds as text: its line ends stay, other unseen marks are spaces.

    Bytes are UTF-8, or else Latin-1. What is longer than `most` letters says how much was cut.
    """
    room = 4 * most  # bytes or letters that are looked at; spaces at the ends may go
    whole = value if isinstance(value, bytes | bytearray) else "" if value is None else str(value)
    cut = max(0, len(whole) - room)
    text = whole[:room] if isinstance(whole, str) else decoded(bytes(whole[:room]), cut=cut > 0)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = "".join(c if c.isprintable() or c == "\n" else " " for c in text)
    lines = [line.rstrip() for line in text.strip().split("\n")]
    cut += sum(map(len, lines[MOST_LINES:]))
    text = "\n".join(lines[:MOST_LINES]).strip()
    cut += max(0, len(text) - most)
    if not cut:
        return text
    note = f" [... {cut:,} more letters]"
    return text[: most - len(note)].rstrip() + note


def decoded(data: bytes, *, cut: bool = False) -> str:
    """Return bytes as UTF-8 where they are that, else as Latin-1; a cut may go through a letter."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        if cut and error.start >= len(data) - 3:
            return data[: error.start].decode()
    return data.decode("latin-1")


def listed(fields: Mapping[str, object]) -> str:
    """Return what has a value as `name: value; name: value`."""
    return "; ".join(
        f"{name}: {value}" for name, value in fields.items() if value not in ("", None)
    )
