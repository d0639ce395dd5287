"""Batches for training and evaluation: what is drawn, and from what the draw depends."""

import multiprocessing
import re

import numpy as np
import pytest
import torch

from src.config import InputSpec
from src.data.batches import loader
from src.data.batches.loader import EvalBatches, TrainBatches, make_loader
from src.data.batches.on_device import DeviceBatches
from src.data.batches.samplers import BatchKey, EpochPool, EpochSampler
from src.data.pixels import images
from src.data.pixels.source import Canvas, PixelSource
from src.errors import UserError, message_of

COUNT = 24
LABELS = np.array([0, 0, 1] * 8)


def spec_of(size, canvas=None, geometry="squash"):
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


def sampler_of(*, batch_size=5, seed=1):
    return EpochSampler(EpochPool(np.arange(COUNT), LABELS, batch_size), "shuffle", seed)


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


def test_pixels_and_labels_belong_to_their_item(source):
    for batch in draw(source, augment="none")[0]:
        assert batch["pixels"].shape == (5, 16, 16, 3)
        assert batch["pixels"].dtype == np.uint8
        assert batch["label"].dtype == batch["item"].dtype == np.int64
        assert batch["label"].tolist() == LABELS[batch["item"]].tolist()
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

    def pixels(seed, epoch, number):
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
    before = {*multiprocessing.active_children()}
    with pytest.raises(UserError) as caught:
        draw(source, epochs=3, workers=workers)
    message = message_of(caught.value)
    assert re.search(f"{source.paths[7]}.*empty", message)
    assert "Traceback" not in message
    assert "\n" not in message
    left = {*multiprocessing.active_children()} - before
    assert not left  # while `caught` still holds the loader's frames


def test_erasing_changes_no_other_draw_and_follows_from_seed_epoch_and_batch(source):
    def batch(seed=1, epoch=0, number=0, chance=0.5):
        augment = {"name": "standard", "erase": chance}
        batches = TrainBatches(source, LABELS, augment, 16, seed)
        return batches[BatchKey(epoch, number, tuple(range(20)))]

    plain = batch(chance=0.0)
    assert "blank" not in plain
    assert torch.equal(plain["pixels"], batch()["pixels"])
    first = batch()["blank"]
    assert torch.equal(first, batch()["blank"])
    others = [batch(seed=2), batch(epoch=1), batch(number=1)]
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
    def read(workers):
        batches = EvalBatches(source, [spec_of(16, 20)])
        loader = make_loader(batches, [[0, 1, 2], [3, 4], [5]], workers, pin=False)
        return [batch["pixels0"].numpy().tobytes() for batch in loader]

    first = read(0)
    assert read(0) == first == read(2)


def test_evaluation_never_calls_the_training_transform(source, monkeypatch):
    def refuse(*args):
        raise AssertionError("augmentation in evaluation")

    monkeypatch.setattr(loader, "make_augment", refuse)
    monkeypatch.setattr(loader, "read_augment", refuse)
    EvalBatches(source, [spec_of(16, 20)])[[0, 1]]
    for preset in ("none", "standard"):
        with pytest.raises(AssertionError):
            TrainBatches(source, LABELS, preset, 16, 1)


def test_each_item_is_decoded_once_for_all_specs(folder, monkeypatch):
    decoded = []
    real = images.decode
    monkeypatch.setattr(images, "decode", lambda *a: decoded.append(a[0]) or real(*a))
    specs = [spec_of(16), spec_of(12, 16), spec_of(24, geometry="short_side"), spec_of(16)]
    source = source_of(folder, specs)
    batch = EvalBatches(source, specs)[[0, 1, 2]]
    assert len(decoded) == len(set(decoded)) == 3
    sizes = [batch[f"pixels{k}"].shape[1] for k in range(4)]
    assert sizes == [16, 12, 24, 16]
    assert torch.equal(batch["pixels0"], batch["pixels3"])
    assert torch.equal(batch["pixels0"][:, 2:14, 2:14], batch["pixels1"])
    alone = EvalBatches(source_of(folder, specs[2:3]), specs[2:3])[[0, 1, 2]]
    assert torch.equal(alone["pixels0"], batch["pixels2"])


def test_an_unreadable_item_is_marked_and_never_another_item(folder, source):
    (folder / source.paths[1]).write_bytes(b"not an image")
    batch = EvalBatches(source, [spec_of(16, 20), spec_of(20)])[[0, 1, 2]]
    assert batch["readable"].tolist() == [True, False, True]
    for key in ("pixels0", "pixels1"):
        assert [int(one.max()) > 0 for one in batch[key]] == [True, False, True]


def test_a_spec_without_a_canvas_in_the_source_is_refused(source):
    with pytest.raises(ValueError, match="not in list"):
        EvalBatches(source, [spec_of(99)])
