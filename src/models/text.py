"""CLIP's text tower, built by open_clip from whatever file holds one, and CLIP's tokenizer.

Nothing is looked up on a hub: the word list is in open_clip's wheel, the sizes are the file's.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from src.errors import UserError
from src.models.formats import Renames, prefix_of, renamed, under
from src.tensor_files import check_finite, read_tensors
from src.wrappers import find_weights

HEAD_WIDTH = 64  # of every published CLIP (OpenAI's build_model reckons by it, too)
SCALE = "logit_scale"
# Of the tower, as OpenAI and open_clip name it: what tells it from any other.
ANCHORS = (
    *("token_embedding.weight", "positional_embedding", "ln_final.weight"),
    "transformer.resblocks.0.attn.in_proj_weight",
)
HF_ANCHORS = (
    *("embeddings.token_embedding.weight", "embeddings.position_embedding.weight"),
    *("final_layer_norm.weight", "encoder.layers.0.self_attn.q_proj.weight"),
)
HUGGING_FACE: Renames = (
    (r"^embeddings\.token_embedding", "token_embedding"),
    (r"^embeddings\.position_embedding\.weight", "positional_embedding"),
    (r"^encoder\.layers\.", "transformer.resblocks."),
    (r"self_attn\.", "attn."),
    (r"mlp\.fc1", "mlp.c_fc"),
    (r"mlp\.fc2", "mlp.c_proj"),
    ("^final_layer_norm", "ln_final"),
    (r"layer_norm(\d)", r"ln_\1"),
)
WAY_OUT = (
    "give the whole CLIP, both towers in one file (OpenAI's, open_clip's, or Hugging Face's "
    "CLIPModel), or name one that has it in language.file; or train without texts: --set "
    "language=null --as NAME"
)


class TextTower(nn.Module):
    """Maps prompts to embeddings in the space that images are projected into.

    Args:
        tensors: of `read_text_tower`.
        quick_gelu: whether its activation is QuickGELU (OpenAI's weights) or GELU.
        path: the file they came from, for messages.

    Raises:
        UserError: open_clip is not installed, or the tensors are of no tower that CLIP has.
    """

    def __init__(self, tensors: Mapping[str, Tensor], *, quick_gelu: bool, path: Path) -> None:
        super().__init__()
        words, width = tensors["token_embedding.weight"].shape
        if words != tokenizer().vocab_size:
            raise UserError(
                f"{path}: its text tower knows {words} words, CLIP's tokenizer has "
                f"{tokenizer().vocab_size}: it was trained with another one; {WAY_OUT}"
            )
        self.net = _built(tensors, width, quick_gelu=quick_gelu)
        self.log_scale = nn.Parameter(tensors[SCALE].float().reshape(()).clone())
        rest = {key: value.float() for key, value in tensors.items() if key != SCALE}
        try:
            self.net.load_state_dict(rest)
        except RuntimeError as error:
            lines = str(error).splitlines()
            said = lines[1].strip() if len(lines) > 1 else lines[0]
            raise UserError(f"{path}: no text tower of CLIP: {said}") from error
        self.width = int(tensors["text_projection"].shape[1])  # of an embedding

    @property
    def scale(self) -> Tensor:
        """What cosines are multiplied by, float (): 100 in OpenAI's weights."""
        return self.log_scale.exp()

    def forward(self, tokens: Tensor) -> Tensor:
        """Map token ids, int64 (n, up to 77), to embeddings of any length, float32 (n, width).

        No token sees a later one, so what follows the end of the longest prompt is left out.
        """
        length = int(tokens.argmax(1).max()) + 1  # the end has the greatest id
        whole = self.net.attn_mask
        self.net.attn_mask = whole[:length, :length]
        try:
            return self.net(tokens[:, :length])
        finally:
            self.net.attn_mask = whole


def _built(tensors: Mapping[str, Tensor], width: int, *, quick_gelu: bool) -> Any:  # noqa: ANN401
    """Return an empty tower of open_clip's of these tensors' sizes."""
    from open_clip.transformer import QuickGELU, TextTransformer

    layers = {m[1] for key in tensors if (m := re.match(r"transformer\.resblocks\.(\d+)\.", key))}
    with torch.device("meta"):  # drawing what is overwritten would take seconds
        empty = TextTransformer(
            context_length=len(tensors["positional_embedding"]),
            vocab_size=len(tensors["token_embedding.weight"]),
            width=width,
            heads=max(1, width // HEAD_WIDTH),
            layers=len(layers),
            mlp_ratio=len(tensors["transformer.resblocks.0.mlp.c_fc.weight"]) / width,
            output_dim=tensors["text_projection"].shape[1],
            act_layer=QuickGELU if quick_gelu else nn.GELU,
        )
    net: Any = empty.to_empty(device="cpu")
    net.attn_mask = net.build_causal_mask()
    return net


def read_text_tower(path: Path) -> dict[str, Tensor]:
    """Return the text tower of a file under open_clip's names, with `logit_scale`.

    It is OpenAI's state dict, open_clip's, or Hugging Face's `CLIPModel`, in any file that weights
    may come in, perhaps with more around it.

    Raises:
        UserError: unreadable, or without a text tower.
    """
    tensors = find_weights(read_tensors(path), path).some(path)
    prefix = prefix_of(tensors, ANCHORS, path)
    if prefix is not None:
        tower = _own(under(tensors, prefix))
        whole = prefix.removesuffix("text.")  # open_clip's CustomTextCLIP
    else:
        prefix = prefix_of(tensors, HF_ANCHORS, path)
        if prefix is None:
            raise UserError(f"{path}: holds no text tower of CLIP; {WAY_OUT}")
        tower = _from_hugging_face(under(tensors, prefix))
        whole = prefix.removesuffix("text_model.")
        if f"{whole}text_projection.weight" in tensors:
            tower["text_projection"] = tensors[f"{whole}text_projection.weight"].T
    for key, value in (("text_projection", tower.get("text_projection")),
                       (SCALE, tensors.get(f"{whole}{SCALE}"))):  # fmt: skip
        if value is None:
            raise UserError(f"{path}: a text tower without its {key}; {WAY_OUT}")
        tower[key] = value
    check_finite(tower, path)
    return tower


def _own(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return what is the tower's, of a file that holds the image tower beside it."""
    kept = ("transformer.", "token_embedding.", "positional_embedding", "ln_final.")
    tower = {key: value for key, value in tensors.items() if key.startswith(kept)}
    if "text_projection" in tensors:
        tower["text_projection"] = tensors["text_projection"]
    elif "text_projection.weight" in tensors:  # open_clip's `proj_bias`
        tower["text_projection"] = tensors["text_projection.weight"].T
    return tower


def _from_hugging_face(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    tensors.pop("embeddings.position_ids", None)  # a buffer of before transformers 5
    named = renamed(tensors, HUGGING_FACE)
    tower = {key: value for key, value in named.items() if "_proj." not in key or ".mlp." in key}
    tower |= {key: value for key, value in named.items() if ".out_proj." in key}
    for key in [key for key in named if ".attn.q_proj." in key]:
        parts = [named[key.replace("q_proj", f"{letter}_proj")] for letter in "qkv"]
        stem, kind = key.split("q_proj.")
        tower[f"{stem}in_proj_{kind}"] = torch.cat(parts)
    return tower


@cache
def tokenizer() -> Any:  # noqa: ANN401 - open_clip's `SimpleTokenizer`
    """Return CLIP's tokenizer; a UserError says how to install open_clip where it is missing."""
    try:
        from open_clip.tokenizer import SimpleTokenizer
    except ImportError as error:
        raise UserError(
            "language wants open_clip, for its tokenizer and text tower: "
            "uv sync --extra clip (or pip install open_clip_torch)"
        ) from error
    return SimpleTokenizer()


def tokens_of(prompts: Sequence[str], context: int = 77) -> Tensor:
    """Return the token ids of prompts, int64 (n, context), padded with 0.

    Raises:
        UserError: a prompt is longer than `context` tokens, start and end included, or two are the
            same to the tokenizer (which sees neither case nor spaces).
    """
    clip, seen = tokenizer(), {}
    for prompt in prompts:
        ids = tuple(clip.encode(prompt))
        if len(ids) + 2 > context:
            raise UserError(
                f"language.prompts: {prompt[:60]!r}... has {len(ids) + 2} tokens, CLIP reads "
                f"{context}; shorten it"
            )
        if ids in seen:
            raise UserError(
                f"language.prompts: {prompt!r} and {seen[ids]!r} are the same to CLIP, which sees "
                "neither case nor spaces; leave one of them out"
            )
        seen[ids] = prompt
    return clip(list(prompts), context_length=context)
