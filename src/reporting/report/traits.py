"""Errors by traits of files: does a model fail where files are of a kind?

What a net can still see of a file comes first, its name and notes last. Headers are those of a
sample, decisions out of fold.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src.artifacts.files import write_csv
from src.bootstrap import wilson_interval
from src.data.audit.fields import PATTERN
from src.data.audit.headers import NONE, without_rare_words
from src.data.audit.metadata import Headers
from src.ensemble.predictions import Decided
from src.reporting.report.blocks import Block, Cell, Grid, Words
from src.reporting.report.subjects import Reported, of_its_own

MOST_HEADERS = 4000  # files of which the header is read: about a second
MOST_VALUES, FEWEST = 8, 10  # of words, and items of one; the rest is one line
BANDS = 5  # of numbers, each of as many items
SIDE = "shorter side, px"
REST = "all others"
# name of a field -> heading; a net can see less of each than of the one before
NUMBERS = {
    "JPEG quality": "JPEG quality", SIDE: SIDE, "bytes": "bytes",
    "kbit a second": "clip, kbit a second", "seconds": "clip, seconds",
}  # fmt: skip
WORDS = {
    "format": "format", "JPEG chroma": "JPEG chroma", "codec": "clip, codec",
    "camera": "camera or device", "software": "software", PATTERN: "name (digits as #)",
}  # fmt: skip
COLUMNS = ("trait", "value", "items", "reals", "fakes", "errors", "error_rate", "low", "high")


def traits_of(headers: Headers) -> pd.DataFrame:
    """Return a column a trait, each a category in the order of its lines, indexed by item_id.

    A trait that is the same everywhere is left out.
    """
    table = headers.table
    short = table[["width", "height"]].min(axis=1) if len(table) else pd.Series(dtype=float)
    found = {}
    for name, heading in NUMBERS.items():
        values = short if name == SIDE else table[name]
        found[heading] = _bands(values.to_numpy(np.float64))
    for name, heading in WORDS.items():
        words = table[name]
        if name == PATTERN:  # what names share, not who or what each is called
            words = pd.Series(without_rare_words(words.tolist(), FEWEST), dtype=str)
        found[heading] = _common(words)
    kept = {name: values for name, values in found.items() if len(values.categories) > 1}
    return pd.DataFrame(kept, index=pd.Index(headers.items["item_id"]))


def _bands(values: NDArray[np.float64]) -> "pd.Categorical[str]":
    """Return numbers as bands of as many items each; few different ones each for itself."""
    known = values != NONE
    single = np.unique(values[known])
    if len(single) <= BANDS:
        names = [_short(value) for value in single]
        place = np.searchsorted(single, values)
    else:
        cuts = np.quantile(values[known], np.linspace(0, 1, BANDS + 1)[1:-1], method="lower")
        cuts = np.unique(cuts)
        place = np.searchsorted(cuts, values, "left")
        names = []
        for band in range(len(cuts) + 1):
            inside = values[known & (place == band)]
            ends = sorted({inside.min(), inside.max()}) if inside.size else []
            names.append(" to ".join(map(_short, ends)))
    held = np.unique(place[known])
    codes = np.searchsorted(held, place)
    codes[~known] = -1
    names = [names[band] for band in held]
    if not known.all() and known.any():
        names, codes = [*names, "none"], np.where(known, codes, len(names))
    return pd.Categorical.from_codes(codes, pd.Index(_apart(names)))


def _short(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.4g}"


def _apart(names: Sequence[str]) -> list[str]:
    """Return names of which none stands twice: numbers that look alike when they are short."""
    return [f"{name} ({names[:k].count(name) + 1})" if name in names[:k] else name
            for k, name in enumerate(names)]  # fmt: skip


def _common(words: pd.Series) -> "pd.Categorical[str]":
    """Return the most common words, and `REST` for the others."""
    named = words.astype(str).where(words != "", "none")
    counts = named.value_counts().sort_index().sort_values(ascending=False, kind="stable")
    kept = counts.index[counts >= FEWEST][:MOST_VALUES].tolist()
    if len(counts) > len(kept):
        rest = f"{REST} ({len(counts) - len(kept):,})"
        return pd.Categorical(named.where(named.isin(kept), rest), [*kept, rest])
    return pd.Categorical(named, kept)


def error_table(rows: Decided, traits: pd.DataFrame) -> pd.DataFrame:
    """Return `COLUMNS`: a row a value of a trait, with Wilson's 95 % interval of the error rate.

    Args:
        rows: decided out of fold.
        traits: as from `traits_of`; items that are in only one of both do not count.
    """
    place = pd.Index(rows.item_id).get_indexer(traits.index)
    held = place >= 0
    label, wrong = rows.label[place[held]], rows.pred[place[held]] != rows.label[place[held]]
    found = []
    for trait in traits:
        column = traits[trait].array[held]
        for code, value in enumerate(column.categories):
            here = column.codes == code
            items, fakes, errors = int(here.sum()), int(label[here].sum()), int(wrong[here].sum())
            if items:
                found.append([trait, value, items, items - fakes, fakes, errors, errors / items])
    table = pd.DataFrame(found, columns=pd.Index(COLUMNS[:7]))
    table["low"], table["high"] = wilson_interval(table["errors"], table["items"])
    return table


def trait_blocks(
    reported: Reported, headers: Headers, traits: pd.DataFrame, names: tuple[str, str]
) -> list[Block]:
    """Return a table of errors by traits of files; writes its CSV."""
    assert reported.rows is not None
    table = error_table(reported.rows, traits)
    if table.empty:
        return [Words("The files do not differ in any trait that is looked at.")]
    path: Path = reported.folder / "traits.csv"
    write_csv(path, table)
    lines: list[list[str | Cell]] = []
    for row in table.to_dict("records"):
        rate = f"{row['error_rate']:.1%} [{row['low']:.1%}, {row['high']:.1%}]"
        counted = (f"{row[key]:,}" for key in ("items", "reals", "fakes", "errors"))
        name = f"{row['trait']}: {row['value']}"
        lines.append([name, *counted, Cell(rate, share=row["error_rate"])])
    head = ["trait of the file", "items", *names, "errors", "error rate [95 %]"]
    seen = len(headers.table)
    sample = "" if seen + headers.unreadable >= headers.total else f" of {headers.total:,}"
    text = (
        f"Headers of {seen:,}{sample} train items"
        + (f", {headers.unreadable:,} more could not be read" if headers.unreadable else "")
        + f". Intervals are Wilson's and {of_its_own(reported.rows)}. Traits follow the label "
        "in many data sets: a rate that differs is a question, no cause."
    )
    return [Words(text, soft=True), Grid(head, lines, path)]
