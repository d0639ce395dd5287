"""Runs in several stages: what each changes, what it leaves behind, and how it goes on."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from src import paths
from src.artifacts.oof import read_views
from src.cli.export import _finished
from src.compute.request import Compute
from src.inference import passes
from src.models.checkpoint import load_checkpoint
from src.tensor_files import read_tensors
from src.training import features, results, trainer
from src.training.plan import refit_epochs
from src.training.run import Run
from src.training.trainer import fit_fold
from tests.asked import items_of, parts_of
from tests.jobs import interrupt_at_batch, oof_bytes, record_of

VIT = {"embed_dim": 16, "depth": 3, "num_heads": 2, "patch_size": 4}
TWO = {"strategy": "two_stage", "transfer": {"head_epochs": 3, "last_blocks": 1, "head_lr": 0.05}}
SHORT = {"optim": {"epochs": 2, "ema_decay": None}}


def vit(**more):
    return {
        "backbone": {"name": "vit_tiny_patch16_224", "pretrained": "none", "kwargs": VIT},
        "input": {"image_size": 12, "crop_pct": 0.75},
        "optim": {"epochs": 2, "lr": 0.01, "batch_size": 8, "ema_decay": None},
        **more,
    }


def weights_of(job, stage=None):
    path = paths.checkpoint(*job.names)
    return read_tensors(path if stage is None else paths.stage_checkpoint(*job.names, stage))


def changed(before, after) -> set[str]:
    return {key for key in before if not torch.equal(before[key], after[key])}


def start_of(job, monkeypatch):
    """Return the weights that a run begins with."""
    seen = {}
    enter = Run.enter_stage

    def look(run, number):
        seen.setdefault("net", {k: v.clone() for k, v in run.model.net.state_dict().items()})
        enter(run, number)

    monkeypatch.setattr(Run, "enter_stage", look)
    assert fit_fold(job)
    return seen["net"]


def test_two_stages_train_the_head_first_and_then_the_last_block_with_it(make_job, monkeypatch):
    job = make_job(**TWO, **SHORT)
    start = start_of(job, monkeypatch)
    first, second = weights_of(job, 0), weights_of(job)
    assert changed(start, first) == {"head.weight", "head.bias"}
    moved = changed(first, second)
    assert {key.split(".")[0] for key in moved} == {"stages", "head"}
    # Block 0 keeps its weights and its BatchNorm statistics.
    assert {key.split(".")[1] for key in moved if key.startswith("stages")} == {"1"}
    record = record_of(job)
    assert [s["name"] for s in record["stages"]] == ["head", "last 1 blocks"]
    assert [s["epochs"] for s in record["stages"]] == [3, 2]
    assert [e["stage"] for e in record["history"]] == ["head"] * 3 + ["last 1 blocks"] * 2
    assert record["stages"][0]["macro_f1"] == record["history"][2]["macro_f1"]
    assert record["stages"][0]["trainable"] == 17
    assert record["trainable"] == record["stages"][1]["trainable"] < record["parameters"]
    assert list(paths.run_dir("tiny", "s", "m").glob("fold_*.stage_*.safetensors"))
    assert _finished("tiny", "s", "m", None) == [job.fold]  # only whole models are exported


def test_an_interrupted_run_of_two_stages_goes_on_to_the_same_bytes(make_job, monkeypatch):
    # 30 training items make 3 batches an epoch: 9 of the first stage, 6 of the second.
    whole = make_job(model="whole", **TWO, **SHORT)
    assert fit_fold(whole)
    for batch in (5, 9, 10, 14):
        job = make_job(model=f"cut_{batch}", **TWO, **SHORT)
        with monkeypatch.context() as patch:
            interrupt_at_batch(patch, batch)
            with pytest.raises(KeyboardInterrupt):
                fit_fold(job)
        assert not paths.run_record(*job.names).exists()
        assert fit_fold(job)
        assert oof_bytes(job) == oof_bytes(whole)
        one, other = (paths.checkpoint(*names.names).read_bytes() for names in (job, whole))
        assert one == other


def test_features_are_computed_once_for_all_folds_and_predict_as_the_whole_net(
    make_job, monkeypatch
):
    donor = make_job(model="donor", optim={"epochs": 1})
    assert fit_fold(donor)
    passes = []
    extract = features._extract
    monkeypatch.setattr(features, "_extract", lambda *a: (passes.append(1), extract(*a)))
    options = dataclasses.replace(donor.options, weights=paths.checkpoint(*donor.names))
    kind = {"strategy": "feature_extractor", "tta": "flip", **SHORT}
    kind["backbone"] = {"pretrained": "file"}
    # Held-out items are judged by features that are there: nobody looks at them again.
    monkeypatch.setattr(results, "predict_shared", lambda *_, **__: pytest.fail("looked twice"))
    jobs = [make_job(fold=fold, options=options, **kind) for fold in range(2)]
    assert all(fit_fold(job) for job in jobs)
    assert len(passes) == 1
    for job in jobs:
        moved = changed(weights_of(donor), weights_of(job))
        assert moved == {"head.weight", "head.bias"}
        model, _ = load_checkpoint(paths.checkpoint(*job.names), torch.device("cpu"))
        (file,) = paths.feature_cache("tiny", "x").parent.glob("*.npy")
        seen = torch.from_numpy(np.load(file))[job.held_rows]
        want = model.net.head(seen).squeeze(-1).mean(1).detach().double()
        found = pd.read_csv(paths.oof_csv(*job.names))["logit"].to_numpy()
        np.testing.assert_allclose(found, want.numpy(), atol=1e-5)


def test_the_head_learns_on_features_of_augmented_items(make_job):
    def stage_of(name, augment, cached):
        transfer = TWO["transfer"] | {"cache_features": cached}
        changes = {"transfer": transfer, "backbone": {"drop_rate": 0.3}, "tta": "none", **SHORT}
        job = make_job(model=name, strategy="two_stage", augment=augment, **changes)
        assert fit_fold(job)
        return weights_of(job, 0), record_of(job)

    cached, _ = stage_of("cached", "none", True)
    plain, record = stage_of("plain", "none", False)
    turned, _ = stage_of("turned", "crop_flip", False)
    erasing = {"name": "none", "erase": 1.0}
    blanked, erased = stage_of("blanked", erasing, False)
    assert record["config"]["transfer"]["cache_features"] is False
    assert erased["config"]["augment"] == erasing
    assert erased["config_sha256"] != record["config_sha256"]
    # Of items as they are both ways are one; only the head ever moves.
    for key, value in cached.items():
        torch.testing.assert_close(plain[key], value, atol=1e-5, rtol=1e-5)
    assert changed(plain, turned) == changed(plain, blanked) == {"head.weight", "head.bias"}


def test_an_interrupted_extraction_goes_on_and_a_damaged_file_is_made_again(
    make_job, monkeypatch, caplog
):
    job = make_job(strategy="feature_extractor", **SHORT)
    whole = trainer.cached_features
    monkeypatch.setattr(
        trainer,
        "cached_features",
        lambda *a: whole(*a[:4], dataclasses.replace(a[4], batch_size=16)),
    )
    real, calls = features.Body.__call__, []

    def stop(*arguments):
        calls.append(len(arguments[1]))
        if len(calls) == 3:  # one for the shape, then the second batch
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(features.Body, "__call__", stop)
        with pytest.raises(KeyboardInterrupt):
            fit_fold(job)
    calls.clear()
    monkeypatch.setattr(
        features.Body, "__call__", lambda *a: (calls.append(len(a[1])), real(*a))[1]
    )
    assert fit_fold(job)
    assert calls[1:] == [16, 16]  # of 48 items in batches of 16
    other = make_job(model="other", strategy="feature_extractor", **SHORT)
    (file,) = paths.feature_cache("tiny", "x").parent.glob("*.npy")
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    assert fit_fold(other)
    assert file.read_bytes() == content
    assert "is damaged; made again" in caplog.text


def test_a_head_on_tokens_learns_on_kept_features_with_terms_on_what_its_last_layer_sees(
    make_job, monkeypatch
):
    head = {"pool": "layers", "hidden": 8}
    job = make_job(**vit(strategy="feature_extractor", head=head, loss={"supcon": 0.1}))
    start = start_of(job, monkeypatch)
    moved = changed(start, weights_of(job))
    assert moved == {key for key in start if key.startswith("head.")}
    (file,) = paths.feature_cache(job.dataset, "x").parent.glob("*.npy")
    assert np.load(file).shape[2:] == (3, 16)  # what three blocks give, nothing of the head
    passes.predict_parts(parts_of(job), items_of(job), Compute("cpu", "fp32", 0))
    (part,) = parts_of(job)
    whole = read_views(part.views)[0].set_index("item_id")["logit"]
    kept = pd.read_csv(paths.oof_csv(*job.names)).set_index("item_id")["logit"]
    np.testing.assert_allclose(kept, whole.loc[kept.index], atol=1e-4)


@pytest.mark.parametrize("strategy", ["layernorm_only", "bitfit", "lora"])
def test_few_weights_are_trained_and_the_checkpoint_is_plain(make_job, monkeypatch, strategy):
    if strategy == "lora":
        pytest.importorskip("peft")
    job = make_job(**vit(strategy=strategy, transfer={"lora_r": 2, "lora_targets": ["qkv"]}))
    start = start_of(job, monkeypatch)
    end = weights_of(job)
    plain = {key.replace(".base_layer", ""): v for key, v in start.items() if "lora_" not in key}
    moved = changed(plain, end)
    assert end.keys() == plain.keys()
    wanted = {
        "layernorm_only": lambda key: "norm" in key,
        "bitfit": lambda key: key.endswith("bias"),
        "lora": lambda key: key.endswith("qkv.weight"),
    }[strategy]
    assert moved == {key for key in plain if wanted(key) or key.startswith("head.")}
    record = record_of(job)
    assert 0 < record["trainable"] < 0.5 * record["parameters"]
    load_checkpoint(paths.checkpoint(*job.names), torch.device("cpu"))


def test_gradual_unfreezing_leaves_deeper_blocks_alone_until_their_turn(make_job, monkeypatch):
    job = make_job(**vit(transfer={"unfreeze_every": 1}))
    start = start_of(job, monkeypatch)
    moved = changed(start, weights_of(job))
    assert {key.split(".")[1] for key in moved if key.startswith("blocks")} == {"2"}


def test_each_stage_keeps_its_own_best_epoch_and_a_refit_takes_their_means(make_job, monkeypatch):
    kind = {**TWO, "selection": "best", "patience": 1, "optim": {"epochs": 4, "ema_decay": None}}
    kind["transfer"] = {**TWO["transfer"], "head_patience": 1}
    scores = iter([0.5, 0.6, 0.6, 0.55, 0.5])
    real = trainer.held_out_scores
    monkeypatch.setattr(
        trainer,
        "held_out_scores",
        lambda *a: {**real(*a), "macro_f1": next(scores)},
    )
    job = make_job(**kind)
    assert fit_fold(job)
    record = record_of(job)
    # The first stage stops one epoch after its best, the second (.55) is a stage of its own.
    assert [s["epochs"] for s in record["stages"]] == [2, 1]
    assert [s["macro_f1"] for s in record["stages"]] == [0.6, 0.55]
    found = refit_epochs("tiny", "s", "m", job.config, [0, 1, 2])
    assert found == [2, 1]
    refit = dataclasses.replace(make_job(fold="all", **kind), stop_after=found)
    assert fit_fold(refit)
    record = record_of(refit)
    assert [s["epochs"] for s in record["stages"]] == [2, 1]
