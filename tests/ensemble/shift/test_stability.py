"""Which verdicts flip at a level, by a case worked by hand."""

import pandas as pd

from src.artifacts.oof import CLEAN, Levels
from src.ensemble.shift.stability import stability_of

NAMES = ["a", "b", "c", "lost"]
LEVELS = Levels(("jpeg70", "blur1"), 7)


def votes(*pred):
    table = pd.DataFrame({"pred": [*pred, 1], "fallback": [False] * 3 + [True]}, index=NAMES)
    return table.iloc[::-1]  # the order does not count


def test_what_flips_is_named_with_its_levels():
    at = {CLEAN: votes(0, 1, 1), "jpeg70": votes(0, 0, 1), "blur1": votes(0, 0, 0)}
    found = stability_of(votes(0, 1, 1), at, LEVELS)
    assert found.record() == {
        "levels": ["jpeg70", "blur1"],
        "seed": 7,
        "stable": 1,
        "items": 3,
        "flips": {"jpeg70": 1, "blur1": 2},
        "flipped": {"c": ["blur1"], "b": ["jpeg70", "blur1"]},
    }
    assert found.words() == (
        "1 of 3 keep their verdict at 2 levels (jpeg70 blur1); most flips at blur1: 2"
    )


def test_the_item_as_it_is_counts_where_the_answer_is_a_mean():
    at = {CLEAN: votes(1, 1, 1), "jpeg70": votes(0, 1, 1), "blur1": votes(0, 1, 1)}
    found = stability_of(votes(0, 1, 1), at, LEVELS)
    assert found.flipped() == {"a": ["as it is"]}
    steady = stability_of(votes(0, 1, 1), dict.fromkeys(at, votes(0, 1, 1)), LEVELS)
    assert steady.words() == "3 of 3 keep their verdict at 2 levels (jpeg70 blur1)"
