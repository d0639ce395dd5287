"""What 0 and 1 of a submission mean: what they mean in the competition's own table."""

import pandas as pd
import pytest

from src.artifacts.answers import hold
from src.data.items.words import means_real
from tests.data.conftest import expand, refused

TRAIN = ["train/a.png", "train/b.png"]
TEST = ["test/s.png", "test/t.png"]
TURNED = {"dataset.yaml": "labels: {1: 0, 0: 1}\n"}
TABLE = {"train.csv": "id,label\na,1\nb,0\n"}
SAMPLE = {"sample_submission.csv": "id,label\ns,0\nt,0\n"}
NUMBERED = ["train/1/a.png", "train/0/b.png"]
WAYS = {
    "sample": (TRAIN, TABLE | SAMPLE),
    "sample of floats": (TRAIN, TABLE | {"sample_submission.csv": "id,y\ns,0.5\nt,0.5\n"}),
    "sample without header": (TRAIN, TABLE | {"sample_submission.csv": "s,0\nt,0\n"}),
    "test.csv": (TRAIN, TABLE | {"test.csv": "id\ns\nt\n"}),
    "no sample": (TRAIN, TABLE),
    "table of floats": (TRAIN, {"train.csv": "id,label\na,1.0\nb,0.0\n"}),
    "folders": (NUMBERED, {}),
    "folders and sample": (NUMBERED, SAMPLE),
}


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_answers_are_in_the_numbers_of_the_table(toy, way, turned):
    files, texts = WAYS[way]
    dataset = toy([*files, *TEST], {**texts, **(TURNED if turned else {})})
    truth = {item[-1] if "." not in item else item[-5]: int(label) for item, label in
             zip(dataset.train["item_id"], dataset.train["label"], strict=True)}  # fmt: skip
    assert truth == {"a": int(not turned), "b": int(turned)}
    assert dataset.require_test().label_names == (("1", "0") if turned else ("0", "1"))
    want = "written as 1 (real) and 0 (fake)" if turned else "written as 0 (real) and 1 (fake)"
    want = "answers such as 0.5, so the competition asks" if way == "sample of floats" else want
    assert any(want in note for note in dataset.notes), dataset.notes


@pytest.mark.parametrize(
    ("given", "names"),
    [("{1.0: 0, 0.0: 1}", ("1", "0")), ("{0: 0, 1: 1, 2: 1}", ("0", "1")),
     ("{1: 0, 2: 1}", ("1", "2")), ("{1: 0, 0: 1, ai: 1, photo: 0}", ("1", "0"))],
)  # fmt: skip
def test_numbers_of_other_tables(toy, given, names):
    point = ".0" * (".0" in given)
    table = {"train.csv": f"id,label\na,{names[0]}{point}\nb,{names[1]}{point}\n"}
    dataset = toy([*TRAIN, *TEST], {**table, **SAMPLE, "dataset.yaml": f"labels: {given}\n"})
    assert dataset.require_test().label_names == names


def test_what_dataset_yaml_says_of_the_answers_goes_before(toy):
    yaml = TURNED["dataset.yaml"] + "submission: {label_names: ['0', '1']}\n"
    dataset = toy([*TRAIN, *TEST], {**TABLE, "dataset.yaml": yaml})
    assert dataset.require_test().label_names == ("0", "1")


@pytest.mark.parametrize("offer", [0, 1])
def test_a_sample_whose_column_means_real_is_asked_about(toy, offer):
    sample = {"sample_submission.csv": "id,is_real\ns,0\nt,0\n"}
    with refused(r"sample_submission\.csv.*does 1 in .*'is_real'") as caught:
        toy(["train/real/a.png", "train/fake/b.png", *TEST], sample)
    dataset = toy([], {"dataset.yaml": str(caught.value).split("`")[1 + 2 * offer] + "\n"})
    assert dataset.require_test().label_names == (("1", "0"), ("0", "1"))[offer]


REAL_COLUMNS = (
    "liveness", "liveness_score", "prob_of_real", "probability_of_real", "score_real", "label_real",
    "target_real", "confidence_real", "real_likelihood", "authentic", "is_authentic", "pristine",
    "authenticity", "prob_authentic", "is_human", "original", "isReal", "preal", "not_fake",
)  # fmt: skip
OTHER_COLUMNS = (
    "label", "prob", "p_fake", "pfake", "prob_ai", "spoof_score", "liveness_attack", "not_real",
    "is_not_human", "generated", "y_pred",
)  # fmt: skip


