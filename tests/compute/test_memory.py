"""Where memory runs out: pieces of a batch, passes of checkpoints, advice."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from src import paths
from src.artifacts.oof import read_views
from src.artifacts.runs import read_record
from src.compute import memory
from src.compute.memory import Pieces, micro_batch, split
from src.compute.request import Compute
from src.errors import UserError
from src.inference import passes, stored
from src.training import setup, trainer
from src.training.job import Job, Options
from src.training.trainer import fit_fold
from tests.asked import items_of, parts_of

MakeJob = Callable[..., Job]
CPU = torch.device("cpu")
ON_A_CARD = "CUDA out of memory. Tried to allocate 2.00 GiB"


class Small:
    """Doubles numbers, at most `room` of them at once; keeps what it was given."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.asked: list[int] = []

    def __call__(self, pixels: Tensor) -> Tensor:
        self.asked.append(len(pixels))
        if len(pixels) > self.room:
            raise torch.OutOfMemoryError(ON_A_CARD)
        return 2 * pixels


@given(count=st.integers(1, 70), size=st.integers(1, 80), room=st.integers(1, 70))
def test_pieces_change_nothing_and_grow_no_more(count: int, size: int, room: int) -> None:
    pixels, net = torch.arange(count).float(), Small(room)
    pieces = Pieces(size, shrinks=True, device=CPU)
    assert pieces(net, pixels).tolist() == (2 * pixels).tolist()
    failed = [asked for asked in net.asked if asked > room]
    assert failed == sorted(failed, reverse=True)
    assert len(failed) <= max(count, size).bit_length()
    net.asked.clear()
    pieces(net, pixels)
    assert max(net.asked) <= room


def test_without_the_flag_running_out_of_memory_passes() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        Pieces(8, shrinks=False, device=CPU)(Small(4), torch.zeros(8))
    with pytest.raises(torch.OutOfMemoryError):
        Pieces(8, shrinks=True, device=CPU)(Small(0), torch.zeros(8))


def test_another_error_is_not_taken_for_want_of_memory() -> None:
    def broken(_: Tensor) -> Tensor:
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes"):
        Pieces(8, shrinks=True, device=CPU)(broken, torch.zeros(8))
    with pytest.raises(RuntimeError, match="shapes"), memory.advised(CPU, 8, 32, "wait"):
        broken(torch.zeros(1))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError(ON_A_CARD),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"),
        MemoryError(),
    ],
)
def test_advice_says_how_much_and_what_to_do(error: Exception) -> None:
    with pytest.raises(UserError) as caught, memory.advised(CPU, 64, 224, "take less"):
        raise error
    said = str(caught.value)
    assert said.startswith("out of memory (RAM; ")
    assert "GiB are free now) with 64 images of 224 px at once: take less" in said


