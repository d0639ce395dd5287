"""`python -m src compare`: rows trained once, scored in-domain and out of it; mistakes named."""

import json
import shutil

import cv2
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score, roc_auc_score, roc_curve

from src import paths
from src.artifacts.oof import read_views
from src.artifacts.variants import write_variant
from src.cli import compare
from src.config import config_file, read_model
from src.metrics import sigmoid
from src.reporting import scorecard
from tests.cli.test_evaluate import write_set
from tests.shared import tiny_model

pytestmark = pytest.mark.usefixtures("artefact_root")
SCHEME = "sgkf2_s0"
ROWS = """
about: a test
data: one
scheme: sgkf2_s0
folds: [0]
out_of_domain: [two]
model: net
rows:
  probe: {set: {strategy: feature_extractor, optim.epochs: 2, transfer: {head_lr: 1e-2}}}
  full: {model: net}
"""


@pytest.fixture
def data():
    write_set("one", 0, 32)
    write_set("two", 1)
    model = paths.config_dirs("models")[0] / "net.yaml"
    model.parent.mkdir(parents=True)
    model.write_text(tiny_model())


@pytest.fixture
def run(data, capsys, monkeypatch):
    monkeypatch.setattr(scorecard, "MOST_REPLICATES", 20)

    def call(text, *flags, code=0):
        file = paths.config_dirs("comparisons")[0] / "trial.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        assert compare.main(["trial", "--device", "cpu", "--workers", "0", *flags]) == code
        captured = capsys.readouterr()
        return captured.err if code else captured.out

    return call


def table():
    return pd.read_csv(paths.comparison_csv("one", SCHEME, "trial")).set_index(["row", "data"])


@pytest.mark.usefixtures("drawn")
def test_rows_are_trained_once_and_scored_on_both_data_sets(run):
    out = run(ROWS)
    assert "in-domain: out-of-fold predictions of one/sgkf2_s0, fold 0" in out
    assert "by the mean logit of the same 1 checkpoint(s)" in out
    assert "thresholds: carried over from one" in out
    assert "threshold of all rows: 0.5" in out
    assert "out-of-domain (two)" in out
    found = table()
    assert found.index.tolist() == [(r, d) for r in ("probe", "full") for d in ("one", "two")]
    assert found["ap"].notna().all()
    for data in ("one", "two"):  # each row is held against the first, on the same items
        said = [line for line in out.splitlines() if line.startswith(f"{data}: ")]
        assert any(all(word in line for word in ("probe", "full", " auc")) for line in said)
    assert found.loc[("full", "one"), "trained_share"] == 1
    assert 0 < found.loc[("probe", "one"), "trained_share"] < 0.1
    assert found["epochs"].tolist() == [2, 2, 4, 4]
    config = read_model("trial_probe")
    assert (config.strategy, config.optim.epochs, config.transfer.head_lr) == (
        "feature_extractor", 2, 0.01,
    )  # fmt: skip
    for row, model in (("probe", "trial_probe"), ("full", "net")):
        names = ("one", SCHEME, model, 0)
        own = pd.read_csv(paths.oof_csv(*names))
        want = f1_score(own["label"], sigmoid(own["logit"].to_numpy()) >= 0.5, average="macro")
        assert found.loc[(row, "one"), "macro_f1"] == pytest.approx(want, abs=1e-9)
        views, _ = read_views(paths.cross_views(*names, "two"))
        mean = views.groupby("item_id")["logit"].mean()
        label = mean.index.str.startswith("fake").astype(int)
        want = roc_auc_score(label, mean)
        assert found.loc[(row, "two"), "auc"] == pytest.approx(want, abs=1e-9)
        assert np.isfinite(found.loc[(row, "two"), "hter"])
    png = paths.comparison_png("one", SCHEME, "trial")
    assert png.read_bytes().startswith(b"\x89PNG")
    records = {m: paths.run_record("one", SCHEME, m, 0) for m in ("net", "trial_probe")}
    before = {
        model: (file.read_bytes(), file.stat().st_mtime_ns) for model, file in records.items()
    }
    scores = paths.comparison_csv("one", SCHEME, "trial").read_bytes()
    again = run(ROWS)
    assert again.count("finished already, skipped") == 2
    assert again.count("0 checkpoint(s) predicted them") == 2
    after = {model: (file.read_bytes(), file.stat().st_mtime_ns) for model, file in records.items()}
    assert after == before
    assert paths.comparison_csv("one", SCHEME, "trial").read_bytes() == scores


