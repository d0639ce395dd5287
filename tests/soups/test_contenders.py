"""Which scores of a merge count, and on what. Oracles: logits written down, marks set by hand."""

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from src import paths
from src.artifacts.files import sha256_file, write_csv
from src.artifacts.folds import read_folds
from src.artifacts.runs import read_record
from src.data.layouts.load import load_dataset
from src.errors import UserError
from src.inference.lineage import share_items
from src.soups.card import card_of, public_record
from src.soups.contenders import (
    ensemble_of,
    had_a_say,
    lines_of,
    read_contender,
    read_holdout,
    standing_of,
)
from src.soups.table import Contender, as_table, by_domain, held_rows, scores_of
from src.training.job import Job
from tests.records import change_sealed, fold_file
from tests.soups.runs import (
    GREEDY,
    NAMES,
    UNIFORM,
    change_run,
    file_of,
    merge,
    oof_of,
    plan_of,
    record_of,
)

SEARCH = """
merge_method: linear
models: [a, b]
search: {weight: {low: -1.0, high: 2.0, each: model}}
trials: 4
batchnorm: 0
"""
NEARLY = """
merge_method: linear
models: [{model: soup, parameters: {weight: 0.999}}, {model: b, parameters: {weight: 0.001}}]
batchnorm: 0
"""
PLAIN = UNIFORM + "batchnorm: 0\n"


def contender(model: str, kind: str = "ingredient") -> tuple[Any, Contender]:
    table = read_folds(paths.folds_csv(*NAMES))
    held = held_rows(table, [0])
    return held, read_contender(held, table, (*NAMES, model), kind, 1)


def test_a_chosen_merge_is_cross_fitted_as_an_ingredient_too(pair: Job, tmp_path: Path) -> None:
    merge(plan_of(tmp_path, SEARCH), pair)
    path = paths.cross_fitted_csv(*NAMES, "soup", 0)
    file = pd.read_csv(path)
    noise = np.random.default_rng(0).normal(size=(2, len(file)))
    for half in (0, 1):  # as if either half had chosen another merge than all rows did
        file[f"logit_{half}"] += noise[half]
    write_csv(path, file)
    merged = record_of()["merged_from"] | {"cross_fitted_sha256": sha256_file(path)}
    change_sealed(paths.run_record(*NAMES, "soup", 0), {"merged_from": merged})
    held, one = contender("soup")
    np.testing.assert_array_equal(one.by_half, file[["logit_0", "logit_1"]].to_numpy().T)
    assert one.in_words() == "ingredient, chosen"
    assert one.in_words(lodo=True) == "ingredient, chosen, saw half of the domain"
    assert scores_of(held, one) == scores_of(held, contender("soup", "merge")[1])
    table = as_table(held, [one, contender("a")[1]], {}, lodo=True).set_index("model")
    assert table["kind"].to_dict() == {"soup": one.in_words(lodo=True), "a": "ingredient"}


def test_a_merge_of_a_chosen_merge_has_no_score(pair: Job, tmp_path: Path) -> None:
    merge(plan_of(tmp_path, SEARCH), pair)
    merge(plan_of(tmp_path, NEARLY, "nearly"), pair)
    deep = PLAIN.replace("[a, b]", "[nearly, a]") + "select: greedy\n"
    merge(plan_of(tmp_path, deep, "deep"), pair)
    for name in ("nearly", "deep"):
        held, one = contender(name, "merge")
        assert one.unscored == "soup among its ingredients was itself chosen on these rows"
        assert np.isnan(scores_of(held, one).macro_f1)
    plain = contender("a")[1]
    table = as_table(held, [one, plain], {})
    assert table["model"].tolist() == ["a", "deep"]
    assert table.loc[1, ["macro_f1", "macro_f1_at_0.5", "auc"]].isna().all()
    assert not table.loc[0].isna().any()
    assert ensemble_of([one, plain]).unscored == "deep has no score"


def test_cross_fitted_logits_of_another_merge_are_not_believed(pair: Job, tmp_path: Path) -> None:
    merge(plan_of(tmp_path, SEARCH), pair)
    file = paths.cross_fitted_csv(*NAMES, "soup", 0)
    kept = file.read_bytes()
    file.write_bytes(kept.replace(b"\n", b"\r\n"))
    assert "merge it again with --overwrite" in contender("soup", "merge")[1].unscored
    file.unlink()
    assert "merge it again with --overwrite" in contender("soup", "merge")[1].unscored
    merge(plan_of(tmp_path, PLAIN), pair, overwrite=True)
    file.write_bytes(kept)  # of the earlier merge of that name
    found = contender("soup", "merge")[1]
    np.testing.assert_array_equal(found.by_half[0], found.logit)
    assert found.in_words() == "merge"


