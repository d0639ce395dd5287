"""A kept manifest is the fresh one, in every field; whatever changes it, it is read anew."""

import gc
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from src import paths
from src.data.items import kept_manifest, marks
from src.data.items.kept_manifest import forget
from src.data.layouts import load
from src.data.layouts.load import load_dataset
from src.errors import UserError
from tests.conftest import REPO

FOUR = ["real/a.png", "real/b.png", "fake/a.png", "fake/c.png"]
TRAIN = [f"train/{path}" for path in FOUR]
CSV = "id,label,group,fold\na,0,p,0\nb,0,q,1\nc,1,p,0\nd,1,q,1\n"
SAMPLE = "id,usage,label\nt,public,0\nu,private,0\n"


def keep_everything(monkeypatch):
    """Keep data sets of any size, written just now."""
    monkeypatch.setattr(kept_manifest, "FEWEST", 0)
    monkeypatch.setattr(marks, "SETTLED_NS", -(10**18))


@pytest.fixture
def kept(monkeypatch):
    keep_everything(monkeypatch)


@pytest.fixture
def reads(monkeypatch):
    """Return the names of data sets that were listed and read, in turn."""
    done, understand = [], load._understand

    def noted(name, *rest):
        done.append(name)
        return understand(name, *rest)

    monkeypatch.setattr(load, "_understand", noted)
    return done


def assert_equal(one, two):
    for field in fields(one):
        a, b = getattr(one, field.name), getattr(two, field.name)
        if isinstance(a, pd.DataFrame):
            pd.testing.assert_frame_equal(a, b)
        elif isinstance(a, pd.Series):
            pd.testing.assert_series_equal(a, b)
        elif isinstance(a, np.ndarray):
            assert a.dtype == b.dtype
            assert a.tolist() == b.tolist()
        else:
            assert a == b, field.name


@pytest.mark.parametrize(
    ("files", "texts", "zips"),
    [
        ([*TRAIN, "test/images/t.png"], {}, {}),
        ([*TRAIN, "val/real/v.png", "val/fake/w.png", "test/real/t.png", "test/fake/u.png"], {},
         {}),
        ([f"train/{x}.png" for x in "abcd"] + ["test/t.png", "test/u.png"],
         {"train.csv": CSV, "sample_submission.csv": SAMPLE}, {}),
        ([], {"sample_submission.csv": "id,answer\n007,0\n"},
         {"train.zip": FOUR, "test.zip": ["images/007.png"]}),
        ([*TRAIN, "other/real/a.png", "other/fake/x.png", "other/fake/\u00e9.png"],
         {"dataset.yaml": "ignore: ['other/*']\n", "notes.txt": "nothing\n"}, {}),
    ],
    ids=["folders", "splits", "tables", "zips", "ignored"],
)  # fmt: skip
def test_it_is_the_fresh_one_in_every_field(make_dataset, monkeypatch, reads, files, texts, zips):
    make_dataset(files, texts, zips=zips)
    fresh = load_dataset("toy")
    keep_everything(monkeypatch)
    written, read = load_dataset("toy"), load_dataset("toy")
    assert_equal(fresh, written)
    assert_equal(fresh, read)
    assert reads == ["toy", "toy"]  # fresh, and the one that was kept


@pytest.mark.nightly
@pytest.mark.parametrize("folder", ["layouts", "published"])
def test_every_layout_of_the_tests_is_read_back_as_it_was(folder, tmp_path):
    """Their tests once more, every data set kept, held against the fresh one, and read again."""
    (tmp_path / "kept_plugin.py").write_text(
        "import pytest\n"
        "from tests.data.items import test_kept_manifest as own\n"
        "@pytest.fixture(autouse=True)\n"
        "def _kept(monkeypatch):\n"
        "    own.keep_everything(monkeypatch)\n"
        "    write = own.kept_manifest.KeptManifest.write\n"
        "    def both(kept, config, dataset, *rest):\n"
        "        found = write(kept, config, dataset, *rest)\n"
        "        assert found is not dataset\n"
        "        own.assert_equal(dataset, found)\n"
        "        return found\n"
        "    monkeypatch.setattr(own.kept_manifest.KeptManifest, 'write', both)\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "kept_plugin", "-p", "no:cacheprovider",
         f"tests/data/{folder}"],
        cwd=REPO, env={**os.environ, "PYTHONPATH": f"{tmp_path}:{REPO}"}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]


def _edit(place: Path, text: str) -> None:
    place.write_text(text)


