"""One fold by several ranks. Oracle: the run that one process makes of it."""

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from torch.nn.modules import _functions

from src import paths
from src.compute import device, ranks
from src.compute.budget import Budget
from src.compute.clock import process_seconds
from src.losses import LOSSES
from src.models.checkpoint import load_checkpoint
from src.training import results, setup
from src.training.trainer import fit_fold
from tests.conftest import REPO, run_command
from tests.jobs import record_of, with_options
from tests.ranks import run_ranks

VIT = {
    "name": "vit_tiny_patch16_224",
    "pretrained": "none",
    "kwargs": {"patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2},
}
SHORT = {"epochs": 2}
BROKEN = float("nan")


def logits(job):
    return pd.read_csv(paths.oof_csv(*job.names)).set_index("item_id")["logit"].sort_index()


def small_run(root, make_images, epochs):
    """Write what a command trains on; returns its words, for two ranks."""
    for label, seed in (("real", 1), ("fake", 2)):
        make_images(root / "input" / "tiny" / "train" / label, 12, stem=label, seed=seed)
    config = root / "configs" / "models" / "small.yaml"
    config.parent.mkdir(parents=True)
    config.write_text(
        "backbone: {name: compact_net, pretrained: none, kwargs: {widths: [8, 8, 16]}}\n"
        "input: {image_size: 32, mean: [0.5, 0.5, 0.5], std: [0.25, 0.25, 0.25]}\n"
        f"augment: crop_flip\noptim: {{epochs: {epochs}, batch_size: 6}}\n"
    )
    words = ["train_folds.py", "--model", "small", "--fold", "0", "--ddp", "2", "--device", "cpu"]
    words += ["--precision", "fp32", "--no-report", "--workers", "0"]
    return words


def check_same(make_job, count, *, options=None, **changes):
    """Train in one process and by ranks (with `options`), on a fold of 15, in batches of 8."""
    changes["optim"] = SHORT | changes.get("optim", {})
    one, many = (make_job(model=name, fold=1, **changes) for name in ("one", "many"))
    many = with_options(many, **(options or {}))
    assert fit_fold(one)
    codes, said = run_ranks(count, lambda _: fit_fold(many))
    assert (codes, said) == ([0] * count, "")
    found, wanted = record_of(many), record_of(one)
    np.testing.assert_allclose(logits(many), logits(one), atol=1e-4, rtol=0)
    for entry, other in zip(found["history"], wanted["history"], strict=True):
        assert entry["train_loss"] == pytest.approx(other["train_loss"], abs=1e-4)
    assert (found["ranks"], wanted["ranks"]) == (count, 1)
    nets = [
        load_checkpoint(paths.checkpoint(*job.names), torch.device("cpu"))[0].net.state_dict()
        for job in (one, many)
    ]
    assert nets[0].keys() == nets[1].keys()
    return many


def test_two_ranks_make_the_run_of_one_process(make_job):
    """BatchNorm, the mean of weights, a fold of 15 items; and then there is nothing to do."""
    job = check_same(make_job, 2)
    assert not fit_fold(job)
    assert not list(paths.root().glob(".ranks_*"))


@pytest.mark.nightly
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"backbone": VIT},
        {"backbone": VIT | {"grad_checkpointing": True}},
        {"optim": {"accumulate": 2}},
        {"optim": {"sam_rho": 0.05}},
        {"optim": {"swa_epochs": 2, "ema_decay": None}},
        {"optim": {"name": "schedule_free", "schedule": "constant", "ema_decay": None}},
        {"optim": {"schedule": "plateau"}, "patience": 1},
        {"mixup": 0.4, "augment": "light"},
        {"cutmix": 1.0},
        {"strategy": "feature_extractor", "augment": "none"},
        {"strategy": "feature_extractor", "augment": "crop_flip"},
        {"strategy": "frozen_prefix", "transfer": {"prefix_blocks": 1}},
        {"strategy": "lp_ft"},
        {"transfer": {"unfreeze_every": 1}},
    ],
    ids=lambda changes: re.sub(r"\W+", "_", str(changes))[:40],
)
def test_ranks_make_the_run_of_one_process(make_job, count, changes):
    check_same(make_job, count, **changes)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own, while it traces
def test_compiled_nets_see_the_whole_batch(make_job, monkeypatch):
    """With two items a rank, as many as what a net is compiled on: nothing is compiled again."""
    monkeypatch.setattr(device, "BACKEND", "eager")  # what is traced counts, not what it becomes
    check_same(make_job, 2, options={"compile": True}, optim={"batch_size": 4})


