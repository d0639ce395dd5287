"""What a run leaves behind: a line an epoch, then checkpoint, predictions and, last, the record."""

import logging
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
import torch

from src import paths
from src.artifacts.files import sha256_file, write_json
from src.artifacts.oof import write_oof, write_views
from src.data.pixels import PixelSource
from src.errors import UserError
from src.metrics import classification_report
from src.models.classifier import count_parameters
from src.models.weights import Start
from src.training import checkpoint, device, record
from src.training.fill import view_rows
from src.training.job import Job
from src.training.predict import VIEWS, Compute, predict_views
from src.training.run import Run

LOG = logging.getLogger("rvf")
SHOWN = ("accuracy", "macro_f1", "f1_real", "f1_fake", "precision", "recall", "auc")


class EpochLog:
    """One log line and one TensorBoard entry an epoch."""

    def __init__(self, job: Job) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(paths.tensorboard_dir(*job.names)))

    def write(self, entry: dict[str, float], epochs: int, seconds: float) -> None:
        """Report one epoch of the history."""
        number = int(entry["epoch"])
        scores = " ".join(f"{name} {entry[name]:.4f}" for name in SHOWN)
        rate = entry["items_per_second"]
        LOG.info(
            "epoch %d/%d loss %.4f | held out at 0.5: %s | %.0f img/s %.0f s",
            number, epochs, entry["loss"], scores, rate, seconds,
        )  # fmt: skip
        for name, value in entry.items():
            self.writer.add_scalar(name, value, number)

    def close(self) -> None:
        """Write what is still in memory."""
        self.writer.close()


def finish_run(
    job: Job,
    run: Run,
    source: PixelSource,
    compute: Compute,
    start: Start,
) -> None:
    """Predict the held-out fold with the kept weights and write every artefact, the record last.

    Raises:
        UserError: a logit is not finite.
    """
    if run.best:
        run.averaged.net.load_state_dict(run.best["net"])
    views = VIEWS[job.config.tta]
    model = run.averaged
    held = job.held_rows
    logits, readable = predict_views([model], [views], source, held, compute, what="out-of-fold")
    pooled = logits[0].mean(1)
    ids = job.table["item_id"].iloc[held].to_numpy()
    check_logits(job, logits[0], readable)
    config = job.config.as_dict()
    checkpoint.save_checkpoint(paths.checkpoint(*job.names), model, config, list(views))
    weights_sha = sha256_file(paths.checkpoint(*job.names))
    table = view_rows(list(ids), job.fold, list(views), logits[0], readable)
    write_views(paths.oof_views(*job.names), table, {"checkpoint_sha256": weights_sha})
    labels = job.labels[held]
    oof = pd.DataFrame({"item_id": ids, "fold": job.fold, "label": labels, "logit": pooled})
    write_oof(paths.oof_csv(*job.names), oof)
    report = classification_report(labels, pooled, 0.5)
    write_json(
        paths.run_record(*job.names),
        _record(job, run, compute, start, report, weights_sha),
    )
    paths.run_state(*job.names).unlink(missing_ok=True)
    LOG.info(
        "out-of-fold, %d items at 0.5: macro_f1 %.4f auc %.4f -> %s",
        len(held), report["macro_f1"], report["auc"], paths.oof_csv(*job.names),
    )  # fmt: skip


def check_logits(job: Job, logits: np.ndarray, readable: np.ndarray) -> None:
    """Raise a UserError naming the first held-out item that has no finite logit.

    Args:
        job: the run; its held rows are what was predicted.
        logits: float64 (n, n_views).
        readable: bool (n,).
    """
    held = job.table.iloc[job.held_rows]
    if not readable.all():
        path = held["path"].iloc[int((~readable).argmax())]
        raise UserError(
            f"{job.root / path}: not readable any more; it was when the folds were made: put the "
            "file back, the same command goes on after the last finished epoch"
        )
    finite = np.isfinite(logits).all(1)
    if not finite.all():
        item = held["item_id"].iloc[int((~finite).argmax())]
        raise UserError(
            f"the logit of {item!r} is not finite, so no predictions were written; start again "
            "with --overwrite --precision fp32, or train a variant with a lower optim.lr under "
            "its own name"
        )


def _record(
    job: Job,
    run: Run,
    compute: Compute,
    start: Start,
    report: dict[str, float],
    weights_sha: str,
) -> dict[str, Any]:
    return {
        "schema": record.SCHEMA,
        "dataset": job.dataset,
        "scheme": job.scheme,
        "model": job.model,
        "fold": job.fold,
        "config": job.config.as_dict(),
        **record.identity(job, asdict(start)),
        "start": asdict(start),
        "selection": job.config.selection,
        "epoch": int(run.best.get("epoch", run.epoch)),
        "precision": run.precision,
        "inference_precision": compute.precision,
        "device": device.device_name(compute.device),
        "threads": torch.get_num_threads(),
        "seconds": run.seconds,
        "items_per_second": float(np.mean([e["items_per_second"] for e in run.history])),
        "parameters": count_parameters(run.model),
        "trainable": count_parameters(run.model, trainable=True),
        "history": run.history,
        "metrics": report,
        "checkpoint_sha256": weights_sha,
        "versions": record.versions(),
        "git": record.git_state(),
    }
