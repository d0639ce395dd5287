"""`evaluate --by mask`: truth and maps held against loops over the files; blends; bad input."""

import logging

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from src import paths
from src.cli import parsers
from src.config import read_model
from src.models.backbones import BACKBONES
from src.models.checkpoint import save_checkpoint
from src.models.classifier import build_classifier
from src.reporting.localisation import localised, pixel_scores
from src.reporting.localisation.localised import truths_of
from src.reporting.report.beside import localisation_blocks
from src.reporting.report.subjects import subject_of_runs
from src.reporting.runs import collect_runs
from src.training.auxiliary.localisation import boundary_of
from tests.reporting.conftest import N, predict

SIDE = 16


class Blue(nn.Module):
    """Says that pixels were manipulated by how blue they are."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, 2]


class Teller(nn.Module):
    """One linear layer on the mean colour, and a boundary map."""

    def __init__(self, num_classes: int = 1, drop_rate: float = 0.0) -> None:
        super().__init__()
        self.head, self.map = nn.Linear(3, num_classes), Blue()
        self.shows = {"boundary": "map"}

    def forward(self, x: Tensor) -> Tensor:
        self.map(x)
        return self.head(x.mean((2, 3)))

    def get_classifier(self) -> nn.Linear:
        return self.head


@pytest.fixture
def told(toy, coarse, monkeypatch):
    """Pictures of 16 px, of most fakes a mask; blue tells a little; `run(*words)` the command."""
    monkeypatch.setitem(BACKBONES._things, "teller", Teller)
    monkeypatch.setattr(pixel_scores, "REPLICATES", 20)
    folder = paths.dataset_dir("toy") / "train"
    rng = np.random.default_rng(0)
    pictures, masks = {}, {}
    for path in sorted(folder.glob("*/*.png")):
        mask = np.zeros((SIDE, SIDE), np.uint8)
        top, left = rng.integers(0, 8, 2)
        mask[top : top + 8, left : left + 6] = 255 * (path.parent.name == "fake")
        pixels = rng.integers(0, 200, (SIDE, SIDE, 3), dtype=np.uint8)
        pixels[..., 2] = np.clip(pixels[..., 2] + mask // 4, 0, 255)
        cv2.imwrite(str(path), pixels[..., ::-1])
        name = f"{path.parent.name}/{path.name}"
        pictures[name] = pixels[..., 2].astype(float)
        if path.parent.name == "real" or path.name.startswith(("i0", "i1", "i2", "i3", "i4")):
            masks[name] = mask
    for name, mask in masks.items():
        if mask.any():
            path = folder / "masks" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), mask)
    home = paths.config_dirs("models")[0]
    home.mkdir(parents=True, exist_ok=True)
    for model, net in (
        ("teller", "{name: teller, pretrained: none}"),
        ("mute", "{name: compact_net, pretrained: none, kwargs: {widths: [8, 8]}}"),
    ):
        (home / f"{model}.yaml").write_text(
            f"backbone: {net}\ninput: {{image_size: {SIDE}, crop_pct: 1}}\n"
        )
        config = read_model(model)
        for fold in range(3):
            path = paths.checkpoint("toy", "s", model, fold)
            path.parent.mkdir(parents=True, exist_ok=True)
            save_checkpoint(path, build_classifier(config)[0], config.as_dict(), ["full"])
        predict(model)
    return pictures, masks


@pytest.fixture
def run(told, capsys):
    def run(*words, code=0, model="teller"):
        words = ("--data", "toy", "--scheme", "s", "--by", "mask", *words)
        assert parsers.main("evaluate", ["--model", model, *words]) == code
        captured = capsys.readouterr()
        return captured.err if code else captured.out

    return run


def scores_of(model="teller"):
    table = pd.read_csv(paths.localisation_csv("toy", "s", model), keep_default_na=False)
    whole = table[table["by"] == ""]
    return whole.set_index(["truth", "metric"])["score"].astype(float)


def iou(so, said):
    return (so & said).sum() / (so | said).sum()


def test_scores_are_those_of_loops_over_the_files(told, run):
    pictures, masks = told
    out = run()
    assert f"masks of {len(masks) - N // 2} of {N // 2} held-out fakes" in out
    assert "compared in 16 x 16 cells" in out
    scores, table = scores_of(), pd.read_csv(paths.folds_csv("toy", "s"))
    fold = table.set_index("item_id")["fold"]
    names = sorted(masks)
    maps = np.stack([pictures[name].ravel() for name in names])
    part = np.array([fold[name] for name in names])
    for truth in ("boundary", "region"):
        cells = [np.pad(masks[name] / 255, 1, "reflect") for name in names]
        kernel = np.outer([1, 2, 1], [1, 2, 1]) / 16
        windows = [np.lib.stride_tricks.sliding_window_view(one, (3, 3)) for one in cells]
        soft = np.stack([(one * kernel).sum((2, 3)) for one in windows])
        so = 4 * soft * (1 - soft) >= 0.5 if truth == "boundary" else soft >= 0
        if truth == "region":
            so = np.stack([masks[name] > 0 for name in names])
        so = so.reshape(len(names), -1)
        want = roc_auc_score(so.ravel(), maps.ravel())
        assert scores[truth, "pixel_auc"] == pytest.approx(want, abs=1e-9)
        said = np.zeros_like(so)
        for held in range(3):
            others = part != held
            cuts = np.unique(maps[others])
            ious = [iou(so[others], maps[others] >= cut) for cut in cuts]
            best = int(np.argmax(ious))
            said[part == held] = maps[part == held] >= cuts[max(best - 1, 0) : best + 1].mean()
        assert scores[truth, "iou"] == pytest.approx(iou(so, said), abs=1e-9)
        real = np.array([name.startswith("real") for name in names])
        assert scores[truth, "false_alarms"] == pytest.approx(said[real].mean(), abs=1e-9)
    assert scores["region", "pixel_auc"] > 0.55
    assert cv2.imread(str(paths.localisation_png("toy", "s", "teller"))) is not None


class Middle:
    """Landmarks of a face in the middle of every picture but the first of a fold."""

    def __init__(self, home):
        pass

    def find(self, source, items, canvas=0):
        return items[:1]

    def of(self, canvas):
        angle = np.linspace(0, 2 * np.pi, 468)
        return SIDE / 2 + SIDE / 3 * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def test_blends_of_held_out_reals_are_the_truth_where_asked_for_or_where_masks_lack(
    run, monkeypatch
):
    monkeypatch.setattr(localised, "Landmarks", Middle)
    out = run("--blends", "--folds", "0", "1")
    assert "blends of 18 of 20 held-out real faces, seed 0 (--blends), 2 show no face" in out
    assert "the 20 reals, changed as a whole and blended nowhere" in out
    first = scores_of()
    assert run("--blends", "--folds", "0", "1") == out
    assert scores_of().equals(first)
    for path in (paths.dataset_dir("toy") / "train" / "masks" / "fake").iterdir():
        path.unlink()
    assert "(toy has no masks of these fakes)" in run("--folds", "0")


def test_what_cannot_be_scored_says_what_to_do(run, caplog, monkeypatch):
    assert "forensics_adapter_b16" in run(model="mute", code=2)
    assert "--model NAME --by mask" in run("--versus", "mute", code=2)
    assert "add --by mask, in place of --by domain" in run("--blends", "--by", "domain", code=2)
    home = paths.dataset_dir("toy") / "train" / "masks" / "fake"
    for path in home.iterdir():
        cv2.imwrite(str(path), np.full((SIDE, 9), 255, np.uint8))
    with caplog.at_level(logging.WARNING):
        said = run(code=2)
    assert "no mask of a held-out fake can be used (the log says why); --blends" in said
    assert "of another shape" in caplog.text
    monkeypatch.setattr(Middle, "find", lambda self, source, items, canvas=0: list(items))
    monkeypatch.setattr(localised, "Landmarks", Middle)
    assert "none of the held-out reals shows a face" in run("--blends", code=2)


def test_hard_and_soft_masks_have_a_boundary_and_a_region():
    hard = np.zeros((1, 64, 64), np.uint8)
    hard[:, 16:48, 16:48] = 255  # its edges lie on the edges of cells
    found = truths_of(hard, 8)
    region, edge = np.zeros((8, 8), bool), np.ones((8, 8), bool)
    region[2:6, 2:6] = True
    edge[:1], edge[7:], edge[:, :1], edge[:, 7:] = False, False, False, False
    edge[3:5, 3:5] = False
    edge[1, 1] = edge[1, 6] = edge[6, 1] = edge[6, 6] = False
    assert np.array_equal(found["region"][0], region)
    assert np.array_equal(found["boundary"][0], edge)
    assert boundary_of(torch.from_numpy(hard), 64).max() <= 1
    weak = np.full((1, 64, 64), 64, np.uint8)  # a quarter replaced: two pictures everywhere
    assert truths_of(weak, 8)["boundary"].all()
    assert not truths_of(np.zeros_like(weak), 8)["region"].any()


def test_the_report_shows_the_sheet(run):
    assert localisation_blocks(subject_of_runs(collect_runs("toy", "s", "teller"))) == []
    run("--folds", "0")
    (picture,) = localisation_blocks(subject_of_runs(collect_runs("toy", "s", "teller")))
    assert picture.path == paths.localisation_png("toy", "s", "teller")
    assert picture.csv == paths.localisation_csv("toy", "s", "teller")
