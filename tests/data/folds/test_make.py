"""Folds: made once, never leaking, refusing what cannot be split."""

import shutil

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
from tests.data.conftest import picture, refused

EIGHT = [f"train/{c}/{i}.png" for c in ("real", "fake") for i in range(8)]
NINE = [f"train/{i}.png" for i in range(9)]


def fixed_csv(folds: str) -> str:
    rows = (f"{i},{i % 2},g{i // 2},{fold}\n" for i, fold in enumerate(folds))
    return "id,label,group,fold\n" + "".join(rows)


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
    later = report_folds(dataset, scheme, read_folds(path))
    assert (later.groups, later.leaks, later.plain) == (report.groups, report.leaks, report.plain)


def test_other_domains_than_those_of_the_file_are_told(toy, caplog):
    caplog.set_level("INFO", logger="rvf")
    files = [f"{kind}/{'ab'[i % 2]}_{i}.png" for kind in ("real", "fake") for i in range(4)]
    ensure_folds(toy(files), "sgkf2_s0")
    ensure_folds(toy([]), None)
    assert "domains" not in caplog.text
    later = toy([], {"dataset.yaml": "domain_from: ^(a|b)_\nn_folds: 2\nseed: 0\n"})
    _, folds, _ = ensure_folds(later, "sgkf2_s0")
    assert "of other domains ('fake/a_0.png': '' there, 'a' now)" in caplog.text
    assert set(folds["domain"]) == {""}
    assert set(ensure_folds(later, "sgkf2_s1")[1]["domain"]) == {"a", "b"}


def test_the_same_seed_gives_the_same_folds(toy):
    dataset = toy(EIGHT)
    first = ensure_folds(dataset, "sgkf4_s7")[1]
    paths.folds_csv("toy", "sgkf4_s7").unlink()
    # Unscanned folds are the scanned ones where nothing is copied.
    for scheme in ("sgkf4_s7", "sgkf4_s7_unscanned"):
        pd.testing.assert_frame_equal(ensure_folds(dataset, scheme)[1], first)


def test_yaml_gives_the_default_scheme_and_of_several_files_one_is_named(toy):
    dataset = toy(EIGHT, {"dataset.yaml": "n_folds: 3\nseed: 9\n"})
    assert ensure_folds(dataset, None)[0] == "sgkf3_s9"
    ensure_folds(dataset, "sgkf4_s1")
    with refused(r"2 fold files.*sgkf3_s9,sgkf4_s1"):
        ensure_folds(dataset, None)


FORMS = r"unknown scheme.*sgkf<k>_s<seed>.*fixed"
GROUPED = "".join(f"{i},{int(i < 4)},{'g' if i < 4 else i}\n" for i in range(9))


@pytest.mark.parametrize(
    ("files", "texts", "scheme", "match"),
    [
        *((EIGHT, {}, s, FORMS) for s in ("sgkf5", "kfold", "sgkf1_s0", "sgkf_s1", "../sgkf5_s42")),
        (EIGHT, {}, "fixed", "scheme fixed wants a fold column.*fold_column"),
        (EIGHT[:11], {}, None,
         "3 fake items form 3 groups, too few for 5 folds.*--n-folds 3"),
        (NINE, {"train.csv": f"id,label,group\n{GROUPED}"}, "sgkf2_s0",
         "4 fake items form 1 group, too few.*no cross-validation"),
        (["test/a.png"], {}, None, "no train items"),
        ({"real/a.jpg": b"", "fake/b.jpg": b"x"}, {}, None,
         r"none of the 2 train items can be read.*fake/b\.jpg"),
        (NINE[:8], {"train.csv": fixed_csv("00110110")}, None, "group 'g2' stands in folds"),
    ],
)  # fmt: skip
def test_what_cannot_be_split_is_refused(toy, files, texts, scheme, match):
    with refused(match):
        ensure_folds(toy(files, texts), scheme)


@pytest.mark.parametrize("scheme", [None, "fixed_unscanned"])
def test_given_folds_stand(toy, scheme):
    found, folds, report = ensure_folds(toy(NINE[:8], {"train.csv": fixed_csv("00110011")}), scheme)
    assert found == (scheme or "fixed")
    assert folds["fold"].tolist() == [0, 0, 1, 1, 0, 0, 1, 1]
    assert report.plain == "the given folds"


