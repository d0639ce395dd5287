"""CLIP's text tower and tokenizer. Oracles: open_clip's and transformers' own CLIP."""

from itertools import product
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from src.config import BackboneConfig, HeadConfig
from src.errors import UserError
from src.models.backbones import build_backbone
from src.models.heads import projection_of
from src.models.text import TextTower, read_text_tower, tokenizer, tokens_of
from src.models.weights import load_weights
from tests.models.clips import WIDTH, hugging_faces, open_clips
from tests.models.small import HEAD, SMALL, images, save, tensors_of

pytest.importorskip("open_clip", reason="comes with the extra `clip`")
NAME = "vit_base_patch32_clip_quickgelu_224"
NAMES = ["a face", "an attack", "Élan: 100 % REAL!!", "it's a photo-montage, isn't it?"]
PROMPTS = [
    f"{start} {what}{end}"
    for start, what, end in product(
        ["This is", "a photo of", "an   example\tof", "no", "日本語", "naïve café &", "😀",
         "x2", "don't trust", "PRINTED"],
        [*NAMES, "spoof"],
        ["", ".", " !!", " 12345"],
    )
]  # fmt: skip


def test_token_ids_are_those_of_transformers_on_200_prompts():
    transformers = pytest.importorskip("transformers", reason="comes with the extra `peft`")
    clip = tokenizer()
    ends = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {ends.get(key, key): number for key, number in clip.encoder.items()}
    theirs = transformers.CLIPTokenizer(vocab=vocabulary, merges=list(clip.bpe_ranks))
    assert len(PROMPTS) == len(set(PROMPTS)) == 200
    for prompt in PROMPTS:
        own, want = tokens_of([prompt])[0].tolist(), theirs(prompt)["input_ids"]
        assert own[: len(want)] == want
        assert not any(own[len(want) :])


def sharded(tensors: dict[str, torch.Tensor], folder: Path) -> Path:
    import json

    halves = [dict(list(tensors.items())[k::2]) for k in (0, 1)]
    names = [f"model-0000{k}-of-00002.safetensors" for k in (1, 2)]
    for name, half in zip(names, halves, strict=True):
        save_file(half, folder / name)
    files = {key: name for name, half in zip(names, halves, strict=True) for key in half}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": files}))
    return index


def as_file(kind: str, folder: Path) -> Path:
    if kind.startswith("hf"):
        tensors = tensors_of(hugging_faces())
        if kind == "hf in shards":
            return sharded(tensors, folder)
        save_file(tensors, folder / "model.safetensors")
        return folder / "model.safetensors"
    tensors = tensors_of(open_clips())
    if kind == "openai":
        marks = {"input_resolution": 32, "context_length": 77, "vocab_size": 49408}
        tensors |= {key: torch.tensor(value) for key, value in marks.items()}
    if kind == "open_clip's two parts":  # CustomTextCLIP, from a training script
        tensors = {
            key if key.startswith(("visual.", "logit_scale")) else f"text.{key}": value
            for key, value in tensors.items()
        }
        return save(
            {"epoch": 3, "state_dict": {f"module.{k}": v for k, v in tensors.items()}}, folder
        )
    return save(tensors, folder, "ViT.pt")


