"""A teacher beside the student: what reaches whom, who may teach a fold, what is refused."""

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from src import paths
from src.artifacts.files import sha256_file
from src.artifacts.recipes import Member, Recipe, write_recipe
from src.artifacts.runs import read_run
from src.errors import UserError
from src.models.checkpoint import load_checkpoint
from src.training import resume
from src.training.auxiliary import at_size
from src.training.auxiliary.distil import Distillation
from src.training.auxiliary.teachers import find_teachers
from src.training.job import Job
from src.training.setup import build_model
from src.training.trainer import Trainer, fit_fold
from tests.jobs import interrupt_at_batch, oof_bytes, record_of

VIT: dict[str, Any] = {
    "name": "vit_tiny_patch16_224",
    "pretrained": "none",
    "kwargs": {"img_size": 12, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 2},
}
TERMS: dict[str, dict[str, Any]] = {
    "logit": {"logit": {"temperature": 2}},
    "feature": {"feature": {}},
    "relation": {"relation": {}},
    "channel_attention": {"channel_attention": {}},
}


@pytest.fixture
def taught(make_job):
    """Return a maker of students whose teacher, `m`, is trained on their fold."""
    fit_fold(make_job())

    def make(distil: dict[str, Any], **changes: Any) -> Job:
        return make_job(model="student", distil={"teacher": "m"} | distil, **changes)

    return make


@pytest.mark.parametrize("name", TERMS)
def test_each_term_trains_is_logged_and_leaves_a_plain_checkpoint(taught, name) -> None:
    job = taught(TERMS[name], optim={"lr": 1e-2, "epochs": 4, "batch_size": 8, "ema_decay": None})
    teacher = paths.checkpoint(job.dataset, job.scheme, "m", job.fold)
    before = teacher.read_bytes()
    fit_fold(job)
    record = record_of(job)
    said = [entry[f"train_distil_{name}"] for entry in record["history"]]
    assert said[0] > 0
    if name != "logit":  # a teacher of three epochs is as unsure as a student of none
        assert said[-1] < said[0], "it comes nearer to its teacher"
    assert teacher.read_bytes() == before
    plain, _ = load_checkpoint(paths.checkpoint(*job.names), torch.device("cpu"))
    assert not any("projection" in key for key in plain.net.state_dict())
    origin = record["teachers"][0]["origin"]
    assert (origin["model"], origin["fold"]) == ("m", job.fold)


def test_a_vit_learns_from_a_vit_of_other_tokens_and_heads(make_job, caplog) -> None:
    big = VIT | {"kwargs": VIT["kwargs"] | {"img_size": 16, "num_heads": 4, "depth": 3}}
    fit_fold(make_job(model="teacher", backbone=big, input={"image_size": 16}))
    caplog.set_level(logging.INFO, "rvf")
    for kind in ("map", "head_correlation"):
        distil = {"teacher": "teacher", "attention": {"kind": kind, "weight": 2.0}}
        job = make_job(model=f"vit_{kind}", backbone=VIT, distil=distil)
        fit_fold(job)
        last = record_of(job)["history"][-1]
        layers = [last[f"train_distil_attention_{layer}"] for layer in (1, 2)]
        assert last["train_distil_attention"] == pytest.approx(np.mean(layers))
        assert min(layers) > 0
    assert "brought to the student's" in caplog.text


def test_gradients_reach_the_student_and_never_the_teacher(taught) -> None:
    trainer = Trainer(taught({"logit": {}, "feature": {}}))
    [found] = trainer.run.auxiliaries
    assert isinstance(found, Distillation)
    weights = [w for net in found.nets for w in net.model.parameters()]
    before = [w.clone() for w in weights]
    trainer.fit()
    assert all(w.grad is None for w in weights)
    assert all(torch.equal(w, b) for w, b in zip(weights, before, strict=True))
    assert not found.nets[0].model.training
    names = {name for name, _ in found.named_parameters()}
    assert names == {"projections.0.weight"}, "a teacher is no part of what is trained"


def test_a_stopped_student_goes_on_to_the_same_bytes(taught, monkeypatch) -> None:
    job = taught(TERMS["feature"])
    fit_fold(job)
    want = oof_bytes(job)
    resume.discard(job)
    paths.run_record(*job.names).unlink(missing_ok=True)
    with monkeypatch.context() as patched:
        interrupt_at_batch(patched, 7)
        with pytest.raises(KeyboardInterrupt):
            fit_fold(replace(job, options=replace(job.options, overwrite=True)))
    fit_fold(job)
    assert oof_bytes(job) == want


