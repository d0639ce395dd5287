"""How a JPEG was quantised: all of its tables, against those of libjpeg."""

from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.data.audit_words import digest

ORDINARY = "the usual"  # name of tables that some quality of libjpeg gives
APART = "the usual, chroma of another quality"
# Quantisation of luma and chroma (ITU-T T.81, 1992, tables K.1 and K.2), row by row.
_LUMA = np.array([
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55,
    14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
])  # fmt: skip
_CHROMA = np.full((8, 8), 99)
_CHROMA[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]
_BASES = {"luma": _LUMA, "chroma": _CHROMA.reshape(-1)}


class Tables(NamedTuple):
    """Quantisation tables of a JPEG; -1 and "" where there are none.

    Attributes:
        quality: of libjpeg whose luma table is nearest, 1 to 100.
        luma: mean of the luma table.
        chroma_quality: of libjpeg whose chroma table is nearest.
        number: of tables.
        name: "the usual" where these are exactly the tables that libjpeg writes at `quality`;
            where chroma alone has another quality, that in words; else a fingerprint of all.
    """

    quality: int
    luma: float
    chroma_quality: int
    number: int
    name: str


def read_tables(tables: Mapping[int, Sequence[int]], used: Sequence[int]) -> Tables:
    """Judge tables.

    Args:
        tables: number -> 64 values, row by row.
        used: the table number of each component; luma first.
    """
    if not tables:
        return Tables(-1, -1.0, -1, -1, "")
    return _judge(tuple((k, tuple(tables[k])) for k in sorted(tables)), tuple(used))


@lru_cache(4096)
def _judge(tables: tuple[tuple[int, tuple[int, ...]], ...], used: tuple[int, ...]) -> Tables:
    by_number = {number: np.array(values) for number, values in tables}
    known = [number for number in used if number in by_number]
    luma = by_number[known[0] if known else min(by_number)]
    quality, exact = nearest_quality(luma)
    chroma = by_number[known[1]] if len(known) > 1 else None
    chroma_quality, chroma_exact = -1, True
    if chroma is not None:
        # At the lowest qualities several tables are equal: the luma's quality is tried first.
        same = bool((_tables("chroma")[quality - 1] == chroma).all())
        chroma_quality, chroma_exact = (
            (quality, True) if same else nearest_quality(chroma, "chroma")
        )
    plain = exact and chroma_exact and known == [0, 1, 1][: len(known)]
    if plain and len(tables) == len(set(known)):
        name = ORDINARY if chroma_quality in (-1, quality) else APART
    else:
        name = digest(repr((tables, used)).encode())
    return Tables(quality, float(luma.mean()), chroma_quality, len(tables), name)


def nearest_quality(table: NDArray[np.integer], base: str = "luma") -> tuple[int, bool]:
    """Return the libjpeg quality whose table is nearest to (64,), and whether it is equal."""
    away = np.abs(_tables(base) - table).sum(1)
    best = int(away.argmin())
    return best + 1, not away[best]


@cache
def _tables(base: str) -> NDArray[np.int64]:
    """Return libjpeg's `luma` or `chroma` tables of quality 1 to 100, (100, 64) (jcparam.c)."""
    quality = np.arange(1, 101)[:, None]
    scale = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    return np.clip((_BASES[base] * scale + 50) // 100, 1, 255)
