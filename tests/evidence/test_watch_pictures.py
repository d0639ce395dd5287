"""Frames that are decoded already are judged as the file that they are of."""

import copy
from dataclasses import replace

import numpy as np
import pytest

from src.artifacts.files import sha256_file
from src.artifacts.oof import DELIVERY_SEED, Levels
from src.data.pixels.video import read_clip
from src.errors import UserError
from src.inference.loaded import only_person
from src.inference.pictures import PictureJudge
from src.inference.stored import ItemsToPredict
from tests.evidence.conftest import FAKE, REAL, people
from tests.faces_stub import write_film

KEYS = ["fold", "view"]


def film(count=12):
    """Two people who move, a frame unlike the other; the larger one is real."""
    rng = np.random.default_rng(0)
    for k in range(count):
        picture = people((4 + k, 4, 40, REAL), (62, 10 + k, 26, FAKE), size=(64, 112))
        yield np.clip(picture + rng.integers(-8, 9, picture.shape), 0, 255).astype(np.uint8)


@pytest.fixture
def both(face_looker, tmp_path):
    """The recipe's nets with mirrored views, and beside each one that sees whole pictures."""
    loaded = face_looker().loaded
    nets = [replace(net, views=["full", "full+flip"]) for net in loaded.nets]
    for net in list(nets):
        engine = copy.copy(net.engine)
        engine.spec = replace(engine.spec, face=None)
        part = replace(net.part, model="whole")
        nets.append(replace(net, engine=engine, part=part))
    loaded.nets = nets
    path = tmp_path / "film.mp4"
    write_film(path, [*film()])
    items = ItemsToPredict(tmp_path, [path.name], [path.name], sha256_file(path))
    return loaded, items, read_clip(tmp_path, path.name, 4)


@pytest.mark.parametrize("levels", [None, ("jpeg50", "crop0.8-resize0.5")])
def test_a_film_watched_frame_by_frame_gives_the_logits_of_its_file(both, levels):
    loaded, items, clip = both
    judge, asked = PictureJudge(loaded), levels and Levels(levels, DELIVERY_SEED)
    judge.levels = asked or judge.levels
    windows = {"0": [], "1": []}
    for picture, number in zip(clip.frames, clip.indices.tolist(), strict=True):
        faces = sorted(judge.find(picture), key=lambda face: face.box[0])
        looks = judge.look(picture, faces, items.paths[0], number)
        for name, look in zip(windows, looks, strict=True):
            windows[name].append(look)
    views = judge.views(windows)
    seen = loaded.predict(items, asked)
    assert set(views) == {"tiny", "whole"}
    for model, table in views.items():
        for who in (0, 1):
            mine = table[table["item_id"] == str(who)].set_index(KEYS)["logit"].sort_index()
            file = only_person(seen.views[model], who).set_index(KEYS)["logit"].sort_index()
            assert len(mine) == 2 * 2 * 4 * len(levels or [""])
            np.testing.assert_allclose(mine, file.loc[mine.index], atol=1e-4)
    if asked is None:
        prob = loaded.vote(loaded.answering(seen.views), "video")["prob"].iloc[0]
        assert judge.vote(windows)["prob"]["0"] == pytest.approx(prob, abs=1e-5)


def test_nets_that_find_faces_otherwise_are_refused(face_looker):
    loaded = face_looker().loaded
    engine = copy.copy(loaded.nets[0].engine)
    engine.spec = replace(engine.spec, face=replace(engine.spec.face, detector="whole"))
    other = replace(loaded.nets[0], engine=engine, part=replace(loaded.nets[0].part, model="b"))
    loaded.nets = [*loaded.nets, other]
    with pytest.raises(UserError, match=r"different detectors \(tiny by red, b by whole\)"):
        PictureJudge(loaded)
