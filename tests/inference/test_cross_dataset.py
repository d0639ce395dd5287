"""Train on one data set, predict the labelled items of another."""

import shutil

import cv2
import numpy as np
import pytest
import torch

from src import paths
from src.artifacts.files import write_json
from src.artifacts.oof import read_views
from src.compute.request import Compute
from src.data.layouts.load import load_dataset
from src.data.pixels.source import Canvas, PixelSource
from src.errors import UserError
from src.inference import passes
from src.inference.cross_dataset import cross_logits, labelled_items, to_predict
from src.inference.predict import predict_views
from src.models.checkpoint import load_checkpoint
from src.training.trainer import fit_fold
from tests.asked import recipe_of


def make_other(name="other", count=10, broken=False):
    rng = np.random.default_rng(1)
    for place in range(count):
        folder = paths.dataset_dir(name) / "train" / ("fake" if place % 2 else "real")
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 160 + 80 * (place % 2), (16, 16, 3), dtype=np.uint8)
        (folder / f"o{place}.png").write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    if broken:
        (paths.dataset_dir(name) / "train/real/o0.png").write_bytes(b"not a picture")
    return load_dataset(name)


def both(dataset, split=None):
    table = labelled_items(dataset, split).table
    return table, to_predict(dataset, table)


def test_checkpoints_predict_another_set_once(make_job, monkeypatch):
    jobs = [make_job(fold=k, optim={"epochs": 1}) for k in (0, 1)]
    assert all(fit_fold(job) for job in jobs)
    table, items = both(make_other(broken=True))
    assert table["label"].tolist() == [1] * 5 + [0] * 5  # fake/ before real/
    recipe = recipe_of(*jobs)
    logits, predicted = cross_logits(recipe, [0, 1], "other", items, Compute("cpu"))
    assert predicted == 2
    series = logits["m"]
    assert series.index[series.isna()].tolist() == ["real/o0.png"]
    assert series.index.tolist() == items.item_ids
    views = paths.cross_views("tiny", "s", "m", 1, "other")
    assert set(read_views(views)[0]["item_id"]) == set(items.item_ids)
    assert not any(paths.oof_dir("tiny", "s", "m").glob("test_fold_*"))  # not the test items'

    with monkeypatch.context() as patch:
        patch.setattr(passes, "predict_parts", lambda *_, **__: pytest.fail("predicted again"))
        again, predicted = cross_logits(recipe, [0, 1], "other", items, Compute("cpu"))
    assert predicted == 0
    assert again["m"].equals(series)

    # By hand: the mean of what each checkpoint says of one picture.
    one = "fake/o3.png"
    said = []
    for fold in (0, 1):
        model, _ = load_checkpoint(paths.checkpoint("tiny", "s", "m", fold), torch.device("cpu"))
        said.append(_logit(model, f"train/{one}"))
    assert series[one] == pytest.approx(np.mean(said), abs=1e-3)

    _, items = both(make_other(count=12))  # changed pictures are predicted again
    logits, predicted = cross_logits(recipe, [0, 1], "other", items, Compute("cpu"))
    assert (predicted, len(logits["m"])) == (2, 12)

    record = paths.extra_record("tiny", "s", "m")
    record.parent.mkdir(parents=True, exist_ok=True)
    write_json(record, {"schema": 1})
    with pytest.raises(UserError, match=r"'m' came from elsewhere.*no checkpoint.*other"):
        cross_logits(recipe, [0], "other", items, Compute())


def _logit(model, name):
    source = PixelSource(paths.dataset_dir("other"), [name], [Canvas.of(model.spec)])
    compute = Compute("cpu")
    looked = predict_views([model], [["full"]], source, np.arange(1), compute)
    assert looked.there.all()
    return float(looked.logits[0][0, 0])


def test_extra_items_are_no_labelled_items(artefact_root):
    make_other("more", count=4)
    make_other("other", count=6)
    (paths.dataset_dir("other") / "dataset.yaml").write_text("extra: [more]\n")
    dataset = load_dataset("other")
    assert len(dataset.train) == 10
    table, items = both(dataset)
    assert len(table) == len(items.item_ids) == 6


def test_test_items_are_scored_where_they_are_labelled(artefact_root):
    dataset = make_other()
    assert labelled_items(dataset).split == "train"
    with pytest.raises(UserError, match=r"no test item is labelled; 10 others are: --split train"):
        labelled_items(dataset, "test")
    for label in ("real", "fake"):
        home = paths.dataset_dir("other") / "test" / label
        home.mkdir(parents=True)
        for file in (paths.dataset_dir("other") / "train" / label).iterdir():
            shutil.copy(file, home / f"t{file.name}")
    dataset = load_dataset("other")
    found = labelled_items(dataset)
    assert (found.split, found.aside, found.unlabelled) == ("test", 10, 0)
    names = found.table["path"].str.contains("/fake/").astype(int)
    assert found.table["label"].tolist() == names.tolist()
    assert len(found.table) == 10
    other = labelled_items(dataset, "train")
    assert (other.split, len(other.table), other.aside) == ("train", 10, 10)
    prints = {to_predict(dataset, one.table).manifest_sha256 for one in (found, other)}
    assert len(prints) == 2
