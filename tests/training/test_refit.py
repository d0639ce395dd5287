"""Training on every row: what it writes, that it resumes, when it stops, what it refuses."""

import dataclasses
import logging

import numpy as np
import pytest
import torch

from src import paths
from src.artifacts.files import sha256_file
from src.artifacts.recipes import Member, Recipe
from src.data.pixels.frames import FrameRows
from src.errors import UserError
from src.inference.predict import Seen
from src.inference.stored import needed_parts
from src.losses import LOSSES, Items
from src.models.checkpoint import load_checkpoint
from src.training.plan import check_refits, refit_epochs
from src.training.trainer import fit_fold
from tests.jobs import interrupt_at_batch, record_of, with_options


def recipe_of(job, *folds):
    member = Member(job.model, 1.0, 0.5, list(folds))
    stages = [
        {"name": "voting", "params": {"rule": "soft"}},
        {"name": "threshold", "params": {"value": 0.5}},
    ]
    return Recipe(job.dataset, job.scheme, list(folds), job.folds_sha256, [member], stages)


def test_a_refit_trains_on_every_row_and_leaves_no_predictions(make_job, monkeypatch):
    job = make_job(fold="all")
    job.table.loc[:2, "fold"] = -1
    seen: set[int] = set()
    loss = LOSSES.get("bce")

    def spy(items: Items):
        seen.update(items.batch["item"].tolist())
        return loss(items)

    monkeypatch.setitem(LOSSES._things, "bce", spy)
    assert fit_fold(job)
    assert seen == set(range(len(job.table)))
    folder = paths.run_dir(job.dataset, job.scheme, job.model)
    assert {path.name for path in folder.iterdir()} == {
        "fold_all.safetensors", "fold_all.json", "fold_all.lock", "fold_all.log"
    }  # fmt: skip
    assert not paths.oof_dir(job.dataset, job.scheme, job.model).exists()
    record = record_of(job)
    assert record["fold"] == "all"
    assert record["metrics"] == {}
    assert record["checkpoint_sha256"] == sha256_file(paths.checkpoint(*job.names))
    load_checkpoint(paths.checkpoint(*job.names), torch.device("cpu"))
    assert not fit_fold(job)


def test_an_interrupted_refit_resumes_to_equal_bytes(make_job, monkeypatch):
    whole, cut = make_job(fold="all"), make_job(fold="all", model="cut")
    fit_fold(whole)
    interrupt_at_batch(monkeypatch, 10)  # six batches an epoch
    with pytest.raises(KeyboardInterrupt):
        fit_fold(cut)
    assert not paths.run_record(*cut.names).exists()
    fit_fold(cut)
    one, other = (paths.checkpoint(*job.names).read_bytes() for job in (whole, cut))
    assert one == other


def test_selection_best_takes_the_folds_mean_best_epoch(make_job, caplog):
    changes = {"selection": "best", "optim": {"epochs": 5, "lr": 3e-2}}
    jobs = [make_job(fold=fold, **changes) for fold in (0, 1, 2)]
    config = jobs[0].config
    with pytest.raises(UserError, match=r"nothing out.*train_folds.py --model m --data tiny"):
        refit_epochs("tiny", "s", "m", config, [0, 1, 2])
    best = []
    for job in jobs:
        fit_fold(job)
        best.append(record_of(job)["epoch"])
    with caplog.at_level(logging.INFO, "rvf"):
        stop = refit_epochs("tiny", "s", "m", config, [0, 1, 2])
    assert stop is not None
    assert abs(stop - np.mean(best)) <= 0.5
    assert "folds 0, 1, 2" in caplog.text
    job = dataclasses.replace(make_job(fold="all", **changes), stop_after=2)
    fit_fold(job)
    record = record_of(job)
    assert [entry["epoch"] for entry in record["history"]] == [1, 2]
    assert (record["selection"], record["epoch"], record["stop_after"]) == ("last", 2, 2)
    with pytest.raises(UserError, match="kept epochs was 2, now 3"):
        fit_fold(dataclasses.replace(job, stop_after=3))
    assert refit_epochs("tiny", "s", "m", make_job().config, [0, 1, 2]) is None


def test_a_refit_of_another_config_borrows_nothing(make_job):
    fold, refit = make_job(optim={"epochs": 1}), make_job(fold="all", optim={"epochs": 1})
    recipe = recipe_of(fold, 0)
    fit_fold(fold)
    check_refits(recipe)  # absent: another function says so
    with pytest.raises(UserError, match=r"fold_all.*--model m --fold all .*without --refit"):
        needed_parts(recipe, [paths.ALL])
    fit_fold(refit)
    check_refits(recipe)
    (part,) = needed_parts(recipe, [paths.ALL])
    assert part.checkpoint.name == "fold_all.safetensors"
    assert part.views.name == "test_fold_all.views.parquet"
    fit_fold(with_options(make_job(fold="all", optim={"epochs": 2}), overwrite=True))
    with pytest.raises(UserError, match=r"another config than fold 0.*--overwrite"):
        check_refits(recipe)
    with pytest.raises(UserError, match="fold file has changed"):
        check_refits(dataclasses.replace(recipe, folds_sha256="0" * 64))


def test_the_views_of_a_refit_carry_fold_minus_one():
    one = FrameRows(np.arange(2), np.arange(2), np.full(2, -1))
    seen = Seen(one, np.zeros((2, 1)), np.array([True, False]), 2)
    rows = seen.table(["a", "b"], "all", ["full"])
    assert rows["fold"].tolist() == [-1, -1]
