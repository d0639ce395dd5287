"""Values of the fields of a metadata audit: numbers, and words that stay short."""

import hashlib

NONE = -1.0  # a number that this kind of file does not have
Value = float | str
MOST_LETTERS = 60
MOST_READ = 4000


def clean(value: object) -> str:
    """Return a note of a file as one line of text, whatever it holds; "" for None."""
    text = (
        value.decode("latin-1") if isinstance(value, bytes) else "" if value is None else str(value)
    )
    return " ".join("".join(c if c.isprintable() else " " for c in text[:MOST_READ]).split())


def shorten(text: str, most: int = MOST_LETTERS) -> str:
    """Return a text of at most `most` letters; the end of a longer one is its digest."""
    return text if len(text) <= most else f"{text[: most - 9]}...{digest(text.encode())}"


def digest(data: bytes) -> str:
    """Return six letters that stand for some bytes."""
    return hashlib.blake2b(data, digest_size=3).hexdigest()
