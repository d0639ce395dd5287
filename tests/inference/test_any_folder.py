"""Any folder's answers: the JSON beside them names every item, and what was left aside."""

import json

import pandas as pd
import pytest

from src import paths
from src.artifacts.files import sha256_file
from src.cli.predict import main as predict
from src.training.trainer import fit_fold
from tests.faces_stub import picture, use_red, write_film, write_picture

FACE = {"input": {"crop": "face"}, "face": {"detector": "red", "margin": 1.2}}


@pytest.fixture
def answer(make_job, monkeypatch, tmp_path):
    """Train a model that crops faces; returns `answer(output="out.csv")` on a folder."""
    use_red(monkeypatch)
    folder = tmp_path / "any"
    write_picture(folder / "face.png", picture((3, 3, 20)))
    for number in range(13):
        write_picture(folder / "walls" / f"{number:02d}.png", picture())
    for number in range(12):
        (folder / f"broken{number:02d}.jpg").write_bytes(b"\xff\xd8\xff no picture")
    write_film(folder / "film.mp4", [picture((3, 3, 20))] * 4)
    for name in ("notes.md", "photo.jxl", "code.ts", ".hidden"):
        (folder / name).write_text("const a = 1\n")
    (folder / "labels.csv").write_text("a,b\n")
    job = make_job(**FACE, optim={"epochs": 1})
    fit_fold(job)
    checkpoint = paths.checkpoint(*job.names)

    def run(output="out.csv"):
        words = ["--checkpoint", checkpoint, "--input-dir", folder, "--output", tmp_path / output]
        return predict([str(word) for word in [*words, "--device", "cpu", "--workers", "0"]])

    run.checkpoint, run.folder, run.home = checkpoint, folder, tmp_path
    return run


def test_the_json_beside_the_answers_names_every_item(answer, capsys):
    assert answer() == 0
    said = json.loads((answer.home / "out.json").read_text())
    table = pd.read_csv(answer.home / "out.csv")
    walls = [f"walls/{number:02d}.png" for number in range(13)]
    assert said["no_face"] == walls
    assert said["fallback"]["items"] == [f"broken{number:02d}.jpg" for number in range(12)]
    assert said["fallback"]["prob"] is None
    assert said["partial"] == {}
    assert (said["schema"], said["rows"], said["threshold"]) == (1, 27, 0.5)
    assert said["checkpoints"] == {str(answer.checkpoint): sha256_file(answer.checkpoint)}
    assert said["share_fake"] == pytest.approx(table["label"].mean())
    out = capsys.readouterr().out
    assert "13 show no face" in out
    assert "out.json" in out
    assert {path.name for path in answer.home.glob("out*")} == {"out.csv", "out.json"}


def test_what_is_left_aside_is_counted_and_named(answer, capsys):
    assert answer() == 0
    out = capsys.readouterr().out
    assert "left aside: 1 x neither image nor video (.md): notes.md" in out
    assert "convert it to PNG or JPEG (.jxl): photo.jxl" in out
    assert "left aside: 1 x text, no video (.ts): code.ts" in out
    assert "left aside: 1 x junk" in out
    assert "left aside: 1 x table: labels.csv" in out
    aside = json.loads((answer.home / "out.json").read_text())["left_aside"]
    assert set(aside["files"]) == {"notes.md", "photo.jxl", "code.ts"}
    assert aside["tables"] == ["labels.csv"]


def test_a_json_of_somebody_else_is_never_replaced(answer, capsys):
    (answer.home / "out.json").write_text('{"a.jpg": {"label": "FAKE"}}')
    assert answer() == 2
    assert "remove it, or take another name" in capsys.readouterr().err
    assert (answer.home / "out.json").read_text() == '{"a.jpg": {"label": "FAKE"}}'
    assert not (answer.home / "out.csv").exists()
    (answer.home / "out.json").unlink()
    assert answer() == answer() == 0
    assert answer("out.txt") == 2  # its JSON would be that of out.csv
    assert answer("answers.json") == 2
    assert "ends with .csv" in capsys.readouterr().err
    assert answer("other.csv") == 0
    assert answer("other.csv") == 0  # its own is made anew


def test_no_file_that_is_read_or_of_somebody_else_is_replaced(answer, artefact_root, capsys):
    names = next(artefact_root.glob("oof/*/*/*/fold_*.csv"))
    mine = answer.home / "mine.csv"
    mine.write_text("id,prob\n1,0.3\n")
    code = answer.home / "code.py"
    code.write_text("print()\n")
    inside = answer.folder / "face.png", answer.folder / "new.csv"
    for path, said in (
        (inside[0], "ends with .csv"),
        (inside[1], "lies inside"),
        (code, "ends with .csv"),
        (mine, "mine.csv is there, and not as this command wrote it"),
        (names, "is there, and not as this command wrote it"),
    ):
        was = path.read_bytes() if path.exists() else None
        assert answer(path) == 2
        assert said in capsys.readouterr().err
        assert (path.read_bytes() if path.exists() else None) == was


def test_the_json_names_its_csv(answer):
    assert [answer(), answer()] == [0, 0]
    said = json.loads((answer.home / "out.json").read_text())
    assert said["submission_sha256"] == sha256_file(answer.home / "out.csv")
    (answer.home / "out.csv").write_text("edited\n")
    assert answer() == 2
    assert (answer.home / "out.csv").read_text() == "edited\n"
