"""Shards hold what was packed, WebDataset reads the same, and what is not whole is refused."""

import gc
import json
import tarfile
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from src.artifacts.files import sealed_text, sha256_file
from src.cli.scale.shards import check
from src.data.items.files import read_bytes, read_head, stamp_of
from src.data.items.manifest import Dataset
from src.data.items.shard_home import home_at
from src.data.layouts.load import load_dataset
from src.data.shards.members import key_of
from src.data.shards.write import pack
from tests.data.conftest import expand, refused
from tests.data.shards.conftest import SIZE


@pytest.fixture
def packed(original: Dataset, tmp_path: Path) -> tuple[Dataset, Path]:
    """Return a data set and the folder that its shards are in."""
    pack(original, home_at(str(tmp_path / "out")), SIZE)
    return original, tmp_path / "out"


def test_the_data_set_of_shards_is_the_one_that_was_packed(packed, shards_as, artefact_root: Path):
    was, place = packed
    found = shards_as("far", place)
    same = [c for c in was.items if c != "path"]
    pd.testing.assert_frame_equal(found.items[same], was.items[same])
    kept = {f.name for f in fields(Dataset)} - {
        "name", "root", "items", "stamps", "config", "notes", "sha256", "masks"
    }  # fmt: skip
    assert {name: getattr(found, name) for name in kept} == {k: getattr(was, k) for k in kept}
    assert (found.config.metric, found.config.n_folds) == ("auc", 3)
    assert was.notes == found.notes[1:]
    assert len(list(place.glob("train-*.tar"))) > 3
    for ours, theirs in zip(found.items["path"], was.items["path"], strict=True):
        data = read_bytes(was.root, theirs)
        assert read_bytes(found.root, ours) == data
        assert read_head(found.root, ours, 7) == data[:7]
        assert stamp_of(found.root, ours)[0] == len(data)


def test_the_folder_dropped_into_input_is_a_data_set_too(packed, shards_as, artefact_root: Path):
    was, place = packed
    place.rename(artefact_root / "input" / "dropped")
    found = load_dataset("dropped")
    assert found.items["item_id"].tolist() == was.items["item_id"].tolist()
    assert read_bytes(found.root, found.items["path"].iloc[3])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_reads_the_same_items(packed):
    wds = pytest.importorskip("webdataset", reason="webdataset is not installed")
    was, place = packed
    tars = sorted(map(str, place.glob("*.tar")))
    found = {}
    for sample in wds.WebDataset(tars, shardshuffle=False, empty_check=False):
        facts = json.loads(sample["json"])
        assert sample["__key__"] == key_of(facts["split"], facts["item_id"])
        assert facts["split"], facts["item_id"] not in found
        found[facts["split"], facts["item_id"]] = sample, facts
    gc.collect()  # it leaves its files open
    assert len(found) == len(was.items)
    for row in was.items.itertuples():
        sample, facts = found[row.split, row.item_id]
        assert sample["png"] == read_bytes(was.root, row.path)
        assert (facts["group"], facts["domain"]) == (row.group, row.domain)
        if row.split == "train":
            assert sample["cls"] == b"%d" % row.label
            assert facts["label"] == row.label
        else:
            assert "cls" not in sample
            assert "label" not in facts


def test_python_unpacks_them_into_the_folder_alone(packed, tmp_path: Path):
    _, place = packed
    names = []
    for tar in sorted(place.glob("*.tar")):
        with tarfile.open(tar) as file:
            names += file.getnames()
            file.extractall(tmp_path / "un", filter="data")
    assert len(names) == len(set(names)) == sum(f.is_file() for f in (tmp_path / "un").rglob("*"))


def test_keys_never_meet_and_never_lead_outside():
    ids = [
        "a.b",
        "a%2Eb",
        "a/b",
        "/a/b",
        "a//b",
        "a/b/",
        "../a",
        "a/../b",
        "a\nb",
        "a\\b",
        "A",
        "a",
    ]
    keys = [key_of("train", one) for one in ids]
    assert len(set(keys)) == len(ids)
    assert not any("." in key or "//" in key or key.startswith("/") for key in keys)


def test_packing_again_writes_the_same_bytes(packed, tmp_path: Path):
    was, place = packed
    again = tmp_path / "again"
    pack(was, home_at(str(again)), SIZE)
    for file in place.iterdir():
        if not file.name.startswith("."):
            assert (again / file.name).read_bytes() == file.read_bytes(), file.name