def test_a_teacher_of_more_pixels_sees_them(make_job) -> None:
    fit_fold(make_job(input={"image_size": 24, "crop_pct": 0.75}))
    job = make_job(model="student", distil={"teacher": "m", "logit": {}})
    trainer = Trainer(job)
    assert trainer.look_size == 24
    assert [one.size for one in trainer.source.canvases] == [16, 32]
    trainer.fit()
    assert record_of(job)["history"][-1]["train_distil_logit"] > 0
    batch = {"pixels": torch.randint(0, 256, (2, 24, 24, 3), dtype=torch.uint8),
             "blank": torch.tensor([[0, 12, 6, 24], [0, 0, 0, 0]])}  # fmt: skip
    small = at_size(batch, 12)
    assert small["pixels"].shape == (2, 12, 12, 3)
    assert small["blank"].tolist() == [[0, 6, 3, 12], [0, 0, 0, 0]]


def test_without_augmentation_a_teacher_looks_once(taught, monkeypatch) -> None:
    looks: list[int] = []
    from src.training.auxiliary.distil import Frozen

    look = Frozen.__call__
    monkeypatch.setattr(
        Frozen, "__call__", lambda s, b: looks.append(len(b["pixels"])) or look(s, b)
    )
    job = taught({"logit": {}, "feature": {}}, augment="none")
    fit_fold(job)
    assert sum(looks) == len(job.train_rows), "of three epochs"
    once = record_of(job)["history"]
    monkeypatch.setattr("src.training.auxiliary.distil.MEMORY_SHARE", 0.0)
    other = taught({"logit": {}, "feature": {}}, augment="none")
    fit_fold(replace(other, options=replace(other.options, overwrite=True)))
    for one, two in zip(once, record_of(other)["history"], strict=True):
        assert one["train_distil_feature"] == pytest.approx(two["train_distil_feature"], rel=1e-4)


def test_two_teachers_teach_the_mean(make_job) -> None:
    fit_fold(make_job())
    fit_fold(make_job(model="other", seed=7))
    job = make_job(model="student", distil={"teacher": ["m", "other"], "logit": {}, "feature": {}})
    model, *_ = build_model(job, None)
    both = Distillation(job, find_teachers(job), model, torch.device("cpu"))
    pixels = torch.randint(0, 256, (5, 12, 12, 3), dtype=torch.uint8)
    answers = both._answers({"pixels": pixels})
    want = torch.stack([one["logit"] for one in answers]).mean(0)
    torch.testing.assert_close(both._joined_logit(answers), want)
    assert len(both.projections) == 2
    fit_fold(job)
    assert [one["name"] for one in record_of(job)["teachers"]] == ["m", "other"]


def refused(job: Job, match: str) -> None:
    with pytest.raises(UserError, match=match):
        fit_fold(job)
    assert not paths.checkpoint(*job.names).exists()


def test_who_may_not_teach(make_job, tmp_path) -> None:
    logit = {"logit": {}}
    refused(make_job(model="s1", distil={"teacher": "nobody"} | logit), "is no model")
    fit_fold(make_job())
    fold_1 = replace(make_job(model="s2", distil={"teacher": "m"} | logit), fold=1)
    refused(fold_1, "m has no finished fold 1 .* Train it first")
    refused(make_job(model="s3", distil={"teacher": "s3"} | logit), "cannot teach itself")
    # A file that a run here wrote is known by its content, whatever it is called: fold 0's saw 1.
    made = read_run(*make_job().names)
    copy = tmp_path / "copied.safetensors"
    copy.write_bytes(paths.checkpoint(*make_job().names).read_bytes())
    saw = replace(make_job(model="s4", distil={"teacher": str(copy)} | logit), fold=1)
    refused(saw, "name the model, whose run of the same fold teaches")
    fit_fold(make_job(model="s5", distil={"teacher": str(copy)} | logit))
    assert record_of(make_job(model="s5"))["teachers"][0]["sha256"] == made["checkpoint_sha256"]
    foreign = tmp_path / "elsewhere.pth"
    torch.save({"head.weight": torch.zeros(1, 16)}, foreign)
    refused(make_job(model="s6", distil={"teacher": str(foreign)} | logit), "distil.read_as")
    geometry = {"image_size": 12, "geometry": "short_side"}
    refused(make_job(model="s7", input=geometry, distil={"teacher": "m"} | logit),
            "input.geometry: squash")  # fmt: skip
    refused(make_job(model="s8", distil={"teacher": "m", "attention": {}}), "no self-attention")


