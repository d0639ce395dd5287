"""Configs: strict reading, inheritance, changes, variants. Oracle: what stands in the YAML."""

import contextlib
import dataclasses
import datetime
import math
import os
import re
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src import config, paths
from src.artifacts.variants import write_variant
from src.config import ModelConfig, parse_change, parse_model, read_model, set_dotted
from src.errors import UserError
from src.strict_yaml import read_mapping, read_yaml
from tests.conftest import REPO

SHIPPED = sorted((REPO / "configs" / "models").glob("*.yaml"))
MINIMAL = {"backbone": {"name": "resnet18"}}
LIGHT = {"name": "light", "flip": 0.1, "erase": 0.2}


@pytest.fixture
def write_model(artefact_root):
    folder = artefact_root / "configs" / "models"
    folder.mkdir(parents=True)

    def write(name: str, text: str) -> Path:
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
        return folder / f"{name}.yaml"

    return write


def refusal(content: dict) -> str:
    with pytest.raises(UserError) as caught:
        parse_model(content, "my.yaml")
    return str(caught.value)


# --- shipped configs ---


def test_the_three_promised_models_are_shipped():
    assert {"effnet_b0", "mobilenetv2_100", "compact32"} <= {path.stem for path in SHIPPED}
    assert [path.stem for path in SHIPPED] == config.model_names()


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_config_reads_and_says_what_its_weights_may_be_used_for(path):
    model = read_model(path.stem)
    assert model.about
    assert model.licence
    plain = read_mapping(path)
    if "extends" not in plain:
        assert model.backbone.name == plain["backbone"]["name"]
        assert model.optim.epochs == plain["optim"]["epochs"]
    assert parse_model(model.as_dict(), "again") == model


