"""The one inference path: one decode an item, whatever looks at it."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from src import paths
from src.artifacts.oof import read_views
from src.artifacts.recipes import Member, Recipe
from src.compute.request import Compute
from src.data.pixels import images
from src.inference import passes, stored
from src.training.job import Job
from src.training.trainer import fit_fold

MakeJob = Callable[..., Job]


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


def five_members(make_job: MakeJob) -> Recipe:
    """Train five models of three input sizes, one with two views, on fold 0."""
    sizes = {"a": 12, "b": 12, "c": 16, "d": 10, "e": 16}
    for name, size in sizes.items():
        tta = "flip" if name == "e" else "none"
        fit_fold(make_job(model=name, input={"image_size": size}, tta=tta, optim={"epochs": 1}))
    members = [Member(name, 0.2, 0.5, {}) for name in sizes]
    return Recipe("tiny", "s", [0], "", members, [])


def test_five_members_decode_each_item_once(make_job: MakeJob, decoded: list[int]) -> None:
    recipe = five_members(make_job)
    job = make_job()
    ids = job.table["item_id"].tolist()
    items = stored.TestItems(job.root, ids, job.table["path"].tolist(), "manifest")
    parts = stored.needed_parts(recipe)
    assert [part.model for part in parts] == list("abcde")
    decoded.clear()
    passes.predict_parts(parts, items, Compute("cpu", "auto", 0))
    assert len(decoded) == len(ids)
    for part in parts:
        found = stored.stored_predictions(part, items)
        assert found is not None
        assert len(found) == len(ids) * (2 if part.model == "e" else 1)
    assert len(decoded) == len(ids)


def test_a_pass_over_all_members_equals_one_pass_each(make_job: MakeJob) -> None:
    recipe = five_members(make_job)
    job = make_job()
    items = stored.TestItems(
        job.root, job.table["item_id"].tolist(), job.table["path"].tolist(), "manifest"
    )
    parts = stored.needed_parts(recipe)
    passes.predict_parts(parts, items, Compute("cpu", "auto", 0))
    together = [read_views(part.views)[0]["logit"].to_numpy() for part in parts]
    for part, logits in zip(parts, together, strict=True):
        passes.predict_parts([part], items, Compute("cpu", "auto", 0))
        np.testing.assert_array_equal(read_views(part.views)[0]["logit"].to_numpy(), logits)


def test_test_predictions_of_held_out_items_equal_their_oof(make_job: MakeJob) -> None:
    job = make_job()
    fit_fold(job)
    held = job.table.iloc[job.held_rows]
    items = stored.TestItems(job.root, held["item_id"].tolist(), held["path"].tolist(), "m")
    part = stored.needed_parts(Recipe("tiny", "s", [0], "", [Member("m", 1.0, 0.5, {})], []))[0]
    passes.predict_parts([part], items, Compute("cpu", "auto", 0))
    views, _ = read_views(part.views)
    oof, _ = read_views(paths.oof_views(*job.names))
    np.testing.assert_allclose(
        views["logit"].to_numpy(), oof["logit"].to_numpy(), rtol=0, atol=1e-5
    )


def test_an_unreadable_item_has_one_row_without_a_logit(make_job: MakeJob) -> None:
    job = make_job(tta="flip")
    fit_fold(job)
    (job.root / "train" / "i005.png").write_bytes(b"GIF89a")
    items = stored.TestItems(
        job.root, job.table["item_id"].tolist(), job.table["path"].tolist(), "m"
    )
    part = stored.needed_parts(Recipe("tiny", "s", [0], "", [Member("m", 1.0, 0.5, {})], []))[0]
    passes.predict_parts([part], items, Compute("cpu", "auto", 0))
    views = stored.stored_predictions(part, items)
    assert views is not None
    lost = views[views["item_id"] == "i005.png"]
    assert lost["view"].tolist() == ["unreadable"]
    assert lost["logit"].isna().all()
    assert views.drop(lost.index)["logit"].notna().all()


@pytest.mark.parametrize("changed", ["checkpoint", "manifest", "items", "damaged"])
def test_stored_predictions_of_something_else_are_not_used(make_job: MakeJob, changed: str) -> None:
    import dataclasses

    job = make_job()
    fit_fold(job)
    items = stored.TestItems(
        job.root, job.table["item_id"].tolist(), job.table["path"].tolist(), "m"
    )
    part = stored.needed_parts(Recipe("tiny", "s", [0], "", [Member("m", 1.0, 0.5, {})], []))[0]
    passes.predict_parts([part], items, Compute("cpu", "auto", 0))
    assert stored.stored_predictions(part, items) is not None
    if changed == "checkpoint":
        part = dataclasses.replace(part, checkpoint_sha256="0" * 64)
    elif changed == "manifest":
        items = dataclasses.replace(items, manifest_sha256="another")
    elif changed == "items":
        items = dataclasses.replace(items, item_ids=[*items.item_ids, "new.png"])
    else:
        part.views.write_bytes(part.views.read_bytes()[:200])
    assert stored.stored_predictions(part, items) is None


def test_a_gone_checkpoint_is_named_with_the_way_out(make_job: MakeJob) -> None:
    from src.errors import UserError

    job = make_job()
    fit_fold(job)
    paths.checkpoint(*job.names).unlink()
    with pytest.raises(UserError, match=r"fold_0\.safetensors.*--overwrite"):
        stored.needed_parts(Recipe("tiny", "s", [0], "", [Member("m", 1.0, 0.5, {})], []))


def test_every_flip_view_is_the_prediction_of_the_mirrored_pixels() -> None:
    from src.inference.predict import view_pixels

    pixels = torch.arange(2 * 3 * 4 * 3, dtype=torch.uint8).view(2, 3, 4, 3)
    mirrored = np.stack([np.fliplr(image) for image in pixels.numpy()])
    np.testing.assert_array_equal(view_pixels(pixels, "full+flip").numpy(), mirrored)
    assert view_pixels(pixels, "full") is pixels


def test_a_checkpoint_that_is_not_the_recorded_one_is_refused(make_job: MakeJob) -> None:
    from src.errors import UserError

    first, second = make_job(), make_job(model="second", seed=3)
    for job in (first, second):
        fit_fold(job)
    paths.checkpoint(*first.names).write_bytes(paths.checkpoint(*second.names).read_bytes())
    with pytest.raises(UserError, match="not the file that its run record speaks of"):
        stored.needed_parts(Recipe("tiny", "s", [0], "", [Member("m", 1.0, 0.5, {})], []))
