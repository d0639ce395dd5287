"""Mixup and cutmix. Oracle: every mixed image and label, taken apart again by hand."""

import numpy as np
import pytest
import torch

from src.data.batches.loader import mix_batch

COUNT, SIDE = 12, 16


def batch_of():
    """Images of one grey level each, 10 apart: a mixed pixel tells what it was made of."""
    levels = torch.arange(COUNT, dtype=torch.uint8) * 10
    pixels = levels[:, None, None, None].expand(COUNT, SIDE, SIDE, 3).contiguous()
    return pixels, torch.arange(COUNT) % 3 // 2


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
        partners = (levels - share * np.arange(COUNT)) / max(1 - share, 1e-9)
        near = np.abs(partners - np.rint(partners)).max()
        if near < 0.02 and sorted(np.rint(partners).astype(int)) == list(range(COUNT)):
            wanted = (
                share * label.numpy() + (1 - share) * label.numpy()[np.rint(partners).astype(int)]
            )
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
    partner = mixed[:, rows[0], columns[0], 0].long() // 10 if len(rows) else torch.arange(COUNT)
    assert sorted(partner.tolist()) == list(range(COUNT))
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
