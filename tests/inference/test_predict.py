"""The one inference path: one decode an item, whatever looks at it."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from src import paths
from src.artifacts.oof import read_views
from src.compute.request import Compute
from src.data.pixels import images
from src.errors import UserError
from src.inference import passes, stored
from src.inference.predict import view_pixels
from src.training.job import Job
from src.training.trainer import fit_fold
from tests.asked import items_of, parts_of

MakeJob = Callable[..., Job]
CPU = Compute("cpu", "auto", 0)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the calls of the decoder."""
    calls: list[int] = []
    decode = images.make_canvases

    def counted(
        data: bytes, canvases: list[images.Canvas], *cut: object
    ) -> tuple[list[NDArray[np.uint8]], str]:
        calls.append(len(data))
        return decode(data, canvases, *cut)

    monkeypatch.setattr(images, "make_canvases", counted)
    return calls


def test_five_members_decode_each_item_once_and_say_what_each_says_alone(
    make_job: MakeJob, decoded: list[int]
) -> None:
    jobs = []
    for name, size in {"a": 12, "b": 12, "c": 16, "d": 10, "e": 16}.items():
        tta = "flip" if name == "e" else "none"
        jobs.append(make_job(model=name, input={"image_size": size}, tta=tta, optim={"epochs": 1}))
        fit_fold(jobs[-1])
    items, parts = items_of(jobs[0]), parts_of(*jobs)
    assert [part.model for part in parts] == list("abcde")
    decoded.clear()
    passes.predict_parts(parts, items, CPU)
    assert len(decoded) == len(items.item_ids)
    together = [stored.stored_predictions(part, items) for part in parts]
    assert len(decoded) == len(items.item_ids)
    for part, found in zip(parts, together, strict=True):
        assert found is not None
        assert len(found) == len(items.item_ids) * (2 if part.model == "e" else 1)
        passes.predict_parts([part], items, CPU)
        np.testing.assert_array_equal(read_views(part.views)[0]["logit"], found["logit"])


@pytest.fixture
def job(make_job: MakeJob) -> Job:
    """Train a model of two views."""
    job = make_job(tta="flip", optim={"epochs": 1})
    fit_fold(job)
    return job


def test_predictions_of_held_out_items_equal_their_oof(job: Job) -> None:
    items, (part,) = items_of(job, job.held_rows.tolist()), parts_of(job)
    passes.predict_parts([part], items, CPU)
    views, oof = (read_views(file)[0] for file in (part.views, paths.oof_views(*job.names)))
    np.testing.assert_allclose(views["logit"], oof["logit"], rtol=0, atol=1e-5)


def test_mirror_images_are_left_out_where_one_view_is_wanted(job: Job) -> None:
    items, (both,) = items_of(job), parts_of(job)
    one = dataclasses.replace(both, one_view=True)
    passes.predict_parts([one], items, CPU)
    plain = stored.stored_predictions(one, items)
    assert plain is not None
    assert plain["view"].tolist() == ["full"] * len(items.item_ids)
    assert stored.stored_predictions(both, items) is None  # its other half is not there

    passes.predict_parts([both], items, CPU)
    again = stored.stored_predictions(one, items)
    assert again is not None
    np.testing.assert_allclose(again["logit"], plain["logit"], rtol=0, atol=1e-5)
    whole = stored.stored_predictions(both, items)
    assert whole is not None
    assert len(whole) == 2 * len(again)


def test_an_unreadable_item_has_one_row_without_a_logit(job: Job) -> None:
    (job.root / "train" / "i005.png").write_bytes(b"GIF89a")
    items, (part,) = items_of(job), parts_of(job)
    passes.predict_parts([part], items, CPU)
    views = stored.stored_predictions(part, items)
    assert views is not None
    lost = views[views["item_id"] == "i005.png"]
    assert lost["view"].tolist() == ["unreadable"]
    assert lost["logit"].isna().all()
    assert views.drop(lost.index)["logit"].notna().all()

    # What is of other weights, items or files, or damaged, does not count.
    replace = dataclasses.replace
    for other, asked in (
        (replace(part, checkpoint_sha256="0" * 64), items),
        (part, replace(items, manifest_sha256="another")),
        (part, replace(items, item_ids=[*items.item_ids, "new.png"])),
    ):
        assert stored.stored_predictions(other, asked) is None
    part.views.write_bytes(part.views.read_bytes()[:200])
    assert stored.stored_predictions(part, items) is None


def test_a_checkpoint_that_is_gone_or_not_the_recorded_one_is_refused(job: Job) -> None:
    file = paths.checkpoint(*job.names)
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(UserError, match="not the file that its run record speaks of"):
        parts_of(job)
    file.unlink()
    with pytest.raises(UserError, match=r"fold_0\.safetensors.*--overwrite"):
        parts_of(job)


def test_every_flip_view_is_the_prediction_of_the_mirrored_pixels() -> None:
    pixels = torch.arange(2 * 3 * 4 * 3, dtype=torch.uint8).view(2, 3, 4, 3)
    mirrored = np.stack([np.fliplr(image) for image in pixels.numpy()])
    np.testing.assert_array_equal(view_pixels(pixels, "full+flip").numpy(), mirrored)
    assert view_pixels(pixels, "full") is pixels
