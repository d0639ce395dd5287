"""Published formats of weights: each is one registered function that knows its own files."""

from dataclasses import replace

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
from src.models.formats.base import FORMATS, Foreign, Source, one_logit
from src.models.formats.beside import look_beside
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
        Name of the format (`plain` where none claims it), and what was read, with what lies beside
        the file (`look_beside`) where its format does not say it.

    Raises:
        UserError: several formats claim it, or the one that does finds it damaged.
    """
    found = {name: read for name in FORMATS if (read := FORMATS.get(name)(source, net)) is not None}
    found = found or {PLAIN: plain(source, net, head)}
    if len(found) > 1:
        raise UserError(f"{source.path}: may be {' or '.join(found)}; save the backbone alone")
    name, read = next(iter(found.items()))
    return name, read if name == OURS else _with_beside(read, source, head)


def _with_beside(read: Foreign, source: Source, head: tuple[str, ...]) -> Foreign:
    """Add classes, mean, std and interpolation from beside a file; a head they name is turned."""
    beside = look_beside(source.path)
    tensors, logit, fake = dict(read.tensors), read.logit, read.fake
    place = head[0] if head else ""
    weight = tensors.get(f"{place}.weight")
    if fake is None and beside.fake is not None and weight is not None and len(weight) == 2:
        fake = beside.fake
        logit = one_logit(tensors.pop(f"{place}.weight"), tensors.pop(f"{place}.bias", None), fake)
    return replace(
        read,
        tensors=tensors,
        logit=logit,
        fake=fake,
        labels=read.labels or beside.labels,
        mean=read.mean or beside.mean,
        std=read.std or beside.std,
        interpolation=read.interpolation or beside.interpolation,
        note="; ".join(filter(None, (beside.note, read.note))),
    )
