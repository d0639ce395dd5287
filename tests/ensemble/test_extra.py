"""Predictions from elsewhere become a member; bad ones name file and row, and write nothing."""

import numpy as np
import pandas as pd
import pytest

from src import paths
from src.artifacts.files import sha256_file
from src.ensemble import extra as module
from src.ensemble.align import align
from src.ensemble.extra import (
    Extra,
    check_extras,
    is_extra,
    named_extras,
    read_extra_record,
    read_extra_test,
    refuse_extra_name,
    write_extra,
)
from src.errors import UserError
from src.metrics import sigmoid
from tests.ensemble.synthetic import DATA, SCHEME, make_folds, make_oof

pytestmark = pytest.mark.usefixtures("artefact_root")


@pytest.fixture
def table():
    folds = make_folds()
    make_oof(folds, "a")
    rng = np.random.default_rng(1)
    return folds.assign(logit=folds["label"] * 2 - 1 + rng.normal(size=len(folds)))


def bring(tmp_path, oof, test=None, name="theirs"):
    if test is None:
        test = pd.DataFrame({"item_id": ["t2", "t1"], "prob": [0.2, 1.0]})
    oof.to_csv(tmp_path / "oof.csv", index=False)
    test.to_csv(tmp_path / "test.csv", index=False)
    [checked] = check_extras([f"{name}={tmp_path}/oof.csv,{tmp_path}/test.csv"], DATA, SCHEME)
    write_extra(checked, DATA, SCHEME)
    return checked.folds


@pytest.mark.parametrize("column", ["logit", "prob"])
def test_an_extra_is_a_member_like_any_other(tmp_path, table, column):
    values = table.assign(prob=sigmoid(table["logit"]))[["item_id", column]]
    assert bring(tmp_path, values.sample(frac=1, random_state=0)) == [0, 1, 2]
    aligned = align(DATA, SCHEME)
    assert aligned.models == ["a", "theirs"]
    want = table.set_index("item_id")["logit"].loc[aligned.item_id]
    assert aligned.logit[:, 1] == pytest.approx(want.to_numpy())
    test = read_extra_test(DATA, SCHEME, "theirs")
    assert test.index.tolist() == ["t1", "t2"]
    assert sigmoid(test) == pytest.approx([1.0, 0.2], abs=1e-6)
    assert is_extra(DATA, SCHEME, "theirs")
    assert not is_extra(DATA, SCHEME, "a")


def test_whole_folds_only_and_a_second_import_replaces_the_first(tmp_path, table):
    columns = ["item_id", "logit", "label", "fold"]
    assert bring(tmp_path, table[columns]) == [0, 1, 2]
    assert bring(tmp_path, table.loc[table["fold"] == 1, columns]) == [1]
    assert not paths.oof_csv(DATA, SCHEME, "theirs", 0).exists()
    assert align(DATA, SCHEME).folds_of("theirs") == [1]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda t: t.iloc[1:], r"oof.csv: 1 of the 8\d items of fold \d are missing"),
        (lambda t: pd.concat([t, t.iloc[:1]]), r"row 242: item_id .* it is there twice"),
        (lambda t: t.assign(item_id="x" + t["item_id"]), "row 2: item_id .* has no such item"),
        (lambda t: t.assign(logit=np.inf), "row 2: logit is 'inf': want a finite number"),
        (lambda t: t.rename(columns={"logit": "prob"}) + {"item_id": "", "prob": 5.0},
         "want a finite number from 0 to 1"),
        (lambda t: t.assign(label=7), "row 2: label is '7': the fold file says otherwise"),
        (lambda t: t.assign(score=1), "want item_id and one of logit and prob"),
        (lambda t: t.iloc[:0], "no row is of a scored fold"),
        (lambda t: t.assign(logit=1.5), r"--extra theirs: .* all 8\d logits of fold 0 are 1.5"),
        (lambda t: t.assign(logit=t["logit"].where(t.index > 0, 1e15)), "beyond 10000 no log-odds"),
    ],
)  # fmt: skip
def test_bad_predictions_name_file_and_row_and_write_nothing(tmp_path, table, change, match):
    with pytest.raises(UserError, match=match):
        bring(tmp_path, change(table[["item_id", "logit"]]))
    assert not paths.oof_dir(DATA, SCHEME, "theirs").exists()


def test_a_trained_model_is_not_overwritten(tmp_path, table):
    with pytest.raises(UserError, match="is of a model trained here; take a new name"):
        bring(tmp_path, table[["item_id", "logit"]], name="a")
    record = paths.run_record(DATA, SCHEME, "b", 0)
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    with pytest.raises(UserError, match=r"fold_0\.json is of a model trained here"):
        bring(tmp_path, table[["item_id", "logit"]], name="b")


@pytest.mark.parametrize("name", ["effnet_b0", "timm--resnet18"])
def test_the_name_of_a_model_here_is_refused(tmp_path, table, name):
    with pytest.raises(UserError, match="is the name of a model here; take another"):
        bring(tmp_path, table[["item_id", "logit"]], name=name)
    assert not paths.oof_dir(DATA, SCHEME, name).exists()


