"""How well held-out items are told from others: by chance, by patches of the space, by test."""

import numpy as np
import pandas as pd

from src.data.audit.shift import TEST, compare_schemes, main_axes, told
from src.data.folds.clusters import FrozenFeatures
from src.data.folds.make import ensure_folds

PICTURES = [f"train/{c}/{d}/{i}.png" for c in ("real", "fake") for d in "ab" for i in range(30)]
YAML = {"dataset.yaml": "subfolders: domain\nn_folds: 2\n"}


def test_patches_are_told_and_a_random_part_is_not():
    rng = np.random.default_rng(0)
    patch = np.arange(800) % 8
    seen = main_axes((np.eye(16)[patch] + rng.normal(size=(800, 16)) * 0.1).astype(np.float32))
    alone = np.arange(800)
    assert told(seen, np.isin(patch, (2, 5)), alone, 0) > 0.99  # no plane parts these two
    assert abs(told(seen, rng.random(800) < 0.3, alone, 0) - 0.5) < 0.08
    # Items of a group are alike: only with the group held together is there nothing to recognise.
    group = alone // 4
    twins = main_axes(rng.normal(size=(200, 16)).repeat(4, 0))
    inside = (rng.random(200) < 0.5)[group]
    assert told(twins, inside, alone, 0) > 0.99
    assert abs(told(twins, inside, group, 0) - 0.5) < 0.12
    assert np.isnan(told(seen, alone < 0, alone, 0))


def test_schemes_are_compared_whether_they_are_made_or_not(toy):
    dataset = toy([*PICTURES, *(f"test/{i}.png" for i in range(60))], YAML)
    ensure_folds(dataset, "sgkf3_s0")
    asked = []

    def features_of(table: pd.DataFrame) -> FrozenFeatures:
        asked.append(table["item_id"].tolist())
        rng = np.random.default_rng(len(table))
        kind = table["path"].str.contains("/b/").to_numpy().astype(int)
        kind[table["path"].str.startswith("test/").to_numpy()] = 2
        seen = np.eye(12)[kind] * 3 + rng.normal(size=(len(table), 12))
        return FrozenFeatures(seen.astype(np.float32), "net", "")

    found = compare_schemes(dataset, features_of)
    assert found[-1].scheme == TEST
    assert [one.scheme for one in found if one.is_made] == ["sgkf3_s0", TEST]
    by_name = {one.scheme: one for one in found}
    assert {one for one in by_name if not by_name[one].refused} == {
        "sgkf3_s0", "sgkf2_s42", "lodo", "clusters20x2_s42", TEST,
    }  # fmt: skip
    assert by_name["lodo"].mean > 0.95 < by_name[TEST].mean
    assert len(by_name["sgkf3_s0"].aucs) == 3
    assert max(by_name[name].mean for name in ("sgkf3_s0", "sgkf2_s42")) < 0.65
    assert len(asked) == 2  # train items in the order of a fold file, and test items; each once
    assert asked[0] == sorted(dataset.train["item_id"])


def test_a_scheme_that_cannot_be_made_says_why(toy):
    dataset = toy([f"train/{c}/{i}.png" for c in ("real", "fake") for i in range(10)])
    found = compare_schemes(
        dataset, lambda table: FrozenFeatures(np.eye(len(table), dtype=np.float32), "net", "")
    )
    refused = {one.scheme: one.refused for one in found if one.refused}
    assert "wants a domain for each fake" in refused["lodo"]
    assert [one.scheme for one in found if not one.refused][-1] == "sgkf5_s42"
