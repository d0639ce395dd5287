"""What a run leaves behind: checkpoint, predictions of the held-out items and, last, the record."""

import logging
import subprocess
import sys
import time
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
import torch

from src import paths
from src.artifacts.competition import FORWARD
from src.artifacts.files import sha256_file
from src.artifacts.oof import write_oof, write_views
from src.artifacts.runs import SCHEMA, write_record
from src.compute import device, ranks
from src.compute.request import Compute
from src.data.pixels.source import PixelSource
from src.errors import UserError
from src.inference.predict import VIEWS, Seen, predict_shared
from src.models import checkpoint
from src.models.classifier import Classifier, count_parameters
from src.models.weights import Start
from src.texts import Texts
from src.training.job import Job
from src.training.monitor import LOSS, confidence_note, held_out_scores
from src.training.run import Run

LOG = logging.getLogger("rvf")
PACKAGES = ("torch", "timm", "albumentations", "numpy", "cv2", "simplejpeg", "sklearn")


def finish_run(
    job: Job,
    run: Run,
    source: PixelSource,
    compute: Compute,
    start: Start,
    known: Seen | None = None,
) -> None:
    """Predict the held-out fold with the kept weights and write every artefact, the record last.

    A refit holds nothing out, so it leaves a checkpoint and a record and no predictions. `known`
    are the held-out items' predictions where they need not be made. Of several ranks all predict,
    and one writes.

    Raises:
        UserError: a logit (of a refit: a weight) is not finite.
    """
    kept, began = run.averaged, time.monotonic()
    if known is not None:
        check_logits(job, known)
    seen = known
    if seen is None and job.is_refit:
        check_weights(job, kept)
    elif seen is None:
        seen = predict_held(job, kept, source, compute)
    seconds, together = time.monotonic() - began, ranks.count()
    ranks.led(lambda: _write(job, run, compute, start, seen, seconds, together))


def _write(
    job: Job,
    run: Run,
    compute: Compute,
    start: Start,
    seen: Seen | None,
    seconds: float,
    together: int,
) -> None:
    """Write every artefact of a run that so many ranks made; see `finish_run`."""
    kept, path = run.averaged, paths.checkpoint(*job.names)
    checkpoint.save_checkpoint(path, kept, job.config.as_dict(), list(VIEWS[job.config.tta]))
    report = {}
    if seen is not None:
        report = write_predictions(job, seen, sha256_file(path), unlike_epochs(job, run, compute))
        if note := confidence_note(job.labels[job.held_rows], seen.pooled(job.config.frames.pool)):
            LOG.warning("%s", note)
    record = {
        **opening(job, asdict(start)),
        "selection": selection_of(job),
        "epoch": run.kept_epoch,
        "precision": run.precision,
        "inference_precision": compute.precision,
        "micro_batch": run.micro_batch,
        "compiled": job.options.compile,
        "device": device.device_name(compute.chip),
        "threads": torch.get_num_threads(),
        "ranks": together,
        "seconds": run.seconds,
        "items_per_second": rate_of(run, job, seen, seconds),
        "parameters": count_parameters(kept),
        "trainable": run.kept[-1]["trainable"],
        "stages": run.kept,
        "history": run.history,
        "budget": run.budget,
        "metrics": report,
        "merged_from": None,
        **closing(job),
    }
    write_record(paths.run_record(*job.names), record)
    paths.run_state(*job.names).unlink(missing_ok=True)
    if seen is None:
        own = "items" if job.config.blend is None else "items there are, as blend says"
        LOG.info("trained on all %d %s -> %s", len(job.table), own, path)


def rate_of(run: Run, job: Job, seen: Seen | None, seconds: float) -> float:
    """Return how many items a second were trained on, the mean of the epochs.

    Where nothing was trained (`zero_shot`), a step is taken for three passes forward, as the held-
    out items took them in these seconds; 0 where there are none.
    """
    if run.history:
        return float(np.mean([entry["items_per_second"] for entry in run.history]))
    return 0.0 if seen is None else len(job.held_rows) / (FORWARD * seconds)


def selection_of(job: Job) -> str:
    """Return what the held-out items decided of a run; see `artifacts.runs.was_selected`."""
    if job.is_refit or not job.config.is_steered:
        return "last"
    return "best" if job.config.selection == "best" else "stopped"