# --- YAML ---


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001), ("1E-3", 0.001), ("1.e-3", 0.001), (".5e1", 5.0), ("-2e+4", -20000.0),
        ("1.5e3", 1500.0), ("3", 3), ("0.1", 0.1), ("1.0e-3", 0.001),
    ],
)  # fmt: skip
def test_numbers(tmp_path, text, value):
    path = tmp_path / "x.yaml"
    path.write_text(f"a: {text}\n")
    found = read_mapping(path)["a"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", ["1e-3x", "e-3", "'1e-3'", "1e", "v1e-3", "1e3.5"])
def test_what_only_looks_like_a_number_stays_a_string(tmp_path, text):
    path = tmp_path / "x.yaml"
    path.write_text(f"a: {text}\n")
    assert read_mapping(path)["a"] == text.strip("'")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "'a' stands twice"),
        ("o: {lr: 1, lr: 2}\n", "'lr' stands twice"),
        ("- 1\n- 2\n", "must be a mapping of keys to values (found [1, 2])"),
        ("", "must be a mapping of keys to values (found None)"),
        ("a: [1,\n", "not valid YAML"),
        ("a: !!python/object/apply:os.getcwd []\n", "not valid YAML"),
        ("? [1, 2]\n: 3\n", "cannot be a key"),
        ("? {a: 1}\n: 3\n", "cannot be a key"),
        ("a: 2024-13-45\n", "not valid YAML"),
        ("a: !!int x\n", "not valid YAML"),
        ("a: !!bool x\n", "not valid YAML"),
        ("a: " + "9" * 5000 + "\n", "not valid YAML"),
        ("a: " + "[" * 5000 + "\n", "not valid YAML"),
        ("a: \x00\n", "not valid YAML"),
    ],
)
def test_bad_yaml_names_the_file(tmp_path, text, message):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        read_mapping(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_yaml_merge_keys_work(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("base: &base {lr: 1, epochs: 2}\noptim: {<<: *base, lr: 3}\n")
    assert read_mapping(path)["optim"] == {"lr": 3, "epochs": 2}


def test_missing_file_folder_and_other_encoding(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_mapping(tmp_path / "none.yaml")
    with pytest.raises(UserError, match="not readable"):
        read_mapping(tmp_path)
    (tmp_path / "latin.yaml").write_bytes("about: café".encode("latin-1"))
    with pytest.raises(UserError, match="not readable"):
        read_mapping(tmp_path / "latin.yaml")


# --- keys and values ---


@pytest.mark.parametrize(
    ("content", "wrong", "near"),
    [
        ({"optm": {}}, "'optm'", "'optim'"),
        ({"optim": {"lrr": 1.0}}, "'optim.lrr'", "'optim.lr'"),
        ({"input": {"img_size": 3}}, "'input.img_size'", "'input.image_size'"),
        ({"loss": {"smoothing": 0.1}}, "'loss.smoothing'", "'loss.label_smoothing'"),
        ({"backbone": {"name": "x", "pretraind": "hub"}}, "pretraind", "'backbone.pretrained'"),
        ({3: 4}, "'3'", "optim"),
    ],
)
def test_unknown_key_offers_the_nearest(content, wrong, near):
    message = refusal(MINIMAL | content)
    assert message.startswith("unknown key in my.yaml")
    assert wrong in message
    assert near in message


@pytest.mark.parametrize(
    ("content", "key", "value"),
    [
        ({"optim": {"epochs": "three"}}, "optim.epochs", "'three'"),
        ({"optim": {"epochs": 2.5}}, "optim.epochs", "2.5"),
        ({"optim": {"epochs": True}}, "optim.epochs", "True"),
        ({"optim": {"lr": "fast"}}, "optim.lr", "'fast'"),
        ({"optim": {"lr": True}}, "optim.lr", "True"),
        ({"optim": {"lr": math.nan}}, "optim.lr", "nan"),
        ({"optim": {"lr": math.inf}}, "optim.lr", "inf"),
        ({"optim": [1]}, "optim", "[1]"),
        ({"optim": None}, "optim", "None"),
        ({"tta": False}, "tta", "False"),
        ({"input": {"mean": [0.5, 0.5]}}, "input.mean", "[0.5, 0.5]"),
        ({"input": {"geometry": "crop"}}, "input.geometry", "'crop'"),
        ({"loss": {"class_weights": "auto"}}, "loss.class_weights", "'auto'"),
        ({"backbone": {"name": 5}}, "backbone.name", "5"),
        ({"backbone": {}}, "backbone.name", "is missing"),
        ({"backbone": "resnet18"}, "backbone", "'resnet18'"),
    ],
)
def test_wrong_type_names_key_and_value(content, key, value):
    message = refusal(MINIMAL | content)
    assert message.startswith("my.yaml: ")
    assert key in message
    assert value in message


def test_all_wrong_values_are_named_at_once():
    message = refusal(MINIMAL | {"optim": {"lr": "a", "epochs": "b"}})
    assert "optim.lr" in message
    assert "optim.epochs" in message


@pytest.mark.parametrize(
    ("section", "key", "values"),
    [
        ("optim", "lr", [0, -1e-3]),
        ("optim", "min_lr", [-1e-6]),
        ("optim", "weight_decay", [-0.1]),
        ("optim", "epochs", [0, -1]),
        ("optim", "batch_size", [1, 0]),
        ("optim", "accumulate", [0]),
        ("optim", "warmup_epochs", [-0.5]),
        ("optim", "clip_grad", [0, -1]),
        ("optim", "ema_decay", [0, 1, 1.5]),
        ("input", "image_size", [0, 7, -224]),
        ("input", "crop_pct", [0, 1.01, -0.5]),
        ("input", "std", [[0.5, 0, 0.5]]),
        ("loss", "label_smoothing", [-0.1, 1]),
        ("loss", "class_weights", [[0, 1], [1, -1]]),
        ("backbone", "drop_rate", [-0.1, 1]),
        ("backbone", "drop_path_rate", [-0.1, 1]),
    ],
)
def test_values_out_of_range(section, key, values):
    for value in values:
        content = {section: {**MINIMAL.get(section, {}), key: value}}
        assert re.search(rf"{section}\.{key}(\.\d)? must be", refusal(MINIMAL | content))


def test_edges_of_the_ranges_are_allowed():
    edges = {
        "optim": {"epochs": 1, "batch_size": 2, "accumulate": 1, "warmup_epochs": 0, "min_lr": 0,
                  "weight_decay": 0, "clip_grad": None, "ema_decay": None},
        "input": {"image_size": 8, "crop_pct": 1},
        "loss": {"label_smoothing": 0, "class_weights": [0.1, 3]},
    }  # fmt: skip
    model = parse_model(MINIMAL | edges, "edges")
    assert model.loss.class_weights == (0.1, 3.0)
    assert model.optim.clip_grad is None


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("light", "light"),
        ({"name": "light"}, "light"),
        ({"flip": 0.1}, {"name": "standard", "flip": 0.1}),
        ({"flip": 0.1, "name": "light"}, {"name": "light", "flip": 0.1}),
    ],
)
def test_a_preset_is_kept_in_one_way(given, kept):
    model = parse_model(MINIMAL | {"augment": given}, "x")
    assert model.augment == model.as_dict()["augment"] == kept


@pytest.mark.parametrize(
    ("wrong", "words"),
    [(3, "must be text or a mapping"), (None, "must be text"), ({"name": 3}, "name must be text")],
)
def test_what_is_no_preset(wrong, words):
    assert f"augment{':' * isinstance(wrong, dict)} {words}" in refusal(
        MINIMAL | {"augment": wrong}
    )


def test_lora_has_two_names_and_one_is_kept():
    assert parse_model(MINIMAL | {"strategy": "peft_lora"}, "x").strategy == "lora"


@pytest.mark.parametrize(
    ("child", "changes", "found"),
    [
        ("", {}, {"name": "light", "flip": 0.1, "erase": 0.2}),
        ("augment: {flip: 0.3}", {}, {"name": "light", "flip": 0.3, "erase": 0.2}),
        ("augment: {name: light, jpeg: 0}", {}, {**LIGHT, "jpeg": 0}),
        ("augment: {name: standard, hue: 0}", {}, {"name": "standard", "hue": 0}),
        ("augment: light", {}, "light"),
        ("augment: none", {"augment.erase": 0.4}, {"name": "none", "erase": 0.4}),
        ("", {"augment": "none", "augment.erase": 0.4}, {"name": "none", "erase": 0.4}),
        ("", {"augment.jpeg": 0}, {**LIGHT, "jpeg": 0}),
    ],
)
def test_settings_go_with_their_preset(write_model, child, changes, found):
    write_model("base", "backbone: {name: resnet18}\naugment: {name: light, flip: 0.1, erase: 0.2}")
    write_model("child", f"extends: base\n{child}\n")
    assert read_model("child", changes).augment == found
    write_variant("variant", "child", changes)
    assert read_model("variant").augment == found


def test_a_setting_without_a_preset_is_one_of_the_default(write_model):
    write_model("base", "backbone: {name: resnet18}")
    changed = {"name": "standard", "hue": 0.0}
    assert read_model("base", {"augment.hue": 0.0}).augment == changed
    assert read_model("timm:resnet18", {"augment.hue": 0.0}).augment == changed


def test_patience_counts_from_1_and_goes_with_either_selection():
    assert "patience must be >= 1" in refusal(MINIMAL | {"patience": 0})
    for selection in ("best", "last"):
        found = parse_model(MINIMAL | {"patience": 3, "selection": selection}, "x")
        assert (found.patience, found.is_steered) == (3, True)
    assert not parse_model(MINIMAL, "x").is_steered


def test_configs_are_frozen():
    model = parse_model(MINIMAL, "x")
    with pytest.raises(dataclasses.FrozenInstanceError):
        model.seed = 1  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        model.optim.lr = 1.0  # type: ignore[misc]


def test_what_a_run_record_could_not_store_is_refused_at_once():
    loop: dict = {}
    loop["again"] = loop
    for value in (loop, {"day": datetime.date(2024, 1, 2)}, {"x": math.nan}, {"x": {1, 2}}):
        message = refusal({"backbone": {"name": "x", "kwargs": value}})
        assert message.startswith("my.yaml: ")


# --- names, inheritance ---


def test_unknown_model_offers_the_nearest_and_timm():
    with pytest.raises(UserError) as caught:
        read_model("efnet_b0")
    assert "did you mean 'effnet_b0'" in str(caught.value)
    assert "compact32" in str(caught.value)
    assert "timm:NAME" in str(caught.value)


@pytest.mark.parametrize("name", ["../models/compact32", "", ".", "a\0b", "x" * 5000, "compact32/"])
def test_a_model_name_is_not_a_path(name):
    with pytest.raises(UserError, match="unknown model"):
        read_model(name)


def test_timm_name_is_that_backbone_with_default_settings():
    model = read_model("timm:resnet18.a1_in1k")
    assert model == ModelConfig(config.BackboneConfig("resnet18.a1_in1k"))
    assert model.backbone.pretrained == "hub"
    assert model.input.image_size is None


def test_the_users_own_config_is_found_and_goes_first(write_model):
    write_model("mine", "backbone: {name: resnet18}\nseed: 7\n")
    write_model("compact32", "backbone: {name: resnet18}\nseed: 8\n")
    assert read_model("mine").seed == 7
    assert read_model("compact32").seed == 8
    assert {"mine", "effnet_b0"} <= set(config.model_names())


def test_extends_is_a_deep_merge(write_model):
    write_model(
        "base",
        "backbone: {name: resnet18, kwargs: {a: 1, b: {c: 2}}}\n"
        "optim: {lr: 1e-3, epochs: 5}\nseed: 3\n",
    )
    write_model("mid", "extends: base\noptim: {epochs: 6}\nbackbone: {kwargs: {b: {d: 3}}}\n")
    write_model("leaf", "extends: mid\nseed: 4\n")
    leaf = read_model("leaf")
    assert (leaf.optim.lr, leaf.optim.epochs, leaf.seed) == (1e-3, 6, 4)
    assert leaf.backbone.kwargs == {"a": 1, "b": {"c": 2, "d": 3}}
    assert read_model("base").optim.epochs == 5


def test_extends_a_shipped_config(write_model):
    write_model("slow", "extends: compact32\noptim: {epochs: 99}\n")
    parent, child = read_model("compact32"), read_model("slow")
    assert child.optim == dataclasses.replace(parent.optim, epochs=99)
    assert dataclasses.replace(child, optim=parent.optim) == parent


def test_extends_in_a_circle_or_into_nothing(write_model):
    write_model("a", "extends: b\n")
    write_model("b", "extends: a\n")
    write_model("self", "extends: self\n")
    write_model("orphan", "extends: compcat32\n")
    with pytest.raises(UserError, match="circle: a -> b -> a"):
        read_model("a")
    with pytest.raises(UserError, match="circle"):
        read_model("self")
    with pytest.raises(UserError, match="'compcat32'; did you mean 'compact32'"):
        read_model("orphan")


def test_an_unknown_key_in_a_file_names_the_file(write_model):
    path = write_model("typo", "extends: compact32\noptim: {learning_rate: 1e-3}\n")
    with pytest.raises(UserError) as caught:
        read_model("typo")
    assert str(path) in str(caught.value)
    assert "optim.learning_rate" in str(caught.value)


# --- changes ---


def test_read_model_with_changes():
    changed = read_model("compact32", {"optim.lr": 1e-4, "seed": 5, "backbone.kwargs.x.y": 1})
    plain = read_model("compact32")
    assert (changed.optim.lr, changed.seed) == (1e-4, 5)
    assert changed.backbone.kwargs == {**plain.backbone.kwargs, "x": {"y": 1}}
    assert changed.optim == dataclasses.replace(plain.optim, lr=1e-4)
    assert read_model("timm:resnet18", {"input.image_size": 64}).input.image_size == 64


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optim.lrr": 1.0}, "did you mean 'optim.lr'"),
        ({"optim.lr": "x"}, "optim.lr"),
        ({"optim.lr": -1.0}, "optim.lr must be > 0"),
        ({"seed.x": 1}, "seed"),
        ({"extends": "effnet_b0"}, "extends"),
        ({"": 1}, "unknown key"),
    ],
)
def test_bad_changes(changes, message):
    with pytest.raises(UserError, match=message):
        read_model("compact32", changes)


