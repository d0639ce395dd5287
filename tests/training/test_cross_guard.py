"""What a checkpoint was trained on. Oracle: records and fold files written by hand."""

import cv2
import numpy as np
import pandas as pd
import pytest

from src import paths
from src.artifacts.folds import write_folds
from src.artifacts.recipes import Member, Recipe
from src.data.layouts import load_dataset
from src.errors import UserError
from src.training.cross_guard import check_no_pseudo, check_not_trained_on, unseen
from tests.records import change_sealed, make_record

pytestmark = pytest.mark.usefixtures("artefact_root")
SCHEME = "sgkf2_s0"
RECIPE = Recipe("a", SCHEME, [0], "", [Member("m", 1.0, 0.5, {})], [])


def write_set(name, yaml=""):
    rng = np.random.default_rng(ord(name[0]))
    for label in ("real", "fake"):
        folder = paths.dataset_dir(name) / "train" / label
        folder.mkdir(parents=True)
        for place in range(3):
            pixels = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
            (folder / f"{name}{place}.png").write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    if yaml:
        (paths.dataset_dir(name) / "dataset.yaml").write_text(yaml)


def write_fold_file(name, ids):
    ids = [*ids, *(f"zz{k}" for k in range(-len(ids) % 4))]  # both classes in both folds
    place = np.arange(len(ids))
    table = pd.DataFrame({"item_id": ids, "label": place % 2, "fold": place // 2 % 2})
    table = table.assign(group=table["item_id"], domain="", kind="image")
    write_folds(paths.folds_csv(name, SCHEME), table)


def write_record(dataset="a", model="m", sha256="", start="", ingredients=()):
    source = {"source": "file" if start else "random", "sha256": start}
    merged = {"ingredients": list(ingredients)}
    make_record(
        dataset, SCHEME, model, 0, start=source, checkpoint_sha256=sha256, merged_from=merged
    )


def refused(text):
    with pytest.raises(UserError, match=text):
        check_not_trained_on(RECIPE, [0], load_dataset("b"))


def test_the_fold_file_tells_what_was_trained_on():
    write_set("b")
    write_fold_file("a", ["real/x.png", "fake/x.png"])
    write_record()
    check_not_trained_on(RECIPE, [0], load_dataset("b"))
    paths.folds_csv("a", SCHEME).unlink()
    write_fold_file("a", ["real/x.png", "fake/x.png", "b/fake/b1.png"])
    refused(r"m was trained on 1 items of b, for example 'fake/b1.png'")


def test_parts_in_common_are_found():
    write_set("b", "")
    write_fold_file("a", ["b/fake/b0.png", "c/real/x.png"])
    write_record()
    paths.dataset_dir("both").mkdir()
    (paths.dataset_dir("both") / "dataset.yaml").write_text("combine: [b, d]\n")
    write_set("d")
    with pytest.raises(UserError, match=r"1 items of both, for example 'b/fake/b0.png'"):
        check_not_trained_on(RECIPE, [0], load_dataset("both"))


def test_what_a_run_started_from_counts():
    write_set("b")
    write_fold_file("a", ["real/x.png", "fake/x.png"])
    write_fold_file("b", ["real/b0.png", "fake/b0.png"])
    write_record("b", "first", "f" * 64)
    write_record(start="f" * 64)
    refused(r"first, from which m started, was trained on b")


def test_ingredients_and_their_starts_count():
    write_set("b")
    write_fold_file("a", ["real/x.png", "fake/x.png"])
    write_fold_file("cb", ["b/real/b0.png", "c/fake/b0.png"])
    write_record("cb", "first", "f" * 64)
    one = {"name": "n", "dataset": "a", "scheme": SCHEME, "sha256": "e" * 64}
    write_record(ingredients=[one])
    check_not_trained_on(RECIPE, [0], load_dataset("b"))
    write_record("a", "n", "e" * 64, start="f" * 64)
    refused(r"first, from which m started, was trained on 1 items of b")


def test_a_missing_fold_file_is_said(caplog):
    write_set("b")
    write_fold_file("a", ["real/x.png", "fake/x.png"])
    one = {"name": "n", "dataset": "z", "scheme": SCHEME, "sha256": "e" * 64}
    write_record(ingredients=[one])
    check_not_trained_on(RECIPE, [0], load_dataset("b"))
    assert "n, among the ingredients of m, was trained on z: its fold file" in caplog.text


def test_pseudo_labelled_test_items_are_not_scored():
    write_fold_file("a", ["real/x.png", "fake/x.png"])
    write_record()
    check_no_pseudo(RECIPE, [0])
    path = paths.run_record("a", SCHEME, "m", 0)
    change_sealed(path, {"pseudo": {"added": {"real": 3}}})
    with pytest.raises(UserError, match=r"m was trained on test items of a with pseudo-labels"):
        check_no_pseudo(RECIPE, [0])


def test_copies_are_left_out_and_counted(caplog):
    write_set("a")
    write_set("b")
    home = paths.dataset_dir("b") / "train"
    for place, label in enumerate(("real", "real", "fake")):
        other = paths.dataset_dir("a") / "train" / label / f"a{place}.png"
        (home / label / f"copy{place}.png").write_bytes(other.read_bytes())
    write_fold_file("a", load_dataset("a").train["item_id"].tolist())
    dataset = load_dataset("b")
    kept = unseen(RECIPE, dataset, dataset.train, None)
    assert not kept["item_id"].str.contains("copy").any()
    assert len(kept) == 6
    assert "b: 3 of 9 items were seen in training on a and are not scored (3 equal" in caplog.text
    assert "train/fake/copy2.png is akin to train/fake/a2.png of a); to score them" in caplog.text
    # Where nothing of a class is left, there is nothing to score.
    fakes = dataset.train[dataset.train["item_id"].str.contains("copy|fake")]
    fakes = fakes[~fakes["item_id"].str.fullmatch("fake/b.*")]
    with pytest.raises(UserError, match="3 of 3 items were seen in training on a"):
        unseen(RECIPE, dataset, fakes, None)


def test_a_data_set_that_is_gone_is_said(caplog):
    write_set("b")
    dataset = load_dataset("b")
    assert len(unseen(RECIPE, dataset, dataset.train, None)) == 6
    assert "copies of items of a are not looked for" in caplog.text
