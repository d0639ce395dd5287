"""Choosing by score, and the way between two models. Oracles: brute force, scores by hand."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from src import paths
from src.artifacts.folds import read_folds
from src.artifacts.runs import read_record
from src.data.batches.loader import EvalBatches
from src.errors import UserError
from src.merging.recipe import Ingredient, MergeRecipe
from src.metrics import auc, log_loss
from src.soups.bench import Bench, plain, weighted
from src.soups.contenders import read_contender
from src.soups.gradients import LossPath, _modes, learned_recipe, walk
from src.soups.ingredients import Place, resolve
from src.soups.plan import MergePlan, Range, Selection, read_plan
from src.soups.record import in_words
from src.soups.run import merge_fold
from src.soups.select import Chooser, candidates, greedy_soup, score_of
from src.soups.table import held_rows, scores_of
from src.training.job import Job
from src.training.trainer import fit_fold

MakeJob = Callable[..., Job]
RECIPE = MergeRecipe("uniform", tuple(Ingredient(name) for name in "abcd"))


def soup_scores(values: dict[str, float]) -> Callable[[MergeRecipe], float]:
    return lambda recipe: values["".join(sorted(one.model for one in recipe.models))]


def test_greedy_keeps_what_is_strictly_better_in_the_order_of_scores() -> None:
    values = {"a": 0.7, "b": 0.9, "c": 0.8, "d": 0.6, "bc": 0.9, "ab": 0.95, "abd": 0.96}
    found = greedy_soup(RECIPE, soup_scores(values))  # c: not better; a, d: better
    assert [one.model for one in found.recipe.models] == ["b", "a", "d"]
    assert found.score == 0.96


def test_greedy_is_never_below_the_best_ingredient() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        known: dict[str, float] = {}

        def score(recipe: MergeRecipe, known: dict[str, float] = known) -> float:
            return known.setdefault(repr(recipe.models), float(rng.random()))

        found = greedy_soup(RECIPE, score)
        alone = [known[repr(plain("uniform", [name]).models)] for name in "abcd"]
        assert found.score >= max(alone)


def test_scores_are_better_the_higher() -> None:
    label, logit = np.array([0, 0, 1, 1]), np.array([-2.0, 1.0, 0.5, 3.0])
    assert score_of("auc", label, logit) == auc(label, logit) == 0.75
    assert score_of("log_loss", label, logit) == -log_loss(label, logit)
    assert score_of("macro_f1", label, logit) == pytest.approx(0.7333, abs=1e-4)


def test_a_grid_is_tried_whole_and_a_larger_space_is_drawn_from() -> None:
    recipe = MergeRecipe("ties", RECIPE.models[:2], "base", parameters={"weight": 1.0})
    space = {"density": Range((0.3, 0.6)), "lambda": Range((0.5, 1.0))}
    found = candidates(recipe, Selection("search", space=space, trials=4), seed=0)
    pairs = {(one.parameters["density"], one.parameters["lambda"]) for one in found}
    assert pairs == {(0.3, 0.5), (0.3, 1.0), (0.6, 0.5), (0.6, 1.0)}
    assert all(one.parameters["weight"] == 1.0 for one in found)
    drawn = candidates(recipe, Selection("search", space=space, trials=3), seed=0)
    assert 1 <= len(drawn) <= 3
    each = Selection(
        "search", trials=5, space={"weight": Range(low=0, high=1, each="model", knots=3)}
    )
    drawn = candidates(recipe, each, seed=0)
    assert len(drawn) == 5
    assert drawn == candidates(recipe, each, seed=0) != candidates(recipe, each, seed=1)
    weights = [one.parameters["weight"] for one in drawn[0].models]
    assert all(isinstance(weight, tuple) and len(weight) == 3 for weight in weights)
    assert weights[0] != weights[1]


def test_values_that_the_method_refuses_are_left_out() -> None:
    recipe = MergeRecipe("linear", RECIPE.models[:2], parameters={"weight": 1.0})
    space = {"weight": Range((0.0, 1.0), each="model")}
    found = candidates(recipe, Selection("search", space=space), seed=0)
    assert len(found) == 3  # weights 0 and 0 have no average
    with pytest.raises(UserError, match="linear refuses all 1 combinations"):
        candidates(recipe, Selection("search", space={"weight": Range((0.0,))}), seed=0)


# --- on trained nets ---


@pytest.fixture
def jobs(make_job: MakeJob) -> Job:
    """Train `a`, `b` from one start and `far` from another; returns the job of `a`."""
    made = [
        make_job(model="a", optim={"epochs": 2}),
        make_job(model="b", optim={"epochs": 2, "lr": 5e-3}),
        make_job(model="far", seed=9, optim={"epochs": 3, "lr": 3e-2}),
    ]
    for job in made:
        fit_fold(job)
    return made[0]


def plan_of(tmp_path: Path, text: str, name: str = "soup") -> MergePlan:
    path = tmp_path / f"{name}.yaml"
    path.write_text(text)
    return read_plan(path)


def bench_of(job: Job, names: str = "a b") -> Bench:
    recipe = plain("uniform", names.split())
    return Bench(job, resolve([recipe], Place("tiny", "s", 0)), 30)


def loss_with_batch_statistics(bench: Bench, recipe: MergeRecipe) -> float:
    bench.put(recipe)
    _modes(bench, batch_statistics=True)
    pixels = EvalBatches(bench.source, [bench.model.spec])[bench.job.held_rows.tolist()]["pixels0"]
    with torch.no_grad():
        logit = bench.model({"pixels": pixels})["logit"].double().numpy()
    return log_loss(bench.labels, logit)


def test_a_learned_soup_lowers_the_loss_that_it_minimises(jobs: Job) -> None:
    bench = bench_of(jobs, "a b far")
    rows = np.ones(len(bench.labels), bool)
    recipe = learned_recipe(bench, ["a", "b", "far"], rows)
    weights = [one.parameters["weight"] for one in recipe.models]
    assert sum(weights) == pytest.approx(1)  # type: ignore[arg-type]
    assert len(set(weights)) == 3
    before = loss_with_batch_statistics(bench, plain("uniform", ["a", "b", "far"]))
    assert loss_with_batch_statistics(bench, recipe) < before
    deep = learned_recipe(bench, ["a", "b", "far"], rows, knots=2)
    for one in deep.models:
        assert len(one.parameters["weight"]) == 2  # type: ignore[arg-type]
    assert recipe == learned_recipe(bench, ["a", "b", "far"], rows)
    assert in_words(recipe).startswith("linear of a (weight 0.")


def test_what_is_chosen_is_scored_on_the_other_half(jobs: Job, tmp_path: Path) -> None:
    text = "merge_method: uniform\nmodels: [a, b, far]\nselect: greedy\nmetric: auc\n"
    merge_fold(plan_of(tmp_path, text), Place("tiny", "s", 0), jobs, check=False)
    record = read_record(paths.run_record("tiny", "s", "soup", 0))
    assert record["selection"] == "best"  # held-out rows had a say
    chosen = [one["model"] for one in record["merged_from"]["chosen"]["models"]]
    table = read_folds(paths.folds_csv("tiny", "s"))
    held = held_rows(table, [0])
    names = ("tiny", "s")
    soup = read_contender(held, table, (*names, "soup"), "merge", 1)
    assert soup.chosen
    bench = bench_of(jobs, "a b far")
    chooser = Chooser(bench, plan_of(tmp_path, text).final, Selection("greedy", "auc"))
    for half in (0, 1):
        rows = held.half == half
        choice = chooser.choose(rows)
        np.testing.assert_allclose(chooser.logits(choice.recipe), soup.by_half[half], atol=1e-5)
        alone = max(chooser.score(plain("uniform", [name]), rows) for name in ("a", "b", "far"))
        assert choice.score >= alone
    areas = [auc(held.label[held.half == h], soup.by_half[1 - h][held.half == h]) for h in (0, 1)]
    assert scores_of(held, soup).auc == pytest.approx(np.mean(areas))
    by_hand = chooser.logits(plain("uniform", chosen))
    np.testing.assert_allclose(soup.logit, by_hand, atol=1e-5)


def test_a_search_finds_the_end_that_is_best(jobs: Job, tmp_path: Path) -> None:
    text = "merge_method: slerp\nbase_model: a\nmodels: [b]\nsearch: {t: [0.0, 0.5, 1.0]}\n"
    plan = plan_of(tmp_path, text + "metric: log_loss\nbatchnorm: 0\n")
    merge_fold(plan, Place("tiny", "s", 0), jobs, check=False)
    found = read_record(paths.run_record("tiny", "s", "soup", 0))["merged_from"]
    bench = Bench(jobs, resolve([plan.final], Place("tiny", "s", 0)), 0)
    losses = {}
    for t in (0.0, 0.5, 1.0):
        bench.put(plan.final.with_parameters(t=t))
        losses[t] = log_loss(bench.labels, bench.predict())
    assert found["chosen"]["parameters"]["t"] == min(losses, key=lambda t: losses[t])
    assert found["chosen_score"] == pytest.approx(-min(losses.values()), abs=1e-5)


def test_too_few_groups_to_choose_and_score(jobs: Job, tmp_path: Path) -> None:
    table = jobs.table.copy()
    table.loc[table["fold"] == 0, "group"] = "one"
    plan = plan_of(tmp_path, "merge_method: uniform\nmodels: [a, b]\nselect: greedy\n")
    with pytest.raises(UserError, match="too few groups to choose on one half"):
        merge_fold(plan, Place("tiny", "s", 0), replace(jobs, table=table), check=False)


def test_nothing_is_chosen_where_nothing_is_held_out(jobs: Job, tmp_path: Path) -> None:
    text = "merge_method: uniform\nmodels: [a@fold_0, b@fold_0]\nselect: greedy\n"
    with pytest.raises(UserError, match=r"nothing is held out in --fold all"):
        merge_fold(plan_of(tmp_path, text), Place("tiny", "s", "all"), replace(jobs, fold="all"))


# --- the way between two models ---


def test_a_barrier_is_the_rise_above_the_line_between_the_ends() -> None:
    path = LossPath("a", "b", (0, 0.25, 0.5, 0.75, 1), (0.2, 0.3, 0.7, 0.5, 0.4), (1,) * 5)
    assert path.barrier == pytest.approx(0.7 - 0.3)
    assert path.is_hopeless
    valley = LossPath("a", "b", (0, 0.5, 1), (0.2, 0.1, 0.4), (1,) * 3)
    assert valley.barrier == 0
    assert not valley.is_hopeless


def test_the_ends_of_the_way_are_the_models_themselves(jobs: Job) -> None:
    bench = bench_of(jobs, "a b far")
    walked = walk(bench, ["a", "b", "far"], points=3)
    assert [path.other for path in walked] == ["b", "far"]
    assert walked[0].losses[0] == walked[1].losses[0]
    for name, loss in (("a", walked[0].losses[0]), ("far", walked[1].losses[-1])):
        table = read_folds(paths.folds_csv("tiny", "s"))
        held = held_rows(table, [0])
        own = read_contender(held, table, ("tiny", "s", name), "ingredient", 1)
        assert loss == pytest.approx(log_loss(held.label, own.logit), abs=1e-5)


@contextmanager
def heard(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level("WARNING", "rvf"):
        yield


def test_a_hopeless_merge_is_warned_of(
    jobs: Job, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def walked(*_: object) -> list[LossPath]:
        return [LossPath("a", "far", (0.0, 0.5, 1.0), (0.2, 0.9, 0.3), (0.9, 0.4, 0.8))]

    monkeypatch.setattr("src.soups.run.walk", walked)
    plan = plan_of(tmp_path, "merge_method: uniform\nmodels: [a, far]\n")
    with heard(caplog):
        merge_fold(plan, Place("tiny", "s", 0), jobs)
    assert "between a and far the log loss rises 0.650" in caplog.text
    barriers = read_record(paths.run_record("tiny", "s", "soup", 0))["merged_from"]["barriers"]
    assert barriers == {"far": pytest.approx(0.65)}


def test_weights_of_an_average_by_hand(jobs: Job) -> None:
    bench = bench_of(jobs)
    bench.put(weighted(["a", "b"], [0.25, 0.75]))
    for name, weight in bench.model.net.named_parameters():
        wanted = 0.25 * bench.state("a")[name] + 0.75 * bench.state("b")[name]
        torch.testing.assert_close(weight.data, wanted)
