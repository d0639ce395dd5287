"""The pooling stage: chosen on views, nested like everything else."""

import numpy as np
import pandas as pd
import pytest

from src import paths
from src.artifacts.folds import read_folds, write_folds
from src.artifacts.oof import read_oof, write_oof, write_views
from src.ensemble import align as aligning
from src.ensemble import tune as tuning
from src.ensemble.align import align
from src.ensemble.pooling import pool_table
from src.ensemble.rule import pools_of, rule_of, vote
from src.ensemble.search import Search
from src.ensemble.tune import tune
from src.errors import UserError
from src.metrics import macro_f1
from tests.ensemble.synthetic import DATA, SCHEME, make_folds, make_oof
from tests.records import make_record

FRAMES = 8


@pytest.fixture
def clips(artefact_root):
    """Write two members of a set of clips, of whose fakes one frame in eight looks fake."""
    table = make_folds(n=600, groups=200)
    table["kind"] = np.where(np.arange(600) % 4, "video", "image")
    paths.folds_csv(DATA, SCHEME).unlink()
    write_folds(paths.folds_csv(DATA, SCHEME), table)
    for seed, model in enumerate(("a", "b")):
        write_member(table, model, np.random.default_rng(seed))
    return table


def write_member(table, model, rng, pool="mean_prob"):
    rows = []
    for item_id, label, kind, fold in table[["item_id", "label", "kind", "fold"]].to_numpy():
        if kind == "image":
            rows.append((item_id, fold, "full", rng.normal(2 * label - 1)))
        else:
            rows += [(item_id, fold, f"f{k:02d}", v) for k, v in enumerate(odd(label, FRAMES, rng))]
    return write_views_of(table, model, rows, pool)


def odd(label, count, rng):
    """Return logits of which one looks fake where the item is."""
    logits = rng.normal(-1.0, 1.0, count)
    logits[rng.integers(count)] += 4.0 * label
    return logits


def write_views_of(table, model, rows, pool="mean_prob", config=None):
    """Write views and what is pooled of them, and the record of a run of some config."""
    views = pd.DataFrame(rows, columns=["item_id", "fold", "view", "logit"])
    for fold, part in views.groupby("fold"):
        write_views(paths.oof_views(DATA, SCHEME, model, fold), part, {"pool": pool})
        own = table[table["fold"] == fold].set_index("item_id")
        logit = pool_table(part, pool).reindex(own.index)
        write_oof(paths.oof_csv(DATA, SCHEME, model, fold), own.assign(logit=logit).reset_index())
        if config is not None:
            make_record(DATA, SCHEME, model, fold, config=config)
    return views


def test_the_pooling_that_sees_the_odd_frame_is_taken(clips):
    aligned = align(DATA, SCHEME)
    assert aligned.pooled.defaults == ("mean_prob", "mean_prob")
    tuned = tune(aligned, names=["mean@0.5", "mean"])
    assert tuned.chosen.startswith("mean of ")
    pool = pools_of(tuned.recipe)["a"]
    assert pool in ("max", "top_k_mean", "top_k_median")
    by_name = {c.name: c for c in tuned.candidates}
    assert {f"mean of {name}" for name in ("max", "median", "mean_logit")} <= set(by_name)
    assert by_name[f"mean of {pool}"].cross_fitted > by_name["mean"].cross_fitted + 0.03
    assert tuned.recipe.stages[0] == {
        "name": "pooling",
        "params": {"pools": {"a": pool, "b": pool}},
    }
    # What is stored decides as what was scored: in-sample, on logits pooled from the views.
    rule = rule_of(tuned.recipe)
    pred = vote(rule, aligned.pooled.logits[pool], aligned.kind).pred
    right = (pred == aligned.label).mean()
    assert right > 0.75
    assert tuned.recipe.scores["in_sample"] == pytest.approx(by_name[tuned.chosen].in_sample)


def test_a_search_keeps_its_weights(clips):
    calls = []
    aligned = align(DATA, SCHEME)
    tuned = tune(aligned, names=["tpe"], search=Search(5, 0, lambda: calls.append(1)))
    assert len(calls) == 5 * 4
    assert any(c.name.startswith("tpe of ") for c in tuned.candidates)


def test_without_clips_no_views_are_read(artefact_root, monkeypatch):
    make_oof(make_folds())
    monkeypatch.setattr(aligning, "read_pooled", lambda *_: pytest.fail("read"))
    tuned = tune(align(DATA, SCHEME), names=["mean@0.5", "mean"])
    assert [stage["name"] for stage in tuned.recipe.stages] == ["voting", "threshold"]


