"""Pages escape all that is put in, and both languages say the same things."""

import re
import string
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.errors import UserError
from src.inference import bundle
from src.pages import environment
from src.pages.environment import LANGUAGES, WORDS, plain, render, words
from src.strict_yaml import read_mapping
from tests.conftest import REPO

PARTS = sorted({path.name.split(".")[0] for path in WORDS.glob("*.yaml")})


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text += data


@given(st.text(st.characters(codec="utf-8"), max_size=40))
def test_what_is_put_in_is_text(text):
    page = environment._environment().from_string("<p>{{ name }}</p>").render(name=text)
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.tags == ["p"]
    assert reader.text == plain(text)


def test_marks_that_turn_the_writing_around_are_shown_by_number():
    assert plain("a\u202egpj.exe\x1b[2J\udce9") == "a\\u202egpj.exe\\x1b[2J\\udce9"
    assert plain("사진\n한 장") == "사진\n한 장"


def test_no_template_switches_escaping_off():
    found = [
        path.name
        for path in environment.TEMPLATES.iterdir()
        if re.search(r"\|\s*safe\b|autoescape", path.read_text())
    ]
    assert found == []


@pytest.mark.parametrize("part", PARTS)
def test_languages_have_the_same_keys_and_the_same_values(part):
    tables = {name: read_mapping(WORDS / f"{part}.{name}.yaml") for name in LANGUAGES}
    first = tables["en"]
    for table in tables.values():
        assert set(table) == set(first)
        for key, text in table.items():
            assert _values(text) == _values(first[key]), (part, key)


def _values(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_an_unknown_language_lists_what_there_is():
    with pytest.raises(UserError, match="en, ko"):
        words("xx")
    assert (REPO / "src/pages/templates/base.html.j2").is_file()
    with pytest.raises(UserError):
        render("base.html.j2", "xx")


def test_a_bundle_brings_what_pages_are_made_of():
    packed = set(bundle._code())
    made_of = [path for home in (environment.TEMPLATES, WORDS) for path in home.iterdir()]
    static = [path for path in (REPO / "src/web/static").iterdir() if path.is_file()]
    names = {path.relative_to(REPO).as_posix() for path in [*made_of, *static]}
    assert names - packed == set()
