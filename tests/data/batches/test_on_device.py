"""Batches on the device: copied ahead of the step on a card, mixed."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch

from src.data.batches.augment import BATCH_PRESETS
from src.data.batches.on_device import DeviceBatches, ahead, mix_batch


class FakeCard:
    """Stands in for `torch.cuda`: what is done, in which stream, in order."""

    def __init__(self, monkeypatch):
        self.log, self.now = [], "computing"
        monkeypatch.setattr(torch.cuda, "Stream", lambda _: "side")
        monkeypatch.setattr(torch.cuda, "stream", self.inside)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda _: self)

    @contextmanager
    def inside(self, stream):
        self.now = stream
        yield
        self.now = "computing"

    def wait_stream(self, stream):
        self.log.append(f"{self.now} waits for {stream}")


class FakeTensor:
    def __init__(self, card, number):
        self.card, self.number = card, number

    def record_stream(self, stream):
        assert stream is self.card
        self.card.log.append(f"{self.number} is held")


def test_on_a_card_a_batch_is_made_before_the_step_with_the_one_before(monkeypatch):
    card = FakeCard(monkeypatch)

    def prepare(batch):
        card.log.append(f"{batch['pixels']} is made in {card.now}")
        return {"pixels": FakeTensor(card, batch["pixels"])}

    given = [{"pixels": number} for number in range(3)]
    for batch in ahead(given, prepare, torch.device("cuda")):
        card.log.append(f"step {batch['pixels'].number}")
    assert card.log == [
        "0 is made in side", "computing waits for side", "0 is held",
        "1 is made in side", "step 0", "computing waits for side", "1 is held",
        "2 is made in side", "step 1", "computing waits for side", "2 is held",
        "step 2",
    ]  # fmt: skip
    assert list(ahead([], prepare, torch.device("cuda"))) == []


def test_nothing_that_was_drawn_is_read_back_from_the_card(monkeypatch):
    """As on a card: only what is moved may be `meta`, of which no number can be read."""
    pixels = torch.randint(256, (6, 20, 20, 3), dtype=torch.uint8)
    batch = {"pixels": pixels, "label": torch.arange(6) % 2, "item": torch.arange(6)}
    batch |= {"draw": torch.tensor(3), "mix": torch.tensor(4), "mask": pixels[..., 0]}
    batch["same"] = torch.tensor([0, 1, 1, 2, 0, 1])
    for name in BATCH_PRESETS.names():
        for mix in ({"mixup": 0.4}, {"cutmix": 1.0}):
            seen = next(iter(DeviceBatches([batch], name, 16, torch.device("meta"), **mix)))
            assert seen["pixels"].shape == (6, 16, 16, 3)
            assert seen["mask"].shape == (6, 16, 16)
            assert {value.device.type for value in seen.values()} == {"meta"}


# --- mixup and cutmix: every mixed image and label, taken apart again by hand ---

MIXED, SIDE = 12, 16


def batch_of():
    """Images of one grey level each, 10 apart: a mixed pixel tells what it was made of."""
    levels = torch.arange(MIXED, dtype=torch.uint8) * 10
    pixels = levels[:, None, None, None].expand(MIXED, SIDE, SIDE, 3).contiguous()
    return pixels, torch.arange(MIXED) % 3 // 2


@pytest.mark.parametrize("seed", range(8))
def test_mixup_adds_two_images_and_their_labels_in_one_proportion(seed):
    pixels, label = batch_of()
    mixed, soft = mix_batch(pixels, label, 0.8, 0.0, seed)
    assert mixed.dtype == soft.dtype == torch.float32
    assert (mixed == mixed[:, :1, :1, :1]).all()
    levels = mixed[:, 0, 0, 0].double().numpy() / 10
    # The proportion and the partners, found again from the levels alone.
    fits = []
    for share in np.unique(np.round(np.linspace(0, 1, 2001), 6)):
        partners = (levels - share * np.arange(MIXED)) / max(1 - share, 1e-9)
        near = np.abs(partners - np.rint(partners)).max()
        if near < 0.02 and sorted(np.rint(partners).astype(int)) == list(range(MIXED)):
            other = label.numpy()[np.rint(partners).astype(int)]
            wanted = share * label.numpy() + (1 - share) * other
            fits.append(np.abs(wanted - soft.numpy()).max())
    assert fits
    assert min(fits) < 2e-3


@pytest.mark.parametrize("seed", range(8))
def test_cutmix_moves_one_rectangle_and_its_share_of_the_label(seed):
    pixels, label = batch_of()
    mixed, soft = mix_batch(pixels, label, 0.0, 1.0, seed)
    assert mixed.dtype == torch.uint8
    foreign = (mixed != pixels).any(-1).any(0).numpy()
    rows, columns = np.flatnonzero(foreign.any(1)), np.flatnonzero(foreign.any(0))
    if len(rows):
        box = foreign[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert box.all()
        assert foreign.sum() == box.size
    share = 1 - foreign.mean()
    partner = mixed[:, rows[0], columns[0], 0].long() // 10 if len(rows) else torch.arange(MIXED)
    assert sorted(partner.tolist()) == list(range(MIXED))
    wanted = share * label.float() + (1 - share) * label[partner].float()
    torch.testing.assert_close(soft, wanted.float())


def test_both_take_turns_and_only_the_seed_decides():
    pixels, label = batch_of()
    before = pixels.clone()
    drawn = [mix_batch(pixels, label, 0.2, 1.0, seed) for seed in range(200)]
    cuts = sum(mixed.dtype == torch.uint8 for mixed, _ in drawn)
    assert abs(cuts - 100) < 4 * np.sqrt(50)
    torch.manual_seed(5)
    for seed in (0, 1, 2):
        again = mix_batch(pixels, label, 0.2, 1.0, seed)
        assert all(torch.equal(one, other) for one, other in zip(again, drawn[seed], strict=True))
    assert torch.equal(pixels, before)
    assert not torch.equal(drawn[0][1], drawn[1][1])


def test_the_share_of_mixup_is_a_beta_draw():
    pixels = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 4, 4, 3)
    label = torch.tensor([0, 1])
    moved = [float(mix_batch(pixels, label, 0.4, 0.0, seed)[1][1]) for seed in range(600)]
    # The partner is the image itself half of the time: the label then stays 1.
    shares = np.array([value for value in moved if value < 1])
    assert abs(shares.mean() - 0.5) < 0.07
    assert shares.var() == pytest.approx(1 / (4 * (2 * 0.4 + 1)), abs=0.03)
