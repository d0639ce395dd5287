"""Runs on reals and their blends: who takes part, and that a run goes on exactly."""

import logging

import numpy as np
import pytest

from src import paths
from src.data.pixels import landmarks
from src.errors import UserError
from src.training.setup import epoch_pool
from src.training.trainer import Trainer, fit_fold
from tests.jobs import interrupt_at_batch, make_job, oof_bytes, with_options  # noqa: F401


@pytest.fixture(autouse=True)
def faces(monkeypatch):
    """Every picture shows a face in its middle, but one that begins with an odd value."""

    def points_of(canvas):
        side, angle = canvas.shape[0], np.linspace(0, 2 * np.pi, 468)
        points = np.stack([np.sin(angle), np.cos(angle)], 1) * side / 4 + side / 2
        return None if lost(canvas) else points

    lost = lambda canvas: False  # noqa: E731
    monkeypatch.setattr(landmarks, "points_of", points_of)

    def lose(which):
        nonlocal lost
        lost = which

    return lose


BLEND = {"blend": {"hulls": ["face"]}, "sampler": "paired", "augment": "light"}


def test_a_run_sees_reals_and_their_blends_alone_and_goes_on_exactly(make_job, monkeypatch):  # noqa: F811
    job = make_job(**BLEND)
    pool = epoch_pool(job)
    reals = job.train_rows[job.labels[job.train_rows] == 0]
    assert pool.rows.tolist() == [*reals, *(reals + len(job.table))]
    assert pool.labels.tolist() == [0] * len(reals) + [1] * len(reals)
    seen = []
    loss = Trainer.loss

    def seeing(self, batch):
        seen.append(batch)
        return loss(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "loss", seeing)
        assert fit_fold(job)
    for batch in seen:
        pairs = batch["item"].view(-1, 2)
        assert (pairs[:, 0] == pairs[:, 1]).all()
        assert (batch["label"].view(-1, 2).sum(1) == 1).all()
        assert (job.labels[batch["item"]] == 0).all()
    whole = oof_bytes(job)
    job = with_options(job, overwrite=True)
    with monkeypatch.context() as patch:
        interrupt_at_batch(patch, 7)
        with pytest.raises(KeyboardInterrupt):
            fit_fold(job)
    assert fit_fold(with_options(job, overwrite=False))
    assert oof_bytes(job) == whole
    assert len(list(paths.landmarks("tiny").rglob("*.npz"))) == 1  # found once


def test_the_data_sets_own_fakes_join_where_asked_for(make_job):  # noqa: F811
    job = make_job(blend={"fakes": True}, augment="light")
    rows = job.train_rows
    reals = rows[job.labels[rows] == 0]
    pool = epoch_pool(job)
    assert sorted(pool.rows) == sorted([*rows, *(reals + len(job.table))])
    assert pool.labels.sum() == len(rows)  # its fakes, and a blend of each real
    assert fit_fold(job)


def test_faces_that_are_not_seen_are_counted_and_none_at_all_is_refused(make_job, faces, caplog):  # noqa: F811
    faces(lambda canvas: canvas[0, 0, 0] % 2 == 1)
    with caplog.at_level(logging.WARNING, "rvf"):
        assert fit_fold(make_job(**BLEND))
    assert "real items show no face and take part unblended" in caplog.text
    faces(lambda canvas: True)
    with pytest.raises(UserError, match="none of the 20 real training items shows a face"):
        fit_fold(make_job(model="other", **BLEND | {"augment": "none", "input": {"image_size": 8}}))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"strategy": "feature_extractor"}, "transfer.cache_features: false"),
        ({"mixup": 0.2}, "leave one of them out"),
        ({"blend": {"hulls": []}}, "hulls"),
        ({"blend": {"hulls": ["ear"]}}, "ear"),
        ({"blend": {"poisson": 2}}, "poisson"),
    ],
)
def test_what_does_not_go_with_blends_is_refused(make_job, changes, said):  # noqa: F811
    with pytest.raises(UserError, match=said):
        make_job(**BLEND | changes)


def test_the_head_alone_learns_from_augmented_blends(make_job):  # noqa: F811
    job = make_job(strategy="feature_extractor", transfer={"cache_features": False}, **BLEND)
    assert fit_fold(job)
