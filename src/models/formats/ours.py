"""Our own checkpoints: plain tensors, with the preprocessing in the metadata."""

import json

from torch import nn

from src.errors import UserError
from src.models.formats.base import FORMATS, Foreign, Source

KEY = "rvf"


@FORMATS.register("ours")
def ours(source: Source, net: nn.Module) -> Foreign | None:  # noqa: ARG001 - a format's signature
    """Read a checkpoint of train_folds.py: its head is one logit already, fake > 0.

    Raises:
        UserError: its metadata are damaged.
    """
    text = source.wrapper.get(KEY)
    if not isinstance(text, str):
        return None
    try:
        content = json.loads(text)["input"]
        mean, std = (tuple(float(v) for v in content[key]) for key in ("mean", "std"))
        size, geometry = int(content["image_size"]), str(content["geometry"])
        red, green, blue = mean
        r, g, b = std
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{source.path}: its metadata are damaged ({error})") from error
    note = f"trained at {size} px, {geometry}"
    return Foreign(dict(source.tensors), mean=(red, green, blue), std=(r, g, b), note=note, fake=1)
