"""Learned soups, Fisher information, ways between models. Oracles: gradients and losses by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch

from src import paths
from src.artifacts.folds import read_folds
from src.config import InputSpec
from src.data.batches.loader import EvalBatches
from src.merging.recipe import MergeRecipe
from src.metrics import log_loss
from src.models.backbones.compact import CompactNet
from src.models.classifier import Classifier
from src.soups.bench import Bench, plain
from src.soups.contenders import read_contender
from src.soups.gradients import LossPath, _modes, fisher_diagonal, learned_recipe, walk
from src.soups.table import held_rows
from src.training.job import Job
from tests.soups.runs import NAMES, bench_of, merge, plan_of, record_of

SPEC = InputSpec(8, 8, "squash", "bicubic", (0.5,) * 3, (0.25,) * 3)


def loss_with_batch_statistics(bench: Bench, recipe: MergeRecipe) -> float:
    bench.put(recipe)
    _modes(bench, batch_statistics=True)
    pixels = EvalBatches(bench.source, [bench.model.spec])[bench.job.held_rows.tolist()]["pixels0"]
    with torch.no_grad():
        logit = bench.model({"pixels": pixels})["logit"].double().numpy()
    return log_loss(bench.labels, logit)


def test_a_learned_soup_lowers_the_loss_that_it_minimises(trio: Job) -> None:
    names = ["a", "b", "far"]
    bench = bench_of(trio, "a b far")
    rows = np.ones(len(bench.labels), bool)
    recipe = learned_recipe(bench, names, rows)
    weights = [one.parameters["weight"] for one in recipe.models]
    assert sum(weights) == pytest.approx(1)  # type: ignore[arg-type]
    assert len(set(weights)) == 3
    before = loss_with_batch_statistics(bench, plain("uniform", names))
    assert loss_with_batch_statistics(bench, recipe) < before
    deep = learned_recipe(bench, names, rows, knots=2)
    for one in deep.models:
        assert len(one.parameters["weight"]) == 2  # type: ignore[arg-type]
    assert recipe == learned_recipe(bench, names, rows)
    assert recipe.in_words().startswith("linear of a (weight 0.")


def test_fisher_is_the_mean_squared_gradient_over_items_and_labels() -> None:
    torch.manual_seed(0)
    model = Classifier(CompactNet(widths=(4, 4)), SPEC).eval()
    torch.nn.init.normal_(model.net.head.weight)
    items = list(torch.randint(256, (3, 8, 8, 3), dtype=torch.uint8))
    found = fisher_diagonal(model, items)
    wanted = {name: torch.zeros_like(weight) for name, weight in model.net.named_parameters()}
    for pixels in items:
        for label in (0.0, 1.0):
            logit = model({"pixels": pixels[None]})["logit"]
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                logit, torch.tensor([label])
            )
            slopes = torch.autograd.grad(loss, list(model.net.parameters()))
            likely = float(torch.exp(-loss.detach()))
            for name, slope in zip(wanted, slopes, strict=True):
                wanted[name] += likely * slope**2 / len(items)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value)
    rest = [value for name, value in found.items() if name not in wanted]
    assert rest
    assert all(bool((value == 1).all()) for value in rest)


@pytest.mark.parametrize("more", ["", "search: {weight: {values: [0.5, 1.0], each: model}}\n"])
def test_a_recipe_may_have_it_estimated(pair: Job, tmp_path: Path, more: str) -> None:
    models = ", ".join(f"{{model: {name}, fisher: estimate}}" for name in "ab")
    plan = plan_of(tmp_path, f"merge_method: fisher\nmodels: [{models}]\n{more}")
    assert not merge(plan, pair).skipped
    assert merge(plan, pair).skipped
    record = record_of()
    assert record["metrics"]["auc"] > 0
    chosen = record["merged_from"]["chosen"]
    assert (chosen is None) == (not more)
    for one in (chosen or {}).get("models", []):
        assert one["companions"] == {"fisher": "estimate"}
    assert not any(paths.merge_parts().iterdir())


def test_a_barrier_is_the_rise_above_the_line_between_the_ends() -> None:
    path = LossPath("a", "b", (0, 0.25, 0.5, 0.75, 1), (0.2, 0.3, 0.7, 0.5, 0.4), (1,) * 5)
    assert path.barrier == pytest.approx(0.7 - 0.3)
    assert path.is_hopeless
    valley = LossPath("a", "b", (0, 0.5, 1), (0.2, 0.1, 0.4), (1,) * 3)
    assert valley.barrier == 0
    assert not valley.is_hopeless


def test_the_ends_of_the_way_are_the_models_themselves(trio: Job) -> None:
    walked = walk(bench_of(trio, "a b far"), ["a", "b", "far"], points=3)
    assert [path.other for path in walked] == ["b", "far"]
    assert walked[0].losses[0] == walked[1].losses[0]
    table = read_folds(paths.folds_csv(*NAMES))
    held = held_rows(table, [0])
    for name, loss in (("a", walked[0].losses[0]), ("far", walked[1].losses[-1])):
        own = read_contender(held, table, (*NAMES, name), "ingredient", 1)
        assert loss == pytest.approx(log_loss(held.label, own.logit), abs=1e-5)


def test_a_hopeless_merge_is_warned_of(
    pair: Job, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [LossPath("a", "b", (0.0, 0.5, 1.0), (0.2, 0.9, 0.3), (0.9, 0.4, 0.8))]
    monkeypatch.setattr("src.soups.run.walk", lambda *_: found)
    merge(plan_of(tmp_path, "merge_method: uniform\nmodels: [a, b]\n"), pair, check=True)
    assert "between a and b the log loss rises 0.650" in caplog.text
    assert record_of()["merged_from"]["barriers"] == {"b": pytest.approx(0.65)}


def test_the_way_to_a_base_is_walked_too(pair: Job, tmp_path: Path) -> None:
    text = "merge_method: slerp\nbase_model: a\nmodels: [b]\nparameters: {t: 0.5}\n"
    assert [path.other for path in merge(plan_of(tmp_path, text), pair, check=True).paths]
