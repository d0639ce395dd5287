"""Maps of where a net looks, by name; and which of them a net can show.

A kind is one function, registered beside its like: `gradients` (the Grad-CAM family), `attention`
(rollout, relevance), `occlusion`, `boundary`.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

from src.errors import UserError
from src.models.classifier import Classifier
from src.registry import Registry
from src.tensor_files import first_line

Pixels = NDArray[np.uint8]  # RGB (n, s, s, 3), as the net takes them
Towards = NDArray[np.float32]  # (n,): 1 where the verdict to be explained is fake, -1 where real
# (model in evaluation mode, its name, pixels, verdicts) -> float (n, h, w) of any size and scale:
# the larger, the more a place speaks for that picture's verdict. UserError where the net has none.
Map = Callable[[Classifier, str, Pixels, Towards], NDArray[np.float32]]
MAPS: Registry[Map] = Registry("kind of map")
ALWAYS = {"occlusion"}  # asks a net for nothing but its logit, and costs many passes to try
FAKE_ONLY = {"boundary"}  # say where a picture was changed, and nothing of one that was not
# The first that a net can show is usual: what pointed best in benchmarks/maps.py, seed 0, where
# Grad-CAM told little of a vision transformer. Of more kinds, one passes by chance more often.
PREFERRED = ("rollout", "hirescam", "grad_cam", "relevance")
AT_ONCE = 32 * 224 * 224  # pixels of pictures that go through a net together


def kinds_for(model: Classifier, name: str) -> dict[str, str]:
    """Return each kind of map with "" where the net can show it, else why not.

    Each is tried on one picture of noise. The net, called `name` in reasons, stays as it was.
    """
    return {kind: why_not(model, name, kind) for kind in MAPS}


def usual_kinds(model: Classifier, name: str) -> list[str]:
    """Return the kinds that are drawn where nobody asks for others: few, of different ways.

    The first of `PREFERRED` that the net can show, what says where pictures were changed, and
    occlusion.
    """
    able = (kind for kind in PREFERRED if not why_not(model, name, kind))
    chosen = [next(able, ""), *sorted(FAKE_ONLY), *sorted(ALWAYS)]
    return [kind for kind in chosen if kind and not why_not(model, name, kind)]


def why_not(model: Classifier, name: str, kind: str) -> str:
    """Return why a net, called `name`, cannot show a kind of map; "" where it can."""
    if kind in ALWAYS:
        return ""
    size = model.spec.image_size
    noise = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), dtype=np.uint8)
    try:
        with untouched(model):
            MAPS.get(kind)(model, name, noise, np.ones(1, np.float32))
    except UserError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - a net that is not made for it fails in its own way
        return f"{name} cannot show {kind}: {first_line(error)}"
    return ""


@contextmanager
def untouched(model: Classifier) -> Iterator[None]:
    """Have a model in evaluation mode with frozen weights, and gradients of all else.

    Afterwards each module's mode, and each weight's gradient and whether it is trained, are what
    they were. A model is of one thread meanwhile.
    """
    modes = [(module, module.training) for module in model.modules()]
    weights = [(weight, weight.requires_grad, weight.grad) for weight in model.parameters()]
    try:
        model.eval()
        for weight, _, _ in weights:
            weight.requires_grad_(False)
            weight.grad = None
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        for weight, trained, gradient in weights:
            weight.requires_grad_(trained)
            weight.grad = gradient


def batches(pictures: Iterable[Pixels], size: int) -> Iterator[Pixels]:
    """Yield pictures (size, size, 3) in batches of bounded memory."""
    most, batch = max(1, AT_ONCE // size**2), []
    for picture in pictures:
        batch.append(picture)
        if len(batch) == most:
            yield np.stack(batch)
            batch = []
    if batch:
        yield np.stack(batch)


def chip_of(model: Classifier) -> torch.device:
    """Return where a model's weights lie."""
    return next(model.net.parameters()).device


def logits_of(model: Classifier, pictures: Iterable[Pixels]) -> NDArray[np.float64]:
    """Return the logits (n,) of pictures as the net takes them, made one after the other."""
    found = []
    with torch.inference_mode():
        for batch in batches(pictures, model.spec.image_size):
            logit = model({"pixels": torch.from_numpy(batch).to(chip_of(model))})["logit"]
            found.append(logit.double().cpu().numpy())
    return np.concatenate(found) if found else np.zeros(0)