def test_names_of_columns_that_mean_real():
    assert [name for name in REAL_COLUMNS if not means_real(name)] == []
    assert [name for name in OTHER_COLUMNS if means_real(name)] == []


FOLDER_WORDS = "labels: {photo: 0, aiart: 1}\n"
SETTLED = {
    # dataset.yaml, which settles what 1 in a column means, or leaves it open
    "": False,
    FOLDER_WORDS: False,
    FOLDER_WORDS + "output: prob\n": False,
    "labels: {photo: 0, aiart: 1, 1: 0}\n": False,
    "labels: {photo: 0, aiart: 1, 1: 0, 0: 1}\n": True,
    FOLDER_WORDS + "submission: {label_names: ['1', '0']}\n": True,
    "output: prob\nsubmission: {label_names: [live, spoof]}\n": False,
}


@pytest.mark.parametrize("yaml", SETTLED)
@pytest.mark.parametrize("sample", ["0", "0.5", None])
def test_words_of_folders_do_not_settle_what_1_means(toy, yaml, sample):
    folders = ("photo", "aiart") if "photo" in yaml else ("real", "fake")
    files = [f"train/{folders[0]}/a.png", f"train/{folders[1]}/b.png", *TEST]
    texts = {"dataset.yaml": yaml}
    if sample is None:
        given = "submission: {answer_column: liveness_score"
        more = yaml.replace("submission: {", given + ", ")
        texts["dataset.yaml"] = more if more != yaml else yaml + given + "}\n"
    else:
        texts["sample_submission.csv"] = f"id,liveness_score\ns,{sample}\nt,{sample}\n"
    if not SETTLED[yaml]:
        with refused("does 1 in column 'liveness_score' mean real"):
            toy(files, texts)
        return
    layout = toy(files, texts).require_test()
    assert layout.label_names == ("1", "0")
    votes = pd.DataFrame({"prob": [0.9, 0.2], "pred": [1, 0]}, index=["s", "t"])
    assert hold(votes, layout.label_names, "prob")[0].tolist() == pytest.approx([0.1, 0.8])


def test_words_of_a_sample_mean_what_they_say(toy):
    text = {"sample_submission.csv": "id,liveness\ns,live\nt,spoof\n"}
    files = ["train/real/a.png", "train/fake/b.png", *TEST]
    assert toy(files, text).require_test().label_names == ("live", "spoof")


SAMPLES = {
    # what a sample asks for, and its answer and further columns
    "id,label\ns,0\nt,1\n": (None, "label", []),
    "id,label\ns,\nt,\n": (None, "label", []),
    "id,label\ns,0.0\nt,1.0\n": (None, "label", []),
    "id,y_pred\ns,0\nt,0\n": ("prob", "y_pred", []),
    "id,Pred-Prob\ns,0\nt,0\n": ("prob", "Pred-Prob", []),
    "id,confidence\ns,0\nt,0\n": ("prob", "confidence", []),
    "id,label\ns,0\nt,0.5\n": ("prob", "label", []),
    "id,score\ns,real\nt,fake\n": ("label", "score", []),
    "id,label,Usage\ns,0,Public\nt,0,\n": (None, "label", ["Usage"]),
    "n,Usage,id,prob\n1,Public,s,0\n2,Private,t,0\n": ("prob", "prob", ["n", "Usage"]),
    "s,0.5\nt,0.5\n": ("prob", "column_2", []),
}


@pytest.mark.parametrize("text", SAMPLES)
def test_what_a_sample_asks_for_is_told_by_its_answers_or_its_name(toy, text):
    asked, column, further = SAMPLES[text]
    layout = toy([*TRAIN, *TEST], TABLE | {"sample_submission.csv": text}).require_test()
    assert layout.answer_column == column
    assert (layout.asked.output if layout.asked else None) == asked
    assert list(layout.further) == further
    assert layout.item_ids == ["s", "t"]
    header = text.split("\n")[0].split(",")
    if layout.header:
        assert layout.header_of("label") == header
    rows = layout.table("label", ["x", "x"]).drop(columns=column).to_numpy().tolist()
    cells = [line.split(",") for line in text.splitlines()[layout.header :]]
    at = header.index(column) if layout.header else 1
    assert rows == [[*row[:at], *row[at + 1 :]] for row in cells]


