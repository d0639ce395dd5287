"""What the name of a folder, a column or a label says: split, label, or nothing."""

import re
from dataclasses import dataclass

from src.errors import UserError

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
SPLIT_WORDS = {
    "train": "train", "training": "train", "trainset": "train",
    "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test", "testset": "test",
}  # fmt: skip
# Folders that say nothing: `test/images`, `train_videos`, `train_sample_videos`.
NEUTRAL_WORDS = frozenset((
    "image", "images", "img", "imgs", "jpg", "jpeg", "png", "frame", "frames", "face", "faces",
    "crop", "crops", "video", "videos", "sample_videos", "set", "data",
))  # fmt: skip


@dataclass(frozen=True)
class LabelMap:
    """Words to labels.

    Attributes:
        words: normalised word -> 0 (real) or 1 (fake).
        given: the words come from dataset.yaml, which then are the only ones.
    """

    words: dict[str, int]
    given: bool = False

    def get(self, word: str) -> int | None:
        """Return the label that a word stands for, or None."""
        return self.words.get(normalise(word))

    def wanted(self) -> str:
        """Say which words are understood, for messages."""
        if self.given:
            return "the labels that dataset.yaml names: " + ", ".join(sorted(self.words))
        return "0 or 1, or real or fake (or a common synonym: live, bonafide; spoof, generated)"


def make_label_map(given: dict[str, int] | None) -> LabelMap:
    """Return the words of dataset.yaml, or the common ones if it names none."""
    if given:
        return LabelMap({normalise(word): label for word, label in given.items()}, given=True)
    common = {"0": 0, "1": 1, "0.0": 0, "1.0": 1}
    common |= dict.fromkeys(REAL_WORDS, 0) | dict.fromkeys(FAKE_WORDS, 1)
    return LabelMap(common)


def normalise(word: str) -> str:
    """Lower case, with `_` for blanks and dashes: `Real-Images` -> `real_images`."""
    return re.sub(r"[\s\-]+", "_", word.strip().lower())


@dataclass(frozen=True)
class Meaning:
    """What one folder's name says; `plain` if it says something we do not know."""

    split: str | None = None
    label: int | None = None
    neutral: bool = False

    @property
    def plain(self) -> bool:
        """Return whether the name is neither split, label nor neutral."""
        return self.split is None and self.label is None and not self.neutral


def read_word(part: str, labels: LabelMap) -> Meaning:
    """Read one folder's name: `train`, `FAKE`, `training_real`, `test_images`, `images`."""
    word = normalise(part)
    label = labels.get(word)
    if label is not None:
        return Meaning(label=label)
    if word in SPLIT_WORDS:
        return Meaning(split=SPLIT_WORDS[word])
    if word in NEUTRAL_WORDS:
        return Meaning(neutral=True)
    first, _, rest = word.partition("_")
    if first in SPLIT_WORDS and rest:
        label = labels.get(rest)
        if label is not None or rest in NEUTRAL_WORDS:
            return Meaning(split=SPLIT_WORDS[first], label=label)
    return Meaning()


@dataclass(frozen=True)
class Place:
    """What the folders above a file say.

    Attributes:
        split: `train`, `val`, `test`, or "" where no folder says.
        label: 0, 1 or None.
        domain: the folders above the class folder, joined by `/`.
        below: the folders below the class folder, joined by `/`.
        inner: path of the folder within its split (what an item_id starts with).
    """

    split: str
    label: int | None
    domain: str
    below: str
    inner: str


def read_folder(folder: str, labels: LabelMap, where: str) -> Place:
    """Read the folders above a file.

    Args:
        folder: logical path of the folder, "" for the top.
        labels: what class folders are called.
        where: the data set's folder, for messages.

    Raises:
        UserError: two folders of one path contradict each other.
    """
    parts = [part for part in folder.split("/") if part]
    splits: list[str] = []
    found: list[int] = []
    above: list[str] = []
    below: list[str] = []
    inner: list[str] = []
    meanings = [read_word(part, labels) for part in parts]
    if any(m.label is not None and not p.isdecimal() for m, p in zip(meanings, parts, strict=True)):
        # `real/0/`, `real/1/`: numbered videos or people, not classes.
        meanings = [
            Meaning() if part.isdecimal() and not labels.given else meaning
            for meaning, part in zip(meanings, parts, strict=True)
        ]
    for part, meaning in zip(parts, meanings, strict=True):
        if meaning.split is not None:
            splits.append(meaning.split)
        if meaning.label is not None:
            found.append(meaning.label)
        if meaning.plain:
            (below if found else above).append(part)
        if meaning.split is None or meaning.label is not None:
            inner.append(part)
    for what, values in (("split", splits), ("label", found)):
        if len(set(values)) > 1:
            raise UserError(
                f"{where}: the folders of {folder}/ contradict each other ({what} is "
                f"{' and '.join(str(v) for v in dict.fromkeys(values))}); rename one, leave it "
                "aside (ignore: [PATTERN]) or name the class folders (labels: {NAME: 0, NAME: 1}) "
                "in dataset.yaml"
            )
    return Place(
        split=splits[0] if splits else "",
        label=found[0] if found else None,
        domain="/".join(above),
        below="/".join(below),
        inner="/".join(inner),
    )
