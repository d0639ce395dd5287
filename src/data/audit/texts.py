"""Values of the fields of a metadata audit: numbers, and words that stay short.

What the name of an item says: of its folders nothing is used, they often are the label.
"""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Sequence

NONE = -1.0  # a number that this kind of file does not have
Value = float | str
MOST_LETTERS = 60
MOST_READ = 4000
RARE = "*"
_NUMBER = re.compile(r"[0-9]+")
# Digests and UUIDs are numbers too; eight letters without a digit may be a word.
_RUN = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-fA-F]{8,}|[0-9]+")
_WORD = re.compile(r"[^\W\d_]+")


def clean(value: object) -> str:
    """Return a note of a file as one line of text, whatever it holds; "" for None."""
    text = value.decode("latin-1") if isinstance(value, bytes) else str(value or "")
    return " ".join("".join(c if c.isprintable() else " " for c in text[:MOST_READ]).split())


def shorten(text: str, most: int = MOST_LETTERS) -> str:
    """Return a text of at most `most` letters; the end of a longer one is its digest."""
    return text if len(text) <= most else f"{text[: most - 9]}...{digest(text.encode())}"


def digest(data: bytes) -> str:
    """Return six letters that stand for some bytes."""
    return hashlib.blake2b(data, digest_size=3).hexdigest()


def name_fields(item_id: str, path: str) -> dict[str, Value]:
    """Return what an item's own name says; the suffix is the path's, ids of a CSV often lack it."""
    stem = os.path.splitext(item_id.rsplit("/", 1)[-1])[0]  # noqa: PTH122
    numbers = _NUMBER.findall(stem)
    return {
        "extension": os.path.splitext(path)[1],  # noqa: PTH122 - .JPG is not .jpg here
        "name length": float(len(stem)),
        "number in the name": float(min(int(numbers[-1][-15:]), 10**12)) if numbers else NONE,
        "name pattern": collapse(stem)[:MOST_LETTERS],
    }


def collapse(text: str) -> str:
    """Return a text with `#` for every run of digits, digest or UUID: `123_gan_9` is `#_gan_#`."""
    return _RUN.sub(lambda run: "#" if _NUMBER.search(run[0]) else run[0], text)


def without_rare_words(patterns: Sequence[str], least: int) -> list[str]:
    """Return patterns with `*` for every word that fewer than `least` of them hold.

    So what names share is left of them, `*_gan_#` of `anna_gan_#`; labels are not looked at.
    """
    counts = Counter(word for pattern in patterns for word in set(_WORD.findall(pattern)))
    return [
        _WORD.sub(lambda word: word[0] if counts[word[0]] >= least else RARE, pattern)
        for pattern in patterns
    ]