def test_copies_share_a_fold_and_are_counted(make_dataset):
    root = make_dataset(EIGHT)
    for i in range(6):
        shutil.copy(root / EIGHT[0], root / f"train/real/copy{i}.png")
    _, folds, report = ensure_folds(load_dataset("toy"), "sgkf3_s0")
    copies = folds[folds["item_id"].str.match(r"real/(copy\d|0)\.png")]
    assert len(set(copies["fold"])) == len(set(copies["group"])) == 1
    assert report.groups.exact_items == 7
    leak = {leak.reason: leak.items for leak in report.leaks}
    order = folds.sort_values("item_id")
    plain = pd.Series(plain_folds(order["label"].to_numpy(np.int64), 3, 0), order["item_id"])
    assert leak["equal files"] == 7 * (len(set(plain[copies["item_id"]])) > 1)
    assert leak["given groups"] == 0


def test_unreadable_items_are_listed_not_dropped_in_silence(toy):
    texts = {"train/real/empty.jpg": b"", "train/fake/text.jpg": b"not a picture"}
    _, folds, report = ensure_folds(toy(EIGHT, texts), "sgkf3_s0")
    listed = pd.read_csv(paths.excluded_csv("toy", "sgkf3_s0"))
    assert listed["item_id"].tolist() == ["fake/text.jpg", "real/empty.jpg"]
    assert "0 bytes" in listed["reason"][1]
    assert not set(listed["item_id"]) & set(folds["item_id"])
    assert len(report.excluded) == 2
    ensure_folds(load_dataset("toy"), "sgkf3_s0")  # they still count as known


def test_extra_data_is_never_scored_and_never_a_copy(make_dataset):
    root = make_dataset(EIGHT, {"dataset.yaml": "extra: [other]\n"})
    files = [f"{c}/{i}.png" for i in range(100, 104) for c in ("real", "fake")]
    other = make_dataset({name: picture(100 + k) for k, name in enumerate(files)}, name="other")
    for name in ("real/copy.png", "fake/100.png"):
        shutil.copy(root / EIGHT[0], other / name)
    dataset = load_dataset("toy")
    _, folds, report = ensure_folds(dataset, "sgkf3_s0")
    extra = folds["item_id"].str.startswith("other/")
    assert (folds.loc[extra, "fold"] == -1).all()
    assert (folds.loc[~extra, "fold"] >= 0).all()
    assert set(report.excluded["item_id"]) == {"other/real/copy.png", "other/fake/100.png"}
    assert report.excluded["reason"].str.contains("copy of an item of toy").all()
    scored = {read_bytes(dataset.root, p) for p in dataset.train["path"] if "other" not in p}
    paths_of = dataset.train.set_index("item_id")["path"]
    assert not scored & {read_bytes(dataset.root, paths_of[i]) for i in folds["item_id"][extra]}


@pytest.mark.parametrize(
    ("change", "text", "match"),
    [("gone", ("7,1\n", ""), "item '7' is not in"), ("new", ("6,0\n", "6,0\n8,1\n"),
     "item '8' is in no fold"), ("label", ("3,1", "3,0"), "item '3' has label 1, in .* it is 0")],
)  # fmt: skip
def test_a_data_set_that_changed_is_refused(make_dataset, change, text, match):
    rows = "id,label\n" + "".join(f"{i},{i % 2}\n" for i in range(8))
    root = make_dataset(NINE[:8], {"train.csv": rows})
    ensure_folds(load_dataset("toy"), "sgkf2_s0")
    if change == "gone":
        (root / NINE[7]).unlink()
    elif change == "new":
        shutil.copy(root / NINE[1], root / NINE[8])
    (root / "train.csv").write_text(rows.replace(*text))
    with refused(rf"sgkf2_s0\.csv.*{match}.*changed since"):
        ensure_folds(load_dataset("toy"), "sgkf2_s0")


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
    root = artefact_root / "input" / "toy"
    root.mkdir(parents=True)
    originals = pd.read_csv(source / "train.csv", dtype=str)
    some = originals["original"].drop_duplicates()[:150]
    originals = originals[originals["original"].isin(some)]
    originals.to_csv(root / "train.csv", index=False)
    (root / "train.zip").symlink_to(source / "train.zip")
    (root / "dataset.yaml").write_text("unlisted_files: ignore\n")
    _, folds, report = ensure_folds(load_dataset("toy"), None)
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
    dataset = toy({f"train/{i}.png": b"no picture" for i in range(24)}, {"train.csv": text})
    scheme, folds, report = ensure_folds(dataset, "sgkf3_s1_unscanned")
    assert len(folds) == 24
    assert folds["group"].nunique() == len(folds[["group", "fold"]].drop_duplicates()) == 8
    assert report.groups.exact_items == report.groups.near_items == len(report.excluded) == 0
    assert paths.folds_csv("toy", scheme).name == "sgkf3_s1_unscanned.csv"
    assert report_folds(dataset, scheme, folds).groups == report.groups
    assert ensure_folds(load_dataset("toy"), None)[0] == scheme
