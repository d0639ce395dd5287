"""The registry: no duplicate, no silent default."""

import pytest

from src.errors import UserError, unknown_name
from src.registry import Registry


@pytest.fixture
def animals():
    registry: Registry[int] = Registry("animal")
    registry.register("zebra")(1)
    registry.register("ant")(2)
    return registry


def test_get_and_names(animals):
    assert animals.get("zebra") == 1
    assert animals.get("ant") == 2
    assert animals.names() == ["ant", "zebra"]
    assert list(animals) == ["ant", "zebra"]


def test_the_decorator_returns_its_argument(animals):
    @animals.register("fox")
    def fox():
        return 3

    assert fox() == 3
    assert animals.get("fox") is fox


def test_a_duplicate_is_refused_and_the_first_stays(animals):
    with pytest.raises(ValueError, match="animal 'ant' is registered twice"):
        animals.register("ant")(9)
    assert animals.get("ant") == 2


def test_unknown_lists_what_exists_and_the_nearest(animals):
    with pytest.raises(UserError) as caught:
        animals.get("zebar")
    assert "unknown animal 'zebar'" in str(caught.value)
    assert "did you mean 'zebra'?" in str(caught.value)
    assert "ant, zebra" in str(caught.value)


def test_unknown_without_a_near_name(animals):
    with pytest.raises(UserError) as caught:
        animals.get("qqq")
    assert "did you mean" not in str(caught.value)
    assert "known: ant, zebra" in str(caught.value)


def test_registries_do_not_share(animals):
    other: Registry[int] = Registry("plant")
    assert other.names() == []
    with pytest.raises(UserError, match="there is no plant yet"):
        other.get("ant")


def test_unknown_name_appends_the_hint():
    assert str(unknown_name("fold", "9", ["0", "1"], "see folds/")).endswith("see folds/")