@pytest.mark.parametrize("backbone", [{}, VIT], ids=["norm", "vit"])
def test_ranks_agree_on_the_pieces_of_a_batch(make_job, monkeypatch, backbone):
    """Of 7 items one has 3 and one 4; a card holds 4, the other 1."""
    fitting, tried = setup._fitting_batch, []

    def fits(_, __, whole, *___):
        tried.append(whole)
        return (4, 1)[ranks.rank()] if ranks.count() > 1 else 7

    def as_on_a_card(run, _):
        size = fitting(run, torch.device("cuda"))
        assert (size, tried) == ((1, [4]) if ranks.count() > 1 else (0, [7]))
        return size

    monkeypatch.setattr(setup, "micro_batch", fits)
    monkeypatch.setattr(setup, "_fitting_batch", as_on_a_card)
    changes = {"optim": {"batch_size": 7}}
    if backbone:
        check_same(make_job, 2, options={"auto_batch": True}, backbone=backbone, **changes)
        return
    job = with_options(make_job(optim=SHORT | changes["optim"]), auto_batch=True)
    assert run_ranks(2, lambda _: fit_fold(job)) == ([0, 0], "")  # BatchNorm sees pieces


@pytest.mark.nightly
def test_minutes_are_those_of_all_ranks(make_job):
    """The leading rank's clock sets the pace; the schedule is made to its end."""
    job = make_job(optim={"epochs": 200, "min_lr": 1e-6})
    minutes = process_seconds() / 60 + 0.15
    job = replace(job, budget=Budget(minutes, ["m"], [0], {("m", 0)}))
    began = time.monotonic()
    assert run_ranks(2, lambda _: fit_fold(job)) == ([0, 0], "")
    assert time.monotonic() - began < 15
    record = record_of(job)
    assert record["budget"]["ask"]["minutes"] == minutes
    assert record["ranks"] == 2
    assert record["history"]


@pytest.mark.nightly
@pytest.mark.parametrize("others", [1, 2])
def test_a_killed_rank_ends_all_and_another_number_goes_on(make_job, monkeypatch, others):
    whole, cut = (make_job(model=name, optim={"epochs": 3}) for name in ("whole", "cut"))
    assert fit_fold(whole)

    def killed(number):
        loss, calls = LOSSES.get("bce"), []

        def count(*arguments):
            calls.append(number)
            if number == 2 and len(calls) == 5:  # in the second epoch
                os.kill(os.getpid(), signal.SIGKILL)
            return loss(*arguments)

        monkeypatch.setitem(LOSSES._things, "bce", count)
        fit_fold(cut)

    codes, said = run_ranks(3, killed)
    assert codes == [1, 1, -9]
    assert said.startswith(ranks.ENDED)
    assert len(said.splitlines()) == 1
    assert paths.run_state(*cut.names).exists()
    if others == 1:
        assert fit_fold(cut)
    else:
        assert run_ranks(others, lambda _: fit_fold(cut)) == ([0] * others, "")
    np.testing.assert_allclose(logits(cut), logits(whole), atol=1e-4, rtol=0)


@pytest.mark.nightly
def test_a_signal_to_one_rank_stops_all_and_one_process_goes_on(make_job, monkeypatch):
    whole, cut = (make_job(model=name, optim={"epochs": 3}) for name in ("whole", "cut"))
    assert fit_fold(whole)

    def stopped(number):
        loss, calls = LOSSES.get("bce"), []

        def count(*arguments):
            calls.append(number)
            if number == 1 and len(calls) == 5:
                os.kill(os.getpid(), signal.SIGTERM)
            return loss(*arguments)

        def save(*given):
            time.sleep(0.5)
            saved(*given)

        saved = results.checkpoint.save_state
        monkeypatch.setattr(results.checkpoint, "save_state", save)
        monkeypatch.setitem(LOSSES._things, "bce", count)
        try:
            with cut.options.clock.running():
                fit_fold(cut)
        finally:  # no rank ends before what all stopped at is on disk
            state = torch.load(paths.run_state(*cut.names), weights_only=True)  # noqa: TID251
            if not state["batch"]:
                os._exit(9)

    codes, said = run_ranks(2, stopped)
    assert codes == [130, 130]
    assert said == "interrupted; the same command goes on from here"
    assert fit_fold(cut)
    np.testing.assert_allclose(logits(cut), logits(whole), atol=1e-4, rtol=0)


