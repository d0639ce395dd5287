"""The report, from artefacts to pages: what it says, where its links lead, what is not there."""

import os
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import cv2
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from src import paths
from src.artifacts import atomic
from src.cli import tune
from src.cli.report import main
from src.metrics import sigmoid
from src.reporting.report.blocks import Cell, Grid
from src.reporting.report.details import curves, decisions
from src.reporting.report.subjects import scores_of, subject_of_runs
from src.reporting.runs import collect_runs
from src.thresholds import best_threshold
from tests.records import change_sealed
from tests.reporting.conftest import ODD, predict, run_record, write_recipe_of

pytestmark = pytest.mark.usefixtures("toy", "coarse")
UNDRAWN = pytest.mark.usefixtures("undrawn")  # what is on the pictures is not looked at


class Shown(HTMLParser):
    """Collects what a page shows and where it leads."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path, self.text = path, path.read_text(encoding="utf-8")
        self.tags, self.cells, self.links, self.outside, self.alts = [], [], [], [], []
        self.feed(self.text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        said = dict(attrs)
        is_outside = said.get("class") == "outside"
        for key in ("src", "href"):
            if said.get(key):
                (self.outside if is_outside else self.links).append(said[key])
        if tag == "img":
            self.alts.append(said.get("alt", ""))

    def handle_data(self, data):
        self.cells.append(data.strip())

    def says(self, text):
        return text in " ".join(" ".join(self.cells).split())


def report(*words):
    assert main(["--data", "toy", *words]) == 0
    return Shown(paths.report_html("toy"))


def page_of(name, *, is_recipe=False):
    home = paths.scorecard_csv("toy", "s", name, is_recipe=is_recipe).parent
    return Shown(home / "index.html")


def row_of(page, name):
    start = page.cells.index(name)
    return [cell for cell in page.cells[start : start + 40] if cell]


@UNDRAWN
def test_the_numbers_on_the_page_are_those_of_scikit_learn(capsys):
    oof = predict("m", [0, 1])
    for fold in (0, 1):
        run_record("m", fold, stages=True)
    shown = report()
    prob, label = sigmoid(oof["logit"].to_numpy()), oof["label"].to_numpy()
    half, area = f1_score(label, prob >= 0.5, average="macro"), roc_auc_score(label, prob)
    pred = np.empty(len(oof), dtype=int)
    for fold in (0, 1):
        held = oof["fold"].to_numpy() == fold
        pred[held] = prob[held] >= best_threshold(label[~held], prob[~held])[0]
    cross = f1_score(label, pred, average="macro")
    fitted = f1_score(label, prob >= best_threshold(label, prob)[0], average="macro")
    out = capsys.readouterr().out
    assert f"m: 40 items, macro_f1 {cross:.4f} cross-fitted, {half:.4f} at 0.5" in out
    assert f"(in-sample {fitted:.4f}), auc {area:.4f}" in out
    assert out.splitlines()[-1] == f"report: {paths.report_html('toy')}"
    row = row_of(shown, "m")
    assert row[1:3] == ["40", next(c for c in row if c.startswith(f"{cross:.4f} ["))]
    assert any(cell.startswith(f"{area:.4f} [") for cell in row)
    wrong = int((pred[label == 0] == 1).sum()), int((pred[label == 1] == 0).sum())
    for count in wrong:
        assert shown.says(f"{count} ({count / 20:.1%})")
    model = page_of("m")
    start = model.cells.index("all items together")
    assert {f"{half:.4f}", f"{area:.4f}"} <= set(model.cells[start : start + 40])
    assert model.says("mean ± standard deviation")
    low, value, high = re.search(r"\d ([\d.]+) \[([\d.]+), ([\d.]+)\]", " ".join(row)).groups()
    assert float(value) <= float(low) <= float(high)  # the score lies in its interval
    csv = pd.read_csv(shown.path.parent / "s" / "m" / "reliability.csv")
    assert csv["items"].sum() == 40
    assert ((csv["low"] <= csv["share"]) & (csv["share"] <= csv["high"])).all()


@UNDRAWN
def test_every_link_leads_somewhere_in_a_copy_and_every_picture_has_numbers_and_words(tmp_path):
    predict("m")
    predict("timm:x", seed=2)
    for fold in range(3):
        run_record("m", fold)
    write_recipe_of("tuned", "m", weight=0.5, other="timm:x")
    pd.DataFrame(
        [["toy", "0 1 2", 42, "m", level, "items", "auc", 0.5, 0.4, 0.6, "0.5"]
         for level in ("clean", "jpeg50", "mean of levels")],
        columns=["data", "folds", "seed", "name", "level", "of", "score", "value", "low", "high",
                 "threshold"],
    ).to_csv(_made(paths.robustness_csv("toy", "s", "m")), index=False)  # fmt: skip
    report()
    moved = tmp_path / "elsewhere"
    shutil.copytree(paths.report_html("toy").parent, moved)
    pages = sorted(moved.rglob("index.html"))
    assert [p.parent.name for p in pages] == ["elsewhere", "m", "tuned", "timm--x"]
    for path in pages:
        page = Shown(path)
        assert page.alts
        assert all(len(alt) > 10 for alt in page.alts)
        inside = [link for link in page.links if not link.startswith(("#", "data:"))]
        for link in inside:
            target = (path.parent / unquote(link)).resolve()
            assert target.is_relative_to(moved.resolve())
            assert target.exists()
            if target.suffix == ".png" and not target.name.startswith("fold_"):
                assert target.with_suffix(".csv").exists()
        anchors = {link[1:] for link in page.links if link.startswith("#")}
        assert all(f'id="{anchor}"' in page.text for anchor in anchors)
        assert not re.search(r"(?:https?:)?//", re.sub(r"data:[^\"]*", "", page.text))
    first = Shown(paths.report_html("toy"))
    for link in first.outside:
        target = Path(os.path.normpath(first.path.parent / unquote(link)))
        assert target.parent.parent == paths.dataset_dir("toy") / "train"
        assert target.is_file()
    assert len(first.outside) == 24  # 12 of each class


def _made(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@UNDRAWN
def test_worst_items_are_of_both_classes_and_lost_files_say_so():
    oof = predict("m")
    table = pd.DataFrame({"id": oof["item_id"], "label": oof["label"], "logit": oof["logit"]})
    worst = {
        label: table[table["label"] == label].sort_values("logit", ascending=label == 1)["id"]
        for label in (0, 1)
    }
    first = worst[0].iloc[0]
    home = paths.dataset_dir("toy") / "train"
    (home / worst[1].iloc[0]).write_bytes(b"nothing")
    report()
    csv = pd.read_csv(paths.report_dir("toy", "s", "m") / "worst.csv")
    assert csv["item_id"].tolist() == [*worst[0].head(12), *worst[1].head(12)]
    assert page_of("m").says("not readable")
    (home / first).unlink()
    report()
    shown = page_of("m")
    assert shown.says("not in the data set any more")
    assert shown.says(first)


def test_names_are_never_markup():
    model = "timm:<i>a&b"
    predict(model, [0])
    run_record(model, 0)
    change_sealed(
        paths.run_record("toy", "s", model, 0),
        lambda record: record["config"].update(about="<script>alert(1)</script>"),
    )
    home = paths.dataset_dir("toy") / "train"
    for label, name in (("real", "live"), ("fake", "spo&<b>f")):
        (home / label).rename(home / name)
    (home.parent / "dataset.yaml").write_text('labels: {live: 0, "spo&<b>f": 1}\n')
    shown = report()
    page = Shown(paths.report_dir("toy", "s", model) / "index.html")
    for one in (shown, page):
        assert not {"script", "i", "b"} & set(one.tags)
    assert page.says("<script>alert(1)</script>")
    assert shown.says(model)
    assert shown.says("spo&<b>f")
    assert "s/timm--%3Ci%3Ea%26b/index.html" in shown.links
    assert ODD in "".join(pd.read_csv(paths.folds_csv("toy", "s"))["item_id"])


@UNDRAWN
def test_parts_that_are_not_there_say_their_command():
    predict("m")
    shown = report()
    for command in (
        "python tune.py --data toy --scheme s",
        "python -m src card m --data toy --scheme s",
        "python predict_ensemble.py --data toy",
        "python -m src folds --data toy --scheme s",
    ):
        assert shown.says(command)
    page = page_of("m")
    assert page.says("came from elsewhere")
    assert page.says("No maps: no checkpoint")
    run_record("m", 0)
    command = "python -m src robustness --data toy --model m --scheme s"
    assert not shown.says(command)
    assert report().says(command)


@UNDRAWN
def test_a_recipe_shows_what_it_is_made_of_and_a_submission_what_it_says():
    oof, other = predict("m"), predict("x", seed=2)
    assert tune.main(["--models", "m", "x", "--strategies", "mean", "--recipe", "tuned"]) == 0
    sidecar = '{"schema": 1, "rows": 7, "share_fake": 0.25, "scores": {"cross_fitted": 0.9}}'
    csv = _made(paths.submission_csv("toy", "tuned"))
    csv.write_text("id,label\n")
    csv.with_suffix(".json").write_text(sidecar)
    shown = report()
    assert shown.says("the recipe tuned, on items")
    assert row_of(shown, "tuned.csv")[1:4] == ["7", "25.0%", "25.0%"]  # the bar says it, too
    assert shown.says("What tuned.csv was made of")
    page = page_of("tuned", is_recipe=True)
    mean = (sigmoid(oof["logit"].to_numpy()) + sigmoid(other["logit"].to_numpy())) / 2
    incumbent = f1_score(oof["label"], mean >= 0.5, average="macro")
    assert page.says(f"{incumbent:.4f} of the plain mean at 0.5")
    assert page.says("voting rule soft")
    assert row_of(page, "m")[1] == "0.5000"


@UNDRAWN
def test_a_recipe_whose_predictions_are_gone_has_a_page_that_says_so(capsys):
    predict("m")
    predict("x", seed=2)
    write_recipe_of("tuned", "x")
    paths.oof_csv("toy", "s", "x", 1).unlink()
    shown = report()
    assert shown.says("is gone since the recipe was tuned on it")
    assert shown.says("Shown in detail: the model")
    assert page_of("tuned", is_recipe=True).says("is gone since the recipe was tuned on it")
    assert "tuned: " in capsys.readouterr().out


@UNDRAWN
def test_a_damaged_recipe_is_said_and_the_rest_is_shown():
    predict("m")
    paths.recipe_json("toy", "other").parent.mkdir(parents=True, exist_ok=True)
    paths.recipe_json("toy", "other").write_text("{")  # its thresholds may be those of the model
    shown = report()
    assert shown.says("other.json: this recipe is not readable JSON")
    assert shown.says("Shown in detail: the model m")
    assert page_of("m").says("passed over, for what it says cannot be read: other.json")


@UNDRAWN
def test_intervals_of_items_in_groups_are_said_to_be_too_narrow():
    predict("m")
    subject = subject_of_runs(collect_runs("toy", "s", "m"))
    rows = replace(subject.rows, domain=np.array(["a", "b"] * (len(subject.rows) // 2)))
    subject, names = replace(subject, rows=rows), ("real", "fake")
    said = [one.text for one in decisions(subject, names) if one.kind == "words"]
    assert any("every item to be of its own" in text for text in said)
    pairs = replace(rows, group=np.arange(len(rows)) // 2)
    said = [
        one.text
        for one in (*decisions(replace(subject, rows=pairs), names),
                    *curves(replace(subject, rows=pairs), names))
        if one.kind == "words"
    ]  # fmt: skip
    wanted = f"form {pairs.n_groups:,} groups, so they are too narrow"
    assert sum(wanted in text for text in said) == 2


@UNDRAWN
def test_files_that_are_gone_cost_pictures_alone():
    predict("m")
    shutil.rmtree(paths.input_dir())
    shown = report()
    assert shown.says("the data set cannot be read")
    assert not shown.outside
    assert shown.says("python -m src data --data toy --audit")


@UNDRAWN
def test_one_class_alone_has_no_auc_and_many_domains_are_bounded():
    table = pd.read_csv(paths.folds_csv("toy", "s"), dtype=str, keep_default_na=False)
    place, fake = table.groupby("label").cumcount(), table["label"] == "1"
    table["domain"] = [
        f"d{k:02d}" if k < 25 else "fakes" if is_fake else "reals"
        for k, is_fake in zip(place, fake, strict=True)
    ]
    table.to_csv(paths.folds_csv("toy", "s"), index=False)
    predict("m")
    shown = report()
    head = next(k for k, cell in enumerate(shown.cells) if cell == "By domain")
    assert "d00" in shown.cells[head:]
    assert shown.says("The 20 with most errors; 7 more hold")
    csv = pd.read_csv(paths.report_dir("toy", "s", "m") / "by_domain.csv").set_index("domain")
    assert len(csv) == 27
    assert csv.loc["fakes", ["auc", "macro_f1"]].isna().all()
    assert csv.loc["fakes", "note"] == "only fakes"
    assert csv["items"].sum() == 60
    assert not re.search(r"\bnan\b", shown.text, re.I)


def test_held_out_items_of_one_class_have_no_curve_of_ranking():
    predict("m")
    one = subject_of_runs(collect_runs("toy", "s", "m"))
    fakes = replace(one, rows=one.rows.take(one.rows.label == 1))
    assert fakes.auc.why == "only fakes"
    pictures, words, _ = curves(fakes, ("real", "fake"))
    assert [p.path.stem for p in pictures.pictures] == ["prob", "reliability", "threshold"]
    assert words.text == "All items are fake: no AUC, no curve of ranking."


@UNDRAWN
def test_a_full_disk_leaves_the_older_page(monkeypatch, capsys):
    predict("m")
    report()
    index = paths.report_html("toy")
    before, mine = index.read_bytes(), paths.report_dir("toy", "s", "m") / "index.html"
    real = Path.write_text

    def full(self, text, *rest, **more):
        if "index.html" in self.name:
            real(self, text[:100], *rest, **more)
            raise OSError(28, "No space left on device")
        return real(self, text, *rest, **more)

    monkeypatch.setattr(Path, "write_text", full)
    assert main(["--data", "toy"]) == 2
    assert "the disk is full" in capsys.readouterr().err
    assert index.read_bytes() == before
    assert mine.read_text(encoding="utf-8").rstrip().endswith("</html>")
    assert not [p for p in index.parent.rglob("*") if atomic._TEMPORARY.fullmatch(p.name)]


def test_a_refit_alone_shows_how_it_learned(capsys):
    run_record("m", paths.ALL)
    shown = report()
    assert shown.says("nothing is held out")
    assert "fold_all.png" in page_of("m").links
    assert "m: nothing held out" in capsys.readouterr().out


@UNDRAWN
def test_a_model_that_was_named_alone_has_a_page_and_the_data_set_shows_all():
    predict("m")
    predict("x", seed=2)
    shown = report("x")
    assert shown.says("m")
    made = sorted(p.parent.name for p in paths.report_html("toy").parent.rglob("index.html"))
    best = max(
        ("m", "x"), key=lambda name: subject_of_runs(collect_runs("toy", "s", name)).score.value
    )
    assert made == sorted({"toy", "x", best})


def test_scores_of_a_subject():
    predict("m")
    one = subject_of_runs(collect_runs("toy", "s", "m"))
    scores = scores_of(one)
    assert scores["auc"] == pytest.approx(roc_auc_score(one.rows.label, one.rows.logit))
    assert one.score.low <= one.score.value <= one.score.high


@UNDRAWN
def test_settings_that_are_not_the_defaults_are_few_and_the_whole_config_is_folded_away():
    predict("m", [0])
    run_record("m", 0)
    report()
    page = page_of("m")
    assert row_of(page, "backbone.pretrained")[1] == "none"
    assert "optim.lr" not in page.cells
    assert "details" in page.tags


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


def test_a_column_is_of_numbers_where_every_cell_is_one():
    rows = [["a", "1.5 [1, 2]", "none: only fakes"], ["b", "–", Cell("0.5")]]
    assert Grid(["", "x", "y"], rows).is_number == [False, True, False]


def test_pictures_are_drawn():
    predict("m", [0, 1])
    for fold in (0, 1):
        run_record("m", fold, stages=True)
    report()
    for name in ("prob", "reliability", "roc", "epochs_losses", "epochs_auc", "fold_0"):
        picture = cv2.imread(str(paths.report_dir("toy", "s", "m") / f"{name}.png"))
        assert picture is not None
        assert picture.std() > 5


@UNDRAWN
def test_a_recipe_for_a_metric_of_ranks_and_one_whose_checkpoints_are_gone():
    oof = predict("m")
    words = ["--strategies", "mean", "--metric", "auc", "--recipe", "tuned"]
    assert tune.main(["--models", "m", *words]) == 0
    shown = report()
    area = roc_auc_score(oof["label"], oof["logit"])
    row = row_of(shown, "tuned (recipe)")
    assert row[2].startswith(f"{area:.4f} [")
    assert row[3] == "AUC, held out"
    assert not page_of("tuned", is_recipe=True).says("cannot predict here")
    change_sealed(
        paths.recipe_json("toy", "tuned"),
        lambda recipe: recipe["members"][0].update(checkpoint_sha256={"0": "a", "1": "b"}),
    )
    report()
    page = page_of("tuned", is_recipe=True)
    assert page.says("It cannot predict here: 3 of its checkpoints are gone")
    assert page.says("m/fold_0.safetensors")