CHANGES = {
    "a file comes": lambda root: (root / "train/real/new.png").write_bytes(b"123"),
    "a folder comes": lambda root: (root / "train/fake/deep").mkdir(),
    "a file goes": lambda root: (root / "train/real/b.png").unlink(),
    "a file is renamed": lambda root: (root / "train/real/b.png").rename(root / "train/real/z.png"),
    "a file is longer": lambda root: (root / "train/real/b.png").write_bytes(b"12345678"),
    "a file is another of its size": lambda root: (root / "train/real/b.png").write_bytes(b"2"),
    "yaml comes": lambda root: _edit(root / "dataset.yaml", "n_folds: 4\n"),
    "yaml elsewhere": lambda root: _edit(paths.dataset_yaml("toy"), "n_folds: 4\n"),
    "an archive comes": lambda root: (root / "notes.zip").write_bytes(b"PK\5\6" + bytes(18)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_folder_that_changed_is_read_anew(make_dataset, kept, reads, change):
    root = make_dataset(dict.fromkeys([*TRAIN, "train/real/d.png"], b"1"))
    load_dataset("toy")
    time.sleep(0.01)  # a tick of the file system's clock
    change(root)
    found = load_dataset("toy")
    assert len(reads) == 2
    forget("toy")
    assert_equal(load_dataset("toy"), found)


@pytest.mark.parametrize("place", ["train.csv", "sample_submission.csv", "train.zip"])
def test_a_table_or_an_archive_that_changed_is_read_anew(make_dataset, kept, reads, place):
    texts = {"train.csv": CSV, "sample_submission.csv": SAMPLE}
    zips = {"train.zip": [f"{x}.png" for x in "abcd"]}
    root = make_dataset(["test/t.png", "test/u.png"], texts, zips=zips)
    first = load_dataset("toy")
    time.sleep(0.01)
    data = (root / place).read_bytes().replace(b"c,1,p", b"c,1,q").replace(b"private", b"PRIVATE")
    os.utime(root / place, ns=(1, 1))  # as where copying keeps the date
    (root / place).write_bytes(data)
    found = load_dataset("toy")
    assert len(reads) == 2
    assert found.train["group"].tolist() == (list("pqqq") if place == "train.csv" else list("pqpq"))
    assert (found.submission == first.submission) == (place != "sample_submission.csv")


@pytest.mark.parametrize("how", ["extra", "combine"])
def test_a_part_that_changed_is_read_anew(make_dataset, kept, reads, how):
    make_dataset(TRAIN, name="one")
    other = make_dataset([f"train/{x}/{n}.png" for x in ("real", "fake") for n in (7, 8)],
                         name="two")  # fmt: skip
    if how == "combine":
        make_dataset({}, {"dataset.yaml": "combine: [one, two]\n"})
    else:
        make_dataset(TRAIN, {"dataset.yaml": "extra: [two]\n"})
    before = load_dataset("toy")
    assert_equal(before, load_dataset("toy"))
    assert reads == ["toy"]
    (other / "train/real/9.png").write_bytes(b"9")
    after = load_dataset("toy")
    assert len(after.items) == len(before.items) + 1
    assert "two/real/9.png" in set(after.items["item_id"])


def _flip(place: Path) -> None:
    data = bytearray(place.read_bytes())
    data[len(data) // 2] ^= 255
    place.write_bytes(data)


@pytest.mark.parametrize("suffix", [".json", ".arrow"])
@pytest.mark.parametrize(
    "damage",
    [Path.unlink, _flip, lambda p: p.write_bytes(b""), lambda p: os.truncate(p, 100)],
    ids=["gone", "changed", "empty", "cut off"],
)
def test_what_is_damaged_is_made_again(make_dataset, monkeypatch, reads, caplog, suffix, damage):
    caplog.set_level("INFO", "rvf")
    make_dataset(TRAIN)
    first = load_dataset("toy")  # in memory: what is mapped must not be damaged
    keep_everything(monkeypatch)
    load_dataset("toy")
    file = next(paths.kept_manifest("toy", "any").parent.glob(f"*{suffix}"))
    damage(file)
    assert_equal(first, load_dataset("toy"))
    assert len(reads) == 3
    said = [line for line in caplog.messages if "kept manifest of toy is made anew" in line]
    assert len(said) == (suffix != ".json" or damage is not Path.unlink)
    load_dataset("toy")
    assert len(reads) == 3


def test_other_code_reads_anew_and_another_grouping_is_kept_apart(
    make_dataset, kept, reads, monkeypatch
):
    make_dataset(TRAIN)
    load_dataset("toy")
    load_dataset("toy", group_by="video")
    load_dataset("toy")
    assert len(reads) == 2
    monkeypatch.setattr(kept_manifest, "code_sha256", lambda: "other")
    load_dataset("toy")
    assert len(reads) == 3


def test_the_code_is_that_of_all_layouts(monkeypatch, tmp_path):
    sources = [tmp_path / "src/data" / name for name in ("items", "layouts", "published")]
    for folder in [*sources, tmp_path / "src/data/pixels"]:
        folder.mkdir(parents=True)
    (tmp_path / "src/data/pixels/frames.py").write_text("")
    monkeypatch.setattr(paths, "REPO", tmp_path)
    found = {kept_manifest.code_sha256.__wrapped__()}
    for folder in sources:
        (folder / "more.py").write_text("x = 1")
        found.add(kept_manifest.code_sha256.__wrapped__())
    assert len(found) == 4


def test_of_many_files_some_are_looked_at_and_rescan_finds_the_rest(
    make_dataset, kept, reads, monkeypatch
):
    from src.cli.parsers import make_parser

    monkeypatch.setattr(kept_manifest, "MOST_LOOKED_AT", 3)
    monkeypatch.setattr(kept_manifest, "SPREAD", 2)
    root = make_dataset(dict.fromkeys(TRAIN, b"1"))
    ids = load_dataset("toy").items["item_id"].tolist()
    (root / "train" / ids[1]).write_bytes(b"22")  # between the two that are looked at
    assert load_dataset("toy").items["bytes"].tolist() == [1, 1, 1, 1]
    assert make_parser("data").parse_args(["--data", "toy", "--rescan"]).rescan
    forget("toy")
    assert load_dataset("toy").items["bytes"].tolist() == [1, 2, 1, 1]
    (root / "train" / ids[-1]).write_bytes(b"333")  # one that is
    assert load_dataset("toy").items["bytes"].tolist() == [1, 2, 1, 3]


def test_few_items_fresh_ones_and_a_disk_that_cannot_be_written(make_dataset, monkeypatch, reads):
    make_dataset(TRAIN)
    load_dataset("toy")
    monkeypatch.setattr(kept_manifest, "FEWEST", 0)
    load_dataset("toy")  # written this second: might change again, and look the same
    assert not [*paths.kept_manifest("toy", "any").parent.glob("*.json")]
    keep_everything(monkeypatch)
    shutil.rmtree(paths.cache_dir())
    paths.cache_dir().write_text("no folder")
    assert len(load_dataset("toy").items) == 4
    assert len(reads) == 3


def _load_and_note(log: str) -> None:
    understand = load._understand

    def noted(*args):
        with Path(log).open("a") as file:
            file.write("read\n")
        time.sleep(0.3)
        return understand(*args)

    load._understand = noted
    assert len(load_dataset("toy").items) == 4


def test_of_two_processes_one_reads_and_one_waits(make_dataset, kept, tmp_path):
    make_dataset(TRAIN)
    log, context = tmp_path / "log", multiprocessing.get_context("fork")
    both = [context.Process(target=_load_and_note, args=(str(log),)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    assert log.read_text() == "read\n"


def test_what_is_read_is_not_copied(make_dataset, kept):
    names = [f"train/{word}/{i:04d}.png" for word in ("real", "fake") for i in range(1000)]
    make_dataset(dict.fromkeys(names, b"1"))
    load_dataset("toy")
    before = pa.total_allocated_bytes()
    found = load_dataset("toy")
    parts = found.train, found.test
    assert pa.total_allocated_bytes() - before < 10_000
    assert len(parts[0]) == 2000
    assert not found.items["bytes"].to_numpy().flags.owndata


def test_the_collector_rests_while_a_set_is_read_and_then_goes_on(make_dataset, monkeypatch):
    make_dataset(TRAIN)
    seen, understand = [], load._understand

    def noted(*args):
        seen.append(gc.isenabled())
        return understand(*args)

    monkeypatch.setattr(load, "_understand", noted)
    load_dataset("toy")
    make_dataset({"dataset.yaml": "labels_file: none.csv\n"})
    with pytest.raises(UserError, match=r"none\.csv"):
        load_dataset("toy")
    assert seen == [False, False]
    assert gc.isenabled()