@pytest.mark.nightly
def test_a_loss_that_is_not_finite_on_one_rank_ends_all_and_names_its_items(make_job, monkeypatch):
    job = make_job(optim=SHORT)

    def broken(number):
        loss = LOSSES.get("bce")
        factor = BROKEN if number == 1 else 1.0
        monkeypatch.setitem(LOSSES._things, "bce", lambda *given: loss(*given) * factor)
        fit_fold(job)

    codes, said = run_ranks(2, broken)
    assert codes == [2, 2]
    found = re.fullmatch(
        r"error: epoch 1: the loss is nan; .* Items of the batch: (.*?)\. .*", said
    )
    assert found
    assert len(found[1].split(", ")) == 4  # half of a batch of 8
    assert not paths.run_state(*job.names).exists()


@pytest.mark.nightly
def test_ranks_that_are_not_alike_are_told_once(make_job, monkeypatch):
    job = make_job(optim=SHORT)
    text = paths.folds_csv(*job.names[:2]).read_text()

    def another(number):
        if number == 1:
            other = paths.root() / "other.csv"
            other.write_text(text + "\n")
            monkeypatch.setattr(paths, "folds_csv", lambda *_: other)
        fit_fold(job)

    codes, said = run_ranks(2, another)
    assert codes == [2, 2]
    assert re.fullmatch(r"error: rank 1 on \S+ and rank 0 on \S+ differ in the fold file: .*", said)

    codes, said = run_ranks(3, lambda _: fit_fold(make_job(optim={"batch_size": 2})))
    assert codes == [2, 2, 2]
    assert said.startswith("error: 3 ranks and optim.batch_size 2: each rank trains on a part")
    assert said.count("error") == 1

    with monkeypatch.context() as patch:
        patch.setattr(device, "card_id", lambda _: "GPU-1")
        codes, said = run_ranks(2, lambda _: fit_fold(job))
    assert codes == [2, 2]
    assert re.fullmatch(r"error: rank 1 on \S+ and rank 0 on \S+ have one card: .*", said)

    pairs = make_job(loss={"supcon": 0.5})
    codes, said = run_ranks(2, lambda _: fit_fold(pairs))
    assert codes == [2, 2]
    assert "2 ranks: loss.supcon look at all pairs of a batch" in said


@pytest.mark.nightly
def test_a_disk_that_is_not_shared_is_said_at_once(artefact_root, monkeypatch):
    from src.training.together import check_shared

    def elsewhere(number):
        check_shared(artefact_root / str(number))

    codes, said = run_ranks(2, elsewhere)
    assert codes == [2, 2]
    assert re.match(r"error: rank 1 on \S+: \S+ is not the folder that rank 0 on", said)


@pytest.mark.nightly
def test_what_one_rank_fails_at_is_said_by_it_alone(make_job, monkeypatch):
    """The disk of the one that writes is full; the others wait for it."""
    job = make_job(optim={"epochs": 1})

    def full(number):
        def write(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(results.checkpoint, "save_checkpoint", write)
        fit_fold(job)

    codes, said = run_ranks(2, full)
    assert codes == [2, 2]
    assert said.count("error:") == 1
    assert "the disk is full" in said


@pytest.mark.nightly
def test_ddp_starts_ranks_and_ends_as_they_do(artefact_root, make_images):
    words = small_run(artefact_root, make_images, epochs=1)
    done = run_command(*words)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("epoch 1/1") == 1
    refused = run_command(*words, "--scheme", "nonsense")
    assert refused.returncode == 2
    assert refused.stderr.count("error:") == 1
    assert "Traceback" not in refused.stderr


@pytest.mark.nightly
def test_a_signal_to_torchrun_and_its_ranks_is_one(artefact_root, make_images):
    """SLURM signals a job's processes, and torchrun hands it on to those that have it already."""
    words = small_run(artefact_root, make_images, epochs=2000)
    process = subprocess.Popen(
        [sys.executable, *words], cwd=REPO, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    for line in process.stdout:
        if line.count("epoch 2/"):
            break
    ours = psutil.Process(process.pid).children(recursive=True)
    for one in [process, *ours]:
        one.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[1]
    assert (process.returncode, said) == (130, "interrupted; the same command goes on from here\n")
    path = next(artefact_root.rglob("fold_0.state.pt"))
    assert torch.load(path, weights_only=True)["epoch"] >= 1  # noqa: TID251


def test_torchs_layer_for_cards_takes_what_it_is_given():
    """On a card its private function computes; nothing here can run it."""
    names = _functions.SyncBatchNorm.forward.__code__.co_varnames[1:10]
    assert names == ("input", "weight", "bias", "running_mean", "running_var", "eps", "momentum",
                     "process_group", "world_size")  # fmt: skip
