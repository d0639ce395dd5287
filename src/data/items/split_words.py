"""What the name of a folder or a table says of the split: train, val, test, or nothing."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import PurePosixPath

SPLITS = ("train", "val", "test")
NONE = "none"  # in `splits:` of dataset.yaml: this name says nothing
_EVAL = frozenset(("eval", "evaluation", "evaluate", "evalset"))
SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "trainset", "trainval"), "train"),
    **dict.fromkeys(
        ("val", "valid", "validation", "validate", "valset", "validset", "dev", "devel", "devset",
         "development"), "val"),
    **dict.fromkeys(("test", "testing", "testset", *_EVAL), "test"),
}  # fmt: skip
# The names that nobody reads otherwise; what another one was taken for is said.
_PLAIN = frozenset(("train", "training", "val", "valid", "validation", "test", "testing"))

_BETWEEN = re.compile(r"[_.\s-]+")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_WORD = "|".join(sorted(SPLIT_WORDS, key=len, reverse=True))
_FIRST = re.compile(rf"(?P<word>{_WORD})(?P<rest>.+)", re.IGNORECASE)
_LAST = re.compile(rf"(?P<rest>.+?)(?P<word>{_WORD})", re.IGNORECASE)
# What follows a word in its own forms alone: trainer, tested.
_ENDINGS = frozenset(("er", "ers", "ed", "ee", "ees", "s"))
# What is glued to a word and leaves no doubt: testdata, trainimages.
_GLUED = frozenset((
    "data", "dataset", "image", "images", "img", "imgs", "frame", "frames", "face", "faces",
    "video", "videos", "file", "files", "folder",
))  # fmt: skip


def normalise(word: str) -> str:
    """Lower case, with `_` for blanks and dashes: `Real-Images` -> `real_images`."""
    return re.sub(r"[\s\-]+", "_", word.strip().lower())


@dataclass(frozen=True)
class SplitMap:
    """Names to splits."""

    # pattern of a folder's name -> split or `none`, from dataset.yaml; comes first
    given: Mapping[str, str] = field(default_factory=dict)
    # what `eval` stands for: `val` where there is a test beside it, else `test`
    eval_means: str = "test"
    # name -> its words, of those that only their neighbours tell apart: `trainx` and `testx`
    glued: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def of_given(self, name: str) -> str | None:
        """Return what dataset.yaml says of a folder's name: a split, `none`; None if nothing."""
        return next(
            (s for n, s in self.given.items() if fnmatch(normalise(name), normalise(n))), None
        )

    def read(self, name: str) -> tuple[tuple[str, ...], str]:
        """Return the splits whose words a name holds, and what is left of it without them.

        Words stand between `_`, `-`, `.`, blanks and capitals (`trainReal`), a number behind them
        does not count: `real_train`, `test_data_v2`, `val2017`; or they are glued to what says
        nothing (`testdata`); `contest` and `latest` hold none. Of several, test goes before val
        (`test-dev` is never trained on); train beside another contradicts it.
        """
        given = self.of_given(name)
        if given is not None:
            return (() if given == NONE else (given,)), ""
        return self.read_words(name)

    def read_words(self, name: str) -> tuple[tuple[str, ...], str]:
        """Read a name as `read` does, whatever dataset.yaml says of it."""
        parts = (p for word in self.glued.get(name, (name,)) for p in _BETWEEN.split(word) if p)
        words = [word for part in parts for word in self._words(part)]
        kinds = [self._kind(word) for word in words]
        found = set(kinds) - {None}
        if found == {"val", "test"}:
            found = {"test"}
        splits = tuple(split for split in SPLITS if split in found)
        return splits, "_".join(w for w, kind in zip(words, kinds, strict=True) if kind is None)

    def _kind(self, word: str) -> str | None:
        word = word.lower().rstrip("0123456789")
        return self.eval_means if word in _EVAL else SPLIT_WORDS.get(word)

    def _words(self, part: str) -> list[str]:
        """Take apart what stands between separators, where a word of a split is in it."""
        if self._kind(part) is not None:
            return [part]
        words = _CAMEL.split(part)
        if any(self._kind(word) for word in words):
            return words
        found = next(
            (one for one in _ends(part) if one["rest"].lower().rstrip("0123456789") in _GLUED), None
        )
        return [part] if found is None else list(found.groups())

    def of_folders(self, folders: Iterable[str]) -> str:
        """Return the split of a path's folders, the outermost that says one; "" for none."""
        found = (split for folder in folders for split in self.read(folder)[0][-1:])
        return next(found, "")


def make_split_map(
    given: Mapping[str, str], media: Iterable[str], tables: Iterable[str] = ()
) -> SplitMap:
    """Return the words of a data set; `eval` beside a test is a val.

    Args:
        given: `splits:` of dataset.yaml.
        media, tables: logical paths of its files.
    """
    folders = {path.rpartition("/")[0] for path in media}
    glued = _tell_glued(folders)
    names = {name for folder in folders for name in folder.split("/")}
    names |= {PurePosixPath(path).stem for path in tables}
    sure = SplitMap(given, "val", glued)
    has_test = any("test" in sure.read(name)[0] for name in names)
    return SplitMap(given, "val" if has_test else "test", glued)


def _ends(name: str) -> Iterator[re.Match[str]]:
    """Yield how a name begins or ends with a word of a split."""
    return (one for one in (_FIRST.fullmatch(name), _LAST.fullmatch(name)) if one is not None)


def _tell_glued(folders: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Return name -> its words, of folders side by side that differ in the word of a split alone.

    Args:
        folders: logical paths of those that hold files.
    """
    paths = {
        tuple(parts[: at + 1]) for folder in folders for parts in [folder.split("/")]
        for at in range(len(parts))
    }  # fmt: skip
    alike: dict[tuple[object, ...], dict[str, re.Match[str]]] = defaultdict(dict)
    for *above, name in paths:
        for found in _ends(name):
            rest = found["rest"].lower()
            if rest not in _ENDINGS:
                alike[(*above, found.start("rest") > 0, rest)][name] = found
    return {
        name: (found[1], found[2])
        for names in alike.values()
        if len({SPLIT_WORDS[one["word"].lower()] for one in names.values()}) > 1
        for name, found in names.items()
        if not SplitMap().read(name)[0]
    }


def is_plain(name: str) -> bool:
    """Tell whether a name that says a split needs no word about it."""
    return normalise(name).partition("_")[0] in _PLAIN
