"""A run on a data set of shards is the run on the files that were packed."""

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from src import paths
from src.artifacts.folds import read_folds
from src.compute.request import Compute
from src.config import InputSpec
from src.data.items.files import read_bytes
from src.data.items.shard_home import home_at
from src.data.items.shard_index import places_of
from src.data.layouts.load import load_dataset
from src.data.pixels.images import Canvas
from src.data.pixels.source import PixelSource
from src.data.shards.write import pack
from src.errors import UserError
from src.inference.predict import predict_items
from src.models.backbones.compact import CompactNet
from src.models.classifier import Classifier
from src.training.job import Job, Options, job_table
from src.training.setup import epoch_pool
from src.training.trainer import fit_fold
from tests.jobs import N_ITEMS, interrupt_at_batch, oof_bytes, with_options
from tests.ranks import run_ranks

OPTIONS = Options(device="cpu", precision="fp32", workers=0, track="none", cache="none")


@pytest.fixture
def on_shards(make_job: Callable[..., Job], tmp_path: Path) -> Callable[..., Job]:
    """Return `on_shards(**changes)`: as `make_job`, on shards of the same items and name."""
    make_job()
    root = paths.dataset_dir("tiny")
    rows = [f"train/i{i:03d}.png,{int(i % 3 == 0)}" for i in range(N_ITEMS)]
    (root / "train.csv").write_text("\n".join(["filename,label", *rows]) + "\n")
    pack(load_dataset("tiny"), home_at(str(tmp_path / "out")), 10_000)
    far = paths.dataset_dir("far")
    far.mkdir()
    (far / "dataset.yaml").write_text(f"shards: {tmp_path / 'out'}\n")
    items = load_dataset("far").train
    items = items.assign(item_id=items["item_id"].str.removeprefix("train/"))
    table = job_table(items, read_folds(paths.folds_csv("tiny", "s")))

    def make(**changes: object) -> Job:
        return replace(make_job(options=OPTIONS, **changes), root=far, table=table)

    return make


def test_predictions_are_those_of_a_run_on_files(make_job, on_shards):
    job = make_job(options=OPTIONS)
    fit_fold(job)
    on_files = oof_bytes(job)
    fit_fold(with_options(on_shards(), overwrite=True))
    assert oof_bytes(job) == on_files


@pytest.mark.nightly
def test_two_ranks_read_parts_of_the_shards_and_make_the_run_of_one(on_shards, monkeypatch):
    one, many = (on_shards(model=name, sampler="shards") for name in ("one", "many"))
    reads = paths.root() / "reads"

    def noted(root: Path, path: str) -> bytes:
        with reads.with_suffix("." + os.environ.get("RANK", "alone")).open("a") as file:
            file.write(path + "\n")
        return read_bytes(root, path)

    monkeypatch.setattr("src.data.pixels.reader.read_bytes", noted)
    fit_fold(one)
    assert run_ranks(2, lambda _: fit_fold(many)) == ([0, 0], "")
    logits = [pd.read_csv(paths.oof_csv(*job.names)).set_index("item_id") for job in (one, many)]
    pd.testing.assert_frame_equal(*logits, rtol=0, atol=1e-4)
    alone, first, second = (
        Counter(reads.with_suffix(suffix).read_text().split()) for suffix in (".alone", ".0", ".1")
    )
    assert first + second == alone  # no item twice
    assert abs(first.total() - second.total()) < 0.1 * alone.total()


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.nightly)])
def test_a_run_in_the_order_of_shards_goes_on_where_it_stopped(on_shards, workers, monkeypatch):
    job = with_options(on_shards(sampler="shards"), workers=workers)
    fit_fold(job)
    whole = oof_bytes(job)
    again = with_options(job, overwrite=True)
    with monkeypatch.context() as patch:
        interrupt_at_batch(patch, 6)
        with pytest.raises(KeyboardInterrupt):
            fit_fold(again)
    fit_fold(job)
    assert oof_bytes(job) == whole


def test_places_are_those_of_the_shards(on_shards):
    job = on_shards(sampler="shards")
    pool = epoch_pool(job)
    assert pool.places is not None
    assert len(set(pool.places.tolist())) == len(pool.rows) == len(job.train_rows)
    shard, offset = np.divmod(places_of(job.table["path"]), 2**40)
    number: dict[str, int] = {}
    for path, of, start in zip(job.table["path"], shard, offset, strict=True):
        name, _, member = path.partition("!/")
        assert int(member.partition("-")[0]) == start
        assert number.setdefault(name, of) == of
    assert len(number) == len(set(number.values())) > 1


def test_files_have_no_order_of_shards(make_job):
    with pytest.raises(UserError, match=r"sampler: shards .* take shuffle, or pack it"):
        fit_fold(make_job(sampler="shards"))


def test_held_out_items_are_read_as_they_lie(on_shards, monkeypatch):
    job, read = on_shards(), []

    def noted(root: Path, path: str) -> bytes:
        read.append(path)
        return read_bytes(root, path)

    monkeypatch.setattr("src.data.pixels.reader.read_bytes", noted)
    spec = InputSpec(16, 16, "squash", "bicubic", (0.5,) * 3, (0.25,) * 3)
    source = PixelSource(job.root, job.table["path"], [Canvas.of(spec)])
    items = job.held_rows[::-1].copy()
    model = Classifier(CompactNet(widths=(4, 4, 8)), spec)
    seen = predict_items(model, ["full"], source, items, Compute(device="cpu", batch_size=4))
    assert len(read) == len(items)
    assert (np.diff(places_of(read)) > 0).all()
    monkeypatch.undo()
    one = [
        predict_items(model, ["full"], source, items[i : i + 1], Compute(device="cpu")).logits
        for i in range(len(items))
    ]
    np.testing.assert_allclose(seen.logits, np.concatenate(one), atol=1e-5)
    assert seen.frames.rows.tolist() == items.tolist()
