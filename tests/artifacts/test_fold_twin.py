"""A twin is its CSV in columns; a stale or damaged one counts for nothing and is written anew."""

import pandas as pd
import pytest

from src.artifacts import fold_twin, folds
from src.artifacts.fold_twin import twin_of
from src.artifacts.folds import read_folds, write_folds
from src.errors import UserError

TABLE = pd.DataFrame(
    {
        "item_id": [f"{x}/\u00e9 {i}.png" for i, x in enumerate("baabbaab")],
        "label": [0, 1] * 4,
        "group": ["g", "h", "", "", "k", "k", 'a "quoted", one', "l"],
        "domain": ["d"] * 7 + [""],
        "kind": ["image"] * 8,
        "fold": [0, 0, 1, 1, -1, -1, 0, 1],
    }
)
TABLE["group"] = TABLE["group"].where(TABLE["group"] != "", "item:" + TABLE["item_id"])


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setenv("RVF_ROOT", str(tmp_path))
    return tmp_path / "folds" / "toy" / "sgkf2_s1.csv"


@pytest.fixture
def from_csv(monkeypatch):
    """Return the paths of the CSVs that were read, in turn."""
    done, read = [], folds.read_csv

    def noted(path, *rest, **more):
        done.append(path)
        return read(path, *rest, **more)

    monkeypatch.setattr(folds, "read_csv", noted)
    return done


def test_a_twin_is_its_csv(file, from_csv, monkeypatch):
    write_folds(file, TABLE)
    assert not twin_of(file).exists()  # small ones have none
    plain = read_folds(file)
    monkeypatch.setattr(fold_twin, "FEWEST", 1)
    assert read_folds(file).equals(plain)
    assert twin_of(file).exists()
    for _ in range(2):
        pd.testing.assert_frame_equal(read_folds(file), plain)
    assert from_csv == [file, file]
    again = file.with_name("other.csv")
    write_folds(again, TABLE)
    assert again.read_bytes() == file.read_bytes()
    pd.testing.assert_frame_equal(read_folds(again), plain)
    assert from_csv == [file, file]


@pytest.mark.parametrize("damage", ["changed", "cut off", "empty", "another's", "no Arrow"])
def test_a_damaged_twin_counts_for_nothing(file, from_csv, monkeypatch, damage):
    monkeypatch.setattr(fold_twin, "FEWEST", 1)
    write_folds(file, TABLE)
    twin, whole = twin_of(file), twin_of(file).read_bytes()
    middle = whole.index("b/\u00e9 0".encode())
    twin.write_bytes({
        "changed": whole[:middle] + b"c" + whole[middle + 1 :],
        "cut off": whole[: len(whole) // 2],
        "empty": b"",
        "another's": b"ARROW1" * 50,
        "no Arrow": b"no",
    }[damage])  # fmt: skip
    assert set(read_folds(file)["item_id"]) == set(TABLE["item_id"])
    assert from_csv == [file]
    assert twin.read_bytes() == whole  # written anew
    read_folds(file)
    assert from_csv == [file]


def test_an_edited_csv_is_what_holds(file, from_csv, monkeypatch):
    monkeypatch.setattr(fold_twin, "FEWEST", 1)
    write_folds(file, TABLE)
    file.write_bytes(file.read_bytes().replace(b",image,", b",video,"))
    assert set(read_folds(file)["kind"]) == {"video"}
    assert set(read_folds(file)["kind"]) == {"video"}
    assert from_csv == [file]
    file.write_bytes(file.read_bytes().replace(b",video,-1", b",video,7"))
    with pytest.raises(UserError, match="folds are"):
        read_folds(file)
    file.unlink()
    with pytest.raises(UserError, match="no such fold file"):
        read_folds(file)
