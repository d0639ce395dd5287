"""Published formats of weights: each is one registered function that knows its own files."""

from torch import nn

from src.errors import UserError
from src.models.formats import (
    clip,
    efficientnet,
    hugging_face,
    ours,
    self_supervised,
    torchvision,
)
from src.models.formats.base import FORMATS, Foreign, Source
from src.models.formats.fit import plain

__all__ = [
    "FORMATS",
    "Foreign",
    "Source",
    "clip",
    "efficientnet",
    "hugging_face",
    "ours",
    "recognise",
    "self_supervised",
    "torchvision",
]

PLAIN, OURS = "plain", "ours"


def recognise(source: Source, net: nn.Module, head: tuple[str, ...]) -> tuple[str, Foreign]:
    """Find the format of a weights file, and read it into timm's key space.

    Args:
        source: the file.
        net: that it is meant for.
        head: names of the net's classifier layers.

    Returns:
        Name of the format (`plain` where none claims it), and what was read.

    Raises:
        UserError: several formats claim it, or the one that does finds it damaged.
    """
    found = {name: read for name in FORMATS if (read := FORMATS.get(name)(source, net)) is not None}
    if not found:
        return PLAIN, plain(source, net, head)
    if len(found) > 1:
        raise UserError(f"{source.path}: may be {' or '.join(found)}; save the backbone alone")
    return next(iter(found.items()))
