import json
import shutil
from collections import Counter

import cv2
import imagehash
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.tree import DecisionTreeClassifier

from src import paths
from src.artifacts import atomic
from src.artifacts.atomic import file_lock
from src.data.demo import crops, make
from src.data.pixels.images import decode_image
from src.errors import LockedError, UnreadableImageError, UserError

N_TRAIN, N_TEST = 400, 60


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One smaller demo for all the tests that only read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RVF_ROOT", str(tmp_path_factory.mktemp("root")))
        folder = make.make_demo(n_train=N_TRAIN, n_test=N_TEST)
        truth = pd.read_csv(paths.demo_truth_csv())
    return folder, pd.read_csv(folder / "train.csv"), truth


@pytest.fixture(scope="module")
def readable(made):
    """The train items that can be read, with their pixels and true region."""
    folder, train, _ = made
    train = train.copy()
    train["pixels"] = [read_or_none(folder / "train" / name) for name in train["filename"]]
    train = train[train["pixels"].notna()].reset_index(drop=True)
    is_copy = train["original"].str.startswith("repost")
    train["hash"] = [imagehash.phash(Image.fromarray(pixels)) for pixels in train["pixels"]]
    sources = train[~is_copy]
    for index in train.index[is_copy]:
        distance = sources["hash"].map(lambda h, own=train["hash"][index]: h - own)
        assert distance.min() <= 4, "a copy that no duplicate finder would see"
        train.loc[index, "original"] = sources["original"][distance.idxmin()]
    return train


def read_or_none(path):
    try:
        return decode_image(path.read_bytes())
    except UnreadableImageError:
        return None


def tree_of(root):
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def grouped_auc(model, features, train):
    truth = (train["label"] == "FAKE").to_numpy()
    prob = cross_val_predict(
        model, features, truth, groups=train["original"], cv=GroupKFold(4), method="predict_proba"
    )[:, 1]
    return float(roc_auc_score(truth, prob))


def texture_features(pixels):
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2YCrCb)[..., 0].astype(np.float32)
    residual = grey - cv2.GaussianBlur(grey, (3, 3), 0)
    power = np.log1p(np.abs(np.fft.fftshift(np.fft.fft2(residual * np.hanning(64)))) ** 2)
    radius = np.hypot(*np.mgrid[-32:32, -32:32])
    rings = [power[(radius >= r) & (radius < r + 4)].mean() for r in range(0, 32, 4)]
    blocks = np.log(np.abs(residual).reshape(8, 8, 8, 8).mean((1, 3)) + 0.1)
    return [*np.diff(rings), *np.percentile(blocks, (5, 50, 95)), blocks.std(), residual.std()]


def test_it_has_the_flat_layout_and_tells_no_truth(made):
    folder, train, truth = made
    assert list(train) == ["filename", "label", "original", "domain"]
    assert (len(train), len(truth)) == (N_TRAIN, N_TEST)
    assert {path.name for path in (folder / "train").iterdir()} == set(train["filename"])
    assert {path.name for path in (folder / "test").iterdir()} == set(truth["item_id"])
    inside = {"train", "test", "train.csv", "sample_submission.csv"}
    assert {path.name for path in folder.iterdir()} == inside
    assert set(train["label"]) == {"REAL", "FAKE"}
    assert set(train["domain"]) == {"china", "flower"}
    assert set(truth["label"]) == {0, 1}
    assert not set(train["filename"]) & set(truth["item_id"])
    sample = pd.read_csv(folder / "sample_submission.csv")
    assert list(sample) == ["filename", "label"]
    assert sorted(sample["filename"]) == list(truth["item_id"])
    assert not sample["filename"].is_monotonic_increasing
    assert set(sample["label"]) == {0}


def test_what_can_be_read_and_how_odd_it_is(made):
    folder, train, truth = made
    bad = [name for name in train["filename"] if read_or_none(folder / "train" / name) is None]
    assert len(bad) == 1
    files = [folder / "test" / name for name in truth["item_id"]]
    bad = [file for file in files if read_or_none(file) is None]
    assert len(bad) == 3
    assert sum(file.stat().st_size == 0 for file in bad) == 1
    modes, sizes = Counter(), set()
    for file in set(files) - set(bad):
        found = read_or_none(file)
        sizes.add(found.shape[:2])
        with Image.open(file) as image:
            modes[image.mode] += 1
            if image.mode == "CMYK":  # keeps its colours
                assert np.abs(found - np.asarray(image.convert("RGB"), float)).mean() < 12
    assert modes == {"L": 1, "RGBA": 1, "CMYK": 1, "RGB": N_TEST - 6}
    assert len(sizes) == 2
    assert all(height >= width for height, width in sizes)


def test_no_region_stands_in_train_and_test():
    regions = crops.make_regions(crops.read_photographs())
    train, test = crops.split_regions(regions, np.random.default_rng(0))
    names = [region.name for region in (*train, *test)]
    assert sorted(names) == sorted(region.name for region in regions)
    assert len(set(names)) == len(names) > 30
    assert {region.domain for region in test} == set(crops.PHOTOGRAPHS)


def test_regions_share_no_pixel():
    numbers = np.random.default_rng(0).permutation(427 * 640).reshape(427, 640)
    unique = np.stack([numbers >> 16, numbers >> 8, numbers], axis=-1).astype(np.uint8)
    regions = crops.make_regions({"china": unique})
    assert len(regions) == crops.GRID[0] * crops.GRID[1]
    pixels = np.concatenate([region.pixels.reshape(-1, 3) for region in regions])
    assert len(np.unique(pixels, axis=0)) == len(pixels)


