"""Texts of a PNG, and comments of other pictures: where generators keep prompts and settings."""

from collections.abc import Iterator
from itertools import islice

from src.data.provenance.finding import DAMAGED, STATED, Finding, because, finding
from src.data.provenance.generators import of_text
from src.data.provenance.opened import READERS, OpenedFile
from src.data.provenance.source_types import of_credit, of_software

SOURCE = "png_text"
MOST_TEXTS = 60
_TOOLS = ("software", "source", "generator", "application", "creator", "producer")
_TIMES = ("creation time", "date:create", "date:modify", "date:timestamp", "creationtime")


@READERS.register(SOURCE)
def read_png_text(file: OpenedFile) -> Iterator[Finding]:
    """Yield what the texts of a picture say, those behind its pixels too.

    Raises:
        NotReadError: a broken file; or one whose texts are broken, after what could be read.
    """
    if not file.is_picture:
        return
    source = SOURCE if file.kind == "png" else "comment"
    for key, text, left_out in islice(file.notes.texts, MOST_TEXTS):
        told = list(of_text(source, key, text)) or [_other(source, key, text)]
        yield from told
        if left_out:
            yield finding(source, key, "a text of which only the start was read", "note", STATED)
    problem = file.notes.problems.get(SOURCE)
    if problem:
        raise because(DAMAGED, problem)


def _other(source: str, key: str, text: str) -> Finding:
    """Return what a text means that is no generator's, by its key."""
    name = key.lower()
    if name in _TOOLS:
        return finding(source, key, text, of_software(text), STATED)
    means = "time" if name in _TIMES else of_credit(text, "note")
    return finding(source, key, text, means, STATED)
