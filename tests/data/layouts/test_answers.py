"""What 0 and 1 of a submission mean: what they mean in the competition's own table."""

import pytest

from src.data.layouts.load import load_dataset
from src.errors import UserError

TRAIN = ["train/a.png", "train/b.png"]
TEST = ["test/s.png", "test/t.png"]
TURNED = "labels: {1: 0, 0: 1}\n"
TABLE = "id,label\na,1\nb,0\n"
SAMPLE = {"sample_submission.csv": "id,label\ns,0\nt,0\n"}
WAYS = {
    "sample": (TRAIN, {"train.csv": TABLE, **SAMPLE}),
    "sample of floats": (TRAIN, {
        "train.csv": TABLE, "sample_submission.csv": "id,y\ns,0.5\nt,0.5\n"}),
    "sample without header": (TRAIN, {"train.csv": TABLE, "sample_submission.csv": "s,0\nt,0\n"}),
    "test.csv": (TRAIN, {"train.csv": TABLE, "test.csv": "id\ns\nt\n"}),
    "no sample": (TRAIN, {"train.csv": TABLE}),
    "folders": (["train/1/a.png", "train/0/b.png"], {}),
    "folders and sample": (["train/1/a.png", "train/0/b.png"], SAMPLE),
}  # fmt: skip


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_answers_are_in_the_numbers_of_the_table(toy, way, turned):
    files, texts = WAYS[way]
    dataset = toy([*files, *TEST], {**texts, **({"dataset.yaml": TURNED} if turned else {})})
    truth = dataset.train.set_index("item_id")["label"]
    assert int(truth.loc[next(i for i in truth.index if "a" in i)]) == int(not turned)
    assert dataset.require_test().label_names == (("1", "0") if turned else ("0", "1"))
    want = "written as 1 (real) and 0 (fake)" if turned else "written as 0 (real) and 1 (fake)"
    assert any(want in note for note in dataset.notes), dataset.notes


@pytest.mark.parametrize(
    ("given", "names"),
    [("{1.0: 0, 0.0: 1}", ("1", "0")), ("{0: 0, 1: 1, 2: 1}", ("0", "1")),
     ("{1: 0, 2: 1}", ("1", "2")), ("{1: 0, 0: 1, ai: 1, photo: 0}", ("1", "0"))],
)  # fmt: skip
def test_numbers_of_other_tables(toy, given, names):
    (one, *_), two = given.strip("{").split(":"), names[1]
    table = f"id,label\na,{one}\nb,{two}.0\n" if "." in one else f"id,label\na,{one}\nb,{two}\n"
    assert (
        toy([*TRAIN, *TEST], {"train.csv": table, **SAMPLE, "dataset.yaml": f"labels: {given}\n"})
        .require_test()
        .label_names
        == names
    )


def test_what_dataset_yaml_says_of_the_answers_goes_before(toy):
    yaml = TURNED + "submission: {label_names: ['0', '1']}\n"
    assert toy(
        [*TRAIN, *TEST], {"train.csv": TABLE, "dataset.yaml": yaml}
    ).require_test().label_names == ("0", "1")


@pytest.mark.parametrize("offer", [0, 1])
def test_a_sample_whose_column_means_real_is_asked_about(make_dataset, offer):
    sample = {"sample_submission.csv": "id,is_real\ns,0\nt,0\n"}
    root = make_dataset(["train/real/a.png", "train/fake/b.png", *TEST], sample)
    with pytest.raises(UserError, match=r"sample_submission\.csv.*does 1 in .*'is_real'") as caught:
        load_dataset("toy")
    line = str(caught.value).split("`")[1 + 2 * offer]
    (root / "dataset.yaml").write_text(line + "\n")
    assert load_dataset("toy").require_test().label_names == (("1", "0"), ("0", "1"))[offer]


@pytest.mark.parametrize("one", ["1", "1.0"])
def test_the_line_that_turns_a_table_round_reads_floats_too(toy, one):
    zero = one.replace("1", "0", 1)
    train = toy(
        TRAIN, {"train.csv": f"id,label\na,{one}\nb,{zero}\n", "dataset.yaml": TURNED}
    ).train.set_index("item_id")
    assert (int(train.loc["a", "label"]), int(train.loc["b", "label"])) == (0, 1)


def test_columns_at_odds_offer_first_what_works_with_class_folders(make_dataset):
    files = [f"rvf/{s}/{c}/{i}.jpg" for s in ("train", "valid", "test")
             for c in ("real", "fake") for i in (f"{c}0", f"{c}1")]  # fmt: skip
    texts = {}
    for split in ("train", "valid", "test"):
        rows = "".join(
            f"{i},/kaggle/{p},{p.rpartition('/')[2][:-4]},{int('/real/' in p)},"
            f"{'real' if '/real/' in p else 'fake'},{p.removeprefix('rvf/')}\n"
            for i, p in enumerate(p for p in files if f"/{split}/" in p)
        )
        texts[f"{split}.csv"] = f",original_path,id,label,label_str,path\n{rows}"
    root = make_dataset(files, texts)
    with pytest.raises(UserError, match="label_str") as caught:
        load_dataset("toy")
    for line in str(caught.value).split("`")[1::2]:
        (root / "dataset.yaml").write_text(line + "\n")
        dataset = load_dataset("toy")
        assert (dataset.train["label"] == dataset.train["path"].str.contains("/fake/")).all()
        assert len(dataset.train) == 8
        truth = dataset.test_labels
        assert truth is not None
        assert all(label == int("fake" in name) for name, label in truth.items())
