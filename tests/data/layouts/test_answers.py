"""What 0 and 1 of a submission mean: what they mean in the competition's own table."""

import pytest

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
