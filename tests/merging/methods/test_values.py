"""Values of the methods against other people's arithmetic, or the formula written out in numpy."""

import numpy as np
import pytest
import torch
from scipy.spatial import geometric_slerp

from src.errors import UserError
from src.merging.methods import METHODS
from tests.merging.cases import merge, tensors

BASE = tensors(0)
MODELS = [BASE + tensors(i, scale=0.3) for i in (1, 2, 3)]
STACK = np.stack([m.numpy() for m in MODELS]).astype(np.float64)
DELTAS = STACK - BASE.numpy().astype(np.float64)
WEIGHTS = [0.5, 0.3, 0.2]


def _near(found, want):
    np.testing.assert_allclose(found.numpy(), want, rtol=1e-5, atol=1e-6)


def _ema(decay):
    want = STACK[0]
    for checkpoint in STACK[1:]:
        want = decay * want + (1 - decay) * checkpoint
    return want


@pytest.mark.parametrize(
    ("name", "count", "given", "want"),
    [
        ("linear", 3, {"weight": [1, 2, 4]}, np.average(STACK, 0, [1, 2, 4])),
        ("linear", 3, {"weight": [1, 2, 4], "normalize": False}, np.tensordot([1, 2, 4], STACK, 1)),
        ("linear", 2, {"weight": [2, -1]}, 2 * STACK[0] - STACK[1]),
        ("task_arithmetic", 1, {"weight": -1.0, "normalize": False}, BASE.numpy() - DELTAS[0]),
        ("uniform", 3, {}, STACK.mean(0)),
        ("swa", 3, {}, STACK.mean(0)),
        ("ema", 3, {"decay": 0.7}, _ema(0.7)),
        ("ema", 3, {"decay": 0.0}, STACK[-1]),
        ("ema", 3, {"decay": 1.0}, STACK[0]),
        ("passthrough", 1, {"scale": 1.5}, 1.5 * STACK[0]),
        ("wise_ft", 1, {"alpha": 0.0}, BASE),
        ("wise_ft", 1, {"alpha": 1.0}, STACK[0]),
        ("slerp", 1, {"t": 0.0}, BASE),
        ("slerp", 1, {"t": 1.0}, STACK[0]),
        ("nearswap", 1, {"t": 0.0}, BASE),
        ("nearswap", 1, {"t": 1e6}, STACK[0]),
        ("nearswap", 1, {"t": 0.05}, BASE.numpy() + np.clip(DELTAS[0], -0.05, 0.05)),
    ],
)
def test_values_by_the_formula(name, count, given, want):
    _near(merge(name, MODELS[:count], BASE, **given), want)


@pytest.mark.parametrize("name", ["linear", "fisher", "multislerp"])
def test_weights_that_add_up_to_0_are_refused(name):
    weight = [1.0, -1.0] if name == "linear" else [0.0, 0.0]
    with pytest.raises(UserError, match=f"{name}: .*weight"):
        merge(name, MODELS[:2], BASE, weight=weight)


def test_fisher_weighs_every_element():
    fisher = [tensors(i).square() for i in (4, 5, 6)]
    merged = METHODS.get("fisher")(MODELS, weight=WEIGHTS, companions={"fisher": fisher})
    shares = np.stack([f.clamp(min=1e-6).numpy() for f in fisher]).astype(np.float64)
    _near(merged, np.average(STACK, 0, shares * np.array(WEIGHTS)[:, None, None]))
    with pytest.raises(UserError, match="negative"):
        METHODS.get("fisher")(MODELS, companions={"fisher": [-f for f in fisher]})


@pytest.mark.parametrize("t", [0.0, 0.25, 0.5, 1.0])
def test_spheres_against_scipys_slerp(t):
    exact = [torch.nn.functional.normalize(tensors(i, (12,)).double(), dim=0) for i in (1, 2)]
    want = geometric_slerp(exact[0].numpy(), exact[1].numpy(), [t], tol=1e-6)[0]
    ends = [end.float() for end in exact]
    _near(merge("slerp", ends[1:], ends[0], t=t), want)
    _near(merge("nuslerp", ends, ends[0], weight=[1 - t, t]), want)
    rows = [torch.stack([end, 2 * end]) for end in ends]
    found = merge("nuslerp", rows, rows[0], weight=[1 - t, t], nuslerp_flatten=False)
    _near(found, np.stack([want, 2 * want]))
    if t == 0.5:  # the middle of an arc is the mean on the sphere
        _near(merge("karcher", ends, ends[0]), want)
        _near(merge("multislerp", ends, ends[0]), want)


