"""What is uploaded with a merge, and which ingredients stand in no table."""

import json
import shutil
from pathlib import Path

import numpy as np
from sklearn.metrics import f1_score

from src import paths
from src.artifacts.folds import read_folds
from src.artifacts.runs import read_record
from src.soups.card import card_of, public_record
from src.soups.contenders import lines_of
from src.training.job import Job
from src.training.trainer import fit_fold
from tests.records import change_sealed
from tests.soups.test_run import (
    OPTIM,
    UNIFORM,
    MakeJob,
    change_run,
    merge,
    oof_of,
    plan_of,
)

NAMES = ("tiny", "s")


def folders_in(value: object) -> list[str]:
    """Return all strings, keys too, that name a folder from the root on."""
    if isinstance(value, dict):
        return [found for pair in value.items() for one in pair for found in folders_in(one)]
    if isinstance(value, list):
        return [found for one in value for found in folders_in(one)]
    return [value] if isinstance(value, str) and value.startswith(("/", "~", "C:\\")) else []


def file_of_b(tmp_path: Path) -> Path:
    file = tmp_path / "elsewhere" / "b.safetensors"
    file.parent.mkdir()
    shutil.copy(paths.checkpoint(*NAMES, "b", 0), file)
    shutil.copy(paths.run_record(*NAMES, "b", 0), file.with_suffix(".json"))
    return file


def test_records_that_are_uploaded_name_no_folder(pair: Job, tmp_path: Path) -> None:
    change_run("a", start={"source": "file", "name": "C:\\me\\w.pth", "sha256": "1" * 64})
    file = file_of_b(tmp_path)
    plan = plan_of(tmp_path, f"merge_method: uniform\nmodels: [a, {file}]\n")
    merge(plan, pair)
    path = paths.run_record(*NAMES, "soup", 0)
    assert str(file) in folders_in(json.loads(path.read_text()))
    clean = json.loads(public_record(path, tmp_path / "clean.json").read_text())
    assert folders_in(clean) == []
    assert [one["name"] for one in clean["merged_from"]["ingredients"]] == ["a", "b.safetensors"]
    assert list(clean["merged_from"]["barriers"]) == ["b.safetensors"]
    assert clean["start"]["name"] == "w.pth"
    assert clean["checkpoint_sha256"] == read_record(path)["checkpoint_sha256"]


def test_the_card_names_what_was_chosen_in_each_fold_and_its_score(
    pair: Job, make_job: MakeJob, tmp_path: Path
) -> None:
    for name in "ab":
        assert fit_fold(make_job(fold=1, model=name, optim=OPTIM))
    plan = plan_of(tmp_path, UNIFORM + "select: greedy\nmetric: log_loss\n")
    for fold in (0, 1):
        merge(plan, pair, fold)
    table = read_folds(paths.folds_csv(*NAMES))
    card = card_of(plan, *NAMES, [0, 1], table)
    lines = [line for line in card.splitlines() if line.startswith("- ")]
    for fold, line in enumerate(lines):
        record = read_record(paths.run_record(*NAMES, "soup", fold))
        chosen = [one["model"] for one in record["merged_from"]["chosen"]["models"]]
        assert line.startswith(f"- fold {fold}: uniform of {', '.join(chosen)}. Macro-F1 at 0.5")
        assert "by what was chosen on the other half" in line


def test_the_score_of_the_card_is_that_of_the_held_out_rows(pair: Job, tmp_path: Path) -> None:
    plan = plan_of(tmp_path, UNIFORM)
    merge(plan, pair)
    table = read_folds(paths.folds_csv(*NAMES))
    held = table[table["fold"] == 0].sort_values("item_id")
    wanted = f1_score(held["label"], oof_of("soup") >= 0, average="macro")
    assert f"on its 18 held-out items: {wanted:.4f}, AUC" in card_of(plan, *NAMES, [0], table)
    assert not np.isnan(wanted)
    plan = plan_of(tmp_path, "merge_method: uniform\nmodels: [a@fold_0, b@fold_0]\n", "across")
    merge(plan, pair, "all")
    assert "nothing is held out to score it on" in card_of(plan, *NAMES, ["all"], table)


def test_too_few_groups_for_halves_leave_a_card_without_a_score(pair: Job, tmp_path: Path) -> None:
    plan = plan_of(tmp_path, UNIFORM)
    merge(plan, pair)
    table = read_folds(paths.folds_csv(*NAMES)).assign(group="all")
    assert "- fold 0: uniform of a, b. No score: too few groups.\n" in card_of(
        plan, *NAMES, [0], table
    )


def test_ingredients_without_predictions_are_named(pair: Job, tmp_path: Path) -> None:
    file = tmp_path / "far.safetensors"
    shutil.copy(paths.checkpoint(*NAMES, "b", 0), file)
    shutil.copy(paths.run_record(*NAMES, "b", 0), file.with_suffix(".json"))
    shutil.copy(paths.folds_csv(*NAMES), paths.folds_csv("tiny", "other"))
    change_sealed(file.with_suffix(".json"), {"scheme": "other"})
    text = f"merge_method: task_arithmetic\nbase_model: start\nmodels: [a, {file_of_b(tmp_path)}, "
    text += f"{file}]\nparameters: {{weight: 0.3}}\n"
    merge(plan_of(tmp_path, text), pair)
    lines, aside = lines_of(["soup"], *NAMES, 0)
    assert [(one.name, one.kind) for one in lines] == [
        ("a", "ingredient"), ("b", "ingredient"), ("soup", "merge")
    ]  # fmt: skip
    assert set(aside) == {"start", str(file)}
    assert "what the models started from" in aside["start"]
    assert aside[str(file)] == "a file without predictions of fold 0 of tiny/s"
    change_run("b", checkpoint_sha256="0" * 64)
    lines, aside = lines_of(["soup"], *NAMES, 0)
    assert [one.name for one in lines] == ["a", "soup"]
    assert "no longer, of the weights that were merged" in " ".join(aside.values())
