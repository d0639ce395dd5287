"""The parts of a net by the names of their weights: stem, blocks, tail, head, norms, biases.

The head of a net alone, on features that were computed before.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _NormBase

from src.errors import UserError

Names = frozenset[str]


@dataclass(frozen=True)
class Anatomy:
    """Names of a net's weights, by where they lie and what they are."""

    net: nn.Module  # they belong to
    stem: Names  # before the first block
    # from the input to the output; timm's coarse grouping (12 of a ViT-B, 7 of an EfficientNet, 4
    # stages of a ResNet or ConvNeXt)
    blocks: tuple[Names, ...]
    tail: Names  # between the last block and the head (last norm, last convolution)
    head: Names  # of the classifier
    norms: Names  # of normalisation layers, wherever they lie
    biases: Names  # wherever they lie

    @property
    def everything(self) -> Names:
        """Return the names of all weights."""
        return self.stem.union(self.tail, self.head, *self.blocks)

    def last(self, number: int) -> Names:
        """Return the last blocks, with the tail and the head, which always go with them."""
        chosen = self.blocks[max(0, len(self.blocks) - number) :]
        return self.head.union(self.tail, *chosen)


def anatomy_of(net: nn.Module, head: tuple[str, ...]) -> Anatomy:
    """Tell the parts of a net apart.

    Args:
        net: with one output.
        head: names of its classifier layers.
    """
    names = [name for name, _ in net.named_parameters()]
    in_head = frozenset(name for name in names if name.startswith(tuple(f"{h}." for h in head)))
    body = [name for name in names if name not in in_head]
    keys = _block_keys(net, body)
    numbers = sorted(set(keys.values()))
    blocks = tuple(frozenset(n for n, key in keys.items() if key == k) for k in numbers)
    # A weight in no block belongs to what lies before or behind them: modules are named in order.
    first = next((place for place, name in enumerate(body) if name in keys), len(body))
    stem = frozenset(name for name in body[:first] if name not in keys)
    # Tokens and position embeddings are named before all modules, and read before all blocks.
    tail = frozenset(body) - stem - set(keys)
    return Anatomy(net, stem, blocks, tail, in_head, _norms(net), _biases(net))


def _block_keys(net: nn.Module, body: list[str]) -> dict[str, tuple[int, ...]]:
    """Return the number of the block that a weight lies in, for those that lie in one."""
    patterns = _block_patterns(net)
    keys = {}
    for name in body:
        found = next((m for pattern in patterns if (m := pattern.match(name))), None)
        if found is not None:
            keys[name] = tuple(int(group) for group in found.groups() if group and group.isdigit())
    if not keys:
        # A net that does not say: each of its children is a block.
        children = list(dict.fromkeys(name.split(".")[0] for name in body))
        return {name: (children.index(name.split(".")[0]),) for name in body}
    # What no pattern knows in the middle (a reduction between stages) goes with what precedes it.
    places = [place for place, name in enumerate(body) if name in keys]
    before = keys[body[places[0]]]
    for name in body[places[0] : places[-1]]:
        before = keys.setdefault(name, before)
    return keys


def _block_patterns(net: nn.Module) -> list[re.Pattern[str]]:
    """Return timm's patterns of block names; none where the net gives none, or gives a function."""
    try:
        matcher = net.group_matcher(coarse=True)  # type: ignore[operator]
    except (AttributeError, AssertionError, NotImplementedError, TypeError):
        return []
    spec = matcher.get("blocks", []) if isinstance(matcher, dict) else []
    rules = [(spec, None)] if isinstance(spec, str) else spec
    return [re.compile(pattern) for pattern, order in rules if order is None]


def _norms(net: nn.Module) -> Names:
    """Return the weights of the layers that normalise (Batch, Layer, Group, RMS norm)."""
    kinds = (_NormBase, nn.LayerNorm, nn.GroupNorm)
    found = [
        f"{path}.{name}" if path else name
        for path, module in net.named_modules()
        if isinstance(module, kinds) or "RMSNorm" in type(module).__name__
        for name, _ in module.named_parameters(recurse=False)
    ]
    return frozenset(found)


def _biases(net: nn.Module) -> Names:
    return frozenset(name for name, _ in net.named_parameters() if name.split(".")[-1] == "bias")


class Probe(nn.Module):
    """Runs the classifier of a net, and nothing before it.

    Args:
        net: maps (n, 3, s, s) to (n, 1); its own classifier is used, not a copy.
        head: names of its classifier layers; one.
        drop_rate: dropout before it.

    Raises:
        UserError: the net has several classifiers.
    """

    def __init__(self, net: nn.Module, head: tuple[str, ...], drop_rate: float) -> None:
        super().__init__()
        if len(head) != 1:
            raise UserError(
                f"a net with {len(head)} classifiers ({', '.join(head)}) has no features to train "
                "one on; choose a strategy without a stage for the head alone (fine_tuning)"
            )
        self.head = net.get_submodule(head[0])
        self.drop_rate = drop_rate

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Map `features`, float (n, ...), to `logit` (n,), as `Classifier` does pixels."""
        features = functional.dropout(batch["features"], self.drop_rate, self.training)
        return {"logit": self.head(features).reshape(len(features)), "features": features}


@torch.inference_mode()
def features_of(net: nn.Module, head: tuple[str, ...], pixels: Tensor) -> Tensor:
    """Return what enters the classifier of a net in evaluation mode, float32 (n, ...).

    Args:
        net: in evaluation mode.
        head: names of its classifier layers; one.
        pixels: normalised, float (n, 3, s, s).
    """
    seen: list[Tensor] = []
    layer = net.get_submodule(head[0])
    hook = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        net(pixels)
    finally:
        hook.remove()
    return seen[0].float()