def test_a_row_that_fails_leaves_the_others_their_turn(run):
    text = ROWS.replace(
        "  full:", "  wild: {set: {optim.lr: 1e30, optim.clip_grad: null}}\n  full:"
    )
    text = text.replace("two", "two, three")
    write_set("three", 3, 10)
    for file in (paths.dataset_dir("three") / "train/real").iterdir():
        file.write_bytes(b"torn")
    err = run(text, code=2)
    assert "1 of 3 rows failed; the same command tries them again\n  wild: " in err
    assert "is nan" in err or "not finite" in err
    found = pd.read_csv(paths.comparison_csv("one", SCHEME, "trial"))
    assert found["row"].tolist() == ["probe"] * 4 + ["wild"] + ["full"] * 4
    lost = found[found["row"] == "wild"].iloc[0]
    assert np.isnan(lost["auc"])
    assert lost["note"] in err
    means = found[found["data"] == "mean of two, three"].set_index("row")["auc"]
    assert means.to_dict() == found[found["data"] == "two"].set_index("row")["auc"].to_dict()
    one_class = found[found["data"] == "three"]  # only fakes: what is defined is scored
    assert one_class["auc"].isna().all()
    assert one_class["accuracy"].notna().all()
    assert one_class["note"].str.contains("auc: only fakes").all()


def test_a_bug_in_one_row_is_shown_and_does_not_end_the_others(run, monkeypatch):
    def broken(*given, **more):
        if more["new_name"] == "trial_probe":
            raise RuntimeError("a bug")
        real(*given, **more)

    real = compare.train
    monkeypatch.setattr(compare, "train", broken)
    assert "  probe: RuntimeError: a bug" in run(ROWS, "--out-of-domain", "two", code=2)
    assert table().loc[("full", "two"), "auc"] > 0


def test_interrupted_it_ends_and_goes_on_later(run, monkeypatch):
    def interrupted(*given, **more):
        if more["new_name"] != "trial_probe":
            raise KeyboardInterrupt
        real(*given, **more)

    real = compare.train
    with monkeypatch.context() as patch:
        patch.setattr(compare, "train", interrupted)
        assert "the same command goes on from here" in run(ROWS, code=130)
    assert table().index.unique("row").tolist() == ["probe"]
    assert run(ROWS).count("finished already, skipped") == 1
    assert table().index.unique("row").tolist() == ["probe", "full"]


def test_merges_come_after_what_they_are_made_of(run, monkeypatch):
    merge = paths.config_dirs("merges")[0] / "soup.yaml"
    merge.parent.mkdir(parents=True)
    merge.write_text("merge_method: uniform\nmodels: [net, trial_probe]\n")
    text = ROWS.replace("rows:", "rows:\n  soup: {merge: soup}")
    run(text)
    assert table().index.unique("row").tolist() == ["soup", "probe", "full"]
    record = json.loads(paths.run_record("one", SCHEME, "soup", 0).read_text())
    made_of = [one["name"] for one in record["merged_from"]["ingredients"]]
    assert made_of == ["net", "trial_probe"]
    oof = pd.read_csv(paths.oof_csv("one", SCHEME, "soup", 0))
    want = roc_auc_score(oof["label"], oof["logit"])
    assert table().loc[("soup", "one"), "auc"] == pytest.approx(want)
    before = paths.run_record("one", SCHEME, "soup", 0).stat().st_mtime_ns
    assert "finished already" in run(text)
    assert paths.run_record("one", SCHEME, "soup", 0).stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("rows:", "row:", ": 'row'; did you mean 'rows'"),
        ("{model: net}", "{modle: net}", "'rows.full.modle'; did you mean 'rows.full.model'"),
        ("{model: net}", "{model: nte}", "row full: unknown model 'nte'; did you mean 'net'"),
        ("feature_extractor", "feature_extract", "row probe: unknown strategy 'feature_extract'"),
        ("optim.epochs", "optim.epoch", "row probe: unknown key in"),
        ("optim.epochs: 2", "optim.epochs: two", "row probe: "),
        ("{model: net}", "{merge: nowhere}", "row full: unknown merge 'nowhere'"),
        ("{model: net}", "{merge: a/b.yaml}", "row full: a/b.yaml: no such merge"),
        ("{model: net}", "{merge: m, set: {}}", "a merge takes no other key"),
        ("{model: net}", "[net]", "rows.full must be a mapping of keys to values"),
        ("  full:", "  probe:", "key 'probe' stands twice"),
        ("  full:", "  same: {}\n  full:", "rows same and full are both net"),
        ("model: net\nrows", "rows", "row probe: which model?"),
        ("[0]", "[0, 0]", "folds: 0 stands there twice"),
        ("[0]", "[7]", "there is no fold 7; folds are 0, 1"),
        ("model: net\nrows", "model: net\nagainst: ful\nrows", "unknown row 'ful'; did you mean"),
        ("[two]", "two", "out_of_domain must be a list (found 'two')"),
        ("[two]", "[tow]", "unknown data set 'tow'; did you mean 'two'"),
        ("[two]", "[one]", "out_of_domain: one is the data set that is trained on"),
        ("{model: net}", "{weights: w.pth}", "w.pth: no such weights file"),
        ("{model: net}", "{set: {backbone.pretrained: file}}", "row full: net starts from a "),
    ],
)
def test_mistakes_are_named_before_anything_is_trained(run, old, new, said):
    assert old in ROWS
    assert said in run(ROWS.replace(old, new), code=2)
    assert not (paths.root() / "checkpoints").exists()


