"""What predicts, held against the rules of a competition."""

import pytest

from src.artifacts.competition import CompetitionRules, Load, read_rules
from src.errors import UserError

ONE = Load(nets=1, parameters=2_000_000, views=1, hours=0.5)


def test_rules_come_back_as_they_were_given():
    given = {"single_model": "true", "tta": "no", "max_params": "2e9"}
    rules = read_rules(given, "x")
    assert rules.as_dict() == {"single_model": True, "tta": False, "max_params": 2e9}
    assert read_rules(rules.as_dict(), "x") == rules
    assert str(rules) == "single_model: true, tta: false, max_params: 2e9"
    assert CompetitionRules().as_dict() == {}


@pytest.mark.parametrize(
    ("rules", "load", "broken"),
    [
        ({}, Load(100, None, 2, 99.0), []),
        ({"single_model": True}, ONE, []),
        ({"single_model": True}, Load(2, 1, 1), ["single_model (2 files of weights)"]),
        ({"tta": False}, Load(1, 1, 2), ["tta (2 views)"]),
        ({"tta": False}, Load(2, None, None), ["tta (an unknown number of views)"]),
        ({"max_files": 2}, Load(3, 1, 1), ["max_files (3 files of weights)"]),
        ({"max_params": 2e6}, ONE, []),  # the limit itself is allowed
        ({"max_params": 1.9e6}, ONE, ["max_params (2.0 M parameters)"]),
        ({"max_params": 2e9}, Load(2, None, 1), ["max_params (parameters not known)"]),
        ({"max_hours": 1}, Load(1, 1, 1, 2.25), ["max_hours (about 2.2 h)"]),
        ({"max_hours": 1}, Load(1, 1, 1, None), []),
        (
            {"single_model": True, "tta": False},
            Load(2, 1, 2),
            ["single_model (2 files of weights)", "tta (2 views)"],
        ),
    ],
)
def test_what_breaks_which_rule(rules, load, broken):
    assert read_rules(rules, "x").broken_by(load) == broken


def test_hours_beyond_those_that_the_competition_gives():
    rules = CompetitionRules(max_hours=1)
    for fine in (None, 0.5, 1):
        rules.check_hours(fine)
    with pytest.raises(UserError, match="--max-hours 2: the rules of the competition give 1"):
        rules.check_hours(2)
