"""Pseudo-labels for fold k must come from models, and be of items, that know nothing of fold k."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src import paths
from src.artifacts.files import sha256_file
from src.artifacts.folds import read_folds, write_folds
from src.artifacts.oof import read_views, write_oof, write_views
from src.artifacts.recipes import Member, Recipe, write_recipe
from src.config import PseudoConfig, parse_model
from src.data.layouts.load import load_dataset
from src.data.pixels.source import Canvas, PixelSource
from src.errors import UserError
from src.inference import stored
from src.metrics import sigmoid
from src.training import plan
from src.training.job import Job, Options, job_table
from src.training.pseudo import PseudoLabels, balance, surely
from tests.jobs import TINY
from tests.records import make_record

N, FOLDS, SCHEME = 18, (0, 1, 2), "s"
RIGHT = 10.0  # logit of a model that is sure


def picture(seed):
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return cv2.resize(small, (48, 48), interpolation=cv2.INTER_CUBIC)


def truth(index):
    return index % 2


def fold_of(index):
    return index // 2 % 3


@pytest.fixture
def toy(artefact_root):
    """Write a data set in which only leaks tell the truth.

    Test item `sib_i` stands for a secret that it shares with train item i alone: a model knows
    its label if it saw item i, else it is wrong, and sure. `copy_i` is item i's file, `flip_i`
    its mirror image.
    """
    home = artefact_root / "input" / "toy"
    for folder in ("train/real", "train/fake", "test"):
        (home / folder).mkdir(parents=True)
    for i in range(N):
        file = home / "train" / ("fake" if truth(i) else "real") / f"{i:02d}.png"
        cv2.imwrite(str(file), picture(i))
        cv2.imwrite(str(home / "test" / f"sib_{i:02d}.png"), picture(100 + i))
        if i < 6:
            shutil.copy(file, home / "test" / f"copy_{i:02d}.png")
            cv2.imwrite(str(home / "test" / f"flip_{i:02d}.png"), picture(i)[:, ::-1])
    dataset = load_dataset("toy", None)
    ids = dataset.train["item_id"].tolist()
    index = np.array([int(Path(name).stem) for name in ids])
    folds = pd.DataFrame(
        {
            "item_id": ids,
            "label": [truth(i) for i in index],
            "group": ids,
            "domain": "",
            "kind": "image",
            "fold": [fold_of(i) for i in index],
        }
    )
    write_folds(paths.folds_csv("toy", SCHEME), folds)
    write_member(dataset)
    write_tuned()
    return dataset


def names_of(fold):
    return "toy", SCHEME, "a", fold


def write_member(dataset):
    """Write what the folds of model `a` predict."""
    items = stored.items_to_predict(dataset)
    table = read_folds(paths.folds_csv("toy", SCHEME))
    for fold in FOLDS:
        weights = paths.checkpoint(*names_of(fold))
        weights.parent.mkdir(parents=True, exist_ok=True)
        weights.write_bytes(f"{fold}".encode())
        oof = table[table["fold"] == fold].assign(logit=np.linspace(-1, 1, N // 3))
        write_oof(paths.oof_csv(*names_of(fold)), oof)
        make_record(*names_of(fold))
        index = np.array([int(name[-6:-4]) for name in items.item_ids])
        right = np.where(truth(index) == (fold_of(index) != fold), RIGHT, -RIGHT)
        ids = pd.Series(items.item_ids)
        right[ids.str.startswith("broken")] = 0
        columns = {"item_id": ids, "fold": fold, "view": "full", "logit": right}
        made_from = {"checkpoint_sha256": sha256_file(weights)}
        made_from |= {"manifest_sha256": items.manifest_sha256}
        write_views(paths.test_views(*names_of(fold)), pd.DataFrame(columns), made_from)


def stages_of(threshold, voting="soft"):
    return [
        {"name": "voting", "params": {"rule": voting}},
        {"name": "threshold", "params": {"value": threshold}},
    ]


def write_tuned(folds=FOLDS):
    made_of = [
        {str(k): sha256_file(path(*names_of(k))) for k in folds}
        for path in (paths.oof_csv, paths.checkpoint)
    ]
    sha = sha256_file(paths.folds_csv("toy", SCHEME))
    members = [Member("a", 1.0, 0.5, list(folds), *made_of)]
    recipe = Recipe("toy", SCHEME, list(folds), sha, members, stages_of(0.5))
    write_recipe(paths.recipe_json("toy", "tuned"), recipe)


def labeller(dataset, model="pl", **config):
    return PseudoLabels(model, PseudoConfig("tuned", **config), dataset, SCHEME)  # type: ignore[arg-type]


def table_of(dataset):
    return job_table(dataset.train, read_folds(paths.folds_csv("toy", SCHEME)))


def added(dataset, fold, **config):
    table = table_of(dataset)
    longer, _ = labeller(dataset, **config).add(table, fold)
    pd.testing.assert_frame_equal(longer.iloc[: len(table)], table)
    new = longer.iloc[len(table) :]
    assert (new["fold"] == -1).all()
    assert [path.removeprefix("test/") for path in new["path"]] == new["item_id"].tolist()
    return dict(zip(new["item_id"], new["label"], strict=True))


@pytest.mark.parametrize("fold", FOLDS)
def test_no_label_for_a_fold_knows_anything_of_that_fold(toy, fold, monkeypatch):
    """Were another fold's model asked, the secrets of the held-out items would come out right."""
    opened, read = [], stored.read_views
    monkeypatch.setattr(stored, "read_views", lambda path: (opened.append(path), read(path))[1])
    for other in set(FOLDS) - {fold}:  # nor is anything else read of them
        paths.test_views(*names_of(other)).unlink()
        paths.checkpoint(*names_of(other)).unlink()
    labels = added(toy, fold)
    assert set(opened) == {paths.test_views(*names_of(fold))}
    for i in range(N):
        assert (labels[f"sib_{i:02d}.png"] == truth(i)) == (fold_of(i) != fold), i
    for i in range(6):  # copies and look-alikes of held-out items stay out
        for kind in ("copy", "flip"):
            assert (f"{kind}_{i:02d}.png" in labels) == (fold_of(i) != fold)


