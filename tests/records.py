"""Records of runs that were never trained, as whole as training writes them."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from src import paths
from src.artifacts.files import SEAL, sha256_file, write_json
from src.artifacts.runs import KEYS, SCHEMA, write_record
from src.config import parse_model


def make_record(
    dataset: str, scheme: str, model: str, fold: paths.FoldName, **changes: Any
) -> dict[str, Any]:
    """Write the record of a run, of the files that lie beside it; returns what it says."""
    names = (dataset, scheme, model, fold)
    config = parse_model({"backbone": {"name": "compact_net", "pretrained": "none"}}, "toy")
    files = {
        "checkpoint": paths.checkpoint(*names),
        "oof": paths.oof_csv(*names),
        "views": paths.oof_views(*names),
        "folds": paths.folds_csv(dataset, scheme),
    }
    prints = {f"{k}_sha256": sha256_file(f) if f.is_file() else "" for k, f in files.items()}
    found = dict.fromkeys(KEYS, "")
    found |= {"dataset": dataset, "scheme": scheme, "model": model, "fold": fold, **prints}
    found |= {"config": config.as_dict(), "history": [], "epoch": 2, "metrics": {}, "stages": []}
    found |= {"start": {"source": "random", "sha256": ""}, "selection": "last"}
    found |= dict.fromkeys(["merged_from", "pseudo", "teachers", "stop_after", "paces", "budget"])
    found |= {"parameters": 7}
    found |= {"seconds": 3.25, "items_per_second": 5.0, "trainable": 7, "device": "cpu"}
    record = {"schema": SCHEMA, **found, **changes}
    write_record(paths.run_record(*names), record)
    return record


def fold_file(dataset: str, ids: list[str], folds: list[int] | None = None) -> str:
    """Write a fold file of scheme `s`, of two folds in turn; returns its fingerprint."""
    path = paths.folds_csv(dataset, "s")
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [f"{one},{k // 2 % 2},{one},,image,{folds[k] if folds else k % 2}"
            for k, one in enumerate(ids)]  # fmt: skip
    path.write_text("\n".join(["item_id,label,group,domain,kind,fold", *rows]) + "\n")
    return sha256_file(path)


def change_sealed(path: Path, change: Mapping[str, Any] | Callable[[dict[str, Any]], Any]) -> None:
    """Change a sealed JSON as the program that wrote it would have: with a seal that fits."""
    content = json.loads(path.read_text())
    del content[SEAL]
    if callable(change):
        change(content)
    else:
        content |= change
    write_json(path, content, seal=True)
