"""The record of a run: what was trained, on which folds, from where, and how it went."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from src import paths
from src.artifacts.files import sha256_file, sha256_json
from src.artifacts.runs import SCHEMA
from src.config import ModelConfig
from src.errors import UserError
from src.training.job import Job

PACKAGES = ("torch", "timm", "albumentations", "numpy", "cv2", "simplejpeg", "sklearn")
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
        "data_sha256": job.data_sha256,
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


def closing(job: Job) -> dict[str, Any]:
    """Return what every record ends with: what the run left on disk, and what it was made by."""
    made = {"checkpoint": paths.checkpoint(*job.names)}
    if not job.is_refit:
        made |= {"oof": paths.oof_csv(*job.names), "views": paths.oof_views(*job.names)}
    return {
        **{f"{what}_sha256": "" for what in ("oof", "views")},
        **{f"{what}_sha256": sha256_file(path) for what, path in made.items()},
        "versions": versions(),
        "git": git_state(),
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
    elif found["data_sha256"] != want["data_sha256"]:
        differs.append("files of the data set have changed since (their sizes differ)")
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
    prints = ("config_sha256", "data_sha256", "folds_sha256")
    words = [
        *(found.get(key) for key in prints if isinstance(found, dict)),
        *(start.get(key) for key in ("source", "sha256") if isinstance(start, dict)),
    ]
    if len(words) != 5 or not all(isinstance(word, str) for word in words):
        raise UserError(
            f"{path}: does not say what it was trained from (damaged?); train it again with "
            "--overwrite"
        )


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
