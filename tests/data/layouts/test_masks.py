"""Masks are told from pictures: in folders, in columns, in DeepfakeBench's JSON; never items."""

import io
import json

import cv2
import numpy as np
import pytest
from PIL import Image

from src.cli.data import main as data_command
from src.data.layouts.load import load_dataset
from tests.data.conftest import expand, picture, refused

PICTURES = expand("train/{real,fake}/{a,b,c}.png")


def grey(shows: str, seed: int = 0) -> bytes:
    """A picture file: a mask of some kind, a grey `face`, or a `picture` in colours."""
    if shows == "picture":
        return picture(seed)
    pixels = np.zeros((48, 48, 3), np.uint8)
    pixels[10:24, 8:30] = (0, 0, 255) if shows == "colours" else 255
    if shows == "soft mask":
        pixels = cv2.GaussianBlur(pixels, (0, 0), 1.5)
    if shows == "face":
        pixels = np.array(Image.open(io.BytesIO(picture(seed, 48))).convert("L"))
    return cv2.imencode(".jpg" if shows == "jpeg mask" else ".png", pixels)[1].tobytes()


def said(dataset, text: str) -> bool:
    return any(text in note for note in dataset.notes)


@pytest.mark.parametrize(
    ("pictures", "masks"),
    [
        (PICTURES, ["train/fake/masks/a.png", "train/fake/masks/b.jpg"]),
        (PICTURES, ["train/masks/fake/a.png", "train/masks/fake/b.png"]),
        (PICTURES, ["train/masks/a.png", "train/masks/b.png"]),
        (PICTURES, ["masks/fake/a.png", "masks/fake/b.png"]),
        (PICTURES, ["Masks/train/fake/a.png", "Masks/train/fake/b.png"]),
        (expand("train/{real,fake}/images/{a,b,c}.png"), ["train/fake/mask/a.png"]),
        (expand("train/{real,fake}/frames/v1/{a,b,c}.png"), ["train/fake/masks/v1/a.png"]),
    ],
)
def test_a_folder_of_masks(toy, pictures, masks):
    yaml = {"dataset.yaml": "subfolders: group\n"} if "frames" in pictures[0] else {}
    spare = [masks[0].replace("a.png", "nobody.png"), masks[0].replace("a.png", "c.mp4")]
    plain, dataset = toy(pictures, yaml), toy(dict.fromkeys([*masks, *spare], grey("mask")), yaml)
    # What is an item, and its fingerprint, are as without the masks.
    assert dataset.items.equals(plain.items)
    assert dataset.sha256 == plain.sha256
    assert plain.masks.empty
    assert not said(plain, "masks")
    pairs = {item.rpartition("/")[2][0]: mask for item, mask in dataset.masks.items()}
    assert pairs == {mask.rpartition("/")[2][0]: mask for mask in masks}
    labels = dataset.items.set_index("item_id")["label"]
    assert set(labels[dataset.masks.index]) == {1}
    assert said(dataset, f"masks: {len(masks)} of 3 fakes have one")
    assert dataset.ignored == {"masks of no train picture": 2}


ATTACKS = expand("{live,spoof}/{000,001,002,003,004,005}.png")
WORN = [f"masks/{k:03d}.png" for k in range(6)]
OTHERWISE = "`labels: {live: 0, spoof: 1, masks: 1}` in dataset.yaml"


@pytest.mark.parametrize("shows", ["mask", "soft mask", "colours", "jpeg mask"])
def test_a_folder_beside_classes_that_holds_masks(toy, shows):
    pictures = {path: grey("picture", k) for k, path in enumerate(ATTACKS)}
    dataset = toy(pictures, dict.fromkeys(WORN, grey(shows)))
    assert dataset.masks.to_dict() == {f"spoof/{k:03d}.png": path for k, path in enumerate(WORN)}
    assert said(
        dataset, f"read as masks, no pictures: masks (6 files); for pictures say {OTHERWISE}"
    )


