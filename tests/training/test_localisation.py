"""ForensicsAdapter's losses. Oracles: loops over patches and pixels, OpenCV's blur."""

import math
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional

from src import paths
from src.config import LocaliseConfig, parse_model
from src.errors import UserError
from src.models.checkpoint import load_checkpoint
from src.models.classifier import Classifier, InputSpec, build_classifier
from src.training.auxiliary.localisation import Localisation, boundary_of, inter, intra, touched
from src.training.rehearsal import Watch, rehearse
from src.training.step import check_step
from src.training.trainer import Trainer, fit_fold
from tests.jobs import make_job, record_of  # noqa: F401
from tests.models.adapter import KWARGS, small_adapter

ADAPTER = {
    "backbone": {"name": "forensics_adapter", "pretrained": "none", "kwargs": KWARGS},
    "input": {"image_size": 64, "crop_pct": 1.0},
    "transfer": {"freeze": ["tower"]},
    "localise": {},
}


def masks(count: int = 4, size: int = 64) -> torch.Tensor:
    """Soft discs of several places and sizes; the last is empty."""
    found = np.zeros((count, size, size), np.float32)
    for number in range(count - 1):
        middle = (size // 3 + 9 * number, size // 2 - 6 * number)
        cv2.circle(found[number], middle, size // 8 + 5 * number, 255, -1)
        found[number] = cv2.GaussianBlur(found[number], (9, 9), 3)
    return torch.from_numpy(found.round().astype(np.uint8))


def batch_of(has_mask: list[bool], label: list[int]) -> dict[str, torch.Tensor]:
    draws, count = torch.Generator().manual_seed(5), len(label)
    mask = masks(count).roll(1, 0)  # the first is empty, of a real
    return {
        "pixels": torch.randint(256, (count, 64, 64, 3), dtype=torch.uint8, generator=draws),
        "item": torch.arange(count),
        "label": torch.tensor(label),
        "mask": mask,
        "has_mask": torch.tensor(has_mask),
    }


def test_a_boundary_is_where_the_blurred_mask_is_neither():
    hard = torch.zeros(1, 32, 32, dtype=torch.uint8)
    hard[0, 8:20, 10:25] = 255
    for mask in (masks(2, 32)[:1], hard):
        share = cv2.GaussianBlur(mask[0].numpy().astype(np.float32), (3, 3), 0) / 255
        np.testing.assert_allclose(boundary_of(mask, 32)[0], 4 * share * (1 - share), atol=1e-6)
        half = (4 * share * (1 - share)).reshape(16, 2, 16, 2).mean((1, 3))
        np.testing.assert_allclose(boundary_of(mask, 16)[0], half, atol=1e-6)
        assert 0.7 < float(boundary_of(mask, 32).max()) <= 1
    assert not boundary_of(torch.full((1, 8, 8), 255, dtype=torch.uint8), 8).any()


def test_patches_are_touched_by_more_than_a_tenth():
    mask = torch.zeros(2, 8, 8, dtype=torch.uint8)
    mask[0, 0, :2] = 41  # 2 of 16 pixels
    mask[0, 0, 4], mask[0, 5, 5] = 255, 255  # 1 of 16 each
    mask[1] = 40
    assert touched(mask, 4).tolist() == [[True, False, False, False], [False] * 4]


def by_loops(patches, mask, label):
    """Intra, and inter, as sums over pairs."""
    count = patches.shape[1]
    side = math.isqrt(count)
    cell = mask.shape[1] // side
    unit = [[one / one.norm() for one in item] for item in patches.detach().double()]
    positive = negative = 0.0
    for points, picture, fake in zip(unit, mask, label.tolist(), strict=True):
        if not fake:
            continue
        cells = picture.reshape(side, cell, side, cell).permute(0, 2, 1, 3).reshape(count, -1)
        changed = [float((c > 40).double().mean()) > 0.1 for c in cells]
        for i in range(count):
            for j in range(count):
                if not changed[j]:
                    value = math.exp(float(points[i] @ points[j]) / 0.5)
                    positive, negative = (
                        (positive, negative + value) if changed[i] else (positive + value, negative)
                    )
    within = -math.log(positive / (positive + negative)) if positive else 0.0
    reals = [p for p, y in zip(unit, label, strict=True) if y == 0]
    fakes = [p for p, y in zip(unit, label, strict=True) if y == 1]
    positive = negative = 0.0
    for real, fake in zip(reals, fakes, strict=False):
        positive += sum(math.exp(float(a @ b) / 0.5) for a in real for b in real)
        negative += sum(math.exp(float(a @ b) / 0.5) for a in real for b in fake)
    between = -math.log(positive / (positive + negative)) if positive else 0.0
    return within, between


@pytest.mark.parametrize("label", [[0, 1, 1, 1], [0, 0, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0]])
def test_contrasts_are_sums_over_pairs(label):
    patches = torch.randn(4, 16, 5, generator=torch.Generator().manual_seed(1))
    mask, label = masks().roll(1, 0), torch.tensor(label)
    within, between = by_loops(patches, mask, label)
    assert float(intra(patches, mask, label)) == pytest.approx(within, abs=1e-5)
    assert float(inter(patches, label)) == pytest.approx(between, abs=1e-5)
    assert (within > 0) == (1 in label)


def test_contrasts_without_a_pair_teach_nothing():
    patches = torch.randn(2, 16, 5, requires_grad=True)
    label, whole = torch.tensor([0, 1]), torch.full((2, 64, 64), 255, dtype=torch.uint8)
    for term in (
        intra(patches, whole, label),  # no patch was left alone
        intra(patches, torch.zeros_like(whole), label),  # none was changed
        intra(patches[:0], whole[:0], label[:0]),
        inter(patches[:1], label[:1]),
        inter(patches[:0], label[:0]),
    ):
        assert term.item() == 0
        (grad,) = torch.autograd.grad(term, patches)
        assert not grad.any()


def small_model() -> Classifier:
    model, _ = build_classifier(parse_model(ADAPTER, "small"))
    model.net.load_state_dict(small_adapter().state_dict())
    return model


def terms_of(model: Classifier, batch: dict, **weights: float) -> dict[str, torch.Tensor]:
    loss = Localisation(LocaliseConfig(**weights), model, "small")
    shown = model(batch, also=sorted(loss.wants))
    return loss(batch, shown, lambda _: {})


def test_terms_are_those_of_the_items_with_a_mask():
    model, batch = small_model().eval(), batch_of([True, True, False, True], [0, 1, 1, 1])
    found = terms_of(model, batch)
    seen = model(batch, also=("boundary", "side_patches", "tower_patches"))
    kept = [0, 1, 3]
    mask, label = batch["mask"][kept], batch["label"][kept]
    error = [functional.mse_loss(seen["boundary"][i], boundary_of(batch["mask"][i : i + 1], 64)[0])
             for i in kept]  # fmt: skip
    assert found["boundary"].item() == pytest.approx(200 * sum(error).item() / 4, rel=1e-5)
    inner = [by_loops(one[kept], mask, label)[0] for one in seen["side_patches"]]
    assert found["intra"].item() == pytest.approx(20 * sum(inner), rel=1e-4)
    within, between = by_loops(seen["tower_patches"][kept], mask, label)
    assert found["clip"].item() == pytest.approx(10 * (within + between), rel=1e-4)
    # what an item without a mask shows in its place has no say
    batch["mask"][2] = 200
    again = terms_of(model, batch)
    assert all(torch.equal(found[key], again[key]) for key in found)
    assert set(terms_of(model, batch, intra=0, clip=0)) == {"boundary"}


def test_a_batch_in_pieces_has_the_boundary_loss_of_the_whole():
    model, batch = small_model().eval(), batch_of([True, False, False, True], [0, 1, 1, 1])
    whole = terms_of(model, batch, intra=0, clip=0)["boundary"]
    halves = [{k: v[part] for k, v in batch.items()} for part in (slice(0, 3), slice(3, 4))]
    pieces = [len(half["item"]) / 4 * terms_of(model, half, intra=0, clip=0)["boundary"]
              for half in halves]  # fmt: skip
    torch.testing.assert_close(sum(pieces), whole)


@pytest.mark.parametrize("has_mask", [[True] * 4, [False] * 4, [True, False, False, False]])
def test_a_step_trains_all_but_the_tower(make_job, has_mask):  # noqa: F811
    trainer = Trainer(make_job(**ADAPTER))
    trainer.run.enter_stage(0)
    trainer.run.begin_epoch()
    net = trainer.run.model.net
    net.load_state_dict(small_adapter().state_dict())
    trainer.right, trainer.terms = [], {}
    loss = trainer.loss(batch_of(has_mask, [0, 1, 1, 0]))
    loss.backward()
    assert bool(loss.isfinite())
    assert set(trainer.terms) == {"boundary", "intra", "clip"}
    moved = {n for n, p in net.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    every = {n for n, _ in net.named_parameters() if not n.startswith("tower.")}
    if any(has_mask):
        assert moved == every
    else:
        assert moved == {n for n in every if not n.startswith(("boundary.", "decoder.of_map."))}
        assert not any(float(term) for term in trainer.terms.values())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"mixup": 0.2}, "localise wants pictures of one mask.*mixup"),
        ({"cutmix": 1.0}, "localise wants pictures of one mask"),
        ({"localise": {"boundary": 0, "intra": 0, "clip": 0}}, "it teaches nothing"),
        ({"localise": {"boundary_map": 1}}, "did you mean.*boundary"),
        ({"strategy": "feature_extractor", "transfer": {}}, "localise: strategy feature_extractor"),
        ({"strategy": "lp_ft"}, "localise: strategy lp_ft has a stage on features"),
    ],
)
def test_what_does_not_go_with_it_is_told(changes, says):
    with pytest.raises(UserError, match=says):
        parse_model(ADAPTER | changes, "small")


