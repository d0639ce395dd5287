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

    def run(output="out.csv", *more):
        words = ["--checkpoint", checkpoint, "--input-dir", folder, "--output", tmp_path / output]
        return predict([str(word) for word in [*words, *more, "--device", "cpu", "--workers", "0"]])

    run.checkpoint, run.folder, run.home = checkpoint, folder, tmp_path
    return run


def test_the_json_beside_the_answers_names_every_item_and_what_is_left_aside(answer, capsys):
    assert answer() == 0
    said = json.loads((answer.home / "out.json").read_text())
    table = pd.read_csv(answer.home / "out.csv")
    assert said["no_face"] == [f"walls/{number:02d}.png" for number in range(13)]
    assert said["fallback"]["items"] == [f"broken{number:02d}.jpg" for number in range(12)]
    assert said["fallback"]["prob"] is None
    assert said["partial"] == {}
    assert (said["schema"], said["rows"], said["threshold"]) == (1, 27, 0.5)
    assert said["checkpoints"] == {str(answer.checkpoint): sha256_file(answer.checkpoint)}
    assert said["engines"] == {str(answer.checkpoint): "eager fp32"}
    assert said["share_fake"] == pytest.approx(table["label"].mean())
    assert said["submission_sha256"] == sha256_file(answer.home / "out.csv")
    assert set(said["left_aside"]["files"]) == {"notes.md", "photo.jxl", "code.ts"}
    assert said["left_aside"]["tables"] == ["labels.csv"]
    assert {path.name for path in answer.home.glob("out*")} == {"out.csv", "out.json"}
    assert said["holds"] == {"output": "label", "means": "written as 0 (real) and 1 (fake)"}
    out = capsys.readouterr().out
    for text in (
        "13 show no face",
        "out.json",
        "left aside: 1 x neither image nor video (.md): notes.md",
        "convert it to PNG or JPEG (.jxl): photo.jxl",
        "left aside: 1 x text, no video (.ts): code.ts",
        "left aside: 1 x junk",
        "left aside: 1 x table: labels.csv",
    ):
        assert text in out


def test_probabilities_and_ranks_alone(answer, capsys):
    assert answer("p.csv", "--output-kind", "prob") == 0
    assert "'prob' holds probabilities, P(fake) in [0, 1], from 0." in capsys.readouterr().out
    assert answer("r.csv", "--output-kind", "rank", "--prob") == 0
    probs, ranks = pd.read_csv(answer.home / "p.csv"), pd.read_csv(answer.home / "r.csv")
    assert list(probs.columns) == ["filename", "prob"]
    assert list(ranks.columns) == ["filename", "rank", "prob"]
    assert ranks["prob"].equals(probs["prob"])
    assert ranks["rank"].isna().sum() == 12  # what cannot be decoded has no answer
    share = (probs["prob"].rank(method="average") - 0.5) / 15
    assert ranks["rank"].tolist() == pytest.approx(share.tolist(), nan_ok=True)
    said = json.loads((answer.home / "p.json").read_text())["holds"]
    assert said["range"] == [probs["prob"].min(), probs["prob"].max()]
    for more, why in ((["--threshold", "0.4"], "--threshold makes labels"),
                      (["--prob"], "writes P(fake) already")):  # fmt: skip
        assert answer("q.csv", "--output-kind", "prob", *more) == 2
        assert why in capsys.readouterr().err


def test_no_file_that_is_read_or_of_somebody_else_is_replaced(answer, artefact_root, capsys):
    home = answer.home
    for name, text in (("out.json", '{"a.jpg": {"label": "FAKE"}}'), ("mine.csv", "id,prob\n1,0\n"),
                       ("code.py", "print()\n")):  # fmt: skip
        (home / name).write_text(text)
    foreign = "is there, and not as this command wrote it; remove it, or take another name"
    for path, said in (
        (home / "out.csv", f"out.json {foreign}"),
        (home / "mine.csv", f"mine.csv {foreign}"),
        (next(artefact_root.glob("oof/*/*/*/fold_*.csv")), foreign),
        (home / "code.py", "ends with .csv"),
        (home / "answers.json", "ends with .csv"),
        (answer.folder / "face.png", "ends with .csv"),
        (answer.folder / "new.csv", "lies inside"),
    ):
        files = (path, path.with_suffix(".json"))
        was = [file.read_bytes() if file.exists() else None for file in files]
        assert answer(path) == 2
        assert said in capsys.readouterr().err
        assert [file.read_bytes() if file.exists() else None for file in files] == was
    # Its own is made anew, but not one that was edited since.
    assert [answer("other.csv"), answer("other.csv")] == [0, 0]
    (home / "other.csv").write_text("edited\n")
    assert answer("other.csv") == 2
    assert (home / "other.csv").read_text() == "edited\n"