def write_faces(config):
    """Write a member of a set of images that sees two faces of each; return its views."""
    table, rng = make_folds(n=120, groups=60), np.random.default_rng(0)
    rows = [
        (item_id, fold, f"face{k}", value)
        for item_id, label, fold in table[["item_id", "label", "fold"]].to_numpy()
        for k, value in enumerate(odd(label, 2, rng))
    ]
    return write_views_of(table, "a", rows, config=config)


def test_several_faces_of_images_are_pooled_as_tuning_finds_best(artefact_root):
    views = write_faces({"input": {"crop": "face"}, "face": {"which": "all"}})
    aligned = align(DATA, SCHEME)
    largest = views.groupby("item_id")["logit"].max().loc[aligned.item_id]
    np.testing.assert_array_equal(aligned.pooled.logits["max"][:, 0], largest)
    names = {c.name for c in tune(aligned, names=["mean@0.5", "mean"]).candidates}
    assert any(name.endswith(" of max") for name in names)


@pytest.mark.parametrize(
    "config",
    [
        {"input": {"crop": "face"}, "face": {"which": "largest"}},
        {"input": {"crop": "full"}, "face": {"which": "all"}},  # nothing is cropped
        {"input": {}},  # a record of before
    ],
)
def test_one_face_of_an_image_needs_no_views(artefact_root, monkeypatch, config):
    write_faces(config)
    monkeypatch.setattr(aligning, "read_pooled", lambda *_: pytest.fail("read"))
    assert align(DATA, SCHEME).pooled.logits == {}


def test_the_best_pooling_that_passes_is_taken_whatever_the_order(clips, monkeypatch):
    aligned = align(DATA, SCHEME, ["a"])
    tuned = tune(aligned, names=["mean@0.5", "mean"])
    rivals = [c for c in tuned.candidates if " of " in c.name and " by " not in c.name]
    assert {c.over for c in rivals} == {"mean"}
    # Of 8 frames the highest quarter is two, whose mean is their median.
    assert {"mean of top_k_mean", "mean of top_k_median"} & {c.name for c in rivals} == {
        "mean of top_k_mean"
    }
    passed = [c for c in rivals if c.gain > c.gain_se]
    assert len(passed) > 1
    best = max(passed, key=lambda c: c.cross_fitted)
    assert best.name != passed[0].name  # the first by name would not do
    assert [c.name for c in rivals if c.taken] == [best.name]
    assert tuned.chosen.startswith(best.name)
    found = tuning._poolings
    monkeypatch.setattr(tuning, "_poolings", lambda *given: found(*given)[::-1])
    turned = tune(aligned, names=["mean@0.5", "mean"])
    assert turned.chosen == tuned.chosen
    assert turned.recipe.stages == tuned.recipe.stages


def test_a_member_without_views_keeps_its_logits(clips):
    for fold in range(3):
        paths.oof_views(DATA, SCHEME, "b", fold).unlink()
    aligned = align(DATA, SCHEME)
    assert aligned.pooled.defaults == ("mean_prob", "")
    for logits in aligned.pooled.logits.values():
        np.testing.assert_array_equal(logits[:, 1], aligned.logit[:, 1])
    assert "b" not in pools_of(tune(aligned, names=["mean@0.5", "mean"]).recipe)


def test_views_of_other_predictions_are_refused(clips):
    path = paths.oof_csv(DATA, SCHEME, "a", 1)
    table = read_oof(path, read_folds(paths.folds_csv(DATA, SCHEME)), 1)
    write_oof(path, table.assign(logit=table["logit"] + 0.5))
    with pytest.raises(UserError, match="do not belong to the CSVs"):
        align(DATA, SCHEME)


def test_evaluate_pools_as_the_recipe_does(clips):
    from src.artifacts.recipes import write_recipe
    from src.reporting.evaluated import own_rows, subject_of_model, subject_of_recipe

    tuned = tune(align(DATA, SCHEME, ["a"]), names=["mean@0.5", "mean"])
    assert pools_of(tuned.recipe)["a"] != "mean_prob"
    write_recipe(paths.recipe_json(DATA, "tuned"), tuned.recipe)
    for subject in (
        subject_of_recipe("tuned", tuned.recipe), subject_of_model(DATA, SCHEME, "a")
    ):  # fmt: skip
        rows = own_rows(subject)
        assert macro_f1(rows.label, rows.pred) == tuned.recipe.scores["in_sample"]


def test_a_report_takes_no_threshold_of_other_pooling(clips):
    from src.artifacts.recipes import write_recipe
    from src.reporting.runs import collect_runs

    tuned = tune(align(DATA, SCHEME, ["a"]), names=["mean@0.5", "mean"])
    write_recipe(paths.recipe_json(DATA, "tuned"), tuned.recipe)
    how = collect_runs(DATA, SCHEME, "a").whole.tuned
    assert "the best of its out-of-fold items" in how
