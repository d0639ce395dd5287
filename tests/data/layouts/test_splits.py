"""Which split a folder's name says: what is called a test is never trained on in silence."""

import pytest

from src.data.folds.make import ensure_folds
from src.data.items.words import SplitMap, make_split_map
from tests.data.conftest import expand, refused

TWO = ["real/a.png", "fake/b.png"]
SAMPLE = {"sample_submission.csv": "id,label\nt1.png,0\nt2.png,0\n"}


def tree(*tops: str) -> list[str]:
    return [f"{top}/{path}" for top in tops for path in TWO]


def ids(dataset, split: str) -> list[str]:
    return dataset.items.loc[dataset.items["split"] == split, "item_id"].tolist()


@pytest.mark.parametrize(
    ("name", "split", "rest"),
    [
        ("trainset", "train", ""), ("valset", "val", ""), ("validate", "val", ""),
        ("dev", "val", ""), ("devel", "val", ""), ("development", "val", ""),
        ("evaluation", "test", ""), ("Test-Set", "test", "Set"), ("real_train", "train", "real"),
        ("test_data_v2", "test", "data_v2"), ("FF-val", "val", "FF"), ("val2017", "val", ""),
        ("Test-Dev", "test", ""), ("my_test_set", "test", "my_set"),
        ("development_kit", "val", "kit"), ("evaluation_protocol", "test", "protocol"),
        ("contest", "", "contest"), ("latest", "", "latest"), ("trainer", "", "trainer"),
        ("attestation", "", "attestation"), ("trainer_photos", "", "trainer_photos"),
        ("validity", "", "validity"), ("developer", "", "developer"), ("devices", "", "devices"),
        ("FaceForensics", "", "FaceForensics"), ("StyleGAN", "", "StyleGAN"),
        ("TrainData", "train", "Data"), ("trainReal", "train", "Real"), ("trainA", "train", "A"),
        ("TestFakeImages", "test", "Fake_Images"), ("DFDCTest", "test", "DFDC"),
        ("TrainVal", "train", ""), ("FaceForensics_train", "train", "FaceForensics"),
        ("traindata", "train", "data"), ("TESTDATA2", "test", "DATA2"),
        ("testimages", "test", "images"), ("ff_valframes", "val", "ff_frames"),
        ("datatest", "test", "data"), ("trainingdata", "train", "data"),
    ],
)  # fmt: skip
def test_a_word_counts_between_separators(name, split, rest):
    assert SplitMap().read(name) == ((split,) if split else (), rest)


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["trainx", "testx"], ["train", "test"]), (["ffTRAIN", "fftest"], ["train", "test"]),
        (["validx", "trainx"], ["val", "train"]), (["trainx", "latest"], ["", ""]),
        (["trainer", "tester"], ["", ""]), (["trainer_photos", "contest"], ["", ""]),
        (["validity", "developer", "attestation"], ["", "", ""]),
        (["trainx", "in/testx"], ["", ""]), (["testx", "testingx"], ["", ""]),
    ],
)  # fmt: skip
def test_a_word_that_is_glued_to_a_name_needs_a_neighbour(names, splits):
    read = make_split_map({}, [f"top/{name}/real/a.png" for name in names])
    assert [read.of_folders(name.split("/")) for name in names] == splits


@pytest.mark.parametrize("beside", ["test", "real_test", "testset1_seen"])
def test_eval_is_the_test_unless_there_is_one(beside):
    assert make_split_map({}, ["train/a", "eval/a"]).of_folders(["eval"]) == "test"
    assert make_split_map({}, [f"{beside}/a", "eval/a"]).of_folders(["eval"]) == "val"


@pytest.mark.parametrize(
    ("files", "train", "test"),
    [
        (tree("train", "devel", "test"),
         ["fake/b.png", "real/a.png", "val/fake/b.png", "val/real/a.png"], tree("test")),
        (tree("training", "eval"), ["fake/b.png", "real/a.png"], tree("eval")),
        (["real_train/a.png", "fake_train/b.png", "real_test/a.png", "fake_test/b.png"],
         ["fake_train/b.png", "real_train/a.png"], ["fake_test/b.png", "real_test/a.png"]),
        (tree("train_data", "test_data_v1", "test_data_v2"), ["fake/b.png", "real/a.png"],
         tree("test_data_v1", "test_data_v2")),
        (tree("FF_train", "CelebDF_test"), ["FF_train/fake/b.png", "FF_train/real/a.png"],
         tree("CelebDF_test")),
        (tree("train_test_split/train", "train_test_split/test"), ["fake/b.png", "real/a.png"],
         tree("train_test_split/test")),
        (tree("Train_files", "Dev_files", "Test_files"),
         ["fake/b.png", "real/a.png", "val/fake/b.png", "val/real/a.png"], tree("Test_files")),
        (tree("TrainData", "TestData"), ["fake/b.png", "real/a.png"], tree("TestData")),
        (tree("traindata", "testdata"), ["fake/b.png", "real/a.png"], tree("testdata")),
        (tree("trainA", "testA"), ["trainA/fake/b.png", "trainA/real/a.png"], tree("testA")),
        (tree("trainx", "testx"), ["trainx/fake/b.png", "trainx/real/a.png"], tree("testx")),
    ],
)  # fmt: skip
def test_folders_are_in_the_split_that_their_names_say(toy, files, train, test):
    dataset = toy(files)
    assert [i.replace("Train_files/", "").replace("train_data/", "").replace("Dev_files/", "")
            for i in ids(dataset, "train")] == train  # fmt: skip
    assert sorted(dataset.test["path"]) == sorted(test)