def test_a_stopped_packing_goes_on_after_the_last_whole_shard(packed, tmp_path, monkeypatch):
    was, place = packed
    target, read, count = home_at(str(tmp_path / "stopped")), read_bytes, [0]

    def stops(root: Path, path: str) -> bytes:
        count[0] += 1
        if count[0] == 20:
            raise KeyboardInterrupt
        return read(root, path)

    monkeypatch.setattr("src.data.shards.write.TOGETHER", 1)
    monkeypatch.setattr("src.data.shards.write.read_bytes", stops)
    with pytest.raises(KeyboardInterrupt):
        pack(was, target, SIZE)
    there = {f.name: f.stat().st_mtime_ns for f in Path(target.place).glob("*.tar")}
    assert 0 < len(there) < len(list(place.glob("*.tar")))
    assert not list(Path(target.place).glob("*.tmp")) + list(Path(target.place).glob(".*.tmp"))
    with refused("holds no shards.json.*goes on"):
        target.about()
    done = pack(was, target, SIZE)
    assert done.written == done.shards - len(there)
    for file in place.glob("[a-z]*"):
        assert (Path(target.place) / file.name).read_bytes() == file.read_bytes()
    kept = {name: (Path(target.place) / name).stat().st_mtime_ns for name in there}
    assert kept == there
    assert pack(was, target, SIZE).written == 0


def _damage(place: Path, how: str) -> None:
    shard = sorted(place.glob("train-*.tar"))[1]
    data = shard.read_bytes()
    about = json.loads((place / "shards.json").read_text())
    if how == "gone":
        shard.unlink()
    elif how == "half":
        shard.write_bytes(data[: len(data) // 2])
    elif how == "changed":
        shard.write_bytes(data.replace(b"IDAT", b"IDAX"))
    elif how == "index":
        index = place / "index.parquet"
        index.write_bytes(index.read_bytes()[:-9] + bytes(9))
    elif how == "labels":  # of equal size, and a whole file
        index = place / "index.parquet"
        table = pq.read_table(index, memory_map=False)
        label = pc.subtract(pa.scalar(1, pa.int8()), table["label"])
        at = table.schema.get_field_index("label")
        pq.write_table(
            table.set_column(at, table.schema.field(at), label), index, compression="zstd",
            write_page_checksum=True,
        )  # fmt: skip
        assert index.stat().st_size == about["files"]["index.parquet"]["bytes"]
    elif how == "answers":
        answers = place / "submission.parquet"
        answers.write_bytes(answers.read_bytes().replace(b"t0.png", b"t9.png"))
    elif how == "edited":
        (place / "shards.json").write_text(json.dumps({**about, "items": 3}))
    elif how == "version":
        (place / "shards.json").write_text(json.dumps({**about, "schema": 2}))
    else:
        (place / "shards.json").unlink()


@pytest.mark.parametrize(
    ("how", "said", "checked"),
    [
        ("gone", "train-000001.tar.*not there any more", "1 of .* files"),
        ("half", "bytes, the index says .* half copied", "1 of .* files"),
        ("changed", "CRC does not fit.*--check", "1 of .* files"),
        ("index", "index.parquet is not what was written", "1 of .* files"),
        ("labels", "index.parquet is not what was written .*SHA-256", "1 of .* files"),
        ("answers", "submission.parquet is not what was written", "1 of .* files"),
        ("edited", "not what was written", "not what was written"),
        ("version", "schema 2, this version reads 1", "schema 2"),
        ("no list", "holds no shards.json", "holds no shards.json"),
    ],
)
def test_what_is_not_whole_is_refused(packed, shards_as, how, said, checked):
    _, place = packed
    _damage(place, how)
    with refused(said):
        found = shards_as("far", place)
        for path in found.items["path"]:
            read_bytes(found.root, path)
    with refused(checked):
        check(str(place))


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("bytes", 40 * 10**9, "40000000000 bytes at .* of train-0"),
        ("bytes", -1, "-1 bytes at"),
        ("offset", 2**62, "bytes at 4611686018427387904 of"),
        ("offset", -512, "bytes at -512 of"),
        ("crc", 2**32, "bytes at"),
        ("mask_bytes", 10**6, "1000000 bytes at .* of train-0"),
        ("offset", None, "some items have no offset"),
        ("shard", None, "some items have no shard"),
    ],
)
def test_a_place_that_no_shard_has_is_refused(packed, shards_as, column, value, said):
    """An index that is whole by its SHA-256, and was made wrongly."""
    _, place = packed
    table = pq.read_table(place / "index.parquet", memory_map=False)
    at = table.schema.get_field_index(column)
    cells = table[column].to_pylist()
    cells[5] = value
    table = table.set_column(at, table.schema.field(at), pa.array(cells, table.schema.types[at]))
    pq.write_table(table, place / "index.parquet")
    about = json.loads((place / "shards.json").read_text())
    about.pop("sha256")
    about["files"]["index.parquet"]["sha256"] = sha256_file(place / "index.parquet")
    (place / "shards.json").write_text(sealed_text(about))
    with refused(f"index.parquet: .*{said}"):
        shards_as("far", place)


