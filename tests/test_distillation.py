"""Each term against an independent reference; its gradient; that it is never zero by accident."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from src.distillation import DISTIL, matched
from src.strict_yaml import keywords_of

N, DIM, TOKENS = 7, 5, 10


def shown(seed: int, heads: int = 3, layers: int = 2, dim: int = DIM) -> dict[str, object]:
    """Return random tensors as a net shows them, with gradients."""
    draw = torch.Generator().manual_seed(seed)

    def leaf(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw).requires_grad_()

    maps = [leaf(N, TOKENS, TOKENS) for _ in range(layers)]
    return {
        "logit": leaf(N),
        "features": leaf(N, dim),
        "raw": maps,
        "mean_attention": [one.softmax(-1) for one in maps],
        "head_tokens": [leaf(N, 4 * heads) for _ in range(layers)],
        "stages": [leaf(N, 4 * heads, 8 // 2**i, 8 // 2**i) for i in range(layers)],
    }


def leaves(one: dict[str, object]) -> list[Tensor]:
    flat = itertools.chain(*(v if isinstance(v, list) else [v] for v in one.values()))
    return [tensor for tensor in flat if tensor.is_leaf]


SETTINGS = {name: [{}] for name in DISTIL} | {
    "logit": [{}, {"temperature": 1.0}],
    "feature": [{}, {"normalize": False}],
    "relation": [{}, {"distance": 0.0}, {"angle": 0.0}, {"most": 4}],
    "attention": [{"kind": "map"}, {"kind": "head_correlation"}],
}
CASES = [(name, values) for name, each in SETTINGS.items() for values in each]


@pytest.mark.parametrize(("name", "values"), CASES)
def test_a_term_moves_the_student_alone_and_is_zero_only_where_nothing_differs(
    name: str, values: dict[str, object]
) -> None:
    term = DISTIL.get(name).loss
    student, teacher = shown(1), shown(2)
    loss = term(student, teacher, **values).mean()
    assert loss > 1e-3
    # What Distillation hands over has no gradient; here the terms show that they ask for none.
    loss.backward()
    assert sum(float(t.grad.abs().sum()) for t in leaves(student) if t.grad is not None) > 1e-4
    if values.get("kind") != "head_correlation":  # which rebuilds, and leaves a rest
        same = term(shown(1), shown(1), **values).mean()
        assert abs(float(same.detach())) < 1e-6


def test_logit_is_kl_of_two_softmaxes() -> None:
    student, teacher = shown(1), shown(2)
    want = np.mean([
        sum(p * math.log(p / q) for p, q in zip(softmax(t), softmax(s), strict=True))
        for s, t in zip(
            student["logit"].detach().double() / 3, teacher["logit"].detach().double() / 3,
            strict=True,
        )
    ])  # fmt: skip
    got = DISTIL.get("logit").loss(student, teacher, temperature=3.0)
    assert float(got.detach()) == pytest.approx(9 * want, rel=1e-5)


def softmax(logit: Tensor) -> list[float]:
    parts = [1.0, math.exp(float(logit))]
    return [one / sum(parts) for one in parts]


def test_feature_is_the_squared_distance() -> None:
    student, teacher = shown(1), shown(2)
    own, given = (one["features"].detach().double().numpy() for one in (student, teacher))
    got = DISTIL.get("feature").loss(student, teacher, normalize=False)
    assert float(got.detach()) == pytest.approx(((own - given) ** 2).mean(), rel=1e-5)
    own, given = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in (own, given))
    got = DISTIL.get("feature").loss(student, teacher, normalize=True)
    assert float(got.detach()) == pytest.approx((2 - 2 * (own * given).sum(1)).mean(), rel=1e-5)


def smooth_l1(x: float) -> float:
    return x * x / 2 if abs(x) < 1 else abs(x) - 0.5


def test_relation_is_rkd_by_loops() -> None:
    student, teacher = shown(1), shown(2, dim=8)
    points = [one["features"].detach().double().numpy() for one in (student, teacher)]

    def distances(x: np.ndarray) -> np.ndarray:
        table = np.array([[np.linalg.norm(a - b) for b in x] for a in x])
        return table / table[table > 0].mean()

    def angles(x: np.ndarray) -> list[float]:
        found = []
        for j, i, k in itertools.product(range(N), repeat=3):
            a, b = x[i] - x[j], x[k] - x[j]
            norms = np.linalg.norm(a) * np.linalg.norm(b)
            found.append(a @ b / norms if norms else 0.0)
        return found

    near = np.mean([smooth_l1(d) for d in (distances(points[0]) - distances(points[1])).ravel()])
    turned = np.mean([
        smooth_l1(a - b) for a, b in zip(angles(points[0]), angles(points[1]), strict=True)
    ])  # fmt: skip
    got = DISTIL.get("relation").loss(student, teacher, distance=25.0, angle=50.0)
    assert float(got.detach()) == pytest.approx(25 * near + 50 * turned, rel=1e-4)


def test_two_items_teach_no_relation_and_items_that_are_equal_no_nan() -> None:
    student, teacher = shown(1), shown(2)
    few = {"features": student["features"][:2]}
    assert (
        float(DISTIL.get("relation").loss(few, {"features": teacher["features"][:2]}).detach()) == 0
    )
    flat = {"features": torch.ones(N, DIM, requires_grad=True)}
    loss = DISTIL.get("relation").loss(flat, teacher)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(flat["features"].grad).all()


def test_attention_is_the_mean_squared_error_in_units_of_a_uniform_map() -> None:
    student, teacher = shown(1, layers=2), shown(2, layers=4)
    got = DISTIL.get("attention").loss(student, teacher)
    for layer, matching in enumerate((1, 3)):  # of 4 layers, from 0: the second and the fourth
        own, given = student["mean_attention"][layer], teacher["mean_attention"][matching]
        want = ((own - given).detach().double() ** 2).mean() * TOKENS**2
        assert float(got[layer].detach()) == pytest.approx(float(want), rel=1e-5)


def test_head_correlation_wants_no_equal_heads_and_is_zero_for_an_orthonormal_student() -> None:
    loss = DISTIL.get("attention").loss
    assert (
        float(loss(shown(1, heads=2), shown(2, heads=5), kind="head_correlation").sum().detach())
        > 0
    )
    # Tokens of N items that are orthonormal rebuild whatever the teacher has.
    tokens = {"head_tokens": [torch.eye(N, 12)]}
    assert (
        float(loss(tokens, {"head_tokens": [torch.randn(N, 20)]}, kind="head_correlation")) < 1e-9
    )


def test_channel_attention_is_that_of_the_paper_and_fits_other_resolutions() -> None:
    student, teacher = shown(1), shown(2, heads=5)
    got = DISTIL.get("channel_attention").loss(student, teacher)
    for layer in range(2):
        maps = []
        for one in (student, teacher):
            square = one["stages"][layer].detach().double().numpy() ** 2
            flat = square.mean(1).reshape(N, -1)
            maps.append(flat / np.linalg.norm(flat, axis=1, keepdims=True))
        want = ((maps[0] - maps[1]) ** 2).mean() * maps[0].shape[1]
        assert float(got[layer].detach()) == pytest.approx(want, rel=1e-5)
    other = {"stages": [torch.randn(N, 3, 16, 16), torch.randn(N, 3, 8, 8)]}
    assert DISTIL.get("channel_attention").loss(student, other).shape == (2,)


@pytest.mark.parametrize(
    ("own", "given", "want"),
    [(4, 12, [3, 6, 9, 12]), (12, 12, [*range(1, 13)]), (4, 2, [1, 1, 2, 2])],
)
def test_layers_are_matched_by_their_share_of_the_depth(
    own: int, given: int, want: list[int]
) -> None:
    pairs = matched([*range(1, own + 1)], [*range(1, given + 1)])
    assert [other for _, other in pairs] == want


def test_every_keyword_has_a_default() -> None:
    for name in DISTIL:
        assert all(
            default is not None for _, default in keywords_of(DISTIL.get(name).loss).values()
        )
