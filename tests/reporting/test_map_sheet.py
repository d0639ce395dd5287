"""The sheet of checked maps: which items, by whose weights, what the CSV says."""

import cv2
import pandas as pd
import pytest
import torch

from src import paths
from src.config import read_model
from src.data.layouts.load import load_dataset
from src.errors import UserError
from src.models.checkpoint import save_checkpoint
from src.models.classifier import build_classifier
from src.reporting.map_sheet import chosen_rows, draw_mapped
from src.reporting.runs import collect_runs
from tests.reporting.conftest import ODD, predict, run_record

CONFIG = """
backbone: {name: compact_net, pretrained: none, kwargs: {widths: [8, 8, 16]}}
input: {image_size: 16}
"""
KINDS = ["occlusion"]


def train(folds, model="small"):
    """Write checkpoints of other weights a fold, predictions of all folds."""
    folder = paths.config_dirs("models")[0]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{model}.yaml").write_text(CONFIG)
    config = read_model(model)
    for fold in folds:
        torch.manual_seed(fold)
        net, _ = build_classifier(config)
        torch.nn.init.normal_(net.net.head.weight)
        path = paths.checkpoint("toy", "s", model, fold)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_checkpoint(path, net, config.as_dict(), ["full"])
    predict(model)
    run_record(model, 0)
    return collect_runs("toy", "s", model)


def test_items_are_the_surest_of_each_class_and_looked_at_out_of_fold(toy, coarse, tmp_path):
    runs, dataset = train((0, 1)), load_dataset("toy", None)
    path = draw_mapped(runs, dataset, tmp_path / "maps.png", each=2, kinds=KINDS)
    assert path is not None
    assert cv2.imread(str(path)) is not None
    table = pd.read_csv(path.with_suffix(".csv"), keep_default_na=False)
    rows = runs.whole.rows
    want = [rows.item_id[row] for row in chosen_rows(rows, 2) if rows.fold[row] != 2]
    assert table["item_id"].tolist() == want
    assert set(table["kind"]) == {"occlusion"}
    assert list(table.columns) == [
        "item_id", "label", "prob", "pred", "fold", "kind", "lost", "mean_random", "beats",
        "withheld",
    ]  # fmt: skip
    shown = table[table["withheld"] == ""]
    assert (shown["beats"].astype(float) >= 15 / 16).all()
    assert (shown["lost"].astype(float) > 0).all()


def test_wrong_ones_stand_first_and_both_classes_have_as_many(toy):
    rows = train((0,)).whole.rows
    chosen = chosen_rows(rows, 3)
    wrong = [rows.pred[row] != rows.label[row] for row in chosen]
    assert wrong == sorted(wrong, reverse=True)
    right = [rows.label[row] for row, bad in zip(chosen, wrong, strict=True) if not bad]
    assert right == [1, 1, 1, 0, 0, 0]
    last = [row for row, bad in zip(chosen, wrong, strict=True) if not bad]
    fakes = (rows.label == 1) & (rows.pred == 1)
    assert rows.logit[last[0]] == rows.logit[fakes].max()
    reals = (rows.label == 0) & (rows.pred == 0)
    assert rows.logit[last[3]] == rows.logit[reals].min()


def test_what_is_gone_is_left_out_or_named(toy, coarse, tmp_path):
    runs, dataset = train((0, 1, 2)), load_dataset("toy", None)
    rows = runs.whole.rows
    lost = chosen_rows(rows, 1)[0]
    files = dataset.require_train().set_index("item_id")["path"]
    (dataset.root / files[rows.item_id[lost]]).write_bytes(b"no picture")
    path = draw_mapped(runs, dataset, tmp_path / "maps.png", each=1, kinds=KINDS)
    table = pd.read_csv(path.with_suffix(".csv"), keep_default_na=False)
    assert table["withheld"][0] == "not_readable"
    assert (table["kind"][1:] == "occlusion").all()
    with pytest.raises(UserError, match="small has no self-attention"):
        draw_mapped(runs, dataset, tmp_path / "maps.png", each=1, kinds=["rollout"])
    for fold in (0, 1, 2):
        paths.checkpoint("toy", "s", "small", fold).unlink()
    assert draw_mapped(runs, dataset, tmp_path / "maps.png", kinds=KINDS) is None


def test_every_kind_that_the_net_has_is_drawn_under_a_name_that_is_no_markup(
    toy, coarse, tmp_path, monkeypatch
):
    runs, dataset = train((0, 1, 2)), load_dataset("toy", None)
    rows = runs.whole.rows
    odd = next(k for k, name in enumerate(rows.item_id) if ODD in name)
    monkeypatch.setattr("src.reporting.map_sheet.chosen_rows", lambda *_: [odd])
    path = draw_mapped(runs, dataset, tmp_path / "maps.png")
    table = pd.read_csv(path.with_suffix(".csv"), keep_default_na=False)
    assert set(table["item_id"]) == {rows.item_id[odd]}
    assert "occlusion" in set(table["kind"])
    assert not {"rollout", "relevance", "boundary"} & set(table["kind"])
