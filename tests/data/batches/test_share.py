"""Shares of a batch: what several ranks draw for their places is what one process draws for all."""

from itertools import chain

import numpy as np
import pytest
import torch

from src.config import BlendConfig
from src.data.batches.hard_reals import HardReals
from src.data.batches.loader import TrainBatches
from src.data.batches.made import Masked, PseudoFakes
from src.data.batches.on_device import DeviceBatches
from src.data.batches.samplers import BatchKey
from src.data.batches.share import Share
from src.data.pixels.source import Canvas, PixelSource
from tests.data.batches.test_made import Fixed

COUNT, SIDE, SIZE = 11, 40, 32
LABELS = np.array([0, 1] * 6)[:COUNT]
KEY = BatchKey(2, 3, (4, 1, 1, 8, 0, 10, 3, 7))  # an item twice, and no whole number a rank


@pytest.fixture
def source(tmp_path, make_images):
    make_images(tmp_path, COUNT, size=(SIDE, SIDE), suffix=".png")
    names = sorted(path.name for path in tmp_path.glob("*.png"))
    return PixelSource(tmp_path, names, [Canvas(SIDE, "squash", "bicubic")])


def drawn(source, augment, key, share, *, mix=(0.0, 0.0), blends=False, views=None):
    batches = TrainBatches(source, LABELS, augment, SIZE, 5, mixes=max(mix) > 0)
    batches.share, batches.views = share, views
    batches.reals = HardReals.of("smooth")
    if blends:
        batches.fakes = PseudoFakes(BlendConfig(hulls=("face",)), Fixed())
        batches.masked = Masked(SIDE)
    cpu = torch.device("cpu")
    return next(iter(DeviceBatches([batches[key]], augment, SIZE, cpu, *mix, share)))


def parts_of(ranks, draw):
    """Return the batch of one process, and those of all ranks put together."""
    parts = [draw(Share(rank, ranks)) for rank in range(ranks)]
    return draw(Share()), {key: torch.cat([part[key] for part in parts]) for key in parts[0]}


@pytest.mark.parametrize("ranks", [2, 3, 8])
@pytest.mark.parametrize(
    ("augment", "blends"),
    [
        ({"name": "crop_flip", "erase": 0.5}, False),
        ({"name": "standard", "erase": 0.5}, False),
        ({"name": "crop_flip", "erase": 0.5}, True),
        ("zoom_flip", False),
        ("light", True),
        ("none", False),
    ],
)
def test_ranks_draw_what_one_process_draws(source, ranks, augment, blends):
    # A real and its blend are different ranks', in the second half.
    key = KEY._replace(rows=(4, 0, 1, 8, COUNT + 0, COUNT + 4, 0, 2)) if blends else KEY
    whole, together = parts_of(
        ranks, lambda share: drawn(source, augment, key, share, blends=blends, views="crop_flip")
    )
    assert whole.keys() == together.keys()
    assert {"views", "pixels", "item"} < whole.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, together[name]), name


@pytest.mark.parametrize("mix", [(0.4, 0.0), (0.0, 1.0)])
def test_partners_of_mixed_images_are_other_ranks_too(source, mix):
    plain = drawn(source, "standard", KEY, Share())
    of_all = {tensor.dtype: tensor for tensor in (plain["pixels"], plain["label"])}

    def draw(share):
        gathers = Share(share.rank, share.ranks, lambda own, _: of_all[own.dtype])
        return drawn(source, "standard", KEY, gathers, mix=mix)

    whole, together = parts_of(3, draw)
    assert not torch.equal(whole["label"].float(), plain["label"].float())
    for name, tensor in whole.items():
        assert torch.equal(tensor, together[name]), name


def test_shares_are_contiguous_and_differ_by_one_at_most():
    for count in range(9):
        for ranks in range(1, 6):
            parts = [list(range(count))[Share(rank, ranks).of(count)] for rank in range(ranks)]
            assert [*chain.from_iterable(parts)] == list(range(count))
            assert max(map(len, parts)) - min(map(len, parts)) <= 1
