"""What a model costs: counts against a hand calculation, turns, and what is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from src import config
from src.errors import UserError
from src.inference import cost
from src.inference.exported import OnnxEngine
from src.models.classifier import measure
from tests.shared import tiny_model


def test_a_vit_is_counted_with_the_products_of_its_attention() -> None:
    model = config.read_model("vit_tiny")
    parameters, macs, spec = measure(model)
    tokens, width, depth = (spec.image_size // 16) ** 2 + 1, 192, 12
    patches = (tokens - 1) * 3 * 16 * 16 * width
    block = tokens * 12 * width**2 + 2 * tokens**2 * width  # linear layers; QK' and its use
    assert macs == patches + depth * block + width
    weights = 3 * 16 * 16 * width + width + width * (tokens + 1)  # patches; places and class token
    assert parameters == weights + depth * (12 * width**2 + 13 * width) + 2 * width + width + 1


def test_a_convolutional_net_is_counted_layer_by_layer() -> None:
    model = config.read_model("mobilenetv3_small")
    net = cost.build_classifier(model)[0].net
    counted = []

    def note(layer: torch.nn.Module, _: object, output: torch.Tensor) -> None:
        weight = layer.weight  # (out, in / groups, ...): each output value takes all but the first
        counted.append(output.numel() * weight[0].numel())

    for layer in net.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
            layer.register_forward_hook(note)
    with torch.inference_mode():
        net.eval()(torch.zeros(1, 3, 224, 224))
    assert measure(model)[1] == sum(counted)


def test_published_counts_of_clip() -> None:
    """OpenAI's ViT-B/16 has 149,620,737 weights, one of them the scale of its logits."""
    image = measure(config.read_model("clip_vit_b16"))[0] - (768 + 1) + 768 * 512
    assert image + cost.text_tower() + 1 == 149_620_737


def test_turns() -> None:
    slow, fast = cost.Turns((10.0, 5.0, 20.0), (1.0,) * 3), cost.Turns((30.0, 20.0, 40.0), (1.0,))
    assert (slow.median, slow.spread) == (10.0, 1.5)
    assert fast.factor(slow) == 3.0  # of 3, 4 and 2


@pytest.mark.nightly
def test_a_config_is_measured_with_its_own_peak(artefact_root: Path, tmp_path: Path) -> None:
    home = artefact_root / "configs" / "models"
    home.mkdir(parents=True)
    (home / "tiny.yaml").write_text(tiny_model())
    held = np.ones(30_000_000)  # 240 MB here, which are none of the child's
    way = cost.run_as(cost.way_of("tiny", config.read_model), "eager", "auto", torch.device("cpu"))
    (found,) = cost.measure_ways(
        [way], tmp_path, device="cpu", batch=2, threads=1, rounds=2, seconds=0.01
    )
    assert len(found.turns.images_per_second) == 2
    assert found.fresh.library_bytes < cost.peak_memory() - held.nbytes / 2
    assert found.fresh.peak_bytes >= found.fresh.library_bytes
    assert found.file_kind == "weights"
    assert 4 * found.parameters <= found.file_bytes < 6 * found.parameters


def test_what_cannot_be_measured(tmp_path: Path) -> None:
    cpu, way = torch.device("cpu"), cost.way_of("compact32", config.read_model)
    with pytest.raises(UserError, match="no such file"):
        cost.way_of("gone.safetensors", config.read_model)
    (tmp_path / "some.onnx").touch()
    with pytest.raises(UserError, match="export wrote"):
        cost.way_of(str(tmp_path / "some.onnx"), config.read_model)
    with pytest.raises(UserError, match="int8 wants"):
        cost.run_as(way, "eager", "int8", cpu)
    with pytest.raises(UserError, match="onnx knows"):
        cost.run_as(way, "onnx", "bf16", cpu)
    with pytest.raises(UserError, match="export makes one"):
        cost.with_file(replace(way, engine="onnx", precision="int8"), tmp_path / "made")


def test_dynamic_int8_is_refused(tmp_path: Path) -> None:
    node = helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"])
    ends = [("q", TensorProto.UINT8), ("scale", TensorProto.FLOAT), ("zero", TensorProto.UINT8)]
    outputs = [helper.make_tensor_value_info(name, kind, None) for name, kind in ends]
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])]
    path = tmp_path / "dynamic.onnx"
    onnx.save(helper.make_model(helper.make_graph([node], "g", given, outputs)), path)
    spec = measure(config.read_model("compact32"))[2]
    with pytest.raises(UserError, match="neighbours"):
        OnnxEngine(path, spec, "int8")
