"""What the name of a folder, a table or a label says: split, label, or nothing."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import PurePosixPath

from src.data.items.dataset_yaml import offer

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
    """Return the words of a data set, `given` by dataset.yaml; `eval` beside a test is a val.

    `media` and `tables` are logical paths of its files.
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
    """Return name -> its words, of folders side by side that differ in a split's word alone."""
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


REAL_WORDS = frozenset((
    "real", "reals", "real_image", "real_images", "real_face", "real_faces", "real_video",
    "real_videos", "genuine", "live", "bonafide", "bona_fide", "authentic", "pristine",
))  # fmt: skip
FAKE_WORDS = frozenset((
    "fake", "fakes", "fake_image", "fake_images", "fake_face", "fake_faces", "fake_video",
    "fake_videos", "generated", "ai", "ai_generated", "aigenerated", "ai_images", "aigc",
    "synthetic", "synthesized", "synthesised", "spoof", "spoofed", "attack", "attacks",
    "deepfake", "deepfakes", "manipulated", "forged", "tampered",
))  # fmt: skip
# In the name of a column these say real or fake too, alone or glued (`pReal`, `isreal`).
_REAL_NAMES = frozenset((
    "realism", "realistic", "liveness", "alive", "bona", "fide", "authenticity", "genuineness",
    "human", "humans", "humanness", "original", "originals", "originality", "pristineness",
    "untampered", "unmanipulated", "unaltered", "natural", "legit", "legitimate",
))  # fmt: skip
_FAKE_NAMES = frozenset((
    "fakeness", "spoofing", "spoofness", "forgery", "manipulation", "tampering", "machine",
    "artificial", "generator", "gan", "diffusion", "altered", "imposter", "impostor",
))  # fmt: skip
_ALL_NAMES: dict[str, int] = {
    **dict.fromkeys(REAL_WORDS | _REAL_NAMES, 0),
    **dict.fromkeys(FAKE_WORDS | _FAKE_NAMES, 1),
}
_GLUED_TO_CLASS = re.compile(
    r"(?P<before>is|p|y|prob|proba|score|label)?"
    rf"(?P<word>{'|'.join(word for word in _ALL_NAMES if len(word) > 3)})"  # `pai` is no `ai`
    r"(?P<after>prob|proba|score|label)?"
)
# Folders that say nothing: `test/images`, `train_videos`, `train_sample_videos`.
NEUTRAL_WORDS = frozenset((
    "image", "images", "img", "imgs", "jpg", "jpeg", "png", "frame", "frames", "face", "faces",
    "crop", "crops", "video", "videos", "sample_videos", "set", "data",
))  # fmt: skip
# Beside these, what adds nothing to the word of a split: `test_data_v2`, `Dev_files`.
_SAYS_NOTHING = re.compile(
    rf"({'|'.join(NEUTRAL_WORDS)}|sample|files?|parts?|release|dataset|v?[0-9]*)$", re.IGNORECASE
)
_MOST_WORDS = 8  # that a message offers
NO_SPLITS = SplitMap()
_NUMBER = re.compile(r"[0-9.]+$")


@dataclass(frozen=True)
class LabelMap:
    """Words to labels."""

    words: dict[str, int]  # normalised word -> 0 (real) or 1 (fake)
    given: bool = False  # words that dataset.yaml names
    common: bool = True  # the common words count too, beside what dataset.yaml says of numbers

    def get(self, word: str) -> int | None:
        """Return the label that a word stands for, or None."""
        return self.words.get(normalise(word))

    def offer(self, found: Iterable[str]) -> str:
        """Offer a line for dataset.yaml that names all words of a table; "" for too many."""
        words = {word: self.get(word) for word in dict.fromkeys(found) if word}
        if not 1 < len(words) <= _MOST_WORDS:
            return ""
        return f"; other words: {offer('labels', words)} in dataset.yaml (0 for real, 1 for fake)"

    def wanted(self) -> str:
        """Say which words are understood, for messages."""
        if self.given:
            return "the labels that dataset.yaml names: " + ", ".join(sorted(self.words))
        return "0 or 1, or real or fake (or a common synonym: live, bonafide; spoof, generated)"


