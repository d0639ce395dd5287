"""Language guidance, zero-shot, SimCLR. Oracles: open_clip's logits, loops, a softmax."""

import math
from functools import partial

import pandas as pd
import pytest
import torch
from torch.nn import functional

from src import paths
from src.config import SimclrConfig, parse_model
from src.errors import UserError
from src.losses import total_loss
from src.models.backbones import build_backbone
from src.models.checkpoint import load_checkpoint
from src.models.classifier import build_classifier, count_parameters
from src.models.text import tokens_of
from src.training.auxiliary import language
from src.training.auxiliary.language import Prompts, draw_halves, text_mse
from src.training.auxiliary.simclr import SimCLR, info_nce
from src.training.job import Options
from src.training.step import shown
from src.training.trainer import Trainer, fit_fold
from tests.jobs import interrupt_at_batch, make_job, oof_bytes, record_of, with_options  # noqa: F401
from tests.models.clips import WIDTH, open_clips
from tests.models.small import SMALL, save, tensors_of

pytest.importorskip("open_clip", reason="comes with the extra `clip`")
PROMPTS = {"real": ["a real face", "a bright one"], "fake": ["a fake", "dark noise", "an attack"]}
GUIDED = {
    "backbone": {
        "name": "vit_base_patch32_clip_quickgelu_224",
        "pretrained": "file",
        "kwargs": {key: value for key, value in SMALL.items() if key != "img_size"},
    },
    "input": {"image_size": 32, "crop_pct": 1.0},
    "head": {"project": WIDTH, "normalize": True},
    "optim": {"lr": 1e-3, "epochs": 2, "batch_size": 8, "ema_decay": None, "clip_grad": None},
    "language": {"prompts": PROMPTS},
}
MCL = {
    "language": {"prompts": PROMPTS, "text_mse": 1.0},
    "simclr": {"hidden": 8, "width": 4},
    "view_augment": "crop_flip",
}


@pytest.fixture
def make_guided(make_job, tmp_path):  # noqa: F811
    weights = save(tensors_of(open_clips()), tmp_path)

    def make(**changes: object):
        options = Options(device="cpu", precision="fp32", workers=0, track="none", weights=weights)
        return make_job(options=options, **{**GUIDED, **changes})

    return make


def pixels_of(count: int = 4) -> dict[str, torch.Tensor]:
    draws = torch.Generator().manual_seed(5)
    shape = (count, 32, 32, 3)
    return {
        "pixels": torch.randint(256, shape, dtype=torch.uint8, generator=draws),
        "item": torch.arange(count),
    }


@torch.no_grad()
def open_clip_logits(model, pixels: torch.Tensor) -> torch.Tensor:
    """scale (cos fake - cos real) by open_clip alone; a class is the mean of its prompts."""
    clip = open_clips()
    image = functional.normalize(clip.encode_image(model.normalised(pixels).contiguous()), dim=1)
    classes = [clip.encode_text(tokens_of(PROMPTS[name])).mean(0) for name in ("real", "fake")]
    real, fake = (functional.normalize(one, dim=0) for one in classes)
    return clip.logit_scale.exp() * (image @ fake - image @ real)


def test_zero_shot_is_open_clips_answer_and_a_run_like_any(make_guided):
    job = make_guided(strategy="zero_shot")
    assert fit_fold(job)
    assert not fit_fold(job)
    model, _ = load_checkpoint(paths.checkpoint(*job.names), torch.device("cpu"))
    batch = pixels_of()
    want = open_clip_logits(model, batch["pixels"])
    torch.testing.assert_close(model(batch)["logit"], want, atol=1e-5, rtol=1e-5)
    assert float(want.std()) > 0.01
    record, oof = record_of(job), pd.read_csv(paths.oof_csv(*job.names))
    assert len(oof) == len(job.held_rows)
    assert (record["history"], record["trainable"]) == ([], 0)
    assert oof["logit"].nunique() > 10


