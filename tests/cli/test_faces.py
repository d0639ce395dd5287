import pytest

from src import paths
from src.cli.faces import main
from src.data.items.dataset_yaml import says_cropped
from tests.faces_stub import picture, use_red, write_film, write_picture


@pytest.fixture
def red(artefact_root, monkeypatch):
    says_cropped.cache_clear()
    train = artefact_root / "input" / "set" / "train"
    for k in range(4):
        patches = [(k, 2, 12 + k), (40, 20, 10)][: k % 3]  # 0, 1, 2, 0 faces
        write_picture(train / ("real" if k < 2 else "fake") / f"{k}.png", picture(*patches))
    return use_red(monkeypatch)


@pytest.mark.usefixtures("drawn")
def test_shares_and_a_sheet(red, capsys):
    assert main(["--detector", "red", "--preview"]) == 0
    lines = capsys.readouterr().out.splitlines()
    counts = {words[1]: words[3:] for words in map(str.split, lines) if words[0] == "train"}
    assert counts == {
        "fake": ["2", "50.0%", "50.0%", "2", "50.0%", "0.0%"],
        "real": ["2", "50.0%", "0.0%", "2", "50.0%", "0.0%"],
    }
    assert any(line.startswith("2 items show no face") and "real/0.png" in line for line in lines)
    assert any(line.startswith("4 frames searched") for line in lines)
    assert paths.faces_png("set").read_bytes().startswith(b"\x89PNG")
    assert main(["--detector", "red"]) == 0
    assert "nothing to search: all of it was known" in capsys.readouterr().out
    assert red.looked == 4


def test_boxes_that_were_filled_in_are_counted(red, artefact_root, capsys):
    train = artefact_root / "input" / "set" / "train"
    for k, found in enumerate((6, 12)):
        frames = [picture((3 * n, 5, 20)) if n < found else picture() for n in range(16)]
        write_film(train / "fake" / f"c{k}.mp4", frames)
    assert main(["--detector", "red"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (counts,) = [line.split() for line in lines if " video " in line]
    assert counts == ["train", "fake", "video", "2", "100.0%", "0.0%", "32", "56.2%", "43.8%"]
    (told,) = [line for line in lines if "filled in" in line]
    assert told.startswith("1 items ")
    assert told.endswith("frames: fake/c0.mp4 (10 of 16)")


def test_mistakes_are_named(red, capsys):
    assert main(["--detector", "rde"]) == 2
    assert "did you mean 'red'?" in capsys.readouterr().err
    assert main(["--margin", "0.5"]) == 2
    assert "margin must be >= 1 (found 0.5)" in capsys.readouterr().err
    assert main(["--detector", "yunet"]) == 2
    assert "wants face.detector_file" in capsys.readouterr().err
