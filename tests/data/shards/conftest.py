"""A small data set of awkward names, to be packed."""

from collections.abc import Callable
from pathlib import Path

import pytest

from src.data.items.manifest import Dataset
from src.data.layouts.load import load_dataset
from tests.data.conftest import expand

NAMES = expand("{real,fake}/p{0,1,2}/{a,b.f001,b.f002,Ü é}.png")
TABLE = "filename,label,group\n" + "".join(
    f"{name},{int(name[0] == 'f')},{name.split('/')[1]}\n" for name in NAMES
)
TEST = expand("test/{t0,t1.x,t2}.png")
SAMPLE = "filename,label\n" + "".join(f"{name[5:]},0\n" for name in reversed(TEST))
YAML = "metric: auc\nn_folds: 3\n"
SIZE = 10_000  # of a shard: two items or three


@pytest.fixture
def original(make_dataset: Callable[..., Path]) -> Dataset:
    """Return a data set of 24 train and 3 test items."""
    texts = {"train.csv": TABLE, "sample_submission.csv": SAMPLE, "dataset.yaml": YAML}
    make_dataset(NAMES + TEST, texts)
    return load_dataset("toy")


@pytest.fixture
def shards_as(artefact_root: Path) -> Callable[..., Dataset]:
    """Return `shards_as(name, place)`, which loads the shards of a place as a data set."""

    def load(name: str, place: object, more: str = "") -> Dataset:
        folder = artefact_root / "input" / name
        folder.mkdir(parents=True, exist_ok=True)
        said = place if "{" in str(place) else f"'{place}'"
        (folder / "dataset.yaml").write_text(f"shards: {said}\n{more}")
        return load_dataset(name)

    return load
