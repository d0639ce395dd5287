"""A detector from elsewhere straight to predictions. Oracle: timm and torch's own softmax."""

import hashlib
import json
import zipfile

import cv2
import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from src import paths
from src.cli.predict import main
from src.training.trainer import fit_fold
from tests.models.small import stir, tensors_of, vit

NET, SIDE = "test_efficientnet", 160
MODEL = f"timm:{NET}"


def net_of(classes: int) -> torch.nn.Module:
    torch.manual_seed(0)
    net = timm.create_model(NET, num_classes=classes)
    stir(net)
    with torch.no_grad():
        net.classifier.weight.mul_(0.1)
        net.classifier.bias.mul_(0.1)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)  # type: ignore[arg-type]
    return net.eval()


@pytest.fixture
def pictures(tmp_path, artefact_root):
    """Write three pictures of the net's own size, so that nothing is resampled."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png", "c.png"):
        small = rng.integers(0, 256, (10, 10, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / name), cv2.resize(small, (SIDE, SIDE)))
    return folder


def outputs(net, folder) -> torch.Tensor:
    """Return what a plain script computes of the folder's pictures."""
    mean, std = (torch.tensor(net.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    pixels = [np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))]
    batch = torch.stack([(torch.tensor(p).permute(2, 0, 1) / 255 - mean) / std for p in pixels])
    with torch.inference_mode():
        return net(batch)


def predict(checkpoint, folder, *more) -> int:
    out = folder.parent / "out.csv"
    words = ["--checkpoint", checkpoint, "--input-dir", folder, "--output", out, *more]
    return main([str(word) for word in [*words, "--device", "cpu", "--precision", "fp32"]])


def answers(folder) -> tuple[pd.DataFrame, dict]:
    out = folder.parent / "out.csv"
    return pd.read_csv(out), json.loads(out.with_suffix(".json").read_text())


def check_probs(folder, want, **near) -> dict:
    """Hold the answers against P(fake), near neither 0 nor 1; returns what the JSON says."""
    table, said = answers(folder)
    want = want.numpy()
    assert 1e-3 < want.min() < want.max() < 1 - 1e-3  # else anything would be near
    assert table["prob"].to_numpy() == pytest.approx(want, abs=near.get("abs", 1e-5))
    assert table["label"].tolist() == (want >= 0.5).astype(int).tolist()
    return said


def save(tensors, folder, name="x.pth"):
    path = folder.parent / name
    torch.save({"state_dict": tensors, "epoch": 3}, path)
    return path


def beside_the_tower(tensors):
    """Call a head `fc`, and what stands before it `backbone`; with something of the training."""
    return {
        k.replace("classifier.", "fc.") if k.startswith("classifier") else f"backbone.{k}": v
        for k, v in tensors.items()
    } | {"criterion.weight": torch.ones(2)}


@pytest.mark.parametrize("fake", [0, 1])
@pytest.mark.parametrize("change", [dict, beside_the_tower])
def test_a_head_of_two_classes(pictures, capsys, fake, change):
    """Under timm's own name, or a linear layer beside the tower."""
    net = net_of(2)
    path = save(change(tensors_of(net)), pictures)
    assert predict(path, pictures, "--model", MODEL, "--fake-index", fake, "--prob") == 0
    said = check_probs(pictures, outputs(net, pictures).softmax(1)[:, fake])
    assert list(answers(pictures)[0].columns) == ["filename", "label", "prob"]
    detector = said["detectors"][str(path)]
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert (detector["sha256"], detector["model"]) == (sha256, MODEL)
    assert (detector["fake_index"], detector["score"]) == (fake, None)
    assert detector["input"]["mean"] == pytest.approx(net.pretrained_cfg["mean"])
    assert said["checkpoints"] == {str(path): sha256}
    assert said["threshold"] == 0.5
    out = capsys.readouterr().out
    assert f"x.pth as {MODEL}: class {fake} of its head is fake (says --fake-index)" in out
    assert "no out-of-fold score is known for this file" in out
    assert "(the backbone's own)" in out