def test_an_epoch_chosen_on_these_rows_is_marked(pair: Job, tmp_path: Path) -> None:
    change_run("b", selection="best")
    merge(plan_of(tmp_path, PLAIN), pair)
    merge(plan_of(tmp_path, PLAIN.replace("[a, b]", "[soup, a]"), "deep"), pair)
    assert contender("a")[1].in_words() == "ingredient"
    assert contender("b")[1].in_words() == "ingredient, epoch chosen here"
    for name in ("soup", "deep"):
        held, one = contender(name, "merge")
        assert one.in_words() == "merge, epoch chosen here"
        assert not one.unscored
    assert ensemble_of([contender("a")[1], contender("b")[1]]).flattered
    assert list(by_domain(held, [one])[2]) == []


# --- ingredients that were chosen on the rows of another data set ---


def as_if_on(model: str, dataset: str, ids: list[str], home: Path) -> Path:
    """Return a copy of a run's weights, beside it a record of a run on another data set."""
    file = file_of(model, home / dataset)
    folds_sha256 = fold_file(dataset, ids)

    def move(record: dict[str, Any]) -> None:
        for one in (record, *(record["merged_from"] or {}).get("ingredients", [])):
            one.update(dataset=dataset, folds_sha256=folds_sha256)

    change_sealed(file.with_suffix(".json"), move)
    return file


@pytest.mark.parametrize(("dataset", "shared"), [("far", False), ("both", True)])
def test_a_choice_counts_where_its_rows_are_among_these(
    pair: Job, tmp_path: Path, caplog: pytest.LogCaptureFixture, dataset: str, shared: bool
) -> None:
    """`both` holds the rows of fold 0 of `tiny` as a part; `far` has ids alike and no row."""
    caplog.set_level("INFO", "rvf")
    rows = pair.table.sort_values("label", kind="stable")
    held = set(pair.table["item_id"].iloc[pair.held_rows])
    mine = [f"tiny/{one}" if shared else one for one in rows["item_id"] if one in held]
    others = [f"z{k:02d}" for k in range(len(mine))]
    ids = [one for two in zip(mine, others, strict=True) for one in two]  # fold 0, fold 1, ...
    merge(plan_of(tmp_path, SEARCH), pair)
    change_run("b", selection="best")
    for name, model in (("of_chosen", "soup"), ("of_epoch", "b")):
        file = as_if_on(model, dataset, ids, tmp_path)
        caplog.clear()
        merge(plan_of(tmp_path, PLAIN.replace("b]", f"{file}]"), name), pair)
        found = standing_of(*NAMES, name, 0)
        assert bool(found.unscored) == (shared and name == "of_chosen")
        assert found.epoch == (shared and name == "of_epoch")
        assert record_of(name)["selection"] == ("best" if shared else "last")
        assert ("that score is flattered" in caplog.text) == shared
    held_out, one = contender("of_chosen", "merge")
    assert np.isnan(scores_of(held_out, one).macro_f1) == shared


@pytest.mark.usefixtures("artefact_root")
def test_a_choice_on_these_rows_counts_through_a_merge_elsewhere() -> None:
    run = {"dataset": "far", "scheme": "s", "selection": "last"}
    inner = {"dataset": "tiny", "scheme": "s", "selection": "best", "name": "soup"}
    fold_file("far", list("wxyz"))
    fold_file("tiny", list("abcd"))
    place = {"dataset": "tiny", "scheme": "s"}
    assert not had_a_say([run, run | {"selection": "best"}], place)
    assert had_a_say([run | {"merged_from": {"ingredients": [inner]}}], place)
    assert not had_a_say([{"dataset": None, "selection": "best"}], place)


@pytest.mark.usefixtures("artefact_root")
def test_data_sets_share_what_both_score() -> None:
    (paths.dataset_dir("AB")).mkdir(parents=True)
    (paths.dataset_dir("AB") / "dataset.yaml").write_text("combine: [A, B]\nextra: [E]\n")
    fold_file("AB", ["A/w", "A/x", "B/x", "B/y", "E/x", "E/y"], [0, 1, 0, 1, -1, -1])
    for name, ids in (("B", "xyzw"), ("E", "xyzw"), ("D", "xyzw")):
        fold_file(name, list(ids))
    fold_file("BD", ["B/y", "D/x", "B/z", "D/y"])
    runs = {name: {"dataset": name, "scheme": "s"} for name in ("AB", "B", "E", "D", "BD", "gone")}
    wanted = {"AB": True, "B": True, "BD": True, "E": False, "D": False, "gone": True}
    for name, shared in wanted.items():
        assert share_items(runs["AB"], runs[name]) == shared, name
        assert share_items(runs[name], runs["AB"]) == shared, name


def write_set(name: str, seed: int) -> Path:
    """Write three pictures a class; returns the folder of the real ones."""
    rng = np.random.default_rng(seed)
    for label in ("fake", "real"):
        home = paths.dataset_dir(name) / "train" / label
        home.mkdir(parents=True)
        for stem in "abc":
            coarse = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
            pixels = cv2.resize(coarse, (96, 96), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(home / f"{stem}.png"), pixels)
    return home