@given(count=st.integers(1, 60), size=st.integers(1, 70))
def test_pieces_of_a_batch_are_whole_and_nearly_equal(count: int, size: int) -> None:
    batch = {"item": torch.arange(count), "pixels": torch.arange(2 * count).view(count, 2)}
    found = list(split(batch, -(-len(batch["item"]) // size)))
    for key, tensor in batch.items():
        assert torch.cat([piece[key] for piece in found]).tolist() == tensor.tolist()
    lengths = [len(piece["item"]) for piece in found]
    assert max(lengths) <= size
    assert max(lengths) - min(lengths) <= 1


class Hungry(nn.Module):
    """A net that has room for so many images."""

    def __init__(self, room: int, *, norm: bool = False) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)
        self.norm = nn.BatchNorm1d(3) if norm else nn.Identity()
        self.room = room

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        if len(batch["pixels"]) > self.room:
            raise torch.OutOfMemoryError(ON_A_CARD)
        means = self.norm(batch["pixels"].float().mean((1, 2)))
        return {"logit": self.layer(means)[:, 0]}


@pytest.mark.parametrize(
    ("room", "norm", "want"), [(99, False, 32), (31, False, 16), (5, True, 4), (1, False, 1)]
)
def test_the_largest_halving_that_fits_is_found(room: int, norm: bool, want: int) -> None:
    assert micro_batch(Hungry(room, norm=norm), 4, 32, CPU, "fp32") == want


def test_a_net_that_does_not_fit_at_all_is_refused() -> None:
    with pytest.raises(UserError, match="not even 2 images of 4 px fit"):
        micro_batch(Hungry(1, norm=True), 4, 32, CPU, "fp32")


def test_pieces_train_what_the_whole_batch_trains(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without BatchNorm nothing but rounding differs, uneven pieces and class weights included."""
    net = {"name": "vit_tiny_patch16_224", "kwargs": {"img_size": 16, "depth": 1, "patch_size": 8}}
    settings = {
        "backbone": {**net, "pretrained": "none", "kwargs": {**net["kwargs"], "embed_dim": 24}},
        "input": {"image_size": 16, "crop_pct": 1.0},
        "loss": {"class_weights": (1.0, 3.0)},
        "optim": {"epochs": 1, "batch_size": 8, "name": "sgd", "lr": 0.1},
    }
    settings["optim"]["ema_decay"] = None
    whole, pieces = make_job(model="whole", **settings), make_job(model="pieces", **settings)
    fit_fold(whole)
    make_run = setup.make_run

    def in_pieces(*arguments):
        run, sampler = make_run(*arguments)
        run.micro_batch = 3
        return run, sampler

    monkeypatch.setattr(setup, "make_run", in_pieces)
    fit_fold(pieces)
    first, second = (read_views(paths.oof_views(*job.names))[0]["logit"] for job in (whole, pieces))
    np.testing.assert_allclose(first, second, rtol=0, atol=1e-4 * float(first.std() + 1))
    assert read_record(paths.run_record(*whole.names))["micro_batch"] == 0
    assert read_record(paths.run_record(*pieces.names))["micro_batch"] == 3


def test_without_a_gpu_the_flag_says_that_it_does_nothing(
    make_job: MakeJob, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="rvf")
    plain, flagged = (
        make_job(model="plain"),
        make_job(model="flagged", options=Options("cpu", "fp32", 0, auto_batch=True)),
    )
    fit_fold(plain)
    fit_fold(flagged)
    assert "--auto-batch: no GPU here, batches of 8 are trained whole" in caplog.text
    assert paths.oof_csv(*plain.names).read_bytes() == paths.oof_csv(*flagged.names).read_bytes()


def test_training_that_runs_out_of_memory_ends_with_advice(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_out(*_: object) -> None:
        raise torch.OutOfMemoryError(ON_A_CARD)

    monkeypatch.setattr(trainer.Step, "add", run_out)
    with pytest.raises(UserError, match=r"with 8 images of 12 px at once: --auto-batch.*--as NAME"):
        fit_fold(make_job())


@given(sizes=st.lists(st.integers(1, 50), min_size=1, max_size=30), room=st.integers(1, 120))
def test_groups_fit_and_keep_the_order(sizes: list[int], room: int) -> None:
    groups = passes.grouped(sizes, room)
    assert [place for group in groups for place in group] == list(range(len(sizes)))
    for group, after in zip(groups, [*groups[1:], [None]], strict=True):
        weight = sum(sizes[place] for place in group)
        assert weight <= room or len(group) == 1
        if after != [None]:  # no group is closed too early
            assert weight + sizes[after[0]] > room


def test_25_large_transformers_take_a_few_passes_on_a_16_gb_card(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(passes, "free_bytes", lambda _: int(15e9))
    vit_l = int(1.22e9)  # 304 M weights in fp32
    room = passes._room(torch.device("cuda"))
    groups = passes.grouped([vit_l] * 25, room)
    assert all(len(group) * vit_l <= 8e9 for group in groups)
    assert len(groups) <= 7


def test_checkpoints_that_do_not_fit_together_are_predicted_one_group_after_another(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="rvf")
    jobs = [make_job(model=name, optim={"epochs": 1}) for name in "abc"]
    assert all(fit_fold(job) for job in jobs)
    parts, items = parts_of(*jobs), items_of(jobs[0])
    passes.predict_parts(parts, items, Compute("cpu", "auto", 0))
    together = [read_views(part.views)[0]["logit"].to_numpy() for part in parts]
    for part in parts:
        part.views.unlink()
    weights = passes.COPIES["cpu"] * parts[0].checkpoint.stat().st_size
    monkeypatch.setattr(passes, "_room", lambda _: 2 * weights)
    told: list[tuple[int, int]] = []

    def interrupt(done: int, total: int) -> None:
        told.append((done, total))
        if done > len(items.paths):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        passes.predict_parts(parts, items, Compute("cpu", "auto", 0), interrupt)
    assert "3 checkpoints do not fit into memory together: 2 passes" in caplog.text
    assert told == [(48, 96), (96, 96)]
    assert [stored.stored_predictions(part, items) is not None for part in parts] == [
        True,
        True,
        False,
    ]
    passes.predict_parts(parts[2:], items, Compute("cpu", "auto", 0))
    for part, logits in zip(parts, together, strict=True):
        np.testing.assert_array_equal(read_views(part.views)[0]["logit"].to_numpy(), logits)
