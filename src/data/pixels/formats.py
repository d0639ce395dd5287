"""What a file is by its first bytes, whatever its name says."""

HEAD = 512  # bytes that are enough
_SIGNATURES = (
    (b"\xff\xd8\xff", "jpeg"), (b"\x89PNG\r\n\x1a\n", "png"), (b"GIF8", "gif"), (b"BM", "bmp"),
    (b"II*\0", "tiff"), (b"MM\0*", "tiff"), (b"II+\0", "tiff"), (b"MM\0+", "tiff"),
    (b"\0\0\0\x0cjP", "jp2"), (b"\xff\x4f\xff\x51", "jp2"),
)  # fmt: skip
_PORTABLE = {b"P1": "pbm", b"P4": "pbm", b"P2": "pgm", b"P5": "pgm", b"P3": "ppm", b"P6": "ppm"}
_AVIF = frozenset((b"avif", b"avis"))
_HEIC = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"))
_EITHER = frozenset((b"mif1", b"mif2", b"msf1", b"miaf"))  # the other brands say which
_CLIPS = (b"\x1aE\xdf\xa3", b"\0\0\x01\xba", b"\0\0\x01\xb3", b"FLV", b"OggS", b"\x30\x26\xb2\x75")
_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip")  # an MP4 may begin with
_LISTS = (b"#EXT", b"ffconcat", b"[playlist", b"<")
_TEXT = {9, 10, 11, 12, 13, *range(32, 127), *range(128, 256)}
# What people bring under a picture's name, and what to do with it.
_OTHERS = (
    ((b"\xff\x0a", b"\0\0\0\x0cJXL "), "a JPEG XL picture: convert it (djxl a.jxl a.png)"),
    ((b"8BPS",), "a Photoshop file: convert it to PNG"),
    ((b"%PDF",), "a PDF: export its pictures"),
    ((b"v/1\x01", b"#?RADIANCE"), "an HDR picture of floats: convert it to PNG"),
    ((b"<svg", b"<?xml"), "an XML text (SVG?), and no picture of pixels"),
    ((b"<!doctype", b"<html"), "a web page, and no picture: the download failed"),
    ((b"version https://git-lfs",), "a pointer of Git LFS, and not the file: git lfs pull"),
    ((b"PK\x03\x04",), "a zip, and no picture: unpack it"),
)


def file_format(head: bytes) -> str:
    """Return the picture format that a file's first `HEAD` bytes announce, `unknown` if none."""
    for signature, name in _SIGNATURES:
        if head.startswith(signature):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[2:3].isspace() and head[:2] in _PORTABLE:
        return _PORTABLE[head[:2]]
    return _boxed(head) if head[4:8] == b"ftyp" else "unknown"


def _boxed(head: bytes) -> str:
    """Return the format of an ISO base media file: `avif`, `heic`, `unknown` for clips."""
    major, end = head[8:12], int.from_bytes(head[:4], "big")
    if major in _EITHER:
        others = {head[place : place + 4] for place in range(16, min(end, HEAD), 4)}
        return "avif" if others & _AVIF else "heic"
    return "avif" if major in _AVIF else "heic" if major in _HEIC else "unknown"


def is_clip(head: bytes) -> bool:
    """Tell whether a file's first bytes are those of a video container."""
    box = head[4:8] in _BOXES and file_format(head) == "unknown"
    return box or (head[:4] == b"RIFF" and head[8:12] == b"AVI ") or head.startswith(_CLIPS)


def names_files(head: bytes) -> bool:
    """Tell by its first bytes whether a file is a text: a list of others, which FFmpeg would open.

    Every container of clips holds bytes that no text has.
    """
    if head.lstrip().startswith(_LISTS):
        return True
    cut = head[:HEAD]
    return bool(cut) and not set(cut).difference(_TEXT)


def describe_unknown(head: bytes) -> str:
    """Say what a file of unknown format is, and what to do with it."""
    head = head[:HEAD]
    for signatures, words in _OTHERS:
        if head.startswith(signatures) or head.lstrip().lower().startswith(signatures):
            return words
    return "not an image (no known format)"


def named(kind: str) -> str:
    """Return a format with its article: `an AVIF`, `a JPEG`."""
    return f"{'an' if kind[0] == 'a' else 'a'} {kind.upper()}"
