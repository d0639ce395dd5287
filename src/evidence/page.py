"""Evidence as one page that loads nothing."""

from collections.abc import Sequence

from src.evidence.evidence import FileEvidence
from src.pages.environment import ENGLISH, render


def evidence_page(found: Sequence[FileEvidence], language: str = ENGLISH) -> str:
    """Return the page of some files: HTML with its style and pictures in it.

    Raises:
        UserError: a language that there is not.
    """
    return render("look.html.j2", language, found=found)