def test_karcher_is_where_the_logarithms_cancel_out():
    """Its definition: the tangents to all points add up to 0 there."""
    units = [torch.nn.functional.normalize(m.double().flatten(), dim=0) for m in MODELS]
    mean = merge("karcher", units, units[0], max_iter=100, tol=1e-9)
    assert float(mean.norm()) == pytest.approx(1)
    cosines = [float(mean @ unit) for unit in units]
    steps = [
        np.arccos(c) / np.sqrt(1 - c * c) * (u - c * mean)
        for c, u in zip(cosines, units, strict=True)
    ]
    assert float(sum(steps).norm()) < 1e-7


@pytest.mark.parametrize("name", ["karcher", "multislerp"])
def test_the_mean_length_is_kept_and_directions_that_cancel_out_give_the_plain_mean(name):
    lengths = [float(m.norm()) for m in MODELS]
    assert float(merge(name, MODELS, BASE).norm()) == pytest.approx(np.mean(lengths), rel=1e-5)
    merged = merge(name, [BASE, -3 * BASE], BASE)
    torch.testing.assert_close(merged, -BASE, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "more",
    [{}, {"nuslerp_flatten": False}, {"nuslerp_flatten": False, "nuslerp_row_wise": True}],
)
@pytest.mark.parametrize("factor", [-3.0, -1.1, -0.7, -1.0])
def test_nuslerp_is_straight_where_directions_cancel_out(more, factor):
    merged = merge("nuslerp", [BASE, factor * BASE], BASE, **more)
    torch.testing.assert_close(merged, (1 + factor) / 2 * BASE, rtol=1e-5, atol=1e-5)
    bias = [torch.tensor([d, -d * (1 + 1e-7)]) for d in (-0.0720, 0.0167)]  # of two classes
    merged = merge("nuslerp", bias, BASE, **more)
    torch.testing.assert_close(merged, sum(bias) / 2, rtol=1e-5, atol=1e-6)


def test_nuslerp_row_by_row_is_straight_only_where_rows_cancel_out():
    rows = [torch.tensor([[1.0, 0], [1, 0]]), torch.tensor([[-3.0, 0], [0, 1]])]
    merged = merge("nuslerp", rows, BASE, nuslerp_flatten=False)
    half = np.sqrt(0.5)
    _near(merged, [[-1, 0], [half, half]])


@pytest.mark.parametrize("density", [0.2, 0.7, 1.0])
def test_ties_by_hand(density):
    """Algorithm 1 of the paper, an element at a time."""
    flat = DELTAS.reshape(3, -1)
    trimmed = np.zeros_like(flat)
    for row, values in enumerate(flat):
        top = np.argsort(-np.abs(values))[: int(density * flat.shape[1])]
        trimmed[row, top] = values[top]
    want = BASE.numpy().flatten()
    for place, column in enumerate(trimmed.T):
        weighted = [w * d for w, d in zip(WEIGHTS, column, strict=True)]
        sign = 1 if sum(weighted) >= 0 else -1
        agreeing = [(x, w) for x, w in zip(weighted, WEIGHTS, strict=True) if x * sign > 0]
        if agreeing:
            want[place] += sum(x for x, _ in agreeing) / sum(w for _, w in agreeing)
    merged = merge("ties", MODELS, BASE, weight=WEIGHTS, density=density)
    _near(merged.flatten(), want)


def test_trimming_keeps_exactly_its_share_also_of_equal_values():
    delta = torch.tensor([1.0, -1, 1, 1, -1, 1, 1, 1, 2, 0])
    merged = merge("ties", [delta], torch.zeros(10), density=0.5)
    assert merged.tolist() == [1, -1, 1, 1, 0, 0, 0, 0, 2, 0]


def test_breadcrumbs_drop_both_ends():
    delta = torch.arange(1.0, 21.0)
    merged = merge("breadcrumbs", [delta], torch.zeros(20), density=0.5, gamma=0.1)
    assert merged.nonzero().flatten().tolist() == list(range(8, 18))


@pytest.mark.parametrize("name", ["dare_linear", "della_linear"])
def test_random_methods_keep_their_share_and_their_l1_norm(name):
    delta = tensors(9, (200, 100))
    merged = merge(name, [delta], torch.zeros_like(delta), density=0.3)
    assert float((merged != 0).float().mean()) == pytest.approx(0.3, abs=0.01)
    assert float(merged.abs().sum()) == pytest.approx(float(delta.abs().sum()), rel=1e-4)


def test_della_keeps_large_elements_more_often():
    delta = torch.arange(1.0, 1001.0).repeat(200, 1)
    merged = merge("della_linear", [delta], torch.zeros_like(delta), density=0.5, epsilon=0.4)
    share = (merged != 0).float().mean(0)
    assert float(share[:100].mean()) == pytest.approx(0.14, abs=0.02)  # 0.1 to 0.18
    assert float(share[-100:].mean()) == pytest.approx(0.86, abs=0.02)


def test_della_refuses_probabilities_outside_0_to_1():
    with pytest.raises(UserError, match=r"density 0\.9 and epsilon 0\.15"):
        merge("della", MODELS, BASE, density=0.9)


