"""Pictures with notes, made here: by Pillow, and chunk by chunk where Pillow would not write so."""

import io
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from src.data.provenance.finding import Finding
from src.data.provenance.read import Provenance, provenance_of

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
SPACES = {
    "rdf": RDF, "xmp": "http://ns.adobe.com/xap/1.0/",
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/", "xmpMM": "http://ns.adobe.com/xap/1.0/mm/",
    "stEvt": "http://ns.adobe.com/xap/1.0/sType/ResourceEvent#",
    "dc": "http://purl.org/dc/elements/1.1/", "exif": "http://ns.adobe.com/exif/1.0/",
}  # fmt: skip
TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"


def picture(kind: str = "jpeg", **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, kind, **options)
    return buffer.getvalue()


def packet(inside: str, attributes: str = "", head: str = "") -> bytes:
    """Return an XMP packet around some properties."""
    spaces = " ".join(f'xmlns:{name}="{place}"' for name, place in SPACES.items())
    return (
        f'<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>{head}'
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF {spaces}>'
        f'<rdf:Description rdf:about="" {attributes}>{inside}</rdf:Description>'
        '</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    ).encode()


def chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def text(key: str, value: str | bytes, kind: bytes = b"tEXt") -> bytes:
    """Return a chunk of text, UTF-8 even where the standard asks for Latin-1."""
    data = value.encode() if isinstance(value, str) else value
    if kind == b"zTXt":
        data = b"\0" + zlib.compress(data)
    if kind == b"iTXt":
        data = b"\0\0en\0translated\0" + data
    return chunk(kind, key.encode() + b"\0" + data)


def png(*before: bytes, behind: bytes = b"") -> bytes:
    """Return a PNG with chunks before its pixels and behind them."""
    data = picture("png")
    start, end = data.index(b"IDAT") - 4, data.index(b"IEND") - 4
    return data[:start] + b"".join(before) + data[start:end] + behind + data[end:]


def read(folder: Path, data: bytes, name: str = "a.jpg", **options) -> Provenance:
    path = folder / name
    path.write_bytes(data)
    return provenance_of(path, **options)


def said(found: Provenance, **wanted: str) -> list[Finding]:
    """Return the findings with these attributes."""
    return [
        one for one in found.findings
        if all(getattr(one, name) == value for name, value in wanted.items())
    ]  # fmt: skip


def values(found: Provenance, **wanted: str) -> list[str]:
    return [one.value for one in said(found, **wanted)]
