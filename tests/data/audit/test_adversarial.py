"""Train against test: no difference is found where there is none, and a difference is named."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from src import paths
from src.cli import data
from src.cli.audit import verdict_on_splits as verdict
from src.data.audit import adversarial, trees
from src.data.audit.adversarial import _pretend, adversarial_validation
from src.data.layouts.load import load_dataset
from src.errors import UserError
from src.metrics import auc

N = 90  # items a split


def picture(seed, *, light=0, quality=90):
    rng = np.random.default_rng(seed)
    small = rng.integers(light, light + 190, (8, 8, 3), dtype=np.uint8)
    pixels = cv2.resize(small, (32, 32), interpolation=cv2.INTER_CUBIC)
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def train_files(first=0):
    kinds = ("real", "fake")
    return {f"train/{kinds[i % 2]}/{i:03d}.jpg": picture(first + i) for i in range(N)}


def files_to_predict(**change):
    return {f"test/{i:03d}.jpg": picture(1000 + i, **change) for i in range(N)}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(trees, "ROUNDS", 60)
    monkeypatch.setattr(trees, "STAGES", 30)


def found_in(make_dataset, files):
    make_dataset(files)
    return adversarial_validation(load_dataset("toy", None))


def test_one_source_split_at_random_is_not_told_apart(make_dataset):
    found = found_in(make_dataset, train_files() | files_to_predict())
    assert found.interval[0] < 0.5 < found.interval[1] + 0.1
    assert abs(found.auc - 0.5) < 0.12
    is_test = found.table["split"] == "test"
    assert found.auc == pytest.approx(roc_auc_score(is_test, found.table["prob"]))
    assert found.counts == {"train": (N, N), "test": (N, N)}


def test_another_jpeg_quality_is_told_and_named(make_dataset, capsys, monkeypatch):
    make_dataset(train_files() | files_to_predict(quality=60))
    monkeypatch.setattr(data, "show_log", lambda: None)
    assert data.main(["--adversarial"]) == 0
    out = capsys.readouterr().out
    assert "all 90 train, all 90 test items" in out
    assert "AUC of train against test 1.000" in out
    assert "the splits differ" in out
    first = out.partition("what gives it away")[2].splitlines()[1]
    assert first.startswith(("jpeg quantisation", "bytes"))
    path = paths.adversarial_csv("toy")
    table = pd.read_csv(path)
    assert table.columns.tolist() == ["item_id", "split", "prob"]
    assert len(table) == 2 * N
    assert auc(table["split"] == "test", table["prob"]) == 1
    assert str(path) in out


def test_items_drawn_are_counted_and_copies_are_one_group(make_dataset, monkeypatch):
    """A picture in both splits is in one fold of the small model's."""
    copies = {f"test/{i:03d}.jpg": picture(i) for i in range(N)}
    monkeypatch.setattr(adversarial, "ITEMS_A_SPLIT", 70)
    found = found_in(make_dataset, train_files() | copies)
    assert found.counts == {"train": (70, N), "test": (70, N)}
    assert found.groups == len({Path(name).stem for name in found.table["item_id"]})


def test_groups_that_nobody_named_raise_what_chance_gives(make_dataset):
    """Items come in groups of 8 of one colour; the splits differ in nothing."""
    rng = np.random.default_rng(0)
    files: dict[str, bytes] = {}
    rows = ["filename,label,original"]
    for i in range(480):
        group, split = i // 8, "train" if i // 8 % 2 else "test"
        tone = np.random.default_rng(group).integers(0, 200, 3)
        pixels = np.clip(rng.integers(0, 40, (24, 24, 3)) + tone, 0, 255).astype(np.uint8)
        files[f"{split}/{i:03d}.png"] = cv2.imencode(".png", pixels)[1].tobytes()
        if split == "train":
            rows.append(f"{i:03d}.png,{i % 2},g{group}")
    make_dataset(files, {"train.csv": "\n".join(rows)})
    found = adversarial_validation(load_dataset("toy", None))
    assert found.auc > 0.65
    assert found.chance is not None
    assert abs(found.chance - found.auc) < 0.12


@given(
    st.lists(st.integers(0, 12), min_size=10, max_size=60),
    st.integers(1, 200),
    st.floats(0.1, 1),
    st.integers(0, 99),
)
def test_stand_ins_are_whole_groups(codes: list[int], n_test, share, seed):
    """Items of group 0 are in no group."""
    groups = pd.Series([f"g{code}" if code else "" for code in codes])
    train = np.arange(0, len(codes), 2)
    drawn = max(1, int(share * n_test))
    rng = np.random.default_rng(seed)
    others, stand_ins = _pretend(groups, train, n_test, drawn, rng)
    assert set(others) | set(stand_ins) <= set(train)
    assert not set(others) & set(stand_ins)
    assert len(others)
    assert len(stand_ins)
    named = set(groups[train]) - {""}
    if len(named) + (groups[train] == "").sum() > 5:
        shared = (set(groups[others]) & set(groups[stand_ins])) - {""}
        assert not shared or len(named) == 1
        if drawn == n_test:
            largest = groups[train][groups[train] != ""].value_counts().max() if named else 1
            assert len(stand_ins) < min(n_test, len(train) // 2) + largest


def test_too_few_items_are_refused(make_dataset):
    files = dict(list(train_files().items())[:20])
    with pytest.raises(UserError, match=r"readable train images.*at least 30"):
        found_in(make_dataset, files | files_to_predict())


def named(make_dataset, groups, **change):
    """Compare one source with itself, or with itself changed; train items in so many groups."""
    rows = ["filename,label,original", *(f"{i:03d}.jpg,{i % 2},g{i % groups}" for i in range(N))]
    files = {f"train/{i:03d}.jpg": picture(i) for i in range(N)}
    make_dataset(files | files_to_predict(**change), {"train.csv": "\n".join(rows)})
    return adversarial_validation(load_dataset("toy", None))


@pytest.mark.parametrize("groups", [1, 2, 29])
def test_too_few_groups_of_train_items_are_refused(make_dataset, groups):
    """A model that saw one split alone says nothing, and five of them something by chance."""
    with pytest.raises(UserError, match=rf"train images form {groups} groups.*at least 30 of each"):
        named(make_dataset, groups)


@pytest.mark.parametrize(("quality", "says"), [(90, "no more than chance"), (60, "nothing to")])
def test_too_few_groups_for_two_halves_leave_nothing_to_compare(
    make_dataset, monkeypatch, quality, says
):
    monkeypatch.setattr(adversarial, "FEWEST_TO_COMPARE", 31)
    found = named(make_dataset, 45, quality=quality)
    assert found.chance is None
    assert found.chance_interval is None
    assert says in verdict(found)