def test_copies_are_there_and_one_crosses_into_the_test_part(made):
    folder, train, truth = made
    copies = train[train["original"].str.startswith("repost")]
    assert len(copies) == 2 * (N_TRAIN // make.COPY_EVERY)
    contents = [(folder / "train" / name).read_bytes() for name in train["filename"]]
    assert len(contents) - len(set(contents)) == N_TRAIN // make.COPY_EVERY
    tests = [(folder / "test" / name).read_bytes() for name in truth["item_id"]]
    assert sum(content in set(contents) for content in tests) == 1


def test_near_copies_stay_within_a_region(readable):
    bits = np.stack([value.hash.ravel() for value in readable["hash"]])
    distance = (bits[:, None] != bits[None]).sum(-1)
    region = readable["original"].to_numpy()
    assert not ((distance <= 4) & (region[:, None] != region[None])).any()


def test_metadata_does_not_tell_the_class_but_pixels_do(made, readable):
    folder, _, _ = made
    metadata = np.array(
        [
            [(folder / "train" / row.filename).stat().st_size, int(row.filename[4:9]), *row.shape]
            for row in readable.assign(shape=readable["pixels"].map(np.shape)).itertuples()
        ]
    )
    small_tree = DecisionTreeClassifier(max_depth=3, min_samples_leaf=10, random_state=0)
    assert grouped_auc(small_tree, metadata, readable) <= 0.65
    features = np.array([texture_features(pixels) for pixels in readable["pixels"]])
    boosted = HistGradientBoostingClassifier(max_iter=60, random_state=0)
    assert 0.75 <= grouped_auc(boosted, features, readable) <= 0.98


def test_both_classes_are_written_alike(made, readable):
    folder, _, _ = made
    tables = {"REAL": set(), "FAKE": set()}
    for row in readable.itertuples():
        with Image.open(folder / "train" / row.filename) as image:
            tables[row.label].add(image.quantization[0][0])
            assert (image.format, image.size, image.mode) == ("JPEG", (64, 64), "RGB")
    assert tables["REAL"] == tables["FAKE"]


def test_the_same_seed_gives_the_same_bytes(tmp_path, monkeypatch):
    trees = []
    for name in "ab":
        monkeypatch.setenv("RVF_ROOT", str(tmp_path / name))
        make.make_demo(7, n_train=40, n_test=20)
        trees.append(tree_of(tmp_path / name))
    assert trees[0] == trees[1]


def test_a_complete_one_is_reused_and_a_damaged_one_made_again(artefact_root):
    def made(seed=1):
        return make.make_demo(seed, n_train=40, n_test=20)

    folder = made()
    before = tree_of(artefact_root)
    stamp = (folder / "train.csv").stat().st_mtime_ns
    assert made() == folder
    assert (folder / "train.csv").stat().st_mtime_ns == stamp

    next((folder / "train").iterdir()).write_bytes(b"damaged")
    made()
    assert tree_of(artefact_root) == before

    paths.demo_truth_csv().unlink()
    made()
    assert tree_of(artefact_root) == before

    record = folder.with_name("demo.json")
    record.write_text(json.dumps({**json.loads(record.read_text()), "version": make.VERSION - 1}))
    made()
    assert tree_of(artefact_root) == before

    shutil.rmtree(folder)
    made()
    assert tree_of(artefact_root) == before

    made(seed=2)
    assert tree_of(artefact_root) != before


def test_a_failure_leaves_no_half_made_data_set_and_a_kill_nothing_for_long(
    artefact_root, monkeypatch
):
    home = artefact_root / ".cache"
    (home / ".demo.abc" / "new").mkdir(parents=True)  # of a killed process
    with monkeypatch.context() as patch:
        patch.setattr(make, "_write_items", full_disk)
        with pytest.raises(OSError, match="No space"):
            make.make_demo(n_train=40, n_test=20)
    assert [path.name for path in home.iterdir()] == ["demo.lock"]
    make.make_demo(n_train=40, n_test=20)
    assert sorted(path.name for path in home.iterdir()) == [
        "demo", "demo.json", "demo.lock", "demo_truth.csv"
    ]  # fmt: skip


def full_disk(*_):
    raise OSError("No space left on device")


def test_a_second_process_says_so_and_sizes_that_are_too_small_are_refused(
    artefact_root, monkeypatch
):
    monkeypatch.setattr(atomic, "PATIENCE", 0.1)
    lock = paths.dataset_dir(paths.DEMO).with_name("demo.lock")
    with file_lock(lock, "x"), pytest.raises(LockedError, match="demo data set"):
        make.make_demo(n_train=40, n_test=20)
    with pytest.raises(UserError, match="n_train >= 40"):
        make.make_demo(n_train=10)


@pytest.mark.parametrize("method", [*crops.RESAMPLERS, "splice", *crops.DENOISERS])
def test_every_manipulation_changes_pixels_and_leaves_its_input_alone(method, monkeypatch):
    regions = crops.make_regions(crops.read_photographs())
    image, donor = crops._cut(regions[5], 0), crops._cut(regions[5], 30)
    before, rng = image.copy(), np.random.default_rng(0)
    if method == "splice":
        fake = crops.splice(image, donor, rng)
    elif method in crops.RESAMPLERS:
        monkeypatch.setattr(crops, "RESAMPLERS", (method,))
        fake = crops.resample(image, rng)
    else:
        monkeypatch.setattr(crops, "DENOISERS", (method,))
        fake = crops.denoise(image, rng)
    assert (fake.shape, fake.dtype) == (image.shape, np.uint8)
    assert (image == before).all()
    assert 1 < np.abs(fake.astype(float) - image).mean() < 60
