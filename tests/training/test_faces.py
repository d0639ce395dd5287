"""A model that crops faces, from training to a folder's answers."""

import cv2
import numpy as np
import pandas as pd
import pytest

from src import paths
from src.artifacts.files import sha256_file
from src.artifacts.oof import read_views, read_views_metadata
from src.cli.predict import main as predict
from src.compute.request import Compute
from src.config import FramesConfig
from src.data.items.dataset_yaml import says_cropped
from src.data.pixels import cache
from src.ensemble.vote import pool_views
from src.faces import detectors as face_detectors
from src.inference.passes import predict_parts
from src.inference.stored import ItemsToPredict, Part, without_face
from src.models.checkpoint import read_input
from src.training import features
from src.training.trainer import fit_fold
from tests.faces_stub import Red as FakeRed
from tests.faces_stub import picture, use_red, write_film, write_picture

FACE = {"input": {"crop": "face"}, "face": {"detector": "red", "margin": 1.2}}


@pytest.fixture
def red(monkeypatch, make_job):
    """Two thirds of the items show a red face; a fake's has a dark spot."""
    says_cropped.cache_clear()
    train = paths.dataset_dir("tiny") / "train"
    for k, file in enumerate(sorted(train.glob("*.png"))):
        patches = [(k % 30, 5, 20)] if k % 4 else []
        pixels = picture(*patches)
        pixels[20, k % 30 + 5] = 255 if k % 3 else 0
        pixels[40 + k // 8, 50 + k % 8] = k  # no two are copies
        write_picture(file, pixels)
    return use_red(monkeypatch)


def test_the_crop_travels_with_the_weights_and_boxes_are_found_once(
    make_job, red, tmp_path, capsys
):
    frames = {"train": 3, "eval": 5}
    job = make_job(**FACE, frames=frames)
    fit_fold(job)
    assert red.looked == 48
    spec, _ = read_input(paths.checkpoint(*job.names))
    assert (spec.face, spec.frames) == (job.config.face, FramesConfig(**frames))
    fit_fold(make_job(fold=1, **FACE, frames=frames))
    assert red.looked == 48

    folder = tmp_path / "any"  # is answered, and its faceless items are named
    write_picture(folder / "face.png", picture((3, 3, 20)))
    write_picture(folder / "wall.png", picture())
    words = ["--checkpoint", paths.checkpoint(*job.names), "--input-dir", folder]
    words += ["--output", tmp_path / "out.csv", "--device", "cpu", "--workers", "0"]
    assert predict([str(word) for word in words]) == 0
    assert "1 show no face, so the whole picture was judged: wall.png" in capsys.readouterr().out
    assert pd.read_csv(tmp_path / "out.csv")["label"].notna().all()


def test_a_frozen_backbone_sees_faces_too_and_its_features_are_those_of_its_pixels(
    make_job, red, monkeypatch
):
    key, calls = features.key_of, []
    monkeypatch.setattr(features, "key_of", lambda *given: calls.append(given) or key(*given))
    jobs = [make_job(model="face", **FACE, strategy="feature_extractor")]
    jobs += [make_job(model="full", strategy="feature_extractor")]
    assert all(fit_fold(job) for job in jobs)
    one, two = (pd.read_csv(paths.oof_csv(*job.names))["logit"].to_numpy() for job in jobs)
    assert red.looked == 48
    assert not np.allclose(one, two)

    given, made = calls[0], key(*calls[0])
    assert paths.feature_cache("tiny", made).is_file()
    for place, name in ((face_detectors, "CROPPING"), (cache, "VERSION"), (FakeRed, "identity")):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, "another")
            assert key(*given) != made, name
    assert key(*given) == made


def items_of(root, names):
    return ItemsToPredict(root, names, names, "m")


def test_every_face_is_a_view_and_no_face_is_flagged(make_job, red, tmp_path):
    job = make_job(input=FACE["input"], face=FACE["face"] | {"which": "all"}, tta="flip")
    fit_fold(job)
    views, _ = read_views(paths.oof_views(*job.names))
    assert set(views["view"]) == {"face0", "face0+flip"}
    folder = tmp_path / "test"
    write_picture(folder / "a.png", picture((3, 3, 20)))
    write_picture(folder / "b.png", picture((3, 3, 20), (40, 20, 14)))
    write_picture(folder / "c.png", picture())
    (folder / "d.png").write_bytes(b"broken")
    frames = [picture((3 + k, 3, 20), (40, 20, 14)) for k in range(4)]
    write_film(folder / "e.mp4", frames)
    names = ["a.png", "b.png", "c.png", "d.png", "e.mp4"]
    checkpoint = paths.checkpoint(*job.names)
    part = Part("m", 0, checkpoint, sha256_file(checkpoint), paths.test_views(*job.names))
    predict_parts([part], items_of(folder, names), Compute("cpu", "fp32", 0))
    views, _ = read_views(part.views)
    found = {item: sorted(table["view"]) for item, table in views.groupby("item_id")}
    both = [f"face{k}{flip}" for k in range(2) for flip in ("", "+flip")]
    assert found["a.png"] == found["c.png"] == both[:2]
    assert found["b.png"] == both
    assert found["d.png"] == ["unreadable"]
    assert found["e.mp4"] == [f"f{k:02d}{view}" for k in range(4) for view in both]
    assert read_views_metadata(part.views)["no_face"] == ["c.png"]
    assert without_face([part]) == ["c.png"]
    assert pool_views(views).notna().tolist() == [True, True, True, False, True]
    one = views[views["item_id"] == "b.png"].set_index("view")["logit"]
    by_face = [one[["face0", "face0+flip"]].mean(), one[["face1", "face1+flip"]].mean()]
    assert pool_views(views, "max")["b.png"] == pytest.approx(max(by_face), abs=1e-12)
    assert pool_views(views, "mean_logit")["b.png"] == pytest.approx(np.mean(by_face), abs=1e-12)


def test_a_second_face_is_what_a_picture_of_it_alone_is(make_job, red, tmp_path):
    fit_fold(make_job(input=FACE["input"], face=FACE["face"] | {"which": "all"}))
    checkpoint = paths.checkpoint("tiny", "s", "m", 0)
    patches = [(3, 3, 20), (40, 20, 14)]
    drawn = {"both": picture(*patches), "first": picture(patches[0]), "second": picture(patches[1])}
    for name, pixels in drawn.items():
        if name != "first":
            cv2.circle(pixels, (47, 27), 4, (0, 255, 0), -1)
        write_picture(tmp_path / f"{name}.png", pixels)
    names = ["both.png", "first.png", "second.png"]
    part = Part("m", 0, checkpoint, sha256_file(checkpoint), tmp_path / "views.parquet")
    predict_parts([part], items_of(tmp_path, names), Compute("cpu", "fp32", 0))
    logits = read_views(part.views)[0].set_index(["item_id", "view"])["logit"]
    assert logits["both.png", "face0"] == pytest.approx(logits["first.png", "face0"], abs=1e-6)
    assert abs(logits["both.png", "face0"] - logits["both.png", "face1"]) > 1e-3
    assert logits["both.png", "face1"] == pytest.approx(logits["second.png", "face0"], abs=1e-6)
