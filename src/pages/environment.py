"""Pages from Jinja2 templates: all that is put in is escaped, and a page loads nothing.

A page is one file: its style is in it, with the hash that its content-security-policy allows, and
so are its pictures, or they lie beside it. What files and people name is shown as text, what would
move a cursor or turn the writing around by its number.
"""

import hashlib
from base64 import b64encode
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from src.errors import unknown_name
from src.strict_yaml import read_mapping

HOME = Path(__file__).resolve().parent
TEMPLATES, WORDS = HOME / "templates", HOME / "words"
LANGUAGES = {"en": "English", "ko": "한국어"}
ENGLISH = "en"
Say = Callable[..., str]  # (key, **values) -> the words of one language


def render(template: str, language: str = ENGLISH, **values: object) -> str:
    """Return a page.

    Args:
        template: a file of `src/pages/templates/`.
        language: of `LANGUAGES`; its words are the template's function `say`.
        **values: what the template shows; a name that is missing there is an error.

    Raises:
        UserError: a language that there is not.
    """
    return (
        _environment()
        .get_template(template)
        .render(**values, language=language, say=words(language), languages=LANGUAGES)
    )


@cache
def _environment() -> Environment:
    # Of itself Jinja2 escapes in files called .html alone, and what is missing it shows as nothing.
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, finalize=_shown,
    )  # fmt: skip
    environment.globals |= {"style": Markup(_style()), "style_hash": style_hash()}
    environment.filters |= {"data_uri": data_uri}
    return environment


@cache
def _style() -> str:
    return (TEMPLATES / "style.css").read_text(encoding="utf-8")


def style_hash() -> str:
    """Return the hash of the style that is in every page, for a server's policy."""
    return hash_of(_style())


def hash_of(text: str) -> str:
    """Return what a content-security-policy calls a style or script that stands in the page."""
    return f"sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def data_uri(picture: bytes) -> str:
    """Return a PNG or JPEG as the address of a picture that is in the page itself."""
    kind = "png" if picture.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{b64encode(picture).decode()}"


def plain(text: str) -> str:
    """Return text on which nothing acts: control and bidirectional marks by their numbers.

    Line ends stay; halves of surrogate pairs, which names of files may hold, are numbers too.
    """
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text
    )


def _shown(value: object) -> object:
    return plain(value) if isinstance(value, str) and not isinstance(value, Markup) else value


@cache
def words(language: str) -> Say:
    """Return the function that says a key of `words/<part>.<language>.yaml`, `<part>.<key>`.

    Raises:
        UserError: a language that there is not.
    """
    if language not in LANGUAGES:
        raise unknown_name("language", language, LANGUAGES)
    table = {
        f"{path.name.split('.')[0]}.{key}": str(text)
        for path in sorted(WORDS.glob(f"*.{language}.yaml"))
        for key, text in read_mapping(path).items()
    }
    return partial(_say, table)


def _say(table: dict[str, str], key: str, /, **values: object) -> str:
    return table[key].format(**values) if values else table[key]
