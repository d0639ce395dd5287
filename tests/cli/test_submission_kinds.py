"""What a submission holds, through the commands: by the metric, the sample and dataset.yaml."""

import json
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest

from src import paths
from src.artifacts.competition import Load
from src.artifacts.recipes import read_recipe, write_recipe
from src.cli.folds import main as make_folds
from src.cli.predict import main as predict
from src.cli.tune import main as tune

N_TRAIN, IDS = 48, [f"{'easy' if i % 3 else 'hard'}_{i:02d}.png" for i in range(16)]
DOMAINS = 'domain_from: "^(easy|hard)_"\n'


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """Make a data set, folds, a member's predictions and a recipe; returns root and P(fake)."""
    root, rng = tmp_path_factory.mktemp("tuned"), np.random.default_rng(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RVF_ROOT", str(root))
        home = paths.dataset_dir("toy")
        for i in range(N_TRAIN + len(IDS)):
            folder = f"train/{('real', 'fake')[i % 2]}" if i < N_TRAIN else "test"
            name = f"{'easy' if i % 3 else 'hard'}_{i:02d}.png"
            (home / folder).mkdir(parents=True, exist_ok=True)
            pixels = cv2.resize(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8), (20, 20))
            cv2.imwrite(str(home / folder / (name if i < N_TRAIN else IDS[i - N_TRAIN])), pixels)
        (home / "dataset.yaml").write_text(DOMAINS)
        assert make_folds(["--data", "toy"]) == 0
        folds = pd.read_csv(next(paths.folds_dir("toy").glob("sgkf*.csv")))
        assert set(folds["domain"]) == {"easy", "hard"}
        logit = 2 * folds["label"] + rng.normal(size=len(folds))
        test = pd.DataFrame({"item_id": IDS, "logit": rng.normal(size=len(IDS)) * 3})
        test.loc[0, "logit"] = 60.0  # a P(fake) of 1 to the last bit
        oof = folds.assign(logit=logit)[["item_id", "fold", "logit"]]
        for name, table in (("oof", oof), ("test", test)):
            table.to_csv(root / f"{name}.csv", index=False)
        extra = ["--extra", f"one={root / 'oof.csv'},{root / 'test.csv'}"]
        assert tune(["--data", "toy", "--strategies", "mean", *extra]) == 0
    return root, pd.Series(1 / (1 + np.exp(-test["logit"].to_numpy())), index=IDS)


@pytest.fixture
def toy(tuned, artefact_root):
    """Return P(fake) by test id, where a copy of all that is the artefacts' place."""
    root, prob = tuned
    shutil.copytree(root, artefact_root, dirs_exist_ok=True)
    return prob


def settle(sample=None, yaml=""):
    """Write the sample submission, `{id}` for each id in turn, and more into dataset.yaml."""
    home = paths.dataset_dir("toy")
    (home / "dataset.yaml").write_text(DOMAINS + yaml)
    if sample is not None:
        header, row = sample.split("\n")
        rows = "".join(row.replace("{id}", name) + "\n" for name in IDS[::-1])
        (home / "sample_submission.csv").write_text(f"{header}\n{rows}")


def handed_in():
    path = paths.submission_csv("toy", "tuned")
    return pd.read_csv(path, dtype=str, keep_default_na=False), json.loads(
        path.with_suffix(".json").read_text()
    )


def close(answers, want):
    """Compare answers, in the sample's order, with what is wanted, in that of `IDS`."""
    np.testing.assert_allclose(answers.astype(float), want.to_numpy()[::-1], rtol=0, atol=1e-15)


def retune(metric):
    assert tune(["--data", "toy", "--strategies", "mean", "--metric", metric]) == 0


def test_labels_for_decisions_and_columns_of_the_sample(toy, capsys):
    settle("filename,label\n{id},0")
    assert predict(["--data", "toy"]) == 0
    table, said = handed_in()
    assert table["filename"].tolist() == IDS[::-1]
    recipe = json.loads(paths.recipe_json("toy", "tuned").read_text())
    [cut] = [s["params"]["value"] for s in recipe["stages"] if s["name"] == "threshold"]
    want = (toy >= cut).astype(int).astype(str).to_numpy()[::-1]
    assert table["label"].tolist() == want.tolist()
    assert said["holds"] == {"output": "label", "means": "written as 0 (real) and 1 (fake)"}
    settle("id,split,label,Usage\n{id},3,REAL,Private", "submission: {label_names: [REAL, FAKE]}\n")
    assert predict(["--data", "toy"]) == 0
    table, _ = handed_in()
    assert list(table.columns) == ["id", "split", "label", "Usage"]
    assert (table["id"].tolist(), set(table["split"]), set(table["Usage"])) == (
        IDS[::-1], {"3"}, {"Private"})  # fmt: skip
    assert table["label"].tolist() == ["FAKE" if one == "1" else "REAL" for one in want]
    assert "'label' holds labels, written as REAL (real) and FAKE (fake)" in capsys.readouterr().out


