"""What the plots show, held against scikit-learn and plain loops."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import f1_score, roc_auc_score

from src.reporting import plots
from src.reporting.charts import new_figure, save_figure, shown

RNG = np.random.default_rng(0)
LABEL = (RNG.random(500) < 0.4).astype(np.int64)
PROB = np.clip(0.25 + 0.4 * LABEL + 0.2 * RNG.standard_normal(500), 0, 1)


def axes_of(draw, *args):
    axes = new_figure(4, 3).subplots()
    draw(axes, *args)
    return axes


def test_reliability_is_scikit_learns():
    found = plots.reliability_bins(LABEL, PROB)
    share, prob = calibration_curve(LABEL, PROB, n_bins=plots.BINS)
    assert found.prob == pytest.approx(prob)
    assert found.share == pytest.approx(share)
    assert found.items.sum() == 500


def test_confusion_counts_and_shares():
    label, pred = np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 1, 1])
    axes = axes_of(plots.draw_confusion, label, pred, "cut $x$")
    assert [text.get_text() for text in axes.texts] == [
        "2\n66.7%", "1\n33.3%", "0\n0.0%", "2\n100.0%",
    ]  # fmt: skip
    score = f1_score(label, pred, average="macro")
    assert axes.get_title() == f"cut \\$x\\$\nmacro-F1 {score:.4f}"


def test_classes_are_shown_by_their_own_names():
    label, names = np.array([0, 1]), ("live", "spo$of")
    axes = axes_of(plots.draw_confusion, label, label, "cut", names)
    for ticks in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert [tick.get_text() for tick in ticks] == ["live", "spo\\$of"]
    axes = axes_of(plots.draw_histograms, label, np.array([0.1, 0.9]), 0.5, names)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["live", "spo\\$of"]


def test_curves_of_ranking():
    roc = axes_of(plots.draw_roc, LABEL, PROB)
    x, y = roc.lines[1].get_data()
    assert np.trapezoid(y, x) == pytest.approx(roc_auc_score(LABEL, PROB))
    assert f"{roc_auc_score(LABEL, PROB):.4f}" in roc.get_title()
    recall = axes_of(plots.draw_precision_recall, LABEL, PROB)
    assert recall.lines[0].get_ydata()[0] == pytest.approx(LABEL.mean())


def test_macro_f1_by_threshold_is_scikit_learns():
    line = axes_of(plots.draw_threshold, LABEL, PROB, 0.61).lines[0]
    for cut, score in list(zip(*line.get_data(), strict=True))[::20]:
        want = f1_score(LABEL, cut <= PROB, average="macro", zero_division=0)
        assert score == pytest.approx(want)


def test_histograms_hold_every_item_once():
    axes = axes_of(plots.draw_histograms, LABEL, PROB, 0.3)
    assert sum(bar.get_height() for bar in axes.patches) == 500
    assert axes.lines[0].get_xdata()[0] == 0.3


def test_learning_curves_mark_stages_and_go_without_scores():
    history = [
        {"epoch": 1, "train_loss": 0.7, "log_loss": 0.8, "stage": "head", "auc": 0.5},
        {"epoch": 2, "train_loss": 0.6, "log_loss": 0.7, "stage": "head", "auc": 0.6},
        {"epoch": 3, "train_loss": 0.5, "log_loss": 0.6, "stage": "all", "auc": 0.7},
    ]
    axes = axes_of(plots.draw_losses, {0: history}, 0.69)
    assert [(t.get_text().strip(), t.get_position()[0]) for t in axes.texts] == [
        ("head", 0.5), ("all", 2.5),
    ]  # fmt: skip
    assert axes.lines[0].get_ydata().tolist() == [0.7, 0.6, 0.5]
    assert axes.lines[1].get_ydata().tolist() == [0.8, 0.7, 0.6]
    assert axes.lines[2].get_ydata() == [0.69, 0.69]
    said = [t.get_text() for t in axes.get_legend().get_texts()]
    assert said == ["train, as it is minimised", "held out, log loss", "one answer for all items"]
    axes = axes_of(plots.draw_scores, {0: history})
    assert axes.lines[0].get_ydata().tolist() == [0.5, 0.6, 0.7]
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["AUC, held out"]
    assert axes_of(plots.draw_losses, {}).texts[0].get_text() == "no record of a training"
    assert len(axes_of(plots.draw_scores, {0: history[:1], 1: history[:2]}).lines) == 2


@pytest.mark.parametrize("name", ["a$b$.png", "名前.png", "x\n\x00y", "\udcff.png", "مرحبا"])
def test_any_name_can_be_drawn(tmp_path, name):
    figure = new_figure(2, 2)
    figure.suptitle(shown(name))
    assert save_figure(figure, tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_a_long_name_keeps_its_ends():
    text = shown("train/" + "x" * 100 + "/last.png", 30)
    assert len(text) == 30
    assert text.startswith("train/")
    assert text.endswith("/last.png")
