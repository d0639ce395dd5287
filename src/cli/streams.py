"""Standard output and error that survive a reader who has gone, or that were never open."""

import io
import os
import sys
from typing import TextIO

# What moves a terminal's cursor, changes its state or turns round the text; names may hold it.
_UNSEEN = {
    code: f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
    for code in (
        *(code for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\r\t"),
        *range(0x202A, 0x202F), *range(0x2066, 0x206A),
    )
}  # fmt: skip


class Surviving:
    """A stream whose reader may go away: the work goes on, and what it says goes nowhere.

    Without it `tune.py | head -1` would end in the middle of what it was asked for.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write text, control characters as escapes; returns its length, also if nobody reads."""
        try:
            self._stream.write(text.translate(_UNSEEN))
        except BrokenPipeError:
            self._give_up()
        return len(text)

    def flush(self) -> None:
        """Flush what is buffered."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._give_up()

    def _give_up(self) -> None:
        # What is still buffered is written to the null device by the next flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def survive() -> None:
    """Make both standard streams ones that a command can always write to.

    A stream that was closed (`>&-`) is None in Python, and its number is free: the next file that
    is opened would take it, and whatever a library prints would be written into that file. A name
    that a terminal cannot show is printed as an escape.
    """
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            _occupy(number)
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - kept open
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
            setattr(sys, name, Surviving(stream))


def _occupy(number: int) -> None:
    """Let the null device stand at a descriptor that nothing holds."""
    try:
        os.fstat(number)
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        if null != number:
            os.dup2(null, number)
            os.close(null)
