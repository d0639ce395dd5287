"""A model's report, from artefacts to page."""

import html
import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from src import paths
from src.artifacts.files import sha256_file
from src.artifacts.recipes import Member, Recipe, write_recipe
from src.cli import tune
from src.cli.report import main
from src.metrics import sigmoid
from src.reporting.report import scores_of, worst_rows
from src.reporting.runs import collect_runs, reportable
from src.thresholds import best_threshold
from tests.records import change_sealed
from tests.reporting.conftest import ODD, predict, run_record

pytestmark = pytest.mark.usefixtures("toy", "coarse")


class Page(HTMLParser):
    """Collects what a page shows and loads."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.sources, self.cells = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for key, value in attrs if key in ("src", "href")]

    def handle_data(self, data):
        self.cells.append(data)


def report(model, *words):
    assert main([model, *words]) == 0
    folder = paths.report_dir("toy", "s", model)
    return folder, (folder / "index.html").read_text(encoding="utf-8")


def recipe(name, model, threshold=0.7, weight=1.0, other=None, stages=None):
    folds = [0, 1, 2]

    def member(name, share):
        files = {k: paths.oof_csv("toy", "s", name, k) for k in folds}
        made_of = {str(k): sha256_file(file) for k, file in files.items()}
        return Member(name, share, 0.5, [*folds], made_of)

    members = [member(model, weight)] + ([member(other, 1 - weight)] if other else [])
    stages = stages or [
        {"name": "voting", "params": {"rule": "soft"}},
        {"name": "threshold", "params": {"value": threshold}},
    ]
    fold_sha = sha256_file(paths.folds_csv("toy", "s"))
    write_recipe(
        paths.recipe_json("toy", name), Recipe("toy", "s", folds, fold_sha, members, stages)
    )


def test_all_folds_with_records(capsys):
    oof = predict("m", [0, 1])
    for fold in (0, 1):
        run_record("m", fold, stages=True)
    folder, text = report("m")
    prob = sigmoid(oof["logit"].to_numpy())
    score = f1_score(oof["label"], prob >= 0.5, average="macro")
    area = roc_auc_score(oof["label"], prob)
    out = capsys.readouterr().out
    assert "m: 40 items, macro_f1 0." in out
    assert f", {score:.4f} at 0.5 (in-sample 0." in out
    assert f", auc {area:.4f}" in out
    page = Page(text)
    pictures = ["all.png", "all.worst.png"]
    pictures += [f"fold_{k}{kind}.png" for k in range(2) for kind in ("", ".worst")]
    assert page.sources == pictures
    for name in pictures:
        assert cv2.imread(str(folder / name)).std() > 5
    rows = [i for i, cell in enumerate(page.cells) if cell == "all items together"]
    assert f"{score:.4f}" in page.cells[rows[0] : rows[0] + 12]
    assert "mean ± standard deviation" in page.cells
    assert text.count("<h2>Config</h2>") == 1
    assert "compact_net" in text
    assert not (paths.root() / "reports" / "toy" / "s" / "other").exists()


def test_one_fold_and_predictions_from_elsewhere():
    predict("m", [1])
    _, text = report("m")
    assert Page(text).sources == ["fold_1.png", "fold_1.worst.png"]
    assert "mean ±" not in text
    assert "came from elsewhere" in text


def test_a_refit_alone_shows_how_it_learned(capsys):
    run_record("m", paths.ALL)
    _, text = report("m")
    assert Page(text).sources == ["fold_all.png"]
    assert "nothing is scored" in text
    assert "m: nothing held out" in capsys.readouterr().out


def test_names_are_never_markup():
    model = "timm:a"
    predict(model, [0])
    run_record(model, 0)
    change_sealed(
        paths.run_record("toy", "s", model, 0),
        lambda record: record["config"].update(about="<script>alert(1)</script>"),
    )
    folder, text = report(model)
    assert "script" not in Page(text).tags
    assert html.escape("<script>alert(1)</script>") in text
    assert folder.name == "timm--a"
    assert not re.search(r"https?://", text)


def test_threshold_comes_from_the_recipe_of_the_model_alone():
    oof = predict("m")
    predict("x", seed=2)
    own, _ = best_threshold(oof["label"], sigmoid(oof["logit"]))
    assert collect_runs("toy", "s", "m").whole.line == own
    recipe("both", "m", weight=0.5, other="x")
    assert "the best of its out-of-fold items" in collect_runs("toy", "s", "m").whole.tuned
    recipe("alone", "m", 0.7, other="x")
    runs = collect_runs("toy", "s", "m")
    assert runs.whole.how == "in-sample: threshold 0.7000, recipe alone"  # it kept no others
    assert runs.whole.line == 0.7
    assert np.array_equal(runs.whole.rows.pred, runs.whole.rows.prob >= 0.7)
    assert np.array_equal(runs.folds[1].rows.pred, runs.folds[1].rows.prob >= 0.7)
    recipe("tuned", "m", 0.6)
    assert collect_runs("toy", "s", "m").whole.tuned == "threshold 0.6000, recipe tuned"
    predict("m", [2], seed=5)  # trained again: no recipe stands on these any more
    assert "out-of-fold" in collect_runs("toy", "s", "m").whole.tuned


def test_thresholds_by_kind_are_no_line():
    predict("m")
    params = {"value": 0.5, "by": "kind", "values": {"image": 0.8}}
    voting = {"name": "voting", "params": {"rule": "soft"}}
    recipe("tuned", "m", stages=[voting, {"name": "threshold", "params": params}])
    whole = collect_runs("toy", "s", "m").whole
    assert (whole.tuned, whole.line) == ("thresholds by kind, recipe tuned", None)
    assert np.array_equal(whole.rows.pred, whole.rows.prob >= 0.8)


def test_the_most_wrong_come_first_and_lost_items_say_so():
    oof = predict("m", [0])
    part = collect_runs("toy", "s", "m").whole
    whole = part.rows
    gap = np.abs(whole.prob - whole.label)
    rows = worst_rows(part, 10)
    assert gap[rows] == pytest.approx(np.sort(gap)[::-1][:10])
    assert ODD in "".join(oof["item_id"])
    first = whole.item_id[rows[0]]
    (paths.dataset_dir("toy") / "train" / first).unlink()
    (paths.dataset_dir("toy") / "train" / whole.item_id[rows[1]]).write_bytes(b"nothing")
    folder, _ = report("m")
    assert cv2.imread(str(folder / "fold_0.worst.png")) is not None


def test_scores_of_a_part():
    predict("m")
    part = collect_runs("toy", "s", "m").folds[0]
    scores = scores_of(part)
    assert scores["items"] == 20
    assert scores["auc"] == pytest.approx(roc_auc_score(part.rows.label, part.rows.logit))
    assert scores["in_sample_macro_f1"] == f1_score(
        part.rows.label, part.in_sample, average="macro"
    )


def test_the_cross_fitted_score_comes_first_and_each_fold_took_the_others_threshold(capsys):
    oof = predict("m")
    _, text = report("m")
    prob, label = sigmoid(oof["logit"].to_numpy()), oof["label"].to_numpy()
    pred = np.empty(len(oof), dtype=int)
    for fold in range(3):
        held = oof["fold"].to_numpy() == fold
        pred[held] = prob[held] >= best_threshold(label[~held], prob[~held])[0]
    cross = f1_score(label, pred, average="macro")
    fitted = f1_score(label, prob >= best_threshold(label, prob)[0], average="macro")
    heads = [cell for cell in Page(text).cells if cell.endswith("macro_f1")]
    assert heads == ["cross_fitted_macro_f1", "macro_f1", "in_sample_macro_f1"]
    assert "found on these very items, which flatters" in text
    out = capsys.readouterr().out
    assert f"macro_f1 {cross:.4f} cross-fitted" in out
    assert f"(in-sample {fitted:.4f})" in out
    assert tune.main(["--models", "m", "--strategies", "mean", "--recipe", "alone"]) == 0
    whole = collect_runs("toy", "s", "m").whole
    order = pd.Index(whole.rows.item_id).get_indexer(oof["item_id"])
    assert np.array_equal(whole.rows.pred[order], pred)  # the recipe's rules say the same
    assert whole.tuned.endswith("recipe alone")
    assert whole.how.startswith("cross-fitted: thresholds 0.")


def test_all_models_are_reported_by_default(capsys):
    predict("b", [0])
    run_record("a", paths.ALL)
    assert reportable("toy", "s") == ["a", "b"]
    assert main([]) == 0
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == ["a", "b"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mm"], "unknown model with a finished run 'mm'; did you mean 'm'"),
        (["--scheme", "other"], "toy has no folds other yet"),
        (["m", "--data", "tyo"], "unknown data set 'tyo'"),
    ],
)
def test_mistakes_say_what_there_is(capsys, words, message):
    predict("m")
    assert main(words) == 2
    assert message in capsys.readouterr().err


def test_without_runs_the_way_to_one_is_said(capsys):
    assert main([]) == 2
    assert "train_folds.py --model NAME" in capsys.readouterr().err


def test_the_page_shows_what_classes_are_called(tmp_path):
    predict("m", [0])
    home = paths.dataset_dir("toy") / "train"
    for label, name in (("real", "live"), ("fake", "spo&of")):
        (home / label).rename(home / name)
    (home.parent / "dataset.yaml").write_text("labels: {live: 0, spo&of: 1}\n")
    _, text = report("m")
    shown = Page(text).cells
    assert "labels: 0 -> live, 1 -> spo&of" in shown
    assert {"f1_live", "f1_spo&of"} <= set(shown)