def test_relatives_are_said_before_training_with_a_way_out(run, capsys):
    one, two = (paths.dataset_dir(name) / "train/real" for name in ("one", "two"))
    aside = paths.root() / "aside"
    shutil.move(two, aside)
    two.mkdir()
    shutil.copy(one / "02.png", two / "copy.png")
    text = ROWS[: ROWS.index("  probe")] + ROWS[ROWS.index("  full") :]
    said = run(text, code=2)
    assert "two: 1 of 13 items would be seen in training on one (1 equal files, 0 more" in said
    assert "real/copy.png is akin to train/real/02.png of one), and what is left does not" in said
    for file in aside.iterdir():
        shutil.move(file, two / file.name)
    assert compare.main(["trial", "--folds", "7"]) == 2
    said = capsys.readouterr().out
    assert "two: 1 of 25 items would be seen in training on one and are not scored" in said
    assert not (paths.root() / "checkpoints").exists()
    # What it offers: the copy is not trained on, and all of `two` is scored.
    assert "say `test_sets: [two]` in" in said
    (paths.dataset_dir("one") / "dataset.yaml").write_text("test_sets: [two]\n")
    shutil.rmtree(paths.folds_dir("one"))
    assert "in training on one" not in run(text)
    assert table().loc[("full", "two"), "items"] == 25
    assert "real/02.png" in paths.excluded_csv("one", SCHEME).read_text()


def test_a_file_of_no_rows_and_a_data_set_without_labels(run):
    head = ROWS.partition("rows:")[0]
    assert "want `rows`, the ways to train" in run(head, code=2)
    assert "rows must hold 1 or more" in run(head + "rows: {}", code=2)
    home = paths.dataset_dir("two")
    shutil.move(home / "train/real", home.parent.parent / "aside")
    assert "all 12 train items are fake" in run(ROWS, code=2)
    shutil.move(home.parent.parent / "aside", home / "train/real")
    (home / "train/real").rename(home / "test")
    shutil.rmtree(home / "train")
    assert "out_of_domain: two has no labels to score on" in run(ROWS, code=2)
    assert compare.main(["nowhere"]) == 2
    assert not (paths.root() / "checkpoints").exists()


def test_a_row_that_was_changed_needs_another_name(run):
    write_variant("trial_probe", "net", {"strategy": "feature_extractor", "optim.epochs": 3})
    said = run(ROWS, code=2)
    assert "row probe: there is a model trial_probe of other settings" in said


def write_flip(name):
    """Write three domains of 6 real and 6 fake videos of two frames, as FLIP keeps them."""
    rng = np.random.default_rng(1)
    for shift, domain in enumerate(("casia", "msu", "replay")):
        for number in range(12):
            word = ("real", "fake")[number % 2]
            home = paths.dataset_dir(name) / "frame" / domain / "train" / word
            home.mkdir(parents=True, exist_ok=True)
            for frame in range(2):
                low = 20 * shift + 40 * (number % 2)
                pixels = rng.integers(low, low + 120, (16, 16, 3), dtype=np.uint8)
                cv2.imwrite(str(home / f"{number}_frame{frame}.png"), pixels)