def test_a_refit_takes_the_labels_of_all_folds_and_leaves_no_copy_out(toy):
    labels = added(toy, "all")
    assert len(labels) == len(toy.test)
    assert all(label == truth(int(name[-6:-4])) for name, label in labels.items())


def test_the_held_out_rows_of_a_run_stay_the_folds(toy):
    table, source = labeller(toy).add(table_of(toy), 1)
    job = Job("pl", parse_model(TINY, "tiny"), "toy", SCHEME, 1, toy.root, table, pseudo=source)
    held = set(job.table["item_id"].iloc[job.held_rows])
    folds = read_folds(paths.folds_csv("toy", SCHEME))
    assert held == set(folds.loc[folds["fold"] == 1, "item_id"])
    assert len(job.train_rows) == 12 + len(table) - N
    assert json.loads(json.dumps(source)) == source
    assert source["views"] == {"a fold 1": sha256_file(paths.test_views(*names_of(1)))}
    assert source["recipe_sha256"] == sha256_file(paths.recipe_json("toy", "tuned"))
    assert sum(source["added"].values()) + sum(source["left_out"].values()) == len(toy.test)
    assert source["left_out"]["equal files of held-out items"] == 2
    assert source["left_out"]["look-alikes of held-out items"] == 2


def test_all_folds_of_a_pseudo_labelled_model_are_served_by_one_pixel_cache(toy, monkeypatch):
    (toy.root / "test" / "broken_00.png").write_bytes(b"no picture")
    dataset = load_dataset("toy", None)
    write_member(dataset)
    content = TINY | {"pseudo": {"recipe": "tuned"}}
    monkeypatch.setattr(plan, "read_model", lambda _: parse_model(content, "tiny"))
    folds = read_folds(paths.folds_csv("toy", SCHEME))
    home, canvas = paths.pixel_cache("toy"), Canvas(16, "squash", "bicubic")
    kept, rows = set(), set()
    for job in plan.plan_jobs(["pl"], dataset, SCHEME, folds, [*FOLDS], Options()):
        source = PixelSource(job.root, job.table["path"].tolist(), [canvas], job.siblings)
        assert source.preload(home, "disk") == "disk"
        rows.add(tuple(job.table["path"]))
        kept |= set(home.rglob("pixels.u8"))
    assert len(rows) == len(FOLDS)
    assert len(kept) == 1


def test_balance_gives_the_training_rows_share(toy):
    path = paths.test_views(*names_of(0))
    views, made_from = read_views(path)
    for i in range(0, N, 4):  # fewer sure reals
        assert truth(i) == 0
        views.loc[views["item_id"] == f"sib_{i:02d}.png", "logit"] = 0.1
    write_views(path, views, made_from)
    uneven = list(added(toy, 0).values())
    even = list(added(toy, 0, balance=True).values())
    assert 2 * sum(uneven) != len(uneven)
    assert 2 * sum(even) == len(even)


