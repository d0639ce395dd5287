"""Batches for training and evaluation: what is drawn, and from what the draw depends."""

import multiprocessing
from collections import Counter

import numpy as np
import pytest
import torch

from src.config import InputSpec
from src.data import dataset, images
from src.data.dataset import (
    BatchKey,
    DeviceBatches,
    EpochSampler,
    EvalBatches,
    TrainBatches,
    make_loader,
)
from src.data.pixels import Canvas, PixelSource
from src.errors import UserError, message_of

COUNT = 24
LABELS = np.array([0, 0, 1] * 8)


def spec_of(size: int, canvas: int | None = None, geometry: str = "squash") -> InputSpec:
    half = (0.5, 0.5, 0.5)
    return InputSpec(size, canvas or size, geometry, "bicubic", half, half)


@pytest.fixture
def folder(tmp_path, make_images):
    make_images(tmp_path, COUNT, size=(20, 26), suffix=".png")
    return tmp_path


@pytest.fixture
def source(folder):
    return source_of(folder, [spec_of(16, 20)])


def source_of(folder, specs):
    names = sorted(path.name for path in folder.glob("*.png"))
    return PixelSource(folder, names, [Canvas.of(spec) for spec in specs])


# --- order ---


def sampler_of(rows=None, *, batch_size=5, balanced=False, seed=1, labels=LABELS):
    rows = np.arange(COUNT) if rows is None else rows
    return EpochSampler(rows, labels, batch_size, balanced=balanced, seed=seed)


def test_an_epoch_covers_each_row_at_most_once():
    rows = np.arange(100, 100 + COUNT)
    sampler = sampler_of(rows)
    batches = list(sampler)
    assert len(batches) == len(sampler) == COUNT // 5
    assert [batch.number for batch in batches] == [0, 1, 2, 3]
    drawn = Counter(row for batch in batches for row in batch.rows)
    assert set(drawn.values()) == {1}
    assert set(drawn) <= set(rows.tolist())
    assert all(len(batch.rows) == 5 for batch in batches)


def test_over_epochs_no_row_is_left_out():
    sampler = sampler_of()
    drawn = set()
    for epoch in range(10):
        sampler.epoch = epoch
        drawn |= {row for batch in sampler for row in batch.rows}
    assert drawn == set(range(COUNT))


def test_the_order_depends_on_seed_and_epoch_alone():
    def order(seed: int, epoch: int) -> list[BatchKey]:
        sampler = sampler_of(seed=seed)
        sampler.epoch = epoch
        return list(sampler)

    torch.manual_seed(0)
    first = order(1, 0)
    torch.manual_seed(99)
    assert order(1, 0) == first
    assert [b.rows for b in order(1, 1)] != [b.rows for b in first]
    assert [b.rows for b in order(2, 0)] != [b.rows for b in first]
    sampler = sampler_of()
    assert list(sampler) == list(sampler)  # not a stream that goes on
    assert order(1, 3)[0].epoch == 3


def test_a_batch_size_above_the_number_of_rows():
    batches = list(sampler_of(batch_size=1000))
    assert len(batches) == 1
    assert sorted(batches[0].rows) == list(range(COUNT))


def test_balanced_draws_half_of_each_class():
    labels = np.zeros(1000, np.int64)
    labels[:30] = 1
    rows = np.arange(1000) + 7
    sampler = EpochSampler(rows, labels, 100, balanced=True, seed=3)
    drawn = np.array([row for batch in sampler for row in batch.rows]) - 7
    assert len(drawn) == 1000
    share = labels[drawn].mean()
    assert abs(share - 0.5) < 4 * 0.5 / np.sqrt(1000)
    assert set(drawn[labels[drawn] == 1]) == set(range(30))
    plain = EpochSampler(rows, labels, 100, balanced=False, seed=3)
    drawn = np.array([row for batch in plain for row in batch.rows]) - 7
    assert labels[drawn].mean() == 0.03


# --- training batches ---


def draw(source, *, workers=0, seed=1, epochs=1, augment="standard", first=0):
    batches = TrainBatches(source, LABELS, augment, 16, seed)
    sampler = sampler_of(seed=seed)
    loader = make_loader(batches, sampler, workers, pin=False)
    loader = DeviceBatches(loader, augment, 16, torch.device("cpu"))
    found = []
    for epoch in range(first, first + epochs):
        sampler.epoch = epoch
        found.append([{k: v.numpy().copy() for k, v in batch.items()} for batch in loader])
    return found


def as_bytes(epoch):
    return [{key: value.tobytes() for key, value in batch.items()} for batch in epoch]


def test_a_training_batch(source):
    for batch in draw(source)[0]:
        assert batch["pixels"].shape == (5, 16, 16, 3)
        assert batch["pixels"].dtype == np.uint8
        assert batch["label"].dtype == batch["item"].dtype == np.int64
        assert batch["label"].tolist() == LABELS[batch["item"]].tolist()


def test_pixels_belong_to_their_item(source):
    for batch in draw(source, augment="none")[0]:
        for image, row in zip(batch["pixels"], batch["item"], strict=True):
            assert np.array_equal(image, source.read(row)[0][2:18, 2:18])


@pytest.mark.parametrize("augment", ["standard", "crop_flip"])
def test_workers_change_nothing(source, augment):
    alone = draw(source, epochs=2, augment=augment)
    shared = draw(source, epochs=2, workers=2, augment=augment)
    assert [as_bytes(epoch) for epoch in alone] == [as_bytes(epoch) for epoch in shared]


