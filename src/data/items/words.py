"""What the name of a folder, a column or a label says: split, label, or nothing.

What the columns of tables are called.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from src.data.items.dataset_yaml import offer
from src.data.items.split_words import SPLIT_WORDS, SplitMap, normalise

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


@dataclass(frozen=True)
class Place:
    """What the folders above a file say."""

    split: str  # `train`, `val`, `test`, or "" where no folder says
    label: int | None  # 0, 1 or None
    domain: str  # the folders above the class folder, joined by `/`
    below: str  # the folders below the class folder, joined by `/`
    inner: str  # path of the folder within its split (what an item_id starts with)
    word: str = ""  # what says the label, as it is written; "" where nothing does
    # (name, what it says) of folders that contradict each other; empty
    at_odds: tuple[tuple[str, str | int], ...] = ()


def read_folder(folder: str, labels: LabelMap, splits: SplitMap = NO_SPLITS) -> Place:
    """Read the folders above a file.

    Args:
        folder: logical path of the folder, "" for the top.
        labels: what class folders are called.
        splits: what the folders of splits are called.
    """
    parts = [part for part in folder.split("/") if part]
    meanings = [read_word(part, labels, splits) for part in parts]
    if any(m.label is not None and not p.isdecimal() for m, p in zip(meanings, parts, strict=True)):
        # `real/0/`, `real/1/`: numbered videos or people, not classes.
        meanings = [
            Meaning() if part.isdecimal() and labels.common else meaning
            for part, meaning in zip(parts, meanings, strict=True)
        ]
    named = list(zip(parts, meanings, strict=True))
    said_splits = [(part, split) for part, one in named for split in one.splits]
    said_labels = [(part, one.label) for part, one in named if one.label is not None]
    first = next((at for at, (_, one) in enumerate(named) if one.label is not None), len(named))
    above = [
        part if one.plain else one.rest for part, one in named[:first] if one.plain or one.rest
    ]
    below = [
        part if one.plain else one.rest for part, one in named[first:] if one.plain or one.rest
    ]
    at_odds = [
        pair
        for said in (said_splits, said_labels)
        if len({v for _, v in said}) > 1
        for pair in said
    ]
    return Place(
        split=said_splits[0][1] if said_splits else "",
        label=said_labels[0][1] if said_labels else None,
        domain="/".join(above),
        below="/".join(below),
        inner="/".join(part for part, one in named if one.kept),
        word=next((one.word for _, one in named if one.label is not None), ""),
        at_odds=tuple(at_odds),
    )


KNOWN = {
    "id": (
        "item_id", "id", "filename", "file_name", "file", "image_id", "image", "image_name", "img",
        "image_path", "path", "filepath", "file_path", "video", "video_name", "name", "uuid",
        "index"),
    "label": ("label", "labels", "target", "class", "is_fake", "fake", "label_str", "y"),
    "group": (
        "group", "group_id", "original", "original_id", "original_video", "source_video", "video",
        "video_id", "subject", "subject_id", "identity", "person", "person_id", "user", "user_id",
        "client", "client_id", "actor", "actor_id", "participant", "participant_id"),
    "domain": ("domain", "dataset", "generator", "attack", "attack_type"),
    "fold": ("fold", "kfold", "fold_id"),
    # Where every value is the word of a split.
    "split": ("split", "set", "subset", "partition", "phase"),
}  # fmt: skip
# Of labels, in these 1 means real.
MEANS_REAL = frozenset({"is_real", "real", "is_live", "live", "genuine", "bonafide"})
# Of groups, these name another item: the real one that a fake was made from.
ORIGINAL_COLUMNS = frozenset({"original", "original_id", "original_video", "source_video"})
# Of these some are values too: a header of `real` or `video` alone proves nothing.
_HEADERS = {name for what in KNOWN if what != "split" for name in KNOWN[what]} - {"fake", "video"}


def is_header(cells: list[str]) -> bool:
    """Tell whether a row holds the name of a column that is known."""
    return any(normalise(cell) in _HEADERS for cell in cells)
