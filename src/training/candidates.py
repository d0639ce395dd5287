"""What `python -m src plan` chooses from, and why: the one place to change it."""

from dataclasses import dataclass
from typing import Literal

Pictures = Literal["small", "large"]
SMALL_SIDE = 64  # px of the shorter side: up to here pictures are small
# Without a measurement a model wants this share of its config's epochs.
LEAST_SHARE = 0.45


@dataclass(frozen=True)
class Prospect:
    """A config that may be worth some minutes."""

    model: str  # a config of `configs/models/`
    pictures: Pictures  # that it is for
    # share of the config's epochs that a fold wants at least: with fewer another is better
    least: float
    why: str  # what was measured, in the words that are shown


# Best first, for each kind of pictures. A better one on one fold comes before a worse one on all:
# what a fold's model is worth shows at once, and more folds can follow. AUC and macro-F1 are those
# of README and of benchmarks/README.md ("Score per CPU-minute"), on one fold; of effnet_lite0_probe
# on each of folds 1 to 3 (.709 to .726; faces enlarged to 600 px, seen at 128 px).
CANDIDATES = (
    Prospect(
        "mobilenetv2_100", "large", 0.8,
        "ImageNet weights, all trained: AUC .895 on DFDC faces in 9 epochs, .805 in 4",
    ),
    Prospect(
        "mobilenetv2_100_tv", "large", 0.8,
        "mobilenetv2_100 from ImageNet weights that a package carries",
    ),
    Prospect(
        "mobilenetv2_100_prefix", "large", 0.3,
        "behind frozen blocks: AUC .871 on DFDC faces in 11 epochs, 0.7 of the time",
    ),
    Prospect(
        "mobilenetv2_100_tv_prefix", "large", 0.3,
        "behind frozen blocks, ImageNet weights that a package carries",
    ),
    Prospect(
        "effnet_lite0", "large", 0.8,
        "ImageNet weights that a package carries, twice as slow as MobileNetV2",
    ),
    Prospect(
        "effnet_lite0_probe", "large", 0.2,
        "its head alone, on features computed once: AUC .71 to .73 on DFDC faces",
    ),
    Prospect(
        "compact64", "large", 0.3,
        "from scratch, where nothing pretrained is here: expect little of large pictures",
    ),
    Prospect(
        "mobilenetv2_100_tv_small", "small", 0.6,
        "ImageNet weights from a package, behind frozen blocks: macro-F1 .974 on CIFAKE",
    ),
    Prospect(
        "mobilenetv2_100_two_stage", "small", 0.5,
        "ImageNet weights at 96 px: macro-F1 .968 with 6,400 rows of CIFAKE",
    ),
    Prospect(
        "compact32", "small", 0.3,
        "from scratch at 32 px: macro-F1 .955 on CIFAKE in 10 epochs, .942 in 3",
    ),
)  # fmt: skip


def candidates_for(pictures: Pictures) -> tuple[Prospect, ...]:
    """Return the candidates for a kind of pictures, the best first."""
    return tuple(one for one in CANDIDATES if one.pictures == pictures)


def candidate_of(model: str, pictures: Pictures) -> Prospect:
    """Return what is known of a model; of one that is not in the table, a guess."""
    known = {one.model: one for one in reversed(CANDIDATES)}
    return known.get(model) or Prospect(model, pictures, LEAST_SHARE, "not measured here")
