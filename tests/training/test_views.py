"""Training behind a frozen prefix: the views it has seen, shared by the folds."""

import dataclasses

import numpy as np
import pytest
import torch

from src import paths
from src.errors import UserError
from src.models.checkpoint import load_checkpoint
from src.tensor_files import read_tensors
from src.training import views
from src.training.trainer import fit_fold
from tests.jobs import interrupt_at_batch, oof_bytes, record_of

PREFIX = {
    "strategy": "frozen_prefix",
    "transfer": {"prefix_blocks": 1, "views": 2, "full_epochs": 1, "full_lr": 1e-3},
}


def weights_of(job, stage=None):
    path = paths.checkpoint(*job.names)
    return read_tensors(path if stage is None else paths.stage_checkpoint(*job.names, stage))


def files():
    return sorted(paths.prefix_views("tiny", "x").parent.glob("*/*.npy"))


@pytest.fixture
def donor(make_job):
    """A run whose weights others start from, and so share a prefix."""
    job = make_job(model="donor", optim={"epochs": 1})
    assert fit_fold(job)
    options = dataclasses.replace(job.options, weights=paths.checkpoint(*job.names))

    def like(**more):
        config = PREFIX | {"backbone": {"pretrained": "file"}} | more
        return make_job(options=options, **config)

    return job, like


def test_the_prefix_stays_and_what_is_behind_it_learns_as_the_whole_net_would(donor, monkeypatch):
    start, like = donor
    first = like()
    assert fit_fold(first)
    before, behind, last = weights_of(start), weights_of(first, 0), weights_of(first)
    moved = {key for key in before if not torch.equal(before[key], behind[key])}
    # Of the prefix neither weights nor BatchNorm statistics move, until all are trained.
    assert {key.split(".")[0] for key in moved} == {"stages", "head"}
    assert all(key.startswith(("stages.1", "head")) for key in moved)
    assert not torch.equal(behind["stem.0.weight"], last["stem.0.weight"])
    names = [stage["name"] for stage in record_of(first)["stages"]]
    assert names == ["behind 1 blocks", "all"]
    # The oracle: the whole net with frozen parts, on pixels, augmented in the same way.
    without = {"full_epochs": 0, "prefix_blocks": 1}
    plain = {"augment": "none", "optim": {"epochs": 2, "ema_decay": None}}
    kept = like(model="kept", transfer=without, **plain)
    whole = like(model="whole", transfer=without | {"cache_features": False}, **plain)
    monkeypatch.setattr(views, "_KIND", torch.float32)
    assert fit_fold(kept)
    assert fit_fold(whole)
    for key, value in weights_of(whole).items():
        torch.testing.assert_close(weights_of(kept)[key], value, atol=2e-4, rtol=1e-3)


def test_folds_share_their_views_which_are_those_of_the_prefix(donor, monkeypatch):
    _, like = donor
    made = []
    make = views.PrefixViews._make
    monkeypatch.setattr(views.PrefixViews, "_make", lambda *a: (made.append(a[2]), make(*a)))
    jobs = [like(fold=fold, augment="none") for fold in range(2)]
    assert all(fit_fold(job) for job in jobs)
    assert made == [0, 1, 2]  # one an epoch, for both folds
    model, _ = load_checkpoint(paths.stage_checkpoint(*jobs[0].names, 0), torch.device("cpu"))
    pixels = {"pixels": torch.zeros(1, 12, 12, 3, dtype=torch.uint8)}
    net = model.eval().net
    want = net.stages[0](net.stem(net.high_pass(model.normalised(pixels["pixels"]))))
    seen = np.load(files()[0])
    assert seen.dtype == np.float16
    assert seen.shape == (48, *want.permute(0, 2, 3, 1).shape[1:])
    # Another seed or augmentation is another view; another head or learning rate is not.
    assert fit_fold(like(model="other", augment="none", optim={"epochs": 1, "lr": 1e-3}))
    assert made == [0, 1, 2]
    assert fit_fold(like(model="flip", augment="crop_flip", optim={"epochs": 1}))
    assert made == [0, 1, 2, 0]


def test_an_epoch_draws_from_the_latest_views(donor):
    _, like = donor
    job = like(transfer={"views": 3, "renew_views": 2, "prefix_blocks": 1})
    batches = views.ViewBatches.__new__(views.ViewBatches)
    batches.views = type("Views", (), {"job": job})()
    windows = [batches.window(epoch) for epoch in range(9)]
    assert windows == [[0], [0], [0, 1], [0, 1], *[[0, 1, 2]] * 2, *[[1, 2, 3]] * 2, [2, 3, 4]]


def test_an_interrupted_run_behind_a_prefix_goes_on_to_the_same_bytes(donor, monkeypatch):
    _, like = donor
    whole = like(model="whole")
    assert fit_fold(whole)
    for batch in (2, 7, 11):  # of the first stage, in its last epoch, in the second
        job = like(model=f"cut_{batch}")
        with monkeypatch.context() as patch:
            interrupt_at_batch(patch, batch)
            with pytest.raises(KeyboardInterrupt):
                fit_fold(job)
        assert fit_fold(job)
        assert oof_bytes(job) == oof_bytes(whole)
    # A view that was stopped, and one that is damaged.
    damaged, kept = files()[1], files()[1].read_bytes()
    damaged.write_bytes(kept[:100])
    again = like(model="again")
    assert fit_fold(again)
    assert oof_bytes(again) == oof_bytes(whole)
    assert damaged.read_bytes() == kept


def test_a_view_that_was_damaged_is_named_and_no_item(donor):
    _, like = donor
    assert fit_fold(like(model="first"))
    content = bytearray(files()[0].read_bytes())
    content[200:] = b"\xff" * (len(content) - 200)  # NaN, to float16
    files()[0].write_bytes(content)
    with pytest.raises(UserError, match="its views are damaged; delete that folder"):
        fit_fold(like(model="second"))


@pytest.mark.parametrize(
    ("changes", "views"),
    [
        ({"loss": {"supcon": 0.1}}, 3),
        ({"optim": {"epochs": 2, "swa_epochs": 1, "ema_decay": None}}, 2),
        ({"optim": {"name": "schedule_free", "schedule": "constant", "ema_decay": None}}, 3),
        ({"optim": {"sam_rho": 0.05}, "patience": 1, "selection": "best"}, 3),
    ],
)
def test_what_else_a_config_asks_for_works_behind_a_prefix(donor, changes, views):
    _, like = donor
    job = like(model="other", transfer={"prefix_blocks": 1, "views": 2}, **changes)
    assert fit_fold(job)
    assert len(record_of(job)["history"]) <= views
    assert len(files()) <= views  # no view is made that no epoch is trained on


def test_a_prefix_that_does_not_fit_is_refused_by_name(donor):
    _, like = donor
    with pytest.raises(UserError, match=r"prefix_blocks is 2, and compact_net has 2 blocks"):
        fit_fold(like(transfer={"prefix_blocks": 2}))
    with pytest.raises(UserError, match=r"no use for transfer\.unfreeze_every"):
        fit_fold(like(transfer={"prefix_blocks": 1, "unfreeze_every": 1}))
    with pytest.raises(UserError, match="leave mixup and cutmix out"):
        like(mixup=0.2)
