"""Recipes: mergekit's schema read, everything else refused by name."""

import pytest
from pydantic.dataclasses import dataclass

from src.errors import UserError
from src.merging.methods import Parameter
from src.merging.recipe import (
    Choice,
    RecipeKeys,
    parse_recipes,
    parse_setting,
    read_recipes,
    value_at,
)
from src.strict_yaml import STRICT

TIES = """
merge_method: ties
base_model: start
models:
  - model: a
    parameters: {weight: 1, density: [0.2, 1.0]}
  - model: start
  - model: b
    parameters:
      weight:
        - {filter: head, value: 0}
        - {filter: blocks, value: [0, 1]}
        - value: 0.5
parameters: {lambda: 0.7, density: 0.4}
dtype: float32
seed: 3
"""


def _only(text):
    (recipe,) = parse_recipes(text, "x.yaml")
    return recipe


def test_scalars_gradients_filters_and_their_precedence():
    recipe = _only(TIES)
    assert [one.model for one in recipe.models] == ["a", "b"]
    assert recipe.sources == ["a", "b", "start"]
    assert (recipe.dtype, recipe.seed) == ("float32", 3)
    deep = recipe.values("blocks.3.weight", 0.75)
    assert deep["weight"] == [1, 0.75]
    assert deep["density"] == [pytest.approx(0.8), 0.4]
    assert deep["lambda"] == 0.7
    assert deep["normalize"] is True
    assert recipe.values("head.weight", 1)["weight"] == [1, 0]
    assert recipe.values("stem.weight", 0)["weight"] == [1, 0.5]


def test_a_model_whose_filters_do_not_fit_takes_the_common_value():
    recipe = _only(
        "merge_method: linear\nparameters: {weight: 2}\nmodels:\n"
        "- {model: a, parameters: {weight: [{filter: head, value: 5}]}}\n- b\n"
    )
    assert recipe.values("stem", 0)["weight"] == [2, 2]
    assert recipe.values("head.bias", 1)["weight"] == [5, 2]


@pytest.mark.parametrize(
    ("depth", "value"), [(0, 1.0), (0.25, 2.0), (0.5, 3.0), (0.75, 2.0), (1, 1.0)]
)
def test_gradients_are_linear(depth, value):
    assert value_at((1.0, 3.0, 1.0), "any", depth) == value


def test_a_star_and_no_filter_are_every_tensor():
    weight = Parameter("weight", per_model=True)
    setting = parse_setting([{"filter": "*", "value": [1, 2]}], weight)
    assert setting == (Choice("", (1.0, 2.0)),)


def test_stages_are_sorted_and_the_last_has_no_name(tmp_path):
    path = tmp_path / "stages.yaml"
    path.write_text(
        "# two soups\nmerge_method: slerp\nbase_model: first\nmodels: [second]\n"
        "parameters: {t: 0.5}\n---\nname: second\nmerge_method: uniform\nmodels: [first, c]\n"
        "--- # the first\nname: first\nmerge_method: uniform\nmodels: [a, b]\n"
    )
    assert [recipe.name for recipe in read_recipes(path)] == ["first", "second", ""]


@dataclass(frozen=True, config=STRICT)
class More(RecipeKeys):
    data: str = ""


def test_keys_of_the_caller_are_handed_on():
    (recipe,) = parse_recipes("merge_method: uniform\nmodels: [a]\ndata: faces\n", "x", More)
    assert recipe.more == {"data": "faces"}
    assert "data" not in recipe.as_dict()


def test_a_search_changes_settings_and_nothing_else():
    recipe = _only(TIES)
    other = recipe.with_parameters(**{"lambda": 1.0})
    assert other.values("x", 0)["lambda"] == 1.0
    assert (other.models, other.base_model) == (recipe.models, recipe.base_model)
    assert recipe.values("x", 0)["lambda"] == 0.7


