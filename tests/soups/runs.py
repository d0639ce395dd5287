"""Merges of the trained pair: written down, carried out, read again."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from src import paths
from src.artifacts.files import sha256_file
from src.artifacts.folds import read_folds
from src.artifacts.oof import read_oof
from src.artifacts.runs import read_record
from src.soups.bench import Bench, plain
from src.soups.ingredients import resolve
from src.soups.plan import MergePlan, read_plan
from src.soups.run import Merged, merge_fold
from src.training.job import Job
from tests.records import change_sealed

NAMES = ("tiny", "s")
UNIFORM = "merge_method: uniform\nmodels: [a, b]\n"
GREEDY = UNIFORM + "select: greedy\n"


def plan_of(tmp_path: Path, text: str, name: str = "soup") -> MergePlan:
    """Return a merge that is written down."""
    path = tmp_path / f"{name}.yaml"
    path.write_text(text)
    return read_plan(path)


def merge(
    plan: MergePlan, job: Job, fold: int | str = 0, *, check: bool = False, **options: object
) -> Merged:
    """Merge one fold, without a walk between the models unless it is asked for."""
    chosen = replace(job.options, **options)  # type: ignore[arg-type]
    return merge_fold(plan, replace(job, fold=fold, options=chosen), check=check)


def bench_of(job: Job, names: str, batchnorm: int = 30) -> Bench:
    """Return a bench of some models, named by words."""
    return Bench(job, resolve([plain("uniform", names.split())], job), batchnorm)


def oof_of(model: str, fold: int = 0) -> np.ndarray:
    """Return a run's out-of-fold logits, sorted by item_id."""
    folds = read_folds(paths.folds_csv(*NAMES))
    oof = read_oof(paths.oof_csv(*NAMES, model, fold), folds, fold)
    return oof.sort_values("item_id")["logit"].to_numpy()


def record_of(model: str = "soup", fold: int | str = 0) -> dict[str, Any]:
    """Return the record of a run."""
    return read_record(paths.run_record(*NAMES, model, fold))


def weights_of(model: str) -> dict[str, Tensor]:
    """Return a run's weights."""
    return load_file(paths.checkpoint(*NAMES, model, 0))


def copy_run(model: str, new: str) -> None:
    """Give a finished run another name, as if it had been trained twice."""
    for make in (paths.checkpoint, paths.run_record, paths.oof_csv, paths.oof_views):
        source, target = (make(*NAMES, name, 0) for name in (model, new))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
    change_sealed(paths.run_record(*NAMES, new, 0), {"model": new})


def file_of(model: str, folder: Path, *, alone: bool = False) -> Path:
    """Copy a run's weights into a folder, and its record beside them; returns the former."""
    file = folder / f"{model}.safetensors"
    folder.mkdir(exist_ok=True)
    shutil.copy(paths.checkpoint(*NAMES, model, 0), file)
    if not alone:
        shutil.copy(paths.run_record(*NAMES, model, 0), file.with_suffix(".json"))
    return file


def change_run(model: str, **record: object) -> None:
    """Change what the record of a run says, with its checkpoint's fingerprint as it is now."""
    sha256 = sha256_file(paths.checkpoint(*NAMES, model, 0))
    change_sealed(paths.run_record(*NAMES, model, 0), {"checkpoint_sha256": sha256, **record})


def change_metadata(model: str, change: Callable[[dict], object]) -> None:
    """Change what a checkpoint says of itself."""
    path = paths.checkpoint(*NAMES, model, 0)
    with safe_open(path, "pt") as file:
        metadata = json.loads(file.metadata()["rvf"])
    change(metadata)
    save_file(load_file(path), path, {"rvf": json.dumps(metadata)})
    change_run(model)
