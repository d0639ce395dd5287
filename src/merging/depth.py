"""How deep in a net a tensor lies, told from the names of all its tensors.

Nets are lists of blocks, and lists are numbered: `blocks.3`, `stages.1.blocks.0`, `layer1.0`,
`_blocks.7`, `denseblock2.denselayer5`, `s2.b4`, `Mixed_6b`. The numbered series that holds most of
the tensors is that of the blocks, or of the stages where each of these holds a series of its own.
The order of the names plays no part: `.safetensors` files sort them.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

Depth = Callable[[str], float]
Key = tuple[int, int]  # stage and block
Series = dict[int, list[str]]  # the names of tensors by number

_NUMBERED = re.compile(r"(\D*?)(\d+)")
_LIST = re.compile(
    r"_?(?:res|dense|serial_|encoder_|transformer_)?(?:blocks?|layers?|units?|cells?|stages?|levels?|features"
    r"|transformers?|network|encoder|h)_?"
)
# By the first part of a name beside the blocks.
_FRONT = re.compile(
    r"_?(?:patch_embed|pixel_embed|cls_token|class_token|reg_token|dist_token|class_embedding"
    r"|pos_embed|patch_pos|pixel_pos|positional_embedding|rope|norm_pre|ln_pre|norm[12]_proj"
    r"|conv_stem|stem\d*|base_layer|cell_stem|conv_proj|conv1|bn1|high_pass|embeddings?|embeds?)"
    r"(?:\.|$|_)"
)
_BACK = re.compile(
    r"_?(?:head|fc|classifier|logits|aux|final|last|pre_logits|incre_modules"
    r"|downsamp_modules)|_bn1\.",
    re.IGNORECASE,
)
# Layers numbered from a net's two ends, with the blocks between them.
_LAYER = re.compile(
    r"(?:^|[._])(?:conv|bn|norm|ln|fc|linear|act|attn|proj|se|mlp)_?$", re.IGNORECASE
)
_BETWEEN = re.compile(r"transition|reduction|downsample|patch_embed|pool|merg")
_BEHIND_BLOCKS = re.compile(r"norm|fusion|conv_transition|projs|revert_projs|root|_bn_ac")
_SHARE, _SHARE_OF_A_LIST = 0.5, 0.2


class DepthByName:
    """The depth of a net's tensors by their names, 0 to 1.

    The first block has depth 0 and the last one 1, as layers have in mergekit, those of stages
    counted through. What lies before the blocks (embeddings, stem) has 0, what lies behind them
    (last norm, head) has 1, what lies between stages that of the stage's first block.
    """

    def __init__(self, names: Iterable[str]) -> None:
        names = list(names)
        start, stem, stages = _find_series(names)
        held = {name for series in stages.values() for name in series}
        keys: dict[str, Key] = {}
        for number, series in stages.items():
            keys |= _blocks(series, f"{start}{stem}{number}", number)
        found = sorted(set(keys.values()))
        self.blocks = len(found)  # how many there are
        last = max(1, len(found) - 1)
        places = {key: index / last for index, key in enumerate(found)}
        first = [places[min(k for k in found if k[0] == stage)] for stage in sorted(stages)]
        aside = [name for name in names if name not in held]
        self._places = _beside(aside, start, stem, sorted(stages), first)
        self._places |= {name: places[key] for name, key in keys.items()}

    def __call__(self, name: str) -> float:
        """Return the depth of a tensor."""
        return self._places[name] if name in self._places else _at_an_end(name)


def _find_series(names: Sequence[str]) -> tuple[str, str, Series]:
    """Go down to the numbered series that holds most of the tensors.

    Returns what its names start with, the text before its numbers, and its names by number; of
    these none where there is no series.
    """
    start = ""
    while names:
        series, children = _below(names, start)
        found: dict[str, int] = {stem: sum(map(len, s.values())) for stem, s in series.items()}
        if not found and not children:
            break
        sizes = dict(children) | found
        best = max([*found, *children], key=lambda way: (_is_list(way), sizes[way]))
        if sizes[best] < len(names) * (_SHARE_OF_A_LIST if _is_list(best) else _SHARE):
            break
        if best in found:
            return start, best, series[best]
        start += best
        names = [name for name in names if name.startswith(start)]
    return start, "", {}


def _below(names: Sequence[str], start: str) -> tuple[dict[str, Series], Counter[str]]:
    """Return the numbered series below a name, and how many tensors other modules hold."""
    series: dict[str, Series] = defaultdict(lambda: defaultdict(list))
    modules = Counter[str]()
    for name in names:
        head, dot, _ = name[len(start) :].partition(".")
        if found := _NUMBERED.match(head):
            series[found[1]][int(found[2])].append(name)
        if dot:
            modules[head + dot] += 1
    kept = {stem: s for stem, s in series.items() if len(s) > 1 or not stem}
    for module in list(modules):
        found = _NUMBERED.match(module)
        if found and found[1] in kept:
            del modules[module]
    return kept, modules


def _is_list(text: str) -> bool:
    return not text or _LIST.fullmatch(text.removesuffix(".")) is not None


def _blocks(names: Sequence[str], start: str, stage: int) -> dict[str, Key]:
    """Return the block of each tensor of a stage; the same for all where the stage is a block.

    All names start with `start`, the stage's number included.
    """
    if not any(name[len(start) :].startswith(".") for name in names):  # Mixed_5b, Mixed_5c
        letters = {name: re.match(r"[a-z](?=[._])", name[len(start) :]) for name in names}
        if all(letters.values()):
            return {name: (stage, ord(found[0])) for name, found in letters.items() if found}
    numbers = _numbers({name: name[len(start) :].removeprefix(".") for name in names})
    if not numbers:
        return dict.fromkeys(names, (stage, 0))
    ends = min(numbers.values()), max(numbers.values())
    behind = {name: bool(_BEHIND_BLOCKS.match(name[len(start) :].lstrip("."))) for name in names}
    return {name: (stage, numbers.get(name, ends[behind[name]])) for name in names}


def _numbers(rests: dict[str, str]) -> dict[str, int]:
    """Return the numbers of the blocks in a stage, by tensor; empty where there are none.

    `rests`: what the names say within the stage. What is in no block is left out.
    """
    whole = len(rests)
    while True:
        heads = {name: rest.partition(".")[0] for name, rest in rests.items()}
        found = {name: n for name, head in heads.items() if (n := _NUMBERED.match(head))}
        stem, size = (Counter(n[1] for n in found.values()).most_common(1) or [("", 0)])[0]
        if 2 * size >= whole and not _LAYER.search(stem):
            return {name: int(n[2]) for name, n in found.items() if n[1] == stem}
        lists = {head for head in heads.values() if _LIST.fullmatch(head)}
        inner = {name: rest for name, rest in rests.items() if heads[name] in lists}
        if len(lists) != 1 or 2 * len(inner) < whole:
            return {}
        (one,) = lists
        rests = {name: rest.removeprefix(f"{one}.") for name, rest in inner.items()}
        whole = len(rests)


def _beside(
    names: Sequence[str], start: str, stem: str, stages: Sequence[int], first: Sequence[float]
) -> dict[str, float]:
    """Return the depth of what is in no block.

    The names of blocks are `start`, `stem` and one of `stages`; `first` are the depths of these.
    """
    numbered = {}
    local = {name: _local(name, start) for name in names}
    for name, rest in local.items():
        found = _NUMBERED.match(rest)
        if found and not _FRONT.match(rest) and not _BACK.match(rest):
            numbered[name] = found[1], int(found[2])
    series: dict[str, list[int]] = defaultdict(list)
    for text, number in sorted(set(numbered.values())):
        series[text].append(number)
    depths = {}
    for name, rest in local.items():
        text, number = numbered.get(name, ("", -1))
        if stem and rest.partition(".")[0] == stem.rstrip("_"):  # `repeat` goes before `repeat_1`
            depths[name] = 0.0
        elif number < 0:
            depths[name] = _at_an_end(rest)
        elif _LAYER.search(text):
            # `bn2` follows `conv2` in a stem, and `conv_head` at the end.
            early = number < max([2, *stages[:1]]) or (number == 2 and 2 in series.get("conv", []))
            depths[name] = 0.0 if early else 1.0
        else:
            depths[name] = _between(text, series[text], number, stages, first)
    return depths


def _between(
    text: str, numbers: Sequence[int], number: int, stages: Sequence[int], first: Sequence[float]
) -> float:
    """Return the depth of one of a series beside that of the stages."""
    if not stages:
        return 1.0
    if number < stages[0] and "." not in text and len(numbers) == 1:
        return 0.0
    place = numbers.index(number)
    if len(numbers) == len(stages):
        return first[place]
    if len(numbers) == len(stages) + 1:
        return first[max(0, place - 1)]
    if len(numbers) < len(stages) and _BETWEEN.search(text):
        return first[(place + 1) * len(stages) // (len(numbers) + 1)]
    return 1.0


def _local(name: str, start: str) -> str:
    """Return what is left of a name without the modules that the blocks are in, too."""
    parts, around = name.split("."), start.split(".")
    while len(parts) > 1 and around and parts[0] == around[0]:
        parts, around = parts[1:], around[1:]
    return ".".join(parts)


def _at_an_end(rest: str) -> float:
    return 0.0 if _FRONT.match(rest) and not _BACK.match(rest) else 1.0