@pytest.mark.parametrize("fake", [0, 1])
def test_a_head_of_one_output(pictures, fake):
    net = net_of(1)
    path = pictures.parent / "x.safetensors"
    save_file(tensors_of(net), path)
    assert predict(path, pictures, "--model", MODEL, "--fake-index", fake, "--prob") == 0
    check_probs(pictures, (outputs(net, pictures).squeeze(1) * (1 if fake else -1)).sigmoid())


def timms_config(folder, **changes):
    """Write `config.json` as timm's hub has it."""
    cfg = {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bilinear"}
    content = {"label_names": ["fake", "real"], "pretrained_cfg": cfg, **changes}
    (folder.parent / "config.json").write_text(json.dumps(content))


def test_what_lies_beside_a_plain_file_is_read(pictures, capsys):
    net, path = net_of(2), pictures.parent / "model.safetensors"
    save_file(tensors_of(net), path)
    timms_config(pictures)
    assert predict(path, pictures, "--model", MODEL, "--prob") == 0
    net.pretrained_cfg = {"mean": [0.5] * 3, "std": [0.25] * 3}
    said = check_probs(pictures, outputs(net, pictures).softmax(1)[:, 0])
    detector = said["detectors"][str(path)]
    assert (detector["fake_index"], detector["labels"]) == (0, ["fake", "real"])
    assert detector["input"]["interpolation"] == "bilinear"
    assert "class 0 (fake) of its head is fake" in capsys.readouterr().out
    assert predict(path, pictures, "--model", MODEL, "--fake-index", 1) == 2
    assert "--fake-index 1 contradicts the file" in capsys.readouterr().err
    # The classes name a head that lies beside the tower, too.
    timms_config(pictures)
    beside = save(beside_the_tower(tensors_of(net)), pictures)
    assert predict(beside, pictures, "--model", MODEL, "--prob") == 0
    check_probs(pictures, outputs(net, pictures).softmax(1)[:, 0])
    timms_config(pictures, label_names=["a", "b"])
    assert predict(path, pictures, "--model", MODEL) == 2
    assert "nothing says which of the two classes" in capsys.readouterr().err


@pytest.mark.parametrize("resample", [2, 3])
def test_small_pictures_are_enlarged_as_the_file_says(pictures, resample):
    net, path = net_of(2), pictures.parent / "model.safetensors"
    save_file(tensors_of(net), path)
    timms_config(pictures, pretrained_cfg={})
    (pictures.parent / "preprocessor_config.json").write_text(json.dumps({"resample": resample}))
    rng = np.random.default_rng(3)
    small = [Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)) for _ in range(3)]
    for name, one in zip("abc", small, strict=True):
        one.save(pictures / f"{name}.png")
    assert predict(path, pictures, "--model", MODEL, "--prob") == 0
    found = answers(pictures)[0]["prob"].to_numpy()
    off = {}
    for way in (2, 3):
        for name, one in zip("abc", small, strict=True):
            one.resize((SIDE, SIDE), way).save(pictures / f"{name}.png")
        off[way] = np.abs(outputs(net, pictures).softmax(1)[:, 0].numpy() - found).max()
    assert off[resample] < 0.015  # OpenCV's cubic is not quite Pillow's
    assert off[resample] < off[5 - resample] / 2


@pytest.mark.parametrize("kind", ["label", "prob", "rank"])
def test_a_detector_that_tells_nothing_apart_is_warned_of(pictures, capsys, kind):
    net = net_of(1)
    for dead in (False, True):
        if dead:
            torch.nn.init.zeros_(net.classifier.weight)
        path = save(tensors_of(net), pictures)
        words = ["--model", MODEL, "--fake-index", 1, "--output-kind", kind]
        assert predict(path, pictures, *words) == 0
        doubts = answers(pictures)[1]["doubts"]
        assert len(doubts) == dead
        assert ("WARNING P(fake) is 0." in capsys.readouterr().out) == dead
    assert "of all 3 files: unless they are copies of one, this detector tells" in doubts[0]
    assert predict(path, pictures / "a.png", *words) == 0
    assert answers(pictures / "a.png")[1]["doubts"] == []