@pytest.mark.parametrize(
    "names",
    ["trainReal trainFake testReal testFake", "real_train fake_train real-test fake-test",
     "TrainReal TrainFake TestReal TestFake", "realTrain fakeTrain realTest fakeTest",
     "trainreal trainfake testreal testfake", "realtrain faketrain realtest faketest",
     "trainRealImages trainFakeImages testRealImages testFakeImages"],
)  # fmt: skip
def test_one_name_may_say_split_and_class(toy, names):
    dataset = toy([f"{name}/{k}.png" for name in names.split() for k in range(3)])
    real, fake, real_test, fake_test = names.split()
    labels = {path.split("/")[0]: label for path, label in dataset.train[["path", "label"]].values}
    assert labels == {real: 0, fake: 1}
    assert set(dataset.train["domain"]) == {""}
    assert dataset.test_labels is not None
    held = {path.split("/")[0]: dataset.test_labels[i]
            for i, path in dataset.test[["item_id", "path"]].values}  # fmt: skip
    assert held == {real_test: 0, fake_test: 1}


def test_zips_whose_names_say_the_split(toy):
    dataset = toy([], zips={f"{split}Images.zip": TWO for split in ("train", "test")})
    assert (len(dataset.train), len(dataset.test)) == (2, 2)
    assert dataset.test["path"].str.startswith("testImages").all()


def test_files_of_class_folders_that_the_sample_names_are_test(toy):
    rows = "".join(f"{c}{k}.png,0\n" for c in ("fake", "real") for k in (0, 3))
    files = [f"{c}/{c}{k}.png" for c in ("real", "fake") for k in range(6)]
    dataset = toy(files, {"sample_submission.csv": f"id,label\n{rows}"})
    assert ids(dataset, "test") == ["fake0.png", "fake3.png", "real0.png", "real3.png"]
    assert not set(dataset.test["path"]) & set(dataset.train["path"])
    assert len(dataset.train) == 8
    assert dataset.test_labels is not None
    assert dataset.test_labels.to_dict() == {i: int("fake" in i) for i in ids(dataset, "test")}
    (note,) = [note for note in dataset.notes if "names 4 files of the class folders" in note]
    assert "test items, not trained on" in note
    # The test set may be elsewhere, and its names no more than alike.
    dataset = toy([], {"sample_submission.csv": f"id,label\n{rows}other.png,0\n"})
    assert len(dataset.test) == 0
    (note,) = [note for note in dataset.notes if "no test items, though" in note]
    assert note.startswith("WARNING")
    assert "4 of them are names of train files" in note


def test_a_name_that_not_everybody_reads_so_is_said_and_can_be_settled(toy):
    dataset = toy(tree("train", "my_test_set"))
    assert len(dataset.test) == 2
    (note,) = [note for note in dataset.notes if "my_test_set/ is test" in note]
    assert "`splits: {my_test_set: train}`" in note
    assert len(toy([], {"dataset.yaml": "splits: {'*_test_*': val}\n"}).train) == 4


FF_REAL = "original_sequences/youtube/c23/frames"
FF_FAKE = "manipulated_sequences/Deepfakes/c23/frames"


@pytest.mark.parametrize(
    ("train", "test"),
    [
        (f"train/{FF_REAL}/{{000,003}}/0.png", f"testset/{FF_FAKE}/{{001_002,002_001}}/0.png"),
        ("train/Celeb-{real/id0_0000,synthesis/id0_id1_0000}.mp4",
         "eval/Celeb-{real/id0_0001,synthesis/id1_id9_0000}.mp4"),
        ("progan_train/car/{0_real,1_fake}/a.png", "CNN_synth_testset/crn/{0_real,1_fake}/a.png"),
        *((f"{form.format('train')}/{{real/1,fake/2}}_frame{{0,1}}.png",
           f"{form.format('test')}/{{real/1,fake/2}}_frame{{0,1}}.png")  # no domains of FLIP's
          for form in ("{}_videos", "{}data", "{}x", "{}Set")),
    ],
)  # fmt: skip
def test_published_layouts_below_folders_of_splits(toy, train, test):
    more = expand(f"train/{FF_FAKE}/000_003/0.png") * ("original" in train)
    dataset = toy(dict.fromkeys([*expand(train, test), *more], b"file"))
    assert sorted(dataset.train["path"]) == sorted([*expand(train), *more])
    assert sorted(dataset.test["path"]) == sorted(expand(test))
    if "progan" in train:
        assert set(dataset.train["domain"]) == {"progan"}


@pytest.mark.parametrize("folder", ["unseen", "images_b/part", "valset"])
def test_a_folder_that_the_sample_names_is_test(toy, folder):
    dataset = toy([*tree("train"), f"{folder}/t1.png", f"{folder}/t2.png"], SAMPLE)
    assert ids(dataset, "test") == ["t1.png", "t2.png"]
    assert any(f"names {folder.split('/')[0]}" in note for note in dataset.notes)
    with refused(rf"no row for {folder}/more\.png.*unlisted_files"):
        toy([f"{folder}/more.png"])


def test_a_val_that_has_a_test_beside_stays_a_val(toy):
    with refused(r"t2\.png' has no file among the test items"):
        toy([*tree("train", "val"), "test/t1.png", "val/real/t2.png"], SAMPLE)


def test_train_and_val_folders_are_folds_as_given(toy):
    dataset = toy(expand("{train,val,test}/{real,fake}/{0,1,2}.png"))
    _, folds, report = ensure_folds(dataset, "fixed")
    held = folds.loc[folds["fold"] == 0, "item_id"]
    assert len(held) == 6
    assert held.str.startswith("val/").all()
    assert report is not None
    # Asked for nothing, train and val are pooled as before.
    assert ensure_folds(dataset, "sgkf2_s42")[0] == "sgkf2_s42"
    assert any("`--scheme fixed`" in note for note in dataset.notes)
