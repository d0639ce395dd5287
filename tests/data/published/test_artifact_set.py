"""ArtiFact as downloaded: a metadata.csv a folder, targets that count kinds of fakes."""

import pytest

from tests.data.conftest import refused

TARGETS = {"afhq": 0, "coco": 0, "glide": 2, "stylegan2": 6}


def table(names: list[str], target: object, prefix: str = "") -> str:
    rows = [f"{name.rpartition('/')[2]},{prefix}{name},{target},human" for name in names]
    return "\n".join(["filename,image_path,target,category", *rows, ""])


@pytest.mark.parametrize("home", ["", "artifact-dataset/"])
@pytest.mark.parametrize("whole", [True, False])
def test_each_csv_labels_its_folder(toy, home, whole):
    # Names repeat across folders; words such as train/ inside a folder mean nothing.
    names = ["train/cat/img0.png", "train/dog/img0.png", "img1.png"]
    files = [f"{home}{folder}/{name}" for folder in TARGETS for name in names]
    tables = {f"{home}{f}/metadata.csv": table(names, t, f"{f}/" if whole else "")
              for f, t in TARGETS.items()}  # fmt: skip
    dataset = toy(files, tables)
    train = dataset.train.set_index("item_id")
    expected = {path: path.removeprefix(home).split("/")[0] for path in files}
    assert train["domain"].to_dict() == expected
    assert train["label"].to_dict() == {p: int(TARGETS[f] > 0) for p, f in expected.items()}
    assert dataset.missing == ()
    assert dataset.test.empty


def test_files_without_a_row_are_counted_and_rows_without_a_file_too(toy):
    tables = {f"{f}/metadata.csv": table(["a.png", "b.png"], t) for f, t in TARGETS.items()}
    dataset = toy([*(f"{f}/{n}.png" for f in TARGETS for n in "ac")], tables)
    assert set(dataset.missing) == {f"{folder}/b.png" for folder in TARGETS}
    assert dataset.ignored == {"files that no part of the artifact layout names": 4}


def test_a_target_that_is_no_number(toy):
    texts = {"a/metadata.csv": table(["a.png"], "0"), "b/metadata.csv": table(["b.png"], "gan")}
    with refused("b/metadata.csv: row 2: target is 'gan', want 0"):
        toy(["a/a.png", "b/b.png"], texts)
    assert toy([], {"dataset.yaml": "labels: {0: 0, gan: 1}\n"}).train["label"].tolist() == [0, 1]
