"""`python -m src robustness`: scores against loops over the files; what is kept; errors."""

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import f1_score, roc_auc_score
from torch import Tensor, nn

from src import paths
from src.artifacts.oof import OOF_COLUMNS, read_views, write_oof, write_views
from src.cli import parsers
from src.config import read_model
from src.data.pixels import deliveries, reader
from src.data.pixels.deliveries import CARD, Level
from src.models.backbones import BACKBONES
from src.models.checkpoint import save_checkpoint
from src.models.classifier import build_classifier
from src.reporting import robustness
from tests.records import make_record
from tests.reporting.conftest import predict

SIDE, SLOPE, CUT = 16, 40.0, 0.5
NET = "backbone: {name: brightness, pretrained: none}\ntta: flip\n"


class Brightness(nn.Module):
    """Says fake of what is bright on its left half."""

    def __init__(self, num_classes: int = 1, drop_rate: float = 0.0) -> None:
        super().__init__()
        self.head = nn.Linear(1, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x[:, :, :, : SIDE // 2].mean((1, 2, 3))[:, None])

    def get_classifier(self) -> nn.Linear:
        return self.head


def said(pixels):
    """Return what the net says of a decoded picture, the mean of it and its mirror image."""
    small = cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return SLOPE * (small.mean() / 255 - CUT)


@pytest.fixture
def bright(toy, coarse, monkeypatch):
    """A model of three folds whose predictions are what its net says; file -> pixels, label."""
    monkeypatch.setitem(BACKBONES._things, "brightness", Brightness)
    monkeypatch.setattr(robustness, "ROUNDS", 30)
    folder, rng, pictures = paths.dataset_dir("toy") / "train", np.random.default_rng(0), {}
    for path in sorted(folder.glob("*/*.png")):
        shift = 25 * (path.parent.name == "fake")
        pixels = rng.integers(70, 170, (20, 24, 3)) + shift + rng.integers(-25, 25)
        pixels = np.clip(pixels, 0, 255).astype(np.uint8)
        cv2.imwrite(str(path), pixels[..., ::-1])
        pictures[f"{path.parent.name}/{path.name}"] = pixels
    home = paths.config_dirs("models")[0]
    home.mkdir(parents=True, exist_ok=True)
    size = f"{{image_size: {SIDE}, crop_pct: 1, mean: [0, 0, 0], std: [1, 1, 1]}}"
    (home / "bright.yaml").write_text(f"{NET}input: {size}\n")
    config = read_model("bright")
    table = pd.read_csv(paths.folds_csv("toy", "s"))
    table["logit"] = [said(pictures[name]) for name in table["item_id"]]
    for fold in range(3):
        path = paths.checkpoint("toy", "s", "bright", fold)
        path.parent.mkdir(parents=True, exist_ok=True)
        model = build_classifier(config)[0]
        with torch.no_grad():
            model.net.head.weight.fill_(SLOPE)
            model.net.head.bias.fill_(-SLOPE * CUT)
        save_checkpoint(path, model, config.as_dict(), ["full", "full+flip"])
        rows = table.loc[table["fold"] == fold, OOF_COLUMNS]
        write_oof(paths.oof_csv("toy", "s", "bright", fold), rows)
        make_record("toy", "s", "bright", fold, config=config.as_dict())
    return pictures, table.set_index("item_id")["label"]


@pytest.fixture
def run(bright, capsys):
    def run(*words, code=0, verb="robustness", data=True):
        words = [*(["--data", "toy", "--scheme", "s"] if data else []), *words]
        if verb == "robustness" and data:
            words += ["--workers", "0", "--precision", "fp32"]
        assert parsers.main(verb, words) == code
        captured = capsys.readouterr()
        return captured.err if code else captured.out

    return run


def card_of(name="bright"):
    table = pd.read_csv(paths.robustness_csv("toy", "s", name))
    return table.set_index(["of", "level", "score"])


def test_scores_at_a_level_are_those_of_loops_over_the_files_at_the_clean_threshold(bright, run):
    pictures, label = bright
    out = run("--model", "bright")
    card = card_of()
    assert len(card.loc["items"].index.unique("level")) == 17  # clean, whole, 14, their mean
    cuts = {}
    fold = pd.read_csv(paths.folds_csv("toy", "s")).set_index("item_id")["fold"]
    clean = pd.Series({name: said(pixels) for name, pixels in pictures.items()})
    for held in range(3):  # the best of the other folds, to the middle of two probs
        others = fold.index[fold != held]
        values = np.sort(clean[others])
        scores = [f1_score(label[others], clean[others] >= v, average="macro") for v in values]
        best = int(np.argmax(scores))
        cuts |= dict.fromkeys(fold.index[fold == held], (values[best - 1], values[best]))
    for level in ("clean", "jpeg30", "noise0.1", "crop0.8", "jitter0.2"):
        sent = {
            name: pixels
            if level == "clean"
            else Level(level).deliver(pixels, f"train/{name}").pixels
            for name, pixels in pictures.items()
        }
        logit = pd.Series({name: said(pixels) for name, pixels in sent.items()})[label.index]
        auc = roc_auc_score(label, logit)
        assert card.loc[("items", level, "auc"), "value"] == pytest.approx(auc, abs=2e-3)
        low, high = (np.array([cuts[name][side] for name in label.index]) for side in (0, 1))
        wanted = [f1_score(label, logit >= cut, average="macro") for cut in (low, high)]
        f1 = card.loc[("items", level, "macro_f1"), "value"]
        assert min(wanted) - 0.02 <= f1 <= max(wanted) + 0.02
    levels = (
        card.loc["items"]
        .xs("auc", level="score")["value"]
        .drop(["clean", "whole", "mean of levels"])
    )
    assert card.loc[("items", "mean of levels", "auc"), "value"] == pytest.approx(levels.mean())
    assert f"worst by AUC: {levels.idxmin()}" in out
    assert ("reals", "retouch", "fpr_on_reals") in card.index
    assert paths.robustness_csv("toy", "s", "bright").with_suffix(".png").is_file()


def test_each_item_is_decoded_once_and_what_is_kept_is_not_predicted_again(
    bright, run, monkeypatch
):
    calls = []
    decode = reader.decode
    monkeypatch.setattr(reader, "decode", lambda *a: calls.append(1) or decode(*a))
    out = run("--model", "bright")
    assert len(calls) == 60
    assert "looked at 960 delivered pictures" in out  # 60 items, 14 levels, whole and retouch
    again = run("--model", "bright", "--levels", "jpeg50", "blur1")
    assert "looked at" not in again
    assert len(calls) == 60
    more = run("--model", "bright", "--levels", "jpeg50", "long18-jpeg50")
    assert "looked at 60 delivered" in more
    views, metadata = read_views(paths.delivered_views("toy", "s", "bright", 42, 0))
    assert metadata["levels"] == ["whole", *CARD, "retouch", "long18-jpeg50"]
    assert set(views["view"]) == {
        f"{level}:{view}" for level in metadata["levels"] for view in ("full", "full+flip")
    }
    assert not views.duplicated(["item_id", "view"]).any()
    assert "looked at 60 delivered" in run(
        "--model", "bright", "--levels", "crop0.8", "--seed", "7"
    )


def test_a_recipe_is_scored_by_its_own_rule(bright, run):
    run("--recipe", "both", "--models", "bright", verb="tune")
    out = run("--recipe", "both", "--levels", "jpeg50", "chain2")
    assert "both on toy/s: 60 held-out items" in out
    table = pd.read_csv(paths.robustness_csv("toy", "s", "both", is_recipe=True))
    assert {"clean", "jpeg50", "chain2"} <= set(table["level"])


def test_levels_are_listed_and_bad_ones_are_refused_before_anything_is_looked_at(bright, run):
    listed = run("--list", data=False)
    assert "chain" in listed
    assert deliveries.OPERATIONS.get("jpeg").about in listed
    assert "did you mean 'blur'" in run("--model", "bright", "--levels", "blurr2", code=2)
    assert "want 0 to" in run("--model", "bright", "--seed", "-1", code=2)
    predict("stranger")
    told = run("--model", "stranger", code=2)
    assert "stranger" in told
    assert "Traceback" not in told


def test_what_was_made_otherwise_is_made_again_and_nothing_else_is_lost(bright, run):
    run("--model", "bright", "--levels", "jpeg50", "blur1")
    path = paths.delivered_views("toy", "s", "bright", 42, 1)
    views, metadata = read_views(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])  # damaged
    assert "looked at 40 delivered" in run("--model", "bright", "--levels", "jpeg50", "blur1")
    write_views(path, views, metadata | {"checkpoint_sha256": "other"})
    assert "looked at 20 delivered" in run("--model", "bright", "--levels", "jpeg50")
    assert read_views(path)[1]["levels"] == ["jpeg50"]  # those of other weights are gone
    means = {level: {"precision": "bf16", "engine": "eager"} for level in metadata["levels"]}
    write_views(path, views, metadata | {"means": means})  # made elsewhere, on a GPU
    assert "looked at 20 delivered" in run("--model", "bright", "--levels", "jpeg50")
    kept = read_views(path)[1]
    assert kept["levels"] == ["jpeg50", "blur1"]
    assert [kept["means"][one]["precision"] for one in kept["levels"]] == ["fp32", "bf16"]
    assert len(read_views(path)[0]) == len(views)
    table = read_views(path)[0].set_index(["item_id", "view"])["logit"]
    assert table.equals(views.set_index(["item_id", "view"])["logit"].reindex(table.index))


def test_an_item_that_is_broken_by_now_is_named_until_it_is_put_back(bright, run):
    path = paths.dataset_dir("toy") / "train" / "real" / "i02.png"
    whole = path.read_bytes()
    path.write_bytes(whole[:40])
    for _ in range(2):
        told = run("--model", "bright", "--levels", "jpeg50", code=2)
        assert "i02.png: cannot be decoded" in told
        assert "put the file back" in told
    path.write_bytes(whole)
    assert "jpeg50" in run("--model", "bright", "--levels", "jpeg50")
