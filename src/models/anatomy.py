"""The parts of a net by the names of their weights: stem, blocks, tail, head, norms, biases."""

import re
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

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
    """Tell the parts of a net apart, whose classifier layers are called `head`."""
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
    biases = frozenset(name for name in names if name.split(".")[-1] == "bias")
    return Anatomy(net, stem, blocks, tail, in_head, _norms(net), biases)


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
    return frozenset(
        f"{path}.{name}" if path else name
        for path, module in net.named_modules()
        if isinstance(module, kinds) or "RMSNorm" in type(module).__name__
        for name, _ in module.named_parameters(recurse=False)
    )
