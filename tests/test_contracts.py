"""Section 5 of the design, each clause that a reader or writer promises, broken once."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from src import paths
from src.artifacts import files
from src.artifacts.atomic import atomic_path, file_lock
from src.artifacts.files import sha256_file
from src.artifacts.folds import COLUMNS, fold_numbers, read_folds, write_folds
from src.artifacts.oof import read_oof, read_views, write_oof, write_views
from src.artifacts.recipes import Member, Recipe, read_recipe, write_recipe
from src.artifacts.submissions import SubmissionFormat, write_submission
from src.errors import LockedError, UserError
from tests.ensemble.synthetic import edit_csv, set_cell
from tests.records import change_sealed

FOLDS = pd.DataFrame(
    [
        ("007", 0, "g1", "d", "image", 0),
        ("a/é,\"1\".jpg", 1, "g2", "d", "image", 0),
        ("b", 0, "g3", "d", "video", 1),
        ("c", 1, "g4", "d", "image", 1),
        ("x", 1, "g5", "e", "image", -1),
    ],
    columns=COLUMNS,
)  # fmt: skip


@pytest.fixture
def folds_path(tmp_path):
    path = tmp_path / "folds.csv"
    write_folds(path, FOLDS.sample(frac=1, random_state=0))
    return path


def no_leftovers(folder: Path, *names: str):
    assert sorted(p.name for p in folder.iterdir()) == sorted(names)


# -- the fold file


def test_folds_come_back_sorted_and_exact(folds_path):
    table = read_folds(folds_path)
    assert table["item_id"].tolist() == sorted(FOLDS["item_id"])
    pd.testing.assert_frame_equal(
        table.set_index("item_id"), FOLDS.set_index("item_id").loc[table["item_id"]],
        check_dtype=False,
    )  # fmt: skip
    assert table["label"].dtype == table["fold"].dtype == np.int64
    assert fold_numbers(table) == [0, 1]
    content = folds_path.read_bytes()
    assert b"\r" not in content
    assert content.startswith(b"item_id,label,group,domain,kind,fold\n")


def test_a_fold_file_is_written_once(folds_path):
    before = folds_path.read_bytes()
    with pytest.raises(UserError, match="is written once"):
        write_folds(folds_path, FOLDS.assign(domain="other"))
    assert folds_path.read_bytes() == before
    no_leftovers(folds_path.parent, "folds.csv")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (set_cell("item_id", "b", row=0), r"row 4: item_id 'b' stands already in row 2"),
        (set_cell("label", "2"), r"row 2: label is 2, want 0 \(real\) or 1 \(fake\)"),
        (set_cell("label", ""), r"row 2: label is '', want a whole number"),
        (set_cell("label", "0.5"), r"row 2: label is '0.5', want a whole number"),
        (set_cell("fold", "nan"), r"row 2: fold is 'nan', want a whole number"),
        (set_cell("fold", "7"), r"folds are \[0, 1, 7\], want 0..k-1"),
        (lambda t: t.assign(fold="0"), r"folds are \[0\], want 0..k-1"),
        (set_cell("label", "1"), r"fold 0 has no real item \(label 0\)"),
        (set_cell("group", "g4"), r"group 'g4' stands in folds \[0, 1\]: that leaks"),
        (set_cell("group", "g5"), r"group 'g5' stands in folds \[-1, 0\]: that leaks"),
        (lambda t: t.drop(columns="domain"), r"columns are .*, want .*'domain'"),
        (lambda t: t[t.columns[::-1]], r"columns are .*, want"),
    ],
)
def test_a_wrong_fold_file_is_refused(folds_path, change, match):
    edit_csv(folds_path, change)
    with pytest.raises(UserError, match=match) as caught:
        read_folds(folds_path)
    assert str(folds_path) in str(caught.value)


def test_wrong_folds_are_not_written(tmp_path):
    with pytest.raises(UserError, match="that leaks"):
        write_folds(tmp_path / "f.csv", FOLDS.assign(group="one"))
    no_leftovers(tmp_path)


@pytest.mark.parametrize(
    ("content", "match"),
    [(None, "no such fold file"), (b"", "not a readable CSV"), (b"\xff\xfe", "not a readable CSV")],
)
def test_a_missing_or_unreadable_fold_file(tmp_path, content, match):
    path = tmp_path / "f.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=match):
        read_folds(path)


# -- out-of-fold predictions


@pytest.fixture
def oof_path(tmp_path):
    path = tmp_path / "fold_0.csv"
    write_oof(path, FOLDS[FOLDS["fold"] == 0].assign(logit=[0.1 + 0.2, -1e-300])[::-1])
    return path


def test_oof_comes_back_exact(oof_path):
    oof = read_oof(oof_path, FOLDS, 0)
    assert oof["item_id"].tolist() == ["007", 'a/é,"1".jpg']
    assert oof["logit"].tolist() == [0.1 + 0.2, -1e-300]
    assert oof["logit"].dtype == np.float64
    rng = np.random.default_rng(0)
    logits = rng.normal(size=500) * 10.0 ** rng.integers(-30, 3, 500)
    ids = [f"{i:03d}" for i in range(500)]
    folds = pd.DataFrame({"item_id": ids, "label": 0, "fold": 3})
    write_oof(oof_path, folds.assign(logit=logits))
    assert np.array_equal(read_oof(oof_path, folds, 3)["logit"], logits)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (set_cell("logit", "nan"), "row 2: logit is 'nan', want a finite number"),
        (set_cell("logit", "inf"), "row 2: logit is 'inf', want a finite number"),
        (set_cell("logit", "", row=1), "row 3: logit is '', want a finite number"),
        (set_cell("item_id", "007", row=1), "row 3: item_id '007' stands already in row 2"),
        (set_cell("item_id", "7"), "row 2: item_id '7' is not in fold 0"),
        (set_cell("item_id", "b"), "row 2: item_id 'b' is not in fold 0.*other folds"),
        (lambda t: t[:1], "1 of the 2 items of fold 0 are missing, the first is 'a/é"),
        (set_cell("fold", "1"), "row 2: fold is 1, the fold file says otherwise for '007'"),
        (set_cell("label", "1"), "row 2: label is 1, the fold file says otherwise for '007'"),
        (lambda t: t.rename(columns={"logit": "prob"}), "columns are .*'prob'"),
    ],
)
def test_wrong_oof_is_refused(oof_path, change, match):
    edit_csv(oof_path, change)
    with pytest.raises(UserError, match=match) as caught:
        read_oof(oof_path, FOLDS, 0)
    assert str(oof_path) in str(caught.value)


def test_oof_of_another_fold_is_refused(oof_path):
    with pytest.raises(UserError, match="not in fold 1"):
        read_oof(oof_path, FOLDS, 1)


VIEWS = pd.DataFrame(
    [("b", 0, "f01", 1.0), ("b", 0, "f00", 0.1), ("a", 0, "unreadable", np.nan)],
    columns=["item_id", "fold", "view", "logit"],
)


def test_views_come_back_with_what_they_were_made_from(tmp_path):
    path = tmp_path / "test_fold_0.views.parquet"
    write_views(path, VIEWS, {"checkpoint_sha256": "ab"})
    table, metadata = read_views(path)
    assert metadata == {"checkpoint_sha256": "ab"}
    want = VIEWS.iloc[[2, 1, 0]].reset_index(drop=True)
    pd.testing.assert_frame_equal(table, want, check_dtype=False)
    no_leftovers(tmp_path, path.name)


def test_damaged_missing_or_foreign_views_are_named(tmp_path):
    path = tmp_path / "v.parquet"
    with pytest.raises(UserError, match="no such predictions"):
        read_views(path)
    write_views(path, VIEWS, {})
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"not readable.*delete it"):
        read_views(path)
    VIEWS.to_parquet(path)
    with pytest.raises(UserError, match="not a predictions file of this repo"):
        read_views(path)


# -- recipes


RECIPE = Recipe(
    dataset="toy",
    scheme="s",
    folds=[0],
    folds_sha256="0" * 64,
    members=[
        Member("a", 0.1 + 0.2, 0.5, [0], {"0": "1" * 64}),
        Member("b", 0.7, 1.0, ["all"], {"0": "2" * 64}),
    ],
    stages=[{"name": "voting", "params": {"rule": "soft"}}],
    scores={"interval": None},
)


def test_a_recipe_comes_back_equal(tmp_path):
    path = tmp_path / "r.json"
    write_recipe(path, RECIPE)
    assert read_recipe(path) == RECIPE
    assert json.loads(path.read_text())["schema"] == 1
    assert RECIPE.stage("voting") == {"rule": "soft"}
    with pytest.raises(KeyError, match="threshold"):
        RECIPE.stage("threshold")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda r: r.update(schema=2), "recipe has schema 2, this version reads 1"),
        (lambda r: r.update(threshold=0.5), r"missing or unknown keys: \['threshold'\]"),
        (lambda r: r.pop("folds"), r"missing or unknown keys: \['folds'\]"),
        (
            lambda r: r["members"][0].pop("weight"),
            r"members\.1\.weight is missing",
        ),
        (lambda r: r["members"][1].update(weight=-0.1), "member 'b' has weight -0.1"),
        (lambda r: [m.update(weight=0) for m in r["members"]], "weights sum to 0"),
        (lambda r: r.update(members=[]), "weights sum to 0"),
    ],
)
def test_a_wrong_recipe_is_refused(tmp_path, change, match):
    path = tmp_path / "r.json"
    write_recipe(path, RECIPE)
    change_sealed(path, change)
    with pytest.raises(UserError, match=match) as caught:
        read_recipe(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("key", ["dataset", "scheme", "model"])
@pytest.mark.parametrize("name", ["../../outside", "a\nb", "", "/etc"])
def test_a_recipe_names_no_path(tmp_path, key, name):
    recipe = (
        replace(RECIPE, **{key: name})
        if key != "model"
        else replace(RECIPE, members=[replace(RECIPE.members[0], model=name), *RECIPE.members[1:]])
    )
    path = tmp_path / "r.json"
    write_recipe(path, recipe)
    with pytest.raises(UserError, match=rf"r\.json: .*{key} .*want a plain name, no path"):
        read_recipe(path)


def test_an_edited_recipe_is_refused(tmp_path):
    path = tmp_path / "r.json"
    write_recipe(path, RECIPE)
    path.write_text(path.read_text().replace("0.7", "0.8"))
    with pytest.raises(UserError, match=r"not what was written \(edited, or damaged\)"):
        read_recipe(path)


def test_a_recipe_under_another_name_is_refused(tmp_path):
    """Two recipes that were exchanged would answer for each other."""
    path = tmp_path / "one.json"
    write_recipe(tmp_path / "other.json", RECIPE)
    (tmp_path / "other.json").rename(path)
    with pytest.raises(UserError, match=r"one\.json: this is the recipe 'other' .*--recipe one"):
        read_recipe(path)


@pytest.mark.parametrize("text", ["{", "[]", "null"])
def test_a_recipe_that_is_no_json_object(tmp_path, text):
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"r\.json"):
        read_recipe(path)
    path.unlink()
    with pytest.raises(UserError, match="no such recipe"):
        read_recipe(path)


def test_a_recipe_with_nan_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_recipe(tmp_path / "r.json", Recipe(**{**vars(RECIPE), "scores": {"x": np.nan}}))
    no_leftovers(tmp_path)


# -- submissions

LAYOUT = SubmissionFormat("id", "class", ["007", "b", "a"], ("real", "fake"))
VOTES = pd.DataFrame({"prob": [0.9, 0.2, 0.6], "pred": [1, 0, 1]}, index=["a", "b", "007"])


def test_a_submission_has_the_rows_order_and_words_of_the_sample(tmp_path):
    path = tmp_path / "s.csv"
    write_submission(path, LAYOUT, VOTES, {"recipe": "tuned"})
    assert path.read_text() == "id,class\n007,fake\nb,real\na,fake\n"
    want = {"schema": 1, "submission_sha256": sha256_file(path), "recipe": "tuned"}
    want["holds"] = {"output": "label", "means": "written as real (real) and fake (fake)"}
    assert json.loads((tmp_path / "s.json").read_text()) == want


@pytest.mark.parametrize(
    ("votes", "output", "match"),
    [
        (VOTES.drop("b"), "label", "1 of the 3 ids of the sample .* have no prediction.*'b'"),
        (VOTES.rename({"b": "z"}), "label", "have no prediction.*'b'"),
        (pd.concat([VOTES, VOTES[:1].rename({"a": "z"})]), "prob", "'z' is not in the sample"),
        (pd.concat([VOTES, VOTES[:1]]), "rank", "'a' was predicted twice"),
        (VOTES.replace(0, 2), "label", "a decision is not 0 or 1"),
        (VOTES.assign(pred=np.nan), "label", "a decision is not 0 or 1"),
        (VOTES.replace(0.2, np.nan), "prob", r"item 'b': P\(fake\) is nan, want a number from 0"),
        (VOTES.replace(0.2, -1e-9), "rank", r"item 'b': P\(fake\) is -1e-09"),
        (VOTES.replace(0.9, 1.5), "prob", r"item 'a': P\(fake\) is 1.5.*1 such of 3"),
        (VOTES.assign(prob=0.5), "prob", "all 3 answers would be 0.5, which ranks nothing"),
        (VOTES.assign(prob=0.5), "rank", "all 3 answers would be 0.5, which ranks nothing"),
    ],
)
def test_a_wrong_submission_is_not_written(tmp_path, votes, output, match):
    with pytest.raises(UserError, match=match):
        write_submission(tmp_path / "s.csv", LAYOUT, votes, {}, output=output)
    no_leftovers(tmp_path)


# -- every file


def test_an_error_while_writing_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "f.csv"
    path.write_text("old")

    def be_interrupted():
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        be_interrupted()
    assert path.read_text() == "old"
    no_leftovers(tmp_path, "f.csv")


def test_a_lock_is_held_against_others_and_dies_with_its_holder(tmp_path, monkeypatch):
    monkeypatch.setattr("src.artifacts.atomic.PATIENCE", 0.2)
    lock = tmp_path / "run.lock"
    with (
        file_lock(lock, "fold 0"),
        pytest.raises(LockedError, match="at work on fold 0"),
        file_lock(lock, "fold 0"),
    ):
        pass
    child = os.fork()
    if child == 0:
        with file_lock(lock, "fold 0"):
            os._exit(9)
    os.waitpid(child, 0)
    with file_lock(lock, "fold 0"):
        pass


def test_sha256_of_json_forgets_the_order_of_keys():
    assert files.sha256_json({"a": 1, "b": 2}) == files.sha256_json({"b": 2, "a": 1})
    assert files.sha256_json({"a": 1}) != files.sha256_json({"a": 2})


def test_model_names_survive_as_folder_names():
    for model in ("effnet_b0", "timm:resnet18.a1_in1k"):
        slug = paths.model_slug(model)
        assert ":" not in slug
        assert paths.model_from_slug(slug) == model


def test_a_temporary_file_of_a_killed_process_is_no_scheme(artefact_root: Path) -> None:
    from src.artifacts.folds import existing_scheme

    path = paths.folds_csv("x", "sgkf5_s42")
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        assert existing_scheme("x", None) is None
    assert existing_scheme("x", None) == "sgkf5_s42"
