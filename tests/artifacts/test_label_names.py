"""What the classes are called, and that 0 is real and 1 is fake, whatever they are called."""

import pytest

from src import paths
from src.artifacts.label_names import (
    DEFAULT,
    LabelNames,
    make_label_names,
    read_label_names,
    write_label_names,
)


@pytest.mark.parametrize(
    ("words", "names", "polarity"),
    [
        ([], DEFAULT, "0 -> real, 1 -> fake"),
        ([(0, "0"), (1, "1")], DEFAULT, "0 -> real, 1 -> fake"),
        ([(0, "1"), (1, "0")], DEFAULT, "0 -> real (1), 1 -> fake (0)"),
        ([(1, "teasing"), (0, "non_teasing")], ("non_teasing", "teasing"),
         "0 -> non_teasing, 1 -> teasing"),
        ([(0, "REAL"), (0, "real"), (1, "ai")], ("REAL", "ai"), "0 -> REAL, 1 -> ai"),
        ([(0, "live"), (1, "print"), (1, "replay")], ("live", "fake"),
         "0 -> live, 1 -> fake (print, replay)"),
        ([(0, "a\nb"), (1, "x" * 99)], ("a?b", "x" * 24), f"0 -> a?b, 1 -> {'x' * 24}"),
    ],
)  # fmt: skip
def test_names_and_polarity(words, names, polarity):
    found = make_label_names(words)
    assert found.names == names
    assert found.polarity == polarity


@pytest.mark.usefixtures("artefact_root")
def test_names_lie_beside_the_folds_and_refuse_nothing():
    assert read_label_names("toy") == LabelNames()
    write_label_names("toy", LabelNames(("live",), ("print", "replay")))
    assert read_label_names("toy") == LabelNames(("live",), ("print", "replay"))
    for damage in ("", "[]", '{"schema": 1, "real": 3, "fake": []}', '{"schema": 9}'):
        paths.label_names_json("toy").write_text(damage)
        assert read_label_names("toy") == LabelNames()
    write_label_names("toy", LabelNames(("live",), ("spoof",)))
    assert read_label_names("toy").names == ("live", "spoof")
