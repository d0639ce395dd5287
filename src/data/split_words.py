"""What the name of a folder or a table says of the split: train, val, test, or nothing."""

import re
from collections.abc import Iterable, Mapping
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


def normalise(word: str) -> str:
    """Lower case, with `_` for blanks and dashes: `Real-Images` -> `real_images`."""
    return re.sub(r"[\s\-]+", "_", word.strip().lower())


@dataclass(frozen=True)
class SplitMap:
    """Names to splits.

    Attributes:
        given: pattern of a folder's name -> split or `none`, from dataset.yaml; comes first.
        eval_means: what `eval` stands for: `val` where there is a test beside it, else `test`.
    """

    given: Mapping[str, str] = field(default_factory=dict)
    eval_means: str = "test"

    def of_given(self, name: str) -> str | None:
        """Return what dataset.yaml says of a folder's name: a split, `none`; None if nothing."""
        return next(
            (s for n, s in self.given.items() if fnmatch(normalise(name), normalise(n))), None
        )

    def read(self, name: str) -> tuple[tuple[str, ...], str]:
        """Return the splits whose words a name holds, and what is left of it without them.

        Words stand between `_`, `-`, `.` and blanks, a number behind them does not count:
        `real_train`, `test_data_v2`, `val2017`; `contest` and `latest` hold none. Of several, test
        goes before val (`test-dev` is never trained on); train beside another contradicts it.
        """
        given = self.of_given(name)
        if given is not None:
            return (() if given == NONE else (given,)), ""
        words = [word for word in _BETWEEN.split(name) if word]
        kinds = [self._kind(word.lower().rstrip("0123456789")) for word in words]
        found = set(kinds) - {None}
        if found == {"val", "test"}:
            found = {"test"}
        splits = tuple(split for split in SPLITS if split in found)
        return splits, "_".join(w for w, kind in zip(words, kinds, strict=True) if kind is None)

    def _kind(self, word: str) -> str | None:
        return self.eval_means if word in _EVAL else SPLIT_WORDS.get(word)

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
    names = {name for folder in folders for name in folder.split("/")}
    names |= {PurePosixPath(path).stem for path in tables}
    sure = SplitMap(given, "val")
    return SplitMap(given, "val" if any("test" in sure.read(name)[0] for name in names) else "test")


def is_plain(name: str) -> bool:
    """Tell whether a name that says a split needs no word about it."""
    return normalise(name).partition("_")[0] in _PLAIN
