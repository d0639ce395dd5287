"""Folds: made once, never leaking, refusing what cannot be split."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedKFold

from src import paths
from src.artifacts.folds import read_folds
from src.data.folds.fold_report import find_leaks, plain_folds, report_folds
from src.data.folds.groups import Components
from src.data.folds.make import ensure_folds, name_groups
from src.data.items.files import read_bytes
from src.data.layouts.load import load_dataset
from src.data.layouts.table_columns import join_originals
from tests.data.conftest import refused

EIGHT = [f"train/{c}/{i}.png" for c in ("real", "fake") for i in range(8)]


def test_made_once_and_then_only_read(toy):
    dataset = toy(EIGHT)
    scheme, folds, report = ensure_folds(dataset, None)
    path = paths.folds_csv("toy", "sgkf5_s42")
    assert (scheme, report.path) == ("sgkf5_s42", path)
    before = path.read_bytes()
    again, same, nothing = ensure_folds(load_dataset("toy"), None)
    assert (again, nothing) == (scheme, None)
    pd.testing.assert_frame_equal(same, folds)
    assert path.read_bytes() == before
    assert not paths.excluded_csv("toy", "sgkf5_s42").exists()
    assert sorted(folds["item_id"]) == sorted(dataset.train["item_id"])


def test_the_same_seed_gives_the_same_folds(toy):
    first = ensure_folds(toy(EIGHT), "sgkf4_s7")[1]
    paths.folds_csv("toy", "sgkf4_s7").unlink()
    pd.testing.assert_frame_equal(ensure_folds(load_dataset("toy"), "sgkf4_s7")[1], first)


def test_yaml_gives_the_default_scheme(toy):
    assert (
        ensure_folds(toy(EIGHT, {"dataset.yaml": "n_folds: 3\nseed: 9\n"}), None)[0] == "sgkf3_s9"
    )


def test_several_files_and_none_named(toy):
    dataset = toy(EIGHT)
    for scheme in ("sgkf3_s1", "sgkf4_s1"):
        ensure_folds(dataset, scheme)
    with refused(r"2 fold files.*sgkf3_s1,sgkf4_s1"):
        ensure_folds(dataset, None)


@pytest.mark.parametrize("scheme", ["sgkf5", "kfold", "sgkf1_s0", "sgkf_s1", "../sgkf5_s42"])
def test_bad_scheme_names_list_the_forms(toy, scheme):
    with refused(r"unknown scheme.*sgkf<k>_s<seed>.*fixed"):
        ensure_folds(toy(EIGHT), scheme)


def test_copies_share_a_fold_and_are_counted(make_dataset):
    root = make_dataset(EIGHT)
    picture = (root / EIGHT[0]).read_bytes()
    for i in range(6):
        (root / f"train/real/copy{i}.png").write_bytes(picture)
    _, folds, report = ensure_folds(load_dataset("toy"), "sgkf3_s0")
    copies = folds[folds["item_id"].str.match(r"real/(copy\d|0)\.png")]
    assert len(set(copies["fold"])) == 1
    assert len(set(copies["group"])) == 1
    assert report.groups.exact_items == 7
    leak = {leak.reason: leak.items for leak in report.leaks}
    order = folds.sort_values("item_id")
    splits = StratifiedKFold(3, shuffle=True, random_state=0).split(order, order["label"])
    plain = pd.Series(-1, order["item_id"])
    for fold, (_, held_out) in enumerate(splits):
        plain.iloc[held_out] = fold
    assert leak["equal files"] == 7 * (len(set(plain[copies["item_id"]])) > 1)
    assert leak["given groups"] == 0


def test_unreadable_items_are_listed_not_dropped_in_silence(make_dataset):
    root = make_dataset(EIGHT)
    (root / "train/real/empty.jpg").write_bytes(b"")
    (root / "train/fake/text.jpg").write_bytes(b"not a picture")
    _, folds, report = ensure_folds(load_dataset("toy"), "sgkf3_s0")
    listed = pd.read_csv(paths.excluded_csv("toy", "sgkf3_s0"))
    assert listed["item_id"].tolist() == ["fake/text.jpg", "real/empty.jpg"]
    assert "0 bytes" in listed["reason"][1]
    assert not set(listed["item_id"]) & set(folds["item_id"])
    assert len(report.excluded) == 2
    ensure_folds(load_dataset("toy"), "sgkf3_s0")  # they still count as known


def test_none_readable_names_the_first(toy):
    with refused(r"none of the 2 train items can be read.*fake/b\.jpg"):
        ensure_folds(toy({"real/a.jpg": b"", "fake/b.jpg": b"x"}), None)


def test_too_few_groups_name_the_way_out(toy):
    with refused(r"3 fake items form 3 groups, too few for 5 folds.*--n-folds 3"):
        ensure_folds(
            toy([f"train/{c}/{i}.png" for c, n in (("real", 8), ("fake", 3)) for i in range(n)]),
            None,
        )


def test_one_group_of_a_class_has_no_way_out(toy):
    text = "id,label,group\n" + "".join(
        f"{i},{int(i < 4)},{'g' if i < 4 else i}\n" for i in range(9)
    )
    with refused(r"4 fake items form 1 group, too few.*no cross-validation"):
        ensure_folds(toy([f"train/{i}.png" for i in range(9)], {"train.csv": text}), "sgkf2_s0")


def test_no_train_items(toy):
    with refused("no train items"):
        ensure_folds(toy(["test/a.png"]), None)


def test_extra_data_is_never_scored_and_never_a_copy(make_dataset):
    root = make_dataset(EIGHT, {"dataset.yaml": "extra: [other]\n"})
    other = make_dataset(
        [f"{c}/{i}.png" for i in range(100, 104) for c in ("real", "fake")] * 3, name="other"
    )
    (other / "real/copy.png").write_bytes((root / EIGHT[0]).read_bytes())
    for i, path in enumerate(sorted(other.glob("*/1*.png"))):
        path.write_bytes((root / EIGHT[i]).read_bytes() if i == 0 else path.read_bytes())
    dataset = load_dataset("toy")
    _, folds, report = ensure_folds(dataset, "sgkf3_s0")
    extra = folds["item_id"].str.startswith("other/")
    assert (folds.loc[extra, "fold"] == -1).all()
    assert (folds.loc[~extra, "fold"] >= 0).all()
    assert "other/real/copy.png" in set(report.excluded["item_id"])
    assert report.excluded["reason"].str.contains("copy of an item of toy").all()
    scored = {read_bytes(dataset.root, p) for p in dataset.train["path"] if "other" not in p}
    paths_of = dataset.train.set_index("item_id")["path"]
    assert not scored & {read_bytes(dataset.root, paths_of[i]) for i in folds["item_id"][extra]}


def fixed_csv(folds: str) -> str:
    return "id,label,group,fold\n" + "".join(
        f"{i},{i % 2},g{i // 2},{fold}\n" for i, fold in enumerate(folds)
    )


def test_given_folds_stand(toy):
    scheme, folds, report = ensure_folds(
        toy([f"train/{i}.png" for i in range(8)], {"train.csv": fixed_csv("00110011")}), None
    )
    assert scheme == "fixed"
    assert folds["fold"].tolist() == [0, 0, 1, 1, 0, 0, 1, 1]
    assert report.plain == "the given folds"


def test_given_folds_that_split_a_group_are_refused(toy):
    with refused("group 'g2' stands in folds"):
        ensure_folds(
            toy([f"train/{i}.png" for i in range(8)], {"train.csv": fixed_csv("00110110")}), None
        )


def test_fixed_without_a_fold_column(toy):
    with refused("scheme fixed wants a fold column.*fold_column"):
        ensure_folds(toy(EIGHT), "fixed")


@pytest.mark.parametrize("change", ["gone", "new", "label"])
def test_a_data_set_that_changed_is_refused(make_dataset, change):
    text = "id,label\n" + "".join(f"{i},{i % 2}\n" for i in range(8))
    root = make_dataset([f"train/{i}.png" for i in range(8)], {"train.csv": text})
    ensure_folds(load_dataset("toy"), "sgkf2_s0")
    if change == "gone":
        (root / "train/7.png").unlink()
        text = text.replace("7,1\n", "")
    elif change == "new":
        (root / "train/9.png").write_bytes((root / "train/1.png").read_bytes())
        text += "9,1\n"
    else:
        text = text.replace("3,1", "3,0")
    (root / "train.csv").write_text(text)
    match = {
        "gone": "item '7' is not in", "new": "item '9' is in no fold",
        "label": r"item '3' has label 1, in .* it is 0",
    }[change]  # fmt: skip
    with refused(rf"sgkf2_s0\.csv.*{match}.*changed since"):
        ensure_folds(load_dataset("toy"), "sgkf2_s0")


def test_report_of_an_existing_file_is_the_same(toy):
    dataset = toy(EIGHT)
    scheme, _, made = ensure_folds(dataset, None)
    later = report_folds(dataset, scheme, read_folds(made.path))
    assert (later.groups, later.leaks, later.plain) == (made.groups, made.leaks, made.plain)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2)), min_size=1, max_size=30))
def test_leaks_are_those_of_counting(pairs):
    component, folds = (np.array(column) for column in zip(*pairs, strict=True))
    other = np.arange(len(component))
    leaks = find_leaks(Components(component, other, other, component, []), folds)
    relatives = [
        any(component[i] == component[j] and folds[i] != folds[j] for j in range(len(folds)))
        for i in range(len(folds))
    ]
    assert [leak.items for leak in leaks] == [sum(relatives), 0, 0, sum(relatives)]
    assert leaks[0].share == pytest.approx(sum(relatives) / len(folds))


def test_plain_folds_are_those_of_sklearn():
    labels = np.random.default_rng(0).integers(0, 2, 50)
    folds = plain_folds(labels, 5, 3)
    for k, (_, held_out) in enumerate(
        StratifiedKFold(5, shuffle=True, random_state=3).split(labels, labels)
    ):
        assert np.flatnonzero(folds == k).tolist() == held_out.tolist()


@given(st.data())
def test_group_names_say_the_same_as_components(data):
    n = data.draw(st.integers(1, 12))
    words = st.sampled_from(["a", "b", "c", "item:a"])
    ids = data.draw(st.permutations(["a", "b", "c", "item:a", *map(str, range(8))]))[:n]
    component = np.array(data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)))
    # A given group lies within one component, as find_components guarantees.
    home = {word: data.draw(st.integers(0, 3)) for word in ("a", "b", "c", "item:a")}
    groups = []
    for part in component:
        word = data.draw(words)
        groups.append(word if home[word] == part and data.draw(st.booleans()) else "")
    names = name_groups(pd.DataFrame({"item_id": ids, "group": groups}, dtype=object), component)
    for i in range(n):
        for j in range(n):
            assert (names[i] == names[j]) == (component[i] == component[j])


def test_originals_join_fakes_of_fakes_and_tolerate_missing_ones():
    ids = ["r.jpg", "f1.jpg", "f2.jpg", "g.jpg", "lone.jpg", "x.jpg"]
    originals = ["", "r.mp4", "f1", "r", "", "absent.mp4"]
    groups = join_originals(ids, originals)
    assert groups == ["f1", "f1", "f1", "f1", "", "absent"]


@pytest.mark.real
def test_dfdc_folds_keep_originals_together(shared_data, artefact_root):
    source = shared_data / "dfdc_faces"
    root = artefact_root / "input" / "dfdc"
    root.mkdir(parents=True)
    originals = pd.read_csv(source / "train.csv", dtype=str)
    some = originals["original"].drop_duplicates()[:150]
    originals = originals[originals["original"].isin(some)]
    originals.to_csv(root / "train.csv", index=False)
    (root / "train.zip").symlink_to(source / "train.zip")
    (root / "dataset.yaml").write_text("unlisted_files: ignore\n")
    _, folds, report = ensure_folds(load_dataset("dfdc"), None)
    joined = folds.merge(originals, left_on="item_id", right_on="filename", validate="1:1")
    assert len(joined) == len(originals) == len(folds)
    assert all(len(set(part)) == 1 for _, part in joined.groupby("original")["fold"])
    assert joined.groupby("fold")["label_x"].mean().std() < 0.03
    assert report.groups.chains == []
    leak = {leak.reason: leak.share for leak in report.leaks}
    assert leak["given groups"] > 0.9


def test_unscanned_folds_open_no_file_and_keep_given_groups(toy, monkeypatch):
    def refuse(*_):
        raise AssertionError("a file was opened")

    monkeypatch.setattr("src.data.folds.scan.look_at", refuse)
    text = "id,label,group\n" + "".join(f"{i},{i % 2},g{i // 3}\n" for i in range(24))
    scheme, folds, report = ensure_folds(
        toy({f"train/{i}.png": b"no picture" for i in range(24)}, {"train.csv": text}),
        "sgkf3_s1_unscanned",
    )
    assert len(folds) == 24
    assert folds["group"].nunique() == 8
    assert len(folds[["group", "fold"]].drop_duplicates()) == 8
    assert report.groups.exact_items == report.groups.near_items == len(report.excluded) == 0
    assert paths.folds_csv("toy", scheme).name == "sgkf3_s1_unscanned.csv"
    assert report_folds(load_dataset("toy"), scheme, folds).groups == report.groups
    assert ensure_folds(load_dataset("toy"), None)[0] == scheme


def test_unscanned_folds_are_the_scanned_ones_where_nothing_is_copied(toy):
    dataset = toy(EIGHT)
    scanned = ensure_folds(dataset, "sgkf4_s7")[1]
    pd.testing.assert_frame_equal(ensure_folds(dataset, "sgkf4_s7_unscanned")[1], scanned)


def test_given_folds_unscanned(toy):
    folds = ensure_folds(
        toy([f"train/{i}.png" for i in range(8)], {"train.csv": fixed_csv("00110011")}),
        "fixed_unscanned",
    )[1]
    assert folds["fold"].tolist() == [0, 0, 1, 1, 0, 0, 1, 1]
