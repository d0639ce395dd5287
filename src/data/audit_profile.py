"""The name that a colour profile gives itself (ICC.1:2022, clauses 7 and 10)."""

from src.data.audit_words import clean, digest

_DIRECTORY, _ENTRY = 128, 12


def profile_name(profile: bytes | None) -> str:
    """Return the description of an ICC profile, or its fingerprint where it has none; "" of none.

    Args:
        profile: the whole of it.
    """
    if not profile:
        return ""
    count = min(100, _number(profile, _DIRECTORY))
    for at in range(_DIRECTORY + 4, _DIRECTORY + 4 + _ENTRY * count, _ENTRY):
        if profile[at : at + 4] == b"desc":
            start = _number(profile, at + 4)
            name = _description(profile[start : start + _number(profile, at + 8)])
            if name:
                return name[:60]
    return digest(profile)


def _description(text: bytes) -> str:
    """Return the text of a tag of type `desc` (version 2) or `mluc` (version 4)."""
    if text[:4] == b"desc":
        return clean(text[12 : 12 + _number(text, 8)])
    if text[:4] == b"mluc":
        length, start = _number(text, 20), _number(text, 24)
        return clean(text[start : start + length].decode("utf-16-be", "replace"))
    return ""


def _number(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "big")
