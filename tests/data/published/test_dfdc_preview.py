"""The DFDC preview as downloaded: one JSON at the top, paths below it, people and sets."""

import json

import pytest

from src.data.folds.make import make_folds
from src.data.layouts.load import load_dataset
from src.errors import UserError


def refused(match: str):
    return pytest.raises(UserError, match=f"(?s){match}")


def content(people: int = 6, tested: int = 2) -> dict[str, dict]:
    """Return originals of each person and one swap a pair 0-1, 2-3, ...; the last are `test`."""
    made: dict[str, dict] = {}
    for k in range(people):
        part = "test" if k >= people - tested else "train"
        me, other = f"{k}00", f"{k ^ 1}00"
        made[f"original_videos/{me}/{me}_A_001.mp4"] = {
            "label": "real", "set": part, "target_id": None, "swapped_id": None,
        }  # fmt: skip
        for method in ("method_A", "method_B"):
            made[f"{method}/{me}/{me}_{other}_A_001.mp4"] = {
                "label": "fake", "set": part, "target_id": me, "swapped_id": other,
            }  # fmt: skip
    return made


def make(make_dataset, rows: dict, home: str = "", **more: str):
    make_dataset({f"{home}{path}": f"clip {path}" for path in rows},
                 {f"{home}dataset.json": json.dumps(rows), **more})  # fmt: skip
    return load_dataset("toy")


@pytest.mark.parametrize("home", ["", "dfdc_preview_set/"])
def test_labels_splits_people_and_methods(make_dataset, home):
    rows = content()
    dataset = make(make_dataset, rows, home)
    train = dataset.train.set_index("item_id")
    expected = {home + path: row for path, row in rows.items() if row["set"] == "train"}
    assert train["label"].to_dict() == {p: int(r["label"] == "fake") for p, r in expected.items()}
    assert set(dataset.test["item_id"]) == {home + p for p in rows} - set(expected)
    assert dataset.test_labels is not None
    assert dataset.test_labels.sum() == 4
    assert set(train["domain"]) == {"original_videos", "method_A", "method_B"}
    # Persons 0 and 1 are swapped with each other, and 2 and 3.
    assert train["group"].value_counts().to_dict() == {
        "DFDC-preview/000": 6, "DFDC-preview/200": 6,
    }  # fmt: skip
    folds = make_folds(dataset, "sgkf2_s0_unscanned").folds
    assert (folds.groupby("group")["fold"].nunique() == 1).all()


def test_by_video_a_swap_stays_with_its_target(make_dataset):
    dataset = make(make_dataset, content(), **{"dataset.yaml": "group_by: video\n"})
    assert dataset.train["group"].nunique() == 4


def test_frames_of_the_videos(make_dataset):
    rows = content()
    frames = [f"{path.removesuffix('.mp4')}/{i}.png" for path in rows for i in (0, 1)]
    make_dataset(frames, {"dataset.json": json.dumps(rows)})
    dataset = load_dataset("toy")
    assert set(dataset.items["item_id"]) == set(frames)
    assert dataset.missing == ()


def test_missing_videos_are_counted(make_dataset):
    rows = content()
    gone = next(iter(rows))
    make_dataset({p: "clip" for p in rows if p != gone}, {"dataset.json": json.dumps(rows)})
    assert load_dataset("toy").missing == (gone,)


@pytest.mark.parametrize(
    ("change", "match"),
    [({"label": "odd"}, "entry 'original_videos/000.*label is 'odd'"),
     ({"set": "odd"}, "entry 'original_videos/000.*set is 'odd', want train, val or test")],
)  # fmt: skip
def test_what_is_not_understood_is_named(make_dataset, change, match):
    rows = content()
    rows[next(iter(rows))] |= change
    with refused(match):
        make(make_dataset, rows)


def test_a_path_that_leads_out_is_refused(make_dataset):
    rows = {"../a.mp4": {"label": "real", "set": "train"}}
    make_dataset(["real/a.png"], {"dataset.json": json.dumps(rows)})
    with refused("'../a.mp4': leads out of"):
        load_dataset("toy")
