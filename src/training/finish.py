"""What a run leaves behind: a line an epoch, then checkpoint, predictions and, last, the record."""

import logging
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
import torch

from src import paths
from src.artifacts.files import sha256_file
from src.artifacts.oof import write_oof, write_views
from src.artifacts.runs import write_record
from src.compute import device
from src.data.pixels.source import PixelSource
from src.errors import UserError
from src.inference.frames import Seen, predict_items
from src.inference.predict import VIEWS, Compute
from src.metrics import classification_report
from src.models import checkpoint
from src.models.classifier import Classifier, count_parameters
from src.models.weights import Start
from src.training import record
from src.training.job import Job
from src.training.run import Run
from src.training.trackers import TRACKERS, Tracked

LOG = logging.getLogger("rvf")
SHOWN = ("accuracy", "macro_f1", "f1_real", "f1_fake", "precision", "recall", "auc")


class EpochLog:
    """One log line and one entry of the tracker (`--track`) an epoch."""

    def __init__(self, job: Job) -> None:
        tracked = Tracked(job.names, job.config.as_dict(), job.options.overwrite)
        self.tracker = TRACKERS.get(job.options.track)(tracked)

    def write(self, entry: dict[str, Any], epochs: int, seconds: float) -> None:
        """Report one epoch of the history.

        Args:
            entry: of the history: `epoch`, `loss`, `items_per_second`, scores, perhaps `stage`.
            epochs: that the run will have.
            seconds: the epoch took.
        """
        number = int(entry["epoch"])
        scores = " ".join(f"{name} {entry[name]:.4f}" for name in SHOWN if name in entry)
        scores = f"held out at 0.5: {scores}" if scores else "nothing held out"
        stage = f"{entry['stage']} " if entry.get("stage") else ""
        LOG.info(
            "%sepoch %d/%d loss %.4f | %s | %.0f img/s %.0f s",
            stage, number, epochs, entry["loss"], scores, entry["items_per_second"], seconds,
        )  # fmt: skip
        numbers = {k: float(v) for k, v in entry.items() if isinstance(v, int | float)}
        self.tracker.log(numbers, number)

    def close(self) -> None:
        """Write what is still in memory."""
        self.tracker.close()


def finish_run(
    job: Job,
    run: Run,
    source: PixelSource,
    compute: Compute,
    start: Start,
) -> None:
    """Predict the held-out fold with the kept weights and write every artefact, the record last.

    A refit holds nothing out, so it leaves a checkpoint and a record and no predictions.

    Raises:
        UserError: a logit (of a refit: a weight) is not finite.
    """
    views = VIEWS[job.config.tta]
    kept = run.averaged
    table = check_weights(job, kept) if job.is_refit else predict_held(job, kept, source, compute)
    config = job.config.as_dict()
    checkpoint.save_checkpoint(paths.checkpoint(*job.names), run.averaged, config, list(views))
    weights_sha = sha256_file(paths.checkpoint(*job.names))
    report = {} if table is None else write_predictions(job, table, weights_sha)
    write_record(paths.run_record(*job.names), _record(job, run, compute, start, report))
    paths.run_state(*job.names).unlink(missing_ok=True)
    if table is None:
        LOG.info("trained on all %d items -> %s", len(job.table), paths.checkpoint(*job.names))


def predict_held(job: Job, model: Classifier, source: PixelSource, compute: Compute) -> Seen:
    """Return the held-out items' predictions."""
    seen = predict_items(
        model, VIEWS[job.config.tta], source, job.held_rows, compute, what="out-of-fold"
    )
    check_logits(job, seen)
    return seen


def write_predictions(job: Job, seen: Seen, weights_sha: str) -> dict[str, float]:
    """Write the held-out predictions at both levels; returns their scores at 0.5."""
    labels, pool = job.labels[job.held_rows], job.config.frames.pool
    names = job.table["item_id"].iloc[job.held_rows].tolist()
    made_from = {"checkpoint_sha256": weights_sha, "pool": pool}
    table = seen.table(names, job.fold, VIEWS[job.config.tta])
    write_views(paths.oof_views(*job.names), table, made_from)
    pooled = seen.pooled(pool)
    ids = job.table["item_id"].iloc[job.held_rows].to_numpy()
    oof = pd.DataFrame({"item_id": ids, "fold": job.fold, "label": labels, "logit": pooled})
    write_oof(paths.oof_csv(*job.names), oof)
    report = classification_report(labels, pooled, 0.5)
    LOG.info(
        "out-of-fold, %d items at 0.5: macro_f1 %.4f auc %.4f -> %s",
        len(labels), report["macro_f1"], report["auc"], paths.oof_csv(*job.names),
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
    """Raise a UserError naming the first held-out item that has no finite logit.

    Args:
        job: the run; its held rows are what was predicted.
        seen: the predictions.
    """
    held, readable = job.table.iloc[job.held_rows], seen.readable
    if not readable.all():
        path = held["path"].iloc[int((~readable).argmax())]
        raise UserError(
            f"{job.root / path}: not readable any more; it was when the folds were made: put the "
            "file back, the same command goes on after the last finished epoch"
        )
    odd = seen.there & ~np.isfinite(seen.logits).all(1)
    if odd.any():
        item = held["item_id"].iloc[int(seen.frames.place[odd.argmax()])]
        raise UserError(
            f"the logit of {item!r} is not finite, so no predictions were written; start again "
            "with --overwrite --precision fp32, or train a variant with a lower optim.lr under "
            "its own name"
        )


def stop_on_loss(
    what: str, value: float, batch: dict[str, torch.Tensor], run: Run, job: Job
) -> None:
    """Raise the UserError of a loss or gradient that is not finite; names the batch's items."""
    ids = job.table["item_id"].iloc[batch["item"].tolist()].tolist()
    raise UserError(
        f"epoch {run.epoch + 1}: the {what} is {value}; stopped before the step. Items of the "
        f"batch: {', '.join(ids)}. Start again with --overwrite --precision fp32, or train a "
        "calmer variant under its own name: --set optim.lr=... --as NAME"
    )


def _record(
    job: Job,
    run: Run,
    compute: Compute,
    start: Start,
    report: dict[str, float],
) -> dict[str, Any]:
    return {
        **record.opening(job, asdict(start)),
        "selection": "last" if job.is_refit else job.config.selection,
        "epoch": int(run.best.get("epoch", run.epoch)),
        "precision": run.precision,
        "inference_precision": compute.precision,
        "micro_batch": run.micro_batch,
        "compiled": job.options.compile,
        "device": device.device_name(compute.device),
        "threads": torch.get_num_threads(),
        "seconds": run.seconds,
        "items_per_second": float(np.mean([e["items_per_second"] for e in run.history])),
        "parameters": count_parameters(run.averaged),
        "trainable": run.kept[-1]["trainable"],
        "stages": run.kept,
        "history": run.history,
        "metrics": report,
        "merged_from": None,
        **record.closing(job),
    }