@pytest.mark.parametrize("name", ["linear", "karcher"])
def test_a_base_listed_among_the_models_is_one_of_them_where_there_is_none(name):
    """mergekit merges it there like the others."""
    recipe = _only(f"merge_method: {name}\nbase_model: a\nmodels: [{{model: a}}, b]\n")
    assert [one.model for one in recipe.models] == ["a", "b"]
    assert recipe.base_model == ""


LINEAR = "merge_method: linear\nmodels: [a, b]\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no merge in it"),
        ("[1, 2]", "must be a mapping of keys to values"),
        ("models: [a]", "merge_method is missing"),
        ("merge_method: linear", "models is missing"),
        ("merge_method: lineer\nmodels: [a]", "did you mean 'linear'"),
        (LINEAR + "base_modell: c", "did you mean 'base_model'"),
        (LINEAR + "base_model: c", "linear uses no base"),
        ("merge_method: ties\nmodels: [a, b]", "give `base_model`"),
        ("merge_method: karcher\nmodels: []", "models must hold 1 or more values"),
        ("merge_method: nuslerp\nmodels: [a, b, c]", "nuslerp wants 2 models, found 3"),
        ("merge_method: model_stock\nbase_model: c\nmodels: [a]", "wants 2 or more models beside"),
        ("merge_method: model_stock\nbase_model: a\nmodels: [a, b]", "found 1"),
        (LINEAR + "slices: []", "'slices' is not for image models"),
        (LINEAR + "modules: {}", "'modules' is not for image models"),
        (LINEAR + "tokenizer: {}", "no tokenizer"),
        (LINEAR + "parameters: {weightt: 1}", "did you mean 'weight'"),
        (LINEAR + "parameters: {weight: much}", "parameters: parameter 'weight': want a number"),
        (LINEAR + "parameters: {weight: .nan}", "not a finite number"),
        (LINEAR + "parameters: {weight: []}", "the list is empty"),
        (LINEAR + "parameters: {normalize: 1}", "want true or false"),
        (LINEAR + "parameters: {normalize: [true, false]}", "no gradient"),
        (LINEAR + "parameters: {weight: [{filtre: x, value: 1}]}", "did you mean 'filter'"),
        (LINEAR + "parameters: {weight: [{filter: x}]}", "value is missing"),
        (LINEAR + "parameters: {weight: [{filter: x, value: 1}, 2]}", "(found 2); want entries"),
        (LINEAR + "dtype: float8", "(found 'float8')"),
        (LINEAR + "seed: -1", "seed must be >= 0 (found -1)"),
        ("merge_method: linear\nmodels: [{model: a, parameterz: 1}]",
         "did you mean 'models.1.parameters'"),
        ("merge_method: linear\nmodels: [{model: a, parameters: {normalize: true}}]",
         "one for all models"),
        ("merge_method: fisher\nmodels: [a, b]", "needs `fisher: FILE` of every model"),
        ("merge_method: wise_ft\nbase_model: z\nmodels: [a]\nparameters: {alpha: 1.5}",
         "1.5 is not at least 0 and at most 1"),
        ("merge_method: ties\nbase_model: z\nmodels: [{model: a, parameters: {density: -0.1}}]",
         "model 1 (a): parameter 'density': -0.1 is not"),
        (LINEAR + "---\n" + LINEAR, "two documents have no name"),
        (LINEAR + "name: s\n---\n" + LINEAR + "name: s", "the name 's'"),
        (LINEAR + "name: ../../evil", "name must be a plain name of letters"),
        (LINEAR + "name: a.safetensors", "not the name of a file of weights"),
        ("name: s\nmerge_method: uniform\nmodels: [t]\n---\nname: t\nmerge_method: uniform\n"
         "models: [s]", "s, t refer to each other in a circle"),
    ],
)  # fmt: skip
def test_what_is_refused(text, message):
    with pytest.raises(UserError) as caught:
        parse_recipes(text, "x.yaml")
    assert "x.yaml" in str(caught.value)
    assert message in str(caught.value)
