"""The three published backbones of the ensemble, frozen, from files in their published formats.

python benchmarks/owner_ensemble.py --source input/dfdc_faces --root /tmp/owner

Writes a full-size weights file of each kind (random numbers: what is shown is that every file is
read, trained on, tuned, voted and submitted; no score is claimed), takes 600 training and 200 test
items of the source, and types the commands.
"""

import argparse
import json
import os
import subprocess
import sys
import zipfile
from argparse import Namespace
from pathlib import Path

import pandas as pd
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

REPO = Path(__file__).resolve().parents[1]
MODELS = {
    "effnet_b0": "efficientnet_b0.safetensors",
    "clip_vit_b16": "ViT-B-16.pt",
    "fsfm_vit_b16": "checkpoint-400.pth",
}
VISUAL = {
    "patch_embed.proj": "conv1",
    "norm_pre": "ln_pre",
    "norm": "ln_post",
    "norm1": "ln_1",
    "norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "attn.proj": "attn.out_proj",
}


def openai_name(key: str) -> str:
    """Return what OpenAI calls a weight of the image tower."""
    if key == "cls_token":
        return "class_embedding"
    if key == "pos_embed":
        return "positional_embedding"
    parts = key.split(".")
    if parts[0] == "blocks":
        inner, last = ".".join(parts[2:-1]), parts[-1]
        end = f"attn.in_proj_{last}" if inner == "attn.qkv" else f"{VISUAL[inner]}.{last}"
        return f"transformer.resblocks.{parts[1]}.{end}"
    return f"{VISUAL['.'.join(parts[:-1])]}.{parts[-1]}"


def clip_file(path: Path) -> None:
    """Write a CLIP ViT-B/16 state dict as OpenAI names it, in half precision, text tower too."""
    net = timm.create_model("vit_base_patch16_clip_quickgelu_224", num_classes=0)
    tensors: dict[str, Tensor] = {}
    for key, value in net.state_dict().items():
        flat = value.reshape(value.shape[1:]) if key == "pos_embed" else value
        tensors[f"visual.{openai_name(key)}"] = flat.flatten() if key == "cls_token" else flat
    tensors["visual.proj"] = torch.randn(768, 512) * 0.03
    tensors |= {"token_embedding.weight": torch.randn(64, 512), "logit_scale": torch.tensor(4.6)}
    tensors |= {"text_projection": torch.randn(512, 512), "positional_embedding": torch.ones(77, 2)}
    torch.save({key: value.half() for key, value in tensors.items()}, path)


def fsfm_file(path: Path) -> None:
    """Write an FSFM pretraining checkpoint: namespace, decoder, and mean and std beside it."""
    net = timm.create_model("vit_base_patch16_224", num_classes=0)
    tensors = dict(net.state_dict()) | {"mask_token": torch.zeros(1, 1, 512)}
    tensors |= {"rep_decoder_embed.weight": torch.randn(512, 768)}
    tensors |= {"decoder_embed.weight": torch.randn(512, 768)}
    content = {"model": tensors, "optimizer": {}, "epoch": 400, "scaler": {}}
    torch.save({**content, "args": Namespace(model="fsfm_vit_base_patch16", epochs=401)}, path)
    words = {"mean": [0.5482, 0.4234, 0.3655], "std": [0.2789, 0.2439, 0.2349]}
    (path.parent / "pretrain_ds_mean_std.txt").write_text(json.dumps(words) + "\n")


def take_items(source: Path, home: Path, train: int, test: int) -> None:
    """Copy the first items of a data set in zips, with what its CSVs say of them."""
    home.mkdir(parents=True, exist_ok=True)
    for name, csv, count in (
        ("train", "train.csv", train),
        ("test", "sample_submission.csv", test),
    ):
        table = pd.read_csv(source / csv).sample(count, random_state=0)
        table.to_csv(home / csv, index=False)
        wanted = set(table.iloc[:, 0])
        with zipfile.ZipFile(source / f"{name}.zip") as archive:
            for member in archive.namelist():
                if Path(member).name in wanted:
                    archive.extract(member, home)


def main() -> None:
    """Write the files, type the commands, look at the submissions."""
    parser = argparse.ArgumentParser(description="Three published backbones, end to end.")
    parser.add_argument("--source", type=Path, required=True, help="folder of DFDC faces")
    parser.add_argument("--root", type=Path, required=True, help="where all of it is written")
    parser.add_argument("--items", type=int, default=600)
    arguments = parser.parse_args()
    root = arguments.root
    home = root / "input" / "faces600"
    take_items(arguments.source, home, arguments.items, 200)
    torch.manual_seed(0)
    net = timm.create_model("efficientnet_b0")
    save_file(net.state_dict(), root / MODELS["effnet_b0"])
    clip_file(root / MODELS["clip_vit_b16"])
    fsfm_file(root / MODELS["fsfm_vit_b16"])

    def type_in(script: str, *words: str) -> None:
        print("$", script, *words, flush=True)
        environment = os.environ | {"RVF_ROOT": str(root)}
        subprocess.run([sys.executable, REPO / script, *words], check=True, env=environment)

    for model, file in MODELS.items():
        frozen = ["--set", "strategy=feature_extractor", "--set", "augment=none"]
        frozen += ["--set", "mixup=0.0", "--set", "cutmix=0.0"]
        frozen += ["--set", "optim.lr=1e-3", "--set", "optim.epochs=20", "--as", f"{model}_frozen"]
        for fold in ("0", "1"):
            type_in("train_folds.py", "--model", model, *frozen, "--fold", fold,
                    "--weights", str(root / file))  # fmt: skip
    type_in("tune.py")
    type_in("predict_ensemble.py")
    for voting in ("soft", "hard"):
        type_in("tune.py", "--voting", voting, "--recipe", voting)
        type_in("predict_ensemble.py", "--recipe", voting)
    sample = pd.read_csv(home / "sample_submission.csv")
    for recipe in ("tuned", "soft", "hard"):
        made = pd.read_csv(root / "submissions" / "faces600" / f"{recipe}.csv")
        same = made.iloc[:, 0].equals(sample.iloc[:, 0]) and list(made) == list(sample)
        fine = same and set(made.iloc[:, 1]) <= {0, 1}
        print(f"{'ok   ' if fine else 'short'} {recipe}: {len(made)} rows, ids in order: {same}")


if __name__ == "__main__":
    main()