@pytest.mark.parametrize(
    ("text", "offer"),
    [("id,label,prob\ns,0,0\nt,0,0\n", "submission: {answer_column: prob}"),
     ("id,a,b\ns,0,0\nt,0,0\n", "submission: {answer_column: b}")],
)  # fmt: skip
def test_an_answer_column_that_no_name_tells_is_asked_for(toy, text, offer):
    with refused("which of the columns .* is the answer") as caught:
        toy([*TRAIN, *TEST], TABLE | {"sample_submission.csv": text})
    assert f"`{offer}`" in str(caught.value)
    layout = toy([], {"dataset.yaml": offer + "\n"}).require_test()
    assert layout.answer_column == offer.split(": ")[2].rstrip("}")


@pytest.mark.parametrize("column", ["prob_real", "live_score", "Bona-fide", "p_real"])
def test_probabilities_of_real_are_asked_about(toy, column):
    sample = {"sample_submission.csv": f"id,{column}\ns,0.5\nt,0.5\n"}
    with refused("does 1 in column .* mean real"):
        toy([*TRAIN, *TEST], TABLE | sample)
    yaml = "submission: {label_names: ['1', '0']}\nmetric: auc\n"
    dataset = toy([], {"dataset.yaml": yaml})
    assert f"2 rows of id,{column}, P(real) in [0, 1]" in "\n".join(dataset.notes)


def test_without_a_sample_the_answers_are_called_what_they_are(toy):
    dataset = toy([*TRAIN, *TEST], TABLE | {"dataset.yaml": "metric: log_loss\n"})
    assert dataset.require_test().header_of("prob") == ["filename", "prob"]
    assert "no sample submission: it will be filename,prob, P(fake) in [0, 1]" in dataset.notes
    yaml = "submission: {id_column: id, answer_column: y}\noutput: rank\n"
    dataset = toy([], {"dataset.yaml": yaml})
    assert any("id,y, the rank of P(fake)" in note for note in dataset.notes)


def test_domains_are_read_from_the_names_of_files(toy):
    files = ["train/real/easy_1.png", "train/fake/mid_2.png", "train/fake/hard/x_easy_3.png",
             "test/hard_4.png", "test/other.png"]  # fmt: skip
    yaml = "domain_from: '^(easy|mid|hard)_'\nsubfolders: ignore\n"
    dataset = toy(files, {"dataset.yaml": yaml})
    found = dict(zip(dataset.items["path"], dataset.items["domain"], strict=True))
    assert found == dict(zip(files, ["easy", "mid", "", "hard", ""], strict=True))
    [note] = [note for note in dataset.notes if "domain_from" in note]
    assert "none 1 test, none 1 train, easy 1 train, hard 1 test, mid 1 train" in note
    with refused(r"domain_from '\(foo\)_' in dataset.yaml finds nothing in the names of its 5"):
        toy([], {"dataset.yaml": yaml.replace("^(easy|mid|hard)_", "(foo)_")})


def test_columns_at_odds_offer_first_what_works_with_class_folders(toy):
    files = [p.replace("real/", "real/real").replace("fake/", "fake/fake")
             for p in expand("rvf/{train,valid,test}/{real,fake}/{0,1}.jpg")]  # fmt: skip
    texts = {}
    for split in ("train", "valid", "test"):
        rows = "".join(
            f"{i},/kaggle/{p},{p.rpartition('/')[2][:-4]},{int('/real/' in p)},"
            f"{p.split('/')[2]},{p.removeprefix('rvf/')}\n"
            for i, p in enumerate(p for p in files if f"/{split}/" in p)
        )
        texts[f"{split}.csv"] = f",original_path,id,label,label_str,path\n{rows}"
    with refused("label_str") as caught:
        toy(files, texts)
    for line in str(caught.value).split("`")[1::2]:
        dataset = toy([], {"dataset.yaml": line + "\n"})
        assert (dataset.train["label"] == dataset.train["path"].str.contains("/fake/")).all()
        assert len(dataset.train) == 8
        assert dataset.test_labels is not None
        assert all(label == int("fake" in name) for name, label in dataset.test_labels.items())
