"""The record of a run: what was trained, on which folds, from where, and how it went."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from src import paths
from src.artifacts.files import read_json, sha256_json
from src.config import ModelConfig
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
    "selection",
    "epoch",
    "precision",
    "inference_precision",
    "device",
    "threads",
    "seconds",
    "items_per_second",
    "parameters",
    "trainable",
    "history",
    "metrics",
    "checkpoint_sha256",
    "versions",
    "git",
]
PACKAGES = ("torch", "timm", "albumentations", "numpy", "cv2", "sklearn")
# Fields that describe a model and do not change what is trained.
WORDS = ("about", "licence")


def config_sha256(config: ModelConfig) -> str:
    """Return the fingerprint of everything in a config that decides what is trained."""
    return sha256_json({k: v for k, v in config.as_dict().items() if k not in WORDS})


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
    }


def check_identity(found: dict[str, Any], want: dict[str, Any], path: Path) -> None:
    """Raise a UserError that says what differs between a run on disk and the one asked for.

    Args:
        found: a record, or the identity in a state.
        want: `identity`; a start whose sha256 is None may be any of its source.
        path: named in the message.
    """
    differs = []
    if found["config_sha256"] != want["config_sha256"]:
        differs.append("the model's config has changed since")
    if found["folds_sha256"] != want["folds_sha256"]:
        differs.append("the fold file has changed since")
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


def read_record(path: Path) -> dict[str, Any]:
    """Read the record of a finished run; raises UserError for a damaged one."""
    return read_json(path, schema=SCHEMA, what="run record", keys=KEYS)


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
