"""XMP packets as flat properties, by a parser that knows no entities and no outside.

The standard library's expat with what makes XML dangerous refused: a document type declaration
(entities, external files) stops it, so do size, depth and number of properties. Nothing is built
in memory but the list of what is found. Names are resolved here: expat writes a namespace out anew
for every name that is in it, so that a long one and many names fill gigabytes.
"""

import codecs
from typing import NamedTuple
from xml.parsers import expat

from src.data.provenance.finding import DAMAGED, TOO_LARGE, because

MOST_BYTES = 8 * 2**20
MOST_DEPTH = 60
MOST_FOUND = 5000
MOST_ELEMENTS = MOST_ATTRIBUTES = 100_000
MOST_LETTERS = 100_000  # of one value
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_META = "adobe:ns:meta/"
_XML = "http://www.w3.org/XML/1998/namespace"
_DECLARES = "xmlns"
_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"),
         (codecs.BOM_UTF16_BE, "utf-16-be"))  # fmt: skip
_AROUND = "\0 \r\n\t"  # what may stand around the XML


class Property(NamedTuple):
    """A value of an XMP packet."""

    path: tuple[str, ...]  # names without namespace from the outermost, `History`, `softwareAgent`
    space: str  # namespace of the last name
    value: str

    @property
    def name(self) -> str:
        """Return its own name."""
        return self.path[-1]


def properties_of(packet: bytes) -> tuple[list[Property], str]:
    """Return the properties of a packet in its order, and why not all are read ("" if all are).

    Of structures and lists the innermost values; of a broken packet those before it breaks. The
    reason is one as in `Provenance.not_read`.
    """
    if len(packet) > MOST_BYTES:
        return [], str(because(TOO_LARGE, f"more than {MOST_BYTES:,} bytes"))
    text = _as_utf8(packet)
    if text.count(b"=") > MOST_ATTRIBUTES:  # all of an element are in memory at once
        return [], str(because(TOO_LARGE, f"more than {MOST_ATTRIBUTES:,} attributes"))
    reader = _PacketReader()
    parser = expat.ParserCreate("utf-8")
    parser.buffer_text = True
    parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
    parser.StartDoctypeDeclHandler = _refuse
    parser.EntityDeclHandler = _refuse
    parser.ExternalEntityRefHandler = _refuse
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    try:
        parser.Parse(text, True)
    except expat.ExpatError as error:
        return reader.found, str(because(DAMAGED, f"no XML ({error})"))
    except _RefusedError as error:
        return reader.found, str(because(DAMAGED, f"refused: {error}"))
    except _EnoughError:
        return reader.found, str(because(TOO_LARGE, "more properties than are looked at"))
    return reader.found, ""


def _refuse(*_: object) -> int:
    raise _RefusedError("it declares a document type or an entity, which XMP never does")


def _as_utf8(packet: bytes) -> bytes:
    """Return a packet as UTF-8: XMP may be UTF-16 too, with a mark in front of it or without."""
    for mark, name in _BOMS:
        if packet.startswith(mark):
            return _trimmed(packet[len(mark) :].decode(name, "replace"))
    if packet[:2] == b"\0<":
        return _trimmed(packet.decode("utf-16-be", "replace"))
    if packet[:2] == b"<\0":
        return _trimmed(packet.decode("utf-16-le", "replace"))
    return packet.strip(_AROUND.encode())


def _trimmed(text: str) -> bytes:
    return text.strip(_AROUND).encode("utf-8", "replace")


class _RefusedError(Exception):
    """XML that is not taken: it declares a document type, or is too deep."""


class _EnoughError(Exception):
    """More properties than are looked at."""


class _PacketReader:
    """Gathers properties while expat walks through a packet."""

    def __init__(self) -> None:
        self.found: list[Property] = []
        self._open: list[tuple[str, str]] = []  # (namespace, name) of each element around
        self._spaces: list[dict[str, str]] = []  # prefix -> namespace, as each of them declares it
        self._elements = 0
        self._text: list[str] = []
        self._length = 0

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if len(self._open) >= MOST_DEPTH:
            raise _RefusedError(f"more than {MOST_DEPTH} levels deep")
        self._elements += 1
        if self._elements > MOST_ELEMENTS:
            raise _EnoughError
        self._spaces.append(
            {
                name[len(_DECLARES) + 1 :]: value for name, value in attributes.items()
                if name.partition(":")[0] == _DECLARES
            }
        )  # fmt: skip
        self._open.append(self._resolved(tag))
        self._text, self._length = [], 0
        for name, value in attributes.items():
            if ":" not in name or name.startswith(_DECLARES):
                continue
            space, local = self._resolved(name)
            if space in (_XML, _META) or (space == _RDF and local != "resource"):
                continue
            if space == _RDF:
                self._add(value)
            else:
                self._add(value, (space, local))

    def text(self, text: str) -> None:
        room = MOST_LETTERS - self._length
        self._text.append(text[: max(0, room)])
        self._length += len(text)

    def end(self, tag: str) -> None:
        del tag
        value = "".join(self._text).strip()
        if value:
            self._add(value)
        self._text, self._length = [], 0
        self._open.pop()
        self._spaces.pop()

    def _add(self, value: str, own: tuple[str, str] | None = None) -> None:
        around = [one for one in self._open if one[0] not in (_RDF, _META)]
        path = [*around, own] if own else around
        if not path:
            return
        if len(self.found) >= MOST_FOUND:
            raise _EnoughError
        names = tuple(name for _, name in path)
        self.found.append(Property(names, path[-1][0], value[:MOST_LETTERS]))

    def _resolved(self, name: str) -> tuple[str, str]:
        """Return namespace and name; a prefix that nobody declares stands for itself."""
        prefix, found, local = name.partition(":")
        if not found:
            prefix, local = "", name
        if prefix == "xml":
            return _XML, local
        return next(
            (known[prefix] for known in reversed(self._spaces) if prefix in known), prefix
        ), local
