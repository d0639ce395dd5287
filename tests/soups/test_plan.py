"""Files of merges: what they hold beside mergekit's keys, and what is refused."""

from pathlib import Path

import pytest

from src import paths
from src.config import config_file
from src.errors import UserError
from src.soups.plan import MergePlan, Range, Selection, read_plan

MODELS = "models: [a, b]\n"
SHIPPED = sorted((paths.REPO / "configs" / "merges").glob("*.yaml"))


def read(tmp_path: Path, text: str) -> MergePlan:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    return read_plan(path)


def test_what_is_left_out_has_its_default(tmp_path: Path) -> None:
    plan = read(tmp_path, "merge_method: uniform\n" + MODELS)
    assert plan.name == "x"
    assert plan.selection == Selection("fixed", "macro_f1", 20, 1, {})
    assert (plan.batchnorm, plan.resize_pos_embed) == (1024, False)


def test_a_search_space(tmp_path: Path) -> None:
    plan = read(
        tmp_path,
        "merge_method: ties\nbase_model: start\n" + MODELS + "trials: 7\nmetric: auc\nsearch:\n"
        "  density: [0.2, 0.5]\n  weight: {low: 0, high: 1, each: model, knots: 3}\n",
    )
    assert plan.selection.how == "search"
    assert (plan.selection.trials, plan.selection.metric) == (7, "auc")
    assert plan.selection.space == {
        "density": Range((0.2, 0.5)),
        "weight": Range((), 0.0, 1.0, "model", 3),
    }


LINEAR = "merge_method: linear\nparameters: {weight: 1}\n" + MODELS
TIES = "merge_method: ties\nbase_model: start\nparameters: {weight: 1}\n" + MODELS


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LINEAR + "select: greedy\n", "select: greedy goes with merge_method: uniform"),
        (TIES + "select: learned\n", "select: learned goes with merge_method: linear"),
        (LINEAR + "select: gready\n", "did you mean 'greedy'"),
        ("merge_method: uniform\nmodels: [a]\nselect: greedy\n", "wants two or more models"),
        (LINEAR + "metric: auc\n", "metric goes with `select` or `search`"),
        (LINEAR + "select: learned\nmetric: auk\n", "unknown metric 'auk'; did you mean"),
        (LINEAR + "select: learned\nsearch: {weight: [1]}\n", "two ways to choose"),
        (LINEAR + "search: 3\n", "search must be a mapping of keys to values (found 3)"),
        (LINEAR + "search: {wheight: [1]}\n", "did you mean 'weight'"),
        (LINEAR + "search: {weight: 1}\n", "must be a list or a mapping of keys to values"),
        (LINEAR + "search: {weight: {low: 1}}\n", "want both low and high"),
        (LINEAR + "search: {weight: {low: 1, high: 0}}\n", "low 1 is not below high 0"),
        (LINEAR + "search: {weight: {low: 0, hihg: 1}}\n", "did you mean 'search.weight.high'"),
        (LINEAR + "search: {normalize: {low: 0, high: 1}}\n", "normalize"),
        (TIES + "search: {density: [0.5, 1.5]}\n", "1.5 is not"),
        (TIES + "search: {lambda: {low: 0, high: 1, each: model}}\n", "is one for all models"),
        (TIES + "search: {density: {low: 0, high: 1, each: layer}}\n", "(found 'layer')"),
        (TIES + "search: {density: {low: 0, high: 1, knots: 0}}\n", "knots must be >= 1"),
        (LINEAR + "select: learned\ntrials: 0\n", "trials must be >= 1 (found 0)"),
        (LINEAR + "batchnorm: 1\n", "batchnorm must be 0 or >= 2 (found 1)"),
        (LINEAR + "batchnorm: true\n", "batchnorm must be 0 or a whole number (found True)"),
        (LINEAR + "resize_pos_embed: 1\n", "resize_pos_embed must be true or false (found 1)"),
        (LINEAR + "batchnrom: 64\n", "did you mean 'batchnorm'"),
        ("name: i\n" + LINEAR + "select: learned\n---\n" + LINEAR, "into the last document"),
    ],
)
def test_what_is_refused_names_what_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        read(tmp_path, text)
    assert said in str(caught.value)
    assert "x.yaml" in str(caught.value)


def test_the_users_merges_come_before_the_shipped_ones(artefact_root: Path) -> None:
    home = artefact_root / "configs" / "merges"
    home.mkdir(parents=True)
    (home / f"{SHIPPED[0].stem}.yaml").write_text("")
    assert config_file("merges", SHIPPED[0].stem) == home / f"{SHIPPED[0].stem}.yaml"
    assert config_file("merges", SHIPPED[1].stem) == SHIPPED[1]
    mine = home / f"{SHIPPED[0].stem}.yaml"
    assert config_file("merges", str(mine)) == mine
    with pytest.raises(UserError, match=r"any/where\.yaml: no such merge"):
        config_file("merges", "any/where.yaml")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_merges_read(path: Path) -> None:
    plan = read_plan(path)
    for recipe in plan.recipes if plan.selection.how != "learned" else ():
        values = recipe.values("blocks.1.0.conv.weight", 0.5)
        assert len(recipe.method.values(values, len(recipe.models))) == len(values)
