import numpy as np
import pandas as pd
import pytest

from src import paths
from src.artifacts.files import sha256_file
from src.ensemble.align import align
from src.errors import UserError
from tests.ensemble.synthetic import DATA, SCHEME, edit_csv, make_folds, make_oof, oof_path
from tests.records import make_record

pytestmark = pytest.mark.usefixtures("artefact_root")


def test_joins_members_by_id_whatever_the_order_of_rows():
    folds = make_folds()
    logits = {m: make_oof(folds, m, seed=i) for i, m in enumerate(["a", "timm:b", "c"])}
    edit_csv(oof_path("a", 1), lambda table: table.sample(frac=1, random_state=0))
    aligned = align(DATA, SCHEME)
    assert aligned.models == ["a", "c", "timm:b"]
    assert aligned.folds == aligned.all_folds == [0, 1, 2]
    assert list(aligned.item_id) == sorted(folds["item_id"])
    for column, model in enumerate(aligned.models):
        assert np.array_equal(aligned.logit[:, column], logits[model].loc[aligned.item_id])
    by_id = folds.set_index("item_id").loc[aligned.item_id]
    assert np.array_equal(aligned.label, by_id["label"])
    assert np.array_equal(aligned.fold, by_id["fold"])
    same_group = pd.Series(aligned.group).groupby(by_id["group"].to_numpy()).nunique()
    assert (same_group == 1).all()
    assert aligned.n_groups == 80
    assert aligned.oof_sha256["a"]["1"] == sha256_file(oof_path("a", 1))


def test_extra_data_are_not_tuned_on():
    folds = make_folds()
    paths.folds_csv(DATA, SCHEME).unlink()
    extra = folds[folds["fold"] == 0].assign(fold=-1, label=1)
    extra["item_id"] = "extra/" + extra["item_id"]
    extra["group"] = "extra" + extra["group"]
    from src.artifacts.folds import write_folds

    write_folds(paths.folds_csv(DATA, SCHEME), pd.concat([folds, extra]))
    make_oof(folds)
    aligned = align(DATA, SCHEME)
    assert aligned.label.size == len(folds)


def test_one_fold_of_one_model():
    folds = make_folds()
    make_oof(folds, only=[1])
    aligned = align(DATA, SCHEME)
    assert (aligned.folds, aligned.models) == ([1], ["a"])
    assert set(aligned.item_id) == set(folds.loc[folds["fold"] == 1, "item_id"])


@pytest.mark.parametrize("models", [None, ["b", "a"]])
def test_uses_every_fold_that_a_member_has_finished(models):
    folds = make_folds()
    make_oof(folds, "a", only=[0, 1])
    logit = make_oof(folds, "b", only=[0, 2], seed=1)
    aligned = align(DATA, SCHEME, models)
    assert (aligned.folds, len(aligned)) == ([0, 1, 2], len(folds))
    assert np.array_equal(np.isnan(aligned.logit), aligned.fold[:, None] == [2, 1])
    assert np.array_equal(aligned.complete, aligned.fold == 0)
    there = aligned.fold != 1
    assert np.array_equal(aligned.logit[there, 1], logit.loc[aligned.item_id[there]])
    assert [aligned.member(m, 0.5, 0.5).folds for m in "ab"] == [[0, 1], [0, 2]]
    assert [list(aligned.oof_sha256[m]) for m in "ab"] == [["0", "1"], ["0", "2"]]
    only = align(DATA, SCHEME, ["a", "b"], {"a": [1], "b": [0, 2]})
    assert np.array_equal(np.isnan(only.logit[:, 0]), only.fold != 1)


def test_members_that_share_no_item_are_joined_and_twins_are_looked_for_where_they_meet():
    folds = make_folds()
    make_oof(folds, "a", only=[0])
    make_oof(folds, "same", only=[1, 2])
    assert align(DATA, SCHEME).folds == [0, 1, 2]
    make_oof(folds, "same", only=[0])
    with pytest.raises(UserError, match="'same' equal those of 'a'"):
        align(DATA, SCHEME)


def damaged_record(text):
    make_record(DATA, SCHEME, "a", 0)
    paths.run_record(DATA, SCHEME, "a", 0).write_text(text)


