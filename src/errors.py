"""Errors that a user can act on, and the nearest known name for a mistyped one."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake the user can mend: the message says what, where, and what to do. Exit code 2."""


def message_of(error: UserError) -> str:
    """Return what the user should read, also of an error that a loader's process has wrapped."""
    text = str(error)
    # torch raises it again in the parent, with the worker's traceback as its message.
    return (
        text.partition("src.errors.UserError: ")[2].strip() if "\nOriginal Trace" in text else text
    )


class LockedError(UserError):
    """Another process is at work on the same artefact."""


def unknown_name(what: str, name: str, known: Iterable[str], hint: str = "") -> UserError:
    """Make the error for a name that does not exist.

    Args:
        what: kind of thing, as a user calls it ("model", "data set", "key").
        name: what was typed.
        known: the names that exist.
        hint: what to do when none of them is meant.

    Returns:
        An error that offers the nearest names and lists all of them.
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    parts = [f"unknown {what} {name!r}"]
    if near:
        parts.append("did you mean " + " or ".join(repr(n) for n in near) + "?")
    parts.append(f"known: {', '.join(names)}" if names else f"there is no {what} yet")
    if hint:
        parts.append(hint)
    return UserError("; ".join(parts))
