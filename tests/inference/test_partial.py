"""Rows of an unfinished pass: they count for the very same question only, and are never lost."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from src.compute.request import Compute
from src.config import InputSpec
from src.inference import passes
from src.inference.engines import Engine
from src.inference.partial import Partial
from src.inference.stored import Part, TestItems

PARTS = [Part(name, 0, Path(name), name, Path("v")) for name in "ab"]
VIEWS = [["full"], ["full", "full+flip"]]
TABLE, READABLE = np.arange(30.0).reshape(10, 3), np.arange(10) != 4
Table = tuple[NDArray[np.float64], NDArray[np.bool_]]


def partial(mark: str = "x") -> Partial:
    return Partial(PARTS, VIEWS, lambda: [{"items": mark}] * 2, np.zeros(10, bool))


def save(done: int) -> Partial:
    """Save the first rows of `TABLE`, whatever was saved before."""
    made = partial()
    made.begin(TABLE.copy(), READABLE.copy())
    made.done = done
    made.save()
    return made


def begin(mark: str = "x") -> int:
    again, seen = np.full((10, 3), np.nan), np.zeros(10, bool)
    done = partial(mark).begin(again, seen)
    np.testing.assert_array_equal(again[:done], TABLE[:done])
    assert np.isnan(again[done:]).all()
    assert seen[:done].tolist() == READABLE[:done].tolist()
    return done


def test_rows_of_other_items_or_precision_do_not_count(artefact_root: Path) -> None:
    first = save(6)
    assert begin() == 6
    assert begin("other") == 0
    first.files[1].write_bytes(b"PK damaged")
    assert begin() == 0
    first.discard()
    assert not first.files[0].exists()


def test_fewer_rows_do_not_replace_more_of_the_same(artefact_root: Path) -> None:
    first = save(8)
    long = first.files[0].read_bytes()
    first.files[1].unlink()
    second = save(3)
    assert first.files[0].read_bytes() == long
    assert begin() == 3
    second.done = 9
    second.save()
    assert begin() == 9


def test_a_pass_that_ends_before_its_first_batch_saves_nothing(artefact_root: Path) -> None:
    made = partial()
    made.save()
    assert not made.files[0].exists()


@pytest.mark.parametrize("kept", ["logits", "readable"])
def test_rows_of_another_shape_or_kind_do_not_count(artefact_root: Path, kept: str) -> None:
    file = save(6).files[0]
    with np.load(file) as content:
        good = dict(content)
    for bad in (good[kept][:5], good[kept].astype(np.float32), np.array(1.0)):
        np.savez(file, **{**good, kept: bad})
        assert begin() == 0
    np.savez(file, **good)
    assert begin() == 6


class Deciding:
    """Stands for an engine that its first batch decides, and that remembers."""

    engine = "eager"
    spec = InputSpec(8, 8, "squash", "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

    def __init__(self, precision: str) -> None:
        self.precision = precision

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        raise AssertionError


def test_rows_count_for_the_precision_they_were_made_in(
    artefact_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remembered = [""]
    resumed: list[tuple[int, float]] = []

    def load_engine(*given: object) -> tuple[Deciding, list[str]]:
        compute = given[3]
        assert isinstance(compute, Compute)
        wanted = compute.precision
        return Deciding(remembered[0] if wanted == "auto" else wanted), ["full"]

    def predict_views(
        engines: list[Engine],
        *_: object,
        begin: Callable[..., int],
        on_batch: Callable[[int], None],
        **__: object,
    ) -> Table:
        table, readable = np.full((128, 1), np.nan), np.zeros(128, bool)
        done = begin(table, readable)
        resumed.append((done, float(table[0, 0])))
        if not engines[0].precision:
            engines[0].precision = remembered[0] = "bf16"
        table[done : done + 64] = {"bf16": 16.0, "fp32": 32.0}[engines[0].precision]
        on_batch(done + 64)
        raise KeyboardInterrupt

    monkeypatch.setattr(passes, "load_engine", load_engine)
    monkeypatch.setattr(passes, "predict_views", predict_views)
    names = [str(number) for number in range(128)]
    items = TestItems(Path(), names, names, "manifest")

    def go(precision: str) -> tuple[int, float]:
        with pytest.raises(KeyboardInterrupt):
            passes._one_pass(PARTS[:1], items, Compute("cpu", precision), lambda _: None)
        return resumed[-1]

    assert go("auto")[0] == 0
    assert go("auto") == (64, 16.0)
    assert go("fp32")[0] == 0
    assert go("fp32") == (64, 32.0)
    remembered[0] = ""
    assert go("auto")[0] == 0
