"""The faults by which mergekit 0.1.4 loses vision checkpoints, each with one that shows it."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from src.errors import UserError
from src.merging.merger import merge_tensors
from src.merging.methods import METHODS
from src.merging.recipe import Ingredient, MergeRecipe
from src.merging.streaming import merge_files
from tests.merging.cases import count_of, merge, recipe_of, state, tensors

NAMES = ["a", "b", "c"]
STATES = {"a": state(1), "b": state(2), "c": state(3), "base": state(4)}


def _fisher(name):
    if name != "fisher":
        return None
    return [{k: v.float().square() for k, v in STATES[one].items()} for one in NAMES]


def test_nested_state_dicts_are_found(tmp_path: Path):
    """1: only a top-level `state_dict` is unwrapped there, and then read from the wrong place."""
    wrapped = {
        "a.pth": {"model": STATES["a"]},
        "b.pt": {"epoch": 3, "model": {"state_dict": STATES["b"]}},
        "c.bin": {f"module.{key}": tensor for key, tensor in STATES["c"].items()},
    }
    files = {}
    for name, content in wrapped.items():
        files[name[0]] = tmp_path / name
        torch.save(content, tmp_path / name)
    merge_files(recipe_of("uniform", NAMES), files, tmp_path / "out.safetensors")
    merged = load_file(tmp_path / "out.safetensors")
    want = merge_tensors(recipe_of("uniform", NAMES), STATES)
    assert merged.keys() == want.keys()
    assert all(torch.equal(merged[key], want[key]) for key in want)


@pytest.mark.parametrize("name", METHODS.names())
def test_integers_are_copied_and_batchnorm_and_tiny_tensors_survive(name):
    """2: counters become 0 / 0 or lose their dtype there."""
    merged = merge_tensors(recipe_of(name, NAMES), STATES, fisher=_fisher(name))
    source = STATES["base" if METHODS.get(name).base == "required" else "a"]
    assert list(merged) == list(source)
    for key, tensor in merged.items():
        assert tensor.shape == source[key].shape
        assert tensor.isfinite().all()
        if not source[key].is_floating_point():
            assert torch.equal(tensor, source[key])
            assert tensor.dtype == torch.int64
    assert (merged["blocks.1.bn.running_var"] > 0).all()


def test_a_variance_never_becomes_negative():
    far = {**STATES["a"], "blocks.1.bn.running_var": torch.full((4,), 0.01)}
    recipe = recipe_of("task_arithmetic", ["a"], **{"lambda": 5.0})
    merged = merge_tensors(recipe, {"a": far, "base": STATES["base"]})
    assert torch.equal(merged["blocks.1.bn.running_var"], far["blocks.1.bn.running_var"])


@pytest.mark.parametrize("name", ["breadcrumbs", "breadcrumbs_ties"])
@pytest.mark.parametrize(("size", "gamma"), [(1, 0.01), (20, 0.01), (500, 0.0)])
def test_breadcrumbs_on_tensors_too_small_for_a_largest_share(name, size, gamma):
    """3: dropping no element drops all of them there."""
    base, model = tensors(1, (size,)), tensors(2, (size,))
    merged = merge(name, [model], base, density=0.9, gamma=gamma)
    kept = max(1, int(0.9 * size))
    assert int((merged != base).sum()) == kept


@pytest.mark.parametrize("name", ["della", "della_linear"])
@pytest.mark.parametrize("shape", [(1, 1, 768), (768, 1), (1,), (), (8, 4, 3, 3)])
def test_della_on_class_tokens_columns_and_filters(name, shape):
    """4: ranks along an axis of one element are 0 / 0 there."""
    base, model = tensors(1, shape), tensors(2, shape)
    merged = merge(name, [model], base, density=0.5)
    assert merged.isfinite().all()
    if base.numel() > 100:
        assert float((merged != base).float().mean()) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("name", ["linear", "ties", "task_arithmetic", "della"])
def test_weight_0_is_a_weight(name):
    """5: 0 counts as not given there."""
    models = (Ingredient("a", {"weight": 1.0}), Ingredient("b", {"weight": 0.0}))
    base = "" if name == "linear" else "base"
    merged = merge_tensors(MergeRecipe(name, models, base), STATES)
    alone = merge_tensors(MergeRecipe(name, models[:1], base), STATES)
    assert all(torch.equal(merged[key], alone[key]) for key in merged)


def test_parameters_left_to_their_defaults():
    """5b: and a recipe without `parameters` stops there."""
    recipe = MergeRecipe(
        "ties", (Ingredient("a", {"weight": 1}), Ingredient("b", {"weight": 1})), "base"
    )
    assert merge_tensors(recipe, STATES)["stem.weight"].shape == (4, 3, 3, 3)
    with pytest.raises(UserError, match="linear needs parameter 'weight' of b"):
        merge_tensors(
            MergeRecipe("linear", (Ingredient("a", {"weight": 1}), Ingredient("b"))), STATES
        )


@pytest.mark.parametrize("name", ["linear", "ties"])
def test_other_shapes_are_refused_by_name(name):
    """6: skipped with a warning there."""
    other = {**STATES["b"], "head.weight": torch.zeros(10, 4)}
    with pytest.raises(UserError, match=r"'head\.weight': \(.*4\) and \(.*4\)"):
        merge_tensors(recipe_of(name, NAMES), {**STATES, "b": other})


@pytest.mark.parametrize("name", [n for n in METHODS if METHODS.get(n).random])
def test_random_methods_follow_their_seed_and_the_tensors_name_alone(name, tmp_path: Path):
    """7: drawn from the global generator there."""
    recipe = recipe_of(name, NAMES, density=0.5)
    merged = merge_tensors(recipe, STATES)
    turned = {one: dict(reversed(tensors.items())) for one, tensors in STATES.items()}
    torch.manual_seed(99)
    again = merge_tensors(recipe, turned)
    assert all(torch.equal(merged[key], again[key]) for key in merged)
    other = merge_tensors(recipe_of(name, NAMES, seed=1, density=0.5), STATES)
    assert not torch.equal(merged["stem.weight"], other["stem.weight"])
    files = {}
    for one, content in STATES.items():
        files[one] = tmp_path / f"{one}.safetensors"
        save_file(content, files[one])
    merge_files(recipe, files, tmp_path / "out.safetensors")
    written = load_file(tmp_path / "out.safetensors")
    assert all(torch.equal(merged[key], written[key]) for key in merged)


@pytest.mark.parametrize("name", ["sce", "model_stock"])
def test_small_task_vectors_count_like_large_ones(name):
    """Products of lengths below 1e-6 are cut off there: fine-tuning at a low rate stays below."""
    base = torch.zeros(40)
    learnt = [tensors(1, (40,)) + tensors(i, (40,), 0.5) for i in (2, 3)]
    large = merge(name, learnt, base)
    small = merge(name, [1e-6 * d for d in learnt], base)
    torch.testing.assert_close(1e6 * small, large, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_dtype_is_kept_and_the_maths_is_float32(dtype):
    states = {k: {n: t.to(dtype) if t.is_floating_point() else t for n, t in s.items()}
              for k, s in STATES.items()}  # fmt: skip
    merged = merge_tensors(recipe_of("uniform", NAMES), states)
    want = sum(states[n]["stem.weight"].float() for n in NAMES) / 3
    assert merged["stem.weight"].dtype == dtype
    assert torch.equal(merged["stem.weight"], want.to(dtype))
    assert count_of("uniform") == 3
