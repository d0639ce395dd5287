"""Which way round a head is, where the user says it: its class that means fake, as one logit."""

from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from src.errors import UserError
from src.models.formats import PLAIN
from src.models.formats.base import Foreign, Source, one_logit
from src.models.formats.beside import fake_of
from src.models.formats.fit import IGNORABLE, in_head

# What lies in files beside a net's layers and has no say in what it computes.
SILENT = (*IGNORABLE, "mask_token", "position_ids", "logit_scale")
UNKNOWN = {
    1: "nothing says what the one output of its head means: --fake-index 1 where positive is fake, "
    "--fake-index 0 where it is real",
    2: "nothing says which of the two classes of its head is fake: --fake-index 0 or 1 does (most "
    "code counts real 0, fake 1; classes numbered by their folders' names make fake 0)",
}
LOSSES = ("criterion.", "loss")


def turn_head(
    name: str,
    found: Foreign,
    source: Source,
    net: nn.Module,
    head: tuple[str, ...],
    *,
    fake: int | None,
) -> Foreign:
    """Turn the head of a file into one logit, fake > 0, by the class that means fake.

    Its format tells which that is, else the user must. In a plain file the head lies under the
    net's own name for it, or beside the tower (`fc`, `linear`), where it is taken if nothing else
    lies there that could stand between the two; another format knows where its head lies.

    Args:
        name: of the format.
        found: what was read, in the net's sizes.
        source: the file.
        net: of one output.
        head: names of its classifier layers.
        fake: 0 or 1, what the user says; of a head of one output, 1 where positive means fake and
            0 where it means real. None leaves it to the format.

    Raises:
        UserError: nobody says, or the format says the opposite; there is no head that fits, or
            several, or one of more than two classes; or the file holds more layers than the net.
    """
    path = source.path
    own = net.state_dict()
    known = fake_of(found.labels) if found.fake is None else found.fake
    if known is not None and fake not in (None, known):
        raise UserError(
            f"{path}: --fake-index {fake} contradicts the file, in whose format {known} is fake; "
            "leave --fake-index out"
        )
    fake = fake if known is None else known
    if found.fake is not None:
        if name == PLAIN:
            _refuse_more(found, own, f"{head[0]}.weight", path)
        return found
    place = f"{head[0]}.weight" if head else ""
    if place not in own:
        raise UserError(f"{path}: {type(net).__name__} names no classifier to put a head into")
    beside = source.tensors if name == PLAIN else {}
    key, weight = _head_weight(found, beside, head, own[place], path)
    if fake is None:
        raise UserError(f"{path}: {UNKNOWN[len(weight)]}")
    if name == PLAIN:
        _refuse_more(found, own, key, path)
    bias = {**beside, **found.tensors}.get(key.removesuffix("weight") + "bias")
    if weight.shape[0] == 2:
        logit = one_logit(weight, bias, fake)
    else:
        sign = 1 if fake else -1
        logit = {"weight": sign * weight.float()}
        logit["bias"] = weight.new_zeros(1) if bias is None else sign * bias.float()
    old = (key.removesuffix("weight"), *(f"{layer}." for layer in head))
    rest = {k: v for k, v in found.tensors.items() if not k.startswith(old)}
    # A net without a bias takes no zero in its place.
    names = {f"{head[0]}.{part}": value for part, value in logit.items()}
    rest |= {k: v for k, v in names.items() if k in own or bool(v.any())}
    dropped = [k for k in found.dropped if not k.startswith(old)]
    return replace(found, tensors=rest, dropped=dropped, logit=logit, fake=fake)


def _head_weight(
    found: Foreign, beside: dict[str, Tensor], head: tuple[str, ...], own: Tensor, path: Path
) -> tuple[str, Tensor]:
    """Return key and weight of the one head that sees as many features as the net's.

    It is looked for under the net's name for it, then in `beside`.
    """
    every = {k: v for k, v in found.tensors.items() if in_head(k, head)} or beside
    fitting = {
        key: value
        for key, value in every.items()
        if key.endswith("weight") and value.dim() > 1 and value.shape[1:] == own.shape[1:]
        and (in_head(key, head) or value.shape[0] <= 2)
    }  # fmt: skip
    if len(fitting) != 1:
        what = f"several heads ({', '.join(fitting)})" if fitting else "no head"
        raise UserError(
            f"{path}: holds {what} of one or two outputs on this net's {own.shape[1]} "
            f"features{f' ({found.note})' if found.note else ''}; train one: train_folds.py "
            f"--weights {path}"
        )
    key, weight = next(iter(fitting.items()))
    if len(weight) > 2:
        raise UserError(
            f"{path}: its head has {len(weight)} classes, and one logit tells two; train "
            f"one: train_folds.py --weights {path}"
        )
    return key, weight


def _refuse_more(found: Foreign, own: dict[str, Tensor], key: str, path: Path) -> None:
    stem = key.removesuffix("weight")
    unused = {k for k in found.tensors if k not in own} | set(found.dropped) - found.idle
    more = sorted(
        k for k in unused
        if not k.startswith((stem, *LOSSES)) and not k.endswith(SILENT)
    )  # fmt: skip
    if more:
        raise UserError(
            f"{path}: holds {len(more)} tensors that this model has no place for, the first are "
            f"{more[:3]}: if its detector computes with them, its answers would be others; if not, "
            "save the tower and the head alone"
        )