@pytest.mark.parametrize(
    ("change", "models", "match"),
    [
        (lambda: None, ["aa"], r"'aa'; did you mean 'a'\?.*train_folds"),
        (lambda: None, ["a", "a"], "'a' is named twice"),
        (lambda: oof_path(fold=0).rename(oof_path(fold=7)), ["a"], r"fold_7.csv.*has no fold 7"),
        (lambda: edit_csv(oof_path(fold=2), lambda table: table.assign(logit="0.25")), ["a"],
         r"fold_2.csv: all 78 logits are 0.25"),
        (lambda: make_record(DATA, SCHEME, "a", 1, folds_sha256="0" * 64), ["a"],
         r"checkpoints.*fold_1.json.*another version of.*folds"),
        (lambda: damaged_record("{"), ["a"], r"fold_0.json: this run record"),
        (lambda: damaged_record("[]"), ["a"], r"fold_0.json: this run record"),
        (lambda: None, ["a", "same"], r"'same' equal those of 'a' but for their scale.*--models"),
    ],
)  # fmt: skip
def test_what_cannot_be_tuned_on_is_named(change, models, match):
    folds = make_folds()
    make_oof(folds, "a")
    make_oof(folds, "b", only=[0], seed=1)
    make_oof(folds, "c", only=[1, 2], seed=2)
    make_oof(folds, "same")
    assert align(DATA, SCHEME, ["a"]).folds == [0, 1, 2]
    change()
    with pytest.raises(UserError, match=match):
        align(DATA, SCHEME, models)


def test_no_oof_says_which_command_to_run():
    make_folds()
    with pytest.raises(UserError, match=r"no out-of-fold.*python train_folds.py --data toy"):
        align(DATA, SCHEME)


def test_other_files_in_the_folder_are_not_folds():
    make_oof(make_folds())
    for name in ("fold_01.csv", "fold_x.csv", "notes.csv", "fold_0.views.parquet"):
        (oof_path().parent / name).write_text("x")
    assert align(DATA, SCHEME).folds == [0, 1, 2]


def test_a_run_that_chose_its_epoch_is_marked():
    make_oof(make_folds())
    make_record(DATA, SCHEME, "a", 0)
    assert align(DATA, SCHEME).selected_on == []
    make_record(DATA, SCHEME, "a", 1, selection="best")
    assert align(DATA, SCHEME).selected_on == ["a"]


def test_a_merge_that_is_its_ingredient_is_left_out_unless_named():
    folds = make_folds()
    for model in ("a", "b", "soup"):
        make_oof(folds, model, seed=int(model == "b"))
    for fold in range(3):
        make_record(DATA, SCHEME, "soup", fold, merged_from={"ingredients": [{"name": "a"}]})
    aligned = align(DATA, SCHEME)
    assert aligned.models == ["a", "b"]
    assert aligned.echoes == [("soup", "a")]
    assert aligned.logit.shape == (len(folds), 2)
    with pytest.raises(UserError, match=r"leave one out: --models a b$"):
        align(DATA, SCHEME, ["a", "b", "soup"])


def test_more_members_than_items_are_refused():
    folds = make_folds(n=12, groups=12)
    for seed in range(13):
        make_oof(folds, f"m{seed:02d}", seed=seed)
    with pytest.raises(UserError, match="13 members for 12 items"):
        align(DATA, SCHEME)


def test_rows_of_a_bundle_are_read_beside_its_code(artefact_root, tmp_path, monkeypatch):
    folds = make_folds()
    for seed, model in enumerate(("a", "b")):
        make_oof(folds, model, seed=seed)
    wanted = {"a": [0, 1, 2], "b": [0, 2]}
    before = align(DATA, SCHEME, ["a", "b"], wanted)
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    for part in ("folds", "oof"):
        (artefact_root / part).rename(bundle / part)
    (bundle / "bundle.json").write_text("{}")
    monkeypatch.setattr(paths, "REPO", bundle)
    paths.oof_dir(DATA, SCHEME, "a").mkdir(parents=True)  # as test predictions make it
    after = align(DATA, SCHEME, ["a", "b"], wanted)
    np.testing.assert_array_equal(after.logit, before.logit)
    assert after.item_id.tolist() == before.item_id.tolist()
    assert (after.oof_sha256, after.folds) == (before.oof_sha256, before.folds)
