"""Ways to transfer one backbone, side by side: the same fold, the same weights, a CPU budget each.

python benchmarks/strategies.py --data dfdc_faces --weights mobilenetv2_100.imagenet1001.pth

Each row is a run of train_folds.py of its own. What a row costs is the CPU time of the whole
command: imports, decoding (the first row also fills the pixel cache), features, out-of-fold.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from src import metrics, paths
from src.artifacts.folds import existing_scheme

BUDGET = 6.0  # CPU-minutes a row
MODEL = "mobilenetv2_100"
CONVS = ["conv_pw", "conv_pwl"]
# Epochs that fit the budget on two cores; a strategy that computes less gets more of them.
ROWS: dict[str, dict[str, Any]] = {
    "from scratch": {"optim.epochs": 4},
    "feature_extractor": {"strategy": "feature_extractor", "optim.epochs": 20},
    "fine_tuning": {"optim.epochs": 4},
    "fine_tuning, one epoch": {"optim.epochs": 1},
    "two_stage": {"strategy": "two_stage", "optim.epochs": 6},
    "lp_ft": {"strategy": "lp_ft", "optim.epochs": 3},
    "layernorm_only": {"strategy": "layernorm_only", "optim.epochs": 4},
    "bitfit": {"strategy": "bitfit", "optim.epochs": 4},
    "lora": {"strategy": "lora", "transfer.lora_targets": CONVS, "optim.epochs": 3},
    "gradual unfreezing": {"transfer.unfreeze_every": 1, "optim.epochs": 6},
}
# A head, or a few weights, learn at a higher rate than a whole backbone.
LR = {"feature_extractor": 1e-3, "layernorm_only": 2e-3, "bitfit": 2e-3, "lora": 5e-4}


def train(row: str, arguments: argparse.Namespace) -> tuple[str, float]:
    """Run `train_folds.py` on one fold; returns the variant's name and its CPU-minutes."""
    changes = ROWS[row] | ({"optim.lr": LR[row]} if row in LR else {})
    name = f"bench_{row.replace(',', '').replace(' ', '_')}"
    command = [sys.executable, str(paths.REPO / "train_folds.py"), "--data", arguments.data]
    command += ["--model", MODEL, "--as", name, "--fold", str(arguments.fold), "--track", "none"]
    for key, value in changes.items():
        command += ["--set", f"{key}={json.dumps(value)}"]
    start = ["--no-pretrained"] if row == "from scratch" else ["--weights", str(arguments.weights)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([*command, *start, "--overwrite"], check=True, env=os.environ)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return name, spent / 60


def scores(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what a finished run says: trained share, epochs, AUC and macro-F1 of its fold."""
    scheme = existing_scheme(arguments.data, None)
    assert scheme is not None  # train_folds.py has made one
    names = (arguments.data, scheme, name, arguments.fold)
    record = json.loads(paths.run_record(*names).read_text())
    oof = pd.read_csv(paths.oof_csv(*names))
    label, logit = oof["label"].to_numpy(), oof["logit"].to_numpy()
    return {
        "trained": f"{100 * record['trainable'] / record['parameters']:.2f} %",
        "epochs": "+".join(str(stage["epochs"]) for stage in record["stages"]),
        "rows": len(oof),
        "AUC": metrics.auc(label, logit),
        "macro-F1": metrics.macro_f1(label, logit >= 0),
    }


def main() -> None:
    """Train every row and print the table."""
    parser = argparse.ArgumentParser(description="Strategies side by side on one fold.")
    parser.add_argument("--data", default="dfdc_faces")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--rows", nargs="*", choices=list(ROWS), default=list(ROWS))
    arguments = parser.parse_args()
    table = []
    for row in arguments.rows:
        name, minutes = train(row, arguments)
        table.append({"strategy": row, **scores(name, arguments), "CPU-min": minutes})
        fits = "ok   " if minutes <= BUDGET else "short"
        print(f"{fits} {row}: {minutes:.1f} CPU-minutes, limit {BUDGET:.0f}", flush=True)
    spent = {row["strategy"]: row["CPU-min"] for row in table}
    if {"feature_extractor", "fine_tuning, one epoch"} <= set(spent):
        frozen, epoch = spent["feature_extractor"], spent["fine_tuning, one epoch"]
        fits = "ok   " if frozen <= epoch else "short"
        print(f"{fits} features and 20 epochs: {frozen:.2f} CPU-minutes, one epoch: {epoch:.2f}")
    print(pd.DataFrame(table).to_string(index=False, float_format="{:.4f}".format))


if __name__ == "__main__":
    main()
