"""Language guidance: an image is fake where it is nearer to texts on fakes than on reals.

FLIP (Srivatsan et al., ICCV 2023). The text tower is trained along; what it came to is folded into
the classifier, so that a checkpoint is a plain net.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from timm.layers.activations import QuickGELU
from torch import Tensor, nn
from torch.nn import functional

from src.config import LanguageConfig
from src.errors import UserError
from src.models.classifier import Classifier, count_parameters
from src.models.formats.clip import OPENAI_MARKS
from src.models.heads import NormalizedLinear, classifier_of, projection_of
from src.models.text import TextTower, read_text_tower, tokens_of
from src.models.weights import Start
from src.tensor_files import read_tensors
from src.training.auxiliary import Auxiliary, Batch, Shown
from src.training.auxiliary.simclr import features_of_views

LOG = logging.getLogger("rvf")
EMBEDDED = "prompts"  # what `logit` leaves in what is shown


@dataclass(frozen=True)
class Prompts:
    """Embeddings of the prompts of both classes, not yet of length 1."""

    real: Tensor  # float32 (prompts, d)
    fake: Tensor  # likewise
    scale: Tensor  # what cosines are multiplied by, float32 ()

    def weight(self) -> Tensor:
        """Return the classifier that they amount to, float32 (d,): scale (fake - real).

        Of an image at length 1 its product is scale (cos fake - cos real). A class is the mean of
        its prompts, brought to length 1.
        """
        real, fake = (functional.normalize(one.mean(0), dim=0) for one in (self.real, self.fake))
        return self.scale * (fake - real)


class Guidance(Auxiliary):
    """Takes the logit from prompts, and adds `text_mse` where it is asked for.

    Args:
        config: `language` of a model.
        model: whose net has a projection and a classifier of features at length 1.
        path: the file that holds the text tower.

    Raises:
        UserError: see `read_text_tower`, `TextTower` and `tokens_of`; or the net's features and the
            text's have other widths.
    """

    wants = frozenset({"features"})

    def __init__(self, config: LanguageConfig, model: Classifier, path: Path) -> None:
        super().__init__()
        self.config = config
        quick = config.quick_gelu
        if quick is None:
            quick = _is_quick(model.net) if config.file is None else _of_openai(path)
        self.tower = TextTower(read_text_tower(path), quick_gelu=quick, path=path)
        layer = classifier_of(model.net)[1]
        assert isinstance(layer, NormalizedLinear)  # a config with `language` has `normalize`
        if layer.in_features != self.tower.width:
            raise UserError(
                f"{path}: its texts are of width {self.tower.width}, the images of this model "
                f"{layer.in_features}: head.project: {self.tower.width}"
            )
        self.tower.requires_grad_(config.train_text)
        prompts = config.prompts
        self.counts = [len(prompts.real), len(prompts.fake)]
        tokens = tokens_of([*prompts.real, *prompts.fake], len(self.tower.net.positional_embedding))
        self.register_buffer("tokens", tokens, persistent=False)
        LOG.info(
            "language: %d prompts of real, %d of fake; a text tower of %.2f M weights, %s, left "
            "behind when the run is done",
            *self.counts, count_parameters(self.tower) / 1e6,
            "trained along" if config.train_text else "as it is",
        )  # fmt: skip

    def prompts(self) -> Prompts:
        """Return the prompts' embeddings as the text tower has them now."""
        real, fake = self.tower(self.get_buffer("tokens")).split(self.counts)
        return Prompts(real, fake, self.tower.scale)

    def logit(self, shown: Shown) -> Tensor:
        """Return scale (cos fake - cos real) of a batch, float32 (n,)."""
        shown[EMBEDDED] = self.prompts()
        return unit(shown["features"]) @ shown[EMBEDDED].weight()

    def forward(
        self, batch: Batch, shown: Shown, again: Callable[[Batch], Shown]
    ) -> dict[str, Tensor]:
        """Return `text_mse`, times its weight, where it is asked for; see `Auxiliary`."""
        if not self.config.text_mse:
            return {}
        first, second = features_of_views(batch, shown, again)
        found = text_mse(unit(first), unit(second), shown[EMBEDDED], batch["label"])
        return {"text_mse": self.config.text_mse * found}

    @torch.no_grad()
    def settle(self, model: Classifier) -> None:
        """Fold the prompts into the classifier, whose logits are then those of `logit`."""
        layer = classifier_of(model.net)[1]
        layer.weight.copy_(self.prompts().weight()[None])  # type: ignore[operator,union-attr]
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]


def unit(features: Tensor) -> Tensor:
    """Return features (n, d) at length 1, float32."""
    return functional.normalize(features.flatten(1).float(), dim=1)


def text_mse(first: Tensor, second: Tensor, prompts: Prompts, label: Tensor) -> Tensor:
    """Draw two views of an image to say the same of two halves of its class's prompts.

    The mean of (cos(view 1, half 1) - cos(view 2, half 2))^2, FLIP's third loss. For each image
    half 1 is drawn anew: half as many as there are, with replacement; half 2 are those not drawn.

    Args:
        first: of view 1, float32 (n, d), of length 1; `second` of view 2.
        prompts: of both classes, two or more of each.
        label: 0 or 1, (n,).
    """
    halves = [torch.empty_like(first), torch.empty_like(first)]
    for name, of_class in ((0, prompts.real), (1, prompts.fake)):
        rows = (label == name).nonzero()[:, 0]
        if len(rows):
            for half, share in zip(halves, draw_halves(len(rows), of_class), strict=True):
                half[rows] = functional.normalize(share @ of_class, dim=1)
    one, other = ((view * half).sum(1) for view, half in zip((first, second), halves, strict=True))
    return functional.mse_loss(one, other)


def draw_halves(n: int, prompts: Tensor) -> tuple[Tensor, Tensor]:
    """Return the share of each prompt in both halves of `n` images, float32 (n, prompts) each."""
    count = len(prompts)
    drawn = torch.randint(count, (n, count // 2), device=prompts.device)
    times = torch.zeros(n, count, device=prompts.device).scatter_add_(
        1, drawn, torch.ones(drawn.shape, device=prompts.device)
    )
    rest = (times == 0).float()
    return times / times.sum(1, keepdim=True), rest / rest.sum(1, keepdim=True)


def text_file(config: LanguageConfig, given: Path | None, *, at_random: bool) -> Path:
    """Return the file that a run's text tower comes from; a UserError where there is none."""
    if config.file is not None:
        return Path(config.file)
    if given is None or at_random:
        raise UserError(
            "language wants the text tower of CLIP: give the file that holds both towers, "
            "--weights FILE (OpenAI's, open_clip's, or Hugging Face's CLIPModel), or name one for "
            "the text tower alone: language.file"
        )
    return given


def check_zero_shot(net: nn.Module, start: Start) -> None:
    """Raise a UserError where images do not come into the space of texts by trained weights."""
    layer = projection_of(net)
    lost = [key for key in start.missing if not key.startswith("head.")]
    if layer is None or start.source == "random" or lost:
        raise UserError(
            "strategy zero_shot trains nothing, and the file lacks what brings images into the "
            f"space of texts ({', '.join(lost) or 'all of it'}): give the whole CLIP, both towers "
            "in one file"
        )


def _is_quick(net: nn.Module) -> bool:
    return any(type(one) is QuickGELU for one in net.modules())


def _of_openai(path: Path) -> bool:
    content = read_tensors(path)
    return all(mark in content for mark in OPENAI_MARKS)