@pytest.mark.parametrize("selection", ["last", "best"])
def test_a_checkpoint_is_a_plain_net_that_says_what_both_towers_say(make_guided, selection):
    job = make_guided(**MCL, selection=selection)
    trainer = Trainer(job)
    folded = []
    settle = trainer.run.settle
    trainer.run.settle = lambda: (settle(), folded.append(both_towers(trainer)))[0]
    trainer.fit()
    path = paths.checkpoint(*job.names)
    model, _ = load_checkpoint(path, torch.device("cpu"))
    kept = trainer.run.kept_epoch
    with torch.no_grad():
        logit = model(pixels_of())["logit"]
    torch.testing.assert_close(logit, folded[kept], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(folded[0], folded[1], atol=1e-4)  # it learned something
    plain, _ = build_backbone(job.config.backbone, 32, job.config.head)
    assert set(plain.state_dict()) == set(model.net.state_dict())
    for entry in record_of(job)["history"]:
        assert entry["train_simclr"] > 0.1
        assert entry["train_text_mse"] > 1e-8


@torch.no_grad()
def both_towers(trainer: Trainer) -> torch.Tensor:
    guidance, model = trainer.run.auxiliaries[0], trainer.run.model.eval()
    return guidance.logit(model(pixels_of(), also=("features",)))


@pytest.mark.parametrize("train_text", [True, False])
def test_every_term_reaches_what_it_should_train(make_guided, train_text):
    asked = {"prompts": PROMPTS, "text_mse": 1.0, "train_text": train_text}
    trainer = Trainer(make_guided(**MCL | {"language": asked}))
    trainer.run.enter_stage(0)
    trainer.run.begin_epoch()
    guidance, contrast = trainer.run.auxiliaries
    batch = pixels_of(6)
    batch |= {"label": torch.tensor([0, 1, 0, 1, 1, 1])}
    batch["views"] = torch.stack([batch["pixels"], batch["pixels"].flip(2)], 1)
    trainer.right, trainer.terms = [], {}
    net = trainer.run.model.net
    for pick in ("loss", "text_mse", "simclr"):
        trainer.run.optimizer.zero_grad()
        loss = trainer.loss(batch)
        if pick != "loss":
            outputs = shown(trainer.run, batch), partial(shown, trainer.run)
            one = guidance if pick == "text_mse" else contrast
            loss = one(batch, *outputs)[pick]
            assert loss.item() > 1e-7
        loss.backward()
        assert float(net.blocks[0].attn.qkv.weight.grad.abs().max()) > 0
        text = guidance.tower.net.token_embedding.weight.grad
        assert (text is not None and float(text.abs().max()) > 0) == (
            train_text and pick != "simclr"
        )
        assert net.head.weight.grad is None
        inner = contrast.projector[0].weight.grad
        assert (inner is not None and float(inner.abs().max()) > 0) == (pick != "text_mse")


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(make_guided, monkeypatch):
    whole, stopped = make_guided(**MCL, model="whole"), make_guided(**MCL, model="stopped")
    fit_fold(whole)
    with monkeypatch.context() as patched:
        interrupt_at_batch(patched, 6)
        with pytest.raises(KeyboardInterrupt):
            fit_fold(stopped)
    assert fit_fold(stopped)
    assert oof_bytes(stopped) == oof_bytes(whole)


def test_info_nce_is_that_of_a_loop():
    torch.manual_seed(0)
    first, second = (functional.normalize(torch.randn(5, 7), dim=1) for _ in range(2))
    points, total = [*first, *second], 0.0
    for i, one in enumerate(points):
        other = (i + 5) % 10
        shares = [math.exp(float(one @ p) / 0.1) for k, p in enumerate(points) if k != i]
        total -= math.log(math.exp(float(one @ points[other]) / 0.1) / sum(shares))
    assert float(info_nce(first, second, 0.1)) == pytest.approx(total / 10, rel=1e-5)


def test_text_mse_is_that_of_a_loop(monkeypatch):
    torch.manual_seed(1)
    views = [functional.normalize(torch.randn(4, 7), dim=1) for _ in range(2)]
    prompts = Prompts(torch.randn(6, 7), torch.randn(3, 7), torch.tensor(1.0))
    label, drawn = torch.tensor([0, 1, 1, 0]), {}

    def noted(n: int, of_class: torch.Tensor):
        drawn[len(of_class)] = draw_halves(n, of_class)
        return drawn[len(of_class)]

    monkeypatch.setattr(language, "draw_halves", noted)
    found, total, seen = float(text_mse(*views, prompts, label)), 0.0, {6: 0, 3: 0}
    for i, name in enumerate(label.tolist()):
        of_class = prompts.fake if name else prompts.real
        row, cosines = seen[len(of_class)], []
        for view, shares in zip(views, drawn[len(of_class)], strict=True):
            mean = sum(share * one for share, one in zip(shares[row], of_class, strict=True))
            cosines.append(float(view[i] @ mean / mean.norm()))
        seen[len(of_class)] += 1
        total += (cosines[0] - cosines[1]) ** 2
    assert found == pytest.approx(total / 4, rel=1e-5)


def test_halves_are_drawn_with_replacement_and_hold_every_prompt_once_or_more():
    torch.manual_seed(2)
    first, second = draw_halves(2000, torch.zeros(6, 1))
    assert bool((((first > 0) + 0) + ((second > 0) + 0) == 1).all())
    torch.testing.assert_close(first.sum(1), torch.ones(2000))
    torch.testing.assert_close(second.sum(1), torch.ones(2000))
    kinds = (first > 0).sum(1).bincount() / 2000  # of 3 drawn of 6: 1, 2 or 3 different ones
    assert kinds.tolist() == pytest.approx([0, 1 / 36, 15 / 36, 20 / 36], abs=0.04)


def test_clip_ce_is_ce_and_the_softmax_of_both_cosines():
    config = parse_model({"backbone": {"name": "x"}, "loss": {"name": "clip_ce"}}, "m").loss
    assert config.name == "ce"
    torch.manual_seed(3)
    cosines, label = torch.rand(9, 2) * 2 - 1, torch.arange(9) % 2
    own = total_loss(
        {"label": label}, {"logit": 100 * (cosines[:, 1] - cosines[:, 0])}, config, torch.ones(2)
    )
    torch.testing.assert_close(own, functional.cross_entropy(100 * cosines, label))


def test_simclr_is_for_any_net():
    """The sum of the weights is what is missing between CLIP ViT-B/16 and T-FLIP's 169,568,513."""
    content = {
        "backbone": {"name": "compact_net", "kwargs": {"widths": [8, 8, 512]}},
        "input": {"image_size": 16},
    }
    model, _ = build_classifier(parse_model(content, "m"))
    projector = SimCLR(SimclrConfig(), model, "m").projector
    sizes = [layer.weight.shape for layer in projector if hasattr(layer, "in_features")]
    assert [tuple(size) for size in sizes] == [(4096, 512), (4096, 4096), (256, 4096)]
    assert count_parameters(projector) == 169_568_513 - 149_620_737


WRONG = {
    "strategy: zero_shot asks prompts": {"language": None, "strategy": "zero_shot"},
    "leave simclr and language.text_mse out": {"simclr": {}, "strategy": "zero_shot"},
    "take fine_tuning, layernorm_only": {"strategy": "lp_ft"},
    "wants head: {project: 512": {"head": {"project": None}},
    "'a' is said of both classes": {"language": {"prompts": {"real": ["a"], "fake": ["a", "b"]}}},
    "give two or more of each": {
        "language": {"text_mse": 1.0, "prompts": {"real": ["a"], "fake": ["b", "c"]}}
    },
    "language.prompts.fake is missing": {"language": {"prompts": {"real": ["a"]}}},
    "language.prompts.real must hold 1 or more": {
        "language": {"prompts": {"real": [], "fake": ["b"]}}
    },
    "stands there twice": {"language": {"prompts": {"real": ["a", "a"], "fake": ["b"]}}},
    "must be > 0": {"simclr": {"temperature": 0.0}},
    "labels of 0 or 1": {"language": {"text_mse": 1.0}, "mixup": 0.2},
}


@pytest.mark.parametrize("said", WRONG)
def test_what_does_not_go_together_is_refused_by_name(make_guided, said):
    with pytest.raises(UserError) as caught:
        make_guided(**WRONG[said])
    assert said in str(caught.value)


def test_a_file_without_the_towers_is_refused_before_anything_is_written(make_guided, tmp_path):
    job = make_guided(strategy="zero_shot")
    tensors = tensors_of(open_clips())
    visual = {key: value for key, value in tensors.items() if key.startswith("visual.")}
    for content, said in (
        (visual, "holds no text tower of CLIP"),
        ({k: v for k, v in tensors.items() if k != "visual.proj"}, "lacks what brings images"),
    ):
        path = save(content, tmp_path, "other.pt")
        with pytest.raises(UserError, match=said):
            fit_fold(with_options(job, weights=path))
    with pytest.raises(UserError, match="--weights FILE"):
        fit_fold(with_options(make_guided(), weights=None, no_pretrained=True))
    given = {"prompts": PROMPTS, "file": str(job.options.weights)}
    own = {**GUIDED["backbone"], "pretrained": "none"}
    narrow = make_guided(head={"project": 8, "normalize": True}, language=given, backbone=own)
    narrow = with_options(narrow, weights=None)
    with pytest.raises(UserError, match=r"texts are of width 16.*head\.project: 16"):
        fit_fold(narrow)
    assert not paths.checkpoint(*job.names).exists()
