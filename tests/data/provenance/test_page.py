"""The words of the page: every code has its sentence, what files hold is shown as text."""

import pytest

from src.data.provenance.finding import MEANINGS, REASONS, STRENGTHS, Finding, Provenance
from src.data.provenance.opened import READERS
from src.pages import environment
from src.pages.environment import LANGUAGES, words
from tests.data.provenance.files import packet, picture, png, read, text
from tests.pages.test_environment import Reader


def page(record, language="en"):
    template = environment._environment().from_string(
        '{% from "provenance.html.j2" import provenance %}{{ provenance(record, say) }}'
    )
    return template.render(record=record, say=words(language))


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_code_has_its_sentence(language):
    say = words(language)
    for code in MEANINGS:
        assert say(f"provenance.means_{code}")
    for code in STRENGTHS:
        assert say(f"provenance.strength_{code}")
        assert say(f"provenance.proves_{code}")
    for code in REASONS:
        assert say(f"provenance.reason_{code}")
    for code in READERS:
        assert say(f"provenance.source_{code}")
    every = Provenance(
        tuple(Finding("exif", "f", "v", means, strength) for means in MEANINGS
              for strength in STRENGTHS),
        {source: f"{why}: details" for source, why in zip(READERS, REASONS, strict=False)},
    )  # fmt: skip
    assert say("provenance.absence") in page(every.record(), language)


def test_what_a_file_holds_is_shown_as_text(tmp_path):
    bad = "<script>alert(1)</script><img src=x onerror=alert(1)>\u202e{{ 7 * 7 }}"
    long = bad + " word" * 300
    for data, name in (
        (png(text(bad[:20], bad), text("parameters", long)), "a.png"),
        (picture(xmp=packet("", f'xmp:CreatorTool="{bad.replace("<", "&lt;")}"')), "a.jpg"),
    ):
        shown = page(read(tmp_path, data, name).record())
        reader = Reader()
        reader.feed(shown)
        assert not {"script", "img"} & set(reader.tags)
        assert "{{ 7 * 7 }}" in reader.text
        assert "\u202e" not in shown


def test_nothing_found_says_that_this_proves_nothing(tmp_path):
    shown = page(read(tmp_path, b"text").record())
    assert words("en")("provenance.absence") in shown
    assert "not possible for files of this kind" in shown
