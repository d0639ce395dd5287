"""What was found of one file: the verdict, and beside it what each part can prove.

Plain values, for a page, a terminal and JSON alike; docs/look.md says what each key means.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

SCHEMA = 1


@dataclass(frozen=True)
class FileFacts:
    """The file itself."""

    name: str  # as it was given
    kind: str  # `image` or `video`
    bytes: int
    sha256: str  # of its content
    width: int = 0  # pixels, upright; 0 where they could not be read
    height: int = 0
    seconds: float | None = None  # of a clip
    frames: int | None = None  # of a clip, that can be decoded


@dataclass(frozen=True)
class Verdict:
    """What the recipe says."""

    said: str  # `real`, `fake`, `unsure`; "" where the file could not be read
    prob: float | None  # P(fake) by the recipe's rule; None where it could not be read
    threshold: float  # from which on the rule says fake
    leans: str  # `real` or `fake`: on which side of the threshold it is; "" as `said`
    # share of fakes among out-of-fold rows with such an answer (`Chance`); None where they are gone
    chance: float | None
    chance_error: float | None  # calibration error of that, on rows it was not fitted on
    chance_share: float | None  # of fakes among those rows: of another share it is another chance
    reasons: tuple[str, ...]  # codes of why it is unsure (`src.evidence.verdicts`), or `unreadable`
    details: dict[str, str]  # a code -> what more there is to say of it
    recipe: str  # its name
    dataset: str
    models: tuple[str, ...]  # its members of some weight
    risk: dict[str, Any] | None  # of its band (`RecipeBand.record`); None without one
    no_risk: str  # code of why there is no band; "" where there is one


@dataclass(frozen=True)
class AtLevel:
    """The verdict if the file came another way."""

    level: str  # of `src.data.pixels.deliveries`; `as it is` where the answer is a mean over levels
    prob: float
    flips: bool


@dataclass(frozen=True)
class Person:
    """One of the people that the nets saw."""

    number: int  # from 1, the one to be seen most first
    prob: float  # P(fake) by the recipe's rule of this person alone
    said: str  # `real`, `fake` or `unsure`
    picture: str  # name of a picture of the face
    start: float | None  # seconds of a clip: where the face is first seen
    end: float | None  # and last


@dataclass(frozen=True)
class Moment:
    """One frame of a clip."""

    frame: int  # its number in the clip
    second: float
    prob: float  # P(fake) by the recipe's rule of this frame alone
    people: tuple[float, ...]  # the same of each person, in the order of `people`
    picture: str = ""  # name of its picture, where it is among those that decide


@dataclass(frozen=True)
class Timeline:
    """A clip, frame by frame."""

    moments: tuple[Moment, ...]
    # places of frames: taken away in the order in which they speak for the verdict, until the rest
    # says the other; where every frame but one says the same, those that speak most for it
    deciding: tuple[int, ...]
    flips_without: bool  # whether without them it would
    verdict_frames: int  # that the file's verdict rests on


@dataclass(frozen=True)
class NetMap:
    """Where one net looks, and how the map stood its check; see docs/explain.md."""

    model: str
    fold: str
    kind: str  # of `src.explain`
    withheld: str  # code of why it is not shown; "" where it is
    lost: float | None  # logit lost when the hottest fifth is hidden
    random: float | None  # mean of the same over random fifths
    beats: float | None  # share of these that lose less
    picture: str = ""  # name of the picture with the map over it
    person: int | None = None  # number of whose face it is of
    second: float | None = None  # of a clip

    def why(self, say: Callable[..., str]) -> str:
        """Return in words why it is withheld."""
        return say(f"look.withheld_{self.withheld}")


@dataclass(frozen=True)
class FileEvidence:
    """All that was found."""

    file: FileFacts
    verdict: Verdict
    picture: str = ""  # name of the file's own, small, faces numbered
    stability: tuple[AtLevel, ...] | None = None  # None: not asked
    people: tuple[Person, ...] = ()
    no_people: str = ""  # code of why nobody is judged alone
    by_first: bool = False  # whether of several people the first alone counts for the verdict
    crowd: int = 0  # faces in one frame, at most; of more than `people` the largest are judged
    timeline: Timeline | None = None
    maps: tuple[NetMap, ...] = ()  # the one that is shown first
    no_maps: str = ""  # code of why there is none at all
    # kind of map -> why the net cannot show it, in words, of those that nearly every net can
    absent_maps: dict[str, str] = field(default_factory=dict)
    provenance: dict[str, Any] | None = None  # `Provenance.record`; None: not asked
    took: dict[str, float] = field(default_factory=dict)  # seconds of each step
    pictures: dict[str, bytes] = field(default_factory=dict)  # name -> JPEG or PNG

    def record(self) -> dict[str, Any]:
        """Return it for a JSON, without the pictures."""
        found = asdict(self)
        del found["pictures"]
        return {"schema": SCHEMA, **found}