@pytest.mark.parametrize("attacks", [ATTACKS, [path.replace("/", "/p1/") for path in ATTACKS]])
@pytest.mark.parametrize("shows", ["picture", "face"])
def test_attacks_with_masks_beside_the_other_classes_are_no_masks(toy, shows, attacks):
    """Running numbers as names fit: what the files show tells, or else that they fit reals too."""
    worn = [path.replace("/", "/p1/") if "p1" in attacks[0] else path for path in WORN]
    made = {path: grey(shows, k) for k, path in enumerate([*attacks, *worn])}
    yaml = "subfolders: group\n" * ("p1" in attacks[0])
    with refused("6 of 18 train files have no label.*`labels: {live: 0, spoof: 1, masks: 0|1}`"):
        toy(made, {"dataset.yaml": yaml})
    dataset = toy(made, {"dataset.yaml": f"{yaml}labels: {{live: 0, spoof: 1, masks: 1}}\n"})
    assert sorted(dataset.train["path"]) == sorted(made)
    assert dataset.masks.empty


def test_grey_files_with_names_of_fakes_alone_are_masks_and_unreadable_ones_say_nothing(toy):
    pictures = expand("train/real/{r,s}.png", "train/fake/{a,b}.png")
    soft = {"train/masks/a.png": grey("face"), "train/masks/b.png": b"no picture"}
    dataset = toy({path: grey("picture", k) for k, path in enumerate(pictures)}, soft)
    assert dataset.masks.to_dict() == {f"fake/{k}.png": f"train/masks/{k}.png" for k in "ab"}
    soft["train/masks/a.png"] = b"no picture"
    assert toy(soft).masks.to_dict() == dataset.masks.to_dict()


def test_in_zips_in_test_and_of_reals(toy, capsys):
    files = [*PICTURES, *expand("{train,train/masks}/real/z.png"), "test/t.png", "test/masks/t.png"]
    dataset = toy(files, zips={"masks.zip": ["fake/a.png"]})
    assert dataset.test["item_id"].tolist() == ["t.png"]
    assert dataset.masks.to_dict() == {
        "fake/a.png": "masks.zip!/fake/a.png", "real/z.png": "train/masks/real/z.png",
    }  # fmt: skip
    assert data_command(["--data", "toy"]) == 0
    printed = capsys.readouterr().out
    assert "masks: 1 of 3 fakes have one; 1 reals have one too, which must be empty" in printed
    assert "left aside: 1 x masks of no train picture" in printed


def test_masks_of_clips_are_no_items_and_nobodys(toy):
    clips = expand("train/{real,fake}/{a,b}.mp4")
    masks = ["train/fake/masks/a.mp4", "train/fake/masks/b.png"]
    dataset = toy([], {name: f"clip {name}" for name in [*clips, *masks]})
    assert sorted(dataset.items["path"]) == sorted(clips)
    assert dataset.masks.empty
    assert dataset.ignored == {"masks of no train picture": 2}


@pytest.mark.parametrize(
    ("files", "yaml"),
    [
        # An attack with a mask is no mask, whether its folder is a domain or a class.
        (expand("{print,mask}/{real,fake}/{a,b}.png"), ""),
        (expand("train/{real,mask}/{a,b}.png"), "labels: {real: 0, mask: 1}\n"),
        (expand("train/real/{a,b}.png", "train/fake/{print,mask}/{a,b}.png"),
         "subfolders: domain\n"),
    ],
)  # fmt: skip
def test_attacks_with_masks_are_items(toy, files, yaml):
    dataset = toy(files, {"dataset.yaml": yaml})
    assert sorted(dataset.train["path"]) == sorted(files)
    assert dataset.masks.empty


CSV = """image,label,mask
a.png,real,
b.png,fake,gt/b_mask.png
c.png,fake,gt\\c_mask.png
d.png,fake,gt/d_mask.png
"""
COLUMN = expand("train/{a,b,c,d}.png", "gt/{b,c}_mask.png")