def test_the_stream_is_a_function_of_seed_epoch_and_batch(source):
    first, second = draw(source, epochs=2)
    assert as_bytes(draw(source)[0]) == as_bytes(first)
    assert as_bytes(draw(source, first=1)[0]) == as_bytes(second)  # as after a resume
    batches = TrainBatches(source, LABELS, "standard", 16, 1)
    rows = (0, 1, 2, 3)

    def pixels(seed: int, epoch: int, number: int) -> bytes:
        batches.seed = seed
        return batches[BatchKey(epoch, number, rows)]["pixels"].numpy().tobytes()

    assert pixels(1, 0, 0) == pixels(1, 0, 0)
    keys = [(1, 0, 0), (1, 0, 1), (1, 1, 0), (1, 1, 1), (2, 0, 0)]
    assert len({pixels(*key) for key in keys}) == len(keys)


def test_items_of_a_batch_are_not_augmented_alike(source):
    batches = TrainBatches(source, LABELS, "standard", 16, 1)
    pixels = batches[BatchKey(0, 0, (3,) * 6)]["pixels"].numpy()
    assert len({image.tobytes() for image in pixels}) > 3


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_training_item_is_named_without_a_traceback(folder, source, workers):
    (folder / source.paths[7]).write_bytes(b"")
    with pytest.raises(UserError) as caught:
        draw(source, epochs=3, workers=workers)
    message = message_of(caught.value)
    assert source.paths[7] in message
    assert "empty" in message
    assert "Traceback" not in message
    assert "\n" not in message
    assert multiprocessing.active_children() == []  # while `caught` still holds the loader's frames


def test_erasing_changes_no_other_draw_and_follows_from_seed_epoch_and_batch(source):
    def boxes(seed: int = 1, epoch: int = 0, number: int = 0, chance: float = 0.5):
        batches = TrainBatches(source, LABELS, "standard", 16, seed, chance)
        return batches[BatchKey(epoch, number, tuple(range(20)))]

    plain = TrainBatches(source, LABELS, "standard", 16, 1)[BatchKey(0, 0, tuple(range(20)))]
    assert "blank" not in plain
    assert torch.equal(plain["pixels"], boxes()["pixels"])
    first = boxes()["blank"]
    assert torch.equal(first, boxes()["blank"])
    others = [boxes(seed=2), boxes(epoch=1), boxes(number=1)]
    assert not any(torch.equal(first, other["blank"]) for other in others)
    assert 0 < int((first.sum(1) > 0).sum()) < 20


# --- evaluation batches ---


def test_evaluation_is_the_canvas_and_its_central_crop(source):
    batch = EvalBatches(source, [spec_of(16, 20)])[[4, 0]]
    assert batch["item"].tolist() == [4, 0]
    assert batch["readable"].tolist() == [True, True]
    assert batch["pixels0"].dtype == torch.uint8
    for image, row in zip(batch["pixels0"], [4, 0], strict=True):
        assert np.array_equal(image.numpy(), source.read(row)[0][2:18, 2:18])


def test_two_reads_are_byte_equal_and_workers_change_nothing(source):
    def read(workers: int) -> list[bytes]:
        loader = make_loader(
            EvalBatches(source, [spec_of(16, 20)]), [[0, 1, 2], [3, 4], [5]], workers, pin=False
        )
        return [batch["pixels0"].numpy().tobytes() for batch in loader]

    first = read(0)
    assert read(0) == first == read(2)


def test_evaluation_never_calls_the_training_transform(source, monkeypatch):
    def refuse(*args):
        raise AssertionError("augmentation in evaluation")

    monkeypatch.setattr(dataset, "make_augment", refuse)
    monkeypatch.setattr(dataset, "takes_batches", refuse)
    EvalBatches(source, [spec_of(16, 20)])[[0, 1]]
    for preset in ("none", "standard"):
        with pytest.raises(AssertionError):
            TrainBatches(source, LABELS, preset, 16, 1)


def test_each_item_is_decoded_once_for_all_specs(folder, monkeypatch):
    decoded = []
    real = images.cv2.imdecode
    monkeypatch.setattr(
        images.cv2, "imdecode", lambda *a: decoded.append(a[0].tobytes()) or real(*a)
    )
    specs = [
        spec_of(16),
        spec_of(12, 16),
        spec_of(24, geometry="short_side"),
        spec_of(16),
        spec_of(8),
    ]
    source = source_of(folder, specs)
    batch = EvalBatches(source, specs)[[0, 1, 2]]
    assert len(decoded) == len(set(decoded)) == 3
    sizes = [batch[f"pixels{k}"].shape[1] for k in range(5)]
    assert sizes == [16, 12, 24, 16, 8]
    assert torch.equal(batch["pixels0"], batch["pixels3"])
    assert torch.equal(batch["pixels0"][:, 2:14, 2:14], batch["pixels1"])
    alone = EvalBatches(source_of(folder, specs[2:3]), specs[2:3])[[0, 1, 2]]
    assert torch.equal(alone["pixels0"], batch["pixels2"])


def test_an_unreadable_item_is_marked_and_never_another_item(folder, source):
    (folder / source.paths[1]).write_bytes(b"not an image")
    batch = EvalBatches(source, [spec_of(16, 20), spec_of(20)])[[0, 1, 2]]
    assert batch["readable"].tolist() == [True, False, True]
    for key in ("pixels0", "pixels1"):
        assert int(batch[key][1].max()) == 0
        assert int(batch[key][0].max()) > 0
        assert int(batch[key][2].max()) > 0


def test_a_spec_without_a_canvas_in_the_source_is_refused(source):
    with pytest.raises(ValueError, match="not in list"):
        EvalBatches(source, [spec_of(99)])
