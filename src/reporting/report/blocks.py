"""What a page of the report is made of: sections of words, tables, pictures and items.

Links are paths on disk until a page is written: only then it is known from where they lead.
"""

import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import quote

import pandas as pd

from src.artifacts.files import write_csv, write_text
from src.pages.environment import render
from src.reporting.charts import new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NUMBER = re.compile(r"[-+]?\d|–$|$")
TEMPLATE = "report.html.j2"
WIDE, HIGH, SCALE = (
    5.2,
    3.7,
    1.5,
)  # inches of a picture of one plot; its text stays legible on a phone


@dataclass(frozen=True)
class Cell:
    """A cell of a table that is more than text."""

    text: str
    link: Path | None = None  # a file or folder of the report
    share: float | None = None  # 0..1, drawn as a bar beside the text


@dataclass(frozen=True)
class Grid:
    """Rows of cells under a head; the first column names the rows."""

    head: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    csv: Path | None = None  # where all its numbers are
    note: str = ""
    kind: ClassVar[str] = "table"

    @property
    def is_number(self) -> list[bool]:
        """Tell of which columns every cell is a number, with what stands behind it."""
        columns = zip(*self.cells(), strict=True)
        found = [all(NUMBER.match(one.text) for one in column) for column in columns]
        return [False, *found[1:]] if found else [False] * len(self.head)

    def cells(self) -> list[list[Cell]]:
        """Return the rows with every cell of one kind."""
        return [[one if isinstance(one, Cell) else Cell(one) for one in row] for row in self.rows]


@dataclass(frozen=True)
class Picture:
    """A drawn picture; its numbers lie in the CSV of its stem."""

    path: Path
    title: str
    alt: str  # what is seen, for who does not see it
    is_plot: bool = True  # lines on white, which a dark page may turn round
    is_wide: bool = False  # of several plots: a phone scrolls it
    kind: ClassVar[str] = "picture"

    @property
    def csv(self) -> Path | None:
        """Return the CSV beside it; None where there is none."""
        path = self.path.with_suffix(".csv")
        return path if path.is_file() else None


@dataclass(frozen=True)
class Pictures:
    """Pictures beside each other."""

    pictures: Sequence[Picture]
    kind: ClassVar[str] = "pictures"


@dataclass(frozen=True)
class Words:
    """A paragraph."""

    text: str
    soft: bool = False
    kind: ClassVar[str] = "words"


@dataclass(frozen=True)
class Missing:
    """Something that is not there."""

    text: str  # what, or why not
    command: str = ""  # that makes it
    kind: ClassVar[str] = "missing"


@dataclass(frozen=True)
class Folded:
    """Text that is shown on demand, as it is."""

    title: str
    text: str
    kind: ClassVar[str] = "folded"


@dataclass(frozen=True)
class Thumbnail:
    """A thumbnail."""

    item_id: str
    words: str  # what is said of it
    picture: bytes | None  # PNG or JPEG
    why: str = ""  # there is no picture
    file: Path | None = None  # the item's own, outside of the report


@dataclass(frozen=True)
class Thumbnails:
    """Thumbnails in a grid, under a heading."""

    title: str
    items: Sequence[Thumbnail]
    look: str = ""  # `real` or `fake`: the colour of their heading
    csv: Path | None = None  # their numbers
    kind: ClassVar[str] = "items"


Block = Grid | Picture | Pictures | Words | Missing | Folded | Thumbnails


@dataclass(frozen=True)
class Section:
    """A heading of a page and what stands under it."""

    anchor: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """A page."""

    path: Path
    title: str
    above: Sequence[tuple[str, Path]]  # pages that it belongs to, from the top
    lead: Sequence[str]  # sentences
    sections: Sequence[Section]
    keys: Sequence[tuple[str, str]] = field(default=())  # figures that stand out: what, how much


def draw(
    path: Path, title: str, alt: str, plot: Callable[["Axes"], object], table: pd.DataFrame
) -> Picture:
    """Draw a picture of one plot, and write its numbers beside it; `path` is a PNG."""
    figure = new_figure(WIDE, HIGH)
    plot(figure.subplots())
    save_figure(figure, path, SCALE)
    write_csv(path.with_suffix(".csv"), table)
    return Picture(path, title, alt)


def write_page(page: Page) -> Path:
    """Write a page whole or not at all; its links lead from where it lies.

    Raises:
        UserError: the disk is full or forbidden.
    """
    home = page.path.parent

    def link(path: Path) -> str:
        return quote(os.fsencode(os.path.relpath(path, home)))

    write_text(page.path, render(TEMPLATE, page=page, link=link))
    return page.path


def figure(value: float, digits: int = 4) -> str:
    """Return a number as text; a dash for what is not known."""
    return "–" if math.isnan(value) else f"{value:,.{digits}f}"
