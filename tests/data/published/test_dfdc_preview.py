"""The DFDC preview as downloaded: one JSON at the top, paths below it, people and sets."""

import json

import pytest

from src.data.folds.make import make_folds
from tests.data.conftest import refused


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


ROWS = content()
FIRST = next(iter(ROWS))


@pytest.fixture
def make(toy):
    def load(rows: dict, home: str = "", **more: str):
        texts = {f"{home}dataset.json": json.dumps(rows), **more}
        return toy({f"{home}{path}": f"clip {path}" for path in ROWS}, texts)

    return load


@pytest.mark.parametrize("home", ["", "dfdc_preview_set/"])
def test_labels_splits_people_and_methods(make, home):
    dataset = make(ROWS, home)
    train = dataset.train.set_index("item_id")
    expected = {home + path: row for path, row in ROWS.items() if row["set"] == "train"}
    assert train["label"].to_dict() == {p: int(r["label"] == "fake") for p, r in expected.items()}
    assert set(dataset.test["item_id"]) == {home + p for p in ROWS} - set(expected)
    assert dataset.test_labels is not None
    assert dataset.test_labels.sum() == 4
    assert set(train["domain"]) == {"original_videos", "method_A", "method_B"}
    # Persons 0 and 1 are swapped with each other, and 2 and 3.
    assert train["group"].value_counts().to_dict() == {
        "DFDC-preview/000": 6, "DFDC-preview/200": 6,
    }  # fmt: skip
    folds = make_folds(dataset, "sgkf2_s0_unscanned").folds
    assert (folds.groupby("group")["fold"].nunique() == 1).all()


def test_by_video_a_swap_stays_with_its_target(make):
    by_video = make(ROWS, **{"dataset.yaml": "group_by: video\n"})
    assert by_video.train["group"].nunique() == 4


def test_frames_of_the_videos_and_missing_ones(toy):
    texts = {"dataset.json": json.dumps(ROWS)}
    frames = [f"{path.removesuffix('.mp4')}/{i}.png" for path in ROWS for i in (0, 1)]
    dataset = toy(frames[2:], texts)
    assert set(dataset.items["item_id"]) == {*frames[2:], FIRST}
    assert dataset.missing == (FIRST,)
    assert toy(frames[:2]).missing == ()


@pytest.mark.parametrize(
    ("rows", "match"),
    [(ROWS | {FIRST: ROWS[FIRST] | {"label": "odd"}}, "entry 'original_.*label is 'odd'"),
     (ROWS | {FIRST: ROWS[FIRST] | {"set": "odd"}},
      "entry 'original_videos/000.*set is 'odd', want train, val or test"),
     ({"../a.mp4": {"label": "real", "set": "train"}}, "'../a.mp4': leads out of")],
)  # fmt: skip
def test_what_is_not_understood_is_named(make, rows, match):
    with refused(match):
        make(rows)