@pytest.mark.usefixtures("artefact_root")
def test_copies_of_what_any_ingredient_saw_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    a, b, d = (write_set(name, seed) for seed, name in enumerate("ABD"))
    shutil.copy(a / "a.png", d / "copy.png")
    cv2.imwrite(str(d / "alike.jpg"), cv2.imread(str(b / "b.png")))
    other = load_dataset("D")
    known = {name: set(load_dataset(name).train["item_id"]) for name in "AB"}
    with caplog.at_level("INFO", "rvf"):
        found = read_holdout(other, known)
    own = [f"train/{label}/{stem}.png" for label in ("fake", "real") for stem in "abc"]
    assert sorted(found["path"]) == own
    said = "D: 1 of {} items were seen in training on {} and are not scored ({} equal files"
    for words in ((8, "A", 1), (7, "B", 0)):
        assert said.format(*words) in caplog.text
    alone = read_holdout(other, {"A": known["A"]})
    assert sorted(alone["path"]) == sorted([*own, "train/real/alike.jpg"])
    with pytest.raises(UserError, match="that is what the models were trained on"):
        read_holdout(other, {"D": set()})


# --- what stands in the table, and what is uploaded ---


def test_ingredients_without_predictions_are_named(pair: Job, tmp_path: Path) -> None:
    beside, far = file_of("b", tmp_path / "beside"), file_of("b", tmp_path / "far")
    shutil.copy(paths.folds_csv(*NAMES), paths.folds_csv("tiny", "other"))
    change_sealed(far.with_suffix(".json"), {"scheme": "other"})
    text = f"merge_method: task_arithmetic\nbase_model: start\nmodels: [a, {beside}, {far}]\n"
    merge(plan_of(tmp_path, text + "parameters: {weight: 0.3}\nbatchnorm: 0\n"), pair)
    lines, aside = lines_of(["soup"], *NAMES, 0)
    assert [(one.name, one.kind) for one in lines] == [
        ("a", "ingredient"), ("b", "ingredient"), ("soup", "merge")
    ]  # fmt: skip
    assert set(aside) == {"start", str(far)}
    assert "what the models started from" in aside["start"]
    assert aside[str(far)] == "a file without predictions of fold 0 of tiny/s"
    change_run("b", checkpoint_sha256="0" * 64)
    lines, aside = lines_of(["soup"], *NAMES, 0)
    assert [one.name for one in lines] == ["a", "soup"]
    assert "no longer, of the weights that were merged" in " ".join(aside.values())


def folders_in(value: object) -> list[str]:
    """Return all strings, keys too, that name a folder from the root on."""
    if isinstance(value, dict):
        return [found for pair in value.items() for one in pair for found in folders_in(one)]
    if isinstance(value, list):
        return [found for one in value for found in folders_in(one)]
    return [value] if isinstance(value, str) and value.startswith(("/", "~", "C:\\")) else []


def test_records_that_are_uploaded_name_no_folder(pair: Job, tmp_path: Path) -> None:
    change_run("a", start={"source": "file", "name": "C:\\me\\w.pth", "sha256": "1" * 64})
    file = file_of("b", tmp_path / "elsewhere")
    plan = plan_of(tmp_path, f"merge_method: uniform\nmodels: [a, {file}]\n")
    merge(plan, pair, check=True)
    path = paths.run_record(*NAMES, "soup", 0)
    assert str(file) in folders_in(json.loads(path.read_text()))
    clean = json.loads(public_record(path, tmp_path / "clean.json").read_text())
    assert folders_in(clean) == []
    assert [one["name"] for one in clean["merged_from"]["ingredients"]] == ["a", "b.safetensors"]
    assert list(clean["merged_from"]["barriers"]) == ["b.safetensors"]
    assert clean["start"]["name"] == "w.pth"
    assert clean["checkpoint_sha256"] == read_record(path)["checkpoint_sha256"]


def test_the_card_says_what_each_fold_is_made_of_and_worth(pair: Job, tmp_path: Path) -> None:
    table = read_folds(paths.folds_csv(*NAMES))
    plan = plan_of(tmp_path, PLAIN)
    merge(plan, pair)
    held = table[table["fold"] == 0].sort_values("item_id")
    wanted = f1_score(held["label"], oof_of("soup") >= 0, average="macro")
    card = card_of(plan, *NAMES, [0], table)
    assert f"on its 18 held-out items: {wanted:.4f}, AUC" in card
    card = card_of(plan, *NAMES, [0], table.assign(group="all"))
    assert "- fold 0: uniform of a, b. No score: too few groups.\n" in card
    plan = plan_of(tmp_path, GREEDY + "metric: log_loss\n", "greedy")
    merge(plan, pair)
    (line,) = (one for one in card_of(plan, *NAMES, [0], table).splitlines() if one[:2] == "- ")
    chosen = [one["model"] for one in record_of("greedy")["merged_from"]["chosen"]["models"]]
    assert line.startswith(f"- fold 0: uniform of {', '.join(chosen)}. Macro-F1 at 0.5")
    assert "by what was chosen on the other half" in line
    plan = plan_of(tmp_path, "merge_method: uniform\nmodels: [a@fold_0, b@fold_0]\n", "across")
    merge(plan, pair, "all")
    assert "nothing is held out to score it on" in card_of(plan, *NAMES, ["all"], table)