def test_a_teacher_that_says_the_same_of_everything_is_refused(taught) -> None:
    job = taught({"logit": {}})

    trainer = Trainer(job)
    [found] = trainer.run.auxiliaries
    with torch.no_grad():
        for weight in found.nets[0].model.net.head.parameters():  # type: ignore[union-attr]
            weight.zero_()
    with pytest.raises(UserError, match="gives every item the logit"):
        trainer.fit()


def test_a_student_whose_teacher_was_trained_again_is_not_taken_for_finished(
    taught, make_job
) -> None:
    job = taught({"logit": {}})
    fit_fold(job)
    assert not fit_fold(job)
    again = make_job(seed=5)
    fit_fold(replace(again, options=replace(again.options, overwrite=True)))
    with pytest.raises(UserError, match="its teacher m was made again since"):
        fit_fold(job)


def test_batchnorm_is_settled_at_the_students_size(make_job) -> None:
    """The mean of one epoch's weights is that epoch's, whatever its teacher sees."""
    fit_fold(make_job(input={"image_size": 24, "crop_pct": 0.75}))
    distil = {"teacher": "m", "logit": {}, "labels": 0.0}
    optim = {"ema_decay": None, "swa_epochs": 1}
    job = make_job(model="student", distil=distil, optim=optim, augment="none")
    trainer = Trainer(job)
    sides: list[int] = []
    trainer.run.model.net.register_forward_pre_hook(lambda _, x: sides.append(x[0].shape[-1]))
    trainer.fit()
    assert set(sides) == {12}


def test_a_head_stage_sees_the_students_size_and_no_teacher(make_job) -> None:
    fit_fold(make_job(input={"image_size": 24, "crop_pct": 0.75}))
    job = make_job(
        model="student", distil={"teacher": "m", "logit": {}}, strategy="lp_ft",
        transfer={"head_epochs": 1, "cache_features": False},
    )  # fmt: skip
    fit_fold(job)
    head, *rest = record_of(job)["history"]
    assert "train_distil_logit" not in head
    assert all(entry["train_distil_logit"] > 0 for entry in rest)


def test_a_recipe_teaches_with_its_members_of_the_fold(make_job) -> None:
    jobs = [make_job(fold, model=name, seed=seed) for fold in range(3)
            for name, seed in (("m", 1), ("other", 2))]  # fmt: skip
    for one in jobs:
        fit_fold(one)
    member = {"threshold": 0.5, "folds": [0, 1, 2]}
    folds = paths.folds_csv("tiny", "s")
    members = []
    for name, weight in (("m", 0.75), ("other", 0.25)):
        runs = {str(fold): read_run("tiny", "s", name, fold) for fold in range(3)}
        members.append(Member(
            name, weight, **member,
            oof_sha256={k: run["oof_sha256"] for k, run in runs.items()},
            checkpoint_sha256={k: run["checkpoint_sha256"] for k, run in runs.items()},
        ))  # fmt: skip
    stages = [{"name": "voting", "params": {"rule": "soft"}},
              {"name": "threshold", "params": {"value": 0.4}}]  # fmt: skip
    path = paths.recipe_json("tiny", "duo")
    write_recipe(path, Recipe("tiny", "s", [0, 1, 2], sha256_file(folds), members, stages))
    job = make_job(1, model="student", distil={"teacher": "duo", "logit": {}})
    found = find_teachers(job)
    assert [one.path for one in found.each] == [
        paths.checkpoint("tiny", "s", n, 1) for n in ("m", "other")
    ]
    logits = np.array([[1.0, -2.0], [0.5, 3.0]])
    want = 0.75 / (1 + np.exp(-logits[0])) + 0.25 / (1 + np.exp(-logits[1]))
    np.testing.assert_allclose(1 / (1 + np.exp(-found.joined(list(logits)))), want, rtol=1e-6)
    fit_fold(job)
    assert not fit_fold(job)
    stages[1]["params"]["value"] = 0.6
    write_recipe(path, Recipe("tiny", "s", [0, 1, 2], sha256_file(folds), members, stages))
    with pytest.raises(UserError, match="the recipe duo of m was made again since"):
        fit_fold(job)
