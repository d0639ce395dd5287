"""Weights from elsewhere into a net. Oracles: plain torch and timm, on files made here."""

import hashlib
import json
from collections import OrderedDict
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from src.config import BackboneConfig, InputConfig, ModelConfig, read_model
from src.errors import UserError
from src.models.classifier import build_classifier
from src.models.weights import Start, carry_input, load_weights, start_weights
from tests.models.small import plain_load, same, tensors_of, tiny

HEAD = ("classifier",)
NEW = ["classifier.bias", "classifier.weight"]


def refusal(path: Path) -> str:
    net = tiny()
    before = tensors_of(net)
    with pytest.raises(UserError) as caught:
        load_weights(net, path, HEAD)
    assert str(path) in str(caught.value)
    assert same(tensors_of(net), before)
    return str(caught.value)


# --- formats and wrappers ---

WRAPPED = {
    "plain": lambda t: t,
    "ordered": lambda t: OrderedDict(t),
    "state_dict": lambda t: {"epoch": 3, "state_dict": t, "optimizer": {"lr": 0.1, "steps": [1]}},
    "in each other": lambda t: {"epoch": 3, "checkpoint": {"model": {"state_dict": t}}},
    "module": lambda t: {f"module.{k}": v for k, v in t.items()},
    "both": lambda t: {"state_dict": {f"_orig_mod.module.{k}": v for k, v in t.items()}},
    "half": lambda t: {k: v.half() if v.is_floating_point() else v for k, v in t.items()},
    "parameters": lambda t: {
        k: torch.nn.Parameter(v) if v.is_floating_point() else v for k, v in t.items()
    },
}


@pytest.mark.parametrize("wrap", WRAPPED)
def test_every_wrapper_loads_the_same_net(tmp_path, wrap):
    reference, path = tiny(seed=1), tmp_path / "weights.pth"
    torch.save(WRAPPED[wrap](tensors_of(reference)), path)
    net = tiny(seed=2)
    start = load_weights(net, path, HEAD)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert start == Start("file", path.name, sha256, [], [])
    if wrap == "half":
        reference.load_state_dict(WRAPPED["half"](tensors_of(reference)))
    assert same(tensors_of(net), tensors_of(reference))


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt", "w.bin", "old.pth"])
def test_every_kind_of_file(tmp_path, name):
    tensors, net = tensors_of(tiny(seed=1)), tiny(seed=2)
    if name.endswith(".safetensors"):
        save_file(tensors, tmp_path / name)
    else:
        zipped = name != "old.pth"
        torch.save(tensors, tmp_path / name, _use_new_zipfile_serialization=zipped)
    assert load_weights(net, tmp_path / name, HEAD).missing == []
    assert same(tensors_of(net), tensors)


def test_an_index_of_shards_and_what_identifies_it(tmp_path):
    reference, index = tiny(seed=1), tmp_path / "model.safetensors.index.json"
    items, names = list(tensors_of(reference).items()), ["a.safetensors", "b.safetensors"]
    for first, name in enumerate(names):
        save_file(dict(items[first::2]), tmp_path / name)
    places = {key: names[place % 2] for place, (key, _) in enumerate(items)}
    index.write_text(json.dumps({"weight_map": places}))
    net = tiny(seed=2)
    start = load_weights(net, index, HEAD)
    assert start.missing == []
    assert same(tensors_of(net), tensors_of(reference))
    items[0][1].add_(1)
    save_file(dict(items[0::2]), tmp_path / "a.safetensors")
    assert load_weights(net, index, HEAD).sha256 != start.sha256


# --- heads, missing and unexpected keys ---


@pytest.mark.parametrize("classes", [1, 1001])
def test_a_head_is_kept_where_it_fits_else_replaced_and_reported(tmp_path, classes):
    reference, net = tiny(classes, seed=1), tiny(seed=2)
    torch.save(tensors_of(reference), tmp_path / "w.pth")
    before = tensors_of(net)
    start = load_weights(net, tmp_path / "w.pth", HEAD)
    assert start.missing == start.unexpected == ([] if classes == 1 else NEW)
    wanted = tensors_of(reference)
    if classes != 1:
        wanted |= {key: before[key] for key in NEW}
    assert same(tensors_of(net), wanted)


