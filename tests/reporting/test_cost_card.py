"""Tables of costs: shares of the teacher, limits."""

from pathlib import Path

import pytest

from src import config
from src.errors import UserError
from src.inference.cost import Cost, FreshRun, Turns, Way
from src.reporting.cost_card import MeasuredOn, against_lines, cost_lines, cost_table, plot_costs
from src.reporting.cost_limits import broken, read_budget

MEASURED = MeasuredOn("a chip", 8, 1, 3, True, 0.5, 2)


def cost(name: str, size: float, speed: float) -> Cost:
    way = Way(name, config.read_model("compact32"))
    run = FreshRun(1.0, 0.02, size * 1e-3, 10**8, 10**7)
    turns = Turns((speed, speed, 2 * speed), (2 * speed,) * 3)
    return Cost(way, 32, int(size * 1e6), size * 1e9, int(4e6 * size), "weights", run, turns)


def test_shares_of_the_teacher_and_budget(tmp_path: Path) -> None:
    costs = [cost("teacher", 4.0, 10.0), cost("student", 1.0, 30.0)]
    limits = read_budget("2 GMAC, 1 M, 5 MB,2ms, 40 images/s")
    table = cost_table(costs, {}, costs[0], limits, MEASURED, text=False)
    student = table.iloc[1]
    assert student["of_teacher_macs"] == student["of_teacher_parameters"] == 0.25
    assert student["faster_than_teacher"] == 3.0
    assert student["over_budget"] == "40 images/s"
    assert table["over_budget"][0] == "2 GMAC, 1 M, 5 MB, 2ms, 40 images/s"
    lines = cost_lines(costs, {}, limits, MEASURED, text=True)
    assert lines[1][7].endswith("noisy, had 50% of its cores")
    assert lines[1][4] == f"{4_000_000 + 63_428_096:,}"
    assert against_lines(costs, costs[0], table)[1][-1] == "3.00 times"
    assert plot_costs(costs, {}, tmp_path / "x.png") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("2 GFLOP", "one of GMAC, MMAC, M, k"), ("", "want a number"), ("5", "want a number"),
        ("-2 M", "above 0"), ("1e999 M", "above 0"), ("1 M, 900 k", "the same thing"),
    ],
)  # fmt: skip
def test_a_budget_that_is_none(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        read_budget(text)


def test_limits_are_inclusive() -> None:
    assert broken(cost("x", 2.0, 10.0), read_budget("2 gmac, 2000k, 8000 KB, 10 images/s")) == []