def test_what_cannot_label_is_refused_with_the_command_that_helps(toy):
    table = table_of(toy)
    with pytest.raises(UserError, match=r"none of the 30 test items.*30 not sure.*confidence"):
        labeller(toy, confidence=1.0).add(table, 0)
    # Models of another scheme saw parts of every fold of this one.
    shutil.copy(paths.folds_csv("toy", SCHEME), paths.folds_csv("toy", "other"))
    with pytest.raises(UserError, match="tuned on the folds of s, not other"):
        PseudoLabels("pl", PseudoConfig("tuned"), toy, "other").check()
    views, made_from = read_views(paths.test_views(*names_of(0)))
    made_from |= {"checkpoint_sha256": "0" * 64}
    write_views(paths.test_views(*names_of(0)), views, made_from)
    with pytest.raises(UserError, match="not of these weights"):
        labeller(toy).add(table, 0)
    paths.test_views(*names_of(1)).unlink()
    with pytest.raises(UserError, match=r"predict_ensemble.py --data toy --recipe tuned"):
        labeller(toy).add(table, 1)
    write_tuned(folds=(0,))
    with pytest.raises(UserError, match=r"knows fold 0 of its members.*--fold 2.*tune.py"):
        labeller(toy).add(table, 2)
    with pytest.raises(UserError, match="a itself as a member"):
        labeller(toy, model="a").check()
    paths.oof_csv(*names_of(0)).write_text("changed")
    with pytest.raises(UserError, match="has changed since the recipe"):
        labeller(toy).check()
    paths.recipe_json("toy", "tuned").unlink()
    with pytest.raises(UserError, match=r"tune.py --data toy.*then python predict_ensemble.py"):
        labeller(toy).check()


def rule(threshold, voting="soft"):
    return Recipe("d", "s", [0], "", [Member("a", 1.0, 0.5, [0])], stages_of(threshold, voting))


def votes(prob, threshold):
    pred = (prob >= threshold).astype(np.int64)
    return pd.DataFrame({"prob": prob, "pred": pred, "fallback": False, "threshold": threshold})


@given(
    st.lists(st.floats(-20, 20), min_size=1, max_size=20),
    st.floats(-4, 4),
    st.floats(0.51, 1.0),
)
def test_sure_is_a_distance_from_the_threshold_in_logits(logits, cut, confidence):
    """Oracle: on the logit scale an item is sure if it lies logit(c) beyond the threshold."""
    logit = np.array(logits)
    prob, threshold = sigmoid(logit), float(sigmoid(cut))
    sure = surely(votes(prob, threshold), rule(threshold), confidence)
    reach = np.log(confidence / (1 - confidence)) if confidence < 1 else np.inf
    distance = np.abs(logit - cut) - reach
    clear = np.abs(distance) > 1e-4
    np.testing.assert_array_equal(~np.isnan(sure)[clear], (distance > 0)[clear])
    kept = ~np.isnan(sure)
    np.testing.assert_array_equal(sure[kept] > 0.5, logit[kept] > cut)


def test_hard_votes_are_shares_whatever_the_threshold():
    prob = np.array([0.0, 0.3, 0.5, 0.96, 1.0])
    sure = surely(votes(prob, 0.5), rule(0.9, "hard"), 0.95)
    np.testing.assert_array_equal(np.isnan(sure), [False, True, True, False, False])


@given(st.lists(st.floats(0, 1).filter(lambda p: p != 0.5), max_size=40), st.floats(0.05, 0.95))
def test_balance_keeps_one_class_whole_and_the_surest_of_the_other(probs, share):
    prob = np.array(probs, dtype=np.float64)
    keep = np.ones(len(prob), bool)
    kept = balance(prob, keep, share)
    fakes, reals = prob > 0.5, prob < 0.5
    assert (kept == keep)[fakes].all() or (kept == keep)[reals].all()
    for part in (fakes, reals):
        sure = np.abs(prob - 0.5)
        if (kept & part).any() and (~kept & part).any():
            assert sure[kept & part].min() >= sure[~kept & part].max()
    n_fake, n_real = int((kept & fakes).sum()), int((kept & reals).sum())
    # One more of the class that was cut would tip the balance the other way.
    if (~kept & fakes).any():
        assert n_fake <= n_real * share / (1 - share) + 1e-9
        assert n_fake + 1 > n_real * share / (1 - share) - 1e-9
    if (~kept & reals).any():
        assert n_real <= n_fake * (1 - share) / share + 1e-9
        assert n_real + 1 > n_fake * (1 - share) / share - 1e-9
