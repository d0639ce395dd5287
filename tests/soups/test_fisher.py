"""Fisher information. Oracle: squared gradients of the log likelihood, label by label."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from src import paths
from src.artifacts.runs import read_record
from src.config import InputSpec
from src.models.backbones.compact import CompactNet
from src.models.classifier import Classifier
from src.soups.gradients import fisher_diagonal
from src.soups.ingredients import Place
from src.soups.plan import read_plan
from src.soups.run import merge_fold
from src.training.job import Job
from src.training.trainer import fit_fold

SPEC = InputSpec(8, 8, "squash", "bicubic", (0.5,) * 3, (0.25,) * 3)


def test_it_is_the_mean_squared_gradient_over_items_and_labels() -> None:
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
            weights = list(model.net.parameters())
            slopes = torch.autograd.grad(loss, weights)
            likely = float(torch.exp(-loss.detach()))
            for name, slope in zip(wanted, slopes, strict=True):
                wanted[name] += likely * slope**2 / len(items)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value)
    rest = {name: value for name, value in found.items() if name not in wanted}
    assert rest
    assert all(bool((value == 1).all()) for value in rest.values())


@pytest.mark.parametrize("more", ["", "search: {weight: {values: [0.5, 1.0], each: model}}\n"])
def test_a_recipe_may_have_it_estimated(
    make_job: Callable[..., Job], tmp_path: Path, more: str
) -> None:
    for name, lr in (("a", 1e-2), ("b", 5e-3)):
        job = make_job(model=name, optim={"epochs": 1, "lr": lr})
        fit_fold(job)
    path = tmp_path / "sure.yaml"
    path.write_text(
        "merge_method: fisher\nmodels:\n- {model: a, fisher: estimate}\n"
        "- {model: b, fisher: estimate}\n" + more
    )
    plan = read_plan(path)
    assert not merge_fold(plan, Place("tiny", "s", 0), job, check=False).skipped
    assert merge_fold(plan, Place("tiny", "s", 0), job, check=False).skipped
    record = read_record(paths.run_record("tiny", "s", "sure", 0))
    assert record["metrics"]["auc"] > 0
    chosen = record["merged_from"]["chosen"]
    assert (chosen is None) == (not more)
    assert all(
        one["companions"] == {"fisher": "estimate"} for one in (chosen or {}).get("models", [])
    )
    assert not any(paths.merge_parts().iterdir())
