"""The record of a run: what was trained, on which folds, from where, and how it went."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from src import paths
from src.artifacts.files import read_json, sha256_json
from src.config import BackboneConfig, ModelConfig
from src.errors import UserError
from src.training.job import Job

SCHEMA = 1
KEYS = [
    "dataset",
    "scheme",
    "model",
    "fold",
    "config",
    "config_sha256",
    "start",
    "folds_sha256",
    "pseudo",
    "stop_after",
    "selection",
    "epoch",
    "precision",
    "inference_precision",
    "micro_batch",
    "compiled",
    "device",
    "threads",
    "seconds",
    "items_per_second",
    "parameters",
    "trainable",
    "stages",
    "history",
    "metrics",
    "merged_from",
    "checkpoint_sha256",
    "versions",
    "git",
]
PACKAGES = ("torch", "timm", "albumentations", "numpy", "cv2", "simplejpeg", "sklearn")
# Fields that describe a model and do not change what is trained.
WORDS = ("about", "licence")
# Newer than some records: the value that stands for its absence.
LATER = {
    "pseudo": None, "stop_after": None, "micro_batch": 0, "compiled": False, "stages": [],
    "merged_from": None,
}  # fmt: skip
# Keys of a config that are newer than some runs.
LATER_KEYS = {
    "backbone": ("grad_checkpointing",),
    "loss": ("gamma", "gamma_fake", "supcon", "temperature", "uniformity", "alignment"),
    "optim": ("schedule", "decay_epochs", "decay_rate", "swa_epochs", "layer_decay", "sam_rho"),
    "input": ("reencode", "crop"),
    "": (
        "pseudo",
        "erase",
        "head",
        "transfer",
        "mixup",
        "cutmix",
        "per_class",
        "frames",
        "face",
        "init_seed",
    ),
}


def config_sha256(config: ModelConfig) -> str:
    """Return the fingerprint of everything in a config that decides what is trained."""
    content = {k: v for k, v in config.as_dict().items() if k not in WORDS}
    without = ModelConfig(BackboneConfig(config.backbone.name)).as_dict()
    for section, keys in LATER_KEYS.items():
        part, default = (content[section], without[section]) if section else (content, without)
        for key in keys:
            if part[key] == default[key]:  # a run from before this key is the same run
                del part[key]
    return sha256_json(content)


def identity(job: Job, start: dict[str, Any]) -> dict[str, Any]:
    """Return what must agree for a run to be reused or resumed.

    Args:
        job: the run.
        start: `source` and `sha256` of the weights it starts from.
    """
    return {
        "config_sha256": config_sha256(job.config),
        "folds_sha256": job.folds_sha256,
        "start": {"source": start["source"], "sha256": start["sha256"]},
        "pseudo": job.pseudo,
        "stop_after": job.stop_after,
    }


def opening(job: Job, start: dict[str, Any]) -> dict[str, Any]:
    """Return what every record begins with: whose it is, and what must agree for its reuse."""
    return {
        "schema": SCHEMA,
        "dataset": job.dataset,
        "scheme": job.scheme,
        "model": job.model,
        "fold": job.fold,
        "config": job.config.as_dict(),
        **identity(job, start),
        "start": start,
    }


def check_identity(found: dict[str, Any], want: dict[str, Any], path: Path) -> None:
    """Raise a UserError that says what differs between a run on disk and the one asked for.

    Args:
        found: a record, or the identity in a state.
        want: `identity`; a start whose sha256 is None may be any of its source.
        path: named in the message.
    """
    differs = []
    _check_words(found, path)
    if found["config_sha256"] != want["config_sha256"]:
        differs.append("the model's config has changed since")
    if found["folds_sha256"] != want["folds_sha256"]:
        differs.append("the fold file has changed since")
    if found.get("pseudo") != want["pseudo"]:
        differs.append(
            "its pseudo-labels have changed since (the recipe, or its members' test predictions)"
        )
    if found.get("stop_after") != want["stop_after"]:
        differs.append(
            f"the folds' mean best epoch was {found.get('stop_after')}, now {want['stop_after']}"
        )
    if found.get("merged_from") is not None:
        differs.append("it was merged from others, not trained")
    began, wanted = found["start"], want["start"]
    same_file = wanted["sha256"] in (None, began["sha256"])
    if began["source"] != wanted["source"] or not same_file:
        differs.append(
            f"it started from other weights ({began['source']}, asked for: {wanted['source']})"
        )
    if differs:
        raise UserError(
            f"{path} is of another run: {'; '.join(differs)}. Train it again with --overwrite, or "
            "give the variant its own name (--as NEW_NAME, or a new config file)"
        )


def _check_words(found: Any, path: Path) -> None:  # noqa: ANN401 - whatever a file held
    start = found.get("start") if isinstance(found, dict) else None
    words = [
        *(found.get(key) for key in ("config_sha256", "folds_sha256") if isinstance(found, dict)),
        *(start.get(key) for key in ("source", "sha256") if isinstance(start, dict)),
    ]
    if len(words) != 4 or not all(isinstance(word, str) for word in words):
        raise UserError(
            f"{path}: does not say what it was trained from (damaged?); train it again with "
            "--overwrite"
        )


def read_record(path: Path) -> dict[str, Any]:
    """Read the record of a finished run; raises UserError for a damaged one."""
    found = read_json(path, schema=SCHEMA, what="run record", keys=KEYS, older=LATER)
    kinds = {"config": dict, "start": dict, "metrics": dict, "history": list, "epoch": int}
    for key, kind in {**kinds, "checkpoint_sha256": str, "selection": str}.items():
        if not isinstance(found[key], kind):
            raise UserError(f"{path}: {key} is {str(found[key])[:80]!r}, want {kind.__name__}")
    return found


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide a result."""
    loaded = {name: sys.modules.get(name) for name in PACKAGES}
    found = {
        name: str(getattr(module, "__version__", "?")) for name, module in loaded.items() if module
    }
    return {"python": sys.version.split()[0], **found}


def git_state() -> dict[str, Any]:
    """Return the commit of the code and whether it had changes; empty without git."""
    try:
        sha = _git("rev-parse", "HEAD")
        return {"sha": sha, "dirty": bool(_git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return {"sha": "", "dirty": False}


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(paths.REPO), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()
