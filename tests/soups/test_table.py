"""The table of merges. Oracles: scores by hand, scikit-learn's."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from src.metrics import sigmoid
from src.soups.contenders import ensemble_of
from src.soups.table import (
    Contender,
    Held,
    as_table,
    by_domain,
    held_rows,
    scores_elsewhere,
    scores_of,
)
from src.thresholds import best_threshold

RNG = np.random.default_rng(0)
N = 400
LABEL = RNG.integers(0, 2, N)
HALF = RNG.integers(0, 2, N)
DOMAIN = np.where(np.arange(N) < 300, "faces", "scenes")
HELD = Held(np.arange(N).astype(str), LABEL, HALF, DOMAIN, (0,))


def contender(name: str, noise: float, kind: str = "ingredient") -> Contender:
    logit = 2.0 * LABEL - 0.4 + noise * np.random.default_rng(len(name)).normal(size=N)
    return Contender(name, kind, logit, np.stack([logit, logit]), 1)


def test_each_half_is_scored_by_what_the_other_chose() -> None:
    halves = np.stack([contender("x", 1.0).logit, contender("xy", 2.0).logit])
    one = Contender("m", "merge", halves[0], halves, 1, chosen=True)
    pred = np.empty(N, int)
    for half in (0, 1):
        other = 1 - half
        rows = other == HALF
        threshold, _ = best_threshold(LABEL[rows], sigmoid(halves[other][rows]))
        pred[half == HALF] = sigmoid(halves[other][half == HALF]) >= threshold
    found = scores_of(HELD, one)
    assert found.macro_f1 == pytest.approx(f1_score(LABEL, pred, average="macro"))
    areas = [roc_auc_score(LABEL[h == HALF], halves[1 - h][h == HALF]) for h in (0, 1)]
    assert found.auc == pytest.approx(np.mean(areas))
    assert found.rows == N


def test_choosing_on_the_scored_half_would_flatter() -> None:
    good = np.where(HALF == 0, 5.0 * (2 * LABEL - 1), RNG.normal(size=N))
    bad = np.where(HALF == 1, 5.0 * (2 * LABEL - 1), RNG.normal(size=N))
    honest = scores_of(HELD, Contender("m", "merge", good, np.stack([good, bad]), 1, chosen=True))
    flattered = scores_of(HELD, Contender("m", "merge", good, np.stack([bad, good]), 1))
    assert honest.auc < 0.65
    assert flattered.auc == 1


def test_the_ensemble_is_the_mean_of_probs_at_the_cost_of_all() -> None:
    parts = [contender("a", 1.0), contender("bb", 1.5)]
    found = ensemble_of(parts)
    mean = (sigmoid(parts[0].logit) + sigmoid(parts[1].logit)) / 2
    np.testing.assert_allclose(sigmoid(found.logit), mean)
    assert found.forwards == 2
    assert found.elsewhere is None


def test_the_table_has_a_row_each_and_scores_elsewhere_by_the_threshold_from_here() -> None:
    label = np.array([0, 1, 1, 0])
    away = np.array([-1.0, 2.0, 0.1, 0.3])
    from dataclasses import replace

    ones = [
        replace(contender("a", 1.0), elsewhere=away),
        replace(contender("bb", 3.0), elsewhere=away),
    ]
    table = as_table(HELD, [*ones, ensemble_of(ones)], {"other": label})
    assert table["model"].tolist()[-1] == "bb"
    assert table["macro_f1"].is_monotonic_decreasing
    threshold, _ = best_threshold(LABEL, sigmoid(ones[0].logit))
    f1, area = scores_elsewhere(HELD, ones[0], label)
    wanted = f1_score(label, sigmoid(away) >= threshold, average="macro")
    assert f1 == pytest.approx(wanted)
    row = table.set_index("model").loc["a"]
    assert (row["macro_f1 other"], row["auc other"]) == (f1, area)
    assert area == 0.75


def test_domains_are_set_against_each_other_only_where_there_are_two() -> None:
    x, y, points = by_domain(HELD, [contender("a", 1.0)])
    assert (x, y) == ("AUC, faces", "mean AUC, scenes")
    kind, here, there = points["a"]
    logit = contender("a", 1.0).logit
    assert kind == "ingredient"
    assert here == pytest.approx(roc_auc_score(LABEL[:300], logit[:300]))
    assert there == pytest.approx(roc_auc_score(LABEL[300:], logit[300:]))
    alone = Held(HELD.ids, LABEL, HALF, np.full(N, ""), (0,))
    assert by_domain(alone, [contender("a", 1.0)])[2] == {}


def test_halves_are_whole_groups_with_both_classes() -> None:
    table = pd.DataFrame(
        {
            "item_id": [f"i{k:02d}" for k in range(40)],
            "label": [k // 2 % 2 for k in range(40)],
            "group": [f"g{k // 2}" for k in range(40)],
            "domain": "",
            "kind": "image",
            "fold": [k // 20 for k in range(40)],
        }
    )
    held = held_rows(table, [0, 1])
    assert len(held.label) == 40
    for group in table["group"].unique():
        assert len(set(held.half[(table["group"] == group).to_numpy()])) == 1
    assert set(zip(held.half.tolist(), held.label.tolist(), strict=True)) == {
        (0, 0), (0, 1), (1, 0), (1, 1)
    }  # fmt: skip


def test_domains_that_were_left_out_are_called_so_and_rows_without_score_are_not_drawn() -> None:
    from dataclasses import replace

    ones = [contender("a", 1.0), replace(contender("bb", 1.0), unscored="chosen here")]
    x, y, points = by_domain(HELD, [*ones, replace(contender("c", 1.0), flattered=True)], lodo=True)
    assert (x, y) == ("AUC, faces (left out)", "mean AUC, scenes (left out)")
    assert list(points) == ["a", "c, flattered"]


def test_the_ensemble_takes_chosen_ingredients_as_the_other_half_chose_them() -> None:
    halves = np.stack([contender("x", 1.0).logit, contender("xy", 2.0).logit])
    chosen = Contender("m", "ingredient", contender("xyz", 0.1).logit, halves, 1, chosen=True)
    plain = contender("a", 1.0)
    found = ensemble_of([chosen, plain])
    for half in (0, 1):
        mean = (sigmoid(halves[half]) + sigmoid(plain.logit)) / 2
        np.testing.assert_allclose(sigmoid(found.by_half[half]), mean)
    assert found.in_words() == "ensemble, chosen"
