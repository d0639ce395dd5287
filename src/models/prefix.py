"""A net cut in two between its blocks: what lies before the cut, and what lies behind it."""

import copy
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from src.errors import UserError
from src.models.anatomy import Anatomy
from src.models.classifier import Classifier
from src.models.intermediates import watching

TOLERANCE = 1e-4  # of a logit, between the net and its two parts one after the other


class _ReachedError(Exception):
    """Ends a net's forward pass at the cut."""


class Suffix(nn.Module):
    """What lies behind the cut of a net: its own modules, no copies; takes features for pixels.

    Args:
        net: maps (n, 3, s, s) to (n, 1).
        cut: path of the first block behind the cut (`cut_of`).
    """

    def __init__(self, net: nn.Module, cut: str) -> None:
        super().__init__()
        self.net = _without_prefix(net, cut)

    def forward(self, batch: Mapping[str, Tensor], *, also: Collection[str] = ()) -> dict[str, Any]:
        """Map `features` of `entering_at`, of any float type, to what a `Classifier` returns."""
        entered = batch["features"].float()
        if entered.ndim == 4:
            entered = entered.contiguous(memory_format=torch.channels_last)
        with watching(self.net, also) as seen:
            logit = self.net(entered).squeeze(1)
        return {"logit": logit, **seen}


def cut_of(parts: Anatomy, blocks: int, name: str) -> str:
    """Return the path of the first module behind the first `blocks` blocks of a net.

    Raises:
        UserError: the net, called `name` in messages, has no more blocks than that, or none of its
            modules begins there.
    """
    if blocks >= len(parts.blocks):
        raise UserError(
            f"transfer.prefix_blocks is {blocks}, and {name} has {len(parts.blocks)} blocks: at "
            "least one must be left to train"
        )
    first = parts.blocks[blocks]
    paths = [weight.split(".")[:-1] for weight in sorted(first)]
    shared = next(
        k for k in range(len(paths[0]), -1, -1) if all(p[:k] == paths[0][:k] for p in paths)
    )
    path = ".".join(paths[0][:shared])
    inside = {n for n, _ in parts.net.named_parameters() if n.startswith(f"{path}.")}
    if not path or inside != first:
        raise UserError(
            f"strategy frozen_prefix: block {blocks} of {name} is no module of its own; take "
            "another transfer.prefix_blocks, or strategy fine_tuning with transfer.freeze"
        )
    return path


@torch.inference_mode()
def entering_at(net: nn.Module, cut: str, pixels: Tensor) -> Tensor:
    """Return what enters a module of a net, (n, ...); what lies behind it is not computed.

    Args:
        net: in evaluation mode.
        cut: path of the module, which takes one tensor.
        pixels: normalised, float (n, 3, s, s).
    """
    with _stopping_at(net.get_submodule(cut)) as seen, suppress(_ReachedError):
        net(pixels)
    return seen[0]


def prefix_state(net: nn.Module, cut: str) -> dict[str, Tensor]:
    """Return the weights and buffers of a net that lie before a cut, or in no module, by name."""
    before = tuple(f"{path}." for path in _paths_before(net, cut))
    return {k: v for k, v in net.state_dict().items() if k.startswith(before) or "." not in k}


def check_cut(model: Classifier, cut: str, name: str) -> None:
    """Check that the two parts of a model, one after the other, give what it gives.

    Raises:
        UserError: they do not; the net, called `name`, passes its prefix by otherwise.
    """
    size, chip = model.spec.image_size, next(model.net.parameters()).device
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (2, size, size, 3), generator=generator, dtype=torch.uint8)
    was_training, suffix = model.training, Suffix(model.net, cut)
    model.eval()
    suffix.eval()
    try:
        with torch.inference_mode():
            want = model({"pixels": pixels.to(chip)})["logit"]
            entered = entering_at(model.net, cut, model.normalised(pixels.to(chip)))
            got = suffix({"features": entered})["logit"]
        fine = bool((got - want).abs().max() <= TOLERANCE * (1 + want.abs().max()))
    except Exception:  # noqa: BLE001 - a net that is cut where it cannot be fails in its own way
        fine = False
    finally:
        model.train(was_training)
    if not fine:
        raise UserError(
            f"strategy frozen_prefix: {name} cannot be cut at {cut} (its blocks want more than "
            "the one before gives); take transfer.cache_features: false, or strategy fine_tuning "
            "with transfer.freeze"
        )


@contextmanager
def _stopping_at(module: nn.Module) -> Iterator[list[Tensor]]:
    seen: list[Tensor] = []

    def stop(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(inputs[0])
        raise _ReachedError

    hook = module.register_forward_pre_hook(stop)
    try:
        yield seen
    finally:
        hook.remove()


def _paths_before(net: nn.Module, cut: str) -> list[str]:
    """Return the paths of the modules that are listed before the one at `cut`, level by level."""
    paths, parent = [], net
    steps = cut.split(".")
    for depth, step in enumerate(steps):
        before = list(parent._modules)
        above = ".".join(steps[:depth])
        paths += [f"{above}.{name}".lstrip(".") for name in before[: before.index(step)]]
        parent = parent.get_submodule(step)
    return paths


def _without_prefix(net: nn.Module, cut: str) -> nn.Module:
    """Return a net that shares the modules of another, and hands on what enters it to the cut."""
    shell = parent = _shell(net)
    step, *rest = cut.split(".")
    while True:
        for name in list(parent._modules):
            if name == step:
                break
            parent._modules[name] = nn.Identity()
        if not rest:
            break
        inner = _shell(parent.get_submodule(step))
        parent._modules[step] = inner
        parent, (step, *rest) = inner, rest
    if hasattr(shell, "_pos_embed"):  # of timm's vision transformers; their tokens have theirs
        shell.__dict__["_pos_embed"] = lambda tokens: tokens
    return shell


def _shell(module: nn.Module) -> nn.Module:
    """Return a module with the very children and weights of another, and a list of its own."""
    shell = copy.copy(module)
    shell._modules = dict(module._modules)
    shell._compiled_call_impl = None
    return shell
