"""Errors that a user can act on, and the nearest known name for a mistyped one."""

import difflib
import errno
import re
from collections.abc import Iterable

_FULL = "the disk is full ({}): free some space, or put the artefacts on another disk (RVF_ROOT)"
_CLOSED = "no access ({}): check its permissions, or put the artefacts elsewhere (RVF_ROOT)"
_TROUBLES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: "the file is larger than this disk or `ulimit -f` allows ({})",
    errno.EACCES: _CLOSED,
    errno.EPERM: _CLOSED,
    errno.EROFS: _CLOSED,
    errno.EIO: "the disk failed ({})",
    errno.EMFILE: "too many files are open ({}): raise the limit (`ulimit -n`), or lower --workers",
    errno.ENFILE: "too many files are open ({}): lower --workers",
    errno.ENAMETOOLONG: "a name is too long for this disk ({})",
}


# As torch, cuDNN and OpenCV word it; their errors are of no kind of its own.
_NO_MEMORY = (
    "out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED",
    "Failed to allocate", "Insufficient memory",
)  # fmt: skip

# What moves a terminal's cursor, changes its state or turns round the text; names may hold it.
UNSEEN = {
    code: f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
    for code in (
        *(code for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\r\t"),
        *range(0x202A, 0x202F), *range(0x2066, 0x206A),
    )
}  # fmt: skip


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


def unknown_name(
    what: str, name: str, known: Iterable[str], hint: str = "", prefix: str = ""
) -> UserError:
    """Make the error for a name that does not exist.

    Args:
        what: kind of thing, as a user calls it ("model", "data set", "key").
        name: what was typed.
        known: the names that exist.
        hint: what to do when none of them is meant.
        prefix: what stands before all of them.

    Returns:
        An error that offers the nearest names and lists all of them.
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    parts = [f"unknown {what} {prefix + name!r}"]
    if near:
        parts.append("did you mean " + " or ".join(repr(prefix + n) for n in near) + "?")
    known = ", ".join(prefix + n for n in names)
    parts.append(f"known: {known}" if names else f"there is no {what} yet")
    if hint:
        parts.append(hint)
    return UserError("; ".join(parts))


def says_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory ran out: Python's, Arrow's, torch's or OpenCV's."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    return isinstance(error, Exception) and any(words in str(error) for words in _NO_MEMORY)


def memory_trouble(error: BaseException) -> str | None:
    """Say that memory, or room for processes, ran out and what to do; None for something else."""
    is_crowded = getattr(error, "errno", None) == errno.EAGAIN or "start new thread" in str(error)
    if says_out_of_memory(error):
        what = "memory ran out"
    elif is_crowded:
        what = "no further process or thread can be started here (`ulimit -u`)"
    else:
        return None
    return (
        f"{what} ({type(error).__name__}): lower --workers, close other programs, or go on where "
        "there is more; what is finished is kept, the same command goes on from there"
    )


def disk_trouble(error: BaseException) -> str | None:
    """Say what is wrong with the disk and what to do; None where the error is something else.

    Args:
        error: an OSError, or a library's own error that quotes one (safetensors, torch).
    """
    number = error.errno if isinstance(error, OSError) else None
    text = str(error)
    if number is None:
        quoted = re.search(r"os error (\d+)", text)
        number = int(quoted[1]) if quoted else None
    # torch says nothing of the cause; a disk that takes no more bytes is the common one.
    if number is None and re.search(
        "PytorchStreamWriter failed writing|unexpected pos |iostream error", text
    ):
        number = errno.ENOSPC
    advice = _TROUBLES.get(number or 0)
    if advice is None:
        return None
    reason = error.strerror if isinstance(error, OSError) and error.strerror else text
    done = "; what is finished is kept, the same command goes on from there"
    return advice.format(reason.splitlines()[0]) + (done if advice is _FULL else "")


class UnreadableImageError(ValueError):
    """The bytes are not an image that can be decoded."""