@pytest.mark.parametrize("kind", ["openai", "open_clip's two parts", "hf", "hf in shards"])
@torch.no_grad()
def test_both_towers_say_what_their_own_library_says(tmp_path, kind):
    path = as_file(kind, tmp_path)
    config = BackboneConfig(NAME, kwargs={k: v for k, v in SMALL.items() if k != "img_size"})
    net, native = build_backbone(config, 32, HeadConfig(project=WIDTH, normalize=True))
    start = load_weights(net, path, native.head)
    assert start.missing == ["head.bias", "head.weight"]
    assert not any("proj" in key for key in start.dropped if "visual" in key)
    tower = TextTower(read_text_tower(path), quick_gelu=True, path=path)
    tokens, pixels = tokens_of(NAMES), images()
    if kind.startswith("hf"):
        clip = hugging_faces()
        image = clip.get_image_features(pixel_values=pixels)
        ends = tokens.argmax(1, keepdim=True)  # transformers pads with the end
        text = clip.get_text_features(
            input_ids=torch.where(torch.arange(77) > ends, 49407, tokens),
            attention_mask=(torch.arange(77) <= ends).long(),
        )
        image, text = (getattr(one, "pooler_output", one) for one in (image, text))
    else:
        clip = open_clips()
        image, text = clip.encode_image(pixels), clip.encode_text(tokens)
    features = net.forward_head(net.forward_features(pixels.clone()), pre_logits=True)  # type: ignore[operator]
    torch.testing.assert_close(features, image, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(tower(tokens), text, atol=1e-5, rtol=1e-5)
    assert float(tower.scale) == pytest.approx(float(clip.logit_scale.exp()))
    assert text.std(0).max() > 1e-3  # of different prompts


def test_a_projection_is_drawn_where_the_file_has_none_and_dropped_where_the_net_has_none(tmp_path):
    visual = {k: v for k, v in tensors_of(open_clips()).items() if k.startswith("visual.")}
    config = BackboneConfig(NAME, kwargs={k: v for k, v in SMALL.items() if k != "img_size"})
    plain, _ = build_backbone(config, 32, HeadConfig())
    assert "visual.proj" in load_weights(plain, save(visual, tmp_path), HEAD).dropped
    del visual["visual.proj"]
    net, _ = build_backbone(config, 32, HeadConfig(project=WIDTH))
    assert load_weights(net, save(visual, tmp_path), HEAD).missing[0] == "fc_norm.weight"
    other, _ = build_backbone(config, 32, HeadConfig(project=WIDTH + 1))
    path = save(tensors_of(open_clips()), tmp_path)
    with pytest.raises(UserError, match=r"another shape.*fc_norm"):
        load_weights(other, path, HEAD)
    assert projection_of(plain) is None


@pytest.mark.parametrize("name", ["test_efficientnet", "compact_net"])
def test_a_net_without_the_place_for_a_projection_is_refused_by_name(name):
    with pytest.raises(UserError, match=rf"head\.project: {name} has no place"):
        build_backbone(BackboneConfig(name), 32, HeadConfig(project=8))


def test_a_file_that_holds_no_tower_that_fits_says_what_to_do(tmp_path):
    tensors = tensors_of(open_clips())
    visual = {key: value for key, value in tensors.items() if key.startswith("visual.")}
    with pytest.raises(UserError, match=r"holds no text tower of CLIP; give the whole CLIP"):
        read_text_tower(save(visual, tmp_path))
    two = tensors | {"token_embedding.weight": torch.ones(2, 16)}
    path = save(two, tmp_path)
    with pytest.raises(UserError, match=r"knows 2 words, CLIP's tokenizer has 49408"):
        TextTower(read_text_tower(path), quick_gelu=True, path=path)
    del tensors["text_projection"]
    with pytest.raises(UserError, match="without its text_projection"):
        read_text_tower(save(tensors, tmp_path))
    lacks = {k: v for k, v in tensors_of(open_clips()).items() if "resblocks.1.ln_2" not in k}
    path = save(lacks, tmp_path)
    with pytest.raises(UserError, match=r"no text tower of CLIP: Missing key.*ln_2"):
        TextTower(read_text_tower(path), quick_gelu=True, path=path)


def test_prompts_that_clip_cannot_tell_apart_or_read_to_the_end_are_refused():
    with pytest.raises(UserError, match="are the same to CLIP"):
        tokens_of(["a real face", "A  real FACE"])
    with pytest.raises(UserError, match="has 82 tokens, CLIP reads 77"):
        tokens_of(["face " * 80])
    assert tokens_of(["face " * 75]).shape == (1, 77)
