"""What ids fit: the strictest reading that fits any, held against the readings tried one by one."""

from unicodedata import normalize

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from src.data.items.files import without_suffix
from src.data.layouts import finder
from src.data.layouts.finder import FileIndex

WORDS = ["a", "b.jpg", "b.png", "d/a.jpg", "d/b.jpg", "e/d/b.jpg", "v1.2", "e\u0301.jpg",
         "\u00e9.jpg", "d/\u00e9.png", "\u00e9"]  # fmt: skip
NAMES = st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=2), max_size=9)
ASKED = st.lists(st.sampled_from([*WORDS, "./b.jpg", "/d/b.jpg", "d\\b.jpg", "b", "no"]))


def base(name: str) -> str:
    return name.rpartition("/")[2]


READINGS = (str, without_suffix, base, lambda name: without_suffix(base(name)))


def fits(names: list[list[str]], asked: str) -> list[int]:
    """Return the files (numbers) that an id fits, by trying everything."""
    asked = asked.replace("\\", "/").removeprefix("./").lstrip("/")
    for composed in (False, True):
        text = normalize("NFC", asked) if composed else asked
        for read in READINGS[: 2 if "/" in asked else 4]:
            keys = [[read(one) for one in some] for some in names]
            if composed:
                keys = [[normalize("NFC", k) for k in ks if not k.isascii()] for ks in keys]
            found = [10 * at for at, ks in enumerate(keys) if text in ks]
            if found:
                return found
        if asked.isascii():
            break
    return []


@pytest.mark.parametrize("alike", [False, True])
@settings(
    deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(NAMES, ASKED)
def test_an_index_finds_what_trying_everything_finds(monkeypatch, alike, names, asked):
    with monkeypatch.context() as patch:
        patch.setattr(finder, "_AT_ONCE", 3)
        if alike:  # hashes that tell little apart
            whole = finder.hashes_of
            patch.setattr(finder, "hashes_of", lambda texts: whole(texts) & 1)
        index = FileIndex([10 * at for at in range(len(names))], lambda n: tuple(names[n // 10]))
        found = index.find_all(asked)
        assert found == index.find_all(asked)
    assert [list(files) for files in found] == [fits(names, one) for one in asked]
    assert found.missing() == [at for at, one in enumerate(asked) if not fits(names, one)]
    assert found[:2] == list(found)[:2]