def test_a_missing_head_and_extra_keys_are_reported_exactly(tmp_path):
    tensors = tensors_of(tiny(seed=1))
    # Old checkpoints lack the counters of BatchNorm.
    tensors = {k: v for k, v in tensors.items() if not k.endswith("num_batches_tracked")}
    del tensors["classifier.weight"], tensors["classifier.bias"]
    tensors |= {"decoder.weight": torch.ones(3), "aux": torch.ones(1), "fc.bias": torch.ones(2)}
    torch.save(tensors, tmp_path / "w.pth")
    start = load_weights(tiny(), tmp_path / "w.pth", HEAD)
    assert start.missing == NEW
    assert start.unexpected == ["aux", "decoder.weight", "fc.bias"]


def test_both_heads_of_a_distilled_net_are_replaced(tmp_path):
    name = "deit_tiny_distilled_patch16_224"
    small = {"depth": 1, "embed_dim": 24, "num_heads": 1}
    reference = timm.create_model(name, num_classes=7, **small)
    torch.save(reference.state_dict(), tmp_path / "w.pth")
    net = timm.create_model(name, num_classes=1, **small)
    start = load_weights(net, tmp_path / "w.pth", ("head", "head_dist"))
    assert start.missing == ["head.bias", "head.weight", "head_dist.bias", "head_dist.weight"]
    assert torch.equal(net.cls_token, reference.cls_token)  # type: ignore[arg-type]


def test_a_key_that_only_begins_like_the_head_is_not_the_head(tmp_path):
    class Net(torch.nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.head = torch.nn.Linear(2, 1)
            self.header = torch.nn.Linear(width, 2)

    torch.save(Net(5).state_dict(), tmp_path / "w.pth")
    with pytest.raises(UserError, match="another architecture"):
        load_weights(Net(3), tmp_path / "w.pth", ("head",))


# --- what is refused ---


def test_weights_of_another_architecture_or_width(tmp_path):
    path = tmp_path / "other.pth"
    torch.save(timm.create_model("test_resnet").state_dict(), path)
    assert "another architecture" in refusal(path)
    torch.save(torch.nn.Linear(2, 2).state_dict(), path)
    message = refusal(path)
    for words in ("are missing", "conv_stem.weight", "['bias', 'weight']"):
        assert words in message
    torch.save(tensors_of(tiny()) | {"conv_stem.weight": torch.zeros(99, 3, 3, 3)}, path)
    message = refusal(path)
    for words in ("conv_stem.weight", "(99, 3, 3, 3)", "another architecture"):
        assert words in message


def test_weights_of_a_deeper_net_are_refused(tmp_path):
    options = {"img_size": 32, "embed_dim": 48, "num_heads": 3, "num_classes": 0}
    deep, flat = (
        timm.create_model("vit_tiny_patch16_224", depth=depth, **options) for depth in (4, 2)
    )
    path = tmp_path / "deep.pth"
    torch.save(deep.state_dict(), path)
    with pytest.raises(UserError, match=r"24 tensors are of blocks .* 'blocks\.2\.norm1\.weight'"):
        load_weights(flat, path, ("head",))


@pytest.mark.parametrize("dtype", [torch.int8, torch.complex64])
def test_tensors_that_are_no_floats_are_refused(tmp_path, dtype):
    path = tmp_path / "quantised.pth"
    torch.save({k: (v * 100).to(dtype) for k, v in tensors_of(tiny()).items()}, path)
    kind = str(dtype).removeprefix("torch.")
    assert f"is {kind}, want floating point" in refusal(path)


def test_what_no_reader_takes_changes_no_net(tmp_path):
    tensors = tensors_of(tiny())
    tensors["bn1.weight"][2] = float("nan")
    save_file(tensors, tmp_path / "w.safetensors")
    assert "'bn1.weight' holds NaN or infinity" in refusal(tmp_path / "w.safetensors")
    assert "no such weights file" in refusal(tmp_path / "none.pth")


# --- where a run starts from ---


def config_of(pretrained: str) -> ModelConfig:
    return ModelConfig(BackboneConfig("test_efficientnet", pretrained=pretrained))  # type: ignore[arg-type]


def test_the_flags_contradict_each_other(tmp_path):
    with pytest.raises(UserError, match="contradict"):
        start_weights(tiny(), config_of("hub"), HEAD, tmp_path / "w.pth", True)


def test_a_model_that_wants_a_file_says_so():
    net = tiny()
    before = tensors_of(net)
    with pytest.raises(UserError) as caught:
        start_weights(net, config_of("file"), HEAD, None, False)
    for way in ("--weights FILE", "--no-pretrained", "--model timm:test_efficientnet"):
        assert way in str(caught.value)
    assert same(tensors_of(net), before)


@pytest.mark.parametrize(("wanted", "flag"), [("none", False), ("hub", True), ("file", True)])
def test_a_random_start_is_asked_for(wanted, flag):
    net = tiny()
    before = tensors_of(net)
    assert start_weights(net, config_of(wanted), HEAD, None, flag) == Start("random")
    assert same(tensors_of(net), before)


@pytest.mark.parametrize("wanted", ["none", "hub", "file"])
def test_a_weights_file_goes_before_what_the_config_wants(tmp_path, wanted):
    tensors, net = tensors_of(tiny(seed=1)), tiny(seed=2)
    torch.save(tensors, tmp_path / "w.pth")
    start = start_weights(net, config_of(wanted), HEAD, tmp_path / "w.pth", False)
    assert (start.source, start.name) == ("file", "w.pth")
    assert same(tensors_of(net), tensors)


# --- mean and std that came with a file ---

MEAN, STD = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]