def make_label_map(given: dict[str, int] | None) -> LabelMap:
    """Return the words of dataset.yaml, or the common ones if it names none, or numbers alone."""
    common = dict.fromkeys(REAL_WORDS, 0) | dict.fromkeys(FAKE_WORDS, 1)
    if not given:
        return LabelMap({"0": 0, "1": 1, "0.0": 0, "1.0": 1} | common)
    words = {normalise(word): label for word, label in given.items()}
    whole = {word.removesuffix(".0"): y for word, y in words.items() if _NUMBER.match(word)}
    words |= whole | {f"{word}.0": label for word, label in whole.items() if word.isdecimal()}
    # `labels: {1: 0, 0: 1}` turns a table's numbers round; real/ and fake/ mean what they say.
    if all(_NUMBER.match(word) for word in words):
        return LabelMap(common | words, given=True)
    return LabelMap(words, given=True, common=False)


@dataclass(frozen=True)
class ColumnName:
    """The words of a column's name: those of a class, and the rest."""

    label: int | None  # 0 where it says real, 1 where it says fake (or both: `real_or_fake`)
    rest: tuple[str, ...]  # its other words, lower case


def read_column(name: str) -> ColumnName:
    """Read a column's name: `liveness_score` is the `score` of label 0, `pFake` the `p` of 1."""
    parts = (part for part in re.split(r"[^A-Za-z0-9]+|_", name) if part)
    labels, rest = set(), []
    for word in (word.lower() for part in parts for word in _CAMEL.split(part)):
        glued = None if word in _ALL_NAMES else _GLUED_TO_CLASS.fullmatch(word)
        if word in _ALL_NAMES or glued is not None:
            labels.add(_ALL_NAMES[word if glued is None else glued["word"]])
            rest += [one for one in glued.group("before", "after") if one] if glued else []
        else:
            rest.append(word)
    label = max(labels) if labels else None
    if len(labels) == 1 and not {"not", "non", "no"}.isdisjoint(rest):
        label = 1 - max(labels)
    return ColumnName(label, tuple(rest))


def means_real(column: str) -> bool:
    """Tell whether a column's name says that 1 is real: `is_real`, `liveness_score`, `original`."""
    return read_column(column).label == 0


def number_names(given: Mapping[str, int]) -> tuple[str, str]:
    """Return the numbers that mean real and fake, `1` and `0` for `labels: {1: 0, 0: 1}`."""
    numbers = [(word.removesuffix(".0"), y) for word, y in given.items() if _NUMBER.match(word)]
    real, fake = (min((w for w, y in numbers if y == label), default="") for label in (0, 1))
    return (real, fake) if real and fake else ("0", "1")


@dataclass(frozen=True)
class Meaning:
    """What one folder's name says; `plain` if it says something we do not know."""

    splits: tuple[str, ...] = ()  # of its words; several contradict each other
    label: int | None = None  # 0 or 1
    word: str = ""  # what says the label, as it is written
    rest: str = ""  # what is left of a name that says a split: `FF_train` -> `ff`
    kept: bool = True  # ids hold the name, for it says more than `train` or `test_images` does
    neutral: bool = False  # a name such as `images`

    @property
    def plain(self) -> bool:
        """Return whether the name is neither split, label nor neutral."""
        return not self.splits and self.label is None and not self.neutral


def read_word(part: str, labels: LabelMap, splits: SplitMap = NO_SPLITS) -> Meaning:
    """Read one folder's name: `train`, `FAKE`, `training_real`, `test_images`, `images`."""
    word = normalise(part)
    label = labels.get(word)
    found, rest = splits.read(part)
    given = splits.of_given(part) is not None
    if label is not None and not rest and not given:
        found = ()  # `labels: {dev: 0, ops: 1}`
    if given:  # `splits: {testFake: train}` leaves the class what it is
        natural, rest = splits.read_words(part)
        rest = rest if natural else ""
    elif not found:
        rest = ""
    words = [one for one in rest.split("_") if one]
    telling = "_".join(one for one in words if not _SAYS_NOTHING.match(one))
    said = next((one for one in (part, rest, telling) if labels.get(one) is not None), "")
    simple = word in SPLIT_WORDS or rest.lower() in NEUTRAL_WORDS
    simple |= bool(words) and all(one.lower() in NEUTRAL_WORDS for one in words)
    return Meaning(
        found,
        labels.get(said) if said else None,
        said,
        rest="" if said or given or not telling else rest,
        kept=not found or given or bool(said) or not simple,
        neutral=not found and not said and word in NEUTRAL_WORDS,
    )