def unlike_epochs(job: Job, run: Run, compute: Compute) -> str:
    """Say why the score of the predictions is not the last epoch's; "" where nothing differs."""
    views, last = VIEWS[job.config.tta], run.current.optim.swa_epochs
    differs = {
        f"the weights of epoch {run.kept_epoch}": run.kept_epoch != run.epoch,
        f"the mean of the weights of {last} epochs": run.swa is not None,
        f"{len(views)} views in place of 1 ({', '.join(views)})": len(views) > 1,
        f"{compute.precision} in place of {run.precision}": compute.precision != run.precision,
    }
    said = ", ".join(what for what, does in differs.items() if does)
    return f"other than the last epoch: {said}" if said else ""


def predict_held(job: Job, model: Classifier, source: PixelSource, compute: Compute) -> Seen:
    """Return the held-out items' predictions."""
    views = VIEWS[job.config.tta]
    seen = predict_shared(model, views, source, job.held_rows, compute, what="out-of-fold")
    check_logits(job, seen)
    return seen


def write_predictions(job: Job, seen: Seen, weights_sha: str, how: str = "") -> dict[str, float]:
    """Write the held-out predictions at both levels; returns their scores at 0.5.

    `how` goes into the log: what they were made by.
    """
    labels, pool = job.labels[job.held_rows], job.config.frames.pool
    ids = job.table["item_id"].iloc[job.held_rows]
    made_from = {"checkpoint_sha256": weights_sha, "pool": pool}
    table = seen.table(Texts(ids), job.fold, VIEWS[job.config.tta])
    write_views(paths.oof_views(*job.names), table, made_from)
    pooled = seen.pooled(pool)
    columns = {"item_id": ids.array, "fold": job.fold, "label": labels, "logit": pooled}
    write_oof(paths.oof_csv(*job.names), pd.DataFrame(columns))
    report = held_out_scores(labels, pooled)
    LOG.info(
        "out-of-fold, %d items at 0.5: loss %.4f accuracy %.4f macro_f1 %.4f auc %.4f%s -> %s",
        len(labels), report[LOSS], report["accuracy"], report["macro_f1"], report["auc"],
        f" ({how})" if how else "", paths.oof_csv(*job.names),
    )  # fmt: skip
    return report


def check_weights(job: Job, model: Classifier) -> None:
    """Raise a UserError where a refit's weights are not finite; no prediction would show it."""
    for name, tensor in model.net.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise UserError(
                f"{job.model} fold {job.fold}: {name} is not finite, so no checkpoint was written; "
                "start again with --overwrite --precision fp32, or train a calmer variant under "
                "its own name: --set optim.lr=... --as NAME"
            )


def check_logits(job: Job, seen: Seen) -> None:
    """Raise a UserError naming the first held-out item that has no finite logit."""
    rows, readable = job.held_rows, seen.readable
    if not readable.all():
        path = job.table["path"].iloc[rows[int((~readable).argmax())]]
        raise UserError(
            f"{job.root / path}: not readable any more; it was when the folds were made: put the "
            "file back, the same command goes on after the last finished epoch"
        )
    odd = seen.there & ~np.isfinite(seen.logits).all(1)
    if odd.any():
        item = job.table["item_id"].iloc[rows[int(seen.frames.place[odd.argmax()])]]
        raise UserError(
            f"the logit of {item!r} is not finite, so no predictions were written; start again "
            "with --overwrite --precision fp32, or train a variant with a lower optim.lr under "
            "its own name"
        )


def opening(job: Job, start: dict[str, Any]) -> dict[str, Any]:
    """Return what every record begins with: whose it is, and what must agree for its reuse."""
    return {
        "schema": SCHEMA,
        "dataset": job.dataset,
        "scheme": job.scheme,
        "model": job.model,
        "fold": job.fold,
        "config": job.config.as_dict(),
        **job.identity(start),
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
        "versions": _versions(),
        "git": _git_state(),
    }


def _versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide a result."""
    loaded = {name: sys.modules.get(name) for name in PACKAGES}
    found = {
        name: str(getattr(module, "__version__", "?")) for name, module in loaded.items() if module
    }
    return {"python": sys.version.split()[0], **found}


def _git_state() -> dict[str, Any]:
    """Return the commit of the code and whether it had changes; empty without git."""
    asked = ["describe", "--always", "--exclude=*", "--abbrev=40", "--dirty"]
    command = ["git", "-C", str(paths.REPO), *asked]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return {"sha": "", "dirty": False}
    sha = done.stdout.strip()
    return {"sha": sha.removesuffix("-dirty"), "dirty": sha.endswith("-dirty")}