@pytest.mark.parametrize(
    ("inputs", "start", "mean", "said"),
    [
        ({}, Start("file", "w.pth", mean=MEAN, std=STD), MEAN, ""),
        ({"mean": tuple(MEAN)}, Start("file", "w.pth", mean=MEAN, std=STD), MEAN, ""),
        (
            {"mean": (0.5, 0.5, 0.5)}, Start("file", "w.pth", mean=MEAN, std=STD), [0.5] * 3,
            "w.pth was trained with mean 0.1, 0.2, 0.3; the config's mean 0.5, 0.5, 0.5 is used",
        ),
        ({}, Start("random"), None, ""),
        ({}, Start("hub", "x"), None, ""),
    ],
)  # fmt: skip
def test_a_config_wins_and_an_open_one_takes_what_came_with_the_file(
    caplog, inputs, start, mean, said
):
    caplog.set_level("INFO", "rvf")
    config = ModelConfig(BackboneConfig("compact_net"), InputConfig(image_size=32, **inputs))
    model, _ = build_classifier(config)
    before = model.spec
    carry_input(model, config, start)
    assert said in caplog.text
    assert bool(said) == bool(caplog.text)
    if mean is None:
        assert model.spec == before
        return
    assert (model.spec.mean, model.spec.std) == (tuple(mean), tuple(STD))
    wanted = [(0.2 - one) / other for one, other in zip(mean, STD, strict=True)]
    pixels = torch.full((1, 32, 32, 3), 51, dtype=torch.uint8)
    torch.testing.assert_close(model.normalised(pixels)[0, :, 0, 0], torch.tensor(wanted))


# --- the real file ---


@pytest.fixture
def real_weights(shared_data) -> Path:
    path = shared_data.parent / "weights" / "mobilenetv2_100.imagenet1001.pth"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    return path


@pytest.mark.real
def test_the_real_checkpoint_loads_into_its_config_and_its_head_where_it_fits(real_weights):
    settings = read_model("mobilenetv2_100")
    model, native = build_classifier(settings)
    start = start_weights(model.net, settings, native.head, real_weights, False)
    assert start.missing == start.unexpected == NEW
    assert len(start.sha256) == 64
    theirs = timm.create_model("mobilenetv2_100", num_classes=1001, pad_type="same")
    content = plain_load(real_weights)
    theirs.load_state_dict(content)
    images = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        ours = model.net.eval().forward_features(images)  # type: ignore[operator]
        wanted = theirs.eval().forward_features(images)
    assert float(wanted.abs().max()) > 0
    torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-5)
    net = timm.create_model("mobilenetv2_100", num_classes=1001, pad_type="same")
    start = load_weights(net, real_weights, HEAD)
    assert (start.missing, start.unexpected) == ([], [])
    assert torch.equal(net.classifier.weight, content["classifier.weight"])  # type: ignore[union-attr]