def test_probabilities_for_auc_and_log_loss_and_ranks_where_asked(toy, capsys):
    retune("auc")
    settle("filename,label\n{id},0")
    assert predict(["--data", "toy"]) == 0
    table, said = handed_in()
    close(table["label"], toy)
    assert said["holds"] == {"output": "prob", "means": "P(fake) in [0, 1]", "distinct": 16,
                             "range": [pytest.approx(toy.min()), 1.0]}  # fmt: skip
    assert f"from {toy.min():.6g} to 1; 16 distinct values in 16 rows" in capsys.readouterr().out
    settle(yaml="output: rank\n")
    assert predict(["--data", "toy"]) == 0
    close(handed_in()[0]["label"], (toy.rank() - 0.5) / 16)
    assert predict(["--data", "toy", "--prior", "0.1"]) == 2
    assert "--prior changes no rank" in capsys.readouterr().err
    retune("log_loss")
    settle("id,target,Usage\n{id},0.5,Public", "labels: {real: [real], fake: [fake]}\n"
           "submission: {label_names: ['1', '0']}\n")  # fmt: skip
    assert predict(["--data", "toy"]) == 0
    table, said = handed_in()
    close(table["target"], 1 - toy.clip(1e-7, 1 - 1e-7))
    assert set(table["Usage"]) == {"Public"}
    assert (said["holds"]["means"], said["holds"]["clipped"]) == ("P(real) in [0, 1]", 1)
    assert predict(["--data", "toy", "--prior", "0.2"]) == 0
    train = handed_in()[1]["prior"]["train_share"]
    fake, real = toy * 0.2 / train, (1 - toy) * 0.8 / (1 - train)
    close(handed_in()[0]["target"], 1 - (fake / (fake + real)).clip(1e-7, 1 - 1e-7))


@pytest.mark.parametrize(
    ("sample", "metric", "why"),
    [
        ("id,prob\n{id},0", "macro_f1", "calls its answers 'prob'"),
        ("id,label\n{id},real", "log_loss", "dataset.yaml writes the answers as real and fake"),
    ],
)
def test_a_sample_that_asks_for_another_thing_is_refused_with_the_way_out(
    toy, capsys, sample, metric, why
):
    names = "submission: {label_names: [real, fake]}\n" * ("real" in sample)
    settle(sample, names)
    if metric != "macro_f1":
        retune(metric)
    assert predict(["--data", "toy"]) == 2
    error = capsys.readouterr().err
    assert why in error
    assert not list(paths.submission_csv("toy", "tuned").parent.glob("*"))
    fitting, asked, other = error.split("`")[1::2]
    for line, output in ((asked, asked[8:]), (other, other[8:])):
        settle(yaml=f"{names}{line}\n")
        assert predict(["--data", "toy"]) == 0
        table, said = handed_in()
        assert said["holds"]["output"] == output
        natural = "label" if metric == "macro_f1" else "prob"
        assert len(said["doubts"]) == (output != natural)
        assert table.iloc[:, 1].nunique() == (2 if output == "label" else 16)
    settle(yaml=f"{names}{fitting}\n")
    assert predict(["--data", "toy"]) == 2  # the recipe is of another metric
    assert f"tuned for {metric}, and dataset.yaml says `{fitting}`" in capsys.readouterr().err
    retune(fitting[8:])
    assert predict(["--data", "toy"]) == 0
    assert handed_in()[1]["doubts"] == []


