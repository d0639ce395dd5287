"""Texts of a PNG, and comments of other pictures: where generators keep prompts and settings."""

from collections.abc import Iterator
from itertools import islice

from src.data.provenance.finding import (
    STATED,
    TOO_LARGE,
    Finding,
    NotReadError,
    because,
    finding,
)  # fmt: skip
from src.data.provenance.generators import of_text
from src.data.provenance.opened import READERS, Notes, OpenedFile
from src.data.provenance.source_types import of_credit, of_software

PNG_TEXT, COMMENT = "png_text", "comment"
MOST_TEXTS = 60
_TOOLS = ("software", "source", "generator", "application", "creator", "producer")
_TIMES = ("creation time", "date:create", "date:modify", "date:timestamp", "creationtime")


@READERS.register(PNG_TEXT)
def read_png_text(file: OpenedFile) -> Iterator[Finding]:
    """Yield what the texts of a PNG say, those behind its pixels too.

    Raises:
        NotReadError: its texts are broken, after what could be read.
    """
    if file.kind == "png":
        yield from _of_texts(PNG_TEXT, file.notes)


@READERS.register(COMMENT)
def read_comment(file: OpenedFile) -> Iterator[Finding]:
    """Yield what the comments of a JPEG, GIF or JPEG 2000 say.

    Raises:
        NotReadError: a broken file, after what could be read.
    """
    if file.kind in ("jpeg", "gif", "jp2"):
        yield from _of_texts(COMMENT, file.notes)


def _of_texts(source: str, notes: Notes) -> Iterator[Finding]:
    for key, text, left_out in islice(notes.texts, MOST_TEXTS):
        yield from list(of_text(source, key, text)) or [_other(source, key, text)]
        if left_out:
            yield finding(source, key, "a text of which only the start was read", "note", STATED)
    problem = notes.problems.get(source)
    if problem:
        raise NotReadError(problem)
    if len(notes.texts) > MOST_TEXTS:
        raise because(TOO_LARGE, f"{len(notes.texts):,} texts; the first {MOST_TEXTS} are read")


def _other(source: str, key: str, text: str) -> Finding:
    """Return what a text means that is no generator's, by its key."""
    name = key.lower()
    if name in _TOOLS:
        return finding(source, key, text, of_software(text), STATED)
    means = "time" if name in _TIMES else of_credit(text, "note")
    return finding(source, key, text, means, STATED)