def test_a_column_of_masks(toy):
    dataset = toy(COLUMN, {"train.csv": CSV})
    assert sorted(dataset.train["item_id"]) == ["a.png", "b.png", "c.png", "d.png"]
    assert dataset.masks.to_dict() == {"b.png": "gt/b_mask.png", "c.png": "gt/c_mask.png"}
    assert said(dataset, "masks: 2 of 3 fakes have one")
    assert said(dataset, "mask names 3 masks, of which 1 are not here, the first in row 5: 'gt/d_")


def test_a_column_that_says_who_wears_a_mask(toy):
    worn = CSV.replace("gt/b_mask.png", "1").replace("gt\\c_mask.png", "0").replace("gt/d_mask", "")
    dataset = toy(COLUMN[:4], {"train.csv": worn})
    assert dataset.masks.empty
    with refused(
        r"row 2: mask \(mask_column in dataset.yaml\) is '', and no value of it is a file"
    ):
        toy(COLUMN[:4], {"train.csv": worn, "dataset.yaml": "mask_column: mask\n"})


def test_masks_of_bare_names_in_a_folder_of_their_own(toy):
    table = "name,label,gt_file\na,0,\nb,1,b.png\n"
    files = expand("train/{a,b}.png", "train/masks/b.png")
    dataset = toy(files, {"train.csv": table, "dataset.yaml": "mask_column: gt_file\n"})
    assert dataset.masks.to_dict() == {"b": "train/masks/b.png"}


def bench(masks: list[str], frames: str = "Old\\Fake\\frames\\v") -> str:
    video = {"label": "roop_Fake", "frames": [f"{frames}\\{i:03d}.png" for i in range(3)]}
    real = {"label": "roop_Real", "frames": ["Old\\Real\\frames\\r\\000.png"]}
    return json.dumps({
        "roop": {"roop_Fake": {"train": {"v": video | {"masks": masks}}},
                 "roop_Real": {"train": {"r": real}}},
    })  # fmt: skip


def test_deepfakebench(toy):
    """Beside the frames they are found unnamed, elsewhere by name, with the same renaming."""
    frames = [*(f"Fake/frames/v/{i:03d}.png" for i in range(3)), "Real/frames/r/000.png"]
    beside = [f"Fake/masks/v/{i:03d}.png" for i in range(2)]
    dataset = toy([*frames, *beside], {"x.json": bench([])})
    assert sorted(dataset.train["path"]) == sorted(frames)
    assert dataset.masks.to_dict() == dict(zip(frames, beside, strict=False))
    assert said(dataset, "masks: 2 of 3 fakes have one")
    named = ["T:\\Old\\Fake\\gt\\v\\002.png", "T:\\Old\\Fake\\gt\\v\\007.png"]
    dataset = toy([*frames, *beside, "Fake/gt/v/002.png"], {"x.json": bench(named)})
    masks = [*beside, "Fake/gt/v/002.png"]
    assert dataset.masks.to_dict() == dict(zip(frames, masks, strict=False))
    assert said(dataset, "1 of 2 masks are named but not there")
    with refused("x.json: roop > roop_Fake > train > v: masks is no list of paths"):
        toy(frames, {"x.json": bench([7])})  # type: ignore[list-item]


def test_parts_of_a_whole_and_extra_keep_theirs(make_dataset, toy):
    make_dataset([*PICTURES, "train/masks/fake/a.png"], name="one")
    make_dataset(expand("train/{real,fake}/{d,e}.png"), name="two")
    both = toy({}, {"dataset.yaml": "combine: [one, two]\n"})
    assert both.masks.to_dict() == {"one/fake/a.png": "../one/train/masks/fake/a.png"}
    assert said(both, "masks: 1 of 5 fakes have one")
    make_dataset([], {"dataset.yaml": "extra: [one]\n"}, name="two")
    assert load_dataset("two").masks.to_dict() == both.masks.to_dict()
