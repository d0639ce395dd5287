"""From a data set to the first batch in columns: the rows of a join, and no str of each item."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from src import paths
from src.config import parse_model
from src.data.items.manifest import Dataset
from src.errors import UserError
from src.inference import stored
from src.inference.predict import Seen
from src.texts import Texts
from src.training.job import Job, Options, job_table
from src.training.plan import plan_jobs
from src.training.results import write_predictions
from src.training.trainer import Trainer
from tests.jobs import TINY

KINDS = [object, "str", pd.StringDtype("pyarrow")]
MANY = 100_000


def manifest(count, kind):
    ids = [f"i{k:03d}.png" for k in range(count)]
    paths_of = [f"train/{name}" for name in ids]
    return pd.DataFrame(
        {
            "item_id": pd.Series(ids, dtype=kind),
            "path": pd.Series(paths_of, dtype=kind),
            "bytes": np.arange(count) + 100,
        }
    )


def folds_of(ids, kind):
    count = len(ids)
    return pd.DataFrame(
        {
            "item_id": pd.Series(ids, dtype=kind),
            "label": np.arange(count) % 2,
            "group": pd.Series([f"g{k // 3}" for k in range(count)], dtype=kind),
            "domain": "",
            "kind": "image",
            "fold": np.arange(count) % 3,
        }
    )


def joined(items, folds):
    """Join item by item, as an oracle."""
    known = {i: (p, b) for i, p, b in items[["item_id", "path", "bytes"]].itertuples(index=False)}
    rows = folds[["item_id", "label", "group", "fold"]].itertuples(index=False)
    return [(i, *known[i], label, group, fold) for i, label, group, fold in rows]


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("of_folds", KINDS, ids=str)
@pytest.mark.parametrize("which", ["all", "some", "shuffled", "few"])
def test_the_table_of_a_run_is_the_join_item_by_item(kind, of_folds, which):
    items = manifest(60, kind)
    ids = items["item_id"].tolist()
    ids = {
        "all": ids, "some": ids[:7] + ids[9:40], "few": ids[50:51],
        "shuffled": np.random.default_rng(0).permutation(ids).tolist(),
    }[which]  # fmt: skip
    folds = folds_of(ids, of_folds)
    table = job_table(items, folds)
    assert list(table) == ["item_id", "path", "bytes", "label", "group", "fold"]
    assert list(table.itertuples(index=False, name=None)) == joined(items, folds)
    assert (table.dtypes[["bytes", "label", "fold"]] == "int64").all()
    again = pd.concat([table, table.astype(table.dtypes)], ignore_index=True)
    assert len(again) == 2 * len(ids)


@pytest.mark.parametrize("gone", [["new.png"], ["a", "b"]])
def test_an_item_that_is_gone_is_named(gone):
    items = manifest(20, "str")
    folds = folds_of([*items["item_id"][:5], *gone, *items["item_id"][5:]], "str")
    message = f"^{len(gone)} items of the fold file are not in the data set.* first is '{gone[0]}'"
    with pytest.raises(UserError, match=message):
        job_table(items, folds)


def job_of(table, masks=(), **changes):
    config = parse_model(TINY | changes, "tiny")
    masks = pd.Series(dict(masks), dtype=object)
    return Job("m", config, "tiny", "s", 0, Path("none"), table, masks=masks)


def test_the_fingerprint_of_the_data_is_that_of_ids_and_sizes_alone():
    items = manifest(30, "str")
    folds = folds_of(items["item_id"].tolist(), "str")
    mine = job_of(job_table(items, folds)).data_sha256
    assert (
        job_of(job_table(manifest(30, object), folds.assign(fold=1, label=0))).data_sha256 == mine
    )
    other = items.assign(bytes=items["bytes"] + (items.index == 7))
    assert job_of(job_table(other, folds)).data_sha256 != mine
    assert job_of(job_table(items, folds[1:])).data_sha256 != mine
    assert job_of(job_table(items, folds[::-1])).data_sha256 != mine


def test_masks_stand_at_their_items():
    items = manifest(6, "str")
    table = job_table(items, folds_of(items["item_id"].tolist()[::-1], "str"))
    job = job_of(table, {"i004.png": "masks/4.png", "gone.png": "masks/x.png"})
    assert list(job.mask_paths) == ["", "masks/4.png", "", "", "", ""]
    assert list(job_of(table).mask_paths) == [""] * 6


def test_groups_have_numbers_and_none_has_none():
    items = manifest(6, "str")
    folds = folds_of(items["item_id"].tolist(), "str").assign(group=["b", "", "a", "b", "", "a"])
    numbers = job_of(job_table(items, folds)).group_numbers
    assert numbers[[1, 4]].tolist() == [-1, -1]
    assert numbers[0] == numbers[3] != numbers[2] == numbers[5]
    assert min(numbers[[0, 2]]) >= 0


@pytest.fixture
def many(artefact_root):
    """Return a data set of columns alone, and its folds: no file is there."""
    kind = pd.StringDtype("pyarrow")
    table = manifest(MANY, kind).assign(kind="image", group="", domain="", width=1, height=1)
    test = np.arange(MANY) >= 0.9 * MANY
    ids = table["item_id"].where(~test, "t" + table["item_id"])
    table = table.assign(item_id=ids, split=np.where(test, "test", "train"), label=0)
    folds = folds_of(ids[~test].tolist(), kind)
    file = paths.folds_csv("many", "s")
    file.parent.mkdir(parents=True)
    file.write_text("stands for its bytes")
    return Dataset("many", artefact_root, table, list(range(MANY)), sha256="ab"), folds


@pytest.fixture
def no_item_of_its_own(monkeypatch):
    """Refuse whatever makes a Python object of every item."""

    def refuse(*_):
        raise AssertionError("an item by itself")

    for name in ("__iter__", "__array__"):
        monkeypatch.setattr(Texts, name, refuse)

    def watch(_, event, called):
        if event == "c_call" and called.__name__ == "tolist":
            size = getattr(called.__self__, "size", 0)
            assert size < MANY // 20, f"tolist of {size}"

    sys.setprofile(watch)
    yield
    sys.setprofile(None)


def test_a_start_makes_no_python_object_of_every_item(many, no_item_of_its_own, monkeypatch):
    dataset, folds = many
    options = Options(
        device="cpu", precision="fp32", workers=0, track="none", cache="none", no_pretrained=True
    )
    job = next(plan_jobs(["compact32"], dataset, "s", folds, [0], options))
    before = sys.getallocatedblocks()
    job.identity({"source": "random", "sha256": ""})
    trainer = Trainer(job)
    trainer.source.preload(None, "none")
    trainer.compute, trainer.workers = trainer.job.options, 0
    trainer.run.enter_stage(0)
    trainer.batches = trainer.make_batches()
    key = next(iter(trainer.sampler))
    assert len(key.rows) == trainer.config.optim.batch_size
    assert sys.getallocatedblocks() - before < MANY // 2
    held = job.held_rows
    frames = trainer.source.numbers.eval_rows(held)
    logits = np.linspace(-1, 1, 2 * len(held)).reshape(-1, 2)
    seen = Seen(frames, logits, np.ones(len(held), bool), len(held))
    sys.setprofile(None)  # pandas writes CSV by Python's objects
    write_predictions(job, seen, "ab")


def test_test_items_are_columns(many, no_item_of_its_own, monkeypatch):
    dataset, _ = many
    monkeypatch.setattr(stored, "contents_sha256", lambda *_: "contents")
    monkeypatch.setattr(Dataset, "require_test", lambda _: None)
    items = stored.items_to_predict(dataset)
    assert len(items.item_ids) == len(items.paths) == MANY // 10
    assert items.item_ids[3].startswith("ti")