def test_exactly_filename_and_label_unless_more_is_asked_for(pictures):
    path = save(tensors_of(net_of(2)), pictures)
    (pictures / "broken.jpg").write_bytes(b"no picture")
    assert predict(path, pictures, "--model", MODEL, "--fake-index", 1) == 0
    lines = (pictures.parent / "out.csv").read_text().splitlines()
    assert lines[0] == "filename,label"
    assert [line.split(",")[0] for line in lines[1:]] == ["a.png", "b.png", "broken.jpg", "c.png"]
    assert lines[3] == "broken.jpg,"
    assert {lines[i].split(",")[1] for i in (1, 2, 4)} <= {"0", "1"}


def test_one_file_or_one_zip(pictures, capsys):
    path, base = save(tensors_of(net_of(2)), pictures), pictures.parent
    asked = ["--model", MODEL, "--fake-index", "1", "--prob"]
    assert predict(path, pictures, *asked) == 0
    whole = answers(pictures)[0]
    with zipfile.ZipFile(base / "z.zip", "w") as archive:
        archive.write(pictures / "b.png", "in/b.png")
    (base / "n.txt").write_text("x")
    words = ["--checkpoint", path, "--output", base / "one.csv", *asked, "--device", "cpu"]

    def answer(one) -> int:
        return main([str(word) for word in [*words, "--input-dir", one]])

    for one, name in ((pictures / "b.png", "b.png"), (base / "z.zip", "z.zip!/in/b.png")):
        assert answer(one) == 0
        table = pd.read_csv(base / "one.csv")
        assert table["filename"].tolist() == [name]
        assert table["prob"][0] == pytest.approx(whole["prob"][1], abs=1e-6)
    for one, said in ((base / "n.txt", "holds no images"), (base / "gone", "no such folder")):
        assert answer(one) == 2
        assert said in capsys.readouterr().err


def write_vit(root):
    (root / "configs/models").mkdir(parents=True, exist_ok=True)
    (root / "configs/models/v.yaml").write_text(
        "backbone: {name: vit_base_patch16_224, pretrained: none, kwargs: {embed_dim: 32, depth: 2,"
        " num_heads: 2, patch_size: 8}}\ninput: {image_size: 32}\n"
    )


@pytest.mark.parametrize(("labels", "given"), [(("ai", "hum"), []), (("A", "B"), [0])])
def test_a_published_classifier_of_transformers(pictures, artefact_root, labels, given):
    """Its config.json names the classes; where the names say nothing, the user does."""
    pytest.importorskip("transformers", reason="the extra `peft`")
    from tests.models.formats import test_hugging_face as hugging

    write_vit(artefact_root)
    for number, path in enumerate(sorted(pictures.glob("*.png"))):  # nothing is resampled
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        cv2.imwrite(str(path), pixels)
    net = hugging.classifier("vit", dict(enumerate(labels)))
    path = hugging.save(net, pictures.parent / "hf")
    more = [word for fake in given for word in ("--fake-index", fake)]
    assert predict(path, pictures, "--model", "v", "--prob", *more) == 0
    pixels = np.stack([np.asarray(Image.open(one)) for one in sorted(pictures.glob("*.png"))])
    batch = (torch.tensor(pixels).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
    said = check_probs(pictures, hugging.logits(net, "vit", batch).softmax(1)[:, 0], abs=1e-4)
    assert said["detectors"][str(path)]["labels"] == list(labels)
    assert f"class 0 ({labels[0]})" in said["detectors"][str(path)]["order"]
    if not given:
        assert predict(path, pictures, "--model", "v", "--fake-index", "1") == 2
    else:
        assert predict(path, pictures, "--model", "v") == 2


def test_a_format_that_tells_the_order(pictures, tmp_path, capsys, artefact_root):
    """FSFM's fine-tuned file: class 0 is FAKE; its mean and std come along."""
    write_vit(artefact_root)
    net = vit(2)
    path = tmp_path / "fsfm.pth"
    torch.save({"model": tensors_of(net)}, path)
    mean, std = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]
    (tmp_path / "pretrain_ds_mean_std.txt").write_text(json.dumps({"mean": mean, "std": std}))
    assert predict(path, pictures, "--model", "v", "--prob") == 0
    table, said = answers(pictures)
    detector = said["detectors"][str(path)]
    assert (detector["format"], detector["fake_index"]) == ("fsfm", 0)
    assert detector["order"] == "class 0 of its head is fake (says its format, fsfm)"
    assert detector["input"]["mean"] == mean
    assert detector["mean_and_std"] == "the file's own"
    assert predict(path, pictures, "--model", "v", "--fake-index", "0", "--prob") == 0
    assert answers(pictures)[0].equals(table)
    capsys.readouterr()
    assert predict(path, pictures, "--model", "v", "--fake-index", "1") == 2
    assert "contradicts the file, in whose format 0 is fake" in capsys.readouterr().err


