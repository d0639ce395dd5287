"""Choosing by score on held-out rows. Oracles: brute force, scores by hand, the runs' own OOF."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from src import paths
from src.artifacts.files import read_csv, sha256_file
from src.artifacts.folds import read_folds
from src.artifacts.oof import CROSS_FITTED, read_views
from src.errors import UserError
from src.merging.recipe import Ingredient, MergeRecipe
from src.metrics import auc, log_loss
from src.soups.bench import plain
from src.soups.contenders import read_contender
from src.soups.ingredients import resolve
from src.soups.plan import Range, Selection
from src.soups.select import Chooser, candidates, greedy_soup, own_logits, score_of
from src.soups.table import held_rows, scores_of
from src.training.job import Job
from src.training.trainer import fit_fold
from tests.clips import write_clip
from tests.soups.conftest import MakeJob
from tests.soups.runs import GREEDY, NAMES, UNIFORM, bench_of, merge, oof_of, plan_of, record_of

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
    assert score_of("log_loss", label, logit) == pytest.approx(-log_loss(label, logit))
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
    weight = Range(low=0, high=1, each="model", knots=3)
    each = Selection("search", trials=5, space={"weight": weight})
    drawn = candidates(recipe, each, seed=0)
    assert len(drawn) == 5
    assert drawn == candidates(recipe, each, seed=0) != candidates(recipe, each, seed=1)
    weights = [one.parameters["weight"] for one in drawn[0].models]
    assert all(isinstance(weight, tuple) and len(weight) == 3 for weight in weights)
    assert weights[0] != weights[1]


def test_what_is_chosen_is_scored_on_the_other_half(trio: Job, tmp_path: Path) -> None:
    text = "merge_method: uniform\nmodels: [a, b, far]\nselect: greedy\nmetric: auc\n"
    plan = plan_of(tmp_path, text)
    merge(plan, trio)
    record, file = record_of(), paths.cross_fitted_csv(*NAMES, "soup", 0)
    assert record["selection"] == "best"  # held-out rows had a say
    assert record["merged_from"]["cross_fitted_sha256"] == sha256_file(file)
    halves = read_csv(file, CROSS_FITTED, what="test")
    assert halves["item_id"].is_monotonic_increasing
    assert set(halves["half"]) == {"0", "1"}
    table = read_folds(paths.folds_csv(*NAMES))
    held = held_rows(table, [0])
    soup = read_contender(held, table, (*NAMES, "soup"), "merge", 1)
    assert soup.chosen
    chooser = Chooser(bench_of(trio, "a b far"), plan.final, Selection("greedy", "auc"))
    for half in (0, 1):
        rows = held.half == half
        choice = chooser.choose(rows)
        np.testing.assert_allclose(chooser.logits(choice.recipe), soup.by_half[half], atol=1e-5)
        alone = max(chooser.score(plain("uniform", [name]), rows) for name in ("a", "b", "far"))
        assert choice.score >= alone
    areas = [auc(held.label[held.half == h], soup.by_half[1 - h][held.half == h]) for h in (0, 1)]
    assert scores_of(held, soup).auc == pytest.approx(np.mean(areas))
    chosen = [one["model"] for one in record["merged_from"]["chosen"]["models"]]
    np.testing.assert_allclose(soup.logit, chooser.logits(plain("uniform", chosen)), atol=1e-5)


def test_a_search_finds_the_end_that_is_best(pair: Job, tmp_path: Path) -> None:
    text = "merge_method: slerp\nbase_model: a\nmodels: [b]\nsearch: {t: [0.0, 0.5, 1.0]}\n"
    plan = plan_of(tmp_path, text + "metric: log_loss\nbatchnorm: 0\n")
    merge(plan, pair)
    found = record_of()["merged_from"]
    bench, losses = bench_of(pair, "a b", batchnorm=0), {}
    for t in (0.0, 0.5, 1.0):
        bench.put(plan.final.with_parameters(t=t))
        losses[t] = log_loss(bench.labels, bench.predict())
    assert found["chosen"]["parameters"]["t"] == min(losses, key=lambda t: losses[t])
    assert found["chosen_score"] == pytest.approx(-min(losses.values()), abs=1e-5)


def test_a_search_leaves_out_what_the_method_refuses(
    pair: Job, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "rvf")
    text = UNIFORM.replace("uniform", "linear") + "batchnorm: 0\n"
    # Weights that add up to 0 at one depth have no average there.
    depth = "search: {weight: {values: [-1.0, 1.0], each: model, knots: 2}}\ntrials: 16\n"
    merged = merge(plan_of(tmp_path, text + depth), pair)
    assert merged.tried is not None
    assert len(merged.tried) == 2 + 4  # the models; of 16, four add up to 0 nowhere
    assert caplog.text.count("search: left out: tensor") == 12
    with pytest.raises(UserError, match="search: linear refuses all 1 combinations"):
        merge(plan_of(tmp_path, text + "search: {weight: [0.0]}\n", "none"), pair)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("select: greedy\nmetric: auc\n", "chosen by greedy (auc): uniform of "),
        ("select: learned\n", "weights learned by gradient: linear of a (weight "),
    ],
)
def test_what_decided_is_said_and_how_many_were_tried_is_not_said_twice(
    pair: Job, tmp_path: Path, caplog: pytest.LogCaptureFixture, words: str, said: str
) -> None:
    caplog.set_level("INFO", "rvf")
    method = "linear" if "learned" in words else "uniform"
    merge(plan_of(tmp_path, f"merge_method: {method}\nmodels: [a, b]\n{words}"), pair)
    (line,) = [text for text in caplog.messages if "what either half chose" in text]
    assert line.startswith(said)
    assert "tried" not in line
    assert "macro_f1" not in line


def test_too_few_groups_are_refused_only_where_something_is_chosen(
    pair: Job, tmp_path: Path
) -> None:
    job = replace(pair, table=pair.table.assign(group="all"))
    with pytest.raises(UserError, match=r"soup fold 0: .* too few groups .*without `select` or"):
        merge(plan_of(tmp_path, GREEDY), job)
    assert not merge(plan_of(tmp_path, UNIFORM), job).skipped


def test_an_ingredient_on_clips_counts_as_its_run_pooled_it(make_job: MakeJob) -> None:
    frames = {"train": 2, "eval": 3, "pool": "max"}
    job = make_job(model="a", frames=frames, tta="flip", optim={"epochs": 1})
    table = job.table.copy()
    for row, label in enumerate(table["label"]):  # the fakes are brighter
        name = f"train/c{row:03d}.mp4"
        write_clip(job.root / name, 2 + row % 4, low=5 + 3 * row + 60 * int(label), step=12)
        table.loc[table.index[row], "path"] = name
    job = replace(job, table=table)
    assert fit_fold(job)
    one = resolve([plain("uniform", ["a"])], job)["a"]
    mine = own_logits(job, one)
    assert mine is not None
    np.testing.assert_array_equal(mine, oof_of("a"))
    views, _ = read_views(paths.oof_views(*NAMES, "a", 0))
    mean = views.groupby("item_id")["logit"].mean().to_numpy()
    assert np.abs(mine - mean).max() > 1e-3
    bench = bench_of(job, "a", batchnorm=0)
    bench.put(plain("uniform", ["a"]))
    np.testing.assert_allclose(bench.predict(), mine, atol=1e-5)
    assert own_logits(job, replace(one, sha256="0" * 64)) is None  # of other weights
    paths.oof_csv(*NAMES, "a", 0).unlink()
    assert own_logits(job, one) is None
