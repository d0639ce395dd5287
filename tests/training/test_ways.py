"""Whole runs of each way to minimise: interrupted after any step they go on to equal bytes."""

import dataclasses

import numpy as np
import pytest
import torch

from src import paths
from src.errors import UserError
from src.models.checkpoint import load_checkpoint
from src.training import resume, trainer
from src.training.job import Options
from src.training.run import Run
from src.training.trainer import fit_fold
from tests.jobs import oof_bytes, record_of

PLAIN = {"ema_decay": None}
WAYS = {
    "plateau": {
        "optim": {"schedule": "plateau", "decay_epochs": 1, "decay_rate": 0.3, "name": "sgd"},
        "loss": {"name": "asymmetric", "gamma": 2.0},
    },
    "one_cycle": {"optim": {"schedule": "one_cycle", "name": "lion", "lr": 1e-3}},
    "schedule_free": {"optim": PLAIN | {"name": "schedule_free", "schedule": "constant"}},
    "swa": {"optim": PLAIN | {"swa_epochs": 2}},
    "sam": {"optim": {"sam_rho": 0.05, "accumulate": 2}, "backbone": {"drop_rate": 0.3}},
    "mixed": {
        **{"mixup": 0.8, "cutmix": 1.0, "loss": {"name": "focal"}},
        "augment": {"name": "crop_flip", "erase": 0.3},
    },
    "augmented features": {
        "strategy": "two_stage",
        "transfer": {"head_epochs": 1, "last_blocks": 1, "cache_features": False},
        "augment": {"name": "crop_flip", "shift": 0.25, "erase": 0.3},
        **{"mixup": 0.4, "optim": PLAIN | {"epochs": 2}, "backbone": {"drop_rate": 0.3}},
    },
    "terms": {
        "loss": {"supcon": 0.1, "uniformity": 0.5, "alignment": 0.1, "class_weights": [1.0, 2.0]},
        "sampler": "oversample",
        "per_class": 25,
        "head": {"pool": "gem", "normalize": True},
    },
}


@pytest.mark.parametrize("way", WAYS)
def test_a_run_cut_after_any_step_goes_on_to_equal_bytes(make_job, monkeypatch, way):
    whole, cut = make_job(**WAYS[way]), make_job(model="cut", **WAYS[way])
    assert fit_fold(whole)
    # Saved after every step, and stopped in the second epoch and while it is scored.
    monkeypatch.setattr(resume, "EVERY_SECONDS", -1.0)
    monkeypatch.setattr(resume, "COST_SHARE", 0)
    step, score, calls = trainer.Step.make, trainer.Trainer.score, {"step": 0, "score": 0}

    def stepping(*arguments):
        calls["step"] += 1
        if calls["step"] == 5:
            raise KeyboardInterrupt
        return step(*arguments)

    def scoring(*arguments):
        calls["score"] += 1
        if calls["score"] == 2:
            raise KeyboardInterrupt
        return score(*arguments)

    monkeypatch.setattr(trainer.Step, "make", stepping)
    monkeypatch.setattr(trainer.Trainer, "score", scoring)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            fit_fold(cut)
    assert fit_fold(cut)
    assert oof_bytes(whole) == oof_bytes(cut)
    one, other = (
        [entry | {"items_per_second": 0} for entry in record_of(job)["history"]]
        for job in (whole, cut)
    )
    assert one == other
    one, other = (paths.checkpoint(*job.names).read_bytes() for job in (whole, cut))
    assert one == other


def test_every_way_leads_somewhere_else(make_job):
    jobs = [make_job(model=way, **WAYS[way]) for way in ("plateau", "swa", "mixed")]
    assert all(fit_fold(job) for job in jobs)
    assert len(set(map(oof_bytes, jobs))) == 3


def test_swa_keeps_the_mean_of_the_last_epochs(make_job, monkeypatch):
    seen, count = [], Run.count_epoch

    def noting(run, *arguments, **more):
        seen.append(run.model.net.head.weight.detach().clone())
        count(run, *arguments, **more)

    monkeypatch.setattr(Run, "count_epoch", noting)
    job = make_job(optim=PLAIN | {"swa_epochs": 2})
    fit_fold(job)
    kept, _ = load_checkpoint(paths.checkpoint(*job.names), torch.device("cpu"))
    assert len(seen) == 3
    torch.testing.assert_close(kept.net.head.weight.detach(), (seen[1] + seen[2]) / 2)


def test_paired_batches_hold_a_real_and_a_fake_of_a_group(make_job, monkeypatch):
    job = make_job(sampler="paired", optim={"epochs": 1})
    # Items 3k (fake) and 3k + 1 (real) are of one group; 3k + 2 has none.
    number = np.arange(len(job.table))
    group = np.where(number % 3 == 2, "", (number // 3).astype(str))
    job = dataclasses.replace(job, table=job.table.assign(group=group))
    seen, add = [], trainer.Step.add

    def noting(step, batch):
        seen.append(batch["item"].tolist())
        return add(step, batch)

    monkeypatch.setattr(trainer.Step, "add", noting)
    fit_fold(job)
    for rows in seen:
        fakes = [row for row in rows if row % 3 == 0]
        together = [row for row in fakes if row + 1 in rows]
        assert len(together) >= len(fakes) - 1
    with pytest.raises(UserError, match="paired finds no group"):
        fit_fold(make_job(model="other", sampler="paired"))


def test_a_batch_larger_than_the_fold_is_refused_before_anything_is_decoded(make_job, monkeypatch):
    monkeypatch.setattr(
        trainer.PixelSource, "preload", lambda *_: pytest.fail("pixels were decoded")
    )
    with pytest.raises(UserError, match=r"batch_size is 31, and an epoch of this fold has 30"):
        fit_fold(make_job(optim={"batch_size": 31}))


@pytest.mark.parametrize("head", [{"normalize": True}, {"pool": "max"}])
def test_a_head_reaches_the_predictions_of_record(make_job, head):
    plain, other = make_job(), make_job(model="other", head=head)
    fit_fold(plain)
    fit_fold(other)
    assert oof_bytes(plain) != oof_bytes(other)


def test_a_pool_that_the_net_cannot_have_is_refused(make_job):
    with pytest.raises(UserError, match="cls wants a class token, and compact_net has none"):
        fit_fold(make_job(head={"pool": "cls"}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampler": "oversampled"}, "unknown sampler 'oversampled'; did you mean 'oversample'"),
        ({"optim": {"schedule": "onecycle"}}, "unknown schedule .* 'one_cycle'"),
        ({"optim": {"name": "lions"}}, "unknown optimizer 'lions'; did you mean 'lion'"),
        ({"loss": {"name": "focall"}}, "unknown loss 'focall'; did you mean 'focal'"),
    ],
)
def test_a_mistyped_name_is_refused_with_the_nearest(make_job, changes, message):
    with pytest.raises(UserError, match=message):
        fit_fold(make_job(**changes))


def test_options_that_a_step_cannot_follow_are_refused(make_job):
    options = Options("cpu", "fp32", 0, compile=True)
    with pytest.raises(UserError, match="leave --compile out"):
        fit_fold(make_job(loss={"uniformity": 0.5}, options=options))
