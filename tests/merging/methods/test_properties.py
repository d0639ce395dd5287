"""What must hold for every method, on tensors of every shape."""

import pytest
import torch
from hypothesis import given as vary
from hypothesis import settings
from hypothesis import strategies as st

from src.errors import UserError
from src.merging.methods import METHODS
from tests.merging.cases import count_of, given, merge, tensors

SHAPES = [(), (1,), (7,), (1, 1), (1, 9), (9, 1), (1, 1, 8), (4, 3), (3, 2, 3, 3), (5, 1, 1, 1)]
SYMMETRIC = [name for name in METHODS if METHODS.get(name).symmetric and count_of(name) > 1]
WITH_BASE = [name for name in METHODS if METHODS.get(name).base == "required"]
SPARSE = [n for n in METHODS if any(p.name == "density" for p in METHODS.get(n).parameters)]
LAMBDA = [n for n in METHODS if any(p.name == "lambda" for p in METHODS.get(n).parameters)]

shapes, seeds = st.sampled_from(SHAPES), st.integers(0, 10**6)


def _inputs(name, seed, shape):
    base = tensors(seed, shape)
    return base, [base + tensors(seed + i, shape, 0.3) for i in range(1, count_of(name) + 1)]


@pytest.mark.parametrize("name", METHODS.names())
@vary(seed=seeds, shape=shapes)
@settings(max_examples=6)
def test_copies_of_one_model_merge_into_it(name, seed, shape):
    base, (model, *_) = _inputs(name, seed, shape)
    if name in ("nearswap", "arcee_fusion", "slerp", "wise_ft"):
        base = model  # these interpolate from the base, which is one of the copies
    merged = merge(name, [model.clone() for _ in range(count_of(name))], base)
    torch.testing.assert_close(merged, model, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("name", SYMMETRIC)
@vary(seed=seeds, shape=shapes)
@settings(max_examples=6)
def test_the_order_of_the_models_does_not_matter(name, seed, shape):
    base, models = _inputs(name, seed, shape)
    merged = merge(name, models, base)
    torch.testing.assert_close(merge(name, models[::-1], base), merged, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["linear", "ties", "breadcrumbs", "fisher", "multislerp"])
def test_weights_move_with_their_models(name):
    base, models = _inputs(name, 3, (6, 5))
    merged = merge(name, models, base, weight=[0.2, 0.5, 0.3])
    swapped = merge(name, models[::-1], base, weight=[0.3, 0.5, 0.2])
    torch.testing.assert_close(swapped, merged)


@pytest.mark.parametrize("name", METHODS.names())
@vary(seed=seeds, shape=shapes)
@settings(max_examples=6)
def test_inputs_are_left_alone_and_the_output_is_finite_and_its_own(name, seed, shape):
    base, models = _inputs(name, seed, shape)
    before = [tensor.clone() for tensor in (base, *models)]
    merged = merge(name, models, base)
    assert merged.shape == base.shape
    assert merged.dtype == base.dtype
    assert merged.isfinite().all()
    merged.add_(1)
    for tensor, was in zip((base, *models), before, strict=True):
        assert torch.equal(tensor, was)


@pytest.mark.parametrize("name", METHODS.names())
def test_a_stack_and_a_list_are_the_same(name):
    base, models = _inputs(name, 5, (4, 3))
    assert torch.equal(merge(name, torch.stack(models), base), merge(name, models, base))


def _channels_last(tensor):
    return tensor.contiguous(memory_format=torch.channels_last)


def _transposed(tensor):
    return tensor.transpose(0, -1).contiguous().transpose(0, -1)


@pytest.mark.parametrize("name", METHODS.names())
@pytest.mark.parametrize("turn", [_channels_last, _transposed])
@pytest.mark.parametrize("more", [{}, {"density": 0.5}, {"select_topk": 0.5}])
def test_the_order_in_memory_changes_nothing(name, turn, more):
    """`.pth` files keep strides: convolutions in channels_last, transposed matrices."""
    if not {one.name for one in METHODS.get(name).parameters} >= more.keys():
        return
    base, models = _inputs(name, 11, (6, 4, 3, 3))
    turned = [turn(model) for model in models]
    assert not turned[0].is_contiguous()
    want = merge(name, models, base, **more)
    torch.testing.assert_close(merge(name, turned, turn(base), **more), want, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(merge(name, models, turn(base), **more), want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", METHODS.names())
@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 8), (3, 2, 3, 3)])
def test_zeros_merge_into_zeros(name, shape):
    """Fresh biases and running means."""
    zero = torch.zeros(shape)
    assert torch.equal(merge(name, [zero] * count_of(name), zero), zero)


@pytest.mark.parametrize("name", WITH_BASE)
def test_models_that_learnt_nothing_leave_the_base(name):
    base, _ = _inputs(name, 7, (6, 5))
    merged = merge(name, [base] * count_of(name), base)
    torch.testing.assert_close(merged, base, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", LAMBDA)
def test_lambda_0_returns_the_base(name):
    base, models = _inputs(name, 8, (6, 5))
    assert torch.equal(merge(name, models, base, **{"lambda": 0.0}), base)


@pytest.mark.parametrize("name", SPARSE)
@vary(seed=seeds, shape=shapes)
@settings(max_examples=5)
def test_density_1_keeps_all_and_density_0_returns_the_base(name, seed, shape):
    base, models = _inputs(name, seed, shape)
    elects = name.endswith("ties") or name == "della"
    whole = merge("ties" if elects else "task_arithmetic", models, base, normalize=True)
    merged = merge(name, models, base, density=1.0, normalize=True)
    torch.testing.assert_close(merged, whole, rtol=1e-5, atol=1e-6)
    assert torch.equal(merge(name, models, base, density=0.0), base)


@pytest.mark.parametrize("name", [n for n in METHODS if "weight" in given(n) and count_of(n) > 1])
@vary(seed=seeds, shape=shapes)
@settings(max_examples=5)
def test_a_model_of_weight_0_is_not_there(name, seed, shape):
    base, models = _inputs(name, seed, shape)
    without = 0 if name == "nuslerp" else 1
    weights = [float(index != without) for index in range(len(models))]
    stays = [model for model, weight in zip(models, weights, strict=True) if weight]
    want = models[1] if name == "nuslerp" else merge(name, stays, base)
    merged = merge(name, models, base, weight=weights)
    torch.testing.assert_close(merged, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", METHODS.names())
def test_too_few_models_a_missing_base_and_wrong_parameters_are_refused(name):
    method = METHODS.get(name)
    one = torch.ones(3)
    with pytest.raises(UserError, match=r"wants .* models"):
        method([], one if method.base == "required" else None, **given(name))
    if method.base == "required":
        with pytest.raises(UserError, match="base_model"):
            method([one] * count_of(name), **given(name))
    if method.base == "no":
        with pytest.raises(UserError, match="uses no base"):
            method([one] * count_of(name), one, **given(name))
    with pytest.raises(UserError, match=f"unknown parameter of {name} 'weightt'"):
        merge(name, [one] * count_of(name), one, weightt=1.0)


@pytest.mark.parametrize("name", METHODS.names())
def test_every_method_says_in_one_line_what_it_does(name):
    summary = (METHODS.get(name).run.__doc__ or "").splitlines()[0]
    assert 20 < len(summary) < 100
    assert summary.endswith(".")