def test_nets_and_steps_that_cannot_are_told(make_job):  # noqa: F811
    with pytest.raises(UserError, match=r"has no boundary map.*take forensics_adapter"):
        Trainer(make_job(localise={}))
    config = parse_model(ADAPTER, "small")
    with pytest.raises(UserError, match=r"localise.intra and localise.clip look at all pairs"):
        check_step(config, "fp32", 2, compiled=False)
    alone = parse_model(ADAPTER | {"localise": {"intra": 0, "clip": 0}}, "small")
    check_step(alone, "fp32", 2, compiled=False)
    with pytest.raises(UserError, match="--compile: localise look"):
        check_step(config, "fp32", 0, compiled=True)
    assert (config.wants_masks, parse_model({**ADAPTER, "localise": None}, "x").wants_masks) == (
        *(True, False),
    )
    assert isinstance(small_model().spec, InputSpec)


@pytest.fixture
def masked_job(make_job):  # noqa: F811
    """A run in which every second fake has a mask, of its left half."""
    job = make_job(**ADAPTER | {"input": {"image_size": 32, "crop_pct": 1.0}}, optim={"epochs": 1})
    mask = np.zeros((16, 16), np.uint8)
    mask[:, :8] = 255
    (job.root / "masks").mkdir()
    kept = job.table["item_id"][(job.table["label"] == 1).to_numpy()][::2]
    for item in kept:
        cv2.imwrite(str(job.root / "masks" / item), mask)
    return replace(job, masks=pd.Series({item: f"masks/{item}" for item in kept}))


def test_a_run_learns_where_and_its_checkpoint_is_a_plain_net(masked_job):
    assert fit_fold(masked_job)
    history = record_of(masked_job)["history"]
    for entry in history:
        assert min(entry[f"train_{name}"] for name in ("boundary", "intra", "clip")) > 0
    model, _ = load_checkpoint(paths.checkpoint(*masked_job.names), torch.device("cpu"))
    fresh, _ = build_classifier(masked_job.config)
    assert set(model.net.state_dict()) == set(fresh.net.state_dict())
    pixels = {"pixels": torch.full((1, 32, 32, 3), 90, dtype=torch.uint8)}
    assert model(pixels, also=("boundary",))["boundary"].shape == (1, 32, 32)


def test_a_rehearsal_makes_its_steps(masked_job):
    timing = rehearse(masked_job, Watch())
    assert timing.stages[0].seconds > 0
