"""Flags that are read late. Oracle: the run that looks at once."""

import re

import pandas as pd
import pytest
import torch

from src import paths
from src.compute.late import LAG, Late
from src.errors import UserError
from src.losses import LOSSES
from src.training import optim, step
from src.training.trainer import fit_fold


def test_a_flag_is_read_when_it_is_old_enough():
    late, true, false = Late[int](), torch.tensor(True), torch.tensor(False)
    for number in range(LAG + 2):
        late.note(true if number == 1 else false, number)
        assert late.raised() == (1 if number == LAG + 1 else None)
    late.note(true, 99)
    assert late.raised() is None
    assert late.raised(every=True) == 99
    assert late.raised(every=True) is None


@pytest.fixture
def as_on_a_card(monkeypatch):
    """Let nothing be looked at before it is late, and one kernel make the steps."""
    for module in (step, optim):
        monkeypatch.setattr(module, "at_once", lambda _: False)


def test_a_run_that_looks_late_is_the_one_that_looks_at_once(make_job, request):
    one, late = make_job(model="one"), make_job(model="late")
    fit_fold(one)
    request.getfixturevalue("as_on_a_card")
    fit_fold(late)
    one, late = (pd.read_csv(paths.oof_csv(*job.names))["logit"] for job in (one, late))
    pd.testing.assert_series_equal(one, late, atol=1e-5)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_no_step_is_made_with_a_loss_that_is_not_finite(make_job, monkeypatch, as_on_a_card, name):
    job = make_job(optim={"name": name, "epochs": 2, "ema_decay": None, "accumulate": 1})
    loss, seen = LOSSES.get("bce"), []
    make = step.Step.make

    def broken(items):
        seen.append(items)
        return loss(items) * (float("nan") if len(seen) == 2 else 1)

    def kept(self, number):
        before = [weight.detach().clone() for weight in self.run.model.parameters()]
        made = make(self, number)
        after = list(self.run.model.parameters())
        if len(seen) == 2:
            assert not made
            assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))
        return made

    monkeypatch.setitem(LOSSES._things, "bce", broken)
    monkeypatch.setattr(step.Step, "make", kept)
    with pytest.raises(UserError) as caught:
        fit_fold(job)
    assert re.match("epoch 1: the loss is nan; stopped", str(caught.value))
    assert not paths.run_state(*job.names).exists()