@pytest.mark.parametrize(
    ("text", "change"),
    [
        ("optim.lr=1e-4", ("optim.lr", 1e-4)),
        ("about=a=b", ("about", "a=b")),
        ("optim.clip_grad=null", ("optim.clip_grad", None)),
        ("input.mean=[0.1, 0.2, 0.3]", ("input.mean", [0.1, 0.2, 0.3])),
        ("a=", ("a", None)),
    ],
)
def test_parse_change(text, change):
    assert parse_change(text) == change


@pytest.mark.parametrize("text", ["optim.lr", "=3", "", "a=[1", "a={b: 1, b: 2}", "a=2024-13-45"])
def test_parse_change_refuses(text):
    with pytest.raises(UserError, match="--set"):
        parse_change(text)


def test_set_dotted_through_a_value():
    with pytest.raises(UserError, match="optim has no keys"):
        set_dotted({"optim": 3}, ["optim", "lr"], 1)


# --- variants ---


@pytest.mark.parametrize(
    ("parent", "changes"),
    [
        ("compact32", {"optim.lr": 1e-4}),
        ("compact32", {"optim": {"lr": 1e-4}}),
        ("compact32", {"optim.clip_grad": None, "backbone.kwargs.drop": "1e-3"}),
        ("effnet_b0", {"input.mean": [0.1, 0.2, 0.3], "sampler": "balanced"}),
        ("timm:resnet18", {"input.image_size": 64, "backbone.drop_rate": 0.1}),
        ("timm:resnet18", {}),
    ],
)
def test_a_variant_reads_back_as_the_changed_parent(artefact_root, parent, changes):
    path = write_variant("mine", parent, changes)
    assert path == artefact_root / "configs" / "models" / "mine.yaml"
    assert read_model("mine") == read_model(parent, changes)
    before = path.read_bytes()
    assert write_variant("mine", parent, changes) == path
    assert path.read_bytes() == before


