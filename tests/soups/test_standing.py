"""Which scores of a merge count. Oracles: the logits that either half chose; marks set by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from src import paths
from src.artifacts.files import sha256_file, write_csv
from src.artifacts.folds import read_folds
from src.artifacts.runs import read_record
from src.inference.lineage import share_items
from src.soups.contenders import ensemble_of, read_contender
from src.soups.standing import had_a_say, standing_of
from src.soups.table import Contender, as_table, by_domain, held_rows, scores_of
from src.training.job import Job
from tests.records import change_sealed, fold_file
from tests.soups.test_run import UNIFORM, change_run, merge, plan_of

SEARCH = """
merge_method: linear
models: [a, b]
search: {weight: {low: -1.0, high: 2.0, each: model}}
trials: 12
"""
NEARLY = """
merge_method: linear
models: [{model: soup, parameters: {weight: 0.999}}, {model: b, parameters: {weight: 0.001}}]
"""
NAMES = ("tiny", "s")


def contender(model: str, kind: str = "ingredient") -> tuple[Any, Contender]:
    table = read_folds(paths.folds_csv(*NAMES))
    held = held_rows(table, [0])
    return held, read_contender(held, table, (*NAMES, model), kind, 1)


def change_merged(model: str, **merged: object) -> None:
    def change(record: dict[str, Any]) -> None:
        new = record["merged_from"] | merged
        record["merged_from"] = {key: value for key, value in new.items() if value != "gone"}

    change_sealed(paths.run_record(*NAMES, model, 0), change)


def test_a_chosen_merge_is_cross_fitted_as_an_ingredient_too(pair: Job, tmp_path: Path) -> None:
    merge(plan_of(tmp_path, SEARCH), pair)
    path = paths.cross_fitted_csv(*NAMES, "soup", 0)
    file = pd.read_csv(path)
    noise = np.random.default_rng(0).normal(size=(2, len(file)))
    for half in (0, 1):  # as if either half had chosen another merge than all rows did
        file[f"logit_{half}"] += noise[half]
    write_csv(path, file)
    change_merged("soup", cross_fitted_sha256=sha256_file(path))
    held, one = contender("soup")
    np.testing.assert_array_equal(one.by_half, file[["logit_0", "logit_1"]].to_numpy().T)
    assert one.in_words() == "ingredient, chosen"
    assert scores_of(held, one) == scores_of(held, contender("soup", "merge")[1])
    assert as_table(held, [one], {})["kind"].tolist() == ["ingredient, chosen"]


def test_a_merge_of_a_chosen_merge_has_no_score(pair: Job, tmp_path: Path) -> None:
    merge(plan_of(tmp_path, SEARCH), pair)
    merge(plan_of(tmp_path, NEARLY, "nearly"), pair)
    merge(plan_of(tmp_path, "merge_method: uniform\nmodels: [nearly, a]\nselect: greedy\n", "deep"),
          pair)  # fmt: skip
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


def test_older_records_are_asked_by_the_runs_they_name(pair: Job, tmp_path: Path) -> None:
    merge(plan_of(tmp_path, SEARCH), pair)
    merge(plan_of(tmp_path, NEARLY, "nearly"), pair)

    def forget(record: dict[str, Any]) -> None:
        for one in record["merged_from"]["ingredients"]:
            del one["chosen"], one["selection"]

    change_sealed(paths.run_record(*NAMES, "nearly", 0), forget)
    assert "soup among its ingredients" in standing_of(*NAMES, "nearly", 0).unscored
    assert not standing_of(*NAMES, "nearly", 0).epoch
    change_merged("soup", cross_fitted_sha256="gone")  # nothing says whose logits these are
    assert "merge it again with --overwrite" in standing_of(*NAMES, "soup", 0).unscored


def test_cross_fitted_logits_of_another_merge_are_not_believed(pair: Job, tmp_path: Path) -> None:
    merge(plan_of(tmp_path, SEARCH), pair)
    file = paths.cross_fitted_csv(*NAMES, "soup", 0)
    kept = file.read_bytes()
    file.write_bytes(kept.replace(b"\n", b"\r\n"))
    assert "merge it again" in contender("soup", "merge")[1].unscored
    file.unlink()
    assert "merge it again" in contender("soup", "merge")[1].unscored
    merge(plan_of(tmp_path, UNIFORM), pair, overwrite=True)
    file.write_bytes(kept)  # of the earlier merge of that name
    found = contender("soup", "merge")[1]
    np.testing.assert_array_equal(found.by_half[0], found.logit)
    assert found.in_words() == "merge"


def test_an_epoch_chosen_on_these_rows_is_marked(pair: Job, tmp_path: Path) -> None:
    change_run("b", selection="best")
    merge(plan_of(tmp_path, UNIFORM), pair)
    merge(plan_of(tmp_path, "merge_method: uniform\nmodels: [soup, a]\n", "deep"), pair)
    assert contender("a")[1].in_words() == "ingredient"
    assert contender("b")[1].in_words() == "ingredient, epoch chosen here"
    for name in ("soup", "deep"):
        held, one = contender(name, "merge")
        assert one.in_words() == "merge, epoch chosen here"
        assert not one.unscored
    assert ensemble_of([contender("a")[1], contender("b")[1]]).flattered
    assert list(by_domain(held, [one])[2]) == []


def test_under_lodo_a_choice_saw_half_of_the_domain(pair: Job, tmp_path: Path) -> None:
    merge(plan_of(tmp_path, SEARCH), pair)
    held, one = contender("soup", "merge")
    assert one.in_words(lodo=True) == "merge, chosen, saw half of the domain"
    table = as_table(held, [one, contender("a")[1]], {}, lodo=True).set_index("model")
    assert table.loc["a", "kind"] == "ingredient"


# --- ingredients that were chosen on the rows of another data set ---


def as_if_on(model: str, dataset: str, ids: list[str]) -> str:
    """Return a copy of a run's weights, beside it a record of a run on another data set."""
    path = paths.run_record(*NAMES, model, 0)
    file = path.parents[3] / f"{model}_of_{dataset}.safetensors"
    file.write_bytes(paths.checkpoint(*NAMES, model, 0).read_bytes())
    folds_sha256 = fold_file(dataset, ids)

    def move(record: dict[str, Any]) -> None:
        record |= {"dataset": dataset, "folds_sha256": folds_sha256}
        for one in (record["merged_from"] or {}).get("ingredients", []):
            one.update(dataset=dataset, folds_sha256=folds_sha256)

    beside = file.with_suffix(".json")
    beside.write_bytes(path.read_bytes())
    change_sealed(beside, move)
    return str(file)


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
    chosen, epoch = as_if_on("soup", dataset, ids), as_if_on("b", dataset, ids)
    for name, file in (("of_chosen", chosen), ("of_epoch", epoch)):
        caplog.clear()
        merge(plan_of(tmp_path, f"merge_method: uniform\nmodels: [a, {file}]\n", name), pair)
        found = standing_of(*NAMES, name, 0)
        assert bool(found.unscored) == (shared and name == "of_chosen")
        assert found.epoch == (shared and name == "of_epoch")
        record = read_record(paths.run_record(*NAMES, name, 0))
        assert record["selection"] == ("best" if shared else "last")
        assert ("that score is flattered" in caplog.text) == shared
    held_out, one = contender("of_chosen", "merge")
    assert np.isnan(scores_of(held_out, one).macro_f1) == shared


def test_a_choice_on_these_rows_counts_through_a_merge_elsewhere(pair: Job, tmp_path: Path) -> None:
    run = {"dataset": "far", "scheme": "s", "selection": "last"}
    inner = {"dataset": "tiny", "scheme": "s", "selection": "best", "name": "soup"}
    fold_file("far", list("wxyz"))
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
