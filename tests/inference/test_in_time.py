"""`predict_ensemble.py --max-hours`: refuses early with what would fit, or leaves members out."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from src.artifacts.oof import Levels
from src.artifacts.recipes import Member, Recipe
from src.cli import predict
from src.compute.clock import Clock
from src.compute.request import Compute
from src.errors import UserError
from src.inference import in_time, passes
from src.inference.in_time import fill_in_time, missing_parts
from src.inference.stored import ItemsToPredict, Part, as_delivered
from src.inference.unfinished import TooSlowError

ITEMS = ItemsToPredict(Path(), [], [], "")


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> list[Part]:
    """Return two folds of each of two models, of known speed (in training) and views."""
    speeds = {"big": (10.0, "none"), "small": (40.0, "flip")}

    def read_record(path: Path) -> dict[str, object]:
        rate, tta = speeds[path.parent.name]
        return {"items_per_second": rate, "config": {"tta": tta}}

    monkeypatch.setattr(in_time, "read_record", read_record)
    return [
        Part(model, fold, Path(model, f"fold_{fold}.safetensors"), "", Path("v"))
        for model in speeds
        for fold in range(2)
    ]


def compute(hours: float = 1) -> Compute:
    return Compute("cpu", workers=0, clock=Clock(hours))


def recipe(**weights: float) -> Recipe:
    return Recipe("d", "s", [0, 1], "", [Member(m, w, 0.5, [0, 1]) for m, w in weights.items()], [])


class Predicting:
    """Stands for the passes: takes note of what is predicted; the first ones are too slow."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *slow: TooSlowError) -> None:
        self.calls: list[list[str]] = []
        self.slow = list(slow)
        monkeypatch.setattr(passes, "predict_parts", self)

    def __call__(self, parts: Sequence[Part], *_: object, **__: object) -> None:
        self.calls.append([f"{part.model}{part.fold}" for part in parts])
        if self.slow:
            raise self.slow.pop(0)


def test_the_member_of_less_weight_is_left_out(
    parts: list[Part], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="rvf")
    # An item costs 0.1 s with a fold of big and 2/40 s with one of small: 0.3 s in all.
    predicting = Predicting(monkeypatch, TooSlowError(300, 210))
    out = fill_in_time(parts, ITEMS, recipe(big=0.7, small=0.3), compute(), fit_in_time=True)
    assert predicting.calls == [["big0", "big1", "small0", "small1"], ["big0", "big1"]]
    assert out == parts[2:]
    assert "goes on without small fold 0, small fold 1" in caplog.text


def test_it_measures_again_and_leaves_out_folds_of_the_last_member(
    parts: list[Part], monkeypatch: pytest.MonkeyPatch
) -> None:
    predicting = Predicting(monkeypatch, TooSlowError(300, 250), TooSlowError(200, 120))
    out = fill_in_time(parts, ITEMS, recipe(big=0.7, small=0.3), compute(), fit_in_time=True)
    assert predicting.calls[1:] == [["big0", "big1"], ["big0"]]
    assert out == [*parts[2:], parts[1]]


def test_what_an_earlier_pass_wrote_is_neither_dropped_nor_predicted_again(
    parts: list[Part], monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = TooSlowError(200, 140)
    slow.finished = [parts[0], parts[2]]
    predicting = Predicting(monkeypatch, slow)
    out = fill_in_time(parts, ITEMS, recipe(big=0.7, small=0.3), compute(), fit_in_time=True)
    assert predicting.calls[1:] == [["big1"]]
    assert out == parts[3:]


def test_nothing_left_to_do_is_not_too_slow(
    parts: list[Part], monkeypatch: pytest.MonkeyPatch
) -> None:
    predicting = Predicting(monkeypatch, TooSlowError(0, 0))
    assert fill_in_time(parts, ITEMS, recipe(big=0.7, small=0.3), compute(), fit_in_time=True) == []
    assert predicting.calls[0] == predicting.calls[1]


def test_levels_cost_a_look_each_and_go_with_their_checkpoint(
    parts: list[Part], monkeypatch: pytest.MonkeyPatch
) -> None:
    levels = Levels(("blur1", "jpeg30"), 42)
    todo = [*parts, *(as_delivered(part, levels) for part in parts)]
    # Three looks: 0.3 s with a fold of big, 0.15 s with one of small, 0.9 s in all.
    slow = TooSlowError(900, 350)
    slow.finished = [parts[0], parts[1]]  # 0.7 s are left, and room for 0.27 of them: one of big
    predicting = Predicting(monkeypatch, slow)
    out = fill_in_time(todo, ITEMS, recipe(big=0.7, small=0.3), compute(), fit_in_time=True)
    assert predicting.calls[1:] == [["big0"]]
    assert {(part.model, part.fold) for part in out} == {("big", 1), ("small", 0), ("small", 1)}
    assert len(out) == 3


@pytest.mark.usefixtures("artefact_root")
def test_overwriting_forgets_what_is_unfinished_and_keeps_what_is_done(
    parts: list[Part], tmp_path: Path
) -> None:
    clean = replace(parts[0], checkpoint_sha256="abc", views=tmp_path / "v.parquet")
    both = [clean, as_delivered(clean, Levels(("blur1",), 42))]
    for part in both:
        part.unfinished(ITEMS).parent.mkdir(parents=True, exist_ok=True)
        part.unfinished(ITEMS).touch()
        part.views.touch()
    assert missing_parts(both, ITEMS, compute(), overwrite=True) == both
    assert not any(part.unfinished(ITEMS).exists() for part in both)
    assert all(part.views.exists() for part in both)


def test_without_the_flag_it_refuses_and_says_what_would_fit(
    parts: list[Part], monkeypatch: pytest.MonkeyPatch
) -> None:
    Predicting(monkeypatch, TooSlowError(7200, 3600))
    with pytest.raises(UserError) as caught:
        fill_in_time(parts, ITEMS, recipe(big=0.3, small=0.7), compute(1.5), fit_in_time=False)
    text = str(caught.value)
    assert "4 checkpoints takes about 2.0 h more, and 60 min are left of --max-hours 1.5" in text
    assert "small fold 0, small fold 1 would fit" in text
    assert "--fit-in-time" in text


def test_nothing_missing_predicts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    predicting = Predicting(monkeypatch)
    assert fill_in_time([], ITEMS, recipe(big=1.0), compute(), fit_in_time=True) == []
    assert predicting.calls == []


@pytest.mark.usefixtures("artefact_root")
def test_flags_that_make_no_sense_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for words, wanted in (
        (["--max-hours", "0"], "want hours, such as 8.5, found '0'"),
        (["--max-hours", "nan"], "want hours"),
        (["--max-hours", "8h"], "want hours"),
    ):
        assert predict.main(words) == 2
        assert wanted in capsys.readouterr().err