REFUSED = {
    "no order": (lambda t: t, [], "nothing says which of the two classes of its head is fake"),
    "no order of one": (lambda _: tensors_of(net_of(1)), [], "--fake-index 1 where positive is"),
    "no head": (lambda t: {k: v for k, v in t.items() if "classifier" not in k}, [1], "no head of"),
    "three": (lambda _: tensors_of(net_of(3)), [1], "its head has 3 classes"),
    "more layers": (
        lambda t: t | {"adapter.weight": torch.ones(4, 4)}, [1], "1 tensors that this model has no",
    ),
    "two heads": (
        lambda t: {k: v for k, v in t.items() if "classifier" not in k}
        | {f"{n}.weight": t["classifier.weight"] for n in ("fc1", "fc2")},
        [1], "several heads (fc1.weight, fc2.weight)",
    ),
    "another net": (lambda t: {k: v for k, v in t.items() if "conv_stem" not in k}, [1], "missing"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_be_a_guess_is_refused(pictures, capsys, case):
    change, fake, match = REFUSED[case]
    path = save(change(tensors_of(net_of(2))), pictures)
    more = ["--fake-index", *fake] if fake else []
    assert predict(path, pictures, "--model", MODEL, *more) == 2
    err = capsys.readouterr().err
    assert match in err
    assert "x.pth" in err
    assert not (pictures.parent / "out.csv").exists()


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (
            ["--fake-index", "1"],
            "--fake-index is about a detector from elsewhere: it wants --model",
        ),
        (["--model", "v"], "--model is about any folder: it wants --checkpoint and --input-dir"),
        (["--prob"], "--prob is about any folder"),
        (["--prob", "--vote", "a.csv", "b.csv"], "--prob is about any folder"),
        (["--model", "v", "--fake-index", "2"], "invalid choice"),
    ],
)
def test_flags_that_do_not_go_together(artefact_root, capsys, words, match):
    assert main(words) == 2
    assert match in capsys.readouterr().err


def test_our_own_checkpoint_needs_no_model_and_takes_no_other(make_job, pictures, capsys):
    job = make_job(optim={"epochs": 1})
    assert fit_fold(job)
    ours = paths.checkpoint(*job.names)
    assert predict(ours, pictures) == 0
    assert "detectors" not in answers(pictures)[1]
    home = paths.config_dirs("models")[0]
    home.mkdir(parents=True, exist_ok=True)
    (home / "mine.yaml").write_text(
        "backbone: {name: compact_net, pretrained: none, kwargs: {widths: [8, 8, 16]}}\n"
    )
    assert predict(ours, pictures, "--model", "mine", "--fake-index", "1") == 0
    assert predict(ours, pictures, "--model", "mine", "--fake-index", "0") == 2
    assert "in which a positive logit is fake" in capsys.readouterr().err
    assert predict(ours, pictures, "--model", MODEL) == 2
    assert "and --model timm:test_efficientnet is test_efficientnet;" in capsys.readouterr().err
    path = save(tensors_of(net_of(2)), pictures)
    assert predict(path, pictures) == 2
    assert "a detector predicts with predict_ensemble.py --model NAME" in capsys.readouterr().err
    assert predict(path, pictures, "--model", MODEL, "--fake-index", 1, "--engine", "onnx") == 2
    assert "leave it out with --model" in capsys.readouterr().err
