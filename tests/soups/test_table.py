"""The table of merges. Oracles: scores by hand, scikit-learn's."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from src.metrics import sigmoid
from src.soups.contenders import ensemble_of
from src.soups.table import Contender, as_table, by_domain, held_rows, scores_elsewhere, scores_of
from src.thresholds import best_threshold

RNG = np.random.default_rng(0)
N = 400
TABLE = pd.DataFrame(
    {
        "item_id": [f"i{k:03d}" for k in range(N)],
        "label": RNG.integers(0, 2, N),
        "group": [f"g{k // 2}" for k in range(N)],
        "domain": np.where(np.arange(N) < 300, "faces", "scenes"),
        "kind": "image",
        "fold": 0,
    }
)
HELD = held_rows(TABLE, [0])
LABEL, HALF = HELD.label, HELD.half


def logit_of(name: str, noise: float) -> np.ndarray:
    return 2.0 * LABEL - 0.4 + noise * np.random.default_rng(len(name)).normal(size=N)


def contender(name: str, noise: float, **more: object) -> Contender:
    logit = logit_of(name, noise)
    return Contender(name, "ingredient", logit, np.stack([logit, logit]), 1, **more)  # type: ignore[arg-type]


CHOSEN = np.stack([logit_of("x", 1.0), logit_of("xy", 2.0)])  # on either half


def test_each_half_is_scored_by_what_the_other_chose() -> None:
    one = Contender("m", "merge", CHOSEN[0], CHOSEN, 1, chosen=True)
    pred = np.empty(N, int)
    for half in (0, 1):
        here, rows, logit = half == HALF, half != HALF, CHOSEN[1 - half]
        threshold, _ = best_threshold(LABEL[rows], sigmoid(logit[rows]))
        pred[here] = sigmoid(logit[here]) >= threshold
    found = scores_of(HELD, one)
    assert found.macro_f1 == pytest.approx(f1_score(LABEL, pred, average="macro"))
    areas = [roc_auc_score(LABEL[h == HALF], CHOSEN[1 - h][h == HALF]) for h in (0, 1)]
    assert found.auc == pytest.approx(np.mean(areas))
    assert found.rows == N


def test_choosing_on_the_scored_half_would_flatter() -> None:
    good = np.where(HALF == 0, 5.0 * (2 * LABEL - 1), RNG.normal(size=N))
    bad = np.where(HALF == 1, 5.0 * (2 * LABEL - 1), RNG.normal(size=N))
    honest = scores_of(HELD, Contender("m", "merge", good, np.stack([good, bad]), 1, chosen=True))
    flattered = scores_of(HELD, Contender("m", "merge", good, np.stack([bad, good]), 1))
    assert honest.auc < 0.65
    assert flattered.auc == 1


def test_the_ensemble_is_the_mean_of_probs_as_the_other_half_chose_them() -> None:
    parts = [contender("a", 1.0), contender("bb", 1.5)]
    found = ensemble_of(parts)
    mean = (sigmoid(parts[0].logit) + sigmoid(parts[1].logit)) / 2
    np.testing.assert_allclose(sigmoid(found.logit), mean)
    assert found.forwards == 2  # the cost of all
    assert found.elsewhere is None
    chosen = Contender("m", "ingredient", logit_of("xyz", 0.1), CHOSEN, 1, chosen=True)
    found = ensemble_of([chosen, parts[0]])
    for half in (0, 1):
        mean = (sigmoid(CHOSEN[half]) + sigmoid(parts[0].logit)) / 2
        np.testing.assert_allclose(sigmoid(found.by_half[half]), mean)
    assert found.in_words() == "ensemble, chosen"


def test_the_table_has_a_row_each_and_scores_elsewhere_by_the_threshold_from_here() -> None:
    label, away = np.array([0, 1, 1, 0]), np.array([-1.0, 2.0, 0.1, 0.3])
    ones = [contender("a", 1.0, elsewhere=away), contender("bb", 3.0, elsewhere=away)]
    table = as_table(HELD, [*ones, ensemble_of(ones)], {"other": label})
    assert table["model"].tolist()[-1] == "bb"
    assert table["macro_f1"].is_monotonic_decreasing
    threshold, _ = best_threshold(LABEL, sigmoid(ones[0].logit))
    f1, area = scores_elsewhere(HELD, ones[0], label)
    assert f1 == pytest.approx(f1_score(label, sigmoid(away) >= threshold, average="macro"))
    row = table.set_index("model").loc["a"]
    assert (row["macro_f1 other"], row["auc other"]) == (f1, area)
    assert area == 0.75


def test_domains_are_set_against_each_other_only_where_there_are_two() -> None:
    x, y, points = by_domain(HELD, [contender("a", 1.0)])
    assert (x, y) == ("AUC, faces", "mean AUC, scenes")
    kind, here, _ = points["a"]
    logit = contender("a", 1.0).logit
    assert kind == "ingredient"
    assert here == pytest.approx(roc_auc_score(LABEL[:300], logit[:300]))
    alone = replace(HELD, domain=np.full(N, "", dtype=object))
    assert by_domain(alone, [contender("a", 1.0)])[2] == {}
    ones = [contender("a", 1.0), contender("bb", 1.0, unscored="chosen here")]
    x, y, points = by_domain(HELD, [*ones, contender("c", 1.0, flattered=True)], lodo=True)
    assert (x, y) == ("AUC, faces (left out)", "mean AUC, scenes (left out)")
    assert list(points) == ["a", "c, flattered"]


def test_halves_are_whole_groups_with_both_classes() -> None:
    label = [k // 2 % 2 for k in range(40)]
    table = TABLE[:40].assign(label=label, fold=[k // 20 for k in range(40)])
    held = held_rows(table, [0, 1])
    assert len(held) == 40
    assert held.folds == [0, 1]
    for group in table["group"].unique():
        assert len(set(held.half[(table["group"] == group).to_numpy()])) == 1
    assert set(zip(held.half.tolist(), held.label.tolist(), strict=True)) == {
        (0, 0), (0, 1), (1, 0), (1, 1)
    }  # fmt: skip