def test_a_shard_written_again_under_a_run_is_told(packed, shards_as, artefact_root: Path):
    _, place = packed
    found = shards_as("far", place)
    train = found.items[found.items["split"] == "train"]
    for path in train["path"]:
        read_bytes(found.root, path)
    for shard in place.glob("train-*.tar"):
        shard.write_bytes(bytes(shard.stat().st_size))
    with refused("is not what was written there"):
        read_bytes(found.root, train["path"].iloc[0])


def test_names_that_lead_elsewhere_are_refused(packed, shards_as, artefact_root: Path):
    _, place = packed
    about = json.loads((place / "shards.json").read_text())
    about.pop("sha256")
    about["shards"] = {f"../{name}": one for name, one in about["shards"].items()}
    (place / "shards.json").write_text(sealed_text(about))
    with refused("want a plain name"):
        shards_as("far", place)


def test_mistakes_in_what_is_asked_for(packed, shards_as, artefact_root: Path, tmp_path: Path):
    was, place = packed
    with refused("lies in the data set's own folder"):
        pack(was, home_at(str(was.root / "out")), SIZE)
    with refused("holds shards of toy already"):
        pack(was, home_at(str(place)), 2 * SIZE)
    with refused("wandbfs"):
        pack(was, home_at("wandb://bucket/there"), SIZE)
    with refused("fsspec knows"):
        pack(was, home_at("nowhere://there"), SIZE)
    with refused("`label_column:` says how files are read"):
        shards_as("far", place, "label_column: label\n")


def test_a_full_disk_is_told_before_anything_is_written(packed, tmp_path: Path, monkeypatch):
    was, _ = packed
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("D", (), {"free": 1000})())
    with refused("are still to be written and 1e-06 GB are free"):
        pack(was, home_at(str(tmp_path / "full")), SIZE)
    assert not list((tmp_path / "full").glob("*.tar"))


def test_shards_as_part_of_a_whole_and_as_extra(
    packed, shards_as, artefact_root: Path, make_dataset
):
    was, place = packed
    shards_as("far", place)
    make_dataset({"dataset.yaml": "combine: [far]\n"}, name="whole")
    whole = load_dataset("whole")
    assert len(whole.items) == len(was.train)
    assert read_bytes(whole.root, whole.items["path"].iloc[2])
    make_dataset({"dataset.yaml": f"shards: {place}\nextra: [toy]\n"}, name="more")
    more = load_dataset("more")
    assert len(more.extra_ids) > 0
    assert all(read_bytes(more.root, path) for path in more.items["path"])


def test_masks_are_packed_and_read(make_dataset, tmp_path: Path, shards_as, artefact_root: Path):
    import cv2

    mask = np.zeros((24, 24), np.uint8)
    mask[5:9] = 255
    drawn = cv2.imencode(".png", mask)[1].tobytes()
    make_dataset(expand("{real,fake}/{a,b,c.d}.png"))
    make_dataset({}, {}, name="toy")
    folder = artefact_root / "input" / "toy" / "masks" / "fake"
    folder.mkdir(parents=True)
    for name in ("a", "b", "c.d"):
        (folder / f"{name}.png").write_bytes(drawn)
    was = load_dataset("toy")
    assert len(was.masks) == 3
    pack(was, home_at(str(tmp_path / "out")), 10**6)
    found = shards_as("far", tmp_path / "out")
    assert found.masks.index.tolist() == was.masks.index.tolist()
    assert all(read_bytes(found.root, path) == drawn for path in found.masks)
