"""A column of strings as a sequence: what a list would say, and no Python object for each."""

import pickle
import tracemalloc

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src import texts
from src.data.items.files import VIDEO_SUFFIXES
from src.texts import Texts, hash_of, hashes_of, texts_of

WORDS = st.lists(st.text(st.characters(codec="utf-8"), max_size=6), max_size=30)
KINDS = ["str", pd.StringDtype("pyarrow"), pd.StringDtype("python"), object]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(texts, "AT_ONCE", 4)


def in_pieces(words, kind=None):
    """Return words as a column in chunks of three, which begins in the midst of a buffer."""
    kind = kind or pa.large_string()
    parts = [pa.array(["x", *words[k : k + 3]], kind)[1:] for k in range(0, len(words), 3)]
    return Texts(pa.chunked_array(parts, kind))


@settings(deadline=None, max_examples=60)
@given(WORDS, st.sampled_from([pa.string(), pa.large_string()]))
def test_it_reads_as_the_list_does(words, kind):
    column = in_pieces(words, kind)
    assert len(column) == len(words)
    assert list(column) == words
    assert [column[k] for k in range(-len(words), len(words))] == words * 2
    assert list(column[1:-1]) == words[1:-1]
    assert list(column[::-2]) == words[::-2]
    assert column == words
    assert column == Texts(pa.array(words, pa.string()))
    assert column != [*words, "more"]
    assert np.asarray(column, object).tolist() == words
    assert list(reversed(column)) == words[::-1]
    for outside in (len(words), -len(words) - 1):
        with pytest.raises(IndexError):
            column[outside]


@settings(deadline=None, max_examples=60)
@given(WORDS, WORDS, st.booleans())
def test_a_join_finds_what_a_dictionary_finds(words, wanted, ordered):
    words = list(dict.fromkeys(words))
    if ordered:
        words, wanted = sorted(words), sorted([*wanted, *words[::2]])
    place = {word: k for k, word in enumerate(words)}
    found = in_pieces(words).find(in_pieces(wanted, pa.string()))
    assert found.tolist() == [place.get(word, -1) for word in wanted]
    wanted = list(dict.fromkeys(wanted))
    joined = in_pieces(words).with_others(in_pieces(wanted, pa.string()))
    assert list(joined) == [*words, *(word for word in wanted if word not in place)]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text("mpkMPKg4.tsvi\u212a\x0e/é", max_size=7), max_size=20))
def test_suffixes_are_those_of_lower_case(words):
    words = [*words, "a.MP4", "mp4", ".mp4", "", "b.m2ts", "x\x0emp4", "film.m\u212av"]
    ends = tuple(VIDEO_SUFFIXES)
    found = in_pieces(words).ends_with(ends)
    assert found.tolist() == [word.lower().endswith(ends) for word in words]


@settings(deadline=None, max_examples=60)
@given(WORDS)
def test_a_fingerprint_is_that_of_the_strings_and_not_of_their_place(words):
    mine = in_pieces(words).sha256()
    assert mine == Texts(words).sha256() == in_pieces(words, pa.string()).sha256()
    for other in ([*words, ""], ["".join(words)] if len(words) > 1 else ["new"], words[::-1]):
        assert (Texts(other).sha256() == mine) == (other == words)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_any_column_of_a_table_will_do(kind):
    column = pd.Series(["b", "", "ä"], index=[5, 3, 1], dtype=kind)
    assert list(texts_of(column)) == ["b", "", "ä"]
    with pytest.raises(ValueError, match="missing"):
        Texts(pd.Series(["b", None], dtype=kind))


def test_a_list_stays_a_list_whatever_its_names_hold():
    assert texts_of(("\udcff.png",)) == ["\udcff.png"]


def test_it_shares_the_memory_of_its_column_and_pickles_what_it_holds():
    many = pd.Series([f"train/{k:07d}.png" for k in range(100_000)], dtype="str")
    tracemalloc.start()
    try:
        part = Texts(many)[500:510]
        assert tracemalloc.get_traced_memory()[1] < 20_000
    finally:
        tracemalloc.stop()
    stored = pickle.dumps(part)
    assert len(stored) < 2_000
    assert pickle.loads(stored) == many[500:510].tolist()


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text(max_size=40), max_size=9))
def test_one_string_has_the_hash_that_it_has_among_others(words):
    words = [word.encode(errors="ignore").decode() for word in words] + ["\udcff.jpg"]
    assert hashes_of(words).tolist() == [hash_of(word) for word in words]
    assert hashes_of(in_pieces(words[:-1])).tolist() == hashes_of(words).tolist()[:-1]
