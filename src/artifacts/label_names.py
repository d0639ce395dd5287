"""What a data set calls its two classes: what people are shown in place of 0 and 1."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from src import paths
from src.artifacts.files import read_json, write_json
from src.errors import UserError

DEFAULT = ("real", "fake")
_SCHEMA = 1
_SHOWN, _LONGEST = 4, 24  # words of a class, letters of one


@dataclass(frozen=True)
class LabelNames:
    """The words by which a data set says real and fake, in folders' names, tables or YAML."""

    real: tuple[str, ...] = ()  # often one, none where a published set has no such words
    fake: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, str]:
        """Return what to call label 0 and label 1: a class's only word, if it is no number."""
        return _name(self.real, DEFAULT[0]), _name(self.fake, DEFAULT[1])

    @property
    def polarity(self) -> str:
        """Return `0 -> real, 1 -> fake`, with the words where they are not the names."""
        said = []
        for label, (words, name) in enumerate(zip((self.real, self.fake), self.names, strict=True)):
            other = [w for w in map(_plain, words) if w not in (name, str(label))]
            more = ", ".join(other[:_SHOWN]) + " ..." * (len(other) > _SHOWN)
            said.append(f"{label} -> {name}" + f" ({more})" * bool(more))
        return ", ".join(said)


def make_label_names(words: Iterable[tuple[int, str]]) -> LabelNames:
    """Return the names of pairs (0 or 1, a word that says so); case parts no words."""
    found: Mapping[int, dict[str, str]] = {0: {}, 1: {}}
    for label, word in sorted(words):
        if word:
            found[label].setdefault(word.lower(), word)
    return LabelNames(*(tuple(found[label].values()) for label in (0, 1)))


def _name(words: tuple[str, ...], default: str) -> str:
    only = words[0] if len(words) == 1 and not re.match(r"[-+0-9.]+$", words[0]) else default
    return _plain(only)


def _plain(word: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in word)[:_LONGEST]


def write_label_names(dataset: str, names: LabelNames) -> None:
    """Write the names beside the folds, for commands that do not look into `input/`."""
    path, record = paths.label_names_json(dataset), {"real": names.real, "fake": names.fake}
    if not path.exists() or read_label_names(dataset) != names:
        write_json(path, {"schema": _SCHEMA, **record})


def read_label_names(dataset: str) -> LabelNames:
    """Return the names that lie beside the folds; without any, or a damaged file, the common ones.

    They are for people alone: nothing is refused for them.
    """
    path = paths.readable(paths.label_names_json(dataset))
    try:
        found = read_json(path, schema=_SCHEMA, what="names of labels", keys=["real", "fake"])
        return LabelNames(*(tuple(map(str, found[key])) for key in ("real", "fake")))
    except (UserError, TypeError):
        return LabelNames()