@pytest.mark.nightly
def test_lodo_is_a_table_of_scenarios_and_their_mean(run):
    write_flip("flip")
    text = ROWS.replace("data: one\nscheme: sgkf2_s0\nfolds: [0]\nout_of_domain: [two]", "")
    text = text.replace("model: net\nrows", "model: net\nagainst: full\nrows")
    text = text.replace("probe: {set: {", "probe: {set: {optim.batch_size: 24, ")
    out = run(text, "--data", "flip", "--scheme", "lodo")
    assert "each fold is a domain that was not trained on" in out
    assert "mean of 3 scenarios: full " in out
    assert paths.comparison_png("flip", "lodo", "trial_scenarios").read_bytes()[:4] == b"\x89PNG"
    found = pd.read_csv(paths.comparison_csv("flip", "lodo", "trial"))
    found = found[(found["row"] == "full") & (found["level"] == "group")].set_index("scenario")
    names = ["casia", "msu", "replay"]
    assert found.index.dropna().tolist() == [*names, "mean of scenarios"]
    parts = [pd.read_csv(paths.oof_csv("flip", "lodo", "net", fold)) for fold in range(3)]
    videos = pd.concat(part.assign(fold=fold) for fold, part in enumerate(parts))
    videos["video"] = videos["item_id"].str.rpartition("_frame")[0]
    videos["prob"] = sigmoid(videos["logit"].to_numpy())
    videos = videos.groupby(["fold", "video"])[["label", "prob"]].mean().reset_index()
    wanted = []
    for fold, name in enumerate(names):
        own, others = (videos[(videos["fold"] == fold) == mine] for mine in (True, False))
        fpr, tpr, cuts = roc_curve(others["label"], others["prob"], drop_intermediate=False)
        cut = cuts[np.argmin(np.abs(fpr + tpr - 1))]
        said = own["prob"] >= cut - 1e-9
        errors = [(said != own["label"])[own["label"] == label].mean() for label in (0, 1)]
        wanted.append((np.mean(errors), roc_auc_score(own["label"], own["prob"])))
        assert found.loc[name, "auc"] == pytest.approx(wanted[-1][1])
        assert found.loc[name, "hter"] == pytest.approx(wanted[-1][0])
    mean = found.loc["mean of scenarios"]
    assert mean[["hter", "auc"]].tolist() == pytest.approx(np.mean(wanted, 0).tolist())
    spread = mean[["hter_sd", "auc_sd"]].tolist()
    assert spread == pytest.approx(np.std(wanted, 0, ddof=1).tolist())
    assert mean["auc_low"] <= mean["auc"] <= mean["auc_high"]
    assert found["gmacs"].gt(0).all()


def test_the_shipped_comparison_can_be_read():
    from src.reporting.comparison_file import read_comparison

    found = read_comparison(config_file("comparisons", "transfer"))
    assert {row.config().strategy for row in found.rows if row.merge is None} == {
        "feature_extractor", "fine_tuning", "two_stage", "lp_ft", "layernorm_only",
    }  # fmt: skip
    names = {row.model for row in found.rows}
    merged = {row.config().start_seed for row in found.rows if row.name.startswith("fine_tuning")}
    assert merged == {42}  # one head, or their average would be of unlike ones
    soups = [row.merge for row in found.rows if row.merge is not None]
    assert [path.stem for path in soups] == ["transfer_uniform", "transfer_greedy"]
    from src.strict_yaml import read_mapping

    for path in soups:
        assert {one["model"] for one in read_mapping(path)["models"]} < names


@pytest.mark.parametrize("name", ["tflip", "tflip_conv"])
def test_teachers_come_before_their_students_and_may_be_rows(name):
    from src.reporting.comparison_file import in_order, read_comparison

    found = read_comparison(config_file("comparisons", name))
    teacher = next(row.model for row in found.rows if row.name == "teacher")
    taught = [row for row in found.rows if row.name not in ("teacher", "alone")]
    assert {row.teachers() for row in taught} == {(teacher,)}
    order = [row.name for row in in_order(found.rows[::-1], found.path)]
    assert all(order.index("teacher") < order.index(row.name) for row in taught)


def test_rows_that_teach_each_other_are_refused(run):
    rows = "".join(
        f"  {one}: {{set: {{distil: {{teacher: {other}, logit: {{}}}}}}}}\n"
        for one, other in (("a", "b"), ("b", "a"))
    )
    said = run(ROWS + rows, code=2)
    assert "rows a, b wait for each other: distil.teacher goes round" in said
