"""`python -m src score`: files of any tool, read, joined, scored and compared; mistakes named."""

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from src.cli import score
from src.delong import delong
from src.metrics import METRICS, sigmoid
from src.reporting import scorecard

N = 240
IDS = [f"v{i // 4:02d}/{i:03d}.jpg" for i in range(N)]
GROUP = np.arange(N) // 4
LABEL = (GROUP % 5 < 2).astype(int)


def logits(seed):
    return np.random.default_rng(seed).normal(size=N) * 1.5 + 2 * LABEL - 1


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Return `call(words, code)`, in a folder where `truth.csv` lies; it returns what was said."""
    monkeypatch.setattr(scorecard, "MOST_REPLICATES", 100)
    monkeypatch.chdir(tmp_path)
    write("truth.csv", id=IDS, label=LABEL, video=GROUP)

    def run(*words, code=0):
        assert score.main(words) == code
        said = capsys.readouterr()
        return said.err if code else said.out

    return run


def write(name, sep=",", **columns):
    pd.DataFrame(columns).to_csv(name, index=False, sep=sep)


def scores(path="out.csv"):
    table = pd.read_csv(path)
    return {file: part.set_index("metric") for file, part in table.groupby("file", sort=False)}


def test_every_metric_of_probs_and_logits_and_which_is_better(call):
    one, other = logits(0), 0.4 * logits(1)
    order = np.random.default_rng(5).permutation(N)
    write("a.csv", P_fake=sigmoid(one)[order], filename=np.array(IDS)[order])
    write("b.csv", sep=";", image=[i.removesuffix(".jpg") for i in IDS], logit=other)
    out = call("truth.csv", "a.csv", "b.csv", "--output", "out.csv", "--metric", "tpr@fpr=5%")
    assert "truth.csv: 240 items (144 real, 96 fake), 60 groups by column video" in out
    assert "a.csv: 240 rows, P(fake) of column P_fake, fake from 0.5 on" in out
    assert "b.csv: 240 rows, logits of column logit" in out
    found = scores()
    for file, logit in (("a.csv", one), ("b.csv", other)):
        prob, part = sigmoid(logit), found[file]
        assert set(METRICS) <= set(part.index)
        fpr, tpr, _ = sk.roc_curve(LABEL, prob, drop_intermediate=False)
        want = {
            "macro_f1": sk.f1_score(LABEL, prob >= 0.5, average="macro"),
            "auc": sk.roc_auc_score(LABEL, prob),
            "ap": sk.average_precision_score(LABEL, prob),
            "log_loss": sk.log_loss(LABEL, prob),
            "tpr@fpr=5%": tpr[fpr <= 0.05][-1],
        }
        assert {key: part.loc[key, "score"] for key in want} == pytest.approx(want, abs=1e-9)
        assert set(part["groups"]) == {60}
        assert (part["low"].dropna() <= part.loc[part["low"].notna(), "high"]).all()
    apart = delong(LABEL, one, other, GROUP)
    row = found["b.csv"].loc["auc"]
    columns = ["first_minus_this", "difference_low", "difference_high", "p"]
    assert row[columns].tolist() == pytest.approx([apart.gain, *apart[3:]], abs=1e-9)
    assert row["test"] == "DeLong by group"
    loss = found["b.csv"].loc["log_loss"]
    assert loss["difference_low"] < loss["first_minus_this"] < loss["difference_high"]
    differ = np.mean((one >= 0) != (other >= 0))
    assert "tpr@fpr=5% (bootstrap by group, p = " in out
    assert f"; {differ:.1%} of verdicts differ" in out
    assert call("truth.csv", "a.csv", "b.csv", "--output", "out.csv")  # its own may be replaced


def test_the_sentence_says_who_is_ahead_and_if_that_is_sure(call):
    write("good.csv", id=IDS, logit=logits(0) + 2 * (2 * LABEL - 1))
    write("poor.csv", id=IDS, logit=logits(1))
    out = call("truth.csv", "poor.csv", "good.csv")
    assert "good is better than poor by 0." in out
    assert " macro_f1 (bootstrap by group, p = 0.02); " in out
    out = call("truth.csv", "good.csv", "poor.csv", "--metric", "logloss")
    assert "good is better than poor by 0." in out  # where less is better
    write("like.csv", id=IDS, prob=sigmoid(logits(1)))
    out = call("truth.csv", "poor.csv", "like.csv")
    assert "poor and like have the same macro_f1; that cannot be tested" in out
    assert "poor and like have the same auc; that cannot be tested (both order" in out
    write("near.csv", id=IDS, logit=logits(2))
    out = call("truth.csv", "poor.csv", "near.csv", "like.csv")
    assert "poor and near cannot be told apart: " in out
    assert "2 comparisons with poor; no p is corrected" in out


def test_what_a_file_lacks_is_said_and_the_rest_is_scored(call):
    logit = logits(0)
    write("labels.csv", id=IDS, label=np.where(logit > 0, "FAKE", "real"))
    write("raw.csv", id=IDS, score=3 * logit)
    out = call("truth.csv", "labels.csv", "raw.csv", "--output", "out.csv")
    assert "labels.csv holds labels alone" in out
    assert "not all from 0 to 1, so no probabilities" in out
    found = scores()
    ranks = ["auc", "ap", "eer", "hter_test_eer", "tpr@fpr=1%"]
    assert found["labels.csv"].loc[[*ranks, "log_loss", "ece"], "score"].isna().all()
    assert found["raw.csv"].loc[["macro_f1", "acer", "log_loss", "ece"], "score"].isna().all()
    area = found["raw.csv"].loc["auc", "score"]
    assert area == pytest.approx(sk.roc_auc_score(LABEL, logit), abs=1e-12)
    call("truth.csv", "raw.csv", "--threshold", "0", "--output", "out.csv")
    cut = scores()["raw.csv"]
    same = found["labels.csv"]
    assert cut.loc["macro_f1", "score"] == same.loc["macro_f1", "score"]
    assert cut.loc[["log_loss", "ece"], "score"].isna().all()


def test_labels_beside_scores_are_decisions_only_where_they_are_a_cut_of_them(call):
    logit = logits(0)
    write("own.csv", id=IDS, label=(logit > 0.7).astype(int), prob=sigmoid(logit))
    write("oof.csv", item_id=IDS, fold=0, label=LABEL, logit=logit)  # the truth, as in `oof/`
    out = call("truth.csv", "own.csv", "oof.csv", "--output", "out.csv")
    assert "decisions of column label" in out
    assert "column label is no cut of them, so not its decisions: left aside" in out
    found = scores()
    own = sk.f1_score(LABEL, logit > 0.7, average="macro")
    assert found["own.csv"].loc["macro_f1", "score"] == pytest.approx(own, abs=1e-12)
    half = sk.f1_score(LABEL, logit > 0, average="macro")
    assert found["oof.csv"].loc["macro_f1", "score"] == pytest.approx(half, abs=1e-12)


def test_directions_are_said_and_never_guessed(call):
    logit = logits(0)
    write("soft.csv", id=IDS, p_real=sigmoid(-logit), p_fake=sigmoid(logit))
    write("real.csv", id=IDS, real_prob=sigmoid(-logit))
    write("up.csv", id=IDS, score=-3 * logit)
    call("truth.csv", "soft.csv", "real.csv", "--output", "out.csv")
    want = sk.roc_auc_score(LABEL, logit)
    areas = [part.loc["auc", "score"] for part in scores().values()]
    assert areas == pytest.approx([want, want], abs=1e-12)
    out = call("truth.csv", "up.csv")
    assert "up: auc is below 0.5; are its scores higher for reals? --higher real" in out
    call("truth.csv", "up.csv", "--higher", "real", "--output", "out.csv")
    assert scores()["up.csv"].loc["auc", "score"] == pytest.approx(want, abs=1e-12)
    write("is.csv", id=IDS, is_real=sigmoid(-logit))
    call("truth.csv", "is.csv", "--output", "out.csv")
    assert scores()["is.csv"].loc["auc", "score"] == pytest.approx(want, abs=1e-12)
    write("is.csv", id=IDS, is_real=(logit < 0).astype(int))
    assert "does 1 in column 'is_real' mean real?" in call("truth.csv", "is.csv", code=2)
    for name in ("liveness", "liveness_score", "prob_of_real", "authenticity", "pReal"):
        write("is.csv", id=IDS, **{name: sigmoid(-logit)})
        call("truth.csv", "is.csv", "--output", "out.csv")
        assert scores()["is.csv"].loc["auc", "score"] == pytest.approx(want, abs=1e-12), name
    turned = np.where(LABEL, "no", "yes")
    write("odd.csv", image=IDS, genuine=turned, x=1)
    words = ["odd.csv", "soft.csv", "--columns", "label=genuine", "--fake", "no"]
    call(*words, "--output", "out.csv")
    assert scores()["soft.csv"].loc["auc", "score"] == pytest.approx(want, abs=1e-12)


def test_a_softmax_of_two_columns_is_understood(call):
    prob = sigmoid(logits(0))
    want = sk.roc_auc_score(LABEL, prob)
    write("soft.csv", id=IDS, prob_0=(1 - prob).round(3), prob_1=prob.round(3))
    out = call("truth.csv", "soft.csv", "--output", "out.csv")
    assert "P(fake) of column prob_1" in out
    assert scores()["soft.csv"].loc["auc", "score"] == pytest.approx(want, abs=1e-3)
    write("turned.csv", id=IDS, label=1 - LABEL)
    out = call("turned.csv", "soft.csv", "--fake", "0", "--output", "out.csv")
    assert "P(fake) of column prob_0" in out
    write("words.csv", id=IDS, label=np.where(LABEL, "fake", "real"))
    ways = "which of the columns 'prob_0' and 'prob_1' holds the score of fakes? Say which: "
    ways += "--columns score=prob_1 or --columns score=prob_0"
    assert ways in call("words.csv", "soft.csv", code=2)
    call("words.csv", "soft.csv", "--columns", "score=prob_1", "--output", "out.csv")
    assert scores()["soft.csv"].loc["auc", "score"] == pytest.approx(want, abs=1e-3)
    write("logits.csv", id=IDS, logit_0=-1.0, logit_1=logits(0))
    assert "so they are no probabilities of two classes" in call("truth.csv", "logits.csv", code=2)
    write("three.csv", id=IDS, prob_0=0.5, prob_1=0.3, prob_2=0.2)
    assert "which of the columns 'prob_0' and" in call("truth.csv", "three.csv", code=2)


def test_common_goes_on_with_what_is_there_and_says_so(call):
    logit = logits(0)
    write("a.csv", id=IDS[40:], logit=logit[40:])
    write("b.csv", id=[*IDS[:-20], "x"], logit=[*logit[:-20], 0])
    assert "40 of 240 ids of truth.csv are missing, the first is 'v00/000.jpg'" in call(
        "truth.csv", "a.csv", code=2
    )
    assert "1 of its 221 ids are not in truth.csv, the first is 'x'" in call(
        "truth.csv", "b.csv", code=2
    )
    out = call("truth.csv", "a.csv", "b.csv", "--common", "--output", "out.csv")
    assert "WARNING --common: 180 of 240 items are scored" in out
    want = sk.roc_auc_score(LABEL[40:-20], logit[40:-20])
    assert scores()["a.csv"].loc["auc", "score"] == pytest.approx(want, abs=1e-12)
    write("a.csv", id=["x", "y"], logit=[0, 1])
    assert "no id of truth.csv is in all files" in call("truth.csv", "a.csv", "--common", code=2)


def test_ids_that_fit_two_are_not_taken(call):
    write("truth.csv", id=["a/1.jpg", "b/1.jpg", "c/2.jpg"], label=[0, 1, 1])
    write("a.csv", id=["1", "1.png", "2"], prob=[0.1, 0.2, 0.3])
    assert "2 of 3 ids of truth.csv are missing" in call("truth.csv", "a.csv", code=2)


MISTAKES = {
    "prob": ({"prob": [1.5] + [0.5] * (N - 1)}, [], "a.csv: row 2: prob is '1.5', want a prob"),
    "word": ({"logit": ["x"] + [0.5] * (N - 1)}, [], "a.csv: row 2: logit is 'x', want a finite"),
    "inf": ({"score": ["inf"] + [0.5] * (N - 1)}, [], "row 2: score is 'inf', want a finite"),
    "two": ({"prob": 0.5, "p_fake": 0.5}, [], "columns 'prob' and 'p_fake' could both be the prob"),
    "none": ({"x": 0.5, "z": 0.5}, [], "no score column in the header ['id', 'x', 'z']"),
    "metric": ({"prob": 0.5}, ["--metric", "accuracx"], "did you mean 'accuracy'"),
    "limit": ({"prob": 0.5}, ["--metric", "tpr@fpr=0.1%"], "wants 1,000 reals or more, there are"
              " 144: among so few the limit allows no error at all; the finest is 0.7%"),
    "hter": ({"prob": 0.5}, ["--metric", "hter"], "says nothing of a.csv: no development rows"),
    "lacks": ({"label": 1}, ["--metric", "auc"], "says nothing of a.csv: a.csv holds labels alone"),
    "key": ({"prob": 0.5}, ["--columns", "labelx=y"], "unknown key of --columns 'labelx'"),
    "column": ({"prob": 0.5}, ["--columns", "label=y"], "unknown column (--columns label=) 'y'"),
    "fake": ({"prob": 0.5}, ["--fake", "FAKE"], "unknown value (--fake) of column label"),
    "threshold": ({"prob": 0.5}, ["--threshold", "50"], "holds P(fake), want one from 0 to 1"),
    "nan": ({"score": 5.0}, ["--threshold", "nan"], "--threshold nan: want a finite number"),
    "output": ({"prob": 0.5}, ["--output", "truth.csv"], "is there, and not as this command wrote"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_named_and_nothing_is_written(call, case, tmp_path):
    columns, flags, said = MISTAKES[case]
    write("a.csv", id=IDS, **columns)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert said in call("truth.csv", "a.csv", *flags, code=2)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_mistakes_of_the_truth(call):
    write("a.csv", id=IDS, prob=0.5)
    for columns, said in (
        ({"label": np.where(LABEL, "A", "B")}, "row 2: label is 'A'; which word is fake? --fake A"),
        ({"is_real": LABEL}, "does 1 in column 'is_real' mean real? Say which is fake: --fake 1"),
        ({"label": [2, *LABEL[1:]]}, "row 2: label is '2', want 0 or 1"),
        ({"label": LABEL, "y": LABEL}, "columns 'label' and 'y' could both be the label"),
        ({"x": LABEL}, "no label column in the header"),
        ({"label": LABEL, "video": 1, "person": 1}, "could both be the group"),
    ):
        write("truth.csv", id=IDS, **columns)
        assert said in call("truth.csv", "a.csv", code=2)
    write("truth.csv", id=[IDS[0], *IDS[:-1]], label=LABEL)
    assert "row 3: id 'v00/000.jpg' stands there twice" in call("truth.csv", "a.csv", code=2)
    write("truth.csv", id=IDS, label=1)
    assert "(only fakes): macro_f1" in call("truth.csv", "a.csv")
    assert "says nothing of a.csv: only fakes" in call(
        "truth.csv", "a.csv", "--metric", "auc", code=2
    )