def test_a_variant_of_a_variant_whose_name_looks_like_a_number(artefact_root):
    write_variant("1e5", "compact32", {"seed": 1})
    write_variant("2024", "1e5", {"optim.epochs": 3})
    assert (read_model("2024").seed, read_model("2024").optim.epochs) == (1, 3)


def test_a_variant_does_not_take_another_models_name(artefact_root):
    write_variant("mine", "compact32", {"seed": 1})
    with pytest.raises(UserError, match="is another model"):
        write_variant("mine", "compact32", {"seed": 2})
    assert read_model("mine").seed == 1
    with pytest.raises(UserError, match="is another model"):
        write_variant("effnet_b0", "compact32", {"seed": 2})
    assert not (artefact_root / "configs" / "models" / "effnet_b0.yaml").exists()


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "", ".hidden", "a b", "timm:x", "timm--resnet18", "-x", "ä", "a\n"]
)
def test_a_variants_name_is_plain(artefact_root, name):
    with pytest.raises(UserError, match="--as"):
        write_variant(name, "compact32", {"seed": 1})
    assert not list(artefact_root.rglob("*.yaml"))


def test_a_bad_variant_is_not_written(artefact_root):
    with pytest.raises(UserError):
        write_variant("mine", "compact32", {"optim.lrr": 1})
    with pytest.raises(UserError):
        write_variant("mine", "compact23", {"seed": 1})
    assert not list(artefact_root.rglob("*.yaml"))