def test_votes_follow_the_sample_and_what_the_files_hold(toy, tmp_path, capsys):
    files = []
    for name, value in (("a", toy), ("b", toy**2)):
        table = pd.DataFrame({"id": IDS, "prob": value.to_numpy(), "Usage": "Public"})
        table.to_csv(tmp_path / f"{name}.csv", index=False)
        files.append(str(tmp_path / f"{name}.csv"))
    settle("id,prob,Usage\n{id},0,Public", "metric: log_loss\n")
    assert predict(["--vote", *files, "--data", "toy"]) == 0
    path = paths.submission_csv("toy", "voted")
    found = pd.read_csv(path)
    assert list(found.columns) == ["id", "prob", "Usage"]
    close(found["prob"], ((toy + toy**2) / 2).clip(1e-7, 1 - 1e-7))
    assert json.loads(path.with_suffix(".json").read_text())["holds"]["clipped"] == 1
    assert predict(["--vote", *files, "--data", "toy", "--output-kind", "rank"]) == 0
    assert "the mean of the files' ranks" in capsys.readouterr().out
    settle("id,prob,Usage\n{id},0,Public", "output: label\n")
    assert predict(["--vote", *files, "--data", "toy"]) == 2
    assert "the files hold probs, and dataset.yaml says `output: label`" in capsys.readouterr().err


def test_words_of_a_sample_do_not_settle_which_way_probabilities_point(toy, capsys):
    settle("id,liveness\n{id},fake")
    path = paths.dataset_dir("toy") / "sample_submission.csv"
    path.write_text(path.read_text().replace(",fake", ",real", 1))
    assert predict(["--data", "toy"]) == 0
    assert set(handed_in()[0]["liveness"]) == {"real", "fake"}
    assert predict(["--data", "toy", "--output-kind", "prob"]) == 2
    assert "does 1 in column 'liveness' mean real?" in capsys.readouterr().err


def test_votes_on_files_under_rules(toy, tmp_path, capsys):
    files = [str(tmp_path / f"{name}.csv") for name in "ab"]
    for path in files:
        pd.DataFrame({"id": IDS, "prob": toy.to_numpy()}).to_csv(path, index=False)
    words, path = ["--vote", *files, "--data", "toy"], paths.submission_csv("toy", "voted")
    for rule in ("single_model: true", "max_files: 1"):
        settle("id,prob\n{id},0", f"rules: {{{rule}}}\n")
        assert predict(words) == 2
        said = f"2 files come of 2 nets at least, which breaks the rules of the competition ({rule}"
        assert said in capsys.readouterr().err
        assert not path.exists()
    settle("id,prob\n{id},0", "rules: {tta: false, max_files: 2}\n")
    assert predict(words) == 0
    doubt = "the rules of the competition (tta: false, max_files: 2) were not checked"
    assert f"WARNING {doubt}" in capsys.readouterr().out
    assert json.loads(path.with_suffix(".json").read_text())["doubts"][0].startswith(doubt)
    settle("id,prob\n{id},0")
    assert predict(words) == 0
    assert "WARNING" not in capsys.readouterr().out
    assert json.loads(path.with_suffix(".json").read_text())["doubts"] == []


def test_domains_of_file_names_reach_thresholds_by_domain(toy):
    path, cuts = paths.recipe_json("toy", "tuned"), {"easy": 0.9, "hard": 0.1}
    recipe = read_recipe(path)
    params = {"value": 0.5, "by": "domain", "values": cuts}
    stages = [*recipe.stages[:-1], {"name": "threshold", "params": params}]
    write_recipe(path, replace(recipe, stages=stages))
    assert predict(["--data", "toy"]) == 0
    cut = pd.Series({name: cuts[name.split("_")[0]] for name in IDS})
    found = handed_in()[0].set_index("filename")["label"].loc[IDS]
    assert found.tolist() == (toy >= cut).astype(int).astype(str).tolist()


@pytest.mark.usefixtures("toy")
def test_the_hours_of_the_rules_are_kept_to(monkeypatch, capsys):
    settle("filename,label\n{id},0", "rules: {max_hours: 2.5}\n")
    clocks = []

    def watched(_missing, _items, _recipe, compute, **_):
        clocks.append(compute.clock.max_hours)
        return []

    monkeypatch.setattr("src.cli.predict.submission.fill_in_time", watched)
    assert predict(["--data", "toy"]) == 0
    assert "--max-hours 2.5, which the rules of the competition give" in capsys.readouterr().out
    assert predict(["--data", "toy", "--max-hours", "1"]) == 0
    assert clocks == [2.5, 1]

    def an_hour_an_item(_recipe, _folds=None, items=None):
        return Load(1, None, None, items)

    monkeypatch.setattr("src.artifacts.competition.load_of", an_hour_an_item)
    assert predict(["--data", "toy"]) == 2
    assert "max_hours (about 16 h)" in capsys.readouterr().err
    assert predict(["--data", "toy", "--max-hours", "2", "--fit-in-time"]) == 0
    assert len(clocks) == 3
