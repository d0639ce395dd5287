"""Nothing is written over what the same command did not write before."""

import json
import shutil
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from src.artifacts.outputs import check_output, wrote_answers
from src.artifacts.submissions import write_answers
from src.errors import UserError

TABLE = pd.DataFrame({"filename": ["a.png"], "label": [1]})


def check(path: Path, **more) -> None:
    check_output(path, ".csv", lambda it: wrote_answers(it, "answers"), beside=".json", **more)


def test_our_own_answers_are_replaced_also_where_a_kill_took_the_csv(tmp_path):
    path = tmp_path / "out.csv"
    check(path)
    write_answers(path, TABLE, {"answers": "out.csv"})
    check(path)
    path.unlink()
    check(path)
    write_answers(path, TABLE, {"answers": "out.csv"})
    assert path.read_text() == "filename,label\na.png,1\n"


@pytest.mark.parametrize("spoil", ["csv", "json", "other purpose", "json alone", "link"])
def test_what_somebody_else_wrote_or_changed_stays(tmp_path, spoil):
    path, sidecar = tmp_path / "out.csv", tmp_path / "out.json"
    write_answers(path, TABLE, {"voted" if spoil == "other purpose" else "answers": "out.csv"})
    if spoil == "csv":
        path.write_text("filename,label\na.png,0\n")
    if spoil == "json":
        sidecar.write_text("[" * 5000)
    if spoil == "json alone":
        path.unlink()
        sidecar.write_text('{"answers": "out.csv"}')
    if spoil == "link":
        path.unlink()
        sidecar.unlink()
        path.symlink_to("nowhere")
    with pytest.raises(UserError, match="not as this command wrote it"):
        check(path)


def test_names_folders_and_what_is_read_are_refused(tmp_path):
    read = tmp_path / "read"
    (read / "in.csv").mkdir(parents=True)
    (tmp_path / "link").symlink_to(read)
    (tmp_path / "round.csv").symlink_to("round.csv")
    for path, said in (
        (tmp_path / "test.png", "want a name that ends with .csv"),
        (read / "in.csv", "want a file in a folder that exists"),
        (tmp_path / "no" / "x.csv", "want a file in a folder that exists"),
        (tmp_path / "link" / "x.csv", "lies inside"),
        (tmp_path / "read" / ".." / "read" / "x.csv", "lies inside"),
        (tmp_path / "nul\0.csv", "no place for a file|folder that exists"),
        (tmp_path / "round.csv", "no place for a file|not as this command"),
    ):
        with pytest.raises(UserError, match=said):
            check(path, read=read)


def test_a_full_disk_leaves_an_older_pair(tmp_path, monkeypatch):
    path = tmp_path / "out.csv"
    write_answers(path, TABLE, {"answers": "out.csv"})
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}

    def full(*_args, **_more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(UserError, match="the disk is full"):
        write_answers(path, TABLE.assign(label=0), {"answers": "out.csv"})
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_foreign_archive_and_a_folder_are_no_bundle(tmp_path, artefact_root):
    from src.inference.bundle import bundle_output

    path = tmp_path / "photos.zip"
    for name, content in (("a.txt", "x"), ("rvf/bundle.json", "[]")):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, content)
        with pytest.raises(UserError, match="not as this command wrote it"):
            bundle_output(path, "toy", "tuned")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("rvf/bundle.json", json.dumps({"schema": 1}))
    assert bundle_output(path, "toy", "tuned") == path
    own = bundle_output(None, "toy", "tuned")
    own.mkdir(parents=True)
    with pytest.raises(UserError, match="want a file in a folder"):
        bundle_output(None, "toy", "tuned")
    shutil.rmtree(own)
    own.write_text("mine")
    with pytest.raises(UserError, match="not as this command wrote it"):
        bundle_output(None, "toy", "tuned")
