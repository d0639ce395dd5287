"""Conditions and their mixtures: every group on one side, levels in balance, shares as stated."""

from collections import Counter

import numpy as np
import pytest

from src.artifacts.oof import TREATMENTS, is_treatment
from src.data.pixels.deliveries import CARD, HARD_REAL, SETS
from src.ensemble.align import align
from src.ensemble.shift.conditions import ROBUSTNESS, read_conditions, scheme_named
from src.ensemble.shift.few import FOUR, IN_TURN
from src.ensemble.shift.mixture import draw_levels, mix
from src.errors import UserError
from tests.ensemble.shift.synthetic import LEVELS, make_member, make_other_scheme
from tests.ensemble.synthetic import DATA, SCHEME, make_folds

OTHER = "clusters4_s42"
pytestmark = pytest.mark.usefixtures("artefact_root")


@pytest.mark.parametrize(("n", "count", "levels"), [(40, 40, 3), (41, 123, 14), (300, 1000, 14)])
def test_levels_are_drawn_in_balance(n, count, levels):
    label = (np.arange(n) % 3 == 0).astype(np.int64)
    item, level = draw_levels(label, count, levels, np.random.default_rng(0))
    assert item.size == level.size == count
    seen = Counter(item.tolist())
    assert set(seen.values()) <= {count // n, -(-count // n)}
    if count <= n * levels:
        assert max(Counter(zip(item.tolist(), level.tolist(), strict=True)).values()) == 1
    for one in (0, 1):
        whole = np.arange(count) < count // n * n  # whole turns; the rest is a beginning of one
        by_level = np.bincount(level[whole & (label[item] == one)], minlength=levels)
        assert np.ptp(by_level) <= count // n
    rest = label[item[count // n * n :]]
    assert abs(rest.sum() - rest.size * label.mean()) <= 1  # both classes alike


@pytest.mark.parametrize("only", [(0,), (0, 1, 2)])
def test_no_item_stands_on_both_sides_in_whatever_condition(only):
    folds = make_folds()
    make_member(folds, "a", only=only)
    other = make_other_scheme(folds, OTHER, 4)
    theirs = make_member(other, "a", only=(1, 3), scheme=OTHER, levels={}, seed=7)
    aligned = align(DATA, SCHEME)
    conditions = read_conditions(aligned, [ROBUSTNESS, "clusters"], seed=42)
    assert list(conditions.all) == ["clean", *LEVELS, OTHER]
    by_name = folds.set_index("item_id")["group"]
    part_of, code_of = {}, {}
    for rows, part in conditions.all.values():
        for item, group, own in zip(rows.item_id, rows.group, part, strict=True):
            assert part_of.setdefault(by_name[item], own) == own
            assert code_of.setdefault(by_name[item], group) == group
    assert len(set(code_of.values())) == len(code_of)
    rows = conditions.schemes[OTHER].rows
    assert set(rows.item_id) == set(other.loc[other["fold"].isin([1, 3]), "item_id"])
    np.testing.assert_allclose(rows.logit[:, 0], theirs["clean"].loc[rows.item_id])
    assert set(conditions.schemes[OTHER].part) <= set(conditions.clean.part)

    mixture = mix(conditions, [ROBUSTNESS, OTHER], 0.4, seed=1)
    parts = {by_name[i]: set() for i in mixture.rows.item_id}
    for item, part in zip(mixture.rows.item_id, mixture.parts.part, strict=True):
        parts[by_name[item]].add(int(part))
    assert all(len(found) == 1 for found in parts.values())
    assert not {0, 1, 2} & set(mixture.rows.fold[-mixture.counts[OTHER] :])  # other nets' folds


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.9])
def test_a_mixture_holds_the_stated_share_of_stored_logits(share):
    folds = make_folds()
    logits = {model: make_member(folds, model, seed=k) for k, model in enumerate("ab")}
    conditions = read_conditions(align(DATA, SCHEME), [ROBUSTNESS], seed=42)
    mixture = mix(conditions, [ROBUSTNESS], share, seed=3)
    assert sum(mixture.counts.values()) == len(mixture.rows) == len(mixture.parts.part)
    assert mixture.counts["clean"] / len(mixture.rows) == pytest.approx(share, abs=0.01)
    known = {
        (item, round(a, 9), round(b, 9)): level
        for level in logits["a"]
        for item, a, b in zip(folds["item_id"], logits["a"][level], logits["b"][level], strict=True)
    }
    rows = mixture.rows
    found = [
        known[item, round(a, 9), round(b, 9)]
        for item, (a, b) in zip(rows.item_id, rows.logit, strict=True)
    ]
    times = Counter(found)
    assert times["clean"] == mixture.counts["clean"]
    assert max(times[level] for level in LEVELS) - min(times[level] for level in LEVELS) <= 8
    label = folds.set_index("item_id")["label"]
    assert (label.loc[rows.item_id].to_numpy() == rows.label).all()
    again = mix(conditions, [ROBUSTNESS], share, seed=3).rows
    np.testing.assert_array_equal(again.logit, rows.logit)


def test_treatments_of_real_pictures_and_levels_to_look_at_are_those_there_are():
    treatments = [HARD_REAL, *SETS["treatments"]]
    assert all(is_treatment(level) for level in treatments)
    assert set(TREATMENTS) == {level.rstrip("0123456789.") for level in treatments}
    assert set(FOUR) <= set(IN_TURN) <= set(CARD)
    folds = make_folds()
    levels = {"jpeg50": (0.0, 1.0), "retouch": (0.0, 1.0), "retouch-jpeg50": (0.0, 1.0)}
    make_member(folds, "a", levels=levels)
    conditions = read_conditions(align(DATA, SCHEME), [ROBUSTNESS], seed=42)
    assert list(conditions.levels) == ["jpeg50"]


def test_what_is_lacking_is_named_with_the_command_that_makes_it():
    folds = make_folds()
    make_member(folds, "a")
    make_member(folds, "b", seed=1, levels={"jpeg50": (0.0, 1.0)})
    aligned = align(DATA, SCHEME)
    lacking = r"b has no predictions at level 'blur1'.*src robustness --data toy --model b .*"
    with pytest.raises(UserError, match=lacking + "--levels blur1 noise0.05; or leave it out"):
        read_conditions(aligned, [ROBUSTNESS], seed=42)
    assert list(read_conditions(aligned, [ROBUSTNESS], ["jpeg50"], seed=42).levels) == ["jpeg50"]
    other = make_other_scheme(folds, OTHER, 4)
    make_member(other, "a", scheme=OTHER, levels={})
    train = r"b has no predictions by the folds of clusters4_s42: python train_folds.py --data toy "
    with pytest.raises(UserError, match=train + r"--model b --scheme .*or leave it out.*models a"):
        read_conditions(aligned, ["clusters"], seed=42)
    make_other_scheme(folds, "clusters4_s7", 4)
    with pytest.raises(UserError, match="any of the schemes clusters4_s42, clusters4_s7: say"):
        scheme_named(aligned, "clusters")
    with pytest.raises(UserError, match=r"unknown fold scheme 'lodo'.*src folds --data toy --sch"):
        scheme_named(aligned, "lodo")
    with pytest.raises(UserError, match="'sgkf3_s0' is the scheme that is tuned on"):
        scheme_named(aligned, SCHEME)
    few = aligned.take(np.isin(aligned.group, aligned.group[:2]))
    with pytest.raises(UserError, match=r"nothing can be said of other conditions.*too few"):
        read_conditions(few, [ROBUSTNESS], seed=42)