def _sce(deltas, chosen):
    """Return what SCE makes of task vectors, (m, n), of which some elements are chosen, (n,)."""
    kept = np.where(chosen, deltas, 0)
    weights = (kept**2).mean(1) / (kept**2).mean(1).sum()
    shares = weights[:, None] * (np.sign(kept) == np.where(kept.sum(0) >= 0, 1, -1))
    return (kept * shares).sum(0) / np.maximum(shares.sum(0), 1e-6)


def test_sce_by_hand():
    flat = DELTAS.reshape(3, -1)
    variance = flat.var(0)
    chosen = variance >= np.sort(variance)[::-1][int(0.4 * variance.size) - 1]
    want = BASE.numpy() + _sce(flat, chosen).reshape(BASE.shape)
    _near(merge("sce", MODELS, BASE, select_topk=0.4), want)
    assert torch.equal(merge("sce", MODELS, BASE, select_topk=0.0), BASE)


@pytest.mark.parametrize("count", [2, 3, 5, 7])
def test_sce_selects_nothing_on_which_all_agree(count):
    """The variance of equal elements is 0, also in float32; mergekit's `sce_mask` in numpy."""
    common = tensors(5, (1000,))
    models = [common.clone() for _ in range(count)]
    for index, model in enumerate(models):
        model[:100] += tensors(index, (100,), 0.1)
    zero = torch.zeros(1000)
    merged = merge("sce", models, zero, select_topk=0.5)
    stack = np.stack([m.numpy() for m in models]).astype(np.float64)
    variance = stack.var(0)
    variance[100:] = 0
    chosen = np.isin(np.arange(1000), np.argsort(-variance)[:50])
    assert not (merged.numpy() != 0)[~chosen].any()
    _near(merged, _sce(stack, chosen))
    copies = merge("sce", [common] * count, zero, select_topk=0.5)
    assert torch.equal(copies, zero)


def test_model_stock_of_two_at_a_known_angle():
    angle = np.pi / 3
    a, b = torch.tensor([1.0, 0.0]), torch.tensor([np.cos(angle), np.sin(angle)]).float()
    t = 2 * np.cos(angle) / (1 + np.cos(angle))
    zero = torch.zeros(2)
    torch.testing.assert_close(merge("model_stock", [a, b], zero), t * (a + b) / 2)
    rows = merge("model_stock", [torch.stack([a, a]), torch.stack([b, a])],
                 torch.zeros(2, 2), filter_wise=True)  # fmt: skip
    torch.testing.assert_close(rows, torch.stack([t * (a + b) / 2, a]))


def test_model_stock_beyond_a_right_angle_is_the_base():
    """The formula divides by 0 at a cosine of -1."""
    assert torch.equal(merge("model_stock", [BASE + 1, BASE - 1], BASE), BASE)


def test_ram_adds_what_is_unique_and_averages_what_is_shared():
    base = torch.zeros(4)
    models = [torch.tensor([1.0, 0, 4, 0]), torch.tensor([0.0, 2, 2, 1e-6])]
    assert merge("ram", models, base).tolist() == [1, 2, 3, 0]
    plus = merge("ramplus_tl", models, base, r=0.5, alpha=0.6)
    torch.testing.assert_close(plus, torch.tensor([1.3, 2.6, 3, 0]))


def test_arcee_fusion_takes_the_outliers():
    model = BASE.clone()
    model[2, 3] += 3
    model[4, 1] += 1e-4
    merged = merge("arcee_fusion", [model], BASE)
    assert float(merged[2, 3]) == float(model[2, 3])
    p, q = (torch.softmax(x.double(), -1) + 1e-8 for x in (model, BASE))
    importance = (model - BASE).double().abs() * (p * (p / q).log()).sum(-1, keepdim=True)
    lower, middle, upper = np.quantile(importance, [0.25, 0.5, 0.75], method="lower")
    taken = importance >= middle + 1.5 * (upper - lower)
    torch.testing.assert_close(merged, torch.where(taken, model, BASE))


def test_arcee_fusion_of_one_number_a_filter_takes_the_outliers():
    """A row of one number has no divergence: all of them are one row then."""
    base = tensors(0, (40, 1, 1, 1))
    model = base + tensors(1, (40, 1, 1, 1), 0.01)
    model[7] += 3
    merged = merge("arcee_fusion", [model], base)
    assert torch.equal(
        merged, merge("arcee_fusion", [model.view(-1)], base.view(-1)).view(base.shape)
    )
    assert float(merged[7]) == pytest.approx(float(model[7]))
    assert 0 < int((merged != base).sum()) < 20


def test_float64_stays_exact():
    models = [m.double() for m in MODELS]
    merged = merge("linear", models, BASE.double(), weight=WEIGHTS)
    assert merged.dtype == torch.float64
    np.testing.assert_allclose(merged.numpy(), np.average(STACK, 0, WEIGHTS), rtol=1e-14)