# --- fuzz ---

KEYS = st.sampled_from(
    [field.name for field in dataclasses.fields(ModelConfig)]
    + [field.name for field in dataclasses.fields(config.OptimConfig)]
    + ["name", "kwargs", "class_weights", "x", "<<", "extends", ""]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=4)
    | st.dates()
    | st.sampled_from(["hub", "none", "balanced", "best", 10**400, -(10**400)])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(KEYS | st.integers() | st.tuples(st.integers()), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.dictionaries(KEYS, VALUES, max_size=6), st.booleans())
def test_parse_model_makes_a_config_or_a_user_error(content, with_backbone):
    if with_backbone:
        content = content | MINIMAL
    with contextlib.suppress(UserError):
        assert isinstance(parse_model(content, "fuzz"), ModelConfig)


TOKENS = st.sampled_from(
    [*"abc019-+.:_{}[],&*!?|>%@`'\"# \n\t", "\n  ", ": ", "- ", "<<: ", "!!int ", "!!float ",
    "!!timestamp ", "!!binary ", "!!set ", "!!omap ", "&a ", "*a", "0x", "0b", "2024-", "1:60",
    "1e", ".inf", ".nan", "~", "yes", "---\n", "...\n", "\r", "\x85", "\ufeff", "\x07"]
)  # fmt: skip


@given(st.lists(TOKENS, max_size=25).map("".join) | st.text(max_size=30))
def test_read_yaml_makes_a_mapping_or_a_user_error(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_text(text, encoding="utf-8", errors="replace")
    with contextlib.suppress(UserError):
        assert isinstance(read_mapping(path), dict)


def test_the_interpreters_limits_are_as_assumed():
    # The 5000 digits above are refused because of this limit.
    assert 0 < sys.get_int_max_str_digits() < 5000
    assert paths.TIMM_PREFIX == "timm:"


def test_pipes_and_devices_are_not_read(tmp_path):
    pipe = tmp_path / "model.yaml"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero")):
        with pytest.raises(UserError, match="a pipe or a device"):
            read_yaml(path)
