"""Where a net looks: rollout and agreement by hand, which nets are refused, the command."""

import cv2
import numpy as np
import pytest
import torch

from src import paths
from src.cli import parsers
from src.config import read_model
from src.errors import UserError
from src.explain.attention import AttentionMaps, check_looks, patch_maps, rollout
from src.models.checkpoint import save_checkpoint
from src.models.classifier import build_classifier
from src.reporting.attention_maps import agreement, pairs_of
from tests.reporting.conftest import predict

VIT = """
backbone:
  name: vit_tiny_patch16_224
  pretrained: none
  kwargs: {{embed_dim: 16, depth: {depth}, num_heads: 2}}
input: {{image_size: {size}}}
"""


def maps_of(layers, n, tokens, seed=0):
    rng = np.random.default_rng(seed)
    raw = rng.random((layers, n, tokens, tokens))
    return [torch.tensor(one / one.sum(-1, keepdims=True)) for one in raw]


def test_rollout_is_the_product_of_half_attention_and_half_identity():
    maps = maps_of(3, 2, 5)
    found = rollout(maps)
    for item in range(2):
        product = np.eye(5)
        for layer in range(3):
            product = (0.5 * maps[layer][item].numpy() + 0.5 * np.eye(5)) @ product
            np.testing.assert_allclose(found[layer][item].numpy(), product, atol=1e-12)
            np.testing.assert_allclose(product.sum(1), 1)


def test_a_map_is_the_class_tokens_row_or_the_mean_query():
    one = maps_of(1, 2, 11)[0]
    found = patch_maps(one, 2, has_class=True)
    np.testing.assert_allclose(found.numpy(), one.numpy()[:, 0, 2:].reshape(2, 3, 3))
    found = patch_maps(one[:, :9, :9], 0, has_class=False)
    np.testing.assert_allclose(found.numpy(), one.numpy()[:, :9, :9].mean(1).reshape(2, 3, 3))


def test_agreement_is_the_cosine_with_the_layer_of_the_same_depth():
    own = AttentionMaps("s", maps_of(2, 3, 5, 1), 1, has_class=True)
    other = AttentionMaps("t", maps_of(4, 3, 5, 2), 1, has_class=True)
    assert pairs_of(own, other) == [1, 3]
    found = agreement(own, other)
    for layer, place in enumerate((1, 3)):
        a, b = own.maps[layer].numpy()[:, 0, 1:], other.maps[place].numpy()[:, 0, 1:]
        want = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        np.testing.assert_allclose(found[layer, 0], want, atol=1e-12)
        want = [np.corrcoef(*pair)[0, 1] for pair in zip(a, b, strict=True)]
        np.testing.assert_allclose(found[layer, 1], want, atol=1e-12)
    np.testing.assert_allclose(agreement(own, own), 1)


def save(name, text):
    folder = paths.config_dirs("models")[0]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.yaml").write_text(text)
    config = read_model(name)
    torch.manual_seed(0)
    model, _ = build_classifier(config)
    path = paths.checkpoint("toy", "s", name, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(path, model, config.as_dict(), ["full"])
    predict(name)
    return model


def test_the_command_draws_a_model_beside_another_and_names_mistakes(toy, coarse, capsys):
    def run(*words, code=0):
        assert parsers.main("attention", [*words, "--data", "toy", "--scheme", "s"]) == code
        captured = capsys.readouterr()
        return captured.err if code else captured.out

    save("small", VIT.format(depth=2, size=32))
    save("large", VIT.format(depth=3, size=48))
    out = run("small", "--against", "large", "--rollout")
    png = paths.attention_png("toy", "s", "small", 0)
    assert cv2.imread(str(png)) is not None
    lines = png.with_suffix(".csv").read_text().splitlines()
    assert [line.split(",")[:2] for line in lines[1:]] == [["1", "2"], ["2", "3"], ["all", ""]]
    assert "over 6 pictures" in out
    run("small", "--against", "small", "--layers", "2")  # both see one and the same canvas
    assert png.with_suffix(".csv").read_text().splitlines()[-1].startswith("all,,1.0,1.0,")
    assert "small has layers 1 to 2" in run("small", "--layers", "3", code=2)
    assert "unknown item of fold 0 'nowhere.png'" in run("small", "--items", "nowhere.png", code=2)
    assert "--fold 7" in run("small", "--fold", "7", code=2)
    assert "want a .png file" in run("small", "--output", "x.jpg", code=2)
    text = "backbone: {name: compact_net, pretrained: none, kwargs: {widths: [8, 8]}}\n"
    net = save("conv", text + "input: {image_size: 16}\n")
    assert "conv has no self-attention over all tokens" in run("conv", code=2)
    with pytest.raises(UserError, match="conv has no self-attention"):
        check_looks(net, "conv")
