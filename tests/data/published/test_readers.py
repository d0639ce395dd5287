"""Which reader a folder gets: the one that fits, or the one that dataset.yaml names."""

import pytest

from src.data.published.reading import FOLDERS, all_readers
from tests.data.conftest import refused

CELEB = ["Celeb-real/id0_0000/0.png", "Celeb-synthesis/id0_id1_0000/0.png"]


def test_unknown_layout_lists_what_there_is(toy):
    with refused("layout in .*dataset.yaml: 'celebdf'; did you mean 'celeb_df'"):
        toy(CELEB, {"dataset.yaml": "layout: celebdf\n"})


@pytest.mark.parametrize("name", [name for name in all_readers() if name != "celeb_df"])
def test_a_layout_that_does_not_fit_is_refused(toy, name):
    with refused(f"nothing there has the layout {name} that dataset.yaml names"):
        toy(CELEB, {"dataset.yaml": f"layout: {name}\n"})


def test_tables_are_asked_before_folders_and_a_new_reader_last():
    assert list(all_readers()) == [
        "deepfakebench", "faceforensics", "celeb_df", "dfdc_preview", "artifact", "antispoofing",
        "generators",
    ]  # fmt: skip


def test_a_competitions_folders_may_be_insisted_on(toy):
    files = ["nature/a.png", "ai/b.png"]
    assert toy(files).notes[0] == "layout: generators"
    dataset = toy(files, {"dataset.yaml": f"layout: {FOLDERS}\nlabels: {{nature: 0, ai: 1}}\n"})
    assert not any("layout:" in note for note in dataset.notes)
    assert dataset.train["label"].tolist() == [1, 0]


def test_a_sample_submission_means_a_competition(toy):
    dataset = toy(
        ["train/0_real/a.png", "train/1_fake/b.png", "test/c.png"],
        {
            "sample_submission.csv": "id,label\nc,0\n",
            "dataset.yaml": "labels: {0_real: 0, 1_fake: 1}\n",
        },
    )
    assert (len(dataset.train), len(dataset.test)) == (2, 1)


@pytest.mark.parametrize("to", ["/elsewhere", "C:\\x", "../x", "a/../../x", "~/x"])
def test_root_stays_inside_the_folder(toy, to):
    with refused("root.to is .*want a folder inside .*symbolic link"):
        toy(CELEB, {"dataset.yaml": f"root: {{from: a, to: '{to}'}}\n"})
