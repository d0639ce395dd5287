"""One file to its evidence: the recipe's own verdict, each person, each frame, and what is odd."""

import json
import shutil
import struct
import zlib
from dataclasses import fields, replace

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from src import paths
from src.cli import parsers
from src.errors import UserError
from src.evidence.evidence import (
    AtLevel,
    FileEvidence,
    FileFacts,
    Moment,
    NetMap,
    Person,
    Timeline,
    Verdict,
)
from src.evidence.page import evidence_page
from src.evidence.text import evidence_text
from src.inference.loaded import by_frame, named, only_person, without_frames
from tests.conftest import REPO
from tests.evidence.conftest import FAKE, REAL, people
from tests.faces_stub import write_film, write_picture

TWO = people((4, 4, 40, REAL), (60, 10, 30, FAKE))


def test_the_verdict_is_the_recipes_and_each_person_has_their_own(face_looker, tmp_path):
    looker = face_looker()
    home, out = tmp_path / "files", tmp_path / "out.csv"
    write_picture(home / "two.png", TWO)
    write_film(home / "two.mp4", [TWO] * 12)
    words = ["--data", "tiny", "--recipe", "tuned", "--input-dir", str(home), "--prob"]
    words += ["--risk", "0", "--output", str(out), "--device", "cpu", "--workers", "0"]
    assert parsers.main("predict", words) == 0
    probs = pd.read_csv(out, index_col="filename")["prob"]
    for name in ("two.png", "two.mp4"):
        found = looker.look(home / name)
        assert found.verdict.prob == pytest.approx(probs[name], abs=1e-6)
        assert found.verdict.said == "real"  # the largest face is
        assert [person.said for person in found.people] == ["real", "fake"]
        assert found.people[0].prob == pytest.approx(probs[name], abs=1e-6)
        faces = [cv2.imdecode(np.frombuffer(found.pictures[person.picture], np.uint8), 1)
                 for person in found.people]  # fmt: skip
        blue = [face[face.shape[0] // 2, face.shape[1] // 2, 0] for face in faces]
        assert blue[0] < 60 < 160 < blue[1]
        assert [level.level for level in found.stability] == ["jpeg70", "resize0.5"]


def test_a_clip_is_judged_by_the_second_and_says_which_frames_decide(face_looker, tmp_path):
    """A second of real, a second of fake, at 25 frames a second."""
    frames = [people((20, 10, 40, colour)) for colour in (REAL, FAKE) for _ in range(25)]
    write_film(tmp_path / "a.mp4", frames)
    found = face_looker(deliveries=0, frames=10, maps=False).look(tmp_path / "a.mp4")
    moments, cut = found.timeline.moments, found.verdict.threshold
    assert [moment.frame for moment in moments] == [2, 7, 12, 17, 22, 27, 32, 37, 42, 47]
    assert [moment.second for moment in moments] == pytest.approx([m.frame / 25 for m in moments])
    assert [moment.prob >= cut for moment in moments] == [False] * 5 + [True] * 5
    assert [moment.people for moment in moments] == [pytest.approx((m.prob,)) for m in moments]
    # As many as must go before the rest says the other.
    side = found.verdict.leans == "fake"
    assert found.timeline.flips_without
    assert {moments[place].prob >= cut for place in found.timeline.deciding} == {side}
    assert found.file.seconds == pytest.approx(2.0, abs=0.05)
    assert (found.people[0].start, found.people[0].end) == pytest.approx((0.08, 47 / 25))
    assert set(found.pictures) == {"face1", *(m.picture for m in moments if m.picture)}


def test_the_band_makes_verdicts_and_people_unsure_and_is_left_out_where_it_cannot_be_met(
    face_looker, tmp_path
):
    write_picture(tmp_path / "two.png", TWO)
    with pytest.raises(UserError, match=r"--risk 0\.001 cannot be met"):
        face_looker(risk=0.001)
    without = face_looker(risk=None).look(tmp_path / "two.png")
    assert (without.verdict.risk is None) == bool(without.verdict.no_risk)


def test_twenty_people_three_are_judged_and_the_rest_counted(face_looker, tmp_path):
    crowd = people(*((4 + 22 * (k % 5), 4 + 22 * (k // 5), 14 - k // 5, FAKE) for k in range(20)),
                   size=(100, 120))  # fmt: skip
    write_picture(tmp_path / "crowd.png", crowd)
    found = face_looker(deliveries=0).look(tmp_path / "crowd.png")
    assert (len(found.people), found.crowd) == (3, 20)


def _damaged(folder):
    rng = np.random.default_rng(0)
    (folder / "text.jpg").write_text("no picture")
    write_picture(folder / "nobody.png", people())
    write_film(folder / "whole.mp4", [rng.integers(0, 256, (64, 96, 3), np.uint8)] * 40)
    cut = (folder / "whole.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(cut[: len(cut) // 3])
    first = Image.fromarray(TWO)
    first.save(folder / "moving.gif", save_all=True, append_images=[Image.fromarray(people())])
    first.convert("I;16").save(folder / "deep.png")
    shape = struct.pack(">4sIIBBBBB", b"IHDR", 30_000, 30_000, 8, 0, 0, 0, 0)
    header = struct.pack(">I", 13) + shape + struct.pack(">I", zlib.crc32(shape))
    (folder / "huge.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header)
    write_film(folder / "other.mp4", [people()] * 8)
    (folder / "list.mp4").write_text("ffconcat version 1.0\nfile other.mp4\n")
    (folder / "words.mp4").write_text("v=0\no=- 0 0 IN IP4 127.0.0.1\n")
    (folder / "named.mp4").write_bytes((folder / "nobody.png").read_bytes())


def test_odd_files_have_evidence_that_says_what_is_wrong(face_looker, tmp_path):
    looker, home = face_looker(deliveries=0), tmp_path / "files"
    home.mkdir()
    _damaged(home)
    found = {path.name: looker.look(path) for path in sorted(home.iterdir())}
    unread = {name for name, one in found.items() if one.verdict.prob is None}
    assert unread == {"cut.mp4", "huge.png", "list.mp4", "text.jpg", "words.mp4"}
    assert (found["list.mp4"].file.width, found["list.mp4"].file.seconds) == (0, None)
    assert all(found[name].verdict.reasons == ("unreadable",) for name in unread)
    assert found["nobody.png"].no_people == "no_face"
    assert "no_face" in found["nobody.png"].verdict.reasons
    assert found["named.mp4"].verdict.reasons[-1] == "partial_file"
    assert len(found["moving.gif"].people) == 2


def test_limits_are_said_before_anything_is_looked_at(face_looker, tmp_path):
    write_film(tmp_path / "long.mp4", [TWO] * 60)
    write_picture(tmp_path / "wide.png", TWO)
    looker = face_looker(most_seconds=1, most_pixels=6000)
    with pytest.raises(UserError, match=r"wide\.png: 96 x 64 pixels; at most 6,000"):
        looker.look(tmp_path / "wide.png")
    looker = face_looker(most_seconds=1)
    with pytest.raises(UserError, match=r"my \<b\>: 2 seconds; at most 1 are"):
        looker.look(tmp_path / "long.mp4", "my <b>")
    with pytest.raises(UserError, match="by its name no picture and no clip"):
        looker.look(_touched(tmp_path / "a.txt"))
    with pytest.raises(UserError, match="no such file"):
        looker.look(tmp_path / "b.png")


def _touched(path):
    path.write_text("a")
    return path


def test_a_recipe_whose_checkpoints_are_gone_or_do_not_fit_is_refused(
    face_looker, face_root, tmp_path, monkeypatch
):
    root = shutil.copytree(face_root, tmp_path / "copy")
    monkeypatch.setenv("RVF_ROOT", str(root))
    with monkeypatch.context() as full:
        full.setattr("src.inference.loaded.free_bytes", lambda _: 1000)
        with pytest.raises(UserError, match=r"2 checkpoints hold 0\.0 GB .* are free on cpu"):
            face_looker()
    paths.checkpoint("tiny", "sgkf2_s0", "tiny", 1).unlink()
    with pytest.raises(UserError, match="fold_1"):
        face_looker()


def test_certificates_that_are_none_are_refused_before_any_file(face_looker, tmp_path, monkeypatch):
    monkeypatch.setenv("RVF_C2PA_ANCHORS", str(tmp_path / "gone.pem"))
    monkeypatch.setattr("src.evidence.looker.LoadedRecipe", None)  # no net is loaded before
    with pytest.raises(UserError, match=r"gone\.pem: the trusted certificates cannot be read"):
        face_looker()


def test_look_writes_text_json_and_a_page_that_loads_nothing(
    face_looker, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("src.cli.files.look.show_log", lambda: None)
    face_looker()
    hostile = tmp_path / 'a"><img src=x onerror=alert(1)>\u202egnp.png'
    notes = PngInfo()
    notes.add_text("parameters", "<script>alert(2)</script>\nSteps: 20, Sampler: Euler, Model: sd")
    Image.fromarray(TWO).save(hostile, pnginfo=notes)
    page, table = tmp_path / "page.html", tmp_path / "found.json"
    capsys.readouterr()
    words = ["--data", "tiny", "--html", str(page), "--json", str(table), "--device", "cpu"]
    words += ["--workers", "0", "--risk", "0", str(hostile), str(tmp_path / "lost.png")]
    for _ in range(2):  # what it wrote itself is written again
        assert parsers.main("look", words) == 0
    said = capsys.readouterr().out
    assert "person 2: fake" in said
    assert "lost.png: no such file" in said
    assert "\u202e" not in said
    (record,) = json.loads(table.read_text())
    assert record["file"]["name"] == hostile.name
    assert [person["said"] for person in record["people"]] == ["real", "fake"]
    text = page.read_text()
    assert "<img src=x" not in text
    assert "<script" not in text
    assert "&lt;script&gt;alert(2)&lt;/script&gt;" in text
    prompts = [one for one in record["provenance"]["findings"] if one["source"] == "png_text"]
    assert {one["strength"] for one in prompts} == {"stated"}
    assert "&lt;img src=x onerror=alert(1)&gt;\\u202egnp.png" in text
    assert "default-src &#39;none&#39;" in text or "default-src 'none'" in text
    page.write_text("mine")
    assert parsers.main("look", words) == 2
    assert "is there, and not as this command wrote it" in capsys.readouterr().err
    assert parsers.main("look", [*words[6:], "--language", "xx", "--data", "tiny"]) == 2
    assert "en, ko" in capsys.readouterr().err


def table(*views):
    return pd.DataFrame({"item_id": "a", "fold": 0, "view": views, "logit": range(len(views))})


def test_views_are_told_apart_by_level_frame_and_person():
    names = named(["full", "f03face1+flip", "jpeg50:f00+flip", "jpeg50:face0", "unreadable"])
    assert names.reset_index().to_numpy().tolist() == [
        ["full", "", -1, -1, ""],
        ["f03face1+flip", "", 3, 1, "+flip"],
        ["jpeg50:f00+flip", "jpeg50", 0, -1, "+flip"],
        ["jpeg50:face0", "jpeg50", -1, 0, ""],
    ]
    faces = table("f00face0", "f00face1", "f01face0+flip", "unreadable")
    assert only_person(faces, 0)["view"].tolist() == ["f00", "f01+flip", "unreadable"]
    assert only_person(faces, 1)["view"].tolist() == ["f00", "unreadable"]
    frames = by_frame(faces)
    assert frames["item_id"].tolist() == ["0", "0", "1"]
    assert frames["view"].tolist() == ["face0", "face1", "face0+flip"]
    cut = without_frames(table("f00", "f01", "f02"), [1, 2, 0])
    assert cut.groupby("item_id")["logit"].agg(list).to_dict() == {"1": [0, 2], "2": [0]}


def test_every_key_is_in_the_docs():
    text = (REPO / "docs" / "look.md").read_text()
    parts = (FileEvidence, FileFacts, Verdict, AtLevel, Person, Moment, Timeline, NetMap)
    keys = {one.name for part in parts for one in fields(part)} - {"pictures"}
    assert [key for key in sorted(keys) if f"`{key}`" not in text] == []


def test_a_map_that_stood_its_check_is_drawn_with_the_check_in_words(face_looker, tmp_path):
    write_picture(tmp_path / "two.png", TWO)
    found = face_looker(deliveries=0).look(tmp_path / "two.png")
    shown = NetMap("tiny", "0", "occlusion", "", 1.25, -0.5, 15 / 16, "map", 1)
    lost = NetMap("tiny", "0", "hirescam", "flat", None, None, None)
    drawn = {"map": found.pictures["face1"]}
    found = replace(found, maps=(shown, lost), pictures=found.pictures | drawn)
    page = evidence_page([found], "en")
    assert page.count("what the model saw, with the parts marked") == 1
    assert "changes by -1.25; when the same shape elsewhere is, by +0.50 on average" in page
    assert "It falls further than 94 % of those." in page
    assert "Withheld: HiResCAM, the map is the same everywhere." in page
    assert "It shows person 1." in page
    assert "Person 2 is called fake." in page
    text = evidence_text(found)
    assert "map: hirescam of tiny fold 0 withheld: the map is the same everywhere" in text
    assert "가림(occlusion)" in evidence_page([found], "ko")
