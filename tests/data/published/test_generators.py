"""Sets of generated images: the generator is the domain, whatever stands around it."""

from src.data.folds.make import make_folds
from src.data.layouts.load import load_dataset
from src.data.published.generators import _PROGAN
from tests.data.conftest import refused


def test_genimage(toy):
    dataset = toy(
        [
            f"GenImage/{g}/imagenet_{g}/{s}/{c}/{i}.png"
            for g in ("sdv4", "glide")
            for s in ("train", "val")
            for c in ("nature", "ai")
            for i in (0, 1)
        ]
    )
    train = dataset.train
    assert len(train) == 16  # val joins train
    assert (train["label"] == train["item_id"].str.contains("/ai/")).all()
    assert train["domain"].value_counts().to_dict() == {"glide": 8, "sdv4": 8}
    assert (train["group"] == "").all()
    assert any(note == "8 real and 8 fake pictures" for note in dataset.notes)
    assert any("2 generators, which are the domains: glide 8, sdv4 8" in n for n in dataset.notes)
    report = make_folds(dataset, "lodo")
    folds = report.folds
    assert report.domains == ("glide", "sdv4")
    assert (folds["fold"] == (folds["domain"] == "sdv4")).all()


def test_one_generator_is_named_by_its_folder_or_the_data_set(make_dataset, toy):
    make_dataset(["train/nature/a.png", "train/ai/b.png"], name="midjourney")
    assert set(load_dataset("midjourney").train["domain"]) == {"midjourney"}
    assert set(toy(["glide/train/nature/a.png", "glide/train/ai/b.png"]).train["domain"]) == {
        "glide"
    }


def test_forensynths_with_categories_and_a_test_folder(toy):
    # `train` is also a category of ProGAN's.
    files = [f"test/progan/{k}/{c}/{i}.png" for k in ("car", "train")
             for c in ("0_real", "1_fake") for i in (0, 1)]  # fmt: skip
    files += [f"test/biggan/{c}/0.png" for c in ("0_real", "1_fake")]
    files += [f"train/progan/car/{c}/7.png" for c in ("0_real", "1_fake")]
    dataset = toy(files)
    assert dataset.train["domain"].tolist() == ["progan"] * 2
    assert dataset.test["domain"].value_counts().to_dict() == {"progan": 8, "biggan": 2}
    assert dataset.test["label"].isna().all()
    assert dataset.test_labels is not None
    assert dataset.test_labels.to_dict() == {f: int("1_fake" in f) for f in files if "test/" in f}


def test_progan_training_categories_are_no_generators(make_dataset, toy):
    assert set(
        toy([f"train/{k}/{c}/0.png" for k in sorted(_PROGAN) for c in ("0_real", "1_fake")]).train[
            "domain"
        ]
    ) == {"progan"}
    make_dataset(["cat/0_real/a.png", "cat/1_fake/b.png", "car/1_fake/c.png"], name="two")
    assert set(load_dataset("two").train["domain"]) == {"cat", "car"}


def test_files_in_no_class_folder_are_named(toy):
    with refused(r"1 files lie in no class folder.*glide/odd.png.*ignore: \['glide/odd\.png'"):
        toy(["glide/nature/a.png", "glide/ai/b.png", "glide/odd.png"])


def test_ai_alone_is_any_folder(toy):
    dataset = toy(["real/a.png", "ai/b.png"])
    assert set(dataset.train["label"]) == {0, 1}
    assert not any("generators" in note for note in dataset.notes)


def test_generators_of_fakes_only_borrow_reals(toy):
    report = make_folds(
        toy(["coco/nature/a.png", "coco/nature/b.png", "glide/ai/a.png", "sd/ai/a.png"]), "lodo"
    )
    folds = report.folds
    assert report.domains == ("glide", "sd")
    assert (folds.groupby("fold")["label"].nunique() == 2).all()
    assert (folds.loc[folds["label"] == 0, "domain"] == "coco").all()