def test_a_name_given_twice_is_refused(tmp_path, table):
    bring(tmp_path, table[["item_id", "logit"]])
    text = f"x={tmp_path}/oof.csv,{tmp_path}/test.csv"
    with pytest.raises(UserError, match="--extra x is given twice"):
        check_extras([text, text], DATA, SCHEME)


def test_an_import_that_was_cut_off_neither_predicts_nor_blocks_its_name(
    tmp_path, table, monkeypatch
):
    def full_disk(*_):
        raise OSError

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_oof", full_disk)
        with pytest.raises(OSError):  # noqa: PT011
            bring(tmp_path, table[["item_id", "logit"]])
    assert is_extra(DATA, SCHEME, "theirs")
    with pytest.raises(UserError, match="import of theirs was cut off; import it again"):
        read_extra_test(DATA, SCHEME, "theirs")
    assert align(DATA, SCHEME).models == ["a"]
    assert bring(tmp_path, table[["item_id", "logit"]]) == [0, 1, 2]
    assert len(read_extra_test(DATA, SCHEME, "theirs")) == 2


def test_training_refuses_the_name(tmp_path, table):
    refuse_extra_name(DATA, SCHEME, "a")
    bring(tmp_path, table[["item_id", "logit"]])
    with pytest.raises(UserError, match="holds predictions from elsewhere under that name"):
        refuse_extra_name(DATA, SCHEME, "theirs")


@pytest.mark.parametrize("text", ["x", "x=a", "x=a,", "../x=a,b", "=a,b", "x=/no/a,/no/b"])
def test_a_malformed_extra_is_refused(text):
    with pytest.raises(UserError, match=r"--extra.*(want NAME|is not there)"):
        named_extras([text])


def listed(tmp_path, text):
    for name in ("o.csv", "t.csv"):
        (tmp_path / "sub").mkdir(exist_ok=True)
        (tmp_path / "sub" / name).touch()
    path = tmp_path / "x.yaml"
    path.write_text(text)
    return named_extras([str(path)])


def test_a_yaml_lists_members_by_paths_relative_to_it(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    found = listed(tmp_path, "one: {oof: sub/o.csv, test: sub/t.csv}\n"
                   f"two: {{oof: {tmp_path}/sub/o.csv, test: sub/t.csv}}\n")  # fmt: skip
    oof, test = tmp_path / "sub" / "o.csv", tmp_path / "sub" / "t.csv"
    assert found == [Extra("one", oof, test), Extra("two", oof, test)]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "must be a mapping"),
        ("{}", "must hold 1 or more .*want NAME: {oof: PATH, test: PATH}"),
        (
            "one: sub/o.csv",
            "one must be a mapping .*'sub/o.csv'.*want NAME: {oof: PATH",
        ),
        ("one: {oof: sub/o.csv}", "one.test is missing"),
        ("one: {oof: sub/o.csv, test: 3}", r"one.test must be text \(found 3\)"),
        ("one: {oof: sub/o.csv, tests: sub/t.csv}", "'one.tests'; did you mean 'one.test'"),
        ("../one: {oof: sub/o.csv, test: sub/t.csv}", "one must be a plain name"),
        ("one: {oof: sub/o.csv, test: sub/z.csv}", "--extra one: .*sub/z.csv is not there"),
        ("one: {oof: a, test: b}\none: {oof: a, test: b}", "key 'one' stands twice"),
    ],
)
def test_a_yaml_is_read_strictly(tmp_path, text, match):
    with pytest.raises(UserError, match=match):
        listed(tmp_path, text)


def test_damaged_test_predictions_are_refused(tmp_path, table):
    bring(tmp_path, table[["item_id", "logit"]])
    path = paths.extra_test_csv(DATA, SCHEME, "theirs")
    assert read_extra_record(DATA, SCHEME, "theirs")["kept_sha256"] == sha256_file(path)
    path.write_text(path.read_text().replace("t1", "t3"))
    with pytest.raises(UserError, match=r"is not the file that was imported; import it again"):
        read_extra_test(DATA, SCHEME, "theirs")
    bring(tmp_path, table[["item_id", "logit"]])
    oof = paths.oof_csv(DATA, SCHEME, "theirs", 1)
    oof.write_text(oof.read_text().replace(".", ".1", 1))
    with pytest.raises(UserError, match=r"fold_1\.csv is not the file that was imported"):
        align(DATA, SCHEME, ["theirs"])


@pytest.mark.parametrize("test", ["empty", "train"])
def test_a_test_csv_holds_test_items(tmp_path, table, test):
    oof = table[["item_id", "logit"]]
    with pytest.raises(UserError, match=r"header and no rows|all of train items"):
        bring(tmp_path, oof, oof.iloc[:0] if test == "empty" else oof)


def test_labels_and_folds_are_compared_as_numbers(tmp_path, table):
    columns = table[["item_id", "logit", "label", "fold"]]
    assert bring(tmp_path, columns.astype({"label": float, "fold": float})) == [0, 1, 2]
